# SPDX-License-Identifier: Apache-2.0
"""Which collections hold an image, and which of its digests their files are named by.

The rules are those of docs/spec/archive.md#file-name and docs/spec/archive.md#digest-links.

An image has a config digest, by which Docker's classic store and Podman know it, and a
manifest digest, by which a containerd store does. A node starts what its own store knows,
so a file is named by the one or the other; both may be there, over the same blocks.

Links alone do not say which of the two a digest is; the archive's head does. It is read
only where there is doubt: a link of class ``docker_image_digest`` by the very digest that was
asked for. One that is named by a manifest digest alone has such a link to itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..arvados.catalog import resolver
from ..arvados.catalog.ranking import sort_key
from ..arvados.catalog.resolver import DIGEST, HASH, REPO_TAG
from ..arvados.client import Cluster, CollectionRecord, Link
from ..arvados.stored import StoredImage, holds, image_file, may_be_canonical
from ..arvados.trust import Trust
from ..errors import ClusterError, ContentError, KeepError
from ..images import verify
from ..local.progress import Progress, size_text
from ..local.settings import CONFIG, MANIFEST
from ..model.image import Digest


@dataclass(frozen=True, slots=True)
class Holder:
    """A collection that holds an image beyond doubt, its file named by ``image_id``, and the link that says so.

    ``stored`` is its archive, if that was looked into.
    """

    image_id: Digest
    link: Link
    collection: CollectionRecord
    stored: StoredImage | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """What a cluster has of an image.

    ``holders`` are collections by what names their files (CONFIG, MANIFEST), and ``ids`` the
    image's digests by the same, as far as they are known. ``source`` is one of the holders whose
    blocks make the collection under another digest. ``links`` are all by any of these digests.
    """

    holders: Mapping[str, Holder] = field(default_factory=dict)
    ids: Mapping[str, Digest] = field(default_factory=dict)
    source: StoredImage | None = None
    links: tuple[Link, ...] = ()

    def has(self, kinds: Iterable[str]) -> bool:
        """Whether nothing of the image has to be read to have it under all these digests."""
        return all(kind in self.holders or self.source is not None for kind in kinds)


class Holders:
    """Finds the collections that hold an image. ``owner`` is whose are preferred."""

    def __init__(self, cluster: Cluster, trust: Trust, owner: str, progress: Progress) -> None:
        self._cluster = cluster
        self._trust = trust
        self._owner = owner
        self._progress = progress

    def find(
        self,
        image_id: Digest,
        kinds: Sequence[str],
        *,
        also: Sequence[str] = (),
        diff_ids: Sequence[Digest] = (),
        read_back: bool = True,
    ) -> Held:
        """What there is of the image that its source calls ``image_id``, whichever of its digests that is.

        ``kinds`` are wanted. Links by the names in ``also`` are asked for with the others. An index's digest may stand
        for the images of several platforms: then ``diff_ids``, if they are known, say which is meant. What only
        strangers say is read back, unless ``read_back`` is False.
        """
        links = self._links([str(image_id), *also])
        found = self._by_hash(image_id, links, read_back=read_back)
        others = self._by_digest(image_id, links)
        if not others and list(kinds) == [CONFIG]:
            return Held(_first({CONFIG: found}), links=links)
        opened = [it for each in (*found, *others) if (it := self._opened(each, deep=MANIFEST in kinds)) is not None]
        first = next((it.stored for it in opened if it.stored is not None and _has(it.stored, diff_ids)), None)
        if first is None:  # of another layout: it is used as it is, whatever names it
            return Held(_first({CONFIG: [it for it in opened if it.stored is None]}), links=links)
        opened = [it for it in opened if it.stored is None or it.stored.config == first.config]
        ids = {CONFIG: first.config.digest, MANIFEST: first.layout.manifest_digest}
        ours = next((it.stored for it in opened if it.stored is not None and it.stored.is_ours), None)
        links += self._links([str(it) for it in ids.values() if it != image_id])
        holders: dict[str, Holder] = {}
        for it in opened:
            holders.setdefault(CONFIG if it.image_id == ids[CONFIG] or it.stored is None else MANIFEST, it)
        missing = [kind for kind in kinds if kind not in holders]
        read_back = read_back and ours is None
        further = {kind: self._by_hash(ids[kind], links, read_back=read_back) for kind in missing}
        return Held(holders | _first(further), ids, ours, links)

    def under(self, ids: Mapping[str, Digest], *, also: Sequence[str] = ()) -> Held:
        """What there is of the image with these digests, by the word of trusted users."""
        links = self._links([*map(str, ids.values()), *also])
        found = {kind: self._by_hash(image_id, links, read_back=False) for kind, image_id in ids.items()}
        return Held(_first(found), ids, None, links)

    # -- private -------------------------------------------------------------------------

    def _links(self, names: Sequence[str]) -> tuple[Link, ...]:
        """Every link by one of these names, in one request."""
        classes = ["link_class", "in", [HASH, REPO_TAG, DIGEST]]
        return tuple(self._cluster.links([classes, ["name", "in", list(dict.fromkeys(names))]]))

    def _by_hash(self, image_id: Digest, links: Iterable[Link], *, read_back: bool) -> list[Holder]:
        """The collections whose file is named so, the preferred first.

        A link of somebody who is not trusted is only a hint: then the collection is read back
        and every layer hashed, once; our own link attests it from then on
        (docs/spec/trust.md#reading-back).
        """
        named = [link for link in links if link.link_class == HASH and link.name == str(image_id)]
        if not named:
            return []
        collections = resolver.collections_of(self._cluster, named, manifest=True)
        pairs = [
            Holder(image_id, link, collections[link.head_uuid])
            for link in sorted(named, key=sort_key, reverse=True)
            if link.head_uuid in collections and _lasts(collections[link.head_uuid], image_id)
        ]
        sure = [it for it in pairs if self._trust.attests(it.link, it.collection)]
        if not sure and read_back:
            sure = [it for it in pairs[:1] if self._reads_back(it)]
        return sorted(sure, key=lambda it: it.collection.owner_uuid != self._owner)

    def _by_digest(self, digest: Digest, links: Iterable[Link]) -> list[Holder]:
        """The collections of images that trusted users' links call by another digest."""
        named = [link for link in links if link.link_class == DIGEST and link.name == str(digest)]
        collections = resolver.collections_of(self._cluster, named, manifest=True) if named else {}
        found = []
        for link in sorted(named, key=sort_key, reverse=True):
            collection = collections.get(link.head_uuid)
            if collection is not None and not collection.trash_at and self._trust.attests(link, collection):
                try:
                    found.append(Holder(image_file(collection).image_id, link, collection))
                except ContentError:
                    continue
        return sorted(found, key=lambda it: it.collection.owner_uuid != self._owner)

    def _opened(self, holder: Holder, *, deep: bool) -> Holder | None:
        """The holder with its archive: of one that we made a small block is read; ``deep``: of any other much more.

        None if that is lost or damaged.
        """
        if not deep and not may_be_canonical(holder.collection):
            return holder
        try:
            return replace(holder, stored=StoredImage(self._cluster, holder.collection))
        except (ContentError, KeepError) as error:
            self._progress.say(f"{holder.collection.uuid} is not used: {error.message}")
            return None

    def _reads_back(self, holder: Holder) -> bool:
        uuid = holder.collection.uuid
        about = size_text(image_file(holder.collection).size)
        self._progress.say(f"{uuid} was linked by somebody else: reading it back to compare, {about}")
        try:
            report = verify.verify(self._cluster, holder.collection, quick=False, progress=self._progress)
        except (ContentError, ClusterError) as error:
            self._progress.say(f"{uuid} is not used: {error.message}")
            return False
        return holder.image_id in (report.config_digest, report.manifest_digest)


def _lasts(collection: CollectionRecord, image_id: Digest) -> bool:
    return holds(collection, image_id) and not collection.trash_at


def _first(found: Mapping[str, Sequence[Holder]]) -> dict[str, Holder]:
    """The preferred holder of each kind that has one."""
    return {kind: holders[0] for kind, holders in found.items() if holders}


def _has(stored: StoredImage, diff_ids: Sequence[Digest]) -> bool:
    """Whether the archive's image has these layers, if any are said."""
    return not diff_ids or stored.config.diff_ids == tuple(diff_ids)

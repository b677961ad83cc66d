# SPDX-License-Identifier: Apache-2.0
"""Lookup of an image: the collections that hold it, and the digests in the names of their files.

The rules are those of docs/spec/archive.md#file-name and docs/spec/archive.md#digest-links.

An image has a config digest, by which Docker's classic store and Podman know it, and a
manifest digest, by which a containerd store does. A node starts what its own store knows,
so a file is named by the one or the other; both may be there, over the same blocks.

Links alone do not say which of the two a digest is; the archive's head does. It is read
only where there is doubt: a link of class ``docker_image_digest`` by the very digest that was
asked for. One that is named by a manifest digest alone has such a link to itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..arvados.catalog import link_query
from ..arvados.catalog.link_classes import DIGEST, HASH, REPO_TAG
from ..arvados.catalog.ranking import sort_key
from ..arvados.client import Cluster, CollectionRecord, Link
from ..arvados.stored import StoredImage, holds, image_file, may_be_canonical
from ..arvados.trust import Trust
from ..errors import ClusterError, ContentError, KeepError
from ..images import verify
from ..local.progress import Progress, size_text
from ..local.settings import CONFIG, MANIFEST
from ..model.image import Digest

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredUnder:
    """A collection with a proven image, its file named by ``image_id``, and the link to it.

    ``stored`` is its archive, if that was looked into.
    """

    image_id: Digest
    link: Link
    collection: CollectionRecord
    stored: StoredImage | None = None


@dataclass(frozen=True, slots=True)
class LookupResult:
    """The collections and links of an image in a cluster.

    ``by_kind`` are collections by the kind of digest that names their files (CONFIG, MANIFEST), and ``ids`` the
    image's digests by the same, as far as they are known. ``source`` is one of the collections whose
    blocks make the collection under another digest. ``links`` are all by any of these digests.
    """

    by_kind: Mapping[str, StoredUnder] = field(default_factory=dict)
    ids: Mapping[str, Digest] = field(default_factory=dict)
    source: StoredImage | None = None
    links: tuple[Link, ...] = ()

    def suffices(self, kinds: Iterable[str]) -> bool:
        """True if all these digests can be had without reading the image."""
        return all(kind in self.by_kind or self.source is not None for kind in kinds)


class ImageLookup:
    """Lookup of collections that hold an image.

    ``owner`` is whose are preferred, ``pdh`` the only content that counts.
    """

    def __init__(
        self, cluster: Cluster, trust: Trust, owner: str, progress: Progress, *, pdh: str | None = None
    ) -> None:
        self._cluster = cluster
        self._trust = trust
        self._owner = owner
        self._pdh = pdh
        self._progress = progress

    def find(
        self,
        image_id: Digest,
        kinds: Sequence[str],
        *,
        also: Sequence[str] = (),
        diff_ids: Sequence[Digest] = (),
        read_back: bool = True,
    ) -> LookupResult:
        """Return everything that Keep has of the image; ``image_id`` is any digest by which the source calls it.

        ``kinds`` are wanted. Links by the names in ``also`` are asked for with the others. An index's digest may stand
        for the images of several platforms: then ``diff_ids``, if they are known, say which is meant. What only
        strangers say is read back, unless ``read_back`` is False. There are three cases:

        ========================================  =====================================================
        wanted by the config's digest alone, and  ``_by_config``: the links say it all
        nobody calls an image by this digest
        the archives are not canonical ones       ``_in_other_layout``: used as they are, whatever names
                                                  their files
        a canonical archive was looked into       ``_under_both``: its head says both digests
        ========================================  =====================================================
        """
        links = self._links([str(image_id), *also])
        by_hash = self._by_hash(image_id, links, read_back=read_back)
        by_digest = self._by_digest(image_id, links)
        if not by_digest and list(kinds) == [CONFIG]:
            return self._by_config(by_hash, links)
        looked_into = [self._look_into(each, deep=MANIFEST in kinds) for each in (*by_hash, *by_digest)]
        candidates = [each for each in looked_into if each is not None]
        described = (each.stored for each in candidates if each.stored is not None and _has(each.stored, diff_ids))
        image = next(described, None)
        if image is None:
            return self._in_other_layout(candidates, links)
        return self._under_both(image, candidates, [*kinds], links, image_id, read_back=read_back)

    def find_trusted(self, ids: Mapping[str, Digest], *, also: Sequence[str] = ()) -> LookupResult:
        """Return the collections and links of the image with these digests, by trusted users."""
        links = self._links([*map(str, ids.values()), *also])
        by_kind = {kind: self._by_hash(image_id, links, read_back=False) for kind, image_id in ids.items()}
        return LookupResult(_preferred_holders(by_kind), ids, None, links)

    # -- the cases ---------------------------------------------------------------------------

    def _by_config(self, by_hash: Sequence[StoredUnder], links: tuple[Link, ...]) -> LookupResult:
        return LookupResult(_preferred_holders({CONFIG: by_hash}), links=links)

    def _in_other_layout(self, candidates: Sequence[StoredUnder], links: tuple[Link, ...]) -> LookupResult:
        return LookupResult(
            _preferred_holders({CONFIG: [each for each in candidates if each.stored is None]}), links=links
        )

    def _under_both(
        self,
        image: StoredImage,
        candidates: Sequence[StoredUnder],
        kinds: Sequence[str],
        links: tuple[Link, ...],
        image_id: Digest,
        *,
        read_back: bool,
    ) -> LookupResult:
        ids = {CONFIG: image.config.digest, MANIFEST: image.layout.manifest_digest}
        same = [each for each in candidates if each.stored is None or each.stored.config == image.config]
        source = next((each.stored for each in same if each.stored is not None and each.stored.is_ours), None)
        links += self._links([str(digest) for digest in ids.values() if digest != image_id])
        by_kind: dict[str, StoredUnder] = {}
        for each in same:
            by_kind.setdefault(CONFIG if each.image_id == ids[CONFIG] or each.stored is None else MANIFEST, each)
        missing = [kind for kind in kinds if kind not in by_kind]
        read_back = read_back and source is None
        further = {kind: self._by_hash(ids[kind], links, read_back=read_back) for kind in missing}
        return LookupResult(by_kind | _preferred_holders(further), ids, source, links)

    # -- what links say ----------------------------------------------------------------------

    def _links(self, names: Sequence[str]) -> tuple[Link, ...]:
        """All links by any of these names, in a single request."""
        classes = ["link_class", "in", [HASH, REPO_TAG, DIGEST]]
        return tuple(self._cluster.links([classes, ["name", "in", list(dict.fromkeys(names))]]))

    def _by_hash(self, image_id: Digest, links: Iterable[Link], *, read_back: bool) -> list[StoredUnder]:
        """Collections whose file is named by that digest, the preferred first.

        A link of somebody who is not trusted is only a hint: then the collection is read back
        and every layer hashed, once; our own link attests it from then on
        (docs/spec/trust.md#reading-back).
        """
        named = [link for link in links if link.link_class == HASH and link.name == str(image_id)]
        if not named:
            return []
        collections = link_query.collections_of(self._cluster, named, manifest=True)
        linked = [
            StoredUnder(image_id, link, collections[link.head_uuid])
            for link in sorted(named, key=sort_key, reverse=True)
            if link.head_uuid in collections and self._counts(collections[link.head_uuid], image_id)
        ]
        attested = [each for each in linked if self._trust.attests(each.link, each.collection)]
        if attested:
            log.debug("%s is known: attested by %s", image_id, ", ".join(each.link.uuid for each in attested))
        elif read_back:
            attested = [each for each in linked[:1] if self._holds_image(each)]
        return sorted(attested, key=lambda each: each.collection.owner_uuid != self._owner)

    def _counts(self, collection: CollectionRecord, image_id: Digest) -> bool:
        """True if the collection lasts, and is that image's: by the name of its file, or by the content that is
        wanted, whatever its file is called."""
        of_image = holds(collection, image_id) if self._pdh is None else collection.pdh == self._pdh
        return of_image and not collection.trash_at

    def _by_digest(self, digest: Digest, links: Iterable[Link]) -> list[StoredUnder]:
        """The collections of images that trusted users' links call by another digest."""
        named = [link for link in links if link.link_class == DIGEST and link.name == str(digest)]
        collections = link_query.collections_of(self._cluster, named, manifest=True) if named else {}
        attested = []
        for link in sorted(named, key=sort_key, reverse=True):
            collection = collections.get(link.head_uuid)
            if collection is None or self._pdh not in (None, collection.pdh):
                continue
            if not collection.trash_at and self._trust.attests(link, collection):
                try:
                    attested.append(StoredUnder(image_file(collection).image_id, link, collection))
                except ContentError:
                    continue
        return sorted(attested, key=lambda each: each.collection.owner_uuid != self._owner)

    # -- what archives say -------------------------------------------------------------------

    def _look_into(self, holder: StoredUnder, *, deep: bool) -> StoredUnder | None:
        """Collection with its archive: of our own archives a small block is read; ``deep``: of others much more.

        None if that is lost or damaged.
        """
        if not deep and not may_be_canonical(holder.collection):
            return holder
        try:
            return replace(holder, stored=StoredImage(self._cluster, holder.collection))
        except (ContentError, KeepError) as error:
            self._progress.say(f"{holder.collection.uuid} is not used: {error.message}")
            return None

    def _holds_image(self, holder: StoredUnder) -> bool:
        """Read the collection back, and say if it holds the image in its file's name."""
        uuid = holder.collection.uuid
        about = size_text(image_file(holder.collection).size)
        self._progress.say(f"{uuid} was linked by somebody else: reading it back to compare, {about}")
        try:
            report = verify.verify_for_adoption(self._cluster, holder.collection, progress=self._progress)
        except (ContentError, ClusterError) as error:
            self._progress.say(f"{uuid} is not used: {error.message}")
            return False
        return holder.image_id in (report.config_digest, report.manifest_digest)


def _preferred_holders(by_kind: Mapping[str, Sequence[StoredUnder]]) -> dict[str, StoredUnder]:
    """The preferred collection of each kind, if any."""
    return {kind: collections[0] for kind, collections in by_kind.items() if collections}


def _has(stored: StoredImage, diff_ids: Sequence[Digest]) -> bool:
    """True if the archive's image has these layers, if any are said."""
    return not diff_ids or stored.config.diff_ids == tuple(diff_ids)

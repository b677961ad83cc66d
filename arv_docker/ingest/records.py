# SPDX-License-Identifier: Apache-2.0
"""What a cluster's records say of images, and what is written there once an image is stored.

The order of what is written is that of docs/spec/ingest.md#record.

Each step looks before it writes, so a run that died anywhere is completed by the next,
and two runs at once end with one collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from ..arvados.blocks import StoredArchive
from ..arvados.catalog import collections, links, resolver
from ..arvados.catalog.resolver import DIGEST, HASH, REPO_TAG
from ..arvados.catalog.same_layers import images_with_same_layers
from ..arvados.client import Cluster, CollectionRecord
from ..arvados.dedup import LayerLookup
from ..arvados.stored import StoredImage, image_file
from ..arvados.trust import Trust
from ..errors import AmbiguousImage, ArvDockerError, ClusterError, NoSuchImage, NotAnImage
from ..images import tags
from ..local.progress import Progress
from ..local.settings import CONFIG, IMAGE_ID, MANIFEST, TRUSTED_WRITERS
from ..model.image import Digest
from ..model.reference import ImageId, Reference
from .lookup import Held, Holder, Holders
from .options import Beside, Ingested, Options


@dataclass(frozen=True, slots=True)
class Written:
    """An image whose blocks are in Keep, with no collection yet; what was sent and spared of it, in bytes.

    ``digests`` are those by which its source calls it.
    """

    stored: StoredArchive
    sent: int
    spared: int
    layers: LayerLookup
    digests: tuple[Digest, ...] = ()


@dataclass(frozen=True, slots=True)
class _Record:
    """A collection that holds an image under ``image_id``, and how many links were written to it."""

    collection: CollectionRecord
    image_id: Digest
    made: bool
    links: int


class Cataloguing:
    """The records of images in one cluster: found, and written."""

    def __init__(self, cluster: Cluster, options: Options, progress: Progress, trust: Trust | None = None) -> None:
        """``trust`` says whose links are taken at their word; this user's and the system user's unless given."""
        self._cluster = cluster
        self.options = options
        self._progress = progress
        self._owner = options.project or cluster.user_uuid
        self._checked = False
        self.trust = trust or Trust.of(cluster.user_uuid, cluster.system_user_uuid)
        self._holders = Holders(cluster, self.trust, self._owner, progress)

    def check_cluster(self) -> None:
        """What would make storing useless, before it begins: a project that may not be written, and a cluster
        that does not take version 2 images, as arv-keepdocker refuses it
        (docs/conformance.md#k7). Asked once."""
        if self._checked:
            return
        if self.options.project:
            self._cluster.check_writable(self.options.project)
        formats = self._cluster.image_formats
        if "v2" in formats:
            self._checked = True
            return
        says = f"it accepts {', '.join(formats)}" if formats else "it does not say which formats it accepts"
        message = f"the cluster does not accept images of format v2: {says}"
        if not self.options.force_image_format:
            raise ArvDockerError(f"{message}. Give --force-image-format to store the image all the same.")
        self._progress.warn(message)
        self._checked = True

    def from_keep(self, name: Reference | ImageId) -> Ingested | None:
        """An image that Keep has already and no engine has to: linked by ``name`` and copied into our project.

        A name counts by the word of trusted users alone, for nothing else says that it means
        this image; an ID says so itself. None if there is no such image.
        """
        found = self.in_keep(name)
        return None if found is None else self.known(found[0], found[2])

    def in_keep(self, name: Reference | ImageId) -> tuple[Digest, CollectionRecord, Reference | None] | None:
        """The image that ``from_keep`` finds: its ID, collection, and the name that found it; nothing is written."""
        try:
            found = resolver.resolve(self._cluster, str(name), self.trust, trusted_only=isinstance(name, Reference))
        except (NoSuchImage, NotAnImage):
            self._say_who_else(name)
            return None
        image_id = image_file(found.collection).image_id
        asked = name if isinstance(name, ImageId) else name.identity
        link = found.link
        if (link is None or link.link_class == HASH) and (asked is None or not asked.matches(image_id)):
            return None  # a link by that ID, to another image
        if link is not None and link.link_class == DIGEST and not self.trust.attests(link, found.collection):
            return None  # nothing else says that this digest means that image
        by_name = link is not None and link.link_class == REPO_TAG
        return image_id, found.collection, name if isinstance(name, Reference) and by_name else None

    def known(
        self,
        image_id: Digest,
        name: Reference | None,
        *,
        digests: Sequence[Digest] = (),
        diff_ids: Sequence[Digest] = (),
    ) -> Ingested | None:
        """The image that its source calls ``image_id``, if it is in Keep already: what is missing of collections and
        links is written, nothing is read from the source. Else None.

        ``digests`` are further ones by which the source calls it; ``diff_ids`` its layers, where only those tell the
        images of several platforms apart.
        """
        also = [*_names(name), *map(str, digests)]
        held = self._holders.find(image_id, self.options.kinds, also=also, diff_ids=diff_ids)
        if not held.has(self.options.kinds):
            return None
        if name is not None and name.unique_to is not None:
            tags.check_free(self._cluster, name, self._config_digest(held))
        done, _ = self._noted(held, name, (image_id, *digests), held.source)
        return done

    def also_called(self, done: Ingested, image_id: Digest, names: Iterable[Reference]) -> Ingested:
        """An image that was put into Keep, linked by further names; ``image_id`` is what its source calls it."""
        for name in names:
            if (found := self.known(image_id, name)) is not None:
                done = replace(done, links_written=done.links_written + found.links_written)
        return done

    def held(self, image_id: Digest, diff_ids: Sequence[Digest] = ()) -> Held:
        """What ``known`` would find by the word of trusted users; nothing is read back or written."""
        if self.options.force:
            return Held()
        return self._holders.find(image_id, self.options.kinds, diff_ids=diff_ids, read_back=False)

    def linked(self, image_ids: Sequence[Digest]) -> set[Digest]:
        """Those of some digests by which there is a link to an image, whatever it is worth."""
        names = [str(image_id) for image_id in image_ids]
        found = {
            link.name for link in self._cluster.links([["link_class", "in", [HASH, DIGEST]], ["name", "in", names]])
        }
        return {image_id for image_id in image_ids if str(image_id) in found}

    def write(self, written: Written, name: Reference | None) -> Ingested:
        """Makes the collections of an image's blocks, and links them. One that is there is used as it is."""
        layout = written.stored.layout
        ids = {CONFIG: layout.config.digest, MANIFEST: layout.manifest_digest}
        held = Held(ids=ids)
        if not self.options.force:
            held = self._holders.under(ids, also=[*_names(name), *map(str, written.digests)])
        done, made = self._noted(held, name, written.digests, written.stored)
        if made and not held.holders:
            self._say_what_is_alike(written, held, done)
        for refused in written.layers.write_links(layout, made[0]) if made else ():
            self._progress.warn(str(refused))
        return replace(done, bytes_sent=written.sent, bytes_spared=written.spared)

    def adopt(
        self, text: str, image_id: Digest, name: Reference | None, properties: Mapping[str, str], *, bytes_sent: int
    ) -> Ingested:
        """Makes a collection of a manifest text whose blocks are in Keep and were verified, and links it."""
        collection = self._collection(text, image_id, name, properties)
        existing = self._holders.under({CONFIG: image_id}, also=_names(name)).links
        count = links.ensure_links(
            self._cluster, collection, image_id, name, trust=self.trust, properties=properties, existing=existing
        )
        return Ingested(collection.uuid, collection.pdh, image_id, _text(name), False, bytes_sent, 0, count)

    # -- private -------------------------------------------------------------------------

    def _say_who_else(self, name: Reference | ImageId) -> None:
        """That somebody whose word is not taken has stored an image by that name, if so."""
        with suppress(NoSuchImage, NotAnImage, AmbiguousImage):
            link = resolver.resolve(self._cluster, str(name)).link
            if link is not None and not self.trust.includes(link.modified_by):
                self._progress.say(
                    f"{name} is in Keep by the word of {link.modified_by} alone, who is not trusted: to take it, name "
                    f"that user in the setting {TRUSTED_WRITERS}, or give --trust-readable"
                )

    def _noted(
        self,
        held: Held,
        name: Reference | None,
        digests: Iterable[Digest],
        archive: StoredArchive | StoredImage | None,
    ) -> tuple[Ingested, list[CollectionRecord]]:
        """Has a collection for each digest that is wanted, those that are missing made of ``archive``, and their links;
        gives those that were made, too.

        The one that suits the cluster's nodes gets the names, and what else the image is called. The other is linked by
        its own ID alone, or every node would take the later of both (docs/spec/archive.md#file-name).
        """
        first, *others = self.options.kinds
        label = name if first == self.options.named else None
        if name is not None and label is None:
            self._progress.say(
                f"{name.link_name}: stored under its {first} digest and not linked by name: the cluster's nodes know "
                f"images by their {self.options.named} digests (the setting {IMAGE_ID})"
            )
        has_names = first == self.options.named or self.options.named not in held.holders
        called = {*held.ids.values(), *digests} if has_names else set()  # the one that has the names has these links
        main = self._record(first, held, label, called, archive)
        further = [self._record(kind, held, None, set(), archive) for kind in others]
        beside = [Beside(it.collection.uuid, it.collection.pdh, it.image_id, not it.made) for it in further]
        done = Ingested(
            main.collection.uuid,
            main.collection.pdh,
            main.image_id,
            _text(label),
            already=not main.made,
            bytes_sent=0,
            bytes_spared=0,
            links_written=sum(it.links for it in (main, *further)),
            beside=next(iter(beside), None),
        )
        return done, [it.collection for it in (main, *further) if it.made]

    def _say_what_is_alike(self, written: Written, held: Held, done: Ingested) -> None:
        layout = written.stored.layout
        try:
            others = images_with_same_layers(
                self._cluster, layout.config, written.layers, held.links, trust=self.trust, layout=layout
            )
        except ClusterError as error:
            self._progress.say(f"whether there are images with the same layers was not found out: {error.message}")
            return
        for other in others:
            self._progress.say(
                f"{done.name or done.image_id} is another image than {other}, with the same layers: "
                "a tool that converts images writes the config anew"
            )

    def _record(
        self,
        kind: str,
        held: Held,
        name: Reference | None,
        digests: set[Digest],
        archive: StoredArchive | StoredImage | None,
    ) -> _Record:
        """The collection whose file is named by that digest of the image, with its links."""
        holder = held.holders.get(kind)
        if holder is not None:
            image_id, timestamp = holder.image_id, self._timestamp(holder)
            collection = self._own(holder, name, timestamp)
        else:
            assert archive is not None
            image_id, timestamp = held.ids[kind], links.timestamp_of(archive.layout.config)
            collection = self._collection(archive.manifest_text(image_id), image_id, name, timestamp)
        existing = () if self.options.force else held.links
        # One that has a link to itself is named by a manifest's digest (``identities``).
        called = digests - {image_id} if kind == CONFIG else digests
        # Before the hash link, by which the next run knows the image: it looks for nothing more then.
        count = links.ensure_digest_links(self._cluster, collection, called, trust=self.trust, existing=existing)
        count += links.ensure_links(
            self._cluster, collection, image_id, name, trust=self.trust, properties=timestamp, existing=existing
        )
        return _Record(collection, image_id, holder is None, count)

    def _config_digest(self, held: Held) -> Digest:
        """The digest of the image's config, which a file's name need not be."""
        if CONFIG in held.ids:
            return held.ids[CONFIG]
        (holder, *_) = held.holders.values()
        return (holder.stored or StoredImage(self._cluster, holder.collection)).config.digest

    def _timestamp(self, holder: Holder) -> Mapping[str, str]:
        """What ranks our links: a trusted link's word for it, or the image's own. A stranger's would pin its rank."""
        if holder.link.link_class == HASH and self.trust.attests(holder.link, holder.collection):
            return links.timestamp_in(holder.link)
        stored = holder.stored or StoredImage(self._cluster, holder.collection)
        return links.timestamp_of(stored.config)

    def _own(self, holder: Holder, name: Reference | None, timestamp: Mapping[str, str]) -> CollectionRecord:
        """The collection, if it is where it should be; else a copy of it there."""
        collection = holder.collection
        if collection.owner_uuid == self._owner:
            if name is not None:
                collections.set_name_property(self._cluster, collection, name.link_name)
            return collection
        return self._collection(collection.manifest_text or "", holder.image_id, name, timestamp)

    def _collection(
        self, text: str, image_id: Digest, name: Reference | None, timestamp: Mapping[str, str]
    ) -> CollectionRecord:
        called = f"{name.link_name.replace('/', ' ')} " if name else ""
        return collections.ensure_collection(
            self._cluster,
            text,
            owner=self._owner,
            name=self.options.name or f"Docker image {called}{image_id.short}",
            properties=self._properties(image_id, name, timestamp),
            anew=self.options.force,
        )

    def _properties(self, image_id: Digest, name: Reference | None, timestamp: Mapping[str, str]) -> dict[str, str]:
        properties = {collections.REPO_TAG_PROPERTY: name.link_name} if name else {}
        if self.options.describe:
            properties[collections.HASH_PROPERTY] = str(image_id)
            for text in timestamp.values():
                properties[collections.TIMESTAMP_PROPERTY] = text
        return properties


def _text(name: Reference | None) -> str | None:
    return name.link_name if name else None


def _names(name: Reference | None) -> list[str]:
    return [name.link_name] if name else []

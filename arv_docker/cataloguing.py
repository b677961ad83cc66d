# SPDX-License-Identifier: Apache-2.0
"""What a cluster's records say of images, and what is written there once an image is stored (design §5).

Each step looks before it writes, so a run that died anywhere is completed by the next,
and two runs at once end with one collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from . import verify
from .errors import ArvDockerError, ClusterError, ContentError, NoSuchImage, NotAnImage
from .image import Digest
from .keep import catalogue, collections, links
from .keep.blocks import StoredArchive
from .keep.catalogue import DIGEST, HASH, REPO_TAG, sort_key
from .keep.client import Cluster, CollectionRecord, Link
from .keep.delta import KnownLayers
from .keep.stored import StoredImage, holds, image_file
from .keep.trust import Trust
from .progress import Progress, size
from .reference import ImageId, Reference


@dataclass(frozen=True, slots=True)
class Options:
    """How images are put into Keep.

    ``project`` owns what is written (None: the user's home). ``name`` replaces the
    collection's usual name. ``force`` stores the image again though it is there.
    ``by_manifest`` names the file by the manifest digest, for clusters whose nodes use the
    containerd store. ``use_cache`` keeps the saved tarball until the end, so that a second
    try needs no second save; ``keep_tarball`` keeps it for good. ``describe`` notes ID and
    time of the image on a new collection, as properties that a strict vocabulary may refuse.
    """

    project: str | None = None
    name: str | None = None
    force: bool = False
    by_manifest: bool = False
    use_cache: bool = True
    keep_tarball: bool = False
    force_image_format: bool = False
    describe: bool = False


@dataclass(frozen=True, slots=True)
class Ingested:
    """An image that is in Keep now. ``already`` says that it was before.

    ``bytes_sent`` counts what went to Keep, ``bytes_spared`` what was read and was there. ``unique`` is the
    name that can never mean another image, where one was asked for.
    """

    uuid: str
    pdh: str
    image_id: Digest
    name: str | None
    already: bool
    bytes_sent: int
    bytes_spared: int
    links_written: int
    unique: str | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """An image whose blocks are in Keep, with no collection yet; what was sent and spared of it, in bytes.

    ``digests`` are those by which its source calls it.
    """

    stored: StoredArchive
    sent: int
    spared: int
    layers: KnownLayers
    digests: tuple[Digest, ...] = ()


class Cataloguing:
    """The records of images in one cluster: found, and written."""

    def __init__(self, cluster: Cluster, options: Options, progress: Progress, trust: Trust | None = None) -> None:
        """``trust`` says whose links are taken at their word; this user's and the system user's unless given."""
        self._cluster = cluster
        self._options = options
        self._progress = progress
        self._owner = options.project or cluster.user_uuid
        self.trust = trust or Trust.of(cluster.user_uuid, cluster.system_user_uuid)

    def check_cluster(self) -> None:
        """What would make storing useless, before it begins: a project that may not be written, and a cluster
        that does not take version 2 images, as arv-keepdocker refuses it (K7)."""
        if self._options.project:
            self._cluster.check_writable(self._options.project)
        formats = self._cluster.image_formats
        if "v2" in formats:
            return
        says = f"it accepts {', '.join(formats)}" if formats else "it does not say which formats it accepts"
        message = f"the cluster does not accept images of format v2: {says}"
        if not self._options.force_image_format:
            raise ArvDockerError(f"{message}. Give --force-image-format to store the image all the same.")
        self._progress.say(f"warning: {message}")

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
            found = catalogue.resolve(self._cluster, str(name), self.trust, trusted_only=isinstance(name, Reference))
        except (NoSuchImage, NotAnImage):
            return None
        image_id = image_file(found.collection).image_id
        asked = name if isinstance(name, ImageId) else name.as_id
        by_id = found.link is None or found.link.link_class == HASH
        if by_id and (asked is None or not asked.matches(image_id)):
            return None  # a link by that ID, to another image
        return image_id, found.collection, None if by_id or isinstance(name, ImageId) else name

    def known(self, image_id: Digest, name: Reference | None) -> Ingested | None:
        """The image, if it is in Keep already: missing links are written, nothing else is. Else None."""
        candidates = self._candidates(image_id, found := self._links(image_id, name))
        if not candidates:
            other = self._by_digest(found)
            return None if other is None or other == image_id else self.known(other, name)
        link, collection = next((it for it in candidates if it[1].owner_uuid == self._owner), candidates[0])
        ours = self._own(link, collection, image_id, name)
        written = links.ensure(
            self._cluster,
            ours,
            image_id,
            name,
            trust=self.trust,
            properties=self._timestamp(link, collection),
            existing=found,
        )
        return Ingested(ours.uuid, ours.pdh, image_id, _text(name), True, 0, 0, written)

    def peek(self, image_id: Digest) -> CollectionRecord | None:
        """The collection that a trusted link says to hold the image; nothing is read back or written."""
        pairs = self._readable(image_id, self._links(image_id, None))
        return next((collection for link, collection in pairs if self.trust.attests(link, collection)), None)

    def linked(self, image_ids: Sequence[Digest]) -> set[Digest]:
        """Those of some digests by which there is a link to an image, whatever it is worth."""
        names = [str(image_id) for image_id in image_ids]
        found = {
            link.name for link in self._cluster.links([["link_class", "in", [HASH, DIGEST]], ["name", "in", names]])
        }
        return {image_id for image_id in image_ids if str(image_id) in found}

    def write(self, written: Written, name: Reference | None) -> Ingested:
        """Makes a collection of an image's blocks, and links it."""
        layout = written.stored.layout
        image_id = layout.manifest_digest if self._options.by_manifest else layout.config.digest
        properties = links.timestamp_of(layout.config)
        collection = self._collection(written.stored.manifest_text(image_id), image_id, name, properties)
        digests = {layout.config.digest, layout.manifest_digest, *written.digests} - {image_id}
        existing = [] if self._options.force else self._links(image_id, name, digests)
        # Before the hash link, by which the next run knows the image: it looks for nothing more then.
        count = links.note_digests(self._cluster, collection, digests, trust=self.trust, existing=existing)
        count += links.ensure(
            self._cluster, collection, image_id, name, trust=self.trust, properties=properties, existing=existing
        )
        for refused in written.layers.note(layout, collection):
            self._progress.say(f"warning: {refused}")
        return Ingested(
            collection.uuid,
            collection.pdh,
            image_id,
            _text(name),
            already=False,
            bytes_sent=written.sent,
            bytes_spared=written.spared,
            links_written=count,
        )

    def adopt(
        self, text: str, image_id: Digest, name: Reference | None, properties: Mapping[str, str], *, bytes_sent: int
    ) -> Ingested:
        """Makes a collection of a manifest text whose blocks are in Keep and were verified, and links it."""
        collection = self._collection(text, image_id, name, properties)
        existing = self._links(image_id, name)
        count = links.ensure(
            self._cluster, collection, image_id, name, trust=self.trust, properties=properties, existing=existing
        )
        return Ingested(collection.uuid, collection.pdh, image_id, _text(name), False, bytes_sent, 0, count)

    # -- private -------------------------------------------------------------------------

    def _links(self, image_id: Digest, name: Reference | None, digests: Iterable[Digest] = ()) -> list[Link]:
        """Every link by that ID, name, or one of those digests, in one request."""
        names = [str(image_id), *([name.link_name] if name else []), *map(str, digests)]
        return list(self._cluster.links([["link_class", "in", [HASH, REPO_TAG, DIGEST]], ["name", "in", names]]))

    def _by_digest(self, found: Sequence[Link]) -> Digest | None:
        """The ID of the image that trusted links call by the digest that was asked for."""
        by_digest = [link for link in found if link.link_class == DIGEST]
        collections = catalogue.collections_of(self._cluster, by_digest, manifest=True) if by_digest else {}
        for link in by_digest:
            collection = collections.get(link.head_uuid)
            if collection is not None and not collection.trash_at and self.trust.attests(link, collection):
                with suppress(ContentError):
                    return image_file(collection).image_id
        return None

    def _candidates(self, image_id: Digest, found: Sequence[Link]) -> list[tuple[Link, CollectionRecord]]:
        """The collections that hold the image beyond doubt, the preferred first.

        A link of somebody who is not trusted is only a hint: then the collection is read back
        and every layer hashed, once; our own link attests it from then on (design §4).
        """
        pairs = self._readable(image_id, found)
        sure = [pair for pair in pairs if self.trust.attests(*pair)]
        return sure or [pair for pair in pairs[:1] if self._reads_back(pair[1], image_id)]

    def _readable(self, image_id: Digest, found: Sequence[Link]) -> list[tuple[Link, CollectionRecord]]:
        """The links by that ID whose collections can be read and hold one file of that name, the preferred first."""
        hashes = sorted((link for link in found if link.link_class == HASH), key=sort_key, reverse=True)
        hashes = [link for link in hashes if link.name == str(image_id)]
        if not hashes:
            return []
        readable = {
            uuid: collection
            for uuid, collection in catalogue.collections_of(self._cluster, hashes, manifest=True).items()
            if holds(collection, image_id) and not collection.trash_at
        }
        return [(link, readable[link.head_uuid]) for link in hashes if link.head_uuid in readable]

    def _reads_back(self, collection: CollectionRecord, image_id: Digest) -> bool:
        about = size(image_file(collection).size)
        self._progress.say(f"{collection.uuid} was linked by somebody else: reading it back to compare, {about}")
        try:
            report = verify.verify(self._cluster, collection, quick=False, progress=self._progress)
        except (ContentError, ClusterError) as error:
            self._progress.say(f"{collection.uuid} is not used: {error.message}")
            return False
        return image_id in (report.config_digest, report.manifest_digest)

    def _timestamp(self, link: Link, collection: CollectionRecord) -> dict[str, str]:
        """What ranks our links: a trusted link's word for it, or the image's own. A stranger's would pin its rank."""
        if self.trust.attests(link, collection):
            return links.timestamp_in(link)
        return links.timestamp_of(StoredImage(self._cluster, collection).config)

    def _own(
        self, link: Link, collection: CollectionRecord, image_id: Digest, name: Reference | None
    ) -> CollectionRecord:
        """The collection, if it is where it should be; else a copy of it there."""
        if collection.owner_uuid == self._owner:
            if name is not None:
                collections.note_name(self._cluster, collection, name.link_name)
            return collection
        timestamp = self._timestamp(link, collection)
        return self._collection(collection.manifest_text or "", image_id, name, timestamp)

    def _collection(
        self, text: str, image_id: Digest, name: Reference | None, timestamp: Mapping[str, str]
    ) -> CollectionRecord:
        called = f"{name.link_name.replace('/', ' ')} " if name else ""
        return collections.create_once(
            self._cluster,
            text,
            owner=self._owner,
            name=self._options.name or f"Docker image {called}{image_id.short}",
            properties=self._properties(image_id, name, timestamp),
            anew=self._options.force,
        )

    def _properties(self, image_id: Digest, name: Reference | None, timestamp: Mapping[str, str]) -> dict[str, str]:
        properties = {collections.REPO_TAG_PROPERTY: name.link_name} if name else {}
        if self._options.describe:
            properties[collections.HASH_PROPERTY] = str(image_id)
            for text in timestamp.values():
                properties[collections.TIMESTAMP_PROPERTY] = text
        return properties


def _text(name: Reference | None) -> str | None:
    return name.link_name if name else None

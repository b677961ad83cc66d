# SPDX-License-Identifier: Apache-2.0
"""Putting an image into Keep: find, read, canonicalise, store, link (design §5).

Each step looks before it writes, so a run that died anywhere is completed by the next,
and two runs at once end with one collection.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import cache, verify
from .archive import canonical
from .engine import Engine, EngineImage
from .errors import ArvDockerError, ClusterError, ContentError, NoSuchImage, NotAnImage
from .image import CLASSIC_LAYER_LIMIT, Config, Digest
from .keep import catalogue, collections, links
from .keep.blocks import StoredArchive
from .keep.catalogue import HASH, REPO_TAG, sort_key
from .keep.client import Cluster, CollectionRecord, Link
from .keep.delta import KnownLayers
from .keep.resume import SentBlocks
from .keep.stored import StoredImage, holds, image_file
from .keep.trust import Trust
from .progress import Progress
from .reference import ImageId, Reference, references_in
from .transports import OpenedImage, docker_archive
from .transports.docker_archive import ArchiveFile
from .transports.docker_daemon import EngineSource
from .transports.keep import KeepDestination
from .transports.names import Choice


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

    ``bytes_sent`` counts what went to Keep, ``bytes_spared`` what was read and was there.
    """

    uuid: str
    pdh: str
    image_id: Digest
    name: str | None
    already: bool
    bytes_sent: int
    bytes_spared: int
    links_written: int


@dataclass(frozen=True, slots=True)
class _Written:
    """An image whose blocks are in Keep, with no collection yet; what was sent and spared of it, in bytes."""

    stored: StoredArchive
    sent: int
    spared: int
    layers: KnownLayers


class Ingest:
    """Puts images into one cluster."""

    def __init__(self, cluster: Cluster, options: Options, progress: Progress, trust: Trust | None = None) -> None:
        """``trust`` says whose links are taken at their word; this user's and the system user's unless given."""
        self._cluster = cluster
        self._options = options
        self._progress = progress
        self._owner = options.project or cluster.user_uuid
        self._spare = not options.force
        self._spared = 0
        self._trust = trust or Trust.of(cluster.user_uuid, cluster.system_user_uuid)

    def from_engine(self, engine: Engine, name: Reference | ImageId, found: EngineImage | None = None) -> Ingested:
        """The image that the engine calls ``name``. Linked by that name if it is one, by its ID alone otherwise.

        ``found`` is what the engine says of it, if it has been asked already.
        """
        image = found or engine.inspect(name)
        self._check_cluster()
        label = _label(name, image)
        with cache.locked(cache.cache_folder(), image.id, self._waiting(image.id)) as image_file:
            by_id = not (self._options.force or self._options.by_manifest)
            result = self.known(image.id, label) if by_id else None
            if result is None:
                result = self._anew_if_refused(lambda: self._read(engine, image, label, image_file))
            SentBlocks(image_file.parent, self._cluster, image.id).discard()
            if not self._options.keep_tarball:
                cache.discard(image_file)
        return result

    def from_archive(self, path: Path, name: Reference | ImageId | None) -> Ingested:
        """The image in a docker-archive or OCI layout in a file, which may be compressed.

        Of several images ``name`` says which; the only one is linked by ``name``, whatever the
        archive calls it; without one, by the first name that the archive gives it.
        """
        self._check_cluster()
        with ArchiveFile(path, name, Choice(progress=self._progress)).open() as image:
            label = name if isinstance(name, Reference) else None
            if label is not None and label.as_id is not None and label.as_id.matches(image.config.digest):
                label = None
            if name is None:
                label = next(iter(references_in(image.tags)), None)
            image_id = image.config.digest
            if self._options.by_manifest:
                image_id = canonical.layout(image.config, image.sizes).manifest_digest
            config = image.config
            with cache.locked(cache.cache_folder(), config.digest, self._waiting(config.digest)) as image_file:
                result = None if self._options.force else self.known(image_id, label)
                if result is None:
                    about = (image.known_size or 0, config.digest, config.diff_ids)
                    result = self._anew_if_refused(lambda: self._link(self._write(image, *about), label))
                SentBlocks(image_file.parent, self._cluster, config.digest).discard()
            return result

    def from_keep(self, name: Reference | ImageId) -> Ingested | None:
        """An image that Keep has already and no engine has to: linked by ``name`` and copied into our project.

        A name counts by the word of trusted users alone, for nothing else says that it means
        this image; an ID says so itself. None if there is no such image.
        """
        try:
            found = catalogue.resolve(self._cluster, str(name), self._trust, trusted_only=isinstance(name, Reference))
        except (NoSuchImage, NotAnImage):
            return None
        image_id = image_file(found.collection).image_id
        asked = name if isinstance(name, ImageId) else name.as_id
        by_id = found.link is None or found.link.link_class == HASH
        if by_id and (asked is None or not asked.matches(image_id)):
            return None  # a link by that ID, to another image
        return self.known(image_id, None if by_id or isinstance(name, ImageId) else name)

    def known(self, image_id: Digest, name: Reference | None) -> Ingested | None:
        """The image, if it is in Keep already: missing links are written, nothing else is. Else None."""
        candidates = self._candidates(image_id, found := self._links(image_id, name))
        if not candidates:
            return None
        link, collection = next((it for it in candidates if it[1].owner_uuid == self._owner), candidates[0])
        ours = self._own(link, collection, image_id, name)
        written = links.ensure(
            self._cluster,
            ours,
            image_id,
            name,
            trust=self._trust,
            properties=self._timestamp(link, collection),
            existing=found,
        )
        return Ingested(ours.uuid, ours.pdh, image_id, _text(name), True, 0, 0, written)

    # -- is it known? --------------------------------------------------------------------

    def _links(self, image_id: Digest, name: Reference | None) -> list[Link]:
        """Every link by that ID or name, in one request."""
        names = [str(image_id), *([name.link_name] if name else [])]
        return list(self._cluster.links([["link_class", "in", [HASH, REPO_TAG]], ["name", "in", names]]))

    def _candidates(self, image_id: Digest, found: Sequence[Link]) -> list[tuple[Link, CollectionRecord]]:
        """The collections that hold the image beyond doubt, the preferred first.

        A link of somebody who is not trusted is only a hint: then the collection is read back
        and every layer hashed, once; our own link attests it from then on (design §4).
        """
        hashes = sorted((link for link in found if link.link_class == HASH), key=sort_key, reverse=True)
        hashes = [link for link in hashes if link.name == str(image_id)]
        if not hashes:
            return []
        readable = {
            uuid: collection
            for uuid, collection in catalogue.collections_of(self._cluster, hashes, manifest=True).items()
            if holds(collection, image_id) and not collection.trash_at
        }
        pairs = [(link, readable[link.head_uuid]) for link in hashes if link.head_uuid in readable]
        sure = [pair for pair in pairs if self._trust.attests(*pair)]
        return sure or [pair for pair in pairs[:1] if self._reads_back(pair[1], image_id)]

    def _reads_back(self, collection: CollectionRecord, image_id: Digest) -> bool:
        self._progress.say(f"{collection.uuid} was linked by somebody else: reading it back to compare")
        try:
            report = verify.verify(self._cluster, collection, quick=False, progress=self._progress)
        except (ContentError, ClusterError) as error:
            self._progress.say(f"{collection.uuid} is not used: {error.message}")
            return False
        return image_id in (report.config_digest, report.manifest_digest)

    def _timestamp(self, link: Link, collection: CollectionRecord) -> dict[str, str]:
        """What ranks our links: a trusted link's word for it, or the image's own. A stranger's would pin its rank."""
        if self._trust.attests(link, collection):
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

    # -- read and store ------------------------------------------------------------------

    def _anew_if_refused(self, store: Callable[[], Ingested]) -> Ingested:
        """What ``store`` gives; once more, with every block sent, if the cluster refuses those that were spared."""
        self._spare = not self._options.force
        try:
            return store()
        except ClusterError as error:
            if error.status != 403 or not self._spared:
                raise
            self._progress.say("the cluster does not take blocks that it had already; sending everything again")
        self._spare = False
        return store()

    def _read(self, engine: Engine, image: EngineImage, name: Reference | None, image_file: Path) -> Ingested:
        """Reads the image from a tarball that an earlier try left, else from the engine while it saves."""
        about = (image.size, image.id, image.diff_ids)
        if self._options.use_cache and (kept := cache.prep_image_file(image_file)[0]) is not None:
            try:
                with kept:
                    opened = docker_archive.opened(kept.fileno(), ImageId(image.id.hex))
                    written = self._write(opened, *about)
                return self._link(written, name)
            except (ContentError, NoSuchImage) as error:
                self._progress.say(f"the tarball in the cache is no good, saving the image again: {error.message}")
        cache.discard(image_file)
        with EngineSource(engine, image, image_file if self._options.use_cache else None).open() as streamed:
            written = self._write(streamed, *about)
        return self._link(written, name)  # only now is it known that the engine's command ended well

    def _write(self, image: OpenedImage, size: int, image_id: Digest, diff_ids: Collection[Digest]) -> _Written:
        """Stores the blocks of an image that is open for reading.

        ``size`` is about its number of bytes; ``image_id`` and ``diff_ids`` are what it is said
        to be, by which blocks are looked for that Keep has.
        """
        folder = cache.cache_folder()
        sent = SentBlocks(folder, self._cluster, image_id)
        layers = KnownLayers(self._cluster, diff_ids, self._trust)
        resumed = sent.blocks if self._options.use_cache else {}
        known = {**layers.blocks, **resumed} if self._spare else {}
        note = sent.note if self._options.use_cache else None
        destination = KeepDestination(self._cluster, folder, known, note)
        with self._progress.step("storing in Keep", size or None) as advance:
            stored = destination.write(image, advance)
        self._spared = destination.bytes_spared
        self._warn_of(stored.layout.config)
        return _Written(stored, destination.bytes_sent, destination.bytes_spared, layers)

    def _link(self, written: _Written, name: Reference | None) -> Ingested:
        layout = written.stored.layout
        image_id = layout.manifest_digest if self._options.by_manifest else layout.config.digest
        properties = links.timestamp_of(layout.config)
        collection = self._collection(written.stored.manifest_text(image_id), image_id, name, properties)
        existing = [] if self._options.force else self._links(image_id, name)
        count = links.ensure(
            self._cluster, collection, image_id, name, trust=self._trust, properties=properties, existing=existing
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

    # -- what is said --------------------------------------------------------------------

    def _check_cluster(self) -> None:
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

    def _warn_of(self, config: Config) -> None:
        if len(config.diff_ids) > CLASSIC_LAYER_LIMIT:
            self._progress.say(
                f"warning: the image has {len(config.diff_ids)} layers; Docker's classic store "
                f"cannot load more than {CLASSIC_LAYER_LIMIT}"
            )

    def _waiting(self, image_id: Digest) -> Iterator[None]:
        self._progress.say(f"another process works on image {image_id.short}; waiting for it")
        yield


def _label(name: Reference | ImageId, image: EngineImage) -> Reference | None:
    """The name to link the image by; None where the user gave (the beginning of) its ID."""
    if isinstance(name, ImageId):
        return None
    called_so = name in references_in(image.tags)
    return None if name.as_id is not None and not called_so else name


def _text(name: Reference | None) -> str | None:
    return name.link_name if name else None

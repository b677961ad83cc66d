# SPDX-License-Identifier: Apache-2.0
"""Putting an image into Keep: find, read, canonicalise, store, link (design §5).

Here is how images are read and their blocks stored; ``cataloguing`` has what the cluster's
records say of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from . import cache, naming
from .archive.archived import ArchivedImage
from .archive.stream import StreamedArchive, StreamedImage
from .cataloguing import Cataloguing, Written
from .engine import Engine, EngineImage
from .errors import ArvDockerError, ClusterError, ContentError, NoSuchImage
from .image import CLASSIC_LAYER_LIMIT, Config, Digest
from .ingested import Ingested, Options
from .keep import catalogue
from .keep.blocks import StoredArchive
from .keep.client import Cluster
from .keep.delta import HeldLayer, KnownLayers
from .keep.resume import SentBlocks
from .keep.trust import Trust
from .plan import Planning
from .progress import Progress
from .reference import NAMELESS, ImageId, Reference, references_in
from .transports import Digested, OpenedImage, Source, docker_archive
from .transports.docker_archive import ArchiveFile
from .transports.docker_daemon import EngineSource, NamedSource
from .transports.keep import KeepDestination
from .transports.names import Choice

__all__ = ["Ingest", "Ingested", "Options"]

Value = TypeVar("Value")


class Ingest:
    """Puts images into one cluster."""

    def __init__(self, cluster: Cluster, options: Options, progress: Progress, trust: Trust | None = None) -> None:
        """``trust`` says whose links are taken at their word; this user's and the system user's unless given."""
        self._cluster = cluster
        self._options = options
        self._progress = progress
        self._records = Cataloguing(cluster, options, progress, trust)

    def from_engine(
        self,
        engine: Engine,
        name: Reference | ImageId,
        found: EngineImage | None = None,
        called: Reference | None = None,
    ) -> Ingested:
        """The image that the engine calls ``name``. Linked by that name if it is one, by its ID alone otherwise.

        ``found`` is what the engine says of it, if it has been asked already; ``called`` is
        another name to link it by.
        """
        image = found or engine.inspect(name)
        self._records.check_cluster()
        label = called or _label(name, image)
        with self._locked(image.id) as image_file:
            result = None
            if not self._options.force:
                result = self._records.known(image.id, label, diff_ids=image.diff_ids)
            if result is None:
                result = self._anew_if_refused(lambda spare: self._read(engine, image, label, image_file, spare))
            SentBlocks(image_file.parent, self._cluster, image.id).discard()
            if self._options.keep_tarball:
                cache.keep(image_file, engine.name)
            else:
                cache.discard(image_file)
        return result

    def together(
        self, engine: Engine, wanted: Sequence[tuple[Reference | ImageId, EngineImage]]
    ) -> dict[Digest, Ingested | ArvDockerError]:
        """Those of some images of an engine that nobody has stored yet and that share layers: read in one save,
        so that what they share is exported and hashed once. By ID; what is not among them is for ``from_engine``.

        What is wrong with one image is in its place. No tarball is left, for it would hold several.
        """
        self._records.check_cluster()
        results: dict[Digest, Ingested | ArvDockerError] = {}
        by_id: dict[Digest, tuple[Reference | ImageId, EngineImage]] = {}
        for name, image in wanted:
            by_id.setdefault(image.id, (name, image))
        for group in _sharing([image for _, image in by_id.values()]):
            with ExitStack() as locks:
                for image_id in sorted(group, key=str):  # in one order, so that no two wait crosswise
                    locks.enter_context(self._locked(image_id))
                there = set() if self._options.force else self._records.linked(group)
                names = {image_id: _label(*by_id[image_id]) for image_id in group if image_id not in there}
                if len(names) > 1:
                    images = [by_id[image_id][1] for image_id in names]
                    save = partial(self._save_together, engine, images, names)
                    try:
                        results |= self._anew_if_refused(save)
                    except ClusterError as error:
                        results |= dict.fromkeys(names, error)
        return results

    def from_archive(self, path: Path, name: Reference | ImageId | None) -> Ingested:
        """The image in a docker-archive or OCI layout in a file, which may be compressed.

        Of several images ``name`` says which; the only one is linked by ``name``, whatever the
        archive calls it; without one, by the first name that the archive gives it.
        """
        return self.from_source(ArchiveFile(path, name, Choice(progress=self._progress)), name)

    def from_source(
        self, source: Source, name: Reference | ImageId | None, otherwise: Reference | None = None
    ) -> Ingested:
        """The image of a source.

        Linked by ``name``; without one, by the first name that an archive gives it, or by
        ``otherwise``. Of an image that is far away, layers that Keep has by a trusted link are
        not fetched. What is piped in is stored first, for what it is shows at its end.
        """
        if isinstance(source, NamedSource):
            called = name if isinstance(name, Reference) else None
            return self.from_engine(source.engine(), source.name, called=called)
        self._records.check_cluster()
        with source.open() as image:
            if isinstance(image, StreamedImage):
                return self._from_stream(image, name, otherwise)
            return self.from_image(image, name, otherwise)

    def from_image(
        self, image: OpenedImage, name: Reference | ImageId | None, otherwise: Reference | None = None
    ) -> Ingested:
        """An image that is open, its config known before its layers are read; linked as by ``from_source``."""
        self._records.check_cluster()
        config = image.config
        label = _label_of(image, name, otherwise)
        if label is not None:
            naming.check_free(self._cluster, label, config.digest)
        size = image.known_size if isinstance(image, ArchivedImage) else None
        about = (size, config.digest, config.diff_ids)
        with self._locked(config.digest) as image_file:
            result = None if self._options.force else self._known(image, label)
            if result is None:
                result = self._anew_if_refused(
                    lambda spare: self._catalogue(self._write(image, *about, spare, called=label), label)
                )
            SentBlocks(image_file.parent, self._cluster, config.digest).discard()
        return result

    def under_its_names(self, image: OpenedImage) -> Ingested:
        """The same, linked by every name that its archive gives it; the result has the first of them."""
        return self._also_called(self.from_image(image, None), image.config.digest, _tags_of(image)[1:])

    def every_piped(self, archive: StreamedArchive) -> Iterator[tuple[str, Ingested | ArvDockerError]]:
        """Every image of an archive that is read once, from its front: what it is called, and what became of it.

        All are stored first, layers that they share once; each is linked by every name that the archive gives it.
        """
        self._records.check_cluster()
        _, destination = self._destination([], [], spare=False)
        with self._progress.storing("storing in Keep", None) as told:
            stored = destination.write_all(archive, told, told.spared)
        unsaid = set(destination.sent)
        for listed, image in archive.every():
            found = image if isinstance(image, ArvDockerError) else stored[image.digest]
            if isinstance(found, ArvDockerError):
                yield str(listed), found
                continue
            fresh = _bytes_of(found.names & unsaid)
            unsaid -= found.names
            layers = KnownLayers(self._cluster, found.layout.config.diff_ids, self._records.trust)
            written = Written(found, fresh, 0, layers, listed.digests)
            try:
                yield str(listed), self._under(written, references_in(listed.tags))
            except ArvDockerError as error:
                yield str(listed), error

    def _from_stream(
        self, image: StreamedImage, name: Reference | ImageId | None, otherwise: Reference | None
    ) -> Ingested:
        _, destination = self._destination([], [], spare=False)
        with self._progress.storing("storing in Keep", None) as told:
            stored = destination.write(image, told, told.spared)
        label = _label_of(image, name, otherwise)
        layers = KnownLayers(self._cluster, stored.layout.config.diff_ids, self._records.trust)
        written = Written(stored, destination.bytes_sent, destination.bytes_spared, layers, image.digests)
        return self._under(written, [label] if label else [])

    def _under(self, written: Written, names: Sequence[Reference]) -> Ingested:
        """An image that was stored before it was known which one it is, linked by these names."""
        config = written.stored.layout.config
        self._warn_of(config)
        first = next(iter(names), None)
        with self._locked(config.digest):
            known = None
            if not self._options.force:
                known = self._records.known(config.digest, first, digests=written.digests)
            return self._also_called(known or self._catalogue(written, first), config.digest, names[1:])

    def _also_called(self, done: Ingested, image_id: Digest, names: Sequence[Reference]) -> Ingested:
        """An image that was put into Keep, linked by further names."""
        for name in names:
            if (found := self._records.known(image_id, name)) is not None:
                done = replace(done, links_written=done.links_written + found.links_written)
        return done

    def from_keep(self, name: Reference | ImageId) -> Ingested | None:
        """An image that Keep has already and no engine has to, as ``Cataloguing.from_keep`` finds it."""
        return self._records.from_keep(name)

    def named_uniquely(self, done: Ingested) -> Ingested:
        """An image that was put into Keep, with one more name that can never mean another one (H20).

        Raises Shadowed if the cluster takes even that name for another collection.
        """
        collection = self._cluster.collection(done.uuid)
        name = Reference.parse(done.name or NAMELESS)
        unique = naming.link_uniquely(self._cluster, collection, name, self._records.trust, self._progress)
        return replace(done, unique=unique)

    @property
    def plans(self) -> Planning:
        """What would be done, and is not."""
        return Planning(self._cluster, self._records)

    # -- private -------------------------------------------------------------------------

    def _locked(self, image_id: Digest) -> AbstractContextManager[Path]:
        return cache.locked(cache.cache_folder(), image_id, self._waiting(image_id))

    def _known(self, image: OpenedImage, label: Reference | None) -> Ingested | None:
        """The image, if Keep has it."""
        digests = image.digests if isinstance(image, Digested) else ()
        return self._records.known(image.config.digest, label, digests=digests)

    def _read(
        self, engine: Engine, image: EngineImage, name: Reference | None, image_file: Path, spare: bool
    ) -> Ingested:
        """Reads the image from a tarball that an earlier try left, else from the engine while it saves."""
        about = (image.size, image.id, image.diff_ids, spare)
        if self._options.use_cache and (kept := cache.prep_image_file(image_file)[0]) is not None:
            try:
                with kept:
                    opened = docker_archive.opened(kept.fileno(), ImageId(image.id.hex))
                    written = self._write(opened, *about)
                return self._catalogue(written, name)
            except (ContentError, NoSuchImage) as error:
                self._progress.say(f"the tarball in the cache is no good, saving the image again: {error.message}")
        cache.discard(image_file)
        with EngineSource(engine, image, image_file if self._options.use_cache else None).open() as streamed:
            written = self._write(streamed, *about)
        return self._catalogue(written, name)  # only now is it known that the engine's command ended well

    def _write(
        self,
        image: OpenedImage,
        size: int | None,
        image_id: Digest,
        diff_ids: Sequence[Digest],
        spare: bool,
        *,
        called: Reference | None = None,
    ) -> Written:
        """Stores the blocks of an image that is open for reading.

        ``size`` is about its number of bytes; ``image_id`` and ``diff_ids`` are what it is said
        to be, by which blocks are looked for that Keep has, if they are to be spared. So may be the
        layers of one that is far away: they are looked for in other images of what it is ``called`` too.
        """
        far = not isinstance(image, ArchivedImage | StreamedImage)
        layers, destination = self._destination([image_id], diff_ids, spare, far=far, called=called)
        if far and (doubted := layers.doubted - set(map(str, destination.present(diff_ids)))):
            self._progress.say(
                f"layers that only others say to be in Keep: {len(doubted)}; they are fetched and compared"
            )
        with self._progress.storing("storing in Keep", size) as told:
            stored = destination.write(image, told, told.spared)
        self._warn_of(stored.layout.config)
        digests = image.digests if isinstance(image, Digested) else ()
        return Written(stored, destination.bytes_sent, destination.bytes_spared, layers, digests)

    def _held(
        self, layers: KnownLayers, called: Reference | None, diff_ids: Sequence[Digest]
    ) -> dict[Digest, HeldLayer]:
        """The layers that need not be fetched."""
        held = layers.held(diff_ids)
        if called is None or not (left := set(diff_ids) - held.keys()):
            return held
        return held | layers.packed_in(catalogue.of_repository(self._cluster, called, self._records.trust), left)

    def _save_together(
        self, engine: Engine, images: Sequence[EngineImage], names: Mapping[Digest, Reference | None], spare: bool
    ) -> dict[Digest, Ingested | ArvDockerError]:
        image_ids = [image.id for image in images]
        diff_ids = [diff_id for image in images for diff_id in image.diff_ids]
        layers, destination = self._destination(image_ids, diff_ids, spare)
        step = self._progress.storing(f"storing {len(images)} images in Keep", None)
        with step as told, engine.save(list(map(str, image_ids))) as stream:
            stored = destination.write_all(StreamedArchive(stream), told, told.spared)
        results: dict[Digest, Ingested | ArvDockerError] = {}
        unsaid = set(destination.sent)
        for image_id in image_ids:
            archive = stored.get(image_id)
            if isinstance(archive, StoredArchive):
                spared = archive.names & destination.known.keys()
                fresh = _bytes_of(archive.names & unsaid)
                unsaid -= archive.names
                written = Written(archive, fresh, _bytes_of(spared), layers, (image_id,))
                results[image_id] = self._outcome(written, names[image_id])
            elif archive is not None:
                results[image_id] = archive
            if isinstance(results.get(image_id), Ingested):
                SentBlocks(cache.cache_folder(), self._cluster, image_id).discard()
        return results

    def _destination(
        self,
        image_ids: Sequence[Digest],
        diff_ids: Sequence[Digest],
        spare: bool,
        *,
        far: bool = False,
        called: Reference | None = None,
    ) -> tuple[KnownLayers, KeepDestination]:
        """Keep, with what it has of these layers and of what an interrupted run sent of these images."""
        folder = cache.cache_folder()
        sent = SentBlocks(folder, self._cluster, *image_ids)
        layers = KnownLayers(self._cluster, diff_ids, self._records.trust)
        resumed = sent.blocks if self._options.use_cache else {}
        known = {**layers.blocks, **resumed} if spare else {}
        note = sent.note if self._options.use_cache else None
        look_up = partial(self._held, layers, called) if far and spare else None
        return layers, KeepDestination(self._cluster, folder, known, note, look_up)

    def _catalogue(self, written: Written, name: Reference | None) -> Ingested:
        if name is not None:
            naming.check_free(self._cluster, name, written.stored.layout.config.digest)
        try:
            return self._records.write(written, name)
        except ClusterError as error:
            if error.status == 403 and written.spared:
                raise _SparedRefusedError from error
            raise

    def _outcome(self, written: Written, name: Reference | None) -> Ingested | ArvDockerError:
        self._warn_of(written.stored.layout.config)
        try:
            return self._catalogue(written, name)
        except ArvDockerError as error:
            return error

    def _anew_if_refused(self, store: Callable[[bool], Value]) -> Value:
        """What ``store`` gives; once more, with every block sent, if the cluster refuses those that were spared."""
        try:
            return store(not self._options.force)
        except _SparedRefusedError:
            self._progress.say("the cluster does not take blocks that it had already; sending everything again")
        return store(False)

    # -- what is said --------------------------------------------------------------------

    def _warn_of(self, config: Config) -> None:
        if len(config.diff_ids) > CLASSIC_LAYER_LIMIT:
            self._progress.say(
                f"warning: the image has {len(config.diff_ids)} layers; Docker's classic store "
                f"cannot load more than {CLASSIC_LAYER_LIMIT}"
            )

    def _waiting(self, image_id: Digest) -> Iterator[None]:
        self._progress.say(f"another process works on image {image_id.short}; waiting for it")
        yield


class _SparedRefusedError(Exception):
    """The cluster does not make a collection of blocks that it had before us."""


def _sharing(images: Iterable[EngineImage]) -> list[list[Digest]]:
    """The IDs of two or more images each that stand on the same layer: engines share layers from the lowest up."""
    groups: dict[Digest, list[Digest]] = {}
    for image in images:
        if image.diff_ids:
            groups.setdefault(image.diff_ids[0], []).append(image.id)
    return [group for group in groups.values() if len(group) > 1]


def _bytes_of(names: Collection[str]) -> int:
    """The bytes of some blocks, by their names (``md5+size``)."""
    return sum(int(name.partition("+")[2]) for name in names)


def _label_of(image: OpenedImage, name: Reference | ImageId | None, otherwise: Reference | None) -> Reference | None:
    """The name to link an image of a source by; None where the user gave (the beginning of) its ID."""
    if name is None:
        return next(iter(_tags_of(image)), otherwise)
    if isinstance(name, ImageId) or (name.as_id is not None and name.as_id.matches(image.config.digest)):
        return None
    return name


def _tags_of(image: OpenedImage) -> tuple[Reference, ...]:
    """The names that an archive gives an image."""
    return references_in(image.tags) if isinstance(image, ArchivedImage | StreamedImage) else ()


def _label(name: Reference | ImageId, image: EngineImage) -> Reference | None:
    """The name to link the image by; None where the user gave (the beginning of) its ID."""
    if isinstance(name, ImageId):
        return None
    called_so = name in references_in(image.tags)
    return None if name.as_id is not None and not called_so else name

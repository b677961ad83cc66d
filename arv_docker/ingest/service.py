# SPDX-License-Identifier: Apache-2.0
"""Putting an image into Keep: find, read, canonicalise, store, link (docs/spec/ingest.md).

Here is where images come from, and what is asked before they are read; ``storing`` stores them,
``cataloguing`` has what the cluster's records say of them. What is piped in goes by ``piped``,
several images that share layers by ``together``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from ..archive.stream import StreamedArchive
from ..arvados.client import Cluster
from ..arvados.trust import Trust
from ..engines import Engine, EngineImage
from ..errors import ArvDockerError, ContentError, NoSuchImage
from ..images import tags
from ..local.progress import Progress
from ..model.image import Digest
from ..model.reference import NAMELESS, ImageId, Reference
from ..store import tarballs
from ..transports import OpenedImage, Source, docker_archive
from ..transports.docker_archive import ArchiveFile
from ..transports.docker_daemon import EngineSource
from ..transports.names import Choice
from . import batch, from_pipe, link_names
from .dry_run import Planning
from .options import Ingested, Options
from .records import Cataloguing
from .upload import Expected, Storing

__all__ = ["Ingest", "Ingested", "Options"]


class Ingest:
    """Puts images into one cluster."""

    def __init__(self, cluster: Cluster, options: Options, progress: Progress, trust: Trust | None = None) -> None:
        """``trust`` says whose links are taken at their word; this user's and the system user's unless given."""
        self._cluster = cluster
        self._options = options
        self._progress = progress
        self._records = Cataloguing(cluster, options, progress, trust)
        self._storing = Storing(cluster, self._records, progress)

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
        label = called or link_names.of_engine(name, image)
        with self._storing.locked(image.id) as image_file:
            known = partial(self._records.known, image.id, label, diff_ids=image.diff_ids)
            result = self._storing.unless_known(image.id, known, partial(self._read, engine, image, label, image_file))
            if self._options.keep_tarball:
                tarballs.keep(image_file, engine.name)
            else:
                tarballs.discard(image_file)
        return result

    def together(
        self, engine: Engine, wanted: Sequence[tuple[Reference | ImageId, EngineImage]]
    ) -> dict[Digest, Ingested | ArvDockerError]:
        """Those of some images of an engine that nobody has stored yet and that share layers: read in one save,
        so that what they share is exported and hashed once. By ID; what is not among them is for ``from_engine``.

        What is wrong with one image is in its place. No tarball is left, for it would hold several.
        """
        self._records.check_cluster()
        return batch.stored(self._storing, engine, wanted)

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
        if (place := source.in_engine()) is not None:
            called = name if isinstance(name, Reference) else None
            return self.from_engine(place.engine, place.name, place.image, called)
        self._records.check_cluster()
        with source.open() as image:
            if image.streams:
                return from_pipe.one(self._storing, image, name, otherwise)
            return self.from_image(image, name, otherwise)

    def from_image(
        self, image: OpenedImage, name: Reference | ImageId | None, otherwise: Reference | None = None
    ) -> Ingested:
        """An image that is open, its config known before its layers are read; linked as by ``from_source``."""
        self._records.check_cluster()
        config = image.config
        label = link_names.of_source(image, name, otherwise)
        if label is not None:
            tags.check_free(self._cluster, label, config.digest)
        expected = Expected((config.digest,), config.diff_ids, image.known_size)
        known = partial(self._records.known, config.digest, label, digests=image.digests)

        def store(spare: bool) -> Ingested:
            return self._storing.catalogue(self._storing.store(image, expected, spare=spare, called=label), label)

        with self._storing.locked(config.digest):
            return self._storing.unless_known(config.digest, known, store)

    def under_its_names(self, image: OpenedImage) -> Ingested:
        """The same, linked by every name that its archive gives it; the result has the first of them."""
        done = self.from_image(image, None)
        return self._records.also_called(done, image.config.digest, link_names.given(image)[1:])

    def every_piped(self, archive: StreamedArchive) -> Iterator[tuple[str, Ingested | ArvDockerError]]:
        """Every image of an archive that is read once, from its front: what it is called, and what became of it.

        All are stored first, layers that they share once; each is linked by every name that the archive gives it.
        """
        self._records.check_cluster()
        yield from from_pipe.every(self._storing, archive)

    def from_keep(self, name: Reference | ImageId) -> Ingested | None:
        """An image that Keep has already and no engine has to, as ``Cataloguing.from_keep`` finds it."""
        return self._records.from_keep(name)

    def named_uniquely(self, done: Ingested) -> Ingested:
        """An image that was put into Keep, with one more name that can never mean another one
        (docs/conformance.md#h20).

        Raises Shadowed if the cluster takes even that name for another collection.
        """
        collection = self._cluster.collection(done.uuid)
        name = Reference.parse(done.name or NAMELESS)
        unique = tags.link_uniquely(self._cluster, collection, name, self._records.trust, self._progress)
        return replace(done, unique=unique)

    @cached_property
    def plans(self) -> Planning:
        """What would be done, and is not."""
        return Planning(self._cluster, self._records)

    # -- private -------------------------------------------------------------------------

    def _read(
        self, engine: Engine, image: EngineImage, name: Reference | None, image_file: Path, spare: bool
    ) -> Ingested:
        """Reads the image from a tarball that an earlier try left, else from the engine while it saves."""
        store = partial(self._storing.store, expected=Expected((image.id,), image.diff_ids, image.size), spare=spare)
        if self._options.use_cache and (kept := tarballs.prep_image_file(image_file)[0]) is not None:
            try:
                with kept:
                    written = store(docker_archive.opened(kept.fileno(), ImageId(image.id.hex)))
                return self._storing.catalogue(written, name)
            except (ContentError, NoSuchImage) as error:
                self._progress.say(f"the tarball in the cache is no good, saving the image again: {error.message}")
        tarballs.discard(image_file)
        with EngineSource(engine, image, image_file if self._options.use_cache else None).open() as streamed:
            written = store(streamed)
        return self._storing.catalogue(written, name)  # only now is it known that the engine's command ended well

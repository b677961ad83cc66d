# SPDX-License-Identifier: Apache-2.0
"""Putting an image into Keep: lock, look up, read and upload if it is absent, record, name (docs/spec/ingest.md).

``Ingest._ingest`` is the whole way. The steps are in pages of their own: ``preflight`` checks the cluster, ``records``
looks up and writes collections and links, ``upload`` sends blocks, ``link_names`` says by which name an image is
linked. ``batch`` has several images that share layers, and ``from_pipe`` what is piped in and known only at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from ..archive.stream import StreamedArchive
from ..arvados.catalog import links
from ..arvados.client import Cluster
from ..arvados.stored import StoredImage
from ..arvados.trust import Trust
from ..engines import Engine, EngineImage
from ..errors import ArvDockerError, ClusterError
from ..images import tags, verify
from ..local.progress import Progress
from ..model.image import Digest, Platform
from ..model.reference import NAMELESS, ImageId, Reference
from ..store import tarballs
from ..transports import OpenedImage, Source
from ..transports.docker_archive import ArchiveFile
from ..transports.names import Choice
from . import batch, from_pipe, link_names
from .dry_run import IngestPlanner
from .from_keep import find_in_keep, has_attested_copy
from .options import Options
from .preflight import Preflight
from .records import ImageRecords
from .results import IngestResult
from .upload import ExpectedImages, ReusedBlocksRefused, UploadedImage, Uploader, warn_of_platform

__all__ = ["Ingest", "IngestResult", "Options"]


class Ingest:
    """Service that puts images into a cluster."""

    def __init__(self, cluster: Cluster, options: Options, progress: Progress, trust: Trust | None = None) -> None:
        """``trust`` says whose links are trusted; this user's and the system user's unless given."""
        self._cluster = cluster
        self._options = options
        self._progress = progress
        self._preflight = Preflight(cluster, options, progress)
        self._records = ImageRecords(cluster, options, progress, trust)
        self._uploader = Uploader(cluster, options, progress, self._records.trust)

    def from_engine(
        self,
        engine: Engine,
        name: Reference | ImageId,
        image: EngineImage | None = None,
        called: Reference | None = None,
    ) -> IngestResult:
        """Put the engine's image ``name`` into Keep, linked by the name; an ID gives no name.

        ``image`` is what the engine says of it, if it has been asked already; ``called`` is
        another name to link it by. Raises NotVerified where that has a digest which the engine does not know it by.
        """
        image = image or engine.inspect(name)
        if called is not None:
            link_names.check_engine_name(called, image)
        expected = ExpectedImages((image.id,), image.diff_ids, image.size)
        upload = partial(self._uploader.upload_from_engine, engine, image)
        called = called or link_names.of_engine(name, image)
        return self._ingest(expected, called, upload, engine=engine, platform=image.platform)

    def from_image(
        self, image: OpenedImage, name: Reference | ImageId | None, otherwise: Reference | None = None
    ) -> IngestResult:
        """Put an open image into Keep, its config known before its layers are read; linked as by ``from_source``."""
        config = image.config
        link_name = link_names.of_source(image, name, otherwise)
        if link_name is not None:
            tags.check_free(self._cluster, link_name, config.digest, self.trust)
        expected = ExpectedImages((config.digest,), config.diff_ids, image.known_size)

        def upload(_: Path, dedup: bool) -> UploadedImage:
            return self._uploader.upload(image, expected, dedup=dedup, name=link_name)

        return self._ingest(expected, link_name, upload, digests=image.digests, platform=config.platform)

    def _ingest(
        self,
        image: ExpectedImages,
        link_name: Reference | None,
        upload: Callable[[Path, bool], UploadedImage],
        *,
        platform: Platform,
        digests: Sequence[Digest] = (),
        engine: Engine | None = None,
    ) -> IngestResult:
        """Put one image for ``platform`` into Keep; ``upload`` reads it and sends its blocks, ``engine`` is where it
        comes from."""
        (image_id,) = image.image_ids
        self._preflight.check()
        with tarballs.hold_image_lock(self._options.cache, image_id, self._progress.say) as tarball:
            result = self._records.find_and_complete(image_id, link_name, digests=digests, diff_ids=image.diff_ids)
            if result is not None:
                warn_of_platform(self._options, platform, self._progress)
            dedup = not self._options.force
            while result is None:
                self._preflight.check_creation()
                uploaded = upload(tarball, dedup)
                try:
                    result = self._records.record(uploaded, link_name)
                except ReusedBlocksRefused as refused:
                    self._progress.say(str(refused))
                    dedup = False  # every block is sent then, and none can be refused for that again
                except ClusterError as error:
                    if error.is_refusal:
                        self._uploader.forget(image_id)
                        if engine is not None:
                            tarballs.settle(tarball, engine.name, keeping=self._options.keep_tarball)
                    raise
            self._uploader.forget(image_id)
            if engine is not None:
                tarballs.settle(tarball, engine.name, keeping=self._options.keep_tarball)
        return result

    # -- other ways in -----------------------------------------------------------------------

    def from_source(
        self, source: Source, name: Reference | ImageId | None, otherwise: Reference | None = None
    ) -> IngestResult:
        """Put the image of a source into Keep.

        Linked by ``name``; without one, by the first name that an archive gives it, or by
        ``otherwise``. Of an image that is far away, layers that Keep has by a trusted link are
        not fetched. What is piped in is stored first, for what it is shows at its end.
        """
        if (place := source.in_engine()) is not None:
            called = name if isinstance(name, Reference) else None
            return self.from_engine(place.engine, place.name, place.image, called)
        self._preflight.check()
        with source.open() as image:
            if image.streams:
                self._preflight.check_creation()
                return from_pipe.store_one(self._pipeline, image, name, otherwise)
            return self.from_image(image, name, otherwise)

    def from_archive(self, path: Path, name: Reference | ImageId | None) -> IngestResult:
        """Put the image of a docker-archive or OCI layout in a file into Keep, which may be compressed.

        Of several images ``name`` says which; the only one is linked by ``name``, whatever the
        archive calls it; without one, by the first name that the archive gives it.
        """
        return self.from_source(ArchiveFile(path, name, Choice(progress=self._progress), any_name=True), name)

    @property
    def trust(self) -> Trust:
        """Trust in users and their links."""
        return self._records.trust

    def from_keep(self, name: Reference | ImageId, *, follow_cluster: bool = False) -> IngestResult | None:
        """Link an image that only Keep has, and copy it into our project; None without such an image.

        A name counts by the word of trusted users alone, for nothing else says that it means this image; an ID says so
        itself. With ``follow_cluster`` a name means what the cluster takes it for. What an untrusted user alone says
        is verified; it is copied and linked only into a project that was asked for, and else stays his. Of an archive
        in another layout the image is stored anew there (docs/spec/trust.md#reading-back).
        """
        trust = self._records.trust
        image = find_in_keep(self._cluster, name, trust, self._progress, follow_cluster=follow_cluster)
        if image is None:
            return None
        if image.untrusted_writer is None:
            return self._records.find_and_complete(image.image_id, image.name)
        collection, project = image.collection, self._options.project
        if project is None:
            verify.verify(self._cluster, collection, quick=False, progress=self._progress)
            return IngestResult(collection.uuid, collection.pdh, image.image_id, str(name), True, 0, 0, 0)
        self._preflight.check_creation()
        stored = StoredImage(self._cluster, collection)
        if not has_attested_copy(self._cluster, image, project, trust):
            if stored.canonical is None:  # two readers may make two images of it, which reading it cannot rule out
                self._progress.say(
                    f"{name}: only {image.untrusted_writer} says what it is, and the archive is not the canonical one; "
                    "it is stored anew"
                )
                return self.from_image(stored, image.name)
            verify.verify(self._cluster, collection, quick=False, progress=self._progress)
        timestamp = links.timestamp_of(stored.config)
        return self._records.adopt(collection.manifest_text or "", image.image_id, image.name, timestamp, bytes_sent=0)

    def store_shared(
        self, engine: Engine, wanted: Sequence[tuple[Reference | ImageId, EngineImage]]
    ) -> dict[Digest, IngestResult | ArvDockerError]:
        """Put those of an engine's images into Keep in one save that are not stored yet and share layers.

        What they share is exported and hashed once. By ID; what is not among them is for ``from_engine``.
        What is wrong with one image is in its place. No tarball is left, for it would hold several.
        """
        self._preflight.check_creation()
        return batch.store_shared(self._pipeline, engine, wanted)

    def under_its_names(self, image: OpenedImage) -> IngestResult:
        """Put an open image into Keep, linked by every name in the archive; the result has the first."""
        result = self.from_image(image, None)
        return self._records.add_names(result, image.config.digest, link_names.archive_names(image)[1:])

    def every_piped(self, archive: StreamedArchive) -> Iterator[tuple[str, IngestResult | ArvDockerError]]:
        """Put every image of a piped archive into Keep, and yield each image's title and result.

        All are stored first, layers that they share once; each is linked by every name that the archive gives it.
        """
        self._preflight.check_creation()
        yield from from_pipe.store_every(self._pipeline, archive)

    def name_uniquely(self, result: IngestResult) -> IngestResult:
        """Give an image that was put into Keep one more name, which can never mean another one
        (docs/conformance.md#h20).

        Raises ShadowedName if the cluster takes even that name for another collection.
        """
        collection = self._cluster.collection(result.uuid)
        name = Reference.parse(result.name or NAMELESS)
        unique = tags.link_uniquely(self._cluster, collection, name, self._records.trust, self._progress)
        return replace(result, unique=unique)

    @property
    def options(self) -> Options:
        """Options: how images are put into Keep."""
        return self._options

    @cached_property
    def plans(self) -> IngestPlanner:
        """Plans of what would be done, after the same checks; nothing is written."""
        self._preflight.check()
        return IngestPlanner(self._cluster, self._records, self._progress)

    @property
    def _pipeline(self) -> batch.Pipeline:
        return batch.Pipeline(self._options, self._records, self._uploader, self._progress)

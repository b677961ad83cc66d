# SPDX-License-Identifier: Apache-2.0
"""Uploading images: their blocks go into Keep, as far as Keep lacks them; no record is made here.

The rules are those of docs/spec/ingest.md#store.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..archive.stream import StreamedArchive
from ..arvados.blocks import StoredArchive
from ..arvados.catalog import link_query
from ..arvados.client import Cluster
from ..arvados.dedup import LayerInKeep, LayerLookup
from ..arvados.resume import SentBlocks
from ..arvados.trust import Trust
from ..engines import Engine, EngineImage
from ..errors import ArvDockerError, ContentError, NoSuchImage
from ..local.progress import Progress
from ..model.image import CLASSIC_LAYER_LIMIT, Digest, Platform
from ..model.manifest import suits
from ..model.reference import ImageId, Reference
from ..store import tarballs
from ..store.cache import CacheFolder
from ..transports import OpenedImage, docker_archive
from ..transports.docker_daemon import EngineSource
from ..transports.keep import KeepDestination
from .options import Options

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExpectedImages:
    """Properties of images by their source, before they are read: the keys of the lookup in Keep.

    ``size`` is about their number of bytes, None where nobody says.
    """

    image_ids: Sequence[Digest]
    diff_ids: Sequence[Digest]
    size: int | None


#: What is piped in: nothing is known of it before its end.
UNKNOWN = ExpectedImages((), (), None)


@dataclass(frozen=True, slots=True)
class UploadedImage:
    """An image with all blocks in Keep and no collection yet, and the numbers of bytes sent and skipped.

    ``digests`` are those by which its source calls it.
    """

    archive: StoredArchive
    bytes_sent: int
    bytes_skipped: int
    layers: LayerLookup
    digests: tuple[Digest, ...] = ()


@dataclass(slots=True)
class SharedUpload:
    """Images of one archive whose blocks were stored together, by ID and by their other digests; what is wrong with one
    is in its place. ``Uploader.share_of`` gives each of them.

    ``uncounted`` are the names of blocks that were sent and count for none of them yet, ``skipped`` of those that Keep
    had.
    """

    images: Mapping[Digest, StoredArchive | ArvDockerError]
    expected: ExpectedImages
    layers: LayerLookup
    uncounted: set[str]
    skipped: Set[str]


class ReusedBlocksRefused(Exception):
    """The cluster refuses a collection with reused blocks."""

    def __str__(self) -> str:
        return "the cluster does not take blocks that it had already; sending everything again"


class Uploader:
    """Uploader of the blocks of images to one cluster."""

    def __init__(self, cluster: Cluster, options: Options, progress: Progress, trust: Trust) -> None:
        """``trust`` says by whose links layers need not be read from their source."""
        self._cluster = cluster
        self._options = options
        self._progress = progress
        self._trust = trust

    def upload(
        self, image: OpenedImage, expected: ExpectedImages, *, dedup: bool, name: Reference | None = None
    ) -> UploadedImage:
        """Send the blocks of an image; with ``dedup`` those that Keep has are skipped.

        Of one that is far away not even such layers are read: they are looked for in other images
        of that ``name``, too.
        """
        far = not image.is_local
        layers, destination = self._destination(expected, dedup=dedup, far=far, name=name)
        if far and (doubted := layers.unattested_layers - set(map(str, destination.present(expected.diff_ids)))):
            self._progress.say(
                f"layers that only others say to be in Keep: {len(doubted)}; they are fetched and compared"
            )
        with self._progress.store_step("storing in Keep", expected.size) as advance:
            archive = destination.write(image, advance, advance.skip)
        sent, skipped = destination.bytes_sent, destination.bytes_spared
        return self._uploaded_image(archive, expected, layers, image.digests, sent=sent, skipped=skipped)

    def upload_from_engine(self, engine: Engine, image: EngineImage, tarball: Path, dedup: bool) -> UploadedImage:
        """Send the blocks of an engine's image, from the tarball that an earlier try left, else while it is saved."""
        expected = ExpectedImages((image.id,), image.diff_ids, image.size)
        if self._options.use_cache and (kept := tarballs.prep_image_file(tarball)[0]) is not None:
            log.debug("reading %s, which an earlier run saved", tarball)
            try:
                with kept:
                    return self.upload(
                        docker_archive.image_in_file(kept.fileno(), ImageId(image.id.hex)), expected, dedup=dedup
                    )
            except (ContentError, NoSuchImage) as error:
                self._progress.say(f"the tarball in the cache is no good, saving the image again: {error.message}")
        tarballs.discard(tarball)
        with EngineSource(engine, image, tarball if self._options.use_cache else None).open() as streamed:
            return self.upload(streamed, expected, dedup=dedup)

    def upload_every(
        self, archive: StreamedArchive, expected: ExpectedImages, title: str, *, dedup: bool
    ) -> SharedUpload:
        """Send the blocks of every image of an archive, shared blocks once."""
        layers, destination = self._destination(expected, dedup=dedup)
        with self._progress.store_step(title, expected.size) as advance:
            images = destination.write_all(archive, advance, advance.skip)
        return SharedUpload(images, expected, layers, set(destination.sent), destination.known.keys())

    def share_of(self, upload: SharedUpload, archive: StoredArchive, digests: tuple[Digest, ...]) -> UploadedImage:
        """Share of one image in an upload of several, with the digests by which the source calls it.

        A block counts as sent for the first of them that is asked for.
        """
        sent, skipped = archive.names & upload.uncounted, archive.names & upload.skipped
        upload.uncounted -= sent
        return self._uploaded_image(
            archive, upload.expected, upload.layers, digests, sent=bytes_of(sent), skipped=bytes_of(skipped)
        )

    def forget(self, image_id: Digest) -> None:
        """Remove the record of the blocks that were sent: the image is in Keep."""
        SentBlocks(self._options.cache, self._cluster, image_id).discard()

    # -- private -------------------------------------------------------------------------

    def _destination(
        self, expected: ExpectedImages, *, dedup: bool, far: bool = False, name: Reference | None = None
    ) -> tuple[LayerLookup, KeepDestination]:
        """Keep as destination, with the known blocks of these layers and of an interrupted run."""
        folder, use_cache = self._options.cache, self._options.use_cache
        sent = SentBlocks(folder, self._cluster, *expected.image_ids)
        layers = LayerLookup(self._cluster, expected.diff_ids, self._trust)
        resumed = sent.blocks if use_cache else {}
        known = {**layers.blocks, **resumed} if dedup else {}
        log.debug("Keep has %d blocks of these layers, and %d of an interrupted run", len(layers.blocks), len(resumed))
        look_up = partial(self._layers_in_keep, layers, name) if far and dedup else None
        note, cache = (sent.note if use_cache else None), CacheFolder.at(folder)
        return layers, KeepDestination(self._cluster, folder, known, note, look_up, cache=cache)

    def _layers_in_keep(
        self, layers: LayerLookup, name: Reference | None, diff_ids: Sequence[Digest]
    ) -> dict[Digest, LayerInKeep]:
        """Layers that need not be fetched."""
        held = layers.layers_in_keep(diff_ids)
        if name is None or not (left := set(diff_ids) - held.keys()):
            return held
        return held | layers.packed_layers_in(
            link_query.collections_of_repository(self._cluster, name, self._trust), left
        )

    def _uploaded_image(
        self,
        archive: StoredArchive,
        expected: ExpectedImages,
        layers: LayerLookup,
        digests: tuple[Digest, ...],
        *,
        sent: int,
        skipped: int,
    ) -> UploadedImage:
        diff_ids = archive.layout.config.diff_ids
        if not expected.diff_ids:  # only now is it known which layers these are
            layers = LayerLookup(self._cluster, diff_ids, self._trust)
        if len(diff_ids) > CLASSIC_LAYER_LIMIT:
            self._progress.warn(
                f"the image has {len(diff_ids)} layers; Docker's classic store "
                f"cannot load more than {CLASSIC_LAYER_LIMIT}"
            )
        warn_of_platform(self._options, archive.layout.config.platform, self._progress)
        return UploadedImage(archive, sent, skipped, layers, digests)


def warn_of_platform(options: Options, platform: Platform, progress: Progress) -> None:
    """Warn of an image that is for another platform than the cluster's nodes."""
    nodes = options.platform
    if nodes is not None and "unknown" not in (platform.os, platform.architecture) and not suits(platform, nodes):
        progress.warn(f"the image is for {platform}, and the cluster's nodes are taken to be {nodes}")


def bytes_of(names: Iterable[str]) -> int:
    """The bytes of some blocks, by their names (``md5+size``)."""
    return sum(int(name.partition("+")[2]) for name in names)

# SPDX-License-Identifier: Apache-2.0
"""Putting several images of an engine into Keep that share layers.

They are read in one save, so that what they share is exported and hashed once; each is recorded by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from ..archive.stream import StreamedArchive
from ..arvados.blocks import StoredArchive
from ..engines import Engine, EngineImage
from ..errors import ArvDockerError, ClusterError
from ..local.progress import Progress
from ..model.image import Digest
from ..model.reference import ImageId, Reference
from ..store import tarballs
from . import link_names
from .options import Options
from .records import ImageRecords
from .results import IngestResult
from .upload import ExpectedImages, ReusedBlocksRefused, Uploader


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The parts of an ingest into a cluster."""

    options: Options
    records: ImageRecords
    uploader: Uploader
    progress: Progress


def store_shared(
    pipeline: Pipeline, engine: Engine, wanted: Sequence[tuple[Reference | ImageId, EngineImage]]
) -> dict[Digest, IngestResult | ArvDockerError]:
    """Store the wanted images that share layers and that nobody has linked yet; return results by ID, what is wrong
    with one image in its place. A cluster that fails is not asked about the other images."""
    results: dict[Digest, IngestResult | ArvDockerError] = {}
    by_id: dict[Digest, tuple[Reference | ImageId, EngineImage]] = {}
    for name, image in wanted:
        by_id.setdefault(image.id, (name, image))
    options = pipeline.options
    for group in _sharing(image for _, image in by_id.values()):
        with ExitStack() as locks:
            for image_id in sorted(group, key=str):  # in one order, so that no two wait crosswise
                locks.enter_context(tarballs.hold_image_lock(options.cache, image_id, pipeline.progress.say))
            linked = set() if options.force else pipeline.records.linked_among(group)
            missing = {image_id: by_id[image_id] for image_id in group if image_id not in linked}
            if len(missing) > 1:
                images = [image for _, image in missing.values()]
                names = {image_id: link_names.of_engine(*asked) for image_id, asked in missing.items()}
                try:
                    try:
                        results |= _store_save(pipeline, engine, images, names, dedup=not options.force)
                    except ReusedBlocksRefused as refused:
                        pipeline.progress.say(str(refused))
                        results |= _store_save(pipeline, engine, images, names, dedup=False)
                except ClusterError as error:
                    results |= dict.fromkeys(names, error)
        if any(isinstance(each, ClusterError) and each.is_outage for each in results.values()):
            break
    return results


def _store_save(
    pipeline: Pipeline,
    engine: Engine,
    images: Sequence[EngineImage],
    names: Mapping[Digest, Reference | None],
    *,
    dedup: bool,
) -> dict[Digest, IngestResult | ArvDockerError]:
    """Save the images at once, upload and record each; results of those that were in the save."""
    uploader = pipeline.uploader
    diff_ids = [diff_id for image in images for diff_id in image.diff_ids]
    expected = ExpectedImages([image.id for image in images], diff_ids, size=None)
    with engine.save([str(image.id) for image in images]) as stream:
        title = f"storing {len(images)} images in Keep"
        upload = uploader.upload_every(StreamedArchive(stream), expected, title, dedup=dedup)
    results: dict[Digest, IngestResult | ArvDockerError] = {}
    for image_id in expected.image_ids:
        archive = upload.images.get(image_id)
        if isinstance(archive, StoredArchive):
            uploaded = uploader.share_of(upload, archive, (image_id,))
            try:
                results[image_id] = pipeline.records.record(uploaded, names[image_id])
                uploader.forget(image_id)
            except ArvDockerError as error:
                if isinstance(error, ClusterError) and error.is_refusal:
                    uploader.forget(image_id)
                results[image_id] = error
                if isinstance(error, ClusterError) and error.is_outage:
                    break
        elif archive is not None:
            results[image_id] = archive
    return results


def _sharing(images: Iterable[EngineImage]) -> list[list[Digest]]:
    """The IDs of two or more images each that stand on the same layer: engines share layers from the lowest up."""
    groups: dict[Digest, list[Digest]] = {}
    for image in images:
        if image.diff_ids:
            groups.setdefault(image.diff_ids[0], []).append(image.id)
    return [group for group in groups.values() if len(group) > 1]

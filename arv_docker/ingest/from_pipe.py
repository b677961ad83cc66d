# SPDX-License-Identifier: Apache-2.0
"""Piped images on their way into Keep: read once, from the front, and identified at the end.

They are stored first; then each is looked up, recorded and linked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..archive.stream import StreamedArchive
from ..errors import ArvDockerError
from ..model.reference import ImageId, Reference
from ..store import tarballs
from ..transports import OpenedImage
from . import link_names
from .batch import Pipeline
from .results import IngestResult
from .upload import UNKNOWN, UploadedImage


def store_one(
    pipeline: Pipeline, image: OpenedImage, name: Reference | ImageId | None, otherwise: Reference | None
) -> IngestResult:
    """Store one image, linked as by ``Ingest.from_source``."""
    uploaded = pipeline.uploader.upload(image, UNKNOWN, dedup=False)
    link_name = link_names.of_source(image, name, otherwise)
    return _record(pipeline, uploaded, [link_name] if link_name else [])


def store_every(pipeline: Pipeline, archive: StreamedArchive) -> Iterator[tuple[str, IngestResult | ArvDockerError]]:
    """Store every image of an archive: what it is called, and the result, linked by every name that the archive
    gives it."""
    upload = pipeline.uploader.upload_every(archive, UNKNOWN, "storing in Keep", dedup=False)
    for listed, image in archive.every():
        stored = image if isinstance(image, ArvDockerError) else upload.images[image.digest]
        if isinstance(stored, ArvDockerError):
            yield str(listed), stored
            continue
        uploaded = pipeline.uploader.share_of(upload, stored, listed.digests)
        try:
            names = link_names.names_of(listed.tags, listed.digests)
            yield str(listed), _record(pipeline, uploaded, names)
        except ArvDockerError as error:
            yield str(listed), error


def _record(pipeline: Pipeline, uploaded: UploadedImage, names: Sequence[Reference]) -> IngestResult:
    """Make a collection for an image whose blocks are in Keep, if there is none, and link it by these names."""
    image_id = uploaded.archive.layout.config.digest
    first = next(iter(names), None)
    records = pipeline.records
    with tarballs.hold_image_lock(pipeline.options.cache, image_id, pipeline.progress.say):
        result = records.find_and_complete(image_id, first, digests=uploaded.digests)
        return records.add_names(result or records.record(uploaded, first), image_id, names[1:])

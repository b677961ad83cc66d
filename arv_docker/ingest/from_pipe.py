# SPDX-License-Identifier: Apache-2.0
"""Putting images into Keep that are piped in: read once, from the front, so that what they are shows at the end.

They are stored first; then each is looked up, recorded and linked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..archive.stream import StreamedArchive
from ..errors import ArvDockerError
from ..model.reference import ImageId, Reference, references_in
from ..transports import OpenedImage
from . import link_names
from .options import Ingested
from .records import Written
from .upload import UNKNOWN, Storing


def one(
    storing: Storing, image: OpenedImage, name: Reference | ImageId | None, otherwise: Reference | None
) -> Ingested:
    """One image, linked as by ``Ingest.from_source``."""
    written = storing.store(image, UNKNOWN, spare=False)
    label = link_names.of_source(image, name, otherwise)
    return _recorded(storing, written, [label] if label else [])


def every(storing: Storing, archive: StreamedArchive) -> Iterator[tuple[str, Ingested | ArvDockerError]]:
    """Every image of an archive: what it is called, and what became of it, linked by every name that the archive
    gives it."""
    joint = storing.store_every(archive, UNKNOWN, "storing in Keep", spare=False)
    for listed, image in archive.every():
        found = image if isinstance(image, ArvDockerError) else joint.images[image.digest]
        if isinstance(found, ArvDockerError):
            yield str(listed), found
            continue
        written = storing.share_of(joint, found, listed.digests)
        try:
            yield str(listed), _recorded(storing, written, references_in(listed.tags))
        except ArvDockerError as error:
            yield str(listed), error


def _recorded(storing: Storing, written: Written, names: Sequence[Reference]) -> Ingested:
    """An image whose blocks are in Keep, with a collection, if it has none there, and linked by these names."""
    image_id = written.stored.layout.config.digest
    first = next(iter(names), None)
    with storing.locked(image_id):
        known = None
        if not storing.options.force:
            known = storing.records.known(image_id, first, digests=written.digests)
        return storing.records.also_called(known or storing.catalogue(written, first), image_id, names[1:])

# SPDX-License-Identifier: Apache-2.0
"""Putting several images of an engine into Keep that share layers.

They are read in one save, so that what they share is exported and hashed once; each is recorded by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

from ..archive.stream import StreamedArchive
from ..arvados.blocks import StoredArchive
from ..engines import Engine, EngineImage
from ..errors import ArvDockerError, ClusterError
from ..model.image import Digest
from ..model.reference import ImageId, Reference
from . import link_names
from .options import Ingested
from .upload import Expected, Storing


def stored(
    storing: Storing, engine: Engine, wanted: Sequence[tuple[Reference | ImageId, EngineImage]]
) -> dict[Digest, Ingested | ArvDockerError]:
    """Those of the images that share layers and that nobody has linked yet, by ID; what is wrong with one image is in
    its place."""
    results: dict[Digest, Ingested | ArvDockerError] = {}
    by_id: dict[Digest, tuple[Reference | ImageId, EngineImage]] = {}
    for name, image in wanted:
        by_id.setdefault(image.id, (name, image))
    for group in _sharing(image for _, image in by_id.values()):
        with ExitStack() as locks:
            for image_id in sorted(group, key=str):  # in one order, so that no two wait crosswise
                locks.enter_context(storing.locked(image_id))
            there = set() if storing.options.force else storing.records.linked(group)
            missing = {image_id: by_id[image_id] for image_id in group if image_id not in there}
            if len(missing) > 1:
                images = [image for _, image in missing.values()]
                names = {image_id: link_names.of_engine(*asked) for image_id, asked in missing.items()}
                try:
                    results |= storing.anew_if_refused(partial(_saved, storing, engine, images, names))
                except ClusterError as error:
                    results |= dict.fromkeys(names, error)
    return results


def _saved(
    storing: Storing,
    engine: Engine,
    images: Sequence[EngineImage],
    names: Mapping[Digest, Reference | None],
    spare: bool,
) -> dict[Digest, Ingested | ArvDockerError]:
    """What became of each image that was in the save."""
    diff_ids = [diff_id for image in images for diff_id in image.diff_ids]
    expected = Expected([image.id for image in images], diff_ids, size=None)
    with engine.save([str(image.id) for image in images]) as stream:
        joint = storing.store_every(
            StreamedArchive(stream), expected, f"storing {len(images)} images in Keep", spare=spare
        )
    results: dict[Digest, Ingested | ArvDockerError] = {}
    for image_id in expected.image_ids:
        archive = joint.images.get(image_id)
        if isinstance(archive, StoredArchive):
            written = storing.share_of(joint, archive, (image_id,))
            try:
                results[image_id] = storing.catalogue(written, names[image_id])
                storing.forget(image_id)
            except ArvDockerError as error:
                results[image_id] = error
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

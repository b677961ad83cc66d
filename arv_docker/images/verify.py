# SPDX-License-Identifier: Apache-2.0
"""Verification that a collection really holds the image in its name.

Quick: its structure, and that every block is there. Full: every block is read, and the
SHA-256 of every layer compared with the image's config, which no MD5 twin survives.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..archive.layer import CHUNK
from ..arvados.block_put import at_once
from ..arvados.client import Cluster, CollectionRecord, batches
from ..arvados.stored import StoredImage
from ..errors import NotVerified
from ..local.progress import Progress
from ..model.image import Digest
from ..model.manifest_text import locators, pdh

_ASKED_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Report:
    """Verification report. ``canonical`` says if the archive is the canonical one; ``bytes_read`` is 0 for quick."""

    uuid: str
    pdh: str
    image_id: Digest
    config_digest: Digest
    manifest_digest: Digest
    layers: int
    blocks: int
    size: int
    canonical: bool
    quick: bool
    bytes_read: int


def verify(cluster: Cluster, collection: CollectionRecord, *, quick: bool, progress: Progress) -> Report:
    """Verify the image in a collection (given with manifest text) and report the findings.

    Raises NotVerified, NotAnImage, DigestMismatch or BadArchive for content that is not the
    image's, and KeepError for blocks that are lost or damaged.
    """
    if pdh(collection.manifest_text or "") != collection.pdh:
        raise NotVerified(f"the manifest text of {collection.uuid} is not that of {collection.pdh}.")
    image = StoredImage(cluster, collection)
    names = {locator.without_hints: str(locator) for locator in locators(image.file.streams)}
    _check_presence(cluster, collection, names)
    read = 0 if quick else _read_layers(image, progress)
    return Report(
        uuid=collection.uuid,
        pdh=collection.pdh,
        image_id=image.file.image_id,
        config_digest=image.config.digest,
        manifest_digest=image.layout.manifest_digest,
        layers=len(image.config.diff_ids),
        blocks=len(names),
        size=image.file.size,
        canonical=image.canonical is not None,
        quick=quick,
        bytes_read=read,
    )


def verify_for_adoption(cluster: Cluster, collection: CollectionRecord, *, progress: Progress) -> Report:
    """Verify an image with links of untrusted users alone, so that this user's link may attest it.

    Of an archive in another layout than the canonical one two readers may make two images, which reading it cannot rule
    out: it is refused with NotVerified, and never adopted as it lies (docs/spec/trust.md#reading-back). Raises as
    ``verify`` does.
    """
    if StoredImage(cluster, collection).canonical is None:
        raise NotVerified(
            f"{collection.uuid} was stored by somebody else, in another layout than the canonical one, which two "
            "readers may read differently. It is not adopted as it lies. Store it anew: "
            f"arv-docker copy keep:{collection.uuid} keep:NAME."
        )
    return verify(cluster, collection, quick=False, progress=progress)


def _check_presence(cluster: Cluster, collection: CollectionRecord, names: dict[str, str]) -> None:
    missing: list[str] = []
    for some in batches(names, _ASKED_AT_ONCE):
        present = at_once(cluster.has_block, [names[name] for name in some])
        missing += [name for name, there in zip(some, present, strict=True) if not there]
    if missing:
        raise NotVerified(
            f"{len(missing)} of {len(names)} blocks of {collection.uuid} are not in Keep. Ingest the image again.",
            detail="\n".join(missing[:20]),
        )


def _read_layers(image: StoredImage, progress: Progress) -> int:
    """Read each layer, and the bytes around it from the same blocks, so that each block is fetched once."""
    total, frame = sum(image.sizes.values()), image.canonical
    framed = True
    with progress.step("verifying", total) as advance:
        for layer in image.layers():
            assert layer.claimed is not None
            framed = framed and (frame is None or frame.is_headed(layer.claimed))
            while content := layer.read(CHUNK):
                advance(len(content))
            framed = framed and (frame is None or frame.is_padded(layer.claimed))
    if not framed or not (frame is None or frame.is_closed()):
        # Whoever goes by the headers, as every engine does, reads other layers than those hashed here.
        raise NotVerified(f"the headers before the layers of {image.collection.uuid} are not those of its image.")
    return total

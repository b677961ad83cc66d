# SPDX-License-Identifier: Apache-2.0
"""The OCI layout that an archive may hold beside Docker's ``manifest.json``: whether both mean the same image.

Some readers go by ``index.json`` (Apptainer, containerd), others by ``manifest.json``. An
archive made to deceive can show one image to each, every byte of both being right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import BadReference, DigestMismatch
from ..image import MAX_JSON_SIZE, Config, Digest, json_object
from .tar import Index, Member

#: Real images nest one index in another; more is a loop or a joke.
_MAX_DEPTH = 4
_MAX_MANIFESTS = 1000


def check(index: Index, config: Config, blobs: Mapping[Digest, Member]) -> None:
    """Raises DigestMismatch if the archive's OCI layout, where it has one, names another image than ``config``.

    ``blobs`` are the members that the config and each layer were read from, which the layout
    must mean too. Attestations (of platform ``unknown/unknown``) are no images. Layers must
    be named by their diff_ids: whether a compressed one holds the same cannot be seen here.
    """
    if "index.json" not in index:
        return
    budget = iter(range(_MAX_MANIFESTS))
    seen = False
    for manifest in _manifests(index, _document(index, "index.json"), budget, _MAX_DEPTH):
        seen = True
        layers = manifest.get("layers")
        named = [_digest(layer) for layer in layers] if isinstance(layers, list) else None
        if _digest(manifest.get("config")) != config.digest or named != list(config.diff_ids):
            raise DigestMismatch(
                f"the archive is image {config.digest} by its manifest.json, and another one by its index.json. "
                "Readers would disagree about it."
            )
    if not seen:
        raise DigestMismatch("the OCI index in the archive names no image.")
    for digest, member in blobs.items():
        if index.file(f"blobs/sha256/{digest.hex}") != member:
            raise DigestMismatch(f"the archive holds {digest} at two places. Readers may take either.")


def _manifests(
    index: Index, document: Mapping[str, Any], budget: Iterator[int], depth: int
) -> Iterator[Mapping[str, Any]]:
    """Every image manifest that an index leads to, attestations left out."""
    listed = document.get("manifests")
    for descriptor in listed if isinstance(listed, list) else []:
        if not isinstance(descriptor, dict) or next(budget, None) is None or depth == 0:
            raise DigestMismatch("the OCI index in the archive is malformed or endless.")
        if descriptor.get("platform") == {"architecture": "unknown", "os": "unknown"}:
            continue
        found = _blob(index, _digest(descriptor))
        if "manifests" in found:
            yield from _manifests(index, found, budget, depth - 1)
        else:
            yield found


def _blob(index: Index, digest: Digest | None) -> Mapping[str, Any]:
    if digest is None or digest.algorithm != "sha256":
        raise DigestMismatch("the OCI index in the archive names a manifest without a SHA-256 digest.")
    raw = index.read(f"blobs/sha256/{digest.hex}", limit=MAX_JSON_SIZE)
    if Digest.of(raw) != digest:
        raise DigestMismatch(f"the manifest {digest} in the archive holds other bytes.")
    return json_object(raw, what="a manifest in the archive")


def _document(index: Index, name: str) -> Mapping[str, Any]:
    return json_object(index.read(name, limit=MAX_JSON_SIZE), what=f"{name} in the archive")


def _digest(descriptor: object) -> Digest | None:
    text = descriptor.get("digest") if isinstance(descriptor, dict) else None
    try:
        return Digest.parse(text) if isinstance(text, str) else None
    except BadReference:
        return None

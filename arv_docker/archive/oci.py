# SPDX-License-Identifier: Apache-2.0
"""The images of an OCI layout, as a folder or in a tar: what its ``index.json`` leads to.

An archive may be a layout and have Docker's ``manifest.json`` too. Some readers go by the
one (Apptainer, containerd), others by the other, so one made to deceive can show one image
to each, every byte of both being right; ``check`` refuses that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ..errors import BadReference, DigestMismatch, NotAnImage
from ..model import manifest
from ..model.image import MAX_JSON_SIZE, Descriptor, Digest, json_object
from ..model.manifest import Index, Manifest
from ..model.reference import Reference
from .blob import Files
from .listing import Listed

#: Annotations of an index: an image's name in full, and what else it is called.
FULL_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"


def listing(files: Files) -> tuple[Listed, ...]:
    """The images that the index leads to, attestations and artifacts left out, and those whose manifest is not there:
    an engine that has an image for one platform saves the index of all.

    Empty where the index names nothing. Raises BadConfig, BadArchive, DigestMismatch or NotAnImage for a malformed one,
    one that is nested too deep, and one that names things and no image.
    """
    raw = files.read("index.json", limit=MAX_JSON_SIZE)
    top = manifest.parse(raw, what="index.json")
    if not isinstance(top, Index):
        raise NotAnImage("index.json is no index of images.")
    names = _names(raw)
    reader = _Reader(files)
    found: dict[Digest, Listed] = {}
    groups: dict[Digest, int] = {}
    artifacts = []
    for entry in top.manifests:
        digest = entry.descriptor.digest
        tags, short = names.get(str(digest), ((), ()))
        group = groups.setdefault(digest, len(groups))
        for image in manifest.images_of(Index((entry,)), reader.fetch, what="index.json"):
            read = reader.fetch(image.descriptor)
            if not isinstance(read, Manifest):
                continue
            listed = Listed(
                config_path=blob_name(read.config.digest),
                tags=tags,
                layer_paths=tuple(blob_name(layer.digest) for layer in read.layers),
                short_names=short,
                digests=tuple(dict.fromkeys((image.descriptor.digest, digest))),
                platform=image.platform,
                groups=frozenset([group]),
            )
            if read.config.media_type in manifest.IMAGE_CONFIGS:
                found[image.descriptor.digest] = _merged(found.get(image.descriptor.digest), listed)
            else:
                artifacts.append(listed)
    images = tuple(found.values()) or tuple(artifacts)  # of artifacts alone the config says that they are none
    if not images and json_object(raw, what="index.json").get("manifests"):
        raise NotAnImage("the OCI index in the archive names no image that is there. Save the image again.")
    return images


def check(files: Files, docker: Sequence[Listed]) -> tuple[Listed, ...]:
    """The images of the layout; raises DigestMismatch if one is none of ``docker``, those of ``manifest.json``.

    One for another platform than one of theirs is no deceit: ``manifest.json`` has room for one. A manifest
    without layers is none either: Docker 25.0.0 wrote such.
    """
    images = listing(files)
    known = {files.blob(it.config_path): [files.blob(path) for path in it.layer_paths] for it in docker}
    fitting = [it for it in images if files.blob(it.config_path) in known]
    for image in images:
        layers = known.get(files.blob(image.config_path))
        if layers is None:
            if not any(_other_platform(image, it) for it in fitting):
                raise DigestMismatch(
                    f"the archive holds image {image.config_digest} by its index.json, and another one by its "
                    "manifest.json. Readers would disagree about it."
                )
        elif image.layer_paths and [files.blob(path) for path in image.layer_paths] != layers:
            raise DigestMismatch(
                f"the archive has other layers for image {image.config_digest} by its index.json than by its "
                "manifest.json. Readers would disagree about it."
            )
    return images


def digests_of(images: Iterable[Listed], listed: Listed) -> tuple[Digest, ...]:
    """The digests of all ``images`` that are the one listed."""
    return tuple(
        dict.fromkeys(it for image in images if image.config_path == listed.config_path for it in image.digests)
    )


def blob_name(digest: Digest) -> str:
    """The name of the file with these bytes."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


class _Reader:
    """Reads the documents of a layout, a bounded number in all."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._read: dict[Digest, Manifest | Index] = {}
        self._room = manifest.MAX_DOCUMENTS

    def fetch(self, descriptor: Descriptor) -> Manifest | Index:
        """The manifest or index; an empty index for one that is not there."""
        self._room -= 1
        if self._room < 0:
            raise NotAnImage(f"the OCI index leads to more than {manifest.MAX_DOCUMENTS} documents; no image does.")
        digest = descriptor.digest
        if digest not in self._read:
            self._read[digest] = self._parsed(digest) if blob_name(digest) in self._files else Index(())
        return self._read[digest]

    def _parsed(self, digest: Digest) -> Manifest | Index:
        raw = self._files.read(blob_name(digest), limit=MAX_JSON_SIZE)
        if Digest.of(raw, digest.algorithm) != digest:
            raise DigestMismatch(f"the manifest {digest} in the archive holds other bytes. Nothing of it is used.")
        return manifest.parse(raw, what=f"the manifest {digest}")


def _names(raw: bytes) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """What the index calls its entries, by their digests: names in full, and others."""
    found: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for entry in json_object(raw, what="index.json").get("manifests") or []:
        notes, digest = entry.get("annotations"), entry.get("digest")
        if isinstance(notes, dict) and isinstance(digest, str):
            full, short = found.setdefault(digest, ({}, {}))
            for text in (notes.get(key) for key in (FULL_NAME, REF_NAME)):
                if isinstance(text, str) and (":" in text or "/" in text):
                    full[_familiar(text)] = None
                elif isinstance(text, str) and text:
                    short[text] = None
    return {digest: (tuple(full), tuple(short)) for digest, (full, short) in found.items()}


def _familiar(text: str) -> str:
    """A name as engines print it: with the names of one image, whoever wrote them, its links are the same."""
    try:
        return Reference.parse(text).familiar
    except BadReference:
        return text


def _merged(before: Listed | None, listed: Listed) -> Listed:
    """One image that is named twice."""
    if before is None:
        return listed

    def joined(key: str) -> tuple[Any, ...]:
        mine, theirs = getattr(before, key), getattr(listed, key)
        return mine if mine == theirs else tuple(dict.fromkeys((*mine, *theirs)))

    return replace(
        before,
        tags=joined("tags"),
        short_names=joined("short_names"),
        digests=joined("digests"),
        platform=before.platform or listed.platform,
        groups=before.groups | listed.groups,
    )


def _other_platform(image: Listed, other: Listed) -> bool:
    """Whether both are one image for different platforms."""
    shared = image.groups & other.groups
    return bool(shared) and None not in (image.platform, other.platform) and image.platform != other.platform

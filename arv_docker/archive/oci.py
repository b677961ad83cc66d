# SPDX-License-Identifier: Apache-2.0
"""The images of an OCI layout, as a folder or in a tar: what its ``index.json`` leads to.

An archive may be a layout and have Docker's ``manifest.json`` too. Some readers go by the
one (Apptainer, containerd), others by the other, so one made to deceive can show one image
to each, every byte of both being right; ``check`` refuses that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ..errors import BadReference, ContentError, DigestMismatch, NotAnImage
from ..model import manifest
from ..model.image import MAX_JSON_SIZE, Config, Descriptor, Digest, Platform, oci_object
from ..model.manifest import Index, Manifest
from ..model.reference import Reference, references_in
from .blob import Files
from .listing import ArchiveEntry

#: How `cosign save` marks the entries of a layout: its image, and what belongs to that.
_COSIGN_KIND = "dev.cosignproject.cosign/"
_COSIGN_IMAGES = (f"{_COSIGN_KIND}image", f"{_COSIGN_KIND}imageIndex")

#: The names of an entry: those in full, and others.
_Names = tuple[tuple[str, ...], tuple[str, ...]]
_NAMELESS: _Names = ((), ())

#: Annotations of an index: an image's name in full, and what else it is called.
FULL_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"


def listing(files: Files) -> tuple[ArchiveEntry, ...]:
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
    found: dict[Digest, ArchiveEntry] = {}
    artifacts = []
    aside = _beside_cosign_image(raw)
    entries = [entry for entry in top.manifests if str(entry.descriptor.digest) not in aside]
    read = [
        (entry, image, document)
        for entry in entries
        for image in manifest.images_of(Index((entry,)), reader.fetch, what="index.json")
        if isinstance(document := reader.fetch(image.descriptor), Manifest)
    ]
    platforms = _platforms_of(files, read, names)
    groups = _groups_of(
        [replace(it, platform=platforms.get(it.descriptor.digest, it.platform)) for it in entries], names
    )
    for entry, image, document in read:
        digest = entry.descriptor.digest
        tags, short = names.get(str(digest), _NAMELESS)
        listed = ArchiveEntry(
            config_path=blob_name(document.config.digest),
            tags=tags,
            layer_paths=tuple(blob_name(layer.digest) for layer in document.layers),
            short_names=short,
            digests=tuple(dict.fromkeys((image.descriptor.digest, digest))),
            platform=platforms[image.descriptor.digest],
            groups=frozenset([groups[digest]]),
            manifest=document,
        )
        if manifest.is_image(document):
            found[image.descriptor.digest] = _merge_entries(found.get(image.descriptor.digest), listed)
        else:
            artifacts.append(listed)
    images = tuple(found.values()) or tuple(artifacts)  # of artifacts alone the config says that they are none
    if not images and oci_object(raw, what="index.json").get("manifests"):
        raise NotAnImage("the OCI index in the archive names no image that is there. Save the image again.")
    return images


def check(files: Files, docker: Sequence[ArchiveEntry]) -> tuple[ArchiveEntry, ...]:
    """Return the images of the layout; raises DigestMismatch if one is none of ``docker``, those of ``manifest.json``.

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


def with_names_of(images: Iterable[ArchiveEntry], others: Sequence[ArchiveEntry]) -> tuple[ArchiveEntry, ...]:
    """Return ``images`` with the names and manifests from the other list of the same archive.

    An engine writes all names into one of its two lists alone, where two builds have the same image.
    """
    by_config: dict[object, list[ArchiveEntry]] = {}
    for other in others:
        by_config.setdefault(other.config_digest or other.config_path, []).append(other)
    return tuple(_named_like(image, by_config.get(image.config_digest or image.config_path, ())) for image in images)


def _named_like(image: ArchiveEntry, others: Iterable[ArchiveEntry]) -> ArchiveEntry:
    known = set(references_in(image.tags))
    tags, short = dict.fromkeys(image.tags), dict.fromkeys(image.short_names)
    for other in others:
        tags.update(dict.fromkeys(tag for tag in other.tags if not known.intersection(references_in([tag]))))
        short.update(dict.fromkeys(other.short_names))
    described = next((other.manifest for other in others if other.manifest is not None), None)
    return replace(image, tags=tuple(tags), short_names=tuple(short), manifest=image.manifest or described)


def digests_of(images: Iterable[ArchiveEntry], listed: ArchiveEntry) -> tuple[Digest, ...]:
    """The digests of all those ``images`` that are the image ``listed``."""
    return tuple(
        dict.fromkeys(it for image in images if image.config_path == listed.config_path for it in image.digests)
    )


def blob_name(digest: Digest) -> str:
    """The name of the file with the bytes of ``digest``."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


class _Reader:
    """A reader of a layout's documents, a bounded number in all."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._read: dict[Digest, Manifest | Index] = {}
        self._room = manifest.MAX_DOCUMENTS

    def fetch(self, descriptor: Descriptor) -> Manifest | Index:
        """Return the manifest or index of ``descriptor``; an empty index for one that is not there."""
        self._room -= 1
        if self._room < 0:
            raise NotAnImage(f"the OCI index leads to more than {manifest.MAX_DOCUMENTS} documents; no image does.")
        digest = descriptor.digest
        if digest not in self._read:
            self._read[digest] = self._parse(digest) if blob_name(digest) in self._files else Index(())
        return self._read[digest]

    def _parse(self, digest: Digest) -> Manifest | Index:
        raw = self._files.read(blob_name(digest), limit=MAX_JSON_SIZE)
        if Digest.of(raw, digest.algorithm) != digest:
            raise DigestMismatch(f"the manifest {digest} in the archive holds other bytes. Nothing of it is used.")
        return manifest.parse(raw, what=f"the manifest {digest}")


def _beside_cosign_image(raw: bytes) -> frozenset[str]:
    """The digests of entries that belong to the image that `cosign save` wrote, as signatures do, and are no images."""
    kinds = {
        str(entry.get("digest")): notes.get("kind")
        for entry in oci_object(raw, what="index.json").get("manifests") or []
        if isinstance(notes := entry.get("annotations"), dict)
    }
    if not any(kind in _COSIGN_IMAGES for kind in kinds.values()):
        return frozenset()
    return frozenset(digest for digest, kind in kinds.items() if kind not in _COSIGN_IMAGES)


def _platforms_of(
    files: Files, read: Sequence[tuple[manifest.IndexEntry, manifest.IndexEntry, Manifest]], names: Mapping[str, _Names]
) -> dict[Digest, Platform | None]:
    """The platform of each image by its manifest's digest: as the index says it, else of several images by one name as
    their configs say it."""
    called = Counter(names.get(str(entry.descriptor.digest), _NAMELESS) for entry, _, _ in read)
    platforms: dict[Digest, Platform | None] = {}
    for entry, image, document in read:
        platform = image.platform or platforms.get(image.descriptor.digest)
        if platform is None and called[names.get(str(entry.descriptor.digest), _NAMELESS)] > 1:
            platform = _platform_in(files, document)
        platforms[image.descriptor.digest] = platform
    return platforms


def _platform_in(files: Files, document: Manifest) -> Platform | None:
    """The platform in an image's config; None where there is none, or the config cannot be read."""
    with suppress(ContentError):
        platform = Config.parse(files.read(blob_name(document.config.digest), limit=MAX_JSON_SIZE)).platform
        return None if "unknown" in (platform.os, platform.architecture) else platform
    return None


def _groups_of(entries: Sequence[manifest.IndexEntry], names: Mapping[str, _Names]) -> dict[Digest, int]:
    """A number for each entry by its digest, the same for the entries of one image for several platforms.

    These have the same names, or none, and each another platform: some writers list them flat in index.json.
    """
    alike: dict[object, list[manifest.IndexEntry]] = {}
    for entry in {entry.descriptor.digest: entry for entry in entries}.values():
        alike.setdefault(names.get(str(entry.descriptor.digest), _NAMELESS), []).append(entry)
    groups: dict[Digest, int] = {}
    for same in alike.values():
        platforms = {entry.platform for entry in same}
        are_one = None not in platforms and len(platforms) == len(same)
        first = len(groups)
        for number, entry in enumerate(same, first):
            groups[entry.descriptor.digest] = first if are_one else number
    return groups


def _names(raw: bytes) -> dict[str, _Names]:
    """The names of the entries of an OCI index, by digest: names in full, and others."""
    found: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for entry in oci_object(raw, what="index.json").get("manifests") or []:
        notes, digest = entry.get("annotations"), entry.get("digest")
        if isinstance(notes, dict) and isinstance(digest, str):
            full, short = found.setdefault(digest, ({}, {}))
            for text in (notes.get(key) for key in (FULL_NAME, REF_NAME)):
                if isinstance(text, str) and (":" in text or "/" in text):
                    full[_familiar_name(text)] = None
                elif isinstance(text, str) and text:
                    short[text] = None
    return {digest: (tuple(full), tuple(short)) for digest, (full, short) in found.items()}


def _familiar_name(text: str) -> str:
    """The name as engines print it, so that an image gets the same links whatever program wrote the archive."""
    try:
        return Reference.parse(text).familiar_name
    except BadReference:
        return text


def _merge_entries(before: ArchiveEntry | None, listed: ArchiveEntry) -> ArchiveEntry:
    """Merge the two entries of an image that is named twice."""
    if before is None:
        return listed

    def merged_values(key: str) -> tuple[Any, ...]:
        mine, theirs = getattr(before, key), getattr(listed, key)
        return mine if mine == theirs else tuple(dict.fromkeys((*mine, *theirs)))

    return replace(
        before,
        tags=merged_values("tags"),
        short_names=merged_values("short_names"),
        digests=merged_values("digests"),
        platform=before.platform or listed.platform,
        groups=before.groups | listed.groups,
    )


def _other_platform(image: ArchiveEntry, other: ArchiveEntry) -> bool:
    """True if both are the same image for different platforms: one index below the top leads to both."""
    shared = bool(image.groups & other.groups) and len(image.digests) > 1
    return shared and None not in (image.platform, other.platform) and image.platform != other.platform

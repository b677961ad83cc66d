# SPDX-License-Identifier: Apache-2.0
"""Manifests and indexes of registries and OCI layouts, parsed, and the choice of one image among several. No I/O.

A document's own bytes are its identity: whoever reads one checks its digest first, and
nothing is ever written back from what was parsed.
"""

from __future__ import annotations

import platform as machine
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import (
    AmbiguousImage,
    BadConfig,
    BadReference,
    NoSuchImage,
    NotAnImage,
    SchemaOne,
    UnsupportedDigest,
    UsageError,
)
from .image import Descriptor, Digest, Platform, json_object

#: Hashes that content is named by and that are computed here.
HASHES = ("sha256", "sha512")

#: Real indexes nest one in another; more is a loop or a joke.
MAX_DEPTH = 4
#: Indexes and manifests that one name may lead to.
MAX_DOCUMENTS = 1000

_MAX_LAYERS = 10_000
_ATTESTATION = "attestation-manifest"

#: What `uname` calls a processor, where images call it something else.
_PROCESSORS = {
    "x86_64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
}
#: Variants that are the same as none.
_USUAL_VARIANTS = {"arm64": "v8", "arm": "v7", "amd64": "v1"}


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image: its config and its layers from the lowest up, as a registry or layout stores them."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class Listed:
    """A manifest that an index names. ``platform`` is None where the index does not say."""

    descriptor: Descriptor
    platform: Platform | None = None
    os_version: str = ""

    def __str__(self) -> str:
        words = (str(self.platform or "unknown platform"), self.os_version, str(self.descriptor.digest))
        return " ".join(filter(None, words))


@dataclass(frozen=True, slots=True)
class Index:
    """Several images under one name. Attestations are left out."""

    manifests: tuple[Listed, ...]


def parse(raw: bytes, *, what: str) -> Manifest | Index:
    """The document in ``raw``; ``what`` names it in messages.

    Raises BadConfig for what is no such document, SchemaOne, NotAnImage and UnsupportedDigest. One that
    could be read as both is refused, for readers disagree about it (CVE-2021-41190).
    """
    document = json_object(raw, what=what)
    if document.get("schemaVersion") == 1 or "fsLayers" in document:
        raise SchemaOne(f"{what} is of schema 1, from before Docker 1.10. Push the image again with a newer Docker.")
    if "manifests" in document:
        if "layers" in document or "config" in document:
            raise BadConfig(f"{what} is an index and a manifest at once; readers would disagree about it.")
        return Index(tuple(_listed(item, what) for item in _objects(document, "manifests", what) if not _aside(item)))
    if "config" not in document:
        raise NotAnImage(f"{what} is neither an image nor an index of images.")
    layers = _objects(document, "layers", what)
    if len(layers) > _MAX_LAYERS:
        raise NotAnImage(f"{what} has {len(layers)} layers; no image has more than {_MAX_LAYERS}.")
    return Manifest(_descriptor(document["config"], what), tuple(_descriptor(layer, what) for layer in layers))


def images_of(index: Index, fetch: Callable[[Descriptor], Index | Manifest], *, what: str) -> Iterator[Listed]:
    """Every image that an index leads to, through indexes within it, each once. ``fetch`` reads and parses a document.

    Only indexes that the descriptor calls so are read. Raises NotAnImage for a loop, or one that is nested too deep.
    """
    seen: set[Digest] = set()

    def walk(index: Index, depth: int) -> Iterator[Listed]:
        for listed in index.manifests:
            digest = listed.descriptor.digest
            if digest in seen:
                continue
            seen.add(digest)
            if depth > MAX_DEPTH or len(seen) > MAX_DOCUMENTS:
                raise NotAnImage(f"{what} is nested too deep or endless: it is not read further.")
            if not _is_index(listed.descriptor.media_type):
                yield listed
            elif isinstance(nested := fetch(listed.descriptor), Index):
                yield from walk(nested, depth + 1)
            else:
                raise NotAnImage(f"{what} calls {digest} an index, and it is none.")

    yield from walk(index, 1)


def chosen(images: Iterable[Listed], platform: Platform | None, *, what: str) -> Listed:
    """The image for ``platform``; without one, the only image there is, else the one for this machine.

    Raises NoSuchImage if there is none, AmbiguousImage if there are several, both with the list.
    """
    listed = list(images)
    if not listed:
        raise NoSuchImage(f"{what} names no image.")
    if platform is None and len(listed) == 1:
        return listed[0]
    wanted = platform or machine_platform()
    fitting = _fitting(listed, wanted)
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise NoSuchImage(
            f"{what} has no image for {wanted}. Choose one of these with --platform, or by its digest.",
            detail=_lines(listed),
        )
    raise AmbiguousImage(
        f"{what} has {len(fitting)} images for {wanted}. Choose one with --platform, or by its digest: NAME@sha256:….",
        detail=_lines(fitting),
    )


def parse_platform(text: str) -> Platform:
    """``OS/ARCHITECTURE[/VARIANT]``; raises UsageError for anything else.

    >>> str(parse_platform("linux/arm64/v8"))
    'linux/arm64/v8'
    """
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(part.replace("-", "").replace("_", "").isalnum() for part in parts):
        raise UsageError(f"{text!r} is not a platform: write OS/ARCHITECTURE, as in linux/amd64 or linux/arm/v7.")
    return Platform(*parts)


def machine_platform() -> Platform:
    """Linux on this machine's processor: containers are Linux programs wherever an engine runs."""
    name = machine.machine().lower()
    return Platform("linux", *_PROCESSORS.get(name, (name, "")))


def processor_of(platform: Platform) -> str:
    """What `uname` calls the platform's processor: ``x86_64`` for ``amd64``."""
    names = (name for name, (processor, _) in _PROCESSORS.items() if processor == platform.architecture)
    return next(names, platform.architecture)


def without_usual_variant(platform: Platform) -> Platform:
    """The platform without a variant that says nothing."""
    usual = _USUAL_VARIANTS.get(platform.architecture)
    return Platform(platform.os, platform.architecture, "" if platform.variant == usual else platform.variant)


def same_platform(one: Platform, other: Platform) -> bool:
    """Whether both are one platform, a variant that says nothing (``arm64/v8``) or none written."""
    return without_usual_variant(one) == without_usual_variant(other)


def suits(platform: Platform, wanted: Platform) -> bool:
    """Whether an image for ``platform`` will do for ``wanted``: it is the same, or one of any variant of it."""
    processor = (platform.os, platform.architecture)
    return same_platform(platform, wanted) or (not wanted.variant and processor == (wanted.os, wanted.architecture))


def _fitting(listed: Sequence[Listed], wanted: Platform) -> list[Listed]:
    """Those for exactly that platform; where no variant is asked for and none is usual, those of any variant."""
    exact = [it for it in listed if it.platform and same_platform(it.platform, wanted)]
    return exact or [it for it in listed if it.platform and suits(it.platform, wanted)]


def _lines(listed: Sequence[Listed]) -> str:
    return "\n".join(map(str, listed))


def _is_index(media_type: str) -> bool:
    return media_type.endswith((".index.v1+json", ".manifest.list.v2+json"))


def _objects(document: dict[str, Any], key: str, what: str) -> list[dict[str, Any]]:
    items = document.get(key)
    if items is None and key in document:
        return []  # as Go writes an empty list; Docker 25.0.0 does
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise BadConfig(f"{what} has no list of {key}.")
    return items


def _aside(item: dict[str, Any]) -> bool:
    """Whether this is no image but something about one: provenance, an SBOM."""
    notes = item.get("annotations")
    if isinstance(notes, dict) and notes.get("vnd.docker.reference.type") == _ATTESTATION:
        return True
    platform = item.get("platform")
    return isinstance(platform, dict) and platform.get("os") == platform.get("architecture") == "unknown"


def _listed(item: dict[str, Any], what: str) -> Listed:
    found = item.get("platform")
    if not isinstance(found, dict):
        return Listed(_descriptor(item, what))
    texts = [value if isinstance(value := found.get(key), str) else "" for key in ("os", "architecture", "variant")]
    version = found.get("os.version")
    platform = Platform(*texts) if texts[0] and texts[1] else None
    return Listed(_descriptor(item, what), platform, version if isinstance(version, str) else "")


def _descriptor(item: object, what: str) -> Descriptor:
    found = item if isinstance(item, dict) else {}
    size, media_type, text = found.get("size"), found.get("mediaType"), found.get("digest")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 62 or not isinstance(text, str):
        raise BadConfig(f"{what} has a descriptor without a digest or a size.")
    try:
        digest = Digest.parse(text)
    except BadReference as error:
        raise BadConfig(f"{what}: {error.message}") from None
    if digest.algorithm not in HASHES:
        raise UnsupportedDigest(f"{what} names content by {digest.algorithm}; known are {' and '.join(HASHES)}.")
    return Descriptor(media_type if isinstance(media_type, str) else "", digest, size)

# SPDX-License-Identifier: Apache-2.0
"""Manifests and indexes of registries and OCI layouts, parsed, and the choice of one image among several. No I/O.

A document's own bytes are its identity: whoever reads one checks its digest first, and
nothing is ever written back from what was parsed.
"""

from __future__ import annotations

import platform as machine
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import (
    AmbiguousImage,
    BadConfig,
    BadReference,
    NoSuchImage,
    NotAnImage,
    OciArtifact,
    SchemaOne,
    UnsupportedDigest,
    UsageError,
    lines_of,
)
from .image import OCI_CONFIG, Descriptor, Digest, Platform, oci_object

#: Hashes that content is named by and that are computed here.
HASHES = ("sha256", "sha512")

#: Real indexes nest one in another; more is a loop or a joke.
MAX_DEPTH = 4
#: Indexes and manifests that one name may lead to.
MAX_DOCUMENTS = 1000

#: Words of a media type that is a tar, or may be one: what a layer is compressed with is told by its bytes.
_TAR_TYPES = frozenset(("tar", "tgz", "gzip", "octet"))

_MAX_LAYERS = 10_000
_ATTESTATION = "attestation-manifest"

#: The types of an image's config; what has another one is an artifact: a signature, a chart, an SBOM.
IMAGE_CONFIGS = (OCI_CONFIG, "application/vnd.docker.container.image.v1+json", "")
_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"

#: What `uname` calls a processor, where images call it something else.
_PROCESSORS = {
    "x86_64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
}
#: Other names of processors in images, as containerd knows them.
_OTHER_NAMES = {**_PROCESSORS, "x86-64": ("amd64", ""), "armhf": ("arm", "v7"), "armel": ("arm", "v6")}
#: Variants that are the same as none.
_USUAL_VARIANTS = {"arm64": "v8", "arm": "v7", "amd64": "v1"}


@dataclass(frozen=True, slots=True)
class Manifest:
    """The manifest of one image: config, and layers from the lowest up, as a registry or layout stores them."""

    config: Descriptor
    layers: tuple[Descriptor, ...]

    @property
    def digests(self) -> tuple[Digest, ...]:
        """The digests of the config and of the layers: manifests with the same ones are of the same image."""
        return (self.config.digest, *(layer.digest for layer in self.layers))

    @property
    def is_image(self) -> bool:
        """True if the manifest is of an image by the type of its config, and of no artifact."""
        return self.config.media_type in IMAGE_CONFIGS


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A manifest that an index names. ``platform`` is None where the index does not say."""

    descriptor: Descriptor
    platform: Platform | None = None
    os_version: str = ""

    def __str__(self) -> str:
        words = (str(self.platform or "unknown platform"), self.os_version, str(self.descriptor.digest))
        return " ".join(filter(None, words))


@dataclass(frozen=True, slots=True)
class Index:
    """An index of several images under one name. Attestations are left out."""

    manifests: tuple[IndexEntry, ...]


def parse(raw: bytes, *, what: str) -> Manifest | Index:
    """Parse the manifest or index in ``raw``; ``what`` names it in messages.

    Raises BadConfig for what is no such document, SchemaOne, NotAnImage and UnsupportedDigest. One that
    could be read as both is refused, for readers disagree about it (CVE-2021-41190).
    """
    document = oci_object(raw, what=what)
    if document.get("schemaVersion") == 1 or "fsLayers" in document:
        raise SchemaOne(f"{what} is of schema 1, from before Docker 1.10. Push the image again with a newer Docker.")
    if "manifests" in document:
        if "layers" in document or "config" in document:
            raise BadConfig(f"{what} is an index and a manifest at once; readers would disagree about it.")
        return Index(
            tuple(
                _listed_manifests(item, what)
                for item in _objects(document, "manifests", what)
                if not _is_attachment(item)
            )
        )
    if "config" not in document:
        raise NotAnImage(f"{what} is neither an image nor an index of images.")
    layers = _objects(document, "layers", what)
    if len(layers) > _MAX_LAYERS:
        raise NotAnImage(f"{what} has {len(layers)} layers; no image has more than {_MAX_LAYERS}.")
    return Manifest(_descriptor(document["config"], what), tuple(_descriptor(layer, what) for layer in layers))


def check_image(manifest: Manifest, *, what: str) -> None:
    """Raise OciArtifact or NotAnImage for a manifest of something else than an image: a signature, a chart, layers that
    are no tars."""
    if manifest.config.media_type not in (*IMAGE_CONFIGS, "application/octet-stream"):
        raise OciArtifact(
            f"{what} is an OCI artifact, not a container image: its config is {manifest.config.media_type}."
        )
    for layer in manifest.layers:
        words = set(re.split(r"[^a-z0-9]+", layer.media_type.lower()))
        if "encrypted" in words:
            raise NotAnImage(
                f"layer {layer.digest} of {what} is encrypted ({layer.media_type}). Decrypt the image first, for "
                "example by skopeo copy --decryption-key."
            )
        if layer.media_type and not words & _TAR_TYPES:
            raise NotAnImage(
                f"{what} is no container image that can be run: its layer {layer.digest} is {layer.media_type}, "
                "and no tar."
            )


def is_image(manifest: Manifest) -> bool:
    """True if ``check_image`` takes the manifest for one of an image."""
    try:
        check_image(manifest, what="")
    except NotAnImage:
        return False
    return True


def images_of(index: Index, fetch: Callable[[Descriptor], Index | Manifest], *, what: str) -> Iterator[IndexEntry]:
    """Yield every image that an index leads to, through indexes within it, once. ``fetch`` reads and parses a document.

    Only indexes that the descriptor calls so are read. Raises NotAnImage for a loop, or one that is nested too deep.
    """
    seen: set[Digest] = set()

    def walk(index: Index, depth: int) -> Iterator[IndexEntry]:
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


def choose_entry(
    images: Iterable[IndexEntry],
    platform: Platform | None,
    *,
    what: str,
    look: Callable[[IndexEntry], IndexEntry | None] = lambda listed: listed,
) -> IndexEntry:
    """The image for ``platform``; without a platform the only image, else the image for this machine.

    ``look`` reads an image of which the index says no platform, and gives it with that, or None for what is no image.
    It is asked where no other one will do. Raises NoSuchImage if there is none, AmbiguousImage if there are several,
    both with the list.
    """
    listed = list(images)
    if not (platform is None and len(listed) == 1) and not _fitting(listed, platform or machine_platform()):
        seen = [image if image.platform else look(image) for image in listed]
        listed = [image for image in seen if image is not None]
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
    """Parse a platform written ``OS/ARCHITECTURE[/VARIANT]``; raises UsageError for anything else.

    >>> str(parse_platform("linux/arm64/v8"))
    'linux/arm64/v8'
    """
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(part.replace("-", "").replace("_", "").isalnum() for part in parts):
        raise UsageError(f"{text!r} is not a platform: write OS/ARCHITECTURE, as in linux/amd64 or linux/arm/v7.")
    return normal_platform(Platform(*parts))


def machine_platform() -> Platform:
    """The platform Linux on this machine's processor: containers are Linux programs wherever an engine runs."""
    name = machine.machine().lower()
    return Platform("linux", *_PROCESSORS.get(name, (name, "")))


def processor_of(platform: Platform) -> str:
    """The platform's processor in the words of `uname`: ``x86_64`` for ``amd64``."""
    names = (name for name, (processor, _) in _PROCESSORS.items() if processor == platform.architecture)
    return next(names, platform.architecture)


def normal_platform(platform: Platform) -> Platform:
    """The normal form of a platform, as images write it, by containerd's rules: ``linux/aarch64`` is ``linux/arm64``.

    >>> str(normal_platform(Platform("Linux", "x86_64")))
    'linux/amd64'
    """
    os, architecture, variant = platform.os.lower(), platform.architecture.lower(), platform.variant.lower()
    architecture, implied = _OTHER_NAMES.get(architecture, (architecture, ""))
    variant = variant or implied
    if variant.isdecimal() and architecture in ("arm", "arm64"):
        variant = f"v{variant}"
    return Platform("darwin" if os == "macos" else os, architecture, variant)


def without_usual_variant(platform: Platform) -> Platform:
    """The normal form of a platform, as images write it, without a redundant variant."""
    platform = normal_platform(platform)
    usual = _USUAL_VARIANTS.get(platform.architecture)
    return Platform(platform.os, platform.architecture, "" if platform.variant == usual else platform.variant)


def same_platform(one: Platform, other: Platform) -> bool:
    """True if both platforms are equal, but for a variant that says nothing (``arm64/v8``)."""
    return without_usual_variant(one) == without_usual_variant(other)


def suits(platform: Platform, wanted: Platform) -> bool:
    """True if an image for ``platform`` serves for ``wanted``: an equal platform, or any variant."""
    if same_platform(platform, wanted):
        return True
    platform, wanted = normal_platform(platform), normal_platform(wanted)
    return not wanted.variant and (platform.os, platform.architecture) == (wanted.os, wanted.architecture)


def _fitting(listed: Sequence[IndexEntry], wanted: Platform) -> list[IndexEntry]:
    """The images for exactly that platform; where no variant is asked for and none is usual, those of any variant; else
    those of the highest variant below it, whose programs run there too."""
    exact = [image for image in listed if image.platform and same_platform(image.platform, wanted)]
    if exact or (any_variant := [image for image in listed if image.platform and suits(image.platform, wanted)]):
        return exact or any_variant
    below = {image: _steps_below(image.platform, wanted) for image in listed if image.platform}
    steps = min((count for count in below.values() if count is not None), default=None)
    return [image for image, count in below.items() if count is not None and count == steps]


def _steps_below(platform: Platform, wanted: Platform) -> int | None:
    """The number of variants between an image and the wanted platform; None for another kind of processor."""
    platform, wanted = normal_platform(platform), normal_platform(wanted)
    usual = _USUAL_VARIANTS.get(wanted.architecture, "")
    levels = [(one.variant or usual).removeprefix("v") for one in (platform, wanted)]
    same_processor = (platform.os, platform.architecture) == (wanted.os, wanted.architecture)
    if wanted.architecture not in ("arm", "amd64") or not same_processor or not all(map(str.isdecimal, levels)):
        return None
    steps = int(levels[1][:3]) - int(levels[0][:3])
    return steps if steps >= 0 else None


def _lines(listed: Sequence[IndexEntry]) -> str:
    return lines_of(listed)


def _is_index(media_type: str) -> bool:
    return media_type.endswith((".index.v1+json", ".manifest.list.v2+json"))


def _objects(document: dict[str, Any], key: str, what: str) -> list[dict[str, Any]]:
    items = document.get(key)
    if items is None and key in document:
        return []  # as Go writes an empty list; Docker 25.0.0 does
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise BadConfig(f"{what} has no list of {key}.")
    return items


def _is_attachment(item: dict[str, Any]) -> bool:
    """True if an index's item is no image but something about one: provenance, an SBOM."""
    notes = item.get("annotations")
    if isinstance(notes, dict) and notes.get("vnd.docker.reference.type") == _ATTESTATION:
        return True
    kind = item.get("artifactType")
    if item.get("mediaType") == _ARTIFACT or (isinstance(kind, str) and kind not in IMAGE_CONFIGS):
        return True
    if _is_index(str(item.get("mediaType") or "")):
        return False  # it has no single platform, and some writers say unknown/unknown
    platform = item.get("platform")
    return isinstance(platform, dict) and platform.get("os") == platform.get("architecture") == "unknown"


def _listed_manifests(item: dict[str, Any], what: str) -> IndexEntry:
    found = item.get("platform")
    if not isinstance(found, dict):
        return IndexEntry(_descriptor(item, what))
    texts = [value if isinstance(value := found.get(key), str) else "" for key in ("os", "architecture", "variant")]
    version = found.get("os.version")
    platform = Platform(*texts) if texts[0] and texts[1] else None
    return IndexEntry(_descriptor(item, what), platform, version if isinstance(version, str) else "")


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

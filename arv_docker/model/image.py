# SPDX-License-Identifier: Apache-2.0
"""The values an image is made of: digest, descriptor, platform, config. No I/O.

An image *is* its config bytes: the SHA-256 of those bytes is its image ID, and the
config's ``rootfs.diff_ids`` name its layers by the SHA-256 of their uncompressed tars
(OCI image-spec, config.md). Names are not part of an image; see ``reference``.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import BadConfig, BadReference, NoRootfs, OciArtifact, UnsupportedDigest

#: Largest config and manifest that is read; the limit of containers/image after CVE-2020-1702.
MAX_JSON_SIZE = 4 << 20

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


def spellings_of(*keys: str) -> Mapping[str, str]:
    """The keys of a document by their case-folded forms, by which Go's reader compares them."""
    return {key.casefold(): key for key in keys}


#: Keys that mean something in configs, manifests and indexes.
OCI_KEYS = spellings_of(
    *("schemaVersion", "mediaType", "artifactType", "manifests", "config", "layers", "fsLayers", "subject"),
    *("digest", "urls", "annotations", "platform", "os.version"),
    *("rootfs", "type", "diff_ids", "architecture", "os", "variant", "created"),
)

#: Docker's classic store mounts at most this many layers (overlay2's limit of lower folders).
CLASSIC_LAYER_LIMIT = 125

_HEX_LENGTH = {"sha256": 64, "sha384": 96, "sha512": 128}
_DIGEST = re.compile(r"([a-z0-9]+(?:[.+_-][a-z0-9]+)*):([0-9a-f]{32,})", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """The name of some bytes: a hash algorithm and its value in lower-case hex.

    >>> str(Digest.of(b""))
    'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
    """

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Parse ``text`` as a digest; raises BadReference where it spells none."""
        match = _DIGEST.fullmatch(text)
        if not match or len(match[2]) != _HEX_LENGTH.get(match[1], len(match[2])):
            raise BadReference(
                f"{text!r} is not a digest. Write the algorithm, a colon and the hash in "
                "lower-case hex, for example sha256: and 64 digits."
            )
        return cls(match[1], match[2])

    @classmethod
    def sha256(cls, hexdigest: str) -> Digest:
        """Return the SHA-256 digest with the value ``hexdigest``; raises BadReference unless that is 64 hex digits."""
        return cls.parse(f"sha256:{hexdigest}")

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of ``content``."""
        return cls(algorithm, hashlib.new(algorithm, content).hexdigest())

    @property
    def short_hex(self) -> str:
        """The digest's first 12 hex digits, as engines print an image ID."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """The description of a document in another one: media type, digest and size in bytes."""

    media_type: str
    digest: Digest
    size: int

    def as_json(self) -> dict[str, str | int]:
        """The descriptor's three keys, in the order in which the canonical archive writes them."""
        return {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}


@dataclass(frozen=True, slots=True)
class Platform:
    """The operating system and processor of an image; ``unknown`` where the image does not say."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Config:
    """A parsed image config. Two configs are equal when their bytes are.

    ``diff_ids`` are the layers from the lowest up, repeats kept. ``created`` is the
    config's own text where it is a timestamp that can be read, else None.
    """

    raw: bytes = field(repr=False)
    digest: Digest
    diff_ids: tuple[Digest, ...] = field(compare=False)
    platform: Platform = field(compare=False)
    created: str | None = field(compare=False)

    @classmethod
    def parse(cls, raw: bytes) -> Config:
        """Parse the config in ``raw``.

        Raises BadConfig for bytes that are no JSON object, and the refusals of a
        document that is JSON but no image: NoRootfs, OciArtifact, UnsupportedDigest.
        """
        document = oci_object(raw, what="the image's config")
        return cls(
            raw=raw,
            digest=Digest.of(raw),
            diff_ids=_diff_ids(document),
            platform=_platform(document),
            created=_created_time(document),
        )

    @property
    def distinct_diff_ids(self) -> tuple[Digest, ...]:
        """The diff_id of each layer once, in order of first use."""
        return tuple(dict.fromkeys(self.diff_ids))


def oci_object(raw: bytes, *, what: str) -> dict[str, Any]:
    """Return a config, manifest or index as a JSON object; raises as ``json_object`` does, and for keys that readers of
    these documents read differently."""
    return json_object(raw, what=what, spellings=OCI_KEYS)


def json_object(raw: bytes, *, what: str, spellings: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return ``raw`` as a JSON object; raises BadConfig for anything else, and as ``json_document`` does."""
    document = json_document(raw, what=what, spellings=spellings)
    if not isinstance(document, dict):
        raise BadConfig(f"{what} is JSON, but not an object.")
    return document


def json_document(raw: bytes, *, what: str, spellings: Mapping[str, str] | None = None) -> Any:
    """Return ``raw`` parsed as JSON; raises BadConfig for what is none, or is over MAX_JSON_SIZE bytes.

    ``spellings`` are the keys that mean something there, by their case-folded forms.

    Documents come from strangers. Refused is whatever readers disagree about: bytes that are not UTF-8, depth that
    exhausts the parser, constants that JSON does not have, a key given twice, and, with ``spellings``, one that
    another reader takes for another: Go's compares them without regard to case (docs/spec/archive.md#two-readers).
    """
    if len(raw) > MAX_JSON_SIZE:
        raise BadConfig(f"{what} is {len(raw)} bytes; more than {MAX_JSON_SIZE} are not read. It is no image config.")
    try:
        document = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
        if spellings is not None:
            _check_spelling(document, spellings)
    except RecursionError:
        raise BadConfig(f"{what} is nested too deeply to be read.") from None
    except ValueError as error:
        raise BadConfig(f"{what} is not JSON that every reader reads alike: {error}.") from None
    return document


def parsed_time(text: object) -> datetime.datetime | None:
    """Parse ``text`` as an aware datetime, by default in UTC; None for unreadable text."""
    import ciso8601

    if not isinstance(text, str):
        return None
    try:
        time = ciso8601.parse_datetime(text)
    except (ValueError, OverflowError):  # the latter for 24:00 on the last day that there is
        return None
    return time if time.tzinfo else time.replace(tzinfo=datetime.timezone.utc)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key is given twice")
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


#: Keys whose values are structures of the formats; what lies below others is the image's own text, as labels are.
_STRUCTURES = ("rootfs", "config", "container_config", "history", "manifests", "layers", "subject", "platform")


def _check_spelling(document: Any, spellings: Mapping[str, str]) -> None:
    """Raise ValueError for keys of a structure that are equal without regard to case, or are spelt unlike ours."""
    for item in document if isinstance(document, list) else [document]:
        if not isinstance(item, dict):
            continue
        seen: dict[str, str] = {}
        for key, value in item.items():
            folded = key.casefold()
            if folded in seen:
                raise ValueError(f"the keys {seen[folded]!r} and {key!r} differ in case alone")
            if spellings.get(folded, key) != key:
                raise ValueError(f"the key {key!r} is spelt unlike {spellings[folded]!r}")
            seen[folded] = key
            if folded in _STRUCTURES:
                _check_spelling(value, spellings)


def _diff_ids(document: Mapping[str, Any]) -> tuple[Digest, ...]:
    rootfs = document.get("rootfs")
    # null or absent where there are no layers: so BuildKit and Docker's classic store write it
    if not isinstance(rootfs, dict) or not isinstance(rootfs.get("diff_ids"), list | None):
        if document and set(document) <= {"mediaType", "data", "annotations"}:
            raise OciArtifact("this is an OCI artifact, not a container image: its config names no layers.")
        raise NoRootfs("not a container image: its config has no rootfs.diff_ids.")
    if rootfs.get("type") != "layers":
        raise NoRootfs(f"not a container image: its rootfs is of type {rootfs.get('type')!r}, not 'layers'.")
    return tuple(_diff_id(item) for item in rootfs.get("diff_ids") or [])


def _diff_id(item: object) -> Digest:
    try:
        digest = Digest.parse(item) if isinstance(item, str) else None
    except BadReference:
        digest = None
    if digest is None or digest.algorithm != "sha256":
        raise UnsupportedDigest(f"the config names a layer {item!r}; only SHA-256 diff_ids are known.")
    return digest


def _platform(document: Mapping[str, Any]) -> Platform:
    def text(key: str, otherwise: str) -> str:
        value = document.get(key)
        if not isinstance(value, str) or not value:
            return otherwise
        return value.encode(errors="replace").decode()  # JSON can hold half a character, which no terminal takes

    return Platform(text("os", "unknown"), text("architecture", "unknown"), text("variant", ""))


def _created_time(document: Mapping[str, Any]) -> str | None:
    created = document.get("created")
    return created if isinstance(created, str) and parsed_time(created) is not None else None

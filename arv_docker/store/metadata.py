# SPDX-License-Identifier: Apache-2.0
"""Metadata beside an image's archive: a record as engines inspect images, and signatures of it. No I/O.

The form is that of WfExS' container cache (docs/spec/wfexs.md#metadata), whose own handler
reads it: signatures are ``sha256=`` and the hash in base64. Our own files carry a seal
too, so that a damaged byte of them is found wherever it is.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ..errors import BadArchive, BadReference, ContentError, DigestMismatch
from ..model.image import Config, Digest, Platform, json_object
from ..model.reference import Reference, parse_name, references_in

#: What each engine's record has that changes although the image does not; it is left out of the signature.
VOLATILE: Mapping[str, tuple[str, ...]] = {
    "docker": ("RepoDigests",),
    "podman": ("Digest", "RepoDigests", "Size", "VirtualSize"),
}

_PREFIX = "sha256="
_WHAT = "the metadata of an archive"
_SEAL = "seal"
_LONG_CONFIG = 1 << 18


@dataclass(frozen=True, slots=True)
class Metadata:
    """Metadata of an archive: the image in it, the SHA-256 of the file, and the record of the image.

    ``digests`` are further ones by which engines and registries call the image; ``name`` is what it was staged as, in
    full, and empty in the cache, where links are the names.
    """

    image_id: Digest
    archive: Digest
    record: Mapping[str, Any] = field(repr=False)
    digests: tuple[Digest, ...] = ()
    name: str = ""

    @property
    def repo_digests(self) -> tuple[str, ...]:
        """The names by digest under which registries have the image, as an engine told them."""
        return _texts(self.record, "RepoDigests")

    @property
    def platform(self) -> Platform:
        """The platform that the image is for, as the record says."""
        os, architecture, variant = (self.record.get(key) for key in ("Os", "Architecture", "Variant"))
        return Platform(str(os or "unknown"), str(architecture or "unknown"), str(variant or ""))

    def knowing(self, digests: Sequence[Digest], repo_digests: Sequence[str]) -> Metadata:
        """The metadata with further digests and names by digest."""
        every = dict.fromkeys((*self.digests, *digests))
        every.pop(self.image_id, None)
        record = {**self.record, "RepoDigests": sorted({*self.repo_digests, *repo_digests})}
        return replace(self, digests=tuple(every), record=record)


class Form(Protocol):
    """A form in which metadata is written."""

    def dump(self, metadata: Metadata) -> bytes:
        """The metadata as text."""

    def load(self, raw: bytes) -> Metadata:
        """Parse metadata that ``dump`` wrote; raises ContentError for other bytes, and for values that disagree."""


class Wfexs:
    """The form in which WfExS' handler for an engine (``docker`` or ``podman``) writes and reads metadata."""

    def __init__(self, engine: str) -> None:
        self._engine = engine

    def dump(self, metadata: Metadata) -> bytes:
        """The metadata as text, with the four keys that the handler knows."""
        return json.dumps(self.document(metadata)).encode()

    def load(self, raw: bytes) -> Metadata:
        """The metadata in a text; raises BadConfig and BadArchive."""
        return self.parse(json_object(raw, what=_WHAT))

    def document(self, metadata: Metadata) -> dict[str, Any]:
        """The four keys of the metadata, as a JSON object."""
        record = dict(metadata.record)
        record["Id"] = metadata.image_id.hex if self._engine == "podman" else str(metadata.image_id)
        return {
            "image_id": record["Id"],
            "image_signature": signature_of(metadata.archive),
            "manifests": [record],
            "manifests_signature": record_signature([record], self._engine),
        }

    def parse(self, document: Mapping[str, Any]) -> Metadata:
        """Parse a document of this form, which may have further keys; raises BadArchive for other documents."""
        try:
            found = self._metadata_of(document)
            agrees = self.document(found).items() <= document.items()
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError, BadReference):
            agrees = False
        if not agrees:
            raise BadArchive(f"{_WHAT} is not what was written.")
        return found

    def _metadata_of(self, document: Mapping[str, Any]) -> Metadata:
        (record,) = document["manifests"]
        image_id = Digest.sha256(record["Id"].removeprefix("sha256:"))
        names = references_in(_texts(record, "RepoTags"))
        name = names[0].canonical if names else ""
        return Metadata(image_id, digest_of(document["image_signature"]), record, name=name)


class WfexsSif:
    """The form in which WfExS' handler for Singularity writes metadata of SIF files, which is only read here.

    It calls an image by the hash of its file; which image that was made of shows nowhere.
    """

    def load(self, raw: bytes) -> Metadata:
        """The metadata in a text; raises BadConfig, and BadArchive for another document."""
        document = json_object(raw, what=_WHAT)
        try:
            archive = digest_of(document["image_signature"])
            registry, repository, alias = (document[key] for key in ("registryServer", "repo", "alias"))
            name = (
                Reference.parse(f"{registry}/{repository}:{alias}").canonical
                if registry and repository and alias
                else ""
            )
        except (KeyError, ValueError, TypeError, AttributeError, BadReference):
            raise BadArchive(f"{_WHAT} is none of a SIF file.") from None
        return Metadata(archive, archive, {}, name=name)


def load_unsealed(raw: bytes) -> Metadata:
    """The metadata in a text that WfExS wrote, for whichever of its engines, into a folder of staged images.

    Raises ContentError for any other text, also for one of ours whose seal is broken.
    """
    forms = (Wfexs("docker"), Wfexs("podman"), WfexsSif())
    if _SEAL not in json_object(raw, what=_WHAT):
        for form in forms:
            with suppress(ContentError):
                return form.load(raw)
    raise BadArchive(f"{_WHAT} is not what was written.")


class SealedForm(Wfexs):
    """Our own form: that of ``Wfexs`` with the name, further digests, and a seal."""

    def __init__(self) -> None:
        super().__init__("docker")

    def dump(self, metadata: Metadata) -> bytes:
        """The metadata as text, with the keys of ``Wfexs``, ours, and the seal."""
        return seal(self.document(metadata))

    def load(self, raw: bytes) -> Metadata:
        """The metadata in a text; raises also DigestMismatch where the seal is broken."""
        return self.parse(unseal(raw))

    def document(self, metadata: Metadata) -> dict[str, Any]:
        """The keys of the metadata, all but the seal, as a JSON object."""
        ours = {"name": metadata.name, "digests": list(map(str, metadata.digests))}
        return {**super().document(metadata), **ours}

    def _metadata_of(self, document: Mapping[str, Any]) -> Metadata:
        name, digests = document["name"], tuple(map(Digest.parse, document["digests"]))
        if name != "":
            parse_name(name)
        return replace(super()._metadata_of(document), name=name, digests=digests)


def record_of(
    config: Config, size: int, repo_digests: Sequence[str] = (), repo_tags: Sequence[str] = ()
) -> dict[str, Any]:
    """The record of an image, from the config but for the names; ``size`` is the layers' size in bytes.

    How containers of it start is left out where that is so long that it might not be readable again, indented.
    """
    document = json_object(config.raw, what="the image's config")
    record = {
        "Id": str(config.digest),
        "RepoTags": list(repo_tags),
        "RepoDigests": sorted(repo_digests),
        "Created": config.created or "",
        "Os": config.platform.os,
        "Architecture": config.platform.architecture,
        "Size": size,
        "Config": (document.get("config") or {}) if len(config.raw) <= _LONG_CONFIG else {},
        "RootFS": {"Type": "layers", "Layers": [str(diff_id) for diff_id in config.diff_ids]},
    }
    return record | ({"Variant": config.platform.variant} if config.platform.variant else {})


def record_signature(records: Sequence[Mapping[str, Any]], engine: str = "docker") -> str:
    """The signature of records as that engine gives them, without what changes though the image does not."""
    lasting = [{key: value for key, value in it.items() if key not in VOLATILE[engine]} for it in records]
    return signature_of(Digest.of(json.dumps(lasting, sort_keys=True).encode()))


def signature_of(digest: Digest) -> str:
    """A SHA-256 digest as WfExS writes it: ``sha256=`` and base64."""
    return _PREFIX + base64.b64encode(bytes.fromhex(digest.hex)).decode()


def digest_of(signature: str) -> Digest:
    """The digest that ``signature_of`` wrote; raises ValueError for another text."""
    if not signature.startswith(_PREFIX):
        raise ValueError(f"{signature!r} is no signature")
    raw = base64.b64decode(signature.removeprefix(_PREFIX), validate=True)
    if len(raw) != hashlib.sha256().digest_size:
        raise ValueError(f"{signature!r} is no signature")
    return Digest("sha256", raw.hex())


def seal(document: Mapping[str, Any]) -> bytes:
    """A document as text, with a seal over everything in it."""
    return _text({**document, _SEAL: signature_of(Digest.of(_text(document)))})


def unseal(raw: bytes) -> dict[str, Any]:
    """The document that ``seal`` wrote; raises BadConfig and DigestMismatch for bytes that it did not write."""
    document = json_object(raw, what=_WHAT)
    rest = {key: value for key, value in document.items() if key != _SEAL}
    with suppress(RecursionError):  # it can be read and is nested too deep to be written
        if raw == seal(rest):
            return rest
    raise DigestMismatch(f"{_WHAT} is not what was written.")


def _texts(record: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """The texts of a list in a record, which somebody else may have written."""
    values = record.get(key)
    return tuple(it for it in values if isinstance(it, str)) if isinstance(values, list) else ()


def _text(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"

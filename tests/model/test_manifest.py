# SPDX-License-Identifier: Apache-2.0
"""Manifests and indexes: what is read, what is refused, and which image of several is meant."""

import json
import platform
from typing import Any

import pytest

from arv_docker.errors import (
    AmbiguousImage,
    ArvDockerError,
    BadConfig,
    NoSuchImage,
    NotAnImage,
    SchemaOne,
    UnsupportedDigest,
    UsageError,
)
from arv_docker.model.image import OCI_INDEX, OCI_MANIFEST, Descriptor, Digest, Platform
from arv_docker.model.manifest import (
    Index,
    IndexEntry,
    Manifest,
    choose_entry,
    images_of,
    machine_platform,
    parse,
    parse_platform,
)

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")
ATTESTATION = {"os": "unknown", "architecture": "unknown"}


def descriptor(digest: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": OCI_MANIFEST, "digest": digest, "size": 7, **more}


def raw(**document: Any) -> bytes:
    return json.dumps(document).encode()


def index(*manifests: dict[str, Any]) -> Index:
    parsed = parse(raw(schemaVersion=2, manifests=list(manifests)), what="it")
    assert isinstance(parsed, Index)
    return parsed


def listed(text: str, digest: str = A) -> IndexEntry:
    return IndexEntry(Descriptor(OCI_MANIFEST, Digest.parse(digest), 7), parse_platform(text))


def test_a_manifest_is_its_config_and_its_layers() -> None:
    parsed = parse(raw(schemaVersion=2, config=descriptor(A), layers=[descriptor(B), descriptor(C)]), what="it")
    assert isinstance(parsed, Manifest)
    assert str(parsed.config.digest) == A
    assert [str(layer.digest) for layer in parsed.layers] == [B, C]


def test_attestations_are_left_out_of_an_index() -> None:
    parsed = index(
        descriptor(A, platform={"os": "linux", "architecture": "amd64"}),
        descriptor(B, platform=ATTESTATION),
        descriptor(C, annotations={"vnd.docker.reference.type": "attestation-manifest"}),
    )
    assert [str(it) for it in parsed.manifests] == [f"linux/amd64 {A}"]


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (b"{", BadConfig, "not JSON"),
        (b"[]", BadConfig, "not an object"),
        (raw(schemaVersion=1, fsLayers=[]), SchemaOne, "schema 1"),
        (raw(schemaVersion=2), NotAnImage, "neither an image nor an index"),
        (raw(manifests=[], layers=[]), BadConfig, "at once"),
        (raw(manifests=[], config={}), BadConfig, "at once"),
        (raw(manifests=1), BadConfig, "no list of manifests"),
        (raw(manifests=[1]), BadConfig, "no list of manifests"),
        (raw(config=descriptor(A), layers=1), BadConfig, "no list of layers"),
        (raw(config=None, layers=[]), BadConfig, "without a digest"),
        (raw(config={**descriptor(A), "size": -1}, layers=[]), BadConfig, "without a digest"),
        (raw(config={**descriptor(A), "size": True}, layers=[]), BadConfig, "without a digest"),
        (raw(config={**descriptor(A), "digest": "sha256:no"}, layers=[]), BadConfig, "not a digest"),
        (raw(config=descriptor("md5:" + "a" * 32), layers=[]), UnsupportedDigest, "md5"),
        (raw(config=descriptor(A), layers=[descriptor(B)] * 10_001), NotAnImage, "10001 layers"),
    ],
)
def test_what_is_no_manifest_is_refused(content: bytes, error: type[ArvDockerError], words: str) -> None:
    with pytest.raises(error, match=words):
        parse(content, what="it")


def nested(digest: str) -> dict[str, Any]:
    return {"mediaType": OCI_INDEX, "digest": digest, "size": 7}


def test_an_index_within_an_index_is_read() -> None:
    inner = index(descriptor(B), descriptor(C))
    found = images_of(index(descriptor(A), nested("sha256:" + "d" * 64), descriptor(B)), lambda _: inner, what="it")
    assert [str(it.descriptor.digest) for it in found] == [A, B, C]


def test_indexes_nested_too_deep_are_refused() -> None:
    numbers = iter(range(10**6))
    with pytest.raises(NotAnImage, match="too deep or endless"):
        list(images_of(index(nested(A)), lambda _: index(nested(f"sha256:{next(numbers):064x}")), what="it"))


def test_an_index_that_leads_to_itself_is_read_once() -> None:
    assert list(images_of(index(nested(A)), lambda _: index(nested(A)), what="it")) == []


def test_what_an_index_calls_an_index_must_be_one() -> None:
    image = Manifest(Descriptor("", Digest.parse(A), 1), ())
    with pytest.raises(NotAnImage, match="it is none"):
        list(images_of(index(nested(A)), lambda _: image, what="it"))


def test_the_only_image_is_taken_whatever_it_is_for() -> None:
    assert choose_entry([listed("windows/mips")], None, what="it") == listed("windows/mips")


@pytest.mark.parametrize(
    ("processor", "expected"), [("x86_64", "linux/amd64"), ("aarch64", "linux/arm64"), ("s390x", "linux/s390x")]
)
def test_this_machine_is_meant_unless_another_platform_is(
    processor: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: processor)
    assert str(machine_platform()) == expected
    images = [listed("linux/amd64"), listed("linux/arm64/v8", B), listed("linux/s390x", C)]
    assert choose_entry(images, None, what="it").platform in (
        Platform("linux", expected[6:]),
        Platform("linux", "arm64", "v8"),
    )
    assert choose_entry(images, Platform("linux", "arm64"), what="it") == images[1]


def test_an_image_for_another_platform_is_not_taken_instead() -> None:
    with pytest.raises(NoSuchImage, match="no image for linux/riscv64") as caught:
        choose_entry([listed("linux/amd64"), listed("linux/arm64", B)], Platform("linux", "riscv64"), what="it")
    assert caught.value.detail == f"linux/amd64 {A}\nlinux/arm64 {B}"
    with pytest.raises(NoSuchImage, match="names no image"):
        choose_entry([], None, what="it")


def test_several_that_fit_are_listed_and_none_is_taken() -> None:
    with pytest.raises(AmbiguousImage, match=r"2 images for linux/arm.*--platform") as caught:
        choose_entry([listed("linux/arm/v5"), listed("linux/arm/v6", B)], Platform("linux", "arm"), what="it")
    assert caught.value.detail == f"linux/arm/v5 {A}\nlinux/arm/v6 {B}"


def test_a_variant_that_is_usual_needs_not_be_written() -> None:
    images = [listed("linux/arm/v6"), listed("linux/arm/v7", B)]
    assert choose_entry(images, Platform("linux", "arm"), what="it") == images[1]
    assert choose_entry(images, Platform("linux", "arm", "v6"), what="it") == images[0]
    with pytest.raises(NoSuchImage):
        choose_entry(images, Platform("linux", "arm", "v5"), what="it")


@pytest.mark.parametrize("text", ["", "linux", "linux/", "a/b/c/d", "linux/am d64"])
def test_a_text_that_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a platform"):
        parse_platform(text)

# SPDX-License-Identifier: Apache-2.0
"""Mirrors: whatever one answers that is not what was asked for is passed over, quickly, with one line that names it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest

from arv_docker.errors import DigestMismatch, OciArtifact, RegistryError
from arv_docker.model.image import OCI_INDEX, OCI_MANIFEST, Digest, Platform
from arv_docker.model.reference import Reference
from arv_docker.registry import pulling
from arv_docker.transports.registry import RegistrySource

from .. import archives
from .scripted import Conversation, Registry, Waited, index, running, sha256

IMAGE = archives.image(b"one".ljust(5000), b"two".ljust(3000), os="linux", architecture="amd64")

Fault = Callable[[Conversation], bool]


@pytest.fixture
def mirror() -> Iterator[Registry]:
    server = Registry()
    with running(server):
        yield server


@pytest.fixture(autouse=True)
def _both_have_it(registry: Registry, mirror: Registry) -> None:
    for server in (registry, mirror):
        server.add("app:1", IMAGE)


def source_of(registry: Registry, mirror: Registry, waited: Waited, platform: Platform | None = None) -> RegistrySource:
    mirrors = {registry.host: [mirror.host]}
    reference = Reference.parse(f"{registry.host}/app:1")
    return RegistrySource(reference, platform, insecure=True, mirrors=mirrors, patience=waited.patience)


def read(registry: Registry, mirror: Registry, waited: Waited, platform: Platform | None = None) -> dict[Digest, bytes]:
    with source_of(registry, mirror, waited, platform).open() as image:
        layers = {}
        for layer in image.layers():
            assert layer.claimed
            layers[layer.claimed] = b"".join(iter(lambda layer=layer: layer.read(1000), b""))  # type: ignore[misc]
        return layers


def in_line(pattern: str, fault: Fault) -> Fault:
    return lambda conversation: pattern in conversation.request_seen.line and fault(conversation)


def login_page(conversation: Conversation) -> bool:
    return conversation.answer(200, b"<html>Log in, please</html>", Content_Type="text/html")


def schema_one(conversation: Conversation) -> bool:
    body = json.dumps({"schemaVersion": 1, "fsLayers": [], "history": []}).encode()
    kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    return conversation.answer(200, body, Content_Type=kind)


def other_bytes(conversation: Conversation) -> bool:
    digest = conversation.path.rpartition("/")[2]
    right = conversation.server.blobs.get(digest) or conversation.server.manifests["app", digest][1]
    return conversation.answer(200, right[:-1] + bytes([right[-1] ^ 1]), Docker_Content_Digest=digest)


def wrong_digest(conversation: Conversation) -> bool:
    return conversation.answer(200, b"{}", Docker_Content_Digest=sha256(b"other"))


def elsewhere(conversation: Conversation) -> bool:
    return conversation.answer(302, Location="ftp://mirror.example/login")


FAULTS: dict[str, Fault] = {
    "login page": login_page,
    "login page for everything asked by digest": in_line("sha256:", login_page),
    "schema 1": in_line("manifests", schema_one),
    "other manifest": in_line("manifests", wrong_digest),
    "no blobs": in_line("/blobs/", lambda it: it.refuse(404, "BLOB_UNKNOWN")),
    "no layers": lambda it: (
        "/blobs/" in it.path and IMAGE.parsed.digest.hex not in it.path and it.refuse(404, "BLOB_UNKNOWN")
    ),
    "other bytes": in_line("/blobs/", other_bytes),
    "short blobs": in_line("/blobs/", lambda it: it.answer(200, b"x")),
    "busy": lambda it: it.answer(503),
    "busy with blobs": in_line("/blobs/", lambda it: it.answer(503)),
    "refuses": lambda it: it.refuse(403, "DENIED"),
    "redirects astray": elsewhere,
    "not even JSON": in_line("manifests", lambda it: it.answer(200, b"{")),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_mirror_that_gives_something_else_is_passed_over(
    registry: Registry, mirror: Registry, waited: Waited, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    mirror.fault = FAULTS[name]
    assert read(registry, mirror, waited) == IMAGE.by_id
    lines = [message for message in caplog.messages if "passed over" in message]
    assert len(lines) == 1
    assert f"The mirror {mirror.host} is passed over: " in lines[0]
    assert sum(waited.seconds) < 15


def artifact(mirror: Registry) -> bytes:
    """A manifest of something else under the image's name."""
    empty = {"digest": mirror.blob("app", b"{}"), "size": 2}
    config = {"mediaType": "application/vnd.oci.empty.v1+json", **empty}
    document = {"schemaVersion": 2, "artifactType": "text/sbom", "config": config, "layers": [{**config}]}
    return json.dumps(document).encode()


def too_few_layers(mirror: Registry) -> bytes:
    document = json.loads(mirror.manifests["app", "1"][1])
    return json.dumps({**document, "layers": document["layers"][:1]}).encode()


OTHERS: dict[str, Callable[[Registry], tuple[bytes, str]]] = {
    "an index of nothing": lambda _: (index(), OCI_INDEX),
    "an index of another platform": lambda it: (
        index(("linux/s390x", sha256(it.manifests["app", "1"][1]), len(it.manifests["app", "1"][1]))),
        OCI_INDEX,
    ),
    "an index whose image is nowhere": lambda _: (index(("linux/amd64", sha256(b"gone"), 4)), OCI_INDEX),
    "an artifact": lambda it: (artifact(it), OCI_MANIFEST),
    "too few layers": lambda it: (too_few_layers(it), OCI_MANIFEST),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_mirror_whose_manifest_is_of_something_else_is_passed_over(
    registry: Registry, mirror: Registry, waited: Waited, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """The name is read again, of the registry: also where the name stands for several images."""
    mirror.put_manifest("app", "1", *OTHERS[name](mirror))
    assert read(registry, mirror, waited, Platform("linux", "amd64")) == IMAGE.by_id
    lines = [message for message in caplog.messages if "passed over" in message]
    assert len(lines) == 1
    source = source_of(registry, mirror, waited)
    if not name.startswith("an index"):
        assert [str(entry.platform) for entry in source.images()] == ["linux/amd64"]
        with source.platforms() as openables:
            assert [open_image().config.raw for _, open_image in openables] == [IMAGE.config]
    mirror.put_manifest("app", "1", *OTHERS["an artifact"](mirror))
    registry.put_manifest("app", "1", *OTHERS["an artifact"](registry))
    with pytest.raises(OciArtifact):
        read(registry, mirror, waited)


def test_who_gave_the_layers_is_said(registry: Registry, mirror: Registry, waited: Waited) -> None:
    """The registry, where the mirror was passed over for them."""
    mirror.fault = FAULTS["no layers"]
    with source_of(registry, mirror, waited).open() as image:
        assert image.host == mirror.host
        for layer in image.layers():
            while layer.read():
                pass
        assert image.host == registry.host


def test_a_mirror_that_lacks_a_name_is_no_warning(
    registry: Registry, mirror: Registry, waited: Waited, caplog: pytest.LogCaptureFixture
) -> None:
    mirror.manifests.clear()
    assert read(registry, mirror, waited) == IMAGE.by_id
    assert caplog.messages == []


def test_what_a_mirror_has_is_not_asked_of_the_registry(registry: Registry, mirror: Registry, waited: Waited) -> None:
    assert read(registry, mirror, waited) == IMAGE.by_id
    assert registry.seen == []


def test_one_layer_that_a_mirror_lacks_comes_from_the_registry_alone(
    registry: Registry, mirror: Registry, waited: Waited
) -> None:
    lacking = json.loads(mirror.manifests["app", "1"][1])["layers"][1]["digest"]
    mirror.repositories["app"].remove(lacking)
    assert read(registry, mirror, waited) == IMAGE.by_id
    assert [request.path for request in registry.seen] == [f"/v2/app/blobs/{lacking}"]


def test_large_blobs_of_a_mirror_wait_on_disk(
    registry: Registry, mirror: Registry, waited: Waited, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling, "_IN_MEMORY", 10)
    mirror.fault = FAULTS["other bytes"]
    assert read(registry, mirror, waited) == IMAGE.by_id
    mirror.fault = lambda conversation: False
    registry.seen.clear()
    assert read(registry, mirror, waited) == IMAGE.by_id
    assert registry.seen == []


def test_a_silent_mirror_is_passed_over_quickly(registry: Registry, mirror: Registry) -> None:
    def silent(conversation: Conversation) -> bool:
        time.sleep(1.5)
        return conversation.answer(404)

    class Hurried(Waited):
        @property
        def patience(self):  # type: ignore[no-untyped-def]
            from dataclasses import replace

            return replace(super().patience, read=0.5, total=1.2)

    mirror.fault = silent
    start = time.monotonic()
    assert read(registry, mirror, Hurried()) == IMAGE.by_id
    assert time.monotonic() - start < 20
    assert len(mirror.seen) <= 2


def test_the_registrys_own_faults_are_errors(registry: Registry, mirror: Registry, waited: Waited) -> None:
    mirror.fault = registry.fault = FAULTS["other bytes"]
    with pytest.raises(DigestMismatch, match=registry.host):
        read(registry, mirror, waited)
    mirror.fault = registry.fault = FAULTS["busy"]
    with pytest.raises(RegistryError, match=f"{registry.host}: .*the registry answers 503"):
        read(registry, mirror, waited)

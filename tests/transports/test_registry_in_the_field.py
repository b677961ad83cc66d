# SPDX-License-Identifier: Apache-2.0
"""Pushes to registries as they are in the field: tags that may not be moved, uploads whose state nobody knows,
manifests that are refused or written anew, storage that answers for itself."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator

import pytest

from arv_docker.errors import AmbiguousImage, DigestMismatch, NoSuchImage, RegistryDenied, RegistryError
from arv_docker.local.settings import settings
from arv_docker.model.image import OCI_INDEX, OCI_MANIFEST, Digest, Platform
from arv_docker.model.manifest import parse_platform
from arv_docker.model.reference import Reference
from arv_docker.registry.access import Access
from arv_docker.registry.client import DOCKER_MANIFEST, Client
from arv_docker.registry.patience import Patience
from arv_docker.registry.upload import Blob
from arv_docker.store.cache import CacheFolder
from arv_docker.store.tarballs import cache_folder
from arv_docker.transports.registry import RegistryImage, RegistrySource

from .. import archives
from ..registry.scripted import Conversation, Registry, Waited, running, sha256
from .test_registry_destination import IMAGE, NEXT, held, noise, push, sent

MIB = 1 << 20

Fault = Callable[[Conversation], bool]


def source_of(registry: Registry, name: str = "tools/app:1", **more: object) -> RegistrySource:
    more = {"access": Access.of_user(), "mirrors": settings().mirrors, "cache": CacheFolder(cache_folder), **more}
    return RegistrySource(Reference.parse(f"{registry.host}/{name}"), insecure=True, **more)  # type: ignore[arg-type]


def putting_manifests(fault: Fault) -> Fault:
    return lambda conversation: (
        conversation.command == "PUT" and "/manifests/" in conversation.path and fault(conversation)
    )


# -- tags that may not be moved ----------------------------------------------------------------


def immutable(status: int) -> Fault:
    """As Amazon's, Harbor, Artifactory and Quay refuse a tag that is there, each with its own status."""

    def fault(conversation: Conversation) -> bool:
        name = conversation.path.rpartition("/")[2]
        return ("tools/app", name) in conversation.server.manifests and conversation.refuse(status, "TAG_INVALID")

    return putting_manifests(fault)


@pytest.mark.parametrize("status", [400, 403, 405, 409, 412, 422])
def test_a_tag_that_may_not_be_moved_and_has_the_image(registry: Registry, status: int) -> None:
    registry.fault = immutable(status)
    first, again = push(registry, IMAGE), push(registry, IMAGE)
    assert (again.digest, again.bytes_sent) == (first.digest, 0)
    assert held(registry) == IMAGE


@pytest.mark.parametrize("status", [400, 403, 409, 412])
def test_a_tag_that_may_not_be_moved_and_has_another_image(registry: Registry, status: int) -> None:
    registry.fault = immutable(status)
    push(registry, IMAGE)
    with pytest.raises(RegistryError, match=f"putting the manifest of tools/app:1: the registry answers {status}"):
        push(registry, NEXT)
    assert held(registry) == IMAGE


@pytest.mark.parametrize("status", [400, 403, 409, 412])
def test_a_tag_that_may_not_be_moved_whose_answer_got_lost(registry: Registry, waited: Waited, status: int) -> None:
    refused, lost = immutable(status), iter([True])

    def fault(conversation: Conversation) -> bool:
        if conversation.command == "PUT" and "/manifests/" in conversation.path and next(lost, False):
            kept = conversation.request_seen.body
            conversation.server.put_manifest("tools/app", "1", kept, conversation.headers["Content-Type"])
            conversation.reset()
            return True
        return refused(conversation)

    registry.fault = fault
    push(registry, IMAGE, patience=waited.patience)
    assert held(registry) == IMAGE


# -- manifests ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 404, 405, 406, 415, 422])
def test_a_registry_that_knows_dockers_manifests_alone(
    registry: Registry, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    registry.fault = putting_manifests(
        lambda it: it.headers["Content-Type"] == OCI_MANIFEST and it.refuse(status, "MANIFEST_INVALID")
    )
    pushed = push(registry, IMAGE)
    media_type, raw = registry.manifests["tools/app", "1"]
    document = json.loads(raw)
    assert media_type == document["mediaType"] == DOCKER_MANIFEST
    assert document["config"]["mediaType"] == "application/vnd.docker.container.image.v1+json"
    assert {it["mediaType"] for it in document["layers"]} == {"application/vnd.docker.image.rootfs.diff.tar.gzip"}
    assert str(pushed.digest) == sha256(raw)
    assert held(registry) == IMAGE
    assert [it for it in caplog.messages if "refuses OCI manifests" in it and str(pushed.digest) in it]


def test_a_registry_that_takes_no_manifest_says_why(registry: Registry) -> None:
    registry.fault = putting_manifests(lambda it: it.refuse(400, "MANIFEST_BLOB_UNKNOWN"))
    with pytest.raises(RegistryError, match="answers 400") as caught:
        push(registry, IMAGE)
    assert "MANIFEST_BLOB_UNKNOWN" in caught.value.detail


@pytest.mark.parametrize("says", [True, False])
def test_a_registry_that_writes_manifests_anew(
    registry: Registry, says: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The digest is the registry's own, whether its answer has it or only the tag."""

    def fault(conversation: Conversation) -> bool:
        anew = json.dumps(json.loads(conversation.request_seen.body), indent=3).encode()
        digest = registry.put_manifest("tools/app", "1", anew, OCI_MANIFEST)
        return conversation.answer(201, b"", **({"Docker_Content_Digest": digest} if says else {}))

    registry.fault = putting_manifests(fault)
    pushed = push(registry, IMAGE)
    assert ("tools/app", str(pushed.digest)) in registry.manifests
    assert [it for it in caplog.messages if "anew" in it]


def test_a_registry_that_has_not_what_it_says(registry: Registry) -> None:
    registry.fault = putting_manifests(lambda it: it.answer(201, Docker_Content_Digest=sha256(b"nothing")))
    with pytest.raises(DigestMismatch, match="gives neither"):
        push(registry, IMAGE)


def test_a_registry_that_makes_another_image_of_it(registry: Registry) -> None:
    push(registry, NEXT, "tools/app:2")
    raw = registry.manifests["tools/app", "2"][1]
    registry.fault = putting_manifests(lambda it: it.answer(201, Docker_Content_Digest=sha256(raw)))
    with pytest.raises(DigestMismatch, match="of another image"):
        push(registry, IMAGE)


# -- uploads whose state nobody knows ------------------------------------------------------------


@pytest.mark.parametrize("says", ["0-{0}", "0-{1}", "", "0-0", "bytes=0-{0}", "nonsense", "0-" + "9" * 30])
def test_an_upload_whose_state_is_not_known_begins_anew(registry: Registry, waited: Waited, says: str) -> None:
    """The answer to its bytes got lost, and what is said of it is one too many, too much, or nothing."""
    content, cuts = noise(MIB), iter([True])

    def fault(conversation: Conversation) -> bool:
        upload = re.search(r"/uploads/(\d+)", conversation.path)
        if not upload:
            return False
        if conversation.command == "PATCH" and next(cuts, False):
            registry.uploads[upload[1]] += conversation.request_seen.body
            conversation.reset()
            return True
        length = len(registry.uploads.get(upload[1], b""))
        said = {"Range": says.format(length, 2 * length)} if says else {}
        return conversation.command == "GET" and conversation.answer(204, b"", Location=conversation.path, **said)

    registry.fault = fault
    client = Client(registry.host, insecure=True, patience=waited.patience)
    client.push("app", Blob.of(content, "x"))
    assert registry.blobs[sha256(content)] == content
    client.close()


def test_an_upload_that_was_taken_up_wrongly_is_begun_anew_once(registry: Registry, waited: Waited) -> None:
    """The registry says that it has less than it has, so the rest comes twice."""
    content, cuts = noise(MIB), iter([True])

    def fault(conversation: Conversation) -> bool:
        upload = re.search(r"/uploads/(\d+)", conversation.path)
        if upload and conversation.command == "PATCH" and next(cuts, False):
            registry.uploads[upload[1]] += conversation.request_seen.body[: MIB // 2]
            conversation.reset()
            return True
        if upload and conversation.command == "PATCH" and "Content-Range" in conversation.headers:
            del conversation.headers["Content-Range"]
        said = f"0-{MIB // 4 - 1}"
        return bool(upload) and conversation.command == "GET" and conversation.answer(204, Range=said)

    registry.fault = fault
    client = Client(registry.host, insecure=True, patience=waited.patience)
    client.push("app", Blob.of(content, "x"))
    assert registry.blobs[sha256(content)] == content
    assert len(registry.received("POST")) == 2
    client.close()


def test_bytes_that_are_refused_are_an_error_at_once(registry: Registry, waited: Waited) -> None:
    registry.fault = lambda it: it.command == "PUT" and it.refuse(400, "DIGEST_INVALID")
    client = Client(registry.host, insecure=True, patience=waited.patience)
    with pytest.raises(RegistryError, match="answers 400"):
        client.push("app", Blob.of(b"content", "x"))
    assert (len(registry.received("POST")), waited.seconds) == (1, [])
    client.close()


def test_bytes_may_be_worked_on_as_long_as_their_end(registry: Registry) -> None:
    """PATCH has the patience of PUT."""
    import time

    def fault(conversation: Conversation) -> bool:
        if conversation.command == "PATCH":
            time.sleep(0.8)
        return False

    registry.fault = fault
    push(registry, archives.image(b"x"), patience=Patience(read=0.3, work=30))
    assert len(registry.received("PATCH")) == 2  # layer and config, each once


# -- storage behind the registry -----------------------------------------------------------------


@pytest.fixture
def storage(registry: Registry) -> Iterator[Registry]:
    """Storage to which the registry sends everybody who wants a blob, with an address that is signed."""
    server = Registry()

    def to_storage(conversation: Conversation) -> bool:
        blob = re.fullmatch(r"/v2/(.+)/blobs/(sha256:[0-9a-f]+)", conversation.path)
        if blob and conversation.command in ("GET", "HEAD") and blob[2] in registry.repositories.get(blob[1], ()):
            place = f"http://{server.host}/v2/{blob[1]}/blobs/{blob[2]}?Signature=Hunter2"
            return conversation.answer(307, Location=place)
        return False

    registry.fault = to_storage
    server.blobs, server.repositories = registry.blobs, registry.repositories
    with running(server):
        yield server


@pytest.mark.parametrize("status", [400, 401, 403, 405, 404])
def test_storage_that_refuses_to_say_what_it_has(registry: Registry, storage: Registry, status: int) -> None:
    """The address is signed for GET alone; the registry has what it leads to."""
    push(registry, IMAGE)
    storage.fault = lambda it: it.command == "HEAD" and it.answer(status)
    assert push(registry, IMAGE, "tools/app:2").bytes_sent == 0
    assert sent(registry) == sum(len(it.body) for it in registry.received("PATCH"))
    assert all(it.sent <= 1024 or it.headers.get("Range") == "bytes=0-0" for it in storage.received("GET"))


@pytest.mark.parametrize("status", [401, 403, 404])
def test_who_refuses_is_named_without_its_signature(registry: Registry, storage: Registry, status: int) -> None:
    registry.add("tools/app:1", IMAGE)
    storage.fault = lambda it: it.answer(status, b"<Error><Code>AccessDenied</Code></Error>")
    with pytest.raises(RegistryError) as caught, source_of(registry).open():
        pass
    assert f"the storage behind the registry ({storage.host}) answers {status}" in caught.value.message
    assert "AccessDenied" in caught.value.detail
    assert "Hunter2" not in str(caught.value)


# -- encodings that nobody asked for ---------------------------------------------------------------


def deflated(content: bytes) -> bytes:
    return zlib.compress(content)


def bare_deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(content) + packer.flush()


@pytest.mark.parametrize("what", ["manifests", "blobs"])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("name", "encode"),
    [("gzip", gzip.compress), ("GZIP", gzip.compress), ("deflate", deflated), ("deflate", bare_deflated)],
)
def test_an_encoding_that_nobody_asked_for(
    registry: Registry, what: str, chunked: bool, name: str, encode: Callable[[bytes], bytes]
) -> None:
    registry.add("tools/app:1", IMAGE, lambda content: content)

    def fault(conversation: Conversation) -> bool:
        name_asked = conversation.path.rpartition("/")[2]
        content = registry.blobs.get(name_asked) or registry.manifests.get(("tools/app", name_asked), ("", b""))[1]
        if f"/{what}/" not in conversation.path or not content:
            return False
        body = encode(content)
        head = {"Content_Encoding": name, "Content_Type": OCI_MANIFEST}
        if chunked:
            conversation.start(200, None, Transfer_Encoding="chunked", **head)
            conversation.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
            return True
        return conversation.answer(200, body, **head)

    registry.fault = fault
    assert read(source_of(registry)) == IMAGE.by_id


def read(source: RegistrySource) -> dict[Digest, bytes]:
    with source.open() as image:
        assert isinstance(image, RegistryImage)
        return {
            layer.claimed: b"".join(iter(lambda layer=layer: layer.read(1 << 16), b""))  # type: ignore[misc]
            for layer in image.layers()
            if layer.claimed
        }


def test_storage_that_calls_a_layers_own_compression_an_encoding(registry: Registry) -> None:
    registry.add("tools/app:1", IMAGE)
    registry.fault = lambda it: (
        it.path.rpartition("/")[2] in registry.blobs
        and it.answer(200, registry.blobs[it.path.rpartition("/")[2]], Content_Encoding="gzip")
    )
    assert read(source_of(registry)) == IMAGE.by_id


def test_an_encoding_that_is_not_known_is_named(registry: Registry, waited: Waited) -> None:
    registry.fault = lambda it: it.answer(200, b"\x0b\x02", Content_Encoding="br")
    with pytest.raises(RegistryError, match="Content-Encoding: br"):
        read(source_of(registry, patience=waited.patience))


def test_what_is_encoded_is_bounded_by_what_it_should_be(registry: Registry, waited: Waited) -> None:
    registry.add("tools/app:1", IMAGE, lambda content: content)
    bomb = gzip.compress(bytes(64 * MIB))
    registry.fault = lambda it: "/blobs/" in it.path and it.answer(200, bomb, Content_Encoding="gzip")
    with pytest.raises(DigestMismatch, match="gives more than the"):
        read(source_of(registry, patience=waited.patience))
    registry.fault = lambda it: it.answer(200, bomb, Content_Encoding="gzip")
    with pytest.raises(RegistryError, match="larger than 4194304 bytes"):
        read(source_of(registry, patience=waited.patience))


# -- indexes -----------------------------------------------------------------------------------


def index_of(registry: Registry, *entries: dict[str, object]) -> None:
    raw = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
    registry.put_manifest("tools/app", "1", raw, OCI_INDEX)


def entry(registry: Registry, image: archives.Image, **more: object) -> dict[str, object]:
    digest = registry.add("tools/app:tmp", image)
    size = len(registry.manifests["tools/app", digest][1])
    return {"mediaType": OCI_MANIFEST, "digest": digest, "size": size, **more}


def artifact(registry: Registry, **more: object) -> dict[str, object]:
    config = registry.blob("tools/app", b"{}")
    described = {"mediaType": "application/vnd.example.signature.config.v1+json", "digest": config, "size": 2}
    raw = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described, "layers": []}).encode()
    digest = registry.put_manifest("tools/app", "signature", raw)
    return {"mediaType": OCI_MANIFEST, "digest": digest, "size": len(raw), **more}


ARM = archives.image(b"arm", os="linux", architecture="arm64")
INTEL = archives.image(b"intel", os="linux", architecture="amd64")


def id_of(registry: Registry, platform: str | None) -> Digest:
    with source_of(registry, platform=parse_platform(platform) if platform else None).open() as image:
        return image.config.digest


@pytest.mark.parametrize("platform", [None, "linux/arm64"])
@pytest.mark.parametrize("beside", [False, True])
def test_an_entry_without_a_platform(registry: Registry, platform: str | None, beside: bool) -> None:
    index_of(registry, *([artifact(registry)] if beside else []), entry(registry, ARM))
    assert id_of(registry, platform) == ARM.parsed.digest


def test_entries_without_a_platform_are_told_apart_by_their_configs(registry: Registry) -> None:
    index_of(registry, entry(registry, ARM), artifact(registry), entry(registry, INTEL))
    assert id_of(registry, "linux/arm64") == ARM.parsed.digest
    assert id_of(registry, "linux/amd64") == INTEL.parsed.digest
    assert [str(it.platform) for it in source_of(registry).images()] == ["linux/arm64", "linux/amd64"]
    with pytest.raises(NoSuchImage, match="no image for linux/s390x"):
        id_of(registry, "linux/s390x")


def test_an_entry_that_says_its_platform_is_taken_and_the_others_are_not_read(registry: Registry) -> None:
    platform = {"os": "linux", "architecture": "amd64"}
    index_of(registry, artifact(registry), entry(registry, INTEL, platform=platform))
    registry.seen.clear()
    assert id_of(registry, "linux/amd64") == INTEL.parsed.digest
    assert len(registry.received("manifests")) == 2


def test_artifacts_that_say_so_are_no_images(registry: Registry) -> None:
    kind = {"artifactType": "application/vnd.example.signature"}
    index_of(
        registry,
        artifact(registry, **kind),
        entry(registry, ARM, artifactType="application/vnd.oci.image.config.v1+json"),
    )
    assert [it.platform for it in source_of(registry).images()] == [Platform("linux", "arm64")]


@pytest.mark.parametrize(
    ("listed", "asked"),
    [
        (("linux", "aarch64", ""), "linux/arm64"),
        (("linux", "arm64", "v8"), "linux/aarch64"),
        (("Linux", "x86_64", ""), "linux/amd64"),
        (("linux", "amd64", ""), "linux/x86-64"),
        (("linux", "arm64", "8"), "linux/arm64/v8"),
        (("linux", "arm", "7"), "linux/armhf"),
        (("linux", "armel", ""), "linux/arm/v6"),
        (("linux", "arm", "v6"), "linux/arm/v7"),
        (("linux", "amd64", "v2"), "linux/amd64/v3"),
    ],
)
def test_platforms_by_any_of_their_names(registry: Registry, listed: tuple[str, str, str], asked: str) -> None:
    named = dict(zip(("os", "architecture", "variant"), listed, strict=True))
    other = {"os": "linux", "architecture": "s390x"}
    index_of(registry, entry(registry, INTEL, platform=other), entry(registry, ARM, platform=named))
    assert id_of(registry, asked) == ARM.parsed.digest


def test_a_processor_cannot_run_what_is_for_a_later_one(registry: Registry) -> None:
    entries = (
        entry(registry, image, platform={"os": "linux", "architecture": "arm", "variant": v})
        for image, v in ((ARM, "v7"), (INTEL, "v7"))
    )
    index_of(registry, *entries)
    with pytest.raises(NoSuchImage):
        id_of(registry, "linux/arm/v6")
    with pytest.raises(AmbiguousImage):
        id_of(registry, "linux/arm/v7")


# -- words ---------------------------------------------------------------------------------------


def test_an_image_of_an_index_that_is_gone_is_told_with_the_index(registry: Registry) -> None:
    lost = entry(registry, INTEL, platform={"os": "linux", "architecture": "amd64"})
    index_of(registry, lost)
    del registry.manifests["tools/app", str(lost["digest"])]
    with pytest.raises(NoSuchImage, match=f"{registry.host}/tools/app:1 is an index that lists {lost['digest']}"):
        id_of(registry, "linux/amd64")


def test_a_name_that_is_wrong_does_not_read_as_if_credentials_were(registry: Registry) -> None:
    """As Docker Hub answers whoever has not logged in."""
    registry.fault = lambda it: it.refuse(401, "UNAUTHORIZED")
    with pytest.raises(RegistryDenied, match="there is no such image, or it needs a login"):
        id_of(registry, None)
    with pytest.raises(RegistryDenied, match="it needs a login") as caught:
        push(registry, IMAGE)
    assert "no such image" not in str(caught.value)

# SPDX-License-Identifier: Apache-2.0
"""`docker://` as a source: what is fetched, what is checked, and how a registry that misbehaves ends."""

from __future__ import annotations

import base64
import email.utils
import gzip
import hashlib
import json
import threading
import time
from collections.abc import Callable, Container
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from arv_docker.archive.codecs import decompression
from arv_docker.errors import (
    AmbiguousImage,
    ArvDockerError,
    BadArchive,
    BadReference,
    BadSettings,
    ContentError,
    DigestMismatch,
    LayerCountMismatch,
    NoSuchImage,
    NotAnImage,
    RegistryDenied,
    RegistryError,
    SchemaOne,
    UsageError,
)
from arv_docker.local.progress import Advance, SilentProgress
from arv_docker.local.settings import settings
from arv_docker.model.image import OCI_INDEX, OCI_LAYER, Digest
from arv_docker.model.manifest import machine_platform, parse_platform
from arv_docker.model.reference import Reference
from arv_docker.registry.access import Access
from arv_docker.registry.credentials import Credentials, static_provider
from arv_docker.store.cache import CacheFolder
from arv_docker.store.layer_index import LayerTable
from arv_docker.store.tarballs import cache_folder
from arv_docker.transports import names
from arv_docker.transports.docker_daemon import NamedDestination
from arv_docker.transports.registry import RegistrySource

from .. import archives
from ..archives import Image
from ..registry.scripted import Conversation, Issued, Registry, TokenServer, Waited, index, manifest, running, sha256
from .fake_engine import FakeEngine

#: The cache of the test's user.
CACHE = CacheFolder(cache_folder)

MIB = 1 << 20
#: What a break may cost.
CHUNK = 128 << 10


def noise(size: int, seed: str = "") -> bytes:
    """Bytes that do not compress."""
    return hashlib.shake_128(f"registry{seed}".encode()).digest(size)


IMAGE = archives.image(noise(300_000, "a"), b"second".ljust(1024, b"\0"), os="linux", architecture="amd64")
BIG = archives.image(noise(4 * MIB, "big"), os="linux", architecture="amd64")


def source(registry: Registry, name: str = "tools/app:1", **more: object) -> RegistrySource:
    more = {"access": Access.of_user(), "mirrors": settings().mirrors, "cache": CacheFolder(cache_folder), **more}
    return RegistrySource(Reference.parse(f"{registry.host}/{name}"), insecure=True, **more)  # type: ignore[arg-type]


def read(source: RegistrySource, skip: Container[Digest] = ()) -> dict[Digest, bytes]:
    """The layers, each read to its end."""
    with source.open() as image:
        assert image.config.raw
        return {layer.claimed: _all(layer.read) for layer in image.layers(skip) if layer.claimed}


def _all(read: Callable[[int], bytes]) -> bytes:
    pieces = []
    while piece := read(70_001):
        pieces.append(piece)
    return b"".join(pieces)


def only_blob(registry: Registry) -> bytes:
    """The largest blob there is."""
    return max(registry.blobs.values(), key=len)


# -- what is read -------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [partial(gzip.compress, mtime=0), lambda content: content])
def test_an_image_is_read_with_its_layers(registry: Registry, compress: Callable[[bytes], bytes]) -> None:
    digest = registry.add("tools/app:1", IMAGE, compress)
    with source(registry).open() as image:
        assert image.config.raw == IMAGE.config
        assert image.digests == (Digest.parse(digest),)
        assert {layer.claimed: _all(layer.read) for layer in image.layers()} == IMAGE.by_id
        assert image.bytes_received == sum(len(compress(layer)) for layer in IMAGE.layers)


def test_zstd_layers(registry: Registry) -> None:
    zstandard = pytest.importorskip("zstandard")
    registry.add("tools/app:1", IMAGE, zstandard.ZstdCompressor().compress)
    assert read(source(registry)) == IMAGE.by_id


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little growth is taken without a word."""
    monkeypatch.setattr(decompression, "RATIO_FLOOR", 1 << 20)
    monkeypatch.setattr(decompression, "MAX_RATIO", 10)


@pytest.mark.usefixtures("tight")
def test_long_zeros_are_a_layer_like_any_other(registry: Registry) -> None:
    """Where what is still to come explains them, and where the layer was read before."""
    zeros = archives.image(bytes(4 << 20) + noise(500_000), bytes(5 << 20), os="linux")
    registry.add("tools/app:1", zeros)
    with pytest.raises(BadArchive, match="grows more than 10-fold"):
        read(source(registry))
    with source(registry).open() as image:
        first = next(image.layers())
        assert _all(first.read) == zeros.layers[0]
    LayerTable(cache_folder()).note(zeros.parsed.diff_ids[1], 5 << 20)
    assert read(source(registry)) == zeros.by_id


def test_a_layer_with_more_bytes_than_it_had_when_it_was_read_before(registry: Registry) -> None:
    """Refused where it passes them, however small it is compressed."""
    honest = archives.image(b"layer".ljust(2048), os="linux")
    registry.add("tools/app:1", honest)
    read(source(registry))
    registry.add("tools/app:1", honest, lambda layer: gzip.compress(layer + bytes(50 << 20), mtime=0))
    with pytest.raises(BadArchive, match="has more than its 2048 bytes") as caught, source(registry).open() as image:
        _all(next(image.layers()).read)
    assert caught.value.exit_code == 5


def test_an_uncompressed_layer_is_one_whatever_it_begins_with(registry: Registry) -> None:
    odd = archives.image(archives.tar({"BZh91AY": b"x"}), b"", b"ab")
    registry.add("tools/app:1", odd, lambda content: content, OCI_LAYER)
    assert read(source(registry)) == odd.by_id


def test_layers_that_are_skipped_are_not_asked_for(registry: Registry) -> None:
    registry.add("tools/app:1", IMAGE)
    skipped, wanted = IMAGE.parsed.diff_ids
    assert read(source(registry), {skipped}) == {wanted: IMAGE.by_id[wanted]}
    assert len(registry.received("GET .*/blobs/")) == 2  # the config and one layer


def test_the_names_and_sizes_of_layers_are_remembered_once_they_are_read(registry: Registry) -> None:
    registry.add("tools/app:1", IMAGE)
    with source(registry).open() as image:
        for layer in image.layers():
            layer.read(100)  # not to its end: nothing is proven
    table = LayerTable(cache_folder())
    assert [table.size(diff_id) for diff_id in IMAGE.by_id] == [None, None]
    read(source(registry))
    table = LayerTable(cache_folder())
    for diff_id, content in IMAGE.by_id.items():
        assert table.size(diff_id) == len(content)
        assert table.diff_id(Digest.of(gzip.compress(content, mtime=0))) == diff_id


@pytest.mark.parametrize("before", ["copied", "read by an ingest"])
def test_into_an_engine_only_the_layer_that_changed_is_fetched(registry: Registry, before: str) -> None:
    engine = FakeEngine(IMAGE)
    if before == "copied":
        engine = FakeEngine()
        copied(registry, engine, IMAGE)
    else:
        registry.add("tools/app:1", IMAGE)
        read(source(registry))
    following = archives.image(IMAGE.layers[0], b"another second".ljust(1024, b"\0"), os="linux")
    registry.seen.clear()
    copied(registry, engine, following)
    fetched = {request.path.rpartition("/")[2] for request in registry.received("GET .*/blobs/")}
    assert fetched == {sha256(following.config), sha256(gzip.compress(following.layers[1], mtime=0))}


def copied(registry: Registry, engine: FakeEngine, image: Image) -> None:
    registry.add("tools/app:1", image)
    destination = NamedDestination(lambda: engine, Reference.parse("app:1"), SilentProgress(), CACHE)
    with source(registry).open() as found:
        assert destination.write(found, lambda _: None) in engine.images


def test_a_layer_that_is_there_twice_is_fetched_once(registry: Registry) -> None:
    twice = archives.image(b"same".ljust(512), b"same".ljust(512))
    registry.add("tools/app:1", twice)
    assert read(source(registry)) == twice.by_id
    assert len(registry.received("GET .*/blobs/")) == 2


def test_a_digest_names_a_manifest(registry: Registry) -> None:
    digest = registry.add("tools/app:1", IMAGE)
    assert read(source(registry, f"tools/app:other@{digest}")) == IMAGE.by_id


def test_the_transport_is_known_by_its_name(registry: Registry) -> None:
    registry.add("tools/app:1", IMAGE)
    named = names.source(f"docker://{registry.host}/tools/app:1", names.Choice(insecure=True))
    assert isinstance(named, RegistrySource)
    assert read(named) == IMAGE.by_id
    with pytest.raises(BadReference):
        names.source("docker://UPPER/Case")


# -- several platforms ------------------------------------------------------------------------


def several(registry: Registry, *platforms: str, nested: bool = False) -> dict[str, archives.Image]:
    images, listed = {}, []
    for number, platform in enumerate(platforms):
        system, _, processor = platform.partition("/")
        image = archives.image(f"for {platform}".encode().ljust(512), os=system, architecture=processor, number=number)
        digest = registry.add(f"tools/app:part{number}", image)
        listed.append((platform, digest, len(registry.manifests["tools/app", digest][1])))
        images[platform] = image
    content = index(*listed)
    if nested:
        digest = registry.put_manifest("tools/app", "inner", content, OCI_INDEX)
        content = index(("", digest, len(content)), media_type=OCI_INDEX)
    registry.put_manifest("tools/app", "1", content, OCI_INDEX)
    return images


@pytest.mark.parametrize("nested", [False, True])
def test_of_several_platforms_this_machines_or_the_one_that_is_asked_for(registry: Registry, nested: bool) -> None:
    own = str(machine_platform())
    images = several(registry, own, "linux/s390x", "unknown/unknown", nested=nested)
    assert read(source(registry)) == images[own].by_id
    assert read(source(registry, platform=parse_platform("linux/s390x"))) == images["linux/s390x"].by_id
    assert [str(it.platform) for it in source(registry).images()] == [own, "linux/s390x"]


def test_an_ambiguous_index_is_refused_with_the_list(registry: Registry) -> None:
    several(registry, "windows/amd64", "windows/amd64", "linux/amd64")
    with pytest.raises(AmbiguousImage) as caught, source(registry, platform=parse_platform("windows/amd64")).open():
        pass
    assert caught.value.detail.count("windows/amd64") == 2


def test_a_single_image_for_another_platform_is_refused_if_one_was_asked_for(registry: Registry) -> None:
    registry.add("tools/app:1", IMAGE)
    with pytest.raises(NoSuchImage, match="for linux/amd64, not linux/s390x"):
        read(source(registry, platform=parse_platform("linux/s390x")))
    assert [str(it.platform) for it in source(registry).images()] == ["linux/amd64"]


def test_attestations_alone_are_no_image(registry: Registry) -> None:
    several(registry, "unknown/unknown")
    with pytest.raises(NoSuchImage, match="names no image"):
        read(source(registry))


def loop(registry: Registry) -> None:
    """An index that names itself, as far as a digest can."""
    digest = sha256(b"the index itself")
    content = index(("", digest, 9), media_type=OCI_INDEX)
    registry.manifests["tools/app", "1"] = registry.manifests["tools/app", digest] = (OCI_INDEX, content)


def deep(registry: Registry) -> None:
    content = index(("linux/amd64", sha256(b""), 0))
    for _ in range(10):
        digest = registry.put_manifest("tools/app", "1", content, OCI_INDEX)
        content = index(("", digest, len(content)), media_type=OCI_INDEX)
    registry.put_manifest("tools/app", "1", content, OCI_INDEX)


def pretender(registry: Registry) -> None:
    inner = index(("linux/amd64", sha256(b""), 0))
    digest = registry.put_manifest("tools/app", "inner", inner, OCI_INDEX)
    registry.put_manifest("tools/app", "1", index(("linux/amd64", digest, len(inner))), OCI_INDEX)


@pytest.mark.parametrize(
    ("arrange", "error", "words"),
    [
        (loop, DigestMismatch, "other bytes for the manifest"),
        (deep, NotAnImage, "nested too deep"),
        (pretender, NotAnImage, "it is an index"),
    ],
)
def test_indexes_that_lead_nowhere(
    registry: Registry, arrange: Callable[[Registry], None], error: type[ArvDockerError], words: str
) -> None:
    arrange(registry)
    with pytest.raises(error, match=words):
        read(source(registry))


# -- what is refused ---------------------------------------------------------------------------


def test_a_manifest_with_other_layers_than_the_config(registry: Registry) -> None:
    config = registry.blob("tools/app", IMAGE.config)
    registry.put_manifest("tools/app", "1", manifest(config, IMAGE, []))
    with pytest.raises(LayerCountMismatch, match="0 layers and the image's config 2"):
        read(source(registry))


def test_schema_one(registry: Registry) -> None:
    content = json.dumps({"schemaVersion": 1, "fsLayers": [], "history": []}).encode()
    registry.put_manifest("tools/app", "1", content, "application/vnd.docker.distribution.manifest.v1+json")
    with pytest.raises(SchemaOne):
        read(source(registry))


def test_an_unknown_name_is_said_with_the_registrys_words(registry: Registry, waited: Waited) -> None:
    with pytest.raises(NoSuchImage, match="has no tools/app:1") as caught:
        read(source(registry, patience=waited.patience))
    assert caught.value.detail == "MANIFEST_UNKNOWN: manifest unknown"
    assert waited.seconds == []


def test_a_manifest_that_is_not_what_names_it(registry: Registry) -> None:
    digest = registry.add("tools/app:1", IMAGE)
    media_type, content = registry.manifests["tools/app", digest]
    registry.manifests["tools/app", digest] = (media_type, content + b" ")
    with pytest.raises(DigestMismatch, match="other bytes for the manifest"):
        read(source(registry, f"tools/app@{digest}"))


def test_a_config_that_is_not_what_names_it(registry: Registry) -> None:
    registry.add("tools/app:1", IMAGE)
    registry.blobs[sha256(IMAGE.config)] = IMAGE.config.replace(b"linux", b"minix")
    with pytest.raises(DigestMismatch, match="gives other bytes"):
        read(source(registry))


def test_a_layer_that_is_the_registrys_but_not_the_configs(registry: Registry) -> None:
    other = archives.Image(IMAGE.config, (IMAGE.layers[0], b"other".ljust(1024)))
    registry.add("tools/app:1", other)
    with pytest.raises(DigestMismatch, match="holds other bytes"):
        read(source(registry))


def test_a_layer_whose_compressed_bytes_are_not_what_names_them(registry: Registry) -> None:
    """Its content is right: only the digest by which the registry calls it is not."""
    registry.add("tools/app:1", IMAGE)
    digest = sha256(gzip.compress(IMAGE.layers[0], mtime=0))
    other = bytearray(registry.blobs[digest])
    other[4:8] = b"time"
    registry.blobs[digest] = bytes(other)
    assert gzip.decompress(other) == IMAGE.layers[0]
    with pytest.raises(DigestMismatch, match="gives other bytes"):
        read(source(registry))


def test_storage_that_gives_other_bytes_is_named(registry: Registry) -> None:
    storage = Registry()
    registry.add("tools/app:1", IMAGE)
    registry.fault = lambda it: "/blobs/" in it.path and it.answer(307, Location=f"http://{storage.host}/s?sig=x")
    storage.fault = lambda it: it.answer(200, bytes(len(IMAGE.config)))
    words = rf"^{registry.host}: the storage behind the registry \({storage.host}\) gives other bytes for sha256:"
    with running(storage), pytest.raises(DigestMismatch, match=words):
        read(source(registry))


def test_a_damaged_layer(registry: Registry) -> None:
    registry.add("tools/app:1", IMAGE)
    digest = sha256(gzip.compress(IMAGE.layers[0], mtime=0))
    registry.blobs[digest] = registry.blobs[digest][:-100] + bytes(100)
    with pytest.raises((DigestMismatch, BadArchive)):
        read(source(registry))


@pytest.mark.parametrize("what", ["manifest", "config"])
def test_documents_that_are_too_large(registry: Registry, what: str) -> None:
    if what == "manifest":
        registry.put_manifest("tools/app", "1", b" " * (4 * MIB + 1))
    else:
        registry.add("tools/app:1", archives.Image(b" " * (4 * MIB + 1), ()))
    with pytest.raises(ArvDockerError, match=r"larger than 4194304|more than 4194304"):
        read(source(registry))


def test_a_manifest_without_end(registry: Registry, waited: Waited) -> None:
    def fault(conversation: Conversation) -> bool:
        conversation.start(200, None, Connection="close")
        for _ in range(200):
            conversation.write(bytes(MIB))
        return True

    registry.fault = fault
    with pytest.raises(RegistryError, match="larger than 4194304"):
        read(source(registry, patience=waited.patience))
    assert registry.sent("manifests") < 64 * MIB


# -- a registry that misbehaves -----------------------------------------------------------------


def faulty(
    registry: Registry, name: str, fault: Callable[[Conversation, bytes], bool], image: archives.Image = BIG
) -> bytes:
    """Holds an image, and has `fault` answer for its largest blob; gives that."""
    registry.add(name, image, lambda content: content)
    blob = only_blob(registry)
    registry.fault = lambda conversation: sha256(blob) in conversation.path and fault(conversation, blob)
    return blob


def test_a_connection_that_breaks_at_every_tenth(registry: Registry, waited: Waited) -> None:
    """Each break costs at most a small part that is sent again: far less than 1 MiB."""
    tenths = iter(range(1, 10))

    def fault(conversation: Conversation, blob: bytes) -> bool:
        if (tenth := next(tenths, None)) is not None:
            conversation.partly(blob, upto=tenth * len(blob) // 10)
        return tenth is not None

    blob = faulty(registry, "tools/app:1", fault)
    with source(registry, patience=waited.patience).open() as image:
        assert [_all(layer.read) for layer in image.layers()] == list(BIG.layers)
        assert image.bytes_received <= len(blob) + 9 * CHUNK
    assert len(registry.received(f"GET .*{sha256(blob)}")) == 10
    assert registry.sent(sha256(blob)) <= len(blob) + 9 * CHUNK
    assert len(waited.seconds) == 9


def test_a_body_that_is_short(registry: Registry, waited: Waited) -> None:
    """It says so in its length, as a proxy may that was cut off itself."""
    answers = iter([1_000_000])

    def fault(conversation: Conversation, blob: bytes) -> bool:
        if (upto := next(answers, None)) is not None:
            conversation.answer(200, blob[:upto])
        return upto is not None

    blob = faulty(registry, "tools/app:1", fault)
    assert read(source(registry, patience=waited.patience)) == BIG.by_id
    assert registry.sent(sha256(blob)) <= len(blob) + CHUNK


def test_a_body_in_chunks(registry: Registry, waited: Waited) -> None:
    """The first breaks off between two chunks, the second ends as if that were all."""
    parts = iter([MIB + 5, 2 * MIB])

    def fault(conversation: Conversation, blob: bytes) -> bool:
        start, upto = conversation.offset(), next(parts, len(blob))
        status, more = (206, {"Content_Range": f"bytes {start}-{len(blob) - 1}/{len(blob)}"}) if start else (200, {})
        conversation.start(status, None, Transfer_Encoding="chunked", **more)
        for place in range(start, upto, 100_000):
            chunk = blob[place : min(place + 100_000, upto)]
            conversation.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        if upto == MIB + 5:
            conversation.reset()
        else:
            conversation.write(b"0\r\n\r\n")
        return True

    faulty(registry, "tools/app:1", fault)
    assert read(source(registry, patience=waited.patience)) == BIG.by_id
    assert len(registry.received(sha256(only_blob(registry)))) == 3


def test_a_small_blob_that_breaks_loses_nothing(registry: Registry, waited: Waited) -> None:
    """What came before the break is used, however little it is."""
    faulty(
        registry,
        "tools/app:1",
        lambda conversation, blob: conversation.partly(blob, upto=conversation.offset() + 100),
        archives.image(noise(500)),
    )
    with source(registry, patience=waited.patience).open() as image:
        assert [len(_all(layer.read)) for layer in image.layers()] == [500]
    assert image.bytes_received == 500


def test_a_body_that_is_always_short(registry: Registry, waited: Waited) -> None:
    def fault(conversation: Conversation, blob: bytes) -> bool:
        conversation.partly(blob, upto=conversation.offset() + 10)
        return True

    faulty(registry, "tools/app:1", fault)
    with pytest.raises(RegistryError, match="connection"):
        read(source(registry, patience=waited.patience))
    assert len(registry.received("blobs")) < 20


def test_a_body_without_end(registry: Registry, waited: Waited) -> None:
    def fault(conversation: Conversation, blob: bytes) -> bool:
        conversation.start(200, None, Connection="close")
        conversation.write(blob)
        for _ in range(200):
            conversation.write(bytes(MIB))
        return True

    faulty(registry, "tools/app:1", fault)
    with pytest.raises(DigestMismatch, match="more than the 4194304 bytes"):
        read(source(registry, patience=waited.patience))


def test_a_body_that_is_longer_by_a_byte(registry: Registry, waited: Waited) -> None:
    """And does not say so."""

    def fault(conversation: Conversation, blob: bytes) -> bool:
        conversation.start(200, None, Connection="close")
        conversation.write(blob + b"!")
        return True

    faulty(registry, "tools/app:1", fault)
    with pytest.raises(DigestMismatch, match="more than the 4194304 bytes"):
        read(source(registry, patience=waited.patience))


def test_a_body_that_says_that_it_is_longer(registry: Registry, waited: Waited) -> None:
    faulty(registry, "tools/app:1", lambda conversation, blob: conversation.answer(200, blob + b"!"))
    with pytest.raises(DigestMismatch, match="more than the 4194304 bytes"):
        read(source(registry, patience=waited.patience))


def test_wrong_bytes(registry: Registry, waited: Waited) -> None:
    faulty(registry, "tools/app:1", lambda conversation, blob: conversation.answer(200, blob[:-1] + b"!"))
    with pytest.raises(DigestMismatch):
        read(source(registry, patience=waited.patience))


@pytest.mark.parametrize(
    "text", ["bytes 0-9/10", "bytes 0-4194303/4194304", "bytes 2097152-4194303/99", "", "bytes=nonsense"]
)
@pytest.mark.parametrize("always", [True, False])
def test_a_wrong_content_range(registry: Registry, waited: Waited, text: str, always: bool) -> None:
    wrong = iter([True] if not always else iter(lambda: True, False))

    def fault(conversation: Conversation, blob: bytes) -> bool:
        if not conversation.offset():
            conversation.partly(blob, upto=2 * MIB)
        elif next(wrong, False):
            conversation.answer(206, blob[:5], Content_Range=text)
        else:
            conversation.partly(blob)
        return True

    faulty(registry, "tools/app:1", fault)
    if not always:
        assert read(source(registry, patience=waited.patience)) == BIG.by_id
        assert registry.sent(sha256(only_blob(registry))) <= len(BIG.layers[0]) + 2 * CHUNK
        return
    with pytest.raises(RegistryError, match="was asked for bytes from"):
        read(source(registry, patience=waited.patience))


def test_a_registry_without_ranges(registry: Registry, waited: Waited) -> None:
    """The part that is there already is read again, and not used again."""
    breaks = iter([MIB, 3 * MIB])

    def fault(conversation: Conversation, blob: bytes) -> bool:
        upto = next(breaks, len(blob))
        conversation.start(200, len(blob))
        conversation.write(blob[:upto])
        if upto < len(blob):
            conversation.reset()
        return True

    faulty(registry, "tools/app:1", fault)
    assert read(source(registry, patience=waited.patience)) == BIG.by_id


@pytest.mark.parametrize("date", [False, True])
def test_429_is_waited_for_as_the_registry_asks(registry: Registry, waited: Waited, date: bool) -> None:
    refusals = iter([1, 2])

    def fault(conversation: Conversation, blob: bytes) -> bool:
        if next(refusals, None) is None:
            return False
        until = email.utils.formatdate(time.time() + 30, usegmt=True) if date else "30"
        conversation.refuse(429, "TOOMANYREQUESTS", Retry_After=until)
        return True

    faulty(registry, "tools/app:1", fault)
    assert read(source(registry, patience=waited.patience)) == BIG.by_id
    assert len(waited.seconds) == 2
    assert all(25 <= seconds <= 30 for seconds in waited.seconds)


def test_429_for_hours_is_an_error(registry: Registry, waited: Waited) -> None:
    registry.fault = lambda conversation: conversation.refuse(429, "TOOMANYREQUESTS", Retry_After="21600")
    with pytest.raises(RegistryError, match="answers 429") as caught:
        read(source(registry, patience=waited.patience))
    assert (caught.value.retry_after, waited.seconds) == (21600, [])
    assert caught.value.detail == "TOOMANYREQUESTS: toomanyrequests"


def test_a_server_error_that_does_not_pass(registry: Registry, waited: Waited) -> None:
    registry.fault = lambda conversation: conversation.answer(503, b"<h1>no\x1b[31m</h1>")
    with pytest.raises(RegistryError, match=r"reading the manifest of tools/app:1: the registry answers 503") as caught:
        read(source(registry, patience=waited.patience))
    assert caught.value.status == 503
    assert len(waited.seconds) == 5


def test_nobody_there(waited: Waited) -> None:
    gone = Registry()
    gone.server_close()
    with pytest.raises(RegistryError, match="the connection failed") as caught:
        read(source(gone, patience=waited.patience))
    assert "refused" in caught.value.detail
    assert len(waited.seconds) == 5


# -- redirects ---------------------------------------------------------------------------------


def redirected(registry: Registry, target: str) -> None:
    def fault(conversation: Conversation, blob: bytes) -> bool:
        return conversation.answer(307, Location=target.format(path=conversation.path))

    faulty(registry, "tools/app:1", fault)


def test_a_redirect_to_another_host_takes_no_authorization_along(registry: Registry) -> None:
    other = Registry()
    other.add("tools/app:1", BIG, lambda content: content)
    registry.users = {"ann": "the password"}
    redirected(registry, f"http://{other.host}{{path}}")
    with running(other):
        assert read(source(registry, provider=static_provider("ann", "the password"))) == BIG.by_id
    (request,) = other.seen
    assert "Authorization" not in request.headers
    assert "the password" not in str(request.headers)
    assert "Authorization" in registry.received("GET .*/blobs/")[-1].headers


def test_a_redirect_within_the_registry_does(registry: Registry) -> None:
    registry.users = {"ann": "the password"}
    blob = faulty(registry, "tools/app:1", lambda conversation, blob: False)

    def fault(conversation: Conversation) -> bool:
        if sha256(blob) not in conversation.path or "moved" in conversation.path:
            return False
        conversation.answer(302, Location=f"{conversation.path}?moved=1")
        return True

    registry.fault = fault
    assert read(source(registry, provider=static_provider("ann", "the password"))) == BIG.by_id


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_a_redirect_elsewhere_than_http(registry: Registry, target: str) -> None:
    redirected(registry, target)
    with pytest.raises(RegistryError, match="is not followed"):
        read(source(registry))


def test_redirects_without_end(registry: Registry) -> None:
    redirected(registry, "{path}")
    with pytest.raises(RegistryError, match="redirected more than 5 times"):
        read(source(registry))


# -- who may read ------------------------------------------------------------------------------


def test_name_and_password(registry: Registry) -> None:
    registry.add("tools/app:1", IMAGE)
    registry.users = {"ann": "the password"}
    assert read(source(registry, provider=static_provider("ann", "the password"))) == IMAGE.by_id
    with pytest.raises(RegistryDenied, match="answers 401") as caught:
        read(source(registry, provider=static_provider("ann", "wrong word")))
    assert "wrong word" not in str(caught.value)
    with pytest.raises(RegistryDenied):
        read(source(registry))


@pytest.mark.conforms("H17")
def test_bearer_tokens(registry: Registry, tokens: TokenServer) -> None:
    registry.add("tools/app:1", IMAGE)
    registry.bearer = tokens
    tokens.users = {"ann": "the password"}
    assert read(source(registry, provider=static_provider("ann", "the password"))) == IMAGE.by_id
    assert [issued.scopes for issued in tokens.issued.values()] == [["repository:tools/app:pull"]]


def test_tokens_for_everybody(registry: Registry, tokens: TokenServer) -> None:
    registry.add("tools/app:1", IMAGE)
    registry.bearer = tokens
    assert read(source(registry)) == IMAGE.by_id
    assert [issued.authorization for issued in tokens.issued.values()] == [None]


def test_an_identity_token_is_exchanged(registry: Registry, tokens: TokenServer) -> None:
    registry.add("tools/app:1", IMAGE)
    registry.bearer = tokens
    tokens.users = {"": "the identity"}
    provider = lambda: Credentials("", "the identity", "identity")  # noqa: E731
    assert read(source(registry, provider=provider)) == IMAGE.by_id


def test_a_token_that_expires_within_a_blob_is_renewed_once(registry: Registry, tokens: TokenServer) -> None:
    tokens.uses = 3  # the manifest, the config, the first part of the layer
    registry.bearer = tokens
    breaks = iter([2 * MIB])

    def fault(conversation: Conversation, blob: bytes) -> bool:
        if not conversation._let_in():
            return True
        conversation.partly(blob, upto=next(breaks, None))
        return True

    blob = faulty(registry, "tools/app:1", fault)
    assert read(source(registry)) == BIG.by_id
    assert len(tokens.issued) == 2
    assert registry.sent(sha256(blob)) <= len(blob) + CHUNK


def test_a_token_that_is_refused_again(registry: Registry, tokens: TokenServer) -> None:
    registry.add("tools/app:1", IMAGE)
    registry.bearer = tokens
    tokens.uses = 0
    with pytest.raises(RegistryDenied, match="reading the manifest of tools/app:1: the registry answers 401"):
        read(source(registry))
    assert len(tokens.issued) <= 2


def test_a_token_of_the_configuration_for_the_registry_itself(registry: Registry, tokens: TokenServer) -> None:
    registry.add("tools/app:1", IMAGE)
    registry.bearer = tokens
    tokens.issued["given out before"] = Issued([], None)
    assert read(source(registry, provider=lambda: Credentials("", "given out before", "bearer"))) == IMAGE.by_id
    assert tokens.given == 0


def test_credentials_that_the_token_server_refuses_are_asked_for_anew(registry: Registry, tokens: TokenServer) -> None:
    registry.add("tools/app:1", IMAGE)
    registry.bearer = tokens
    tokens.users = {"ann": "second"}
    secrets = iter(["first", "second", "third"])
    assert read(source(registry, provider=lambda: Credentials("ann", next(secrets)))) == IMAGE.by_id
    assert next(secrets) == "third"


def test_a_refusal_that_says_not_what_is_wanted(registry: Registry) -> None:
    registry.fault = lambda conversation: conversation.refuse(401, "UNAUTHORIZED")
    with pytest.raises(RegistryDenied, match="answers 401"):
        read(source(registry, provider=static_provider("ann", "the password")))
    assert len(registry.seen) == 1


@pytest.mark.parametrize("raw", [b"{}", b"[]", b"no", b'{"token": 1}', b'{"token": "a\\nb"}', b'{"token": "a b"}'])
def test_an_answer_without_a_token(registry: Registry, tokens: TokenServer, raw: bytes) -> None:
    registry.bearer = tokens
    tokens.raw = raw
    with pytest.raises(RegistryError, match="gives no token"):
        read(source(registry))


def test_a_token_that_is_too_large(registry: Registry, tokens: TokenServer) -> None:
    registry.bearer = tokens
    tokens.raw = b'{"token": "%s"}' % (b"x" * MIB)
    with pytest.raises(RegistryError, match="larger than 1048576"):
        read(source(registry))


# -- mirrors, and registries without TLS ---------------------------------------------------------


def test_a_mirror_is_asked_first_and_the_registry_where_it_has_nothing(registry: Registry) -> None:
    mirror, gone = Registry(), Registry()
    gone.server_close()
    mirror.add("cache/tools/app:1", IMAGE)
    registry.add("tools/app:2", BIG)
    mirrors = {registry.host: [f"{gone.host}", f"{mirror.host}/cache"]}
    patience = Waited().patience
    with running(mirror):
        assert read(source(registry, mirrors=mirrors, patience=patience)) == IMAGE.by_id
        assert registry.seen == []
        assert read(source(registry, "tools/app:2", mirrors=mirrors, patience=patience)) == BIG.by_id


def test_a_mirror_gets_no_credentials_of_the_registry(registry: Registry) -> None:
    mirror = Registry()
    mirror.users = {"ann": "the password"}
    registry.users = {"ann": "the password"}
    registry.add("tools/app:1", IMAGE)
    provider = static_provider("ann", "the password")
    with running(mirror):
        assert read(source(registry, mirrors={registry.host: [mirror.host]}, provider=provider)) == IMAGE.by_id
    assert not any("Authorization" in request.headers for request in mirror.seen)


def test_mirrors_of_the_settings(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.add("hub/library/busybox:latest", IMAGE)
    monkeypatch.setenv("ARV_DOCKER_REGISTRY_MIRRORS", f"docker.io={registry.host}/hub")
    assert (
        read(
            RegistrySource(
                Reference.parse("busybox"), insecure=True, mirrors=settings().mirrors, access=Access.of_user()
            )
        )
        == IMAGE.by_id
    )
    monkeypatch.setenv("ARV_DOCKER_REGISTRY_MIRRORS", "docker.io=not a mirror")
    with pytest.raises(BadSettings, match="ARV_DOCKER_REGISTRY_MIRRORS"):
        read(
            RegistrySource(
                Reference.parse("busybox"), insecure=True, mirrors=settings().mirrors, access=Access.of_user()
            )
        )
    monkeypatch.setenv("ARV_DOCKER_REGISTRY_MIRRORS", "docker.io=UPPER_CASE//")
    with pytest.raises(BadSettings, match="no mirror"):
        read(
            RegistrySource(
                Reference.parse("busybox"), insecure=True, mirrors=settings().mirrors, access=Access.of_user()
            )
        )


def test_without_tls_only_on_this_machine_by_name() -> None:
    with pytest.raises(UsageError, match="registries on this machine"):
        read(
            RegistrySource(
                Reference.parse("registry.example:5000/app"),
                insecure=True,
                mirrors=settings().mirrors,
                access=Access.of_user(),
            )
        )


def test_nothing_is_wrong_that_is_stored(registry: Registry) -> None:
    """Whatever is read short of an error is the image."""
    registry.add("tools/app:1", IMAGE)
    for digest in list(registry.blobs):
        right = registry.blobs[digest]
        for place in (0, len(right) // 2, len(right) - 1):
            registry.blobs[digest] = right[:place] + bytes([right[place] ^ 1]) + right[place + 1 :]
            with pytest.raises(ContentError):
                read(source(registry))
        registry.blobs[digest] = right
    assert read(source(registry)) == IMAGE.by_id


def test_credentials_of_the_configuration_for_a_folder_of_the_registry(registry: Registry, home: Path) -> None:
    registry.add("tools/app:1", IMAGE)
    registry.users = {"ann": "the password"}
    right, wrong = (base64.b64encode(text).decode() for text in (b"ann:the password", b"bob:other"))
    auths = {registry.host: {"auth": wrong}, f"{registry.host}/tools": {"auth": right}}
    (home / ".docker").mkdir()
    (home / ".docker" / "config.json").write_text(json.dumps({"auths": auths}))
    assert read(source(registry)) == IMAGE.by_id


def test_a_reader_that_gives_up_leaves_nothing_running(registry: Registry) -> None:
    registry.add("tools/app:1", archives.image(*(noise(MIB, str(number)) for number in range(5))))
    before = threading.active_count()
    with source(registry).open() as image:
        layers = image.layers()
        next(layers).read(10)
        layers.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 10
    while any(thread.name == "read-ahead" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert threading.active_count() <= before + 5  # those of the registry itself


def test_a_registry_that_takes_long_is_told_of(registry: Registry) -> None:
    class Told(SilentProgress):
        def step(self, title: str, total: int | None) -> AbstractContextManager[Advance]:
            steps.append(title)
            return super().step(title, total)

    steps: list[str] = []
    registry.add("tools/app:1", IMAGE)
    choice = names.Choice(insecure=True, progress=Told())
    with names.source(f"docker://{registry.host}/tools/app:1", choice).open():
        assert steps == [f"asking {registry.host}"]

# SPDX-License-Identifier: Apache-2.0
"""`docker://` as a destination: what is sent, what is not, and what a registry that misbehaves is left with."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import logging
import random
import re
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from arv_docker.archive import canonical
from arv_docker.archive.codecs.gzip import gzip_chunks
from arv_docker.archive.layer import Layer
from arv_docker.archive.stream import StreamedImage
from arv_docker.errors import ArvDockerError, DigestMismatch, RegistryDenied, RegistryError, UsageError
from arv_docker.local.progress import Advance
from arv_docker.model.image import Config, Digest
from arv_docker.model.reference import Reference
from arv_docker.registry import credentials
from arv_docker.registry.access import Access
from arv_docker.registry.credentials import Credentials, static_provider
from arv_docker.store.cache import CacheFolder
from arv_docker.store.tarballs import cache_folder
from arv_docker.transports import Destination, OpenedImage, SeekableImage, names
from arv_docker.transports.pushing import PushResult
from arv_docker.transports.registry import RegistryDestination, RegistrySource

from .. import archives
from ..archives import Image
from ..registry.scripted import Conversation, Registry, TokenConversation, TokenServer, Waited, running, sha256
from .contract import Contract

MIB = 1 << 20


def noise(size: int, seed: str = "") -> bytes:
    return hashlib.shake_128(f"push{seed}".encode()).digest(size)


IMAGE = archives.image(noise(300_000, "a"), b"second".ljust(1024, b"\0"), b"third".ljust(2048), os="linux")
NEXT = archives.image(*IMAGE.layers[:2], b"another third".ljust(2048), os="linux")
LARGE = archives.image(noise(MIB, "large"), noise(MIB, "other"), os="linux")
BIG = archives.image(noise(6 * MIB, "big"), os="linux")


class Held(OpenedImage):
    """An image in memory, as a source opens one; counts the layers that are read."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self.read: list[Digest] = []

    @property
    def config(self) -> Config:
        return self._image.parsed

    def layers(self, skip: Container[Digest] = ()) -> Iterator[Layer]:
        for diff_id in self.config.distinct_diff_ids:
            if diff_id not in skip:
                self.read.append(diff_id)
                yield self._image.layer(diff_id)


class Seekable(Held, SeekableImage):
    """One whose layers can be had in any order."""

    @property
    def sizes(self) -> Mapping[Digest, int]:
        return self._image.sizes

    def layer(self, diff_id: Digest) -> Layer:
        return self._image.layer(diff_id)


def destination(registry: Registry, name: str = "tools/app:1", **more: object) -> RegistryDestination:
    more = {"access": Access.of_user(), "cache": CacheFolder(cache_folder), **more}
    return RegistryDestination(Reference.parse(f"{registry.host}/{name}"), insecure=True, **more)  # type: ignore[arg-type]


def push(registry: Registry, image: Image, name: str = "tools/app:1", **more: object) -> PushResult:
    return destination(registry, name, **more).write(Held(image), lambda count: None)


def held(registry: Registry, name: str = "tools/app:1") -> Image | None:
    """The image that the registry has under a name, whole; None if it has none."""
    repository, _, tag = name.rpartition(":")
    if (repository, tag) not in registry.manifests:
        return None
    described = json.loads(registry.manifests[repository, tag][1])
    contents = [registry.blobs[it["digest"]] for it in (described["config"], *described["layers"])]
    assert all(sha256(content) in registry.repositories[repository] for content in contents)
    return Image(contents[0], tuple(gzip.decompress(content) for content in contents[1:]))


def gzip_of(layer: bytes) -> bytes:
    """The layer as it is pushed."""
    return b"".join(gzip_chunks(io.BytesIO(layer).read))


def sent(registry: Registry) -> int:
    return sum(len(request.body) for request in registry.received("PATCH"))


class Pushing(Destination[Digest]):
    """The destination, and what the registry calls the image."""

    def __init__(self, registry: Registry, cache: CacheFolder) -> None:
        self._destination = destination(registry, cache=cache)

    def present(self, layers: Sequence[Digest]) -> frozenset[Digest]:
        return self._destination.present(layers)

    def write(self, image: OpenedImage, advance: Advance) -> Digest:
        return self._destination.write(image, advance).digest


class TestRegistry(Contract):
    @pytest.fixture(autouse=True)
    def _at(self, registry: Registry) -> None:
        self._registry = registry

    def places(self, tmp_path: Path) -> tuple[Pushing, RegistrySource]:
        name = Reference.parse(f"{self._registry.host}/tools/app:1")
        return Pushing(self._registry, self.choice(tmp_path).cache), RegistrySource(name, insecure=True)


# -- what is sent ------------------------------------------------------------------------------


def test_an_image_is_pushed_with_its_own_config(registry: Registry) -> None:
    pushed = push(registry, IMAGE)
    assert held(registry) == IMAGE
    assert pushed.image_id == IMAGE.parsed.digest
    assert registry.manifests["tools/app", str(pushed.digest)] == registry.manifests["tools/app", "1"]
    assert pushed.bytes_sent == sent(registry)


def test_the_name_comes_last(registry: Registry) -> None:
    push(registry, IMAGE)
    assert registry.seen[-1].line == "PUT /v2/tools/app/manifests/1"


def test_what_is_pushed_can_be_read_again(registry: Registry) -> None:
    push(registry, IMAGE)
    with RegistrySource(Reference.parse(f"{registry.host}/tools/app:1"), insecure=True).open() as image:
        assert image.config == IMAGE.parsed
        for layer in image.layers():
            while layer.read():
                pass


def test_the_same_image_is_the_same_to_every_registry(registry: Registry, home: Path) -> None:
    """Also for somebody who does not remember anything."""
    first = push(registry, IMAGE)
    for file in home.rglob("layers/*"):
        file.unlink()
    assert push(registry, IMAGE, "other/name:2").digest == first.digest


def test_layers_that_are_not_compressed(registry: Registry) -> None:
    """Then the manifest is that of the canonical archive, by which containerd calls the image."""
    pushed = push(registry, IMAGE, compress=False)
    assert pushed.digest == canonical.layout(IMAGE.parsed, IMAGE.sizes).manifest_digest
    assert {registry.blobs[str(diff_id)] for diff_id in IMAGE.parsed.diff_ids} == set(IMAGE.layers)
    known = Seekable(NEXT)
    destination(registry, "tools/app:2", compress=False).write(known, lambda count: None)
    assert known.read == [NEXT.parsed.diff_ids[2]]


def test_of_the_next_version_only_the_layers_that_changed(registry: Registry) -> None:
    push(registry, IMAGE)
    registry.seen.clear()
    source = Held(NEXT)
    destination(registry, "tools/app:2").write(source, lambda count: None)
    assert held(registry, "tools/app:2") == NEXT
    assert source.read == [NEXT.parsed.diff_ids[2]]  # nor are the others read
    assert sent(registry) < 2000


def test_what_the_registry_has_is_not_sent_though_nothing_is_remembered(registry: Registry, home: Path) -> None:
    push(registry, IMAGE)
    for file in home.rglob("layers/*"):
        file.unlink()
    assert push(registry, IMAGE, "tools/app:again").bytes_sent == 0


def test_a_layer_of_another_repository_is_taken_from_there(registry: Registry) -> None:
    push(registry, IMAGE)
    registry.seen.clear()
    pushed = push(registry, NEXT, "other/app:1")
    assert held(registry, "other/app:1") == NEXT
    assert pushed.bytes_sent < 2000
    assert len(registry.received(r"POST .*mount=.*from=tools%2Fapp")) == 2


@pytest.mark.parametrize("status", [202, 400, 403])
def test_a_registry_that_mounts_nothing_is_sent_everything(registry: Registry, status: int) -> None:
    push(registry, IMAGE)

    def fault(conversation: Conversation) -> bool:
        if "mount=" not in conversation.path:
            return False
        if status == 202:
            conversation.path = conversation.path.partition("?")[0]
            return False
        return conversation.refuse(status, "UNSUPPORTED")

    registry.fault = fault
    push(registry, NEXT, "other/app:1")
    assert held(registry, "other/app:1") == NEXT
    assert registry.uploads == {}


def test_what_is_remembered_is_not_believed(registry: Registry, home: Path) -> None:
    """A file of the cache that is damaged, or of a registry that forgot, costs time alone."""
    push(registry, IMAGE)
    damaged = sorted(home.rglob("layers/*"))
    damaged[0].write_text("{")
    damaged[1].write_text('{"mediaType": "x", "digest": "no", "size": 1, "places": []}')
    registry.repositories["tools/app"].clear()
    assert push(registry, IMAGE).bytes_sent > 300_000
    assert held(registry) == IMAGE


def test_a_disk_that_takes_nothing_is_no_failure(registry: Registry, home: Path) -> None:
    (home / ".cache" / "arvados" / "docker").mkdir(parents=True)
    (home / ".cache" / "arvados" / "docker" / "layers").write_text("in the way")
    push(registry, IMAGE)
    assert held(registry) == IMAGE


def test_two_pushes_at_once(registry: Registry) -> None:
    with ThreadPoolExecutor(4) as pool:
        pushes = [pool.submit(push, registry, IMAGE, f"tools/app:{number % 2}") for number in range(8)]
    assert len({pushed.result().digest for pushed in pushes}) == 1
    assert held(registry, "tools/app:0") == held(registry, "tools/app:1") == IMAGE


def test_a_layer_that_is_there_twice_is_sent_once(registry: Registry) -> None:
    twice = archives.image(b"same".ljust(512), b"same".ljust(512), b"")
    push(registry, twice)
    assert held(registry) == twice


def test_a_stream_that_says_last_what_it_is(registry: Registry) -> None:
    """Also where its layers are known already."""
    for name in ("tools/app:1", "tools/app:2"):
        stream = StreamedImage(io.BytesIO(archives.flat(IMAGE)))
        destination(registry, name).write(stream, lambda count: None)
        assert held(registry, name) == IMAGE


def test_the_transport_is_known_by_its_name(registry: Registry) -> None:
    choice = names.Choice(insecure=True)
    names.destination(f"docker://{registry.host}/tools/app:1", choice).write(Held(IMAGE), lambda count: None)
    assert held(registry) == IMAGE
    for tag in ("", ":2"):  # a digest is what comes of it, and nothing to be asked for
        digest = f"docker://{registry.host}/tools/app{tag}@{sha256(b'')}"
        with pytest.raises(UsageError, match="pushed to a tag"):
            names.destination(digest, choice).write(Held(IMAGE), lambda count: None)


def test_a_source_that_lies_leaves_no_name(registry: Registry) -> None:
    class Liar(Held):
        def layers(self, skip: Container[Digest] = ()) -> Iterator[Layer]:
            yield archives.layer_of(b"other".ljust(512), claimed=self.config.diff_ids[0])

    with pytest.raises(DigestMismatch):
        destination(registry).write(Liar(IMAGE), lambda count: None)
    assert held(registry) is None


# -- a registry that misbehaves -----------------------------------------------------------------


def test_an_upload_that_breaks_is_taken_up_where_it_broke(registry: Registry, waited: Waited) -> None:
    breaks = iter([MIB, 3 * MIB])

    def fault(conversation: Conversation) -> bool:
        body = conversation.request_seen.body
        if conversation.command != "PATCH" or len(body) < MIB or (upto := next(breaks, None)) is None:
            return False
        upload = re.search(r"uploads/(\d+)", conversation.path)
        assert upload
        taken = registry.uploads[upload[1]]
        taken += body[: upto - len(taken)]
        conversation.reset()
        return True

    registry.fault = fault
    push(registry, BIG, patience=waited.patience)
    assert held(registry) == BIG
    starts = [request.headers.get("Content-Range", "").partition("-")[0] for request in registry.received("PATCH")]
    assert {str(MIB), str(3 * MIB)} <= set(starts)


def test_after_a_push_that_failed_only_what_is_missing_is_read(registry: Registry) -> None:
    """Of three layers two arrive, and the third is refused: the next push does not even read those two."""
    lost = gzip_of(IMAGE.layers[2])

    def fault(conversation: Conversation) -> bool:
        if conversation.command != "PATCH" or conversation.request_seen.body != lost:
            return False
        deadline = time.monotonic() + 10
        while len(list((cache_folder() / "layers").glob("*.json"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        return conversation.refuse(403, "DENIED")

    registry.fault = fault
    with pytest.raises(RegistryDenied):
        push(registry, IMAGE)
    assert held(registry) is None
    registry.fault = lambda conversation: False
    source = Held(IMAGE)
    destination(registry).write(source, lambda count: None)
    assert (held(registry), source.read) == (IMAGE, [IMAGE.parsed.diff_ids[2]])


def test_an_upload_that_the_registry_forgets_begins_again(registry: Registry, waited: Waited) -> None:
    forgotten = iter([True, True])

    def fault(conversation: Conversation) -> bool:
        if conversation.command == "PATCH" and next(forgotten, False):
            registry.uploads.clear()
        return False

    registry.fault = fault
    push(registry, IMAGE, patience=waited.patience)
    assert held(registry) == IMAGE


def test_an_upload_that_is_always_forgotten(registry: Registry, waited: Waited) -> None:
    def fault(conversation: Conversation) -> bool:
        if conversation.command == "PATCH":
            registry.uploads.clear()
        return False

    registry.fault = fault
    with pytest.raises(RegistryError, match="forgets what was sent"):
        push(registry, IMAGE, patience=waited.patience)


def test_a_last_word_that_is_lost(registry: Registry, waited: Waited) -> None:
    """The blob is there: it is not sent again."""
    lost = iter([True])

    def fault(conversation: Conversation) -> bool:
        if conversation.command == "PUT" and "uploads" in conversation.path and next(lost, False):
            conversation.wfile = open("/dev/null", "wb")  # noqa: SIM115, PTH123
            conversation._act(b"")
            conversation.close_connection = True
            return True
        return False

    registry.fault = fault
    pushed = push(registry, BIG, patience=waited.patience)
    assert held(registry) == BIG
    assert pushed.bytes_sent < 7 * MIB


def test_a_proxy_that_takes_only_small_bodies(registry: Registry, waited: Waited) -> None:
    registry.fault = lambda conversation: len(conversation.request_seen.body) > 2 * MIB and conversation.answer(413)
    push(registry, BIG, patience=waited.patience)
    assert held(registry) == BIG


def test_a_proxy_that_ends_what_takes_long(registry: Registry, waited: Waited) -> None:
    """And says nothing: what came to nothing twice goes in parts."""

    def fault(conversation: Conversation) -> bool:
        if len(conversation.request_seen.body) <= 2 * MIB:
            return False
        conversation.reset()
        return True

    registry.fault = fault
    push(registry, BIG, patience=waited.patience)
    assert held(registry) == BIG
    assert [len(it.body) > 2 * MIB for it in registry.received("PATCH")].count(True) == 2


@pytest.mark.parametrize("status", [400, 404, 405, 416, 501])
def test_a_registry_that_takes_no_parts(registry: Registry, waited: Waited, status: int) -> None:
    """After two breaks parts are tried; where they are refused, the blob goes whole, also after further breaks."""
    breaks = iter([True] * 4)

    def fault(conversation: Conversation) -> bool:
        large = len(conversation.request_seen.body) > 2 * MIB
        if conversation.command == "PATCH" and large and next(breaks, False):
            conversation.reset()
            return True
        first = conversation.headers.get("Content-Range", "0-").startswith("0-")
        return conversation.command == "PATCH" and not first and conversation.refuse(status, "UNSUPPORTED")

    registry.fault = fault
    push(registry, BIG, patience=waited.patience)
    assert held(registry) == BIG
    further = [it for it in registry.received("PATCH") if not it.headers.get("Content-Range", "0-").startswith("0-")]
    assert len(further) == 1


def test_a_busy_registry_gets_no_more_requests_for_it(registry: Registry, waited: Waited) -> None:
    busy = iter([True] * 4)

    def fault(conversation: Conversation) -> bool:
        if conversation.command != "PATCH" or len(conversation.request_seen.body) < MIB or not next(busy, False):
            return False
        return conversation.refuse(429, "TOOMANYREQUESTS", Retry_After="1")

    registry.fault = fault
    push(registry, BIG, patience=waited.patience)
    assert held(registry) == BIG
    assert len([it for it in registry.received("PATCH") if len(it.body) > MIB]) == 5


def test_a_registry_on_another_host_gets_no_authorization(registry: Registry, waited: Waited) -> None:
    """A place to send to may be elsewhere; the secret stays."""
    other = Registry()
    registry.users = {"ann": "the password"}

    def fault(conversation: Conversation) -> bool:
        if conversation.command != "POST":
            return False
        other.uploads["1"] = bytearray()
        return conversation.answer(202, Location=f"http://{other.host}/v2/tools/app/blobs/uploads/1")

    registry.fault = fault
    with running(other), pytest.raises(RegistryError):
        push(registry, archives.image(b"x"), provider=static_provider("ann", "the password"), patience=waited.patience)
    assert other.seen
    assert not any("Authorization" in request.headers for request in other.seen)


@pytest.mark.conforms("H18")
@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("POST .*uploads", "pushing sha256:[0-9a-f]{64} to tools/app"),
        ("PATCH", "pushing sha256:[0-9a-f]{64} to tools/app"),
        ("PUT .*uploads", "pushing sha256:[0-9a-f]{64} to tools/app"),
        ("PUT .*manifests", "putting the manifest of tools/app:1"),
    ],
)
def test_the_step_that_fails_is_named_with_the_registrys_words(registry: Registry, line: str, step: str) -> None:
    registry.fault = lambda conversation: bool(
        re.match(line, conversation.request_seen.line) and conversation.refuse(403, "DENIED_FOR_A_TEST")
    )
    with pytest.raises(RegistryDenied, match=f"{registry.host}: {step}: the registry answers 403") as caught:
        push(registry, IMAGE)
    assert caught.value.detail == "DENIED_FOR_A_TEST: denied for a test"
    assert held(registry) is None


FAULTS = ("reset", "500", "503", "429", "401", "after")


def random_faults(seed: int, tokens: TokenServer, kinds: tuple[str, ...] = FAULTS) -> Callable[[Conversation], bool]:
    """30 faults, each in a request that chance takes."""
    chance = random.Random(seed)
    left = [30]

    def fault(conversation: Conversation) -> bool:
        if not left[0] or chance.random() < 0.4:
            return False
        left[0] -= 1
        kind = chance.choice(kinds)
        if kind == "reset":
            conversation.reset()
            return True
        if kind == "after":  # it is done, and nobody is told
            conversation.wfile = open("/dev/null", "wb")  # noqa: SIM115, PTH123
            if conversation._let_in():
                conversation._act(conversation.request_seen.body)
            conversation.close_connection = True
            return True
        if kind == "401":
            tokens.issued.clear()
            return False
        if kind == "page":
            return conversation.answer(200, b"<html>Log in</html>", Content_Type="text/html")
        if kind == "other":  # other bytes
            return conversation.answer(200, noise(1000, "other"))
        return conversation.refuse(int(kind), "FAULT", Retry_After="1")

    return fault


def random_token_faults(seed: int) -> Callable[[TokenConversation], bool]:
    """10 faults of the token server, each in a request that chance takes."""
    chance = random.Random(seed)
    left = [10]

    def fault(conversation: TokenConversation) -> bool:
        if not left[0] or chance.random() < 0.4:
            return False
        left[0] -= 1
        kind = chance.choice(("break", "503", "429", "page", "nothing"))
        if kind == "break":
            conversation.close_connection = True
        elif kind in ("503", "429"):
            conversation.answer(int(kind), b"{}", Retry_After="1")
        else:
            conversation.answer(200, b"<html>Log in</html>" if kind == "page" else b"{}")
        return True

    return fault


def seeds() -> list[object]:
    """10 that each run tries, and 190 more with --long."""
    return [seed if seed < 10 else pytest.param(seed, marks=pytest.mark.long) for seed in range(200)]


@pytest.mark.parametrize("seed", seeds())
def test_thirty_random_faults(registry: Registry, tokens: TokenServer, waited: Waited, seed: int) -> None:
    """The push succeeds or ends in the named error; what is there under the tag is complete or absent. Read through a
    mirror that has faults of its own, it is the image or an error. The token server has faults too."""
    registry.bearer = tokens
    tokens.fault = random_token_faults(seed + 3000)
    registry.fault = random_faults(seed, tokens)
    outcomes = set()
    for _ in range(40):
        try:
            pushed = push(registry, LARGE, patience=waited.patience)
        except RegistryError:
            outcomes.add("error")
            assert held(registry) in (None, LARGE)
        else:
            outcomes.add("pushed")
            assert held(registry) == LARGE
            assert pushed.image_id == LARGE.parsed.digest
            break
    assert "pushed" in outcomes
    registry.fault = random_faults(seed + 1000, tokens)
    tokens.fault = random_token_faults(seed + 4000)
    mirror = Registry()
    mirror.add("tools/app:1", LARGE)
    mirror.fault = random_faults(seed + 2000, tokens, kinds=("reset", "500", "404", "403", "429", "page", "other"))
    with running(mirror):
        assert _read_with_faults(registry, mirror, waited) == LARGE.by_id


def _read_with_faults(registry: Registry, mirror: Registry, waited: Waited) -> dict[Digest, bytes] | None:
    """The layers, read as often as it takes; errors are those of a registry."""
    name = Reference.parse(f"{registry.host}/tools/app:1")
    mirrors = {registry.host: [mirror.host]}
    for _ in range(40):
        source = RegistrySource(name, insecure=True, mirrors=mirrors, patience=waited.patience)
        try:
            with source.open() as image:
                return {it.claimed: b"".join(iter(partial(it.read, MIB), b"")) for it in image.layers() if it.claimed}
        except RegistryError:
            continue
    return None


@pytest.mark.parametrize("seed", seeds())
def test_random_faults_under_a_tag_that_may_not_be_moved(
    registry: Registry, tokens: TokenServer, waited: Waited, seed: int
) -> None:
    """Complete or absent, and never "failed" for what is there: a push again says that it is."""
    registry.bearer = tokens
    tokens.fault = random_token_faults(seed + 3000)
    chance = random_faults(seed, tokens)

    def fault(conversation: Conversation) -> bool:
        if chance(conversation):
            return True
        is_put = conversation.command == "PUT" and "/manifests/" in conversation.path
        return is_put and ("tools/app", "1") in registry.manifests and conversation.refuse(409, "TAG_IMMUTABLE")

    registry.fault = fault
    statuses = []
    for _ in range(40):
        try:
            push(registry, IMAGE, patience=waited.patience)
        except RegistryError as error:
            statuses.append(error.status)
            continue
        break
    assert held(registry) == IMAGE
    assert 409 not in statuses


# -- tokens ------------------------------------------------------------------------------------


@pytest.mark.conforms("H8")
def test_a_token_that_expires_within_a_push_is_renewed_once(registry: Registry, tokens: TokenServer) -> None:
    registry.bearer = tokens

    def fault(conversation: Conversation) -> bool:
        if conversation.command == "PATCH" and len(registry.received("PATCH")) == 2:
            tokens.issued.clear()
        return False

    registry.fault = fault
    push(registry, IMAGE)
    assert held(registry) == IMAGE
    assert tokens.given == 2


@pytest.mark.conforms("H8", "H10")
def test_a_token_that_is_refused_twice_is_an_error_without_a_secret(
    registry: Registry, tokens: TokenServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor is one in the logs of the libraries that are used, whoever turns them on."""
    caplog.set_level(logging.DEBUG)
    registry.bearer = tokens
    tokens.uses = 0
    with pytest.raises(RegistryDenied, match="answers 401") as caught:
        push(registry, IMAGE, provider=static_provider("ann", "the password"))
    assert registry.host in str(caught.value)
    assert "GET /token" in caplog.text
    basic = base64.b64encode(b"ann:the password").decode()
    for secret in ("the password", "the+password", "the%20password", basic, "token-"):
        assert secret not in str(caught.value) + caplog.text


@pytest.mark.conforms("H8")
def test_a_password_that_expires_within_a_push_is_asked_for_anew(registry: Registry) -> None:
    """As those of registries that give tokens in the place of passwords."""
    registry.users = {"AWS": "first"}
    given: list[str] = []

    def provider() -> Credentials:
        given.append("first" if not given else "second")
        return Credentials("AWS", given[-1])

    def fault(conversation: Conversation) -> bool:
        if conversation.command == "PATCH":
            registry.users = {"AWS": "second"}
        return False

    registry.fault = fault
    push(registry, IMAGE, provider=provider)
    assert held(registry) == IMAGE
    assert given == ["first", "second"]


@pytest.mark.conforms("H8")
@pytest.mark.parametrize("old", [True, False])
def test_a_password_that_expires_as_amazons_do(registry: Registry, old: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """They answer 403, which also means that something is not allowed: a secret of just now is not asked for anew."""
    if old:
        monkeypatch.setattr(credentials, "_YOUNG", 0.0)
    registry.users = {"AWS": "first"}
    given: list[str] = []

    def provider() -> Credentials:
        given.append("first" if not given else "second")
        return Credentials("AWS", given[-1])

    first = Credentials("AWS", "first").basic

    def fault(conversation: Conversation) -> bool:
        if conversation.command == "PATCH":
            registry.users = {"AWS": "second"}
        expired = registry.users == {"AWS": "second"} and conversation.headers["Authorization"] == f"Basic {first}"
        return expired and conversation.refuse(403, "DENIED")

    registry.fault = fault
    if old:
        push(registry, IMAGE, provider=provider)
        assert held(registry) == IMAGE
    else:
        with pytest.raises(RegistryDenied, match="answers 403") as caught:
            push(registry, IMAGE, provider=provider)
        assert caught.value.detail in ("DENIED: denied", "")
    assert given == (["first", "second"] if old else ["first"])


@pytest.mark.conforms("H8")
def test_what_is_not_allowed_stays_so_with_a_new_password(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_YOUNG", 0.0)
    registry.users = {"ann": "the password"}
    registry.fault = lambda conversation: (
        conversation.command == "POST" and (conversation._let_in() and conversation.refuse(403, "DENIED"))
    )
    with pytest.raises(RegistryDenied, match="answers 403"):
        push(registry, archives.image(b"x"), provider=static_provider("ann", "the password"))
    assert len(registry.received("POST")) <= 2 * 2


@pytest.mark.conforms("H17")
def test_name_and_password(registry: Registry) -> None:
    registry.users = {"ann": "the password"}
    push(registry, IMAGE, provider=static_provider("ann", "the password"))
    assert held(registry) == IMAGE
    with pytest.raises(ArvDockerError, match="answers 401"):
        push(registry, IMAGE, "tools/app:2", provider=static_provider("ann", "wrong"))

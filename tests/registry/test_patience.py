# SPDX-License-Identifier: Apache-2.0
"""How often a host that does not answer as it should is asked, and for how long: whatever leads to it.

No time passes in most of these: pauses are counted, and the clock goes on by them.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace

import pytest

from arv_docker.errors import RegistryError
from arv_docker.model.reference import Reference
from arv_docker.registry.client import Client
from arv_docker.registry.patience import Attempts, Hosts, Patience
from arv_docker.registry.upload import Blob
from arv_docker.transports.registry import RegistrySource

from .. import archives
from .scripted import Conversation, Registry, TokenServer, Waited, running

IMAGE = archives.image(*(f"layer {number}".encode().ljust(2048) for number in range(5)), os="linux")

Fault = Callable[[Conversation], bool]


def client_of(registry: Registry, waited: Waited, **policy: float) -> Client:
    return Client(registry.host, insecure=True, patience=replace(waited.patience, **policy))  # type: ignore[arg-type]


def read_all(source: RegistrySource) -> None:
    with source.open() as image:
        for layer in image.layers():
            while layer.read():
                pass


def source_of(registry: Registry, waited: Waited, **more: object) -> RegistrySource:
    reference = Reference.parse(f"{registry.host}/app:1")
    return RegistrySource(reference, insecure=True, patience=waited.patience, **more)  # type: ignore[arg-type]


def busy(status: int, **headers: str) -> Fault:
    return lambda conversation: conversation.answer(status, b"{}", **headers)


def breaking(conversation: Conversation) -> bool:
    conversation.reset()
    return True


FAULTS = [busy(503), busy(429), busy(502), busy(429, Retry_After="1"), breaking]
NAMES = ["503", "429", "502", "asks to wait a second", "breaks off"]


# -- at most six requests in all ---------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS, ids=NAMES)
def test_a_registry_is_asked_six_times(registry: Registry, waited: Waited, fault: Fault) -> None:
    registry.fault = fault
    with pytest.raises(RegistryError):
        read_all(source_of(registry, waited))
    assert len(registry.seen) == 6
    assert sum(waited.seconds) < 90


@pytest.mark.parametrize("fault", FAULTS, ids=NAMES)
def test_a_token_server_is_asked_six_times(registry: Registry, waited: Waited, fault: Fault) -> None:
    """The registry, which sends there, once."""
    other = Registry()
    other.fault = fault
    with running(other):
        bearer = TokenServer()
        bearer.url = f"http://{other.host}"
        registry.bearer = bearer
        with pytest.raises(RegistryError, match=f"the token server .{other.host}") as caught:
            read_all(source_of(registry, waited))
        bearer.server_close()
    assert (len(other.seen), len(registry.seen)) == (6, 1)
    assert caught.value.exit_code == 9
    assert sum(waited.seconds) < 90


@pytest.mark.parametrize("fault", FAULTS, ids=NAMES)
def test_storage_is_asked_six_times_though_several_layers_are_there(
    registry: Registry, waited: Waited, fault: Fault
) -> None:
    storage = Registry()
    storage.fault = fault
    registry.add("app:1", IMAGE)
    config = registry.manifests["app", "1"][1]

    def to_storage(conversation: Conversation) -> bool:
        is_layer = "/blobs/" in conversation.path and IMAGE.parsed.digest.hex not in conversation.path
        return is_layer and conversation.answer(307, Location=f"http://{storage.host}{conversation.path}?sig=secret")

    assert config
    registry.fault = to_storage
    with running(storage), pytest.raises(RegistryError, match=f"the storage behind the registry .{storage.host}") as it:
        read_all(source_of(registry, waited))
    assert len(storage.seen) <= 6 + 2  # of the three that are asked at first, two come at the same moment
    assert "secret" not in str(it.value)


@pytest.mark.parametrize("method", ["HEAD", "POST", "GET"])
@pytest.mark.parametrize("fault", FAULTS, ids=NAMES)
def test_a_push_asks_six_times(registry: Registry, waited: Waited, fault: Fault, method: str) -> None:
    """Also for what came of an upload whose answer was lost."""

    def upload_breaks(conversation: Conversation) -> bool:
        if method == "GET" and conversation.command == "PATCH":
            conversation.reset()
            return True
        return conversation.command == method and fault(conversation)

    registry.fault = upload_breaks
    with closing(client_of(registry, waited)) as client, pytest.raises(RegistryError):
        client.push("app", Blob.of(b"content" * 1000, "x"))
    assert len(registry.received(method)) <= 6


def test_six_patches_whose_answer_is_lost(registry: Registry, waited: Waited) -> None:
    registry.fault = lambda it: it.command in ("PATCH", "PUT") and breaking(it)
    with closing(client_of(registry, waited)) as client, pytest.raises(RegistryError):
        client.push("app", Blob.of(b"content" * 1000, "x"))
    assert len(registry.received("PATCH")) == 6


# -- time --------------------------------------------------------------------------------------


@contextmanager
def server_that(act: Callable[[socket.socket], None]) -> Iterator[tuple[str, list[float]]]:
    """A server that does `act` with each connection; its host, and when connections came."""
    came: list[float] = []
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)

        def serve() -> None:
            while not over.is_set():
                with suppress(OSError):
                    connection, _ = listening.accept()
                    came.append(time.monotonic())
                    threading.Thread(target=act, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}", came
        finally:
            over.set()
            thread.join()


def keep_silent(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.recv(1 << 16)
        time.sleep(20)
        connection.close()


def drip_head(connection: socket.socket) -> None:
    """A line now and then, so that no timeout of the socket's ever ends."""
    with suppress(OSError):
        connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        for number in range(1000):
            time.sleep(0.1)
            connection.sendall(b"X-Line-%d: x\r\n" % number)


def drip_body(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        for _ in range(1000):
            time.sleep(0.1)
            connection.sendall(b"{")


HURRIED = Patience(total=2.5, connect=0.5, read=0.6, window=0.6)


@pytest.mark.parametrize("act", [keep_silent, drip_head, drip_body])
def test_one_deadline_over_all_tries(act: Callable[[socket.socket], None]) -> None:
    """Of a host that is silent, or that sends a byte now and then."""
    start = time.monotonic()
    with server_that(act) as (host, came), closing(Client(host, insecure=True, patience=HURRIED)) as client:
        with pytest.raises(RegistryError, match="the connection failed"):
            client.manifest("app", "1")
        assert 0.5 < time.monotonic() - start < HURRIED.total + 20
        assert 2 <= len(came) <= 6


def test_a_body_that_hardly_moves_is_cut_off_and_taken_up_again(registry: Registry) -> None:
    content = archives.image(b"x").config + bytes(300_000)
    digest = registry.blob("app", content)
    drips = iter([1, 2])

    def fault(conversation: Conversation) -> bool:
        if "blobs" not in conversation.path or next(drips, None) is None:
            return False
        offset = conversation.offset()
        status, more = (206, {"Content_Range": f"bytes {offset}-300/{len(content)}"}) if offset else (200, {})
        conversation.start(status, len(content) - offset, **more)
        conversation.write(content[offset : offset + 100_000])
        for place in range(offset + 100_000, offset + 100_200):
            time.sleep(0.05)
            conversation.write(content[place : place + 1])
        return True

    from arv_docker.model.image import Descriptor, Digest
    from arv_docker.registry import blob

    registry.fault = fault
    patience = Patience(read=5, window=0.5, slowest=1000)
    with (
        pytest.MonkeyPatch.context() as patch,
        closing(Client(registry.host, insecure=True, patience=patience)) as ours,
    ):
        patch.setattr(blob, "_LEAST_WINDOW", 0.1)
        reader = ours.blob("app", Descriptor("x", Digest.parse(digest), len(content)))
        assert reader.read(len(content) + 1) == content
    assert len(registry.received("GET .*blobs")) == 3


def test_what_a_host_asks_to_wait_is_told_where_it_is_too_long(registry: Registry, waited: Waited) -> None:
    registry.fault = busy(429, Retry_After="21600")
    with pytest.raises(RegistryError, match="asks to wait 6 h before the next request"):
        read_all(source_of(registry, waited))
    assert (len(registry.seen), waited.seconds) == (1, [])


def test_waits_that_are_short_each_have_an_end_together(registry: Registry, waited: Waited) -> None:
    registry.fault = busy(503, Retry_After="40")
    with pytest.raises(RegistryError, match="asks to wait 40 s"):
        read_all(source_of(registry, waited))
    assert waited.seconds == [40]


# -- hosts -------------------------------------------------------------------------------------


def failing() -> RegistryError:
    return RegistryError("no", retry_after=0.0)


def test_a_host_that_answers_is_asked_as_often_as_it_likes(waited: Waited) -> None:
    hosts, attempts = Hosts(waited.patience), Attempts(waited.patience)
    for _ in range(20):
        with hosts.turn("a", attempts, waits=True):
            pass
        with suppress(RegistryError), hosts.turn("a", attempts, waits=True):
            raise failing()
    assert len(waited.seconds) == 19  # before each that follows a failure


def test_a_host_that_failed_too_often_is_not_asked_by_anybody(waited: Waited) -> None:
    hosts, attempts = Hosts(waited.patience), Attempts(waited.patience)
    asked = []
    for number in range(10):
        with suppress(RegistryError), hosts.turn("a", attempts, waits=True):
            asked.append(number)
            raise failing()
    assert asked == list(range(6))
    with hosts.turn("b", attempts, waits=True):
        asked.append(100)
    waited.seconds.append(31)  # and later anew
    with hosts.turn("a", Attempts(waited.patience), waits=True):
        asked.append(200)
    assert asked[-2:] == [100, 200]


def test_an_error_that_will_not_pass_is_an_answer(waited: Waited) -> None:
    hosts, attempts = Hosts(waited.patience), Attempts(waited.patience)
    for _ in range(10):
        with suppress(RegistryError), hosts.turn("a", attempts, waits=True):
            raise RegistryError("refused", status=403)
    assert waited.seconds == []


def test_a_mirror_has_less_patience() -> None:
    short, usual = Patience().for_mirror(), Patience()
    assert short.total < usual.total
    assert short.tries < usual.tries
    assert Patience(total=1).for_mirror().total == 1

# SPDX-License-Identifier: Apache-2.0
"""Sending blocks to Keep services. What the SDK's client guarantees, ours does: both are put to the same tests,
against small services on loopback that answer as they are told."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import arvados
import arvados.errors
import pytest

from arv_docker.arvados.block_put import BlockWriter
from arv_docker.errors import KeepError

TOKEN = "v2/zzzzz-gj3su-000000000000000/secret"
BLOCK = b"a block"
MD5 = hashlib.md5(BLOCK).hexdigest()
LOCATOR = f"{MD5}+{len(BLOCK)}+A{'0' * 40}@ffffffff"

Answer = tuple[int, dict[str, str], str]
STORED: Answer = (200, {"X-Keep-Replicas-Stored": "1", "X-Keep-Storage-Classes-Confirmed": "default=1"}, LOCATOR)


class Service:
    """A Keep service. It gives its `answers` in turn, the last for ever, and notes the `requests` that it got.

    It reads a block after a `pause` in seconds."""

    def __init__(self, *answers: Answer) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self._answers = list(answers) or [STORED]
        self.pause = 0.0
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                threading.Event().wait(service.pause)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                service.requests.append((self.path, dict(self.headers), body))
                status, headers, text = service._next()
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(text))}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def _next(self) -> Answer:
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Api:
    """As much of an API client object as a Keep client needs."""

    api_token = TOKEN
    insecure = False
    request_id = None

    def __init__(self, kind: str, ports: list[int], classes: list[str]) -> None:
        self.asked = 0
        self._items = [
            {
                "uuid": f"zzzzz-bi6l4-{number:015d}",
                "service_host": "127.0.0.1",
                "service_port": port,
                "service_ssl_flag": False,
                "service_type": kind,
                "read_only": False,
            }
            for number, port in enumerate(ports)
        ]
        self._classes = classes

    def config(self) -> dict[str, Any]:
        return {"StorageClasses": {name: {"Default": True} for name in self._classes}}

    def keep_services(self) -> Api:
        return self

    accessible = keep_services

    def execute(self) -> dict[str, Any]:
        self.asked += 1
        return {"items": [dict(item) for item in self._items]}


Put = Callable[[Api, int, int], str]


def by_ours(api: Api, copies: int, retries: int) -> str:
    return BlockWriter(arvados.KeepClient(api), copies=copies, retries=retries).put(memoryview(BLOCK), MD5)


def by_the_sdk(api: Api, copies: int, retries: int) -> str:
    try:
        return str(arvados.KeepClient(api).put(BLOCK, copies=copies, num_retries=retries))
    except arvados.errors.KeepWriteError as error:
        raise KeepError(str(error)) from error


@pytest.fixture(params=[by_ours, by_the_sdk])
def put(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Put:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "ARVADOS_KEEP_SERVICES", "KEEP_LOCAL_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("time.sleep", lambda _: None)
    function: Put = request.param
    return function


@pytest.fixture
def service() -> Iterator[Callable[..., Service]]:
    made = []

    def make(*answers: Answer) -> Service:
        made.append(Service(*answers))
        return made[-1]

    yield make
    for it in made:
        it.close()


def api(*services: Service, kind: str = "disk", classes: tuple[str, ...] = ("default",)) -> Api:
    return Api(kind, [it.port for it in services], list(classes))


def in_order(services: list[Service]) -> list[Service]:
    """By weight, the heaviest first (docs/spec/arvados-clients.md#keep-client)."""
    weights = {it: hashlib.md5(f"{MD5}{number:015d}".encode()).hexdigest() for number, it in enumerate(services)}
    return sorted(services, key=lambda it: weights[it], reverse=True)


def test_what_is_sent(put: Put, service: Callable[..., Service]) -> None:
    one = service()
    assert put(api(one), 1, 0) == LOCATOR
    ((path, headers, body),) = one.requests
    assert (path, body) == (f"/{MD5}", BLOCK)
    assert headers["Authorization"] == f"Bearer {TOKEN}"
    assert headers["X-Keep-Desired-Replicas"] == "1"
    assert headers["X-Keep-Storage-Classes"] == "default"
    assert headers["X-Request-Id"].startswith("req-")


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_copies_go_to_the_heaviest_services(put: Put, service: Callable[..., Service], copies: int) -> None:
    services = [service() for _ in range(5)]
    put(api(*services), copies, 0)
    asked = [len(it.requests) for it in in_order(services)]
    assert asked[:copies] == [1] * copies
    if put is by_ours:  # the SDK may ask more than it needs
        assert asked == [1] * copies + [0] * (5 - copies)


def test_a_service_that_stores_all_copies_is_asked_alone(put: Put, service: Callable[..., Service]) -> None:
    both: Answer = (200, {"X-Keep-Replicas-Stored": "2", "X-Keep-Storage-Classes-Confirmed": "default=2"}, LOCATOR)
    services = [service(both), service(both)]
    assert put(api(*services, kind="proxy"), 2, 0) == LOCATOR
    assert [len(it.requests) for it in in_order(services)] == [1, 0]


def test_too_few_copies_are_an_error_at_once(put: Put, service: Callable[..., Service]) -> None:
    """A service that stored its copy is not asked for another."""
    one = service()
    with pytest.raises(KeepError):
        put(api(one), 2, 3)
    assert len(one.requests) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 409, 423])
def test_what_may_pass_is_tried_again(put: Put, service: Callable[..., Service], status: int) -> None:
    one = service((status, {}, "later"), (status, {}, "later"), STORED)
    which = api(one)
    assert put(which, 1, 2) == LOCATOR
    assert len(one.requests) == 3
    assert which.asked == 3  # services may have come and gone


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 507])
def test_what_will_not_pass_is_not(put: Put, service: Callable[..., Service], status: int) -> None:
    services = [service((status, {}, "no")) for _ in range(2)]
    with pytest.raises(KeepError):
        put(api(*services), 1, 3)
    assert [len(it.requests) for it in services] == [1, 1]


def test_after_every_try_it_is_an_error(put: Put, service: Callable[..., Service]) -> None:
    one = service((503, {}, "full"))
    with pytest.raises(KeepError) as caught:
        put(api(one), 1, 2)
    assert len(one.requests) == 3
    told = caught.value.message + caught.value.detail
    assert "503" in told
    assert "secret" not in told


def test_another_service_takes_the_place_of_a_dead_one(put: Put, service: Callable[..., Service]) -> None:
    services = [service() for _ in range(3)]
    dead, *alive = in_order(services)
    dead.close()
    assert put(api(*services), 2, 0) == LOCATOR
    assert [len(it.requests) for it in alive] == [1, 1]


def test_storage_classes_that_are_missing_are_asked_of_the_next(put: Put, service: Callable[..., Service]) -> None:
    def confirming(name: str) -> Answer:
        return (200, {"X-Keep-Replicas-Stored": "1", "X-Keep-Storage-Classes-Confirmed": f"{name}=1"}, LOCATOR)

    services = [service(), service()]
    first, second = in_order(services)
    first._answers, second._answers = [confirming("hot")], [confirming("archive")]
    assert put(api(*services, classes=("archive", "hot")), 1, 0) == LOCATOR
    asked = [it.requests[0][1]["X-Keep-Storage-Classes"] for it in (first, second)]
    assert asked == ["archive, hot", "archive"]


def test_copies_count_for_the_storage_class_that_they_are_in(put: Put, service: Callable[..., Service]) -> None:
    """Two copies, one in each class, are not two in each."""
    each: Answer = (
        200,
        {"X-Keep-Replicas-Stored": "2", "X-Keep-Storage-Classes-Confirmed": "archive=1, hot=1"},
        LOCATOR,
    )
    services = [service(each), service(each), service(each)]
    assert put(api(*services, kind="proxy", classes=("archive", "hot")), 2, 0) == LOCATOR
    assert [len(it.requests) for it in in_order(services)] == [1, 1, 0]


@pytest.mark.parametrize("count", ["9" * 5000, "-1", "one", "", "\u0661"])
def test_a_count_that_is_none_confirms_nothing(count: str, service: Callable[..., Service]) -> None:
    """The SDK takes such an answer for one of a server that knows no classes."""
    confirmed = f"default={count}".encode().decode("latin-1")
    liar = service((200, {"X-Keep-Replicas-Stored": "1", "X-Keep-Storage-Classes-Confirmed": confirmed}, LOCATOR))
    with pytest.raises(KeepError, match="1 of 1 copies"):
        by_ours(api(liar, classes=("default",)), 1, 0)


def test_a_storage_class_that_nobody_confirms_is_an_error(put: Put, service: Callable[..., Service]) -> None:
    one = service()
    with pytest.raises(KeepError):
        put(api(one, classes=("default", "tape")), 1, 0)


def test_of_servers_without_storage_classes_copies_are_enough(put: Put, service: Callable[..., Service]) -> None:
    one = service((200, {}, LOCATOR))
    assert put(api(one), 1, 0) == LOCATOR


def test_the_proxy_of_the_environment(
    put: Put, service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, one = service(), service()
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("no_proxy", "")
    assert put(api(one), 1, 0) == LOCATOR
    assert one.requests == []
    assert proxy.requests[0][0] == f"http://127.0.0.1:{one.port}/{MD5}"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    put(api(one), 1, 0)
    assert (len(proxy.requests), len(one.requests)) == (1, 1)


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_a_proxy_that_wants_a_password(
    put: Put, service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    proxy, one = service(), service()
    monkeypatch.setenv("http_proxy", f"{scheme}ann:p%40ss@127.0.0.1:{proxy.port}")
    monkeypatch.setenv("no_proxy", "")
    assert put(api(one), 1, 0) == LOCATOR
    (said,) = (value for name, value in proxy.requests[0][1].items() if name.lower() == "proxy-authorization")
    assert said == f"Basic {base64.b64encode(b'ann:p@ss').decode()}"


def test_capital_letters_name_no_proxy_for_http(
    put: Put, service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, one = service(), service()
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    put(api(one), 1, 0)
    assert (len(proxy.requests), len(one.requests)) == (0, 1)


def test_where_no_service_may_be_written(put: Put, service: Callable[..., Service]) -> None:
    which = api(service())
    which._items[0]["read_only"] = True
    with pytest.raises(KeepError):
        put(which, 1, 3)
    assert which.asked == 1 or put is by_the_sdk


def test_services_that_the_environment_names(
    put: Put, service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = service()
    monkeypatch.setitem(arvados.config.settings(), "ARVADOS_KEEP_SERVICES", f"http://127.0.0.1:{one.port}")
    which = api()
    assert put(which, 1, 0) == LOCATOR
    assert which.asked == 0
    assert "X-Keep-Storage-Classes" not in one.requests[0][1]


def test_a_folder_in_place_of_services(put: Put, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KEEP_LOCAL_STORE", str(tmp_path))
    assert put(api(), 1, 0) == f"{MD5}+{len(BLOCK)}"
    assert (tmp_path / MD5).read_bytes() == BLOCK


@pytest.mark.parametrize(
    "words", [f"{'a' * 32}+7", "", "<html>", MD5, f"{LOCATOR} {LOCATOR}", f"{LOCATOR}\n. x", f"{MD5}+{len(BLOCK)}+a:b"]
)
def test_an_answer_about_another_block_counts_as_none(
    words: str, service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one that would say something else in a manifest text."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    one = service((200, {}, words))
    with pytest.raises(KeepError) as caught:
        by_ours(api(one), 1, 0)
    assert "another block" in caught.value.detail
    assert "0 of 1 copies after 1 try" in caught.value.message


def test_a_large_block_comes_whole(service: Callable[..., Service]) -> None:
    content = bytes(range(256)) * 20_000
    md5 = hashlib.md5(content).hexdigest()
    one = service((200, {}, f"{md5}+{len(content)}"))
    BlockWriter(arvados.KeepClient(api(one)), copies=1, retries=0).put(memoryview(content), md5)
    assert one.requests[0][2] == content


def test_a_busy_service_takes_a_block_late(service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch) -> None:
    """How long it may take to connect says nothing of how long a block may wait to be read."""
    monkeypatch.setattr("arv_docker.arvados.block_put._CONNECT", 1)
    content = bytes(32 << 20)  # more than the sockets hold
    md5 = hashlib.md5(content).hexdigest()
    one = service((200, {}, f"{md5}+{len(content)}"))
    one.pause = 2.0
    BlockWriter(arvados.KeepClient(api(one)), copies=1, retries=0).put(memoryview(content), md5)
    assert len(one.requests) == 1

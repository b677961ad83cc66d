# SPDX-License-Identifier: Apache-2.0
"""Requests to the API: tried again as often and as long as is said, and each sent once."""

from __future__ import annotations

import json
import logging
import socket
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from arv_docker.arvados import api_requests
from arv_docker.arvados.api_requests import DEADLINE, ApiRequests, may_pass
from arv_docker.arvados.client import Cluster
from arv_docker.errors import ClusterError
from arv_docker.site import LocalSite

from .fake_api import FakeApi, http_error


class Clock:
    """A time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.naps: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def failing(*errors: Exception | None) -> Any:
    """A request that fails so, first to last."""
    api = FakeApi()
    api.faults["links.list"] = list(errors)
    return api.links().list(filters=[], select=[], order=["uuid asc"], limit=1, count="none")


REFUSED = ConnectionRefusedError(111, "Connection refused")


@pytest.mark.parametrize(
    "error", [REFUSED, TimeoutError("timed out"), http_error(503), http_error(429), http_error(408)]
)
def test_what_may_pass_is_tried_again(clock: Clock, error: Exception) -> None:
    requests = ApiRequests(3, sleep=clock.sleep, clock=clock)
    assert requests.execute(failing(error, error, error), "x")["items"] == []
    assert len(clock.naps) == 3
    with pytest.raises(ClusterError):
        requests.execute(failing(*[error] * 4), "x")
    assert len(clock.naps) == 6


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_what_is_refused_is_not(clock: Clock, status: int) -> None:
    with pytest.raises(ClusterError):
        ApiRequests(3, sleep=clock.sleep, clock=clock).execute(failing(http_error(status)), "x")
    assert clock.naps == []


def test_the_end_is_said_beforehand_and_kept(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(ClusterError):
        ApiRequests(1000, sleep=clock.sleep, clock=clock).execute(failing(*[REFUSED] * 1001), "the list of links")
    assert DEADLINE / 2 < clock.now <= DEADLINE
    assert max(clock.naps) <= 30
    (said,) = (it.getMessage() for it in caplog.records)
    assert said.endswith("Trying again, at most 1000 times and 300 s.")


def test_ten_retries_of_an_api_that_is_down_take_minutes_not_a_quarter_of_an_hour(clock: Clock) -> None:
    with pytest.raises(ClusterError):
        ApiRequests(sleep=clock.sleep, clock=clock).execute(failing(*[REFUSED] * 11), "x")
    assert len(clock.naps) == 10
    assert clock.now < DEADLINE


# -- through the SDK --------------------------------------------------------------------


class Busy(ThreadingHTTPServer):
    """An API server that answers nothing but what it says of itself; other requests as `status` says, None: never."""

    daemon_threads = True

    def __init__(self, documents: tuple[Any, Any], status: int | None) -> None:
        super().__init__(("127.0.0.1", 0), _BusyHandler)
        self.discovery, self.config = documents
        self.status = status
        self.asked: Counter[str] = Counter()
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _BusyHandler(BaseHTTPRequestHandler):
    server: Busy

    def do_GET(self) -> None:
        if self.path.startswith("/discovery"):
            self._answer(200, self.server.discovery | {"rootUrl": f"{self.server.url}/"})
            return
        if self.path.startswith("/arvados/v1/config"):
            self._answer(200, self.server.config)
            return
        self.server.asked[self.command] += 1
        if self.server.status is None:
            self.server.over.wait(60)
        else:
            self._answer(self.server.status, {"errors": ["busy"]})

    do_POST = do_GET

    def _answer(self, status: int, document: object) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """What a site says of itself."""

    def said(address: str) -> Any:
        with urllib.request.urlopen(address) as answer:
            return json.load(answer)

    with LocalSite(tmp_path_factory.mktemp("site")) as site:
        discovery = said(site.discovery_url.format(api="arvados", apiVersion="v1"))
        return discovery, said(f"{site.url}/arvados/v1/config")


@pytest.fixture
def busy(documents: tuple[Any, Any], request: pytest.FixtureRequest) -> Iterator[Busy]:
    server = Busy(documents, request.param)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def cluster_at(server: Busy, retries: int, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(api_requests, "_FIRST_PAUSE", 0)
    return Cluster.at_url(server.url, "token", retries=retries)


@pytest.mark.parametrize("busy", [503, 409, 429], indirect=True)
def test_the_sdk_sends_each_try_once(busy: Busy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what must not be sent twice, although the SDK's client object has tries of its own."""
    cluster = cluster_at(busy, 4, monkeypatch)
    with pytest.raises(ClusterError) as caught:
        list(cluster.links([]))
    assert (busy.asked, caught.value.status) == (Counter(GET=5), busy.status)
    with pytest.raises(ClusterError):
        cluster.create_link({"link_class": "x"})
    assert busy.asked["POST"] == 1


@pytest.mark.parametrize("busy", [None], indirect=True)
def test_a_server_that_is_silent_is_not_waited_for_beyond_the_end(busy: Busy, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = cluster_at(busy, 10, monkeypatch)
    monkeypatch.setattr(api_requests, "DEADLINE", 1)
    with pytest.raises(ClusterError, match="cannot be reached") as caught:
        list(cluster.links([]))
    assert may_pass(caught.value)
    assert busy.asked["GET"] <= 2


def test_a_server_that_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalSite(tmp_path) as site:
        cluster = Cluster.at_url(site.url, site.token, retries=3)
        assert cluster.user_uuid
    naps: list[float] = []
    monkeypatch.setattr(cluster, "_requests", ApiRequests(3, sleep=naps.append))
    with pytest.raises(ClusterError, match="cannot be reached"):
        list(cluster.links([]))
    assert len(naps) == 3


def test_the_usual_timeout_comes_back(tmp_path: Path) -> None:
    """For requests that others send by the same client object."""
    with LocalSite(tmp_path) as site:
        cluster = Cluster.at_url(site.url, site.token)
        client = cluster._api.links().list().http
        before = client.timeout
        list(cluster.links([]))
        assert client.timeout == before
        assert {it.sock.gettimeout() for it in client.connections.values() if isinstance(it.sock, socket.socket)} <= {
            before
        }

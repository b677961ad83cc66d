# SPDX-License-Identifier: Apache-2.0
"""A proxy between an ingest and a site, which kills the ingest in a request, or holds it until another has come as far.

The ingest runs in a child process: `child.ingest`, forked from a process that has the slow imports behind it.
"""

import http.client
import multiprocessing
import multiprocessing.connection
import threading
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.context import ForkServerProcess
from typing import TypeVar
from urllib.parse import urlsplit

from arv_docker.site import LocalSite

from . import child
from .engines import Image

P = TypeVar("P", bound="Proxy")

_PIECE = 1 << 20

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.real.child"])


class Proxy(ThreadingHTTPServer):
    """In front of a site: counts the requests, and kills its client in one of them."""

    daemon_threads = True

    def __init__(self, site: str, when: str, number: int, hold: Callable[[str], None]) -> None:
        """`when` is before the request is passed on, within (half of its body is), or after (the answer is there).

        `hold` is called with each request first, as `METHOD /path`, and may wait.
        """
        super().__init__(("127.0.0.1", 0), Conversation)
        self.site = urlsplit(site).netloc
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.client: ForkServerProcess | None = None
        self.seen: list[tuple[str, int]] = []
        self.hold = hold
        self._when = when
        self._number = number
        self._lock = threading.Lock()

    def counted(self, request: str, body: Sized) -> str:
        """When in this request the client dies; empty for never."""
        with self._lock:
            self.seen.append((request, len(body)))
            return self._when if len(self.seen) == self._number else ""

    def received(self, request: str, count: int) -> None:
        """Told of each piece of a request's body as it comes."""

    def answered(self, request: str) -> None:
        """Told of a request just before its answer goes to the client."""

    def kill_client(self) -> None:
        """SIGKILL; returns when it is gone."""
        assert self.client is not None
        self.client.kill()
        # Not `join`, which must not be called by two threads at once.
        multiprocessing.connection.wait([self.client.sentinel])


class Conversation(BaseHTTPRequestHandler):
    """One connection of the proxy."""

    protocol_version = "HTTP/1.1"
    server: Proxy

    def _pass_on(self) -> None:
        request = f"{self.command} {self.path.partition('?')[0]}"
        length = int(self.headers.get("Content-Length") or 0)
        body = bytearray()
        while len(body) < length:
            piece = self.rfile.read(min(_PIECE, length - len(body)))
            if not piece:  # killed meanwhile
                self.close_connection = True
                return
            body += piece
            self.server.received(request, len(piece))
        self.server.hold(request)
        killed = self.server.counted(request, body)
        self.close_connection = True
        if killed == "before":
            self.server.kill_client()
            return
        site = http.client.HTTPConnection(self.server.site, timeout=60)
        site.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("connection", "expect"):
                site.putheader(name, value)
        site.endheaders(body[: len(body) // 2] if killed == "within" else body)
        if killed == "within":
            self.server.kill_client()
            site.close()
            return
        with site.getresponse() as answer:
            content = answer.read()
        site.close()
        if killed == "after":
            self.server.kill_client()
            return
        self.server.answered(request)
        self._answer(answer, content)

    def _answer(self, answer: http.client.HTTPResponse, content: bytes) -> None:
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.headers.items():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", answer.headers.get("Content-Length") or str(len(content)))
        self.send_header("Connection", "close")
        with suppress(ConnectionError):  # killed meanwhile, in another request
            self.end_headers()
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = _pass_on

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the one it replaces
        """Nothing."""


@contextmanager
def between(
    site: LocalSite, when: str = "", number: int = 0, hold: Callable[[str], None] = lambda request: None
) -> Iterator[Proxy]:
    """A running proxy in front of the site."""
    with serving(Proxy(site.url, when, number, hold)) as proxy:
        yield proxy


@contextmanager
def serving(proxy: P) -> Iterator[P]:
    """The proxy, running as long as the block lasts."""
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()


def ingest(url: str, site: LocalSite, image: Image, environment: dict[str, str]) -> ForkServerProcess:
    """An ingest that runs now."""
    process = FORKS.Process(target=child.ingest, args=(url, site.token, image.reference, environment))
    process.start()
    return process

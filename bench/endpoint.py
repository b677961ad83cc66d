# SPDX-License-Identifier: Apache-2.0
"""What the measured programs talk to: an embedded site in a process of its own, whose requests are counted.

With `null` its list of Keep services names a server that forgets all large blocks that it is sent, so that neither a
disk nor TLS nor the site's hashing is measured; API requests and signatures are the site's own either way.

The process serves until its standard input ends; each line that it reads it answers with the counts so far.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import uvicorn
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from arv_docker.site import folder
from arv_docker.site.api import discovery
from arv_docker.site.api.endpoint import token_of
from arv_docker.site.http import certificates, server
from arv_docker.site.store.signatures import Signer

_PIECE = 1 << 20
#: Blocks of no more bytes are kept by a server that forgets all others.
_SMALL = 1 << 16
_BLOCK = re.compile(r"/([0-9a-f]{32})")
_LENGTH = re.compile(rb"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)
_AUTHORIZATION = re.compile(rb"^authorization: *([^\r]+)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Counts:
    """What an endpoint has seen: requests, those that put blocks, and bytes.

    `sent` are the bodies of all requests, `stored` those of blocks that it had not had before, `read` blocks given out.
    """

    requests: int = 0
    puts: int = 0
    sent: int = 0
    stored: int = 0
    read: int = 0

    def __sub__(self, earlier: Counts) -> Counts:
        return Counts(*(now - then for now, then in zip(asdict(self).values(), asdict(earlier).values(), strict=True)))


@dataclass
class Counter:
    """Counts requests from any thread."""

    counts: Counts = field(default_factory=Counts)
    _seen: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def request(self, sent: int, block: str = "") -> None:
        """One more request with a body of so many bytes; `block` is the MD5 of the block that it puts."""
        with self._lock:
            it = self.counts
            stored = sent if block and block not in self._seen else 0
            self._seen.add(block)
            self.counts = Counts(it.requests + 1, it.puts + bool(block), it.sent + sent, it.stored + stored, it.read)

    def gave(self, size: int) -> None:
        """So many bytes of a block given out."""
        with self._lock:
            self.counts = replace(self.counts, read=self.counts.read + size)


# -- the process -------------------------------------------------------------------------


class Counted:
    """An ASGI application that counts the requests of another, and names the null Keep, if there is one."""

    def __init__(self, inner: ASGIApp, counter: Counter, services: dict[str, object] | None) -> None:
        """`services` is the answer to who asks for the Keep services, in place of the site's."""
        self._inner = inner
        self._counter = counter
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, and counts it when it is answered."""
        sent = 0
        block = _BLOCK.match(scope["path"])

        async def received() -> Message:
            nonlocal sent
            message = await receive()
            sent += len(message.get("body", b""))
            return message

        async def answered(message: Message) -> None:
            # Before it goes out: who has the answer may look at the counts.
            if message["type"] == "http.response.start":
                self._counter.request(sent, block[1] if block and scope["method"] == "PUT" else "")
            elif block and scope["method"] == "GET":
                self._counter.gave(len(message["body"]))
            await send(message)

        if self._services and scope["path"].endswith("/keep_services/accessible"):
            await JSONResponse(self._services)(scope, receive, answered)
        else:
            await self._inner(scope, received, answered)


class NullKeep:
    """Takes blocks over plain HTTP, forgets all but small ones, and signs their locators.

    Small ones, as the head of an archive, are given out again: a client reads it to know an image.
    """

    def __init__(self, signer: Signer, counter: Counter) -> None:
        self._signer = signer
        self._counter = counter
        self._small: dict[str, bytes] = {}
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections; those that are open go with the process."""
        self._socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._socket.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        buffer = bytearray(_PIECE)
        with connection, contextlib.suppress(ConnectionError):
            while head := _head(connection):
                lines, _, begun = head.partition(b"\r\n\r\n")
                length = int(found[1]) if (found := _LENGTH.search(lines)) else 0
                if b"100-continue" in lines.lower():
                    connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                small = begun if length <= _SMALL else b""
                left = length - len(begun)
                while left > 0:
                    count = connection.recv_into(buffer, min(left, _PIECE))
                    if not count:
                        return
                    left -= count
                    if length <= _SMALL:
                        small += buffer[:count]
                connection.sendall(self._answer(lines, length, small))

    def _answer(self, head: bytes, length: int, small: bytes) -> bytes:
        method, path, _ = head.decode("latin-1").split(" ", 2)
        block = _BLOCK.match(path)
        if method == "GET" and block and (content := self._small.get(block[1])) is not None:
            self._counter.request(length)
            return f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content
        authorization = _AUTHORIZATION.search(head)
        if method != "PUT" or not block or not authorization:
            self._counter.request(length)
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        self._counter.request(length, block[1])
        if small:
            self._small[block[1]] = small
        token = token_of({"authorization": authorization[1].decode("latin-1")})
        locator = self._signer.sign(f"{block[1]}+{length}", token, int(time.time()) + self._signer.ttl)
        return (
            f"HTTP/1.1 200 OK\r\nContent-Length: {len(locator) + 1}\r\nX-Keep-Replicas-Stored: 1\r\n"
            f"X-Keep-Storage-Classes-Confirmed: default=1\r\n\r\n{locator}\n"
        ).encode()


def _head(connection: socket.socket) -> bytes:
    """A request up to the end of its header or a bit beyond; empty at the end of the connection."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = connection.recv(1 << 16)
        if not piece:
            return b""
        head += piece
    return head


@contextlib.contextmanager
def serving(root: Path, *, null: bool) -> Iterator[tuple[dict[str, str], Counter]]:
    """Serves the site in `root`, created if there is none; gives what clients need in their environment."""
    site = folder.open_site(root)
    counter = Counter()
    keep = NullKeep(site.settings.signer, counter) if null else None
    services: dict[str, object] | None = None
    if keep:
        record = discovery.keep_service(site.settings, discovery.Origin("http", "127.0.0.1", keep.port))
        services = {"kind": "arvados#keepServiceList", "items": [record], "items_available": 1}
    tls = certificates.certificates(site.folder, server.LOOPBACK)
    running = server.Running(site, 0, tls, patience=2)
    config: uvicorn.Config = running._server.config
    config.app = Counted(config.app, counter, services)  # type: ignore[arg-type]
    running.start()
    try:
        yield (
            {
                "ARVADOS_API_HOST": f"127.0.0.1:{running.port}",
                "ARVADOS_API_TOKEN": running.token,
                "SSL_CERT_FILE": str(site.folder.bundle),
            },
            counter,
        )
    finally:
        if keep:
            keep.close()
        running.stop()


def main() -> None:
    """Serves, and answers each line of standard input with the counts."""
    parser = argparse.ArgumentParser(description="Serve a site and count its requests.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--null", action="store_true")
    arguments = parser.parse_args()
    with serving(arguments.folder, null=arguments.null) as (variables, counter):
        print(json.dumps(variables), flush=True)
        for _ in sys.stdin:
            print(json.dumps(asdict(counter.counts)), flush=True)


# -- the handle of the bench -------------------------------------------------------------


class Endpoint:
    """A process as above."""

    def __init__(self, root: Path, *, null: bool) -> None:
        self.folder = root
        command = [sys.executable, "-m", "bench.endpoint", str(root), *(["--null"] if null else [])]
        # A session of its own: Ctrl-C is for the bench, whose end ends its input.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.variables: dict[str, str] = json.loads(self._said())

    def counts(self) -> Counts:
        """What it has seen so far."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Counts(**json.loads(self._said()))

    def close(self) -> None:
        """End it."""
        with self._process:
            assert self._process.stdin
            self._process.stdin.close()

    def _said(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the endpoint for {self.folder} ended with {self._process.wait()}")
        return line


if __name__ == "__main__":
    main()

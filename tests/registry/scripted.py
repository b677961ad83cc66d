# SPDX-License-Identifier: Apache-2.0
"""A registry in memory that does as it is told: the distribution API, and faults where a test wants them."""

from __future__ import annotations

import base64
import fcntl
import gzip
import hashlib
import itertools
import json
import re
import socket
import ssl
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from arv_docker.model.image import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from arv_docker.registry.patience import Patience

from ..archives import Image

GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class Request:
    """A request as the registry saw it; `sent` are the bytes of body that it answered with."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    sent: int = 0

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


class Registry(ThreadingHTTPServer):
    """`fault` gets each conversation first, and answers it itself if it gives True."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Conversation)
        self.host = f"127.0.0.1:{self.server_port}"
        self.blobs: dict[str, bytes] = {}
        self.repositories: dict[str, set[str]] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.uploads: dict[str, bytearray] = {}
        self.numbers = itertools.count()
        self.seen: list[Request] = []
        self.fault: Callable[[Conversation], bool] = lambda conversation: False
        self.lock = threading.Lock()
        self.users: dict[str, str] | None = None
        self.bearer: TokenServer | None = None
        self.page = 100
        self.deletes = True

    # -- what is in it ---------------------------------------------------------------------

    def blob(self, repository: str, content: bytes) -> str:
        self.blobs[sha256(content)] = content
        self.repositories.setdefault(repository, set()).add(sha256(content))
        return sha256(content)

    def put_manifest(self, repository: str, name: str, content: bytes, media_type: str = OCI_MANIFEST) -> str:
        self.manifests[repository, name] = self.manifests[repository, sha256(content)] = (media_type, content)
        self.repositories.setdefault(repository, set())
        return sha256(content)

    def add(
        self, name: str, image: Image, compress: Callable[[bytes], bytes] | None = None, media_type: str = GZIP_LAYER
    ) -> str:
        """Holds the image under `repository:tag`; gives the manifest's digest."""
        compress = compress or (lambda content: gzip.compress(content, mtime=0))
        repository, _, tag = name.rpartition(":")
        layers = []
        for layer in image.layers:
            content = compress(layer)
            layers.append({"mediaType": media_type, "digest": self.blob(repository, content), "size": len(content)})
        return self.put_manifest(repository, tag, manifest(self.blob(repository, image.config), image, layers))

    def received(self, pattern: str) -> list[Request]:
        """The requests whose line matches."""
        return [request for request in self.seen if re.search(pattern, request.line)]

    def sent(self, pattern: str) -> int:
        return sum(request.sent for request in self.received(pattern))


def manifest(config: str, image: Image, layers: list[dict[str, Any]]) -> bytes:
    described = {"mediaType": OCI_CONFIG, "digest": config, "size": len(image.config)}
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described, "layers": layers}).encode()


def index(*listed: tuple[str, str, int], media_type: str = OCI_MANIFEST) -> bytes:
    """An index of platforms (``linux/amd64``) with their manifests' digests and sizes."""
    manifests: list[dict[str, Any]] = []
    for platform, digest, size in listed:
        described: dict[str, Any] = {"mediaType": media_type, "digest": digest, "size": size}
        if platform:
            names = ("os", "architecture", "variant")
            described["platform"] = dict(zip(names, platform.split("/"), strict=False))
        manifests.append(described)
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).encode()


class Conversation(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Registry
    request_seen: Request

    def handle_one_request(self) -> None:
        """One request. Whoever says the hello of TLS first, as engines do, is told that this is plain HTTP."""
        if self.rfile.peek(1)[:1] == b"\x16":  # type: ignore[attr-defined]
            self.close_connection = True
            self.connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            return
        super().handle_one_request()

    def _body(self) -> bytes:
        """The body of the request, which engines send in chunks."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _converse(self) -> None:
        body = self._body()
        self.request_seen = Request(self.command, self.path, dict(self.headers), body)
        with self.server.lock:
            self.server.seen.append(self.request_seen)
        if self.server.fault(self) or not self._let_in():
            return
        self._act(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _converse

    # -- answers -------------------------------------------------------------------------

    def answer(self, status: int, body: bytes = b"", **headers: str) -> bool:
        """A whole answer, names of headers with underscores for dashes. True, as a fault says that it answered."""
        self.start(status, len(body), **headers)
        if self.command != "HEAD":
            self.write(body)
        return True

    def refuse(self, status: int, code: str, **headers: str) -> bool:
        text = json.dumps({"errors": [{"code": code, "message": code.lower().replace("_", " ")}]})
        return self.answer(status, text.encode(), **headers)

    def start(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length is not None and "Content_Length" not in headers:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def write(self, content: bytes) -> None:
        try:
            self.wfile.write(content)
            self.request_seen.sent += len(content)
        except OSError:
            self.close_connection = True

    def reset(self) -> None:
        """Breaks the connection off, once what was written has arrived."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            waiting = struct.unpack("I", fcntl.ioctl(self.connection.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0]
            if not waiting:
                break
            time.sleep(0.001)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()
        # What the base class does after a request would fail.
        self.wfile = _Nowhere()  # type: ignore[assignment]

    def offset(self) -> int:
        """Where the range begins that is asked for."""
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(match[1]) if match else 0

    def partly(self, content: bytes, *, upto: int | None = None) -> bool:
        """The blob from the offset that is asked for, as far as `upto`; then the connection breaks."""
        start = self.offset()
        if start:
            self.start(206, len(content) - start, Content_Range=f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.start(200, len(content))
        self.write(content[start:upto])
        if upto is not None and upto < len(content):
            self.reset()
        return True

    # -- who may come in ---------------------------------------------------------------------

    def _let_in(self) -> bool:
        given = self.headers.get("Authorization", "")
        if self.server.bearer is not None:
            if given.startswith("Bearer ") and self.server.bearer.good(given[7:]):
                return True
            realm = f"{self.server.bearer.url}/token"
            self.refuse(401, "UNAUTHORIZED", WWW_Authenticate=f'Bearer realm="{realm}",service="scripted"')
            return False
        if self.server.users is not None:
            pairs = {base64.b64encode(f"{name}:{word}".encode()).decode() for name, word in self.server.users.items()}
            if not given.startswith("Basic ") or given[6:] not in pairs:
                self.refuse(401, "UNAUTHORIZED", WWW_Authenticate='Basic realm="scripted"')
                return False
        return True

    # -- the distribution API ----------------------------------------------------------------

    def _act(self, body: bytes) -> bool:
        path = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(path.query).items()}
        if path.path == "/v2/_catalog":
            return self._list("repositories", sorted(self.server.repositories), query)
        for pattern, method in _ROUTES:
            match = re.fullmatch(pattern, path.path)
            if match:
                return method(self, *match.groups(), body, query)
        return self.answer(200 if path.path == "/v2/" else 404)

    def _manifests(self, repository: str, name: str, body: bytes, query: Mapping[str, str]) -> bool:
        key = (repository, name)
        if self.command == "PUT":
            if name.startswith("sha256:") and name != sha256(body):
                return self.refuse(400, "DIGEST_INVALID")
            described = json.loads(body)
            for it in [described["config"], *described["layers"]]:
                if it["digest"] not in self.server.repositories.get(repository, ()):
                    return self.refuse(404, "BLOB_UNKNOWN")
            digest = self.server.put_manifest(repository, name, body, self.headers["Content-Type"])
            return self.answer(201, Docker_Content_Digest=digest, Location=f"/v2/{repository}/manifests/{digest}")
        if key not in self.server.manifests:
            return self.refuse(404, "MANIFEST_UNKNOWN")
        media_type, content = self.server.manifests[key]
        if self.command == "DELETE":
            if not self.server.deletes:
                return self.refuse(405, "UNSUPPORTED")
            for other in [
                it for it, held in self.server.manifests.items() if it[0] == repository and held[1] == content
            ]:
                del self.server.manifests[other]
            return self.answer(202)
        return self.answer(200, content, Content_Type=media_type, Docker_Content_Digest=sha256(content))

    def _blobs(self, repository: str, digest: str, body: bytes, query: Mapping[str, str]) -> bool:
        if digest not in self.server.repositories.get(repository, ()):
            return self.refuse(404, "BLOB_UNKNOWN")
        content = self.server.blobs[digest]
        if self.command == "HEAD":
            return self.answer(200, content)
        return self.partly(content)

    def _begin(self, repository: str, body: bytes, query: Mapping[str, str]) -> bool:
        digest, origin = query.get("mount", ""), query.get("from", "")
        if digest and digest in self.server.repositories.get(origin, ()):
            self.server.repositories.setdefault(repository, set()).add(digest)
            return self.answer(201, Location=f"/v2/{repository}/blobs/{digest}")
        with self.server.lock:
            number = str(next(self.server.numbers))
            self.server.uploads[number] = bytearray()
        return self.answer(202, Location=f"/v2/{repository}/blobs/uploads/{number}?state=x", Range="0-0")

    def _upload(self, repository: str, number: str, body: bytes, query: Mapping[str, str]) -> bool:
        held = self.server.uploads.get(number)
        if held is None:
            return self.refuse(404, "BLOB_UPLOAD_UNKNOWN")
        place = f"/v2/{repository}/blobs/uploads/{number}?state={len(held)}"
        if self.command == "GET":
            return self.answer(204, Location=place, Range=f"0-{max(0, len(held) - 1)}")
        if self.command == "DELETE":
            del self.server.uploads[number]
            return self.answer(204)
        match = re.fullmatch(r"(\d+)-(\d+)", self.headers.get("Content-Range", ""))
        if match and int(match[1]) != len(held):
            return self.refuse(416, "RANGE_INVALID", Location=place, Range=f"0-{max(0, len(held) - 1)}")
        held += body
        if self.command == "PATCH":
            return self.answer(202, Location=f"{place}{len(held)}", Range=f"0-{max(0, len(held) - 1)}")
        if sha256(bytes(held)) != query.get("digest"):
            return self.refuse(400, "DIGEST_INVALID")
        del self.server.uploads[number]
        digest = self.server.blob(repository, bytes(held))
        return self.answer(201, Location=f"/v2/{repository}/blobs/{digest}", Docker_Content_Digest=digest)

    def _tags(self, repository: str, body: bytes, query: Mapping[str, str]) -> bool:
        if repository not in self.server.repositories:
            return self.refuse(404, "NAME_UNKNOWN")
        tags = sorted(name for held, name in self.server.manifests if held == repository and ":" not in name)
        return self._list("tags", tags, query)

    def _list(self, key: str, names: list[str], query: Mapping[str, str]) -> bool:
        rest = [name for name in names if name > query.get("last", "")]
        page = rest[: self.server.page]
        more = (
            {"Link": f'<{urlsplit(self.path).path}?last={page[-1]}&n=1>; rel="next"'} if len(rest) > len(page) else {}
        )
        return self.answer(200, json.dumps({key: page}).encode(), **more)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the one it replaces
        """Nothing."""


_NAME = r"/v2/([a-z0-9/._-]+)"
_ROUTES: tuple[tuple[str, Callable[..., bool]], ...] = (
    (rf"{_NAME}/manifests/([^/]+)", Conversation._manifests),
    (rf"{_NAME}/blobs/uploads/", Conversation._begin),
    (rf"{_NAME}/blobs/uploads/([^/]+)", Conversation._upload),
    (rf"{_NAME}/blobs/([^/]+)", Conversation._blobs),
    (rf"{_NAME}/tags/list", Conversation._tags),
)


class _Nowhere:
    """A file that swallows what is written."""

    closed = False

    def write(self, content: bytes) -> int:
        return len(content)

    def flush(self) -> None:
        """Nothing."""

    def close(self) -> None:
        self.closed = True


@dataclass
class Issued:
    """A token that was given out, and what for."""

    scopes: list[str]
    authorization: str | None
    uses: int = 0


class TokenServer(ThreadingHTTPServer):
    """Gives tokens that last for `uses` requests, or for ever."""

    daemon_threads = True

    def __init__(self, *, uses: int | None = None, users: Mapping[str, str] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), TokenConversation)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.issued: dict[str, Issued] = {}
        self.uses = uses
        self.users = users
        self.lifetime: int | None = 300
        self.closed = False
        self.raw: bytes | None = None
        self.given = 0
        #: Gets each conversation first, and answers it itself if it gives True, as that of a registry.
        self.fault: Callable[[TokenConversation], bool] = lambda conversation: False

    def made(self, scopes: list[str]) -> str:
        """A new token."""
        return f"token-{self.given}-{'x' * 20}"

    def good(self, token: str) -> bool:
        issued = self.issued.get(token)
        if issued is None or (self.uses is not None and issued.uses >= self.uses):
            return False
        issued.uses += 1
        return True


class TokenConversation(BaseHTTPRequestHandler):
    """One connection to a token server."""

    protocol_version = "HTTP/1.1"
    server: TokenServer

    def do_GET(self) -> None:
        self._give({name: list(values) for name, values in parse_qs(urlsplit(self.path).query).items()})

    def do_POST(self) -> None:
        self._give(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))

    def _give(self, fields: dict[str, list[str]]) -> None:
        if self.server.fault(self):
            return None
        given = self.headers.get("Authorization")
        if self.server.users is not None:
            pairs = {base64.b64encode(f"{name}:{word}".encode()).decode() for name, word in self.server.users.items()}
            refresh = fields.get("refresh_token", [""])[0] in self.server.users.values()
            if not refresh and (given or "").removeprefix("Basic ") not in pairs:
                return self.answer(401, b'{"errors":[{"code":"DENIED","message":"no such user"}]}')
        if self.server.closed:
            return self.answer(403, b"{}")
        self.server.given += 1
        scopes = [scope for text in fields.get("scope", []) for scope in text.split()]
        token = self.server.made(scopes)
        self.server.issued[token] = Issued(scopes, given)
        found: dict[str, Any] = {"token": token}
        if self.server.lifetime is not None:
            found["expires_in"] = self.server.lifetime
        return self.answer(200, self.server.raw if self.server.raw is not None else json.dumps(found).encode())

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        """A whole answer, names of headers with underscores for dashes."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the one it replaces
        """Nothing."""


@contextmanager
def running(*servers: ThreadingHTTPServer) -> Iterator[None]:
    """The servers, while the block lasts."""
    threads = [threading.Thread(target=it.serve_forever, kwargs={"poll_interval": 0.01}) for it in servers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()


def with_tls(server: ThreadingHTTPServer, certificate: str, key: str) -> None:
    """Has the server speak TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)


@dataclass
class Waited:
    """Waits without waiting, and keeps what for."""

    seconds: list[float] = field(default_factory=list)

    @property
    def patience(self) -> Patience:
        return Patience(sleep=self.seconds.append, clock=self.clock, read=10.0)

    def clock(self) -> float:
        """The time, as if all of that had passed."""
        return time.monotonic() + sum(self.seconds)

# SPDX-License-Identifier: Apache-2.0
"""Docker's ``save`` and ``load`` at the daemon's socket, where that is on this machine.

The command copies each byte between the socket and a pipe, which costs both sides: a third of the work of storing an
image (docs/decisions/0004-straight-to-the-bytes.md). Unusual cases, from another context to a daemon that does not
answer, are left to the command, whose words say what is wrong.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import socket
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..local.settings import USUAL_ENGINE_TIMEOUT
from ..model.image import Platform
from .watch import Watch

log = logging.getLogger(__name__)

_DEFAULT = "/var/run/docker.sock"
_MOST_HEAD = 64 << 10
#: Seconds in which a daemon says who it is.
_PATIENCE = 20
_MOST_WORDS = 1 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """The daemon's answer to an archive: whether the daemon took the archive, and its words."""

    well: bool
    words: str


class SavedStream:
    """A docker-archive that the daemon sends, as a ``Stream``."""

    def __init__(self, connection: socket.socket, start: bytes, watch: Watch) -> None:
        self._connection = connection
        self._start = memoryview(start)
        self._watch = watch

    def read(self, length: int) -> bytes:
        """Return ``length`` bytes; fewer only at the end."""
        buffer = bytearray(length)
        count = self.readinto(memoryview(buffer))
        return bytes(buffer) if count == length else bytes(buffer[:count])

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` and return the number of bytes; fewer only at the end, also where the daemon broke off."""
        filled = min(len(buffer), len(self._start))
        buffer[:filled] = self._start[:filled]
        self._start = self._start[filled:]
        with suppress(ConnectionError), self._watch:
            while filled < len(buffer) and (count := self._connection.recv_into(buffer[filled:])):
                filled += count
        self._watch.judge()
        return filled


def socket_path(environment: Mapping[str, str]) -> str | None:
    """The path of the Docker command's socket; None unless the command uses a plain socket on this machine."""
    if host := environment.get("DOCKER_HOST"):
        return host.removeprefix("unix://") if host.startswith("unix:///") else None
    if environment.get("DOCKER_TLS_VERIFY") or environment.get("DOCKER_TLS"):
        return None  # the command then connects to a port
    if not (context := environment.get("DOCKER_CONTEXT")):
        try:
            folder = Path(environment.get("DOCKER_CONFIG") or Path.home() / ".docker")
            context = json.loads((folder / "config.json").read_bytes()).get("currentContext")
        except FileNotFoundError:
            context = None
        except (OSError, ValueError, AttributeError, RuntimeError):  # the last where nobody has that user's home
            return None
    return _DEFAULT if context in (None, "", "default") else None


def daemon_id(timeout: float = USUAL_ENGINE_TIMEOUT) -> str | None:
    """The ID of the daemon behind the socket, to compare with that of the daemon that the command talks to."""
    document = _get("/info", timeout)
    identity = document.get("ID") if isinstance(document, dict) else None
    return identity if isinstance(identity, str) and identity else None


def _get(target: str, timeout: float) -> object:
    """The document in the daemon's answer; None without a document."""
    if (path := socket_path(os.environ)) is None:
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as unix:
        unix.settimeout(min(_PATIENCE, timeout or _PATIENCE))
        try:
            unix.connect(path)
            connection = http.client.HTTPConnection("docker")
            connection.sock = unix
            connection.request("GET", target)
            return json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError):
            return None


def load_archive(
    archive: Iterable[bytes], answers: Callable[[], bool], timeout: float = USUAL_ENGINE_TIMEOUT
) -> Answer | None:
    """Feed a docker-archive to the daemon, and return its answer; None where the command has to be used.

    In that case nothing was taken from ``archive``. If ``archive`` raises, the daemon gets no end of it and keeps
    nothing. ``answers`` returns whether the daemon still answers; raises EngineSilent where it does not.
    """
    if (path := socket_path(os.environ)) is None:
        return None
    log.debug("loading through the socket %s", path)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as unix,
        _watch_connection(unix, answers, timeout) as watch,
    ):
        try:
            unix.connect(path)
        except OSError:
            return None
        connection = http.client.HTTPConnection("docker")
        connection.sock = unix
        fields = {"Content-Type": "application/x-tar", "Transfer-Encoding": "chunked"}
        with suppress(BrokenPipeError, ConnectionResetError):  # it refuses before it has all; then it says why
            connection.request(
                "POST", "/images/load?quiet=1", _watched_chunks(archive, watch), fields, encode_chunked=True
            )
        try:
            with watch:
                response = connection.getresponse()
                return _answer_of(response.status, response.read(_MOST_WORDS))
        except (OSError, http.client.HTTPException) as error:
            watch.judge()
            return Answer(False, f"the Docker daemon broke off: {error!r}")


def _watched_chunks(archive: Iterable[bytes], watch: Watch) -> Iterator[bytes]:
    """Yield the chunks of ``archive``, and watch the daemon while it takes each."""
    for chunk in archive:
        with watch:
            yield chunk


@contextmanager
def _watch_connection(connection: socket.socket, answers: Callable[[], bool], timeout: float) -> Iterator[Watch]:
    """Watch a connection, and shut it where the daemon is silent for too long."""
    watch = Watch("the Docker daemon", timeout, partial(_shut, connection), answers)
    try:
        yield watch
    finally:
        watch.close()


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _answer_of(status: int, body: bytes) -> Answer:
    """The answer in a response, which has a line of JSON for each message, also for errors on the way."""
    words, well = [], status == http.HTTPStatus.OK
    for line in body.splitlines():
        try:
            said = json.loads(line)
            well = well and "error" not in said
            words.append(said.get("stream") or said.get("error") or said.get("message") or "")
        except (ValueError, AttributeError, TypeError):
            words.append(line.decode(errors="replace"))
    return Answer(well, "".join(map(str, words)).strip())


def lacks_platforms(image: str, timeout: float = USUAL_ENGINE_TIMEOUT) -> bool:
    """Return True if the daemon says that platforms of an image's index are missing.

    Daemons before API 1.48 say nothing of that.
    """
    document = _get(f"/v1.48/images/{urllib.parse.quote(image, safe='')}/json?manifests=1", timeout)
    manifests = document.get("Manifests") if isinstance(document, dict) else None
    return any(
        isinstance(each, dict) and each.get("Kind") == "image" and each.get("Available") is False
        for each in manifests or ()
    )


@contextmanager
def open_save(
    images: Sequence[str],
    answers: Callable[[], bool],
    platform: Platform | None = None,
    timeout: float = USUAL_ENGINE_TIMEOUT,
) -> Iterator[SavedStream | None]:
    """Open the archive that the daemon saves, of the images for ``platform`` if given; None: use the command.

    ``answers`` returns whether the daemon still answers; raises EngineSilent where it does not.
    """
    path = socket_path(os.environ)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection,
        _watch_connection(connection, answers, timeout) as watch,
    ):
        stream = _request_save(connection, path, _save_target(images, platform), watch) if path else None
        log.debug("saving %s %s", " ".join(images), f"through the socket {path}" if stream else "by the command")
        yield stream


def _save_target(images: Sequence[str], platform: Platform | None) -> str:
    query = [("names", image) for image in images]
    if platform is None:
        return f"/images/get?{urllib.parse.urlencode(query)}"
    fields = {"os": platform.os, "architecture": platform.architecture, "variant": platform.variant}
    query.append(("platform", json.dumps({key: value for key, value in fields.items() if value})))
    return f"/v1.48/images/get?{urllib.parse.urlencode(query)}"


def _request_save(connection: socket.socket, path: str, target: str, watch: Watch) -> SavedStream | None:
    # Of HTTP/1.0, in which the body is the plain bytes up to the end of the connection.
    try:
        connection.connect(path)
        connection.sendall(f"GET {target} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
        received = b""
        while b"\r\n\r\n" not in received:
            with watch:
                piece = connection.recv(_MOST_HEAD)
            watch.judge()
            if not piece or len(received) > _MOST_HEAD:
                return None
            received += piece
    except OSError:
        return None
    head, _, start = received.partition(b"\r\n\r\n")
    status_line, *fields = head.lower().split(b"\r\n")
    plain = not any(field.startswith(b"transfer-encoding:") for field in fields)
    return SavedStream(connection, start, watch) if status_line.split()[1:2] == [b"200"] and plain else None

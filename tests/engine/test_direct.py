# SPDX-License-Identifier: Apache-2.0
"""Saving straight from the daemon's socket: when it is done, when the command is asked instead, and what comes."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from arv_docker.engine import direct
from arv_docker.engine.docker import Docker
from arv_docker.errors import BadArchive, EngineNotRunning

OK = b"HTTP/1.0 200 OK\r\nContent-Type: application/x-tar\r\n\r\n"


class Daemon:
    """Answers one request on a socket with `pieces`, each sent by itself."""

    def __init__(self, path: Path, pieces: list[bytes]) -> None:
        self.request = b""
        self._pieces = pieces
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen(1)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection, self._socket:
            while b"\r\n\r\n" not in self.request:
                self.request += connection.recv(4096)
            for piece in self._pieces:
                connection.sendall(piece)


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Daemon]]:
    path = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    made = []

    def make(*pieces: bytes) -> Daemon:
        made.append(Daemon(path, list(pieces)))
        return made[-1]

    yield make
    for it in made:
        it.thread.join(5)


def test_the_bytes_come_as_they_are(daemon: Callable[..., Daemon]) -> None:
    content = bytes(range(256)) * 1000
    it = daemon(OK[:20], OK[20:] + content[:7], content[7:100_000], content[100_000:])
    with direct.saving(["sha256:ab", "app:1"]) as stream:
        assert stream is not None
        buffer = bytearray(1000)
        assert stream.readinto(memoryview(buffer)) == 1000
        assert bytes(buffer) == content[:1000]
        assert stream.read(50_000) == content[1000:51_000]
        assert stream.read(1 << 20) == content[51_000:]
        assert stream.read(10) == b""
    assert it.request.startswith(b"GET /images/get?names=sha256%3Aab&names=app%3A1 HTTP/1.0\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        b'HTTP/1.0 404 Not Found\r\n\r\n{"message":"no such image"}',
        b"HTTP/1.0 500 Internal Server Error\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"nonsense\r\n\r\n",
        b"",
        b"x" * 100_000,
    ],
)
def test_whatever_is_not_plain_is_left_to_the_command(daemon: Callable[..., Daemon], answer: bytes) -> None:
    daemon(answer)
    with direct.saving(["app:1"]) as stream:
        assert stream is None


def test_no_daemon_is_left_to_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with direct.saving(["app:1"]) as stream:
        assert stream is None


def config(text: str) -> Callable[[Path], dict[str, str]]:
    def environment(folder: Path) -> dict[str, str]:
        (folder / "config.json").write_text(text)
        return {"DOCKER_CONFIG": str(folder)}

    return environment


@pytest.mark.parametrize(
    ("environment", "path"),
    [
        (lambda folder: {"DOCKER_HOST": "unix:///a/b.sock"}, "/a/b.sock"),
        (lambda folder: {"DOCKER_HOST": "tcp://10.0.0.1:2375"}, None),
        (lambda folder: {"DOCKER_HOST": "ssh://host"}, None),
        (lambda folder: {"DOCKER_HOST": "unix://relative.sock"}, None),
        (lambda folder: {"DOCKER_CONTEXT": "elsewhere"}, None),
        (lambda folder: {"DOCKER_CONTEXT": "default"}, "/var/run/docker.sock"),
        (lambda folder: {"DOCKER_CONFIG": str(folder)}, "/var/run/docker.sock"),
        (config(json.dumps({"auths": {}})), "/var/run/docker.sock"),
        (config(json.dumps({"currentContext": "default"})), "/var/run/docker.sock"),
        (config(json.dumps({"currentContext": "rootless"})), None),
        (config("not JSON"), None),
        (config("[]"), None),
    ],
)
def test_which_socket(environment: Callable[[Path], dict[str, str]], path: str | None, tmp_path: Path) -> None:
    """What the command's own settings lead to; another context than the default is the command's business."""
    assert direct.socket_path(environment(tmp_path)) == path


def test_a_daemon_that_is_gone_is_told_as_that(daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """The archive is cut short then, which would be told of otherwise."""
    command = tmp_path / "docker"
    command.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon at unix:///x.' >&2\nexit 1\n")
    command.chmod(0o755)
    daemon(OK, b"half of an archive")
    with pytest.raises(EngineNotRunning):
        _read_half(Docker(str(command)))


def _read_half(docker: Docker) -> None:
    with docker.save(["app:1"]) as stream:
        while stream.read(1000):
            pass
        raise BadArchive("the archive is cut short")

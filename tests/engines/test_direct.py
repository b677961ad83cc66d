# SPDX-License-Identifier: Apache-2.0
"""Saving and loading at the daemon's socket: when it is done, when the command is asked instead, and what comes."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from arv_docker.engines import direct
from arv_docker.engines.docker import Docker
from arv_docker.errors import BadArchive, EngineError, EngineNotRunning

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
            while not self.heard:
                if not (piece := connection.recv(4096)):
                    return
                self.request += piece
            for piece in self._pieces:
                connection.sendall(piece)

    @property
    def heard(self) -> bool:
        """Whether it answers now."""
        return b"\r\n\r\n" in self.request


Server = TypeVar("Server", bound=Daemon)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Docker is looked for."""
    path = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    return path


@pytest.fixture
def daemon(place: Path) -> Iterator[Callable[..., Daemon]]:
    yield from served(Daemon, place)


def served(kind: Callable[..., Server], place: Path) -> Iterator[Callable[..., Server]]:
    made = []

    def make(*pieces: bytes, **options: int) -> Server:
        made.append(kind(place, list(pieces), **options))
        return made[-1]

    yield make
    for it in made:
        it.thread.join(5)


def test_the_bytes_come_as_they_are(daemon: Callable[..., Daemon]) -> None:
    content = bytes(range(256)) * 1000
    it = daemon(OK[:20], OK[20:] + content[:7], content[7:100_000], content[100_000:])
    with direct.open_save(["sha256:ab", "app:1"], lambda: True) as stream:
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
    with direct.open_save(["app:1"], lambda: True) as stream:
        assert stream is None


def test_no_daemon_is_left_to_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with direct.open_save(["app:1"], lambda: True) as stream:
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
        (lambda folder: {"DOCKER_CONTEXT": "", **config(json.dumps({"currentContext": "remote"}))(folder)}, None),
        (lambda folder: {"DOCKER_TLS_VERIFY": "1"}, None),
        (lambda folder: {"DOCKER_TLS": "1"}, None),
        (lambda folder: {"DOCKER_TLS_VERIFY": "1", "DOCKER_HOST": "unix:///a/b.sock"}, "/a/b.sock"),
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


# -- loading ----------------------------------------------------------------------------


class Loading(Daemon):
    """Reads a request to its end, or as much as it cares for, and answers."""

    def __init__(self, path: Path, pieces: list[bytes], patience: int = 1 << 30) -> None:
        self._patience = patience
        super().__init__(path, pieces)

    @property
    def body(self) -> bytes:
        """What was sent in chunks, if it came to its end."""
        rest, content = self.request.partition(b"\r\n\r\n")[2], b""
        while True:
            size, _, rest = rest.partition(b"\r\n")
            if not int(size, 16):
                assert rest == b"\r\n"
                return content
            content += rest[: int(size, 16)]
            rest = rest[int(size, 16) + 2 :]

    @property
    def ended(self) -> bool:
        return self.request.endswith(b"\r\n0\r\n\r\n")

    @property
    def heard(self) -> bool:
        return self.ended or len(self.request) >= self._patience


@pytest.fixture
def loading(place: Path) -> Iterator[Callable[..., Loading]]:
    yield from served(Loading, place)


def answered(*lines: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nConnection: close\r\n\r\n".encode() + "\r\n".join(lines).encode()


def test_an_archive_goes_there_in_its_pieces(loading: Callable[..., Loading]) -> None:
    it = loading(answered('{"stream":"Loaded image ID: x\\n"}', '{"stream":"and more"}'))
    answer = direct.load_archive([b"one", b"", bytes(100_000), b"end"], lambda: True)
    assert answer == direct.Answer(True, "Loaded image ID: x\nand more")
    assert it.request.startswith(b"POST /images/load?quiet=1 HTTP/1.1\r\n")
    assert it.body == b"one" + bytes(100_000) + b"end"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (answered('{"errorDetail":{"message":"no space"},"error":"no space"}'), "no space"),
        (answered('{"stream":"so far. "}', '{"error":"no space"}'), "so far. no space"),
        (answered('{"message":"no space"}', status="500 Internal Server Error"), "no space"),
        (answered("no space", status="500 Internal Server Error"), "no space"),
        (answered("[]", "1", "null", status="500 Internal Server Error"), "[]1null"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nx", "broke off"),
        (b"", "broke off"),
        (b"nonsense\r\n\r\n", "broke off"),
    ],
)
def test_a_refusal_is_kept_in_its_words(loading: Callable[..., Loading], answer: bytes, words: str) -> None:
    loading(answer)
    said = direct.load_archive([b"archive"], lambda: True)
    assert said is not None
    assert not said.well
    assert words in said.words


@pytest.mark.parametrize("error", [BadArchive("a layer is not what it claims"), KeyboardInterrupt()])
def test_an_archive_that_breaks_off_has_no_end(loading: Callable[..., Loading], error: BaseException) -> None:
    def archive() -> Iterator[bytes]:
        yield b"first"
        raise error

    it = loading(answered('{"stream":"Loaded"}'))
    with pytest.raises(type(error)):
        direct.load_archive(archive(), lambda: True)
    it.thread.join(5)
    assert b"first" in it.request
    assert not it.ended


def test_a_daemon_that_refuses_before_the_end_says_why(loading: Callable[..., Loading]) -> None:
    loading(answered('{"message":"no space"}', status="500 Internal Server Error"), patience=100_000)
    said = direct.load_archive([bytes(1000)] * 10_000, lambda: True)
    assert said is not None
    assert not said.well


def test_no_daemon_is_left_to_the_command_with_the_whole_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = iter([b"archive"])
    for host in (f"unix://{tmp_path}/none.sock", "tcp://10.0.0.1:2375"):
        monkeypatch.setenv("DOCKER_HOST", host)
        assert direct.load_archive(archive, lambda: True) is None
    assert list(archive) == [b"archive"]


def test_a_refused_archive_is_the_engine_s_error(
    loading: Callable[..., Loading], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Docker, "_is_behind_the_socket", lambda self: True)
    loading(answered('{"error":"open blobs/sha256/ab: no such file or directory"}'))
    with pytest.raises(EngineError, match="docker load") as caught:
        Docker("docker").load([b"archive"])
    assert caught.value.detail == "open blobs/sha256/ab: no such file or directory"


@pytest.mark.parametrize(("info", "direct_load"), [("the-id", True), ("another", False), ("", False)])
def test_a_load_goes_to_the_daemon_of_the_command(
    info: str, direct_load: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that stands for another engine, as podman-docker's, is asked itself."""
    command = tmp_path / "docker"
    command.write_text(f"#!/bin/sh\n[ $1 = info ] && echo {info} || {{ cat >/dev/null; echo by the command; }}\n")
    command.chmod(0o755)
    monkeypatch.setattr(direct, "daemon_id", lambda timeout: "the-id")
    monkeypatch.setattr(direct, "load_archive", lambda archive, answers, timeout: direct.Answer(True, "by the socket"))
    words = Docker(str(command)).load([b"archive"])
    assert words.strip() == ("by the socket" if direct_load else "by the command")


@pytest.mark.parametrize(
    ("said", "known"), [('{"ID":"QZKV:XYZ"}', "QZKV:XYZ"), ("{}", None), ("[]", None), ("x", None)]
)
def test_who_a_daemon_is(daemon: Callable[..., Daemon], said: str, known: str | None) -> None:
    daemon(f"HTTP/1.1 200 OK\r\nContent-Length: {len(said)}\r\n\r\n{said}".encode())
    assert direct.daemon_id() == known

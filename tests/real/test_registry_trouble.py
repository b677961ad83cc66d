# SPDX-License-Identifier: Apache-2.0
"""Requests and seconds that a host in trouble costs a command, whatever leads to that host.

The table in docs/internals/registry.md is what this prints. With `TEST_ARV_DOCKER` set to the command of another
version, that one is measured, and nothing is demanded of it.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ..archives import classic, image
from ..registry.scripted import Conversation, Registry, TokenServer, running
from .engines import noise
from .sites import command, finished, show, started

IMAGE = image(noise(200_000), b"second".ljust(1024), os="linux", architecture="amd64")
OTHER = os.environ.get("TEST_ARV_DOCKER")

ROLES = ("registry", "token server", "storage", "mirror", "mirror and registry")


@dataclass
class Trouble:
    """A host that does not answer as it should, and the requests that it saw."""

    host: str
    seen: list[float] = field(default_factory=list)


@contextmanager
def host_that(act: Callable[[socket.socket], None]) -> Iterator[Trouble]:
    """A host that does `act` with each connection, and counts them."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        trouble = Trouble(f"127.0.0.1:{listening.getsockname()[1]}")
        over = threading.Event()

        def converse(connection: socket.socket) -> None:
            with suppress(OSError), connection:
                while connection.recv(1 << 16):
                    trouble.seen.append(time.monotonic())
                    act(connection)

        def serve() -> None:
            while not over.is_set():
                with suppress(OSError):
                    connection, _ = listening.accept()
                    threading.Thread(target=converse, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield trouble
        finally:
            over.set()
            socket.create_connection(listening.getsockname()).close()
            thread.join()


def die(connection: socket.socket) -> None:
    """Break off each request."""
    connection.shutdown(socket.SHUT_RDWR)


def be_silent(_: socket.socket) -> None:
    """Take each request, and say nothing."""


def be_busy(connection: socket.socket) -> None:
    """Ask for another time."""
    connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}")


def ask_to_wait(connection: socket.socket) -> None:
    """Say how long to wait."""
    connection.sendall(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 2\r\nContent-Length: 2\r\n\r\n{}")


def drip(connection: socket.socket) -> None:
    """Send a line of the head now and then, so that no timeout of one read ever ends."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        time.sleep(1)
        connection.sendall(b"X-More: x\r\n")


KINDS = {"dead": die, "silent": be_silent, "busy": be_busy, "asks to wait": ask_to_wait, "drips": drip}


def arv_docker(*words: str | Path) -> list[str]:
    return [OTHER, *map(str, words)] if OTHER else command(*words)


@dataclass
class Measured:
    """A command that met a host in trouble."""

    status: int
    requests: int
    seconds: float
    said: str


def measure(role: str, kind: str, verb: str, folder: Path) -> Measured:
    """Run the command against servers of its own, one of which is in trouble."""
    registry, tokens = Registry(), TokenServer()
    registry.add("app:1", IMAGE)
    folder.mkdir()
    archive = folder / "app.tar"
    archive.write_bytes(classic(IMAGE))
    with host_that(KINDS[kind]) as trouble, running(registry, tokens):
        host, environment = registry.host, {**os.environ, "HOME": str(folder), "XDG_CACHE_HOME": f"{folder}/cache"}
        if role == "token server":
            registry.bearer = tokens
            tokens_url = f"http://{trouble.host}"
            tokens.url = tokens_url
        elif role == "storage":

            def to_storage(conversation: Conversation) -> bool:
                is_blob = conversation.command == "GET" and "/blobs/" in conversation.path
                return is_blob and conversation.answer(307, Location=f"http://{trouble.host}{conversation.path}")

            registry.fault = to_storage
        elif role == "registry":
            host = trouble.host
        else:
            host = trouble.host if role == "mirror and registry" else host
            environment["ARV_DOCKER_REGISTRY_MIRRORS"] = f"{host}={trouble.host}"
        reference = f"docker://{host}/app:1"
        words = ("inspect", reference) if verb == "read" else ("copy", f"docker-archive:{archive}", f"{reference}2")
        start = time.monotonic()
        done = finished(started(arv_docker(*words, "--insecure"), environment), timeout=1800)
        return Measured(done.status, len(trouble.seen), time.monotonic() - start, done.err)


@pytest.mark.long
@pytest.mark.parametrize("verb", ["read", "push"])
def test_a_host_in_trouble_costs_six_requests_and_less_than_90_seconds(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All at the same time, for those that are silent take more than a minute each."""
    roles = ROLES if verb == "read" else ROLES[:2]
    pairs = [(role, kind) for role in roles for kind in KINDS]
    results: dict[tuple[str, str], Measured] = {}

    def note(number: int, role: str, kind: str) -> None:
        results[role, kind] = measure(role, kind, verb, tmp_path / str(number))

    threads = [threading.Thread(target=note, args=(number, *pair)) for number, pair in enumerate(pairs)]
    for thread in threads:
        thread.start()
        time.sleep(0.5)  # so that starting them is no part of what is measured
    for thread in threads:
        thread.join()
    show(capsys, *(f"{verb}: {kind} {role}: {it.requests}, {it.seconds:.0f} s" for (role, kind), it in results.items()))
    assert sorted(results) == sorted(pairs)
    if OTHER:
        return
    for (role, kind), measured in results.items():
        assert measured.status == (0 if role == "mirror" else 9), (role, kind, measured)
        most = 6 + 2 * (role == "mirror and registry")  # the mirror's two, which is the same host here
        assert measured.requests <= most, (role, kind, measured)
        assert measured.seconds < 90, (role, kind, measured)

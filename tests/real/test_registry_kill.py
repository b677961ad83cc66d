# SPDX-License-Identifier: Apache-2.0
"""A push that is killed or interrupted anywhere leaves a whole image under its name, or none; the next completes it."""

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from ..archives import classic, image
from ..registry.conftest import registry
from ..registry.scripted import Conversation, Registry, sha256
from .sites import command, finished, started

__all__ = ["registry"]

IMAGE = image(b"first".ljust(4096), b"second".ljust(2048), os="linux")


@pytest.fixture
def line(registry: Registry, tmp_path: Path) -> list[str]:
    """The command that pushes the image as app:1."""
    (tmp_path / "app.tar").write_bytes(classic(IMAGE))
    return command("registry", "push", "--insecure", registry.host, f"docker-archive:{tmp_path}/app.tar", "app:1")


def complete(registry: Registry) -> bool | None:
    """Whether everything is there that the name leads to; None without the name."""
    if ("app", "1") not in registry.manifests:
        return None
    return {sha256(IMAGE.config)} <= registry.repositories["app"] and len(registry.repositories["app"]) == 3


def test_killed_in_each_request(registry: Registry, line: list[str]) -> None:
    processes: list[subprocess.Popen[str]] = []
    kill_at = [0]
    lock = threading.Lock()

    def fault(conversation: Conversation) -> bool:
        with lock:
            if kill_at[0] and len(registry.seen) >= kill_at[0]:
                processes[-1].kill()
                conversation.close_connection = True
                return True
        return False

    registry.fault = fault
    for number in (*range(1, 40, 2), 0):
        for held in (registry.seen, registry.repositories, registry.manifests, registry.uploads):
            held.clear()
        kill_at[0] = number
        processes.append(started(line))
        done = finished(processes[-1])
        if done.status == 0:
            break
        assert done.status == -signal.SIGKILL, done.told
        assert complete(registry) is None
        if number % 4 == 1:
            kill_at[0] = 0
            again = finished(started(line))
            assert (again.status, again.out) == (0, "app:1\n"), again.told
            assert complete(registry)
    assert done.status == 0, done.told
    assert complete(registry)
    assert number > 8


def test_interrupted_while_the_registry_is_silent(registry: Registry, line: list[str]) -> None:
    silent, ended = threading.Event(), threading.Event()

    def fault(conversation: Conversation) -> bool:
        if conversation.command == "PATCH":
            silent.set()
            ended.wait(60)
        return False

    registry.fault = fault
    process = started(line)
    try:
        assert silent.wait(60)
        os.kill(process.pid, signal.SIGINT)
        done = finished(process, timeout=20)
    finally:
        ended.set()
    assert (done.status, done.out) == (130, ""), done.told
    assert done.err.endswith("arv-docker: interrupted\n"), done.told
    assert complete(registry) is None

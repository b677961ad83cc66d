# SPDX-License-Identifier: Apache-2.0
"""An engine that hangs is an error in time; one that is silent while it works is not."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from arv_docker.api import open_engine
from arv_docker.engines import direct
from arv_docker.engines.docker import Docker
from arv_docker.engines.watch import Watch
from arv_docker.errors import BadSettings, EngineSilent
from arv_docker.model.reference import Reference

LIMIT = 0.3
#: Seconds in which a limit of a third of one has surely passed, however busy the machine is.
SOON = 20

Engine = Callable[..., Docker]


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Docker of which some calls sleep so long, and say something then."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")

    def made(timeout: float = LIMIT, **seconds: float) -> Docker:
        cases = "".join(f"  {call}) sleep {time};;\n" for call, time in seconds.items())
        script = tmp_path / "docker"
        script.write_text(f'#!/bin/sh\necho "$1" >>{tmp_path}/calls\ncase "$1" in\n{cases}esac\necho done\n')
        script.chmod(0o755)
        return Docker(command=str(script), timeout=timeout)

    return made


def read(docker: Docker) -> bytes:
    with docker.save(["app:1"]) as stream:
        return stream.read(100)


@pytest.mark.conforms("G19")
@pytest.mark.parametrize(
    "asked",
    [
        lambda docker: docker.version(),
        lambda docker: docker.list(),
        lambda docker: docker.inspect(Reference.parse("app:1")),
        lambda docker: docker.pull(Reference.parse("app:1")),
        lambda docker: docker.load([bytes(1 << 20)] * 5),
        read,
    ],
)
def test_one_that_hangs(engine: Engine, asked: Callable[[Docker], object]) -> None:
    docker = engine(version=600, images=600, image=600, pull=600, load=600, save=600)
    started = time.monotonic()
    with pytest.raises(EngineSilent, match=r"silent for 0\.3 seconds.*ARV_DOCKER_ENGINE_TIMEOUT"):
        asked(docker)
    assert time.monotonic() - started < SOON


@pytest.mark.conforms("G19")
def test_one_that_works_and_answers_is_waited_for(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = engine(save=1)
    asked: list[bool] = []
    # The script itself might not answer in time where the machine is busy.
    monkeypatch.setattr(docker, "_answers", lambda: not asked.append(True))  # type: ignore[func-returns-value]
    assert read(docker) == b"done\n"
    assert asked


@pytest.mark.conforms("G19")
def test_nothing_is_asked_before_it_is_needed_and_0_is_no_limit(engine: Engine, tmp_path: Path) -> None:
    docker = engine(timeout=0, version=1)
    assert not (tmp_path / "calls").exists()
    assert docker.version() == "done"


def test_the_limit_is_the_user_s_setting(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(version=600)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("ARV_DOCKER_ENGINE_TIMEOUT", str(LIMIT))
    with pytest.raises(EngineSilent, match=r"silent for 0\.3 seconds"):
        open_engine("docker").version()


@pytest.mark.parametrize("value", ["soon", "-1", "inf", "nan"])
def test_what_is_no_limit(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    engine()
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("ARV_DOCKER_ENGINE_TIMEOUT", value)
    with pytest.raises(BadSettings, match="ARV_DOCKER_ENGINE_TIMEOUT"):
        open_engine("docker").version()
    assert not (tmp_path / "calls").exists()  # said before anything is started


class Deaf:
    """A daemon that takes connections, and says nothing, or only the beginning of an answer."""

    def __init__(self, path: Path, beginning: bytes = b"") -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen(8)
        self._beginning = beginning

    def answer(self) -> None:
        """Answers the first that comes, until that one goes."""
        connection, _ = self.socket.accept()
        with connection:
            connection.sendall(self._beginning)
            while connection.recv(1 << 16):
                pass


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    return tmp_path / "docker.sock"


@pytest.mark.conforms("G19")
def test_a_daemon_that_hangs_at_once(path: Path) -> None:
    with (
        Deaf(path).socket,
        pytest.raises(EngineSilent, match="the Docker daemon"),
        direct.open_save(["x"], lambda: False, timeout=LIMIT),
    ):
        pass
    assert direct.daemon_id(LIMIT) is None


@pytest.mark.conforms("G19")
def test_a_daemon_that_hangs_in_the_middle_of_a_save(path: Path) -> None:
    daemon = Deaf(path, b"HTTP/1.0 200 OK\r\n\r\nabc")
    answered = threading.Thread(target=daemon.answer)
    answered.start()
    with daemon.socket, direct.open_save(["x"], lambda: False, timeout=LIMIT) as stream:
        assert stream is not None
        with pytest.raises(EngineSilent):
            stream.read(100)
    answered.join()


def test_a_daemon_that_hangs_in_the_middle_of_a_load(path: Path) -> None:
    with Deaf(path).socket, pytest.raises(EngineSilent):
        direct.load_archive([bytes(1 << 20)] * 5, lambda: False, LIMIT)


def test_a_daemon_that_says_nothing_of_what_it_was_given(path: Path) -> None:
    with Deaf(path).socket, pytest.raises(EngineSilent):
        direct.load_archive([b"little"], lambda: False, LIMIT)


def test_an_engine_is_asked_again_and_again() -> None:
    asked: list[float] = []
    ended: list[float] = []

    def answers() -> bool:
        asked.append(time.monotonic())
        return len(asked) < 3

    watch = Watch("it", 0.05, lambda: ended.append(time.monotonic()), answers)
    with watch:
        deadline = time.monotonic() + SOON
        while not ended and time.monotonic() < deadline:
            time.sleep(0.01)
    assert (len(asked), len(ended)) == (3, 1)
    with pytest.raises(EngineSilent):
        watch.judge()


def test_only_waiting_counts() -> None:
    ended: list[bool] = []
    watch = Watch("it", 0.05, lambda: ended.append(True))
    time.sleep(0.3)
    with watch:
        pass
    watch.close()
    watch.judge()
    assert not ended

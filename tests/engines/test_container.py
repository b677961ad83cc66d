# SPDX-License-Identifier: Apache-2.0
"""Containers by an engine's command: how they are started, what they say. The command here is a small script."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from arv_docker.engines.container import Container, Run, start_container
from arv_docker.engines.docker import Docker
from arv_docker.errors import EngineError, NoSuchImage, UsageError

from .scripts import ONE, Answer, calls_of, inspected, scripted

ID = "c0" * 32
Engine = Callable[..., Docker]


def state(status: str, exit_code: int = 0) -> Answer:
    return (0, json.dumps({"Status": status, "ExitCode": exit_code}) + "\n", "")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Docker with an image app:1, which starts, and these answers."""

    def made(answers: Mapping[str, Answer] | None = None) -> Docker:
        usual: dict[str, Answer] = {
            "image inspect": (0, inspected(), ""),
            "run": (0, f"{ID}\n", ""),
            "container inspect": state("running"),
        }
        monkeypatch.setenv("PATH", scripted(tmp_path / "bin", "docker", {**usual, **(answers or {})}))
        return Docker()

    return made


@pytest.mark.conforms("R15")
def test_all_that_can_be_said_reaches_the_command(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    docker = engine()
    real = docker.run

    def run(*arguments: str, patient: bool = False, unlogged: int = 0) -> object:
        seen.extend(Path(word.partition("=")[2]).read_text() for word in arguments if word.startswith("--env-file="))
        return real(*arguments, patient=patient, unlogged=unlogged)

    monkeypatch.setattr(docker, "run", run)
    container = start_container(
        docker,
        Run(
            "app:1",
            command=["sh", "-c", "true"],
            environment=["TOKEN=a-secret", "HOME"],
            ports={"8888/tcp": ("127.0.0.1", 8888), "1/udp": 1, "2/tcp": "3", "4/tcp": None, "5": ("::1", 6)},
            publish_all_ports=True,
            remove=True,
            volumes={str(tmp_path): ("/data", "ro")},
        ),
    )
    assert (container.id, container.status, container.exitcode) == (ID, "running", None)
    (words,) = (call for call in calls_of(tmp_path / "bin") if call[0] == "run")
    assert [word for word in words if not word.startswith(("--env-file=", "--cidfile="))] == [
        "run",
        "--detach",
        "--publish=127.0.0.1:8888:8888/tcp",
        "--publish=1:1/udp",
        "--publish=3:2/tcp",
        "--publish=4/tcp",
        "--publish=[::1]:6:5",
        f"--volume={tmp_path}:/data:ro",
        "--publish-all",
        "--rm",
        ONE,
        "sh",
        "-c",
        "true",
    ]
    assert seen == ["TOKEN=a-secret\nHOME\n"]


def test_a_container_that_does_not_start_is_taken_away(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines leave it behind, and whoever asked for it does not know its ID."""
    docker = engine({"run": (127, f"{ID}\n", "docker: no such program\n"), "rm": (0, "", "")})
    real = docker.run

    def run(*arguments: str, patient: bool = False, unlogged: int = 0) -> object:
        for noted in (word.partition("=")[2] for word in arguments if word.startswith("--cidfile=")):
            Path(noted).write_text(ID)
        return real(*arguments, patient=patient, unlogged=unlogged)

    monkeypatch.setattr(docker, "run", run)
    with pytest.raises(EngineError, match="failed with status 127"):
        start_container(docker, Run("app:1", command=["nosuch"]))
    assert calls_of(tmp_path / "bin")[-1] == ["rm", "--force", "--volumes", ID]


def test_a_container_that_was_not_even_made(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="failed with status 125"):
        start_container(engine({"run": (125, "", "docker: no network\n")}), Run("app:1"))
    assert calls_of(tmp_path / "bin")[-1][0] == "run"


def test_one_that_the_engine_removes_may_be_gone_at_once(engine: Engine) -> None:
    gone = (1, "\n", "Error: No such container: c0\n")
    container = start_container(engine({"container inspect": gone}), Run("app:1", remove=True))
    assert (container.id, container.status, container.exitcode) == (ID, "running", None)
    with pytest.raises(EngineError, match="No such container"):
        container.reload()


def test_an_image_that_is_not_there(engine: Engine) -> None:
    docker = engine({"image inspect": (1, "[]\n", "Error: No such image: x\n"), "images": (0, "", "")})
    with pytest.raises(NoSuchImage):
        start_container(docker, Run("nowhere:1"))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Run("app:1", environment=["A=1\n2"]), "'A'"),
        (Run("app:1", environment=["=1"]), "no name"),
        (Run("app:1", volumes={"/a:b": ("/c", "rw")}), "no colon"),
    ],
)
def test_what_cannot_be_said(engine: Engine, wanted: Run, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        start_container(engine(), wanted)


@pytest.mark.conforms("R15")
@pytest.mark.parametrize(
    ("says", "status", "exit_code"),
    [
        (state("created"), "created", None),
        (state("configured"), "created", None),
        (state("running"), "running", None),
        (state("exited", 3), "exited", 3),
        (state("stopped", 137), "exited", 137),
        (state("paused"), "paused", None),
    ],
)
def test_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: Answer, status: str, exit_code: int | None
) -> None:
    monkeypatch.setenv("PATH", scripted(tmp_path / "bin", "docker", {"container inspect": says}))
    container = Container(Docker(), ID)
    assert (container.status, container.exitcode) == (status, exit_code)


@pytest.mark.parametrize("answer", ["nonsense", "[]", "{}", '{"Status": "x", "ExitCode": null}'])
def test_a_state_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setenv("PATH", scripted(tmp_path / "bin", "docker", {"container inspect": (0, answer, "")}))
    with pytest.raises(EngineError, match="cannot be read"):
        Container(Docker(), ID)


@pytest.mark.conforms("R15")
def test_logs(engine: Engine, tmp_path: Path) -> None:
    container = Container(engine({"logs": (0, "one\n10 %\r20 %\n", "two\n")}), ID)
    assert sorted(str(container.logs()).split("\n")) == ["", "10 %\r20 %", "one", "two"]
    lines = list(container.logs(stream=True, timestamps=True, since="2024-01-02T03:04:05Z"))
    assert all(line.endswith("\n") for line in lines)
    assert calls_of(tmp_path / "bin")[-1] == ["logs", "--follow", "--timestamps", "--since=2024-01-02T03:04:05Z", ID]


def test_logs_that_cannot_be_had(engine: Engine) -> None:
    with pytest.raises(EngineError, match="logs of container c0c0c0c0c0c0 ended with 1"):
        Container(engine({"logs": (1, "", "Error: No such container: c0\n")}), ID).logs()


@pytest.mark.conforms("R15")
def test_what_is_done_to_it(engine: Engine, tmp_path: Path) -> None:
    well = dict.fromkeys(("kill", "stop", "wait", "rm"), (0, "", ""))
    container = Container(engine(well), ID)
    container.kill(signal="TERM")
    container.stop(timeout=3)
    container.wait()
    container.remove()
    assert calls_of(tmp_path / "bin")[1:] == [
        ["kill", "--signal=TERM", ID],
        ["stop", "-t=3", ID],
        ["wait", ID],
        ["rm", "--volumes", ID],
    ]

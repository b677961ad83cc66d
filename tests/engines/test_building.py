# SPDX-License-Identifier: Apache-2.0
"""Building: what the command is told, what comes of it, and logins for it. The command here is a small script."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import IO

import pytest

from arv_docker.engines import output
from arv_docker.engines.building import Build
from arv_docker.engines.docker import Docker
from arv_docker.engines.output import Ending, steady_lines
from arv_docker.engines.podman import Podman
from arv_docker.errors import BadSettings, BuildFailed, EngineError, EngineNotRunning
from arv_docker.model.image import Platform
from arv_docker.model.reference import Reference
from arv_docker.registry.credentials import Credentials

from .scripts import ONE, TWO, Answer, built_by, calls_of, inspected, scripted
from .test_process import gone

Made = Callable[..., Docker | Podman]
Kind = type[Docker] | type[Podman]

LOG = f"Step 1/2 : FROM scratch\n ---> {TWO[7:19]}\nSuccessfully built {TWO[7:19]}\nsha256:{TWO[7:]}\n"
WELL: Mapping[str, Answer] = {
    "build": (0, LOG, ""),
    "id": (0, ONE, ""),
    "image inspect": (0, inspected(), ""),
    "version": (0, "20.10\n", ""),
}
ALL = {
    "tag": Reference.parse("app:1"),
    "dockerfile": "binder/Dockerfile",
    "arguments": {"NB_USER": "ann", "EMPTY": ""},
    "labels": {"repo2docker.ref": "1234", "with": "a = b"},
    "platform": Platform("linux", "arm64", "v8"),
    "cache_from": ["registry.example/app:0", "registry.example/app:1"],
    "memory": "2g",
    "memory_swap": "-1",
    "cpu_shares": "512",
    "cpuset_cpus": "0-3",
    "network": "none",
}


@pytest.fixture(params=[Docker, Podman])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind) -> Made:
    """Docker or Podman with these answers."""

    def made(answers: Mapping[str, Answer] = WELL, kind: Kind = kind) -> Docker | Podman:
        monkeypatch.setenv("PATH", scripted(tmp_path / "bin", kind.name, answers))
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
        return kind()

    return made


def told(lines: Generator[str, None, object]) -> list[str]:
    return list(lines)


# -- what is told, and what comes of it ---------------------------------------------------


@pytest.mark.conforms("R11", "G18")
def test_all_that_can_be_said_reaches_the_command(engine: Made, tmp_path: Path, kind: Kind) -> None:
    (tmp_path / "context").mkdir()
    ending = Ending(engine().build(Build(tmp_path / "context", **ALL)))  # type: ignore[arg-type]
    assert "".join(ending) == LOG
    assert str(ending.value.id) == ONE  # as the engine noted it, whatever else the log says
    command = calls_of(tmp_path / "bin")[0]
    cached = (
        ["--cache-from=registry.example/app:0", "--cache-from=registry.example/app:1"]
        if kind is Docker
        else ["--cache-from=registry.example/app"]
    )
    assert [word for word in command if not word.startswith("--iidfile=")] == [
        "build",
        "--force-rm",
        "--tag=app:1" if kind is Docker else "--tag=localhost/app:1",
        *cached,
        f"--file={tmp_path}/context/binder/Dockerfile",
        "--platform=linux/arm64/v8",
        "--memory=2g",
        "--memory-swap=-1",
        "--cpu-shares=512",
        "--cpuset-cpus=0-3",
        "--network=none",
        "--build-arg=NB_USER=ann",
        "--build-arg=EMPTY=",
        "--label=repo2docker.ref=1234",
        "--label=with=a = b",
        f"{tmp_path}/context",
    ]


def test_what_the_environment_has_is_in_no_command_line(
    engine: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what commands otherwise do not find there."""
    for name in ("PASSWORD", "ARVADOS_API_TOKEN"):
        monkeypatch.setenv(name, "secret")
    told(engine().build(Build(tmp_path, arguments={"PASSWORD": None, "ARVADOS_API_TOKEN": None})))
    command = calls_of(tmp_path / "bin")[0]
    assert {"--build-arg=PASSWORD", "--build-arg=ARVADOS_API_TOKEN"} < set(command)
    assert "secret" not in " ".join(command)
    variables = built_by(tmp_path / "bin")["environment"]
    assert (variables["PASSWORD"], variables["ARVADOS_API_TOKEN"]) == ("secret", "secret")


def test_nothing_is_said_that_was_not_asked_for(engine: Made, tmp_path: Path) -> None:
    told(engine().build(Build(tmp_path)))
    assert [word for word in calls_of(tmp_path / "bin")[0] if not word.startswith("--iidfile=")] == [
        "build",
        "--force-rm",
        str(tmp_path),
    ]


@pytest.mark.conforms("R11")
def test_a_tar_is_what_the_command_finds_on_its_input(engine: Made, tmp_path: Path) -> None:
    (tmp_path / "context.tar").write_text("a tar")
    with (tmp_path / "context.tar").open("rb") as context:
        told(engine().build(Build(context, dockerfile="in/Dockerfile")))
    assert calls_of(tmp_path / "bin")[0][-2:] == ["--file=in/Dockerfile", "-"]
    found = built_by(tmp_path / "bin")
    assert found["stdin"] == "a tar"
    assert found["folder"] != str(Path.cwd())  # where Podman would look for the Dockerfile first
    assert not Path(found["folder"]).exists()


@pytest.mark.conforms("G18", "R8")
def test_a_build_that_fails(engine: Made, tmp_path: Path, kind: Kind) -> None:
    words = "".join(f"line {number}\n" for number in range(100))
    failing = {**WELL, "build": (17, words, "The command '/bin/false' returned a non-zero code: 1\n")}
    with pytest.raises(BuildFailed, match="could not build app:1") as caught:
        told(engine(failing).build(Build(tmp_path, tag=Reference.parse("app:1"))))
    assert kind.title in caught.value.message
    assert caught.value.exit_code == 11
    shown = caught.value.detail.splitlines()
    assert len(shown) == 30
    assert shown[-1] == "The command '/bin/false' returned a non-zero code: 1"
    assert shown[-2] == "line 99"


def test_an_engine_that_is_gone_is_no_failed_build(engine: Made, tmp_path: Path, kind: Kind) -> None:
    gone = "Cannot connect to the Docker daemon" if kind is Docker else "Cannot connect to Podman"
    with pytest.raises(EngineNotRunning):
        told(engine({"build": (1, "", gone), "version": (1, "", gone)}).build(Build(tmp_path)))


def test_words_of_a_step_are_not_taken_for_the_engine_s(engine: Made, tmp_path: Path) -> None:
    with pytest.raises(BuildFailed):
        told(engine({**WELL, "build": (1, "cp: permission denied\n", "")}).build(Build(tmp_path)))


@pytest.mark.parametrize("answer", [None, "nonsense"])
def test_an_engine_that_tells_no_id(engine: Made, tmp_path: Path, answer: str | None) -> None:
    answers = {key: value for key, value in WELL.items() if key != "id"}
    if answer is not None:
        answers["id"] = (0, answer, "")
    with pytest.raises(EngineError, match="no image ID"):
        told(engine(answers).build(Build(tmp_path)))


def test_a_builder_that_keeps_the_image_to_itself(engine: Made, tmp_path: Path) -> None:
    absent: Answer = (1, "[]\n", "Error: No such image: x, image not known\n")
    with pytest.raises(EngineError, match=r"does not hold it.*BUILDX_BUILDER=default"):
        told(engine({**WELL, "image inspect": absent, "images": (0, "", "")}).build(Build(tmp_path)))


# -- while it goes on ------------------------------------------------------------------------


def waiting(folder: Path, kind: Kind) -> Docker | Podman:
    """An engine that says a line and waits for a file before it says another."""
    folder.mkdir()
    program = folder / kind.name
    program.write_text(f"#!/bin/sh\necho $$ one\nwhile ! [ -e {folder}/go ]; do sleep 0.05; done\necho two\nexit 1\n")
    program.chmod(0o755)
    return kind(command=str(program))


@pytest.mark.conforms("R13")
def test_lines_come_as_they_are_said(tmp_path: Path, kind: Kind) -> None:
    lines = waiting(tmp_path / "bin", kind).build(Build(tmp_path))
    assert next(lines).endswith("one\n")
    (tmp_path / "bin" / "go").touch()
    assert next(lines) == "two\n"
    lines.close()


def test_a_generator_that_is_closed_ends_the_build(tmp_path: Path, kind: Kind) -> None:
    lines = steady_lines(waiting(tmp_path / "bin", kind).build(Build(tmp_path)))
    pid = int(next(lines).split()[0])
    lines.close()
    assert gone(pid)


def passing() -> Generator[str, None, int]:
    yield "one\n"
    yield "10 %\r"
    yield "20 %\r"
    yield "two\n"
    return 7


@pytest.mark.conforms("R13")
def test_lines_that_take_each_other_s_place_are_let_through_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    ending = Ending(steady_lines(passing()))
    assert list(ending) == ["one\n", "two\n"]
    assert ending.value == 7
    monkeypatch.setattr(output, "_PASSING", 0)
    assert told(steady_lines(passing())) == ["one\n", "10 %\n", "20 %\n", "two\n"]


# -- logins ----------------------------------------------------------------------------------

SECRET = "a-secret-word"
LOGINS = {"registry.example": Credentials("ann", SECRET), "docker.io": Credentials("bob", SECRET)}
HUB = "https://index.docker.io/v1/"


def entry(name: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{name}:{SECRET}".encode()).decode()}


def with_context(tmp_path: Path) -> Build:
    (tmp_path / "context").mkdir()
    return Build(tmp_path / "context", logins=LOGINS)


@pytest.mark.conforms("R14")
def test_a_login_is_for_one_build_and_leaves_no_trace(engine: Made, tmp_path: Path, home: Path) -> None:
    told(engine().build(with_context(tmp_path)))
    found = built_by(tmp_path / "bin")
    (text,) = filter(None, (found["DOCKER_CONFIG"], found["REGISTRY_AUTH_FILE"]))
    assert json.loads(text)["auths"] == {"registry.example": entry("ann"), HUB: entry("bob")}
    assert SECRET not in json.dumps(calls_of(tmp_path / "bin"))
    assert SECRET not in json.dumps(found["environment"])
    assert entry("ann")["auth"] not in json.dumps(found["environment"])
    assert [path.name for path in home.iterdir()] == [".run"]
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE"):
        assert not Path(found["environment"].get(name, "/nowhere")).exists()


@pytest.mark.conforms("R14")
def test_docker_s_own_configuration_counts_and_stays(
    engine: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "docker"
    (config / "cli-plugins").mkdir(parents=True)
    (config / "cli-plugins" / "docker-buildx").touch()
    text = json.dumps(
        {
            "auths": {"other.example": {"auth": "x"}, "registry.example": {"auth": "old"}},
            "credsStore": "desktop",
            "currentContext": "there",
        }
    )
    (config / "config.json").write_text(text)
    monkeypatch.setenv("DOCKER_CONFIG", str(config))
    docker = engine(kind=Docker)
    (tmp_path / "made").mkdir()
    with_logins = docker.variables(tmp_path / "made", LOGINS)
    made = Path(with_logins["DOCKER_CONFIG"])
    assert (made / "cli-plugins" / "docker-buildx").exists()
    assert (made / "config.json").stat().st_mode & 0o077 == 0
    assert made.stat().st_mode & 0o077 == 0
    assert json.loads((made / "config.json").read_text()) == {
        "auths": {"other.example": {"auth": "x"}, "registry.example": entry("ann"), HUB: entry("bob")},
        "credHelpers": {"registry.example": "", HUB: ""},
        "credsStore": "desktop",
        "currentContext": "there",
    }
    assert (config / "config.json").read_text() == text


@pytest.mark.conforms("R14")
def test_podman_s_own_files_count_and_stay(
    engine: Made, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, name, helpers in (
        (".run", "first", {"registry.example": "x"}),
        (".config", "second", {"e.example": "y"}),
    ):
        folder = home / place / "containers"
        folder.mkdir(parents=True)
        auths = {"both.example": {"auth": name}, f"{name}.example": {"auth": name}}
        (folder / "auth.json").write_text(json.dumps({"auths": auths, "credHelpers": helpers}))
    made = Path(engine(kind=Podman).variables(tmp_path, LOGINS)["REGISTRY_AUTH_FILE"])
    assert made.stat().st_mode & 0o077 == 0
    assert json.loads(made.read_text()) == {
        "auths": {
            "both.example": {"auth": "first"},
            "first.example": {"auth": "first"},
            "second.example": {"auth": "second"},
            "registry.example": entry("ann"),
            HUB: entry("bob"),
        },
        "credHelpers": {"e.example": "y"},
    }


def test_a_configuration_that_cannot_be_read(engine: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("[]")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "config.json"))
    with pytest.raises(BadSettings, match=r"config\.json"):
        told(engine().build(with_context(tmp_path)))


def test_a_file_of_python_is_no_surprise(tmp_path: Path) -> None:
    """A context that is a file is told as what the command reads."""
    with (tmp_path / "x").open("w+b") as file:
        context: IO[bytes] = file
        assert Build(context, dockerfile="D").options == ["--file=D"]
        assert Build(context).source == "-"

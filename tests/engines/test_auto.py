# SPDX-License-Identifier: Apache-2.0
"""Which engine is taken when none is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arv_docker.engines.auto import Auto
from arv_docker.engines.building import Build
from arv_docker.engines.output import Ending
from arv_docker.errors import (
    AmbiguousImage,
    ArvDockerError,
    EngineError,
    EngineNotRunning,
    EnginePermissionDenied,
    NoEngine,
    NoSuchImage,
)
from arv_docker.model.reference import Reference

from ..archives import files_of, image
from ..transports.fake_engine import FakeEngine

APP = image(files_of(b"app"), os="linux")
NAME = Reference.parse("app:1")


def engine(name: str, *images: Any) -> FakeEngine:
    made = FakeEngine(*images)
    made.name = name
    return made


def failing(error: ArvDockerError) -> Callable[[], Any]:
    def make() -> Any:
        raise error

    return make


def auto(*engines: FakeEngine | Callable[[], Any]) -> tuple[Auto, list[str]]:
    said: list[str] = []
    makers: list[Any] = [(lambda it=it: it) if isinstance(it, FakeEngine) else it for it in engines]
    return Auto(makers, said.append), said


def test_the_first_that_has_the_image() -> None:
    for engines, chosen in (
        ((engine("docker", APP), engine("podman", APP)), "docker"),
        ((engine("docker"), engine("podman", APP)), "podman"),
        ((failing(NoEngine("not there")), engine("podman", APP)), "podman"),
        ((failing(EngineNotRunning("it sleeps")), engine("podman", APP)), "podman"),
        ((failing(EnginePermissionDenied("not for you")), engine("podman", APP)), "podman"),
    ):
        found, said = auto(*engines)
        assert found.inspect(NAME).id == APP.parsed.digest
        assert said == [f"using {chosen}"]
        assert found.name == chosen


def test_it_stays_with_it() -> None:
    docker, podman = engine("docker"), engine("podman", APP)
    found, said = auto(docker, podman)
    found.inspect(NAME)
    with found.save([str(APP.parsed.digest)]) as stream:
        assert stream.read(10)
    found.tag(APP.parsed.digest, Reference.parse("app:2"))
    found.pull(NAME)
    assert (docker.calls, podman.calls) == ([], ["save", "tag", "pull"])
    with pytest.raises(NoSuchImage):
        found.inspect(Reference.parse("other"))
    assert said == ["using podman"]


def test_what_needs_no_image_is_done_by_the_first_that_answers() -> None:
    podman = engine("podman")
    found, said = auto(failing(NoEngine("not there")), podman)
    assert found.version() == podman.version()
    assert found.chains() == set()
    assert found.list() == []
    with pytest.raises(EngineError):
        found.load([b"no archive"])
    assert said == ["using podman"]


def test_no_engine_has_it() -> None:
    found, said = auto(engine("docker"), failing(EngineNotRunning("podman sleeps")))
    with pytest.raises(NoSuchImage, match="no image") as caught:
        found.inspect(NAME)
    assert "podman sleeps" in caught.value.detail
    assert said == []


def test_no_engine_is_there() -> None:
    found, _ = auto(failing(NoEngine("no docker")), failing(EngineNotRunning("podman sleeps")))
    with pytest.raises(EngineNotRunning, match="podman sleeps") as caught:
        found.inspect(NAME)
    assert caught.value.detail == "no docker"
    found, _ = auto(failing(NoEngine("no docker")), failing(NoEngine("no podman")))
    with pytest.raises(NoEngine, match="no docker"):
        found.version()


@pytest.mark.parametrize("error", [EngineError("it broke"), AmbiguousImage("two of them")])
def test_another_failure_is_not_passed_over(error: ArvDockerError) -> None:
    """It may be of the engine that has the image."""
    found, _ = auto(failing(error), engine("podman", APP))
    with pytest.raises(type(error)):
        found.inspect(NAME)


def test_an_image_is_built_by_the_first_that_answers(tmp_path: Path) -> None:
    podman = engine("podman", APP)
    found, said = auto(failing(NoEngine("not there")), podman)
    ending = Ending(found.build(Build(tmp_path)))
    assert list(ending) == ["Step 1/1 : FROM scratch\n"]
    assert ending.value.id == APP.parsed.digest
    assert (said, podman.builds) == (["using podman"], [Build(tmp_path)])

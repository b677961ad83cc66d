# SPDX-License-Identifier: Apache-2.0
"""`arv-docker doctor`: what it says of the engine."""

from __future__ import annotations

import json

import pytest

from arv_docker import cli
from arv_docker.errors import NoEngine
from arv_docker.model.image import Platform
from arv_docker.model.manifest import processor_of

from ..arvados.fake_api import FakeApi
from ..transports.fake_engine import FakeEngine
from .conftest import Run


def found(run: Run) -> dict[str, dict[str, object]]:
    return {it["what"]: it for it in json.loads(run("doctor", "--json").out)}


def said(run: Run) -> dict[str, object]:
    return found(run)["engine"]


@pytest.mark.conforms("W23")
def test_the_engine_with_its_version_and_platform(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    assert said(run) == {"what": "engine", "well": True, "says": "docker 1 on linux/amd64 (x86_64)"}


@pytest.mark.conforms("W23")
def test_an_engine_that_is_not_there(api: FakeApi, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(args: object) -> None:
        raise NoEngine("no Docker command is on PATH.", detail="its words")

    monkeypatch.setattr(cli, "engine", missing)
    assert said(run) == {"what": "engine", "well": False, "says": "no Docker command is on PATH.\nits words"}


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("formats", [["v1"], []])
def test_a_cluster_that_would_refuse_images(api: FakeApi, run: Run, formats: list[str]) -> None:
    assert found(run)["cluster"]["well"] is True
    api._rootDesc["dockerImageFormats"] = formats
    assert found(run)["cluster"]["well"] is False
    assert "does not accept images of format v2" in str(found(run)["cluster"]["says"])


@pytest.mark.parametrize(("name", "other"), [("amd64", "x86_64"), ("arm64", "aarch64"), ("riscv64", "riscv64")])
def test_processors_have_two_names(name: str, other: str) -> None:
    assert processor_of(Platform("linux", name)) == other

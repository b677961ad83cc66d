# SPDX-License-Identifier: Apache-2.0
"""`arv-docker build`: what is built, stored and printed, and what is refused before anything is done."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from arv_docker.arvados.catalog.link_classes import REPO_TAG
from arv_docker.engines import EngineImage
from arv_docker.engines.building import Build
from arv_docker.errors import BuildFailed
from arv_docker.model.image import Platform

from ..arvados.fake_api import PROJECT, FakeApi
from ..transports.fake_engine import FakeEngine
from .conftest import APP, Run

ID = str(APP.parsed.digest)

BUILD = 11


@pytest.fixture(autouse=True)
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder has a Dockerfile in one, and a tar of it."""
    monkeypatch.chdir(tmp_path)
    Path("app").mkdir()
    Path("app/Dockerfile").write_text("FROM scratch\n")
    Path("app.tar").write_text("a tar")


@pytest.mark.conforms("G18")
def test_an_image_is_built_and_its_id_printed(engine: FakeEngine, api: FakeApi, run: Run, tmp_path: Path) -> None:
    outcome = run("build", "-t", "made:2", "app")
    assert (outcome.code, outcome.out) == (0, f"{ID}\n")
    assert "Step 1/1 : FROM scratch\n" in outcome.err
    (build,) = engine.builds
    assert (build.context, str(build.tag), build.dockerfile) == (Path("app"), "made:2", "")
    assert not api.records["collections"]
    assert api.total == 0


def test_all_that_can_be_said(engine: FakeEngine, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HERE", "here")
    outcome = run(
        *("build", "-f", "other/Dockerfile", "--build-arg", "A=b=c", "--build-arg", "FROM_HERE"),
        *("--label", "l=1", "--platform", "linux/arm64", "--cache-from", "x:1", "--cache-from", "y"),
        *(
            "--memory",
            "2g",
            "--memory-swap",
            "-1",
            "--cpu-shares",
            "5",
            "--cpuset-cpus",
            "0-3",
            "--network",
            "none",
            "app",
        ),
    )
    assert outcome.code == 0, outcome.err
    assert engine.builds == [
        Build(
            Path("app"),
            dockerfile=str(tmp_path / "other/Dockerfile"),
            arguments={"A": "b=c", "FROM_HERE": None},
            labels={"l": "1"},
            platform=Platform("linux", "arm64"),
            cache_from=["x:1", "y"],
            memory="2g",
            memory_swap="-1",
            cpu_shares="5",
            cpuset_cpus="0-3",
            network="none",
        )
    ]


def test_a_tar_is_a_context(engine: FakeEngine, run: Run) -> None:
    assert run("build", "-f", "in/Dockerfile", "app.tar").code == 0
    (build,) = engine.builds
    assert build.source == "-"
    assert build.dockerfile == "in/Dockerfile"  # a name within the tar


def test_an_image_goes_into_keep(engine: FakeEngine, api: FakeApi, run: Run) -> None:
    outcome = run("build", "-t", "made:2", "--ingest", "--project-uuid", PROJECT, "app")
    (record,) = api.records["collections"].values()
    assert (outcome.code, outcome.out) == (0, f"{record['uuid']}\n")
    assert record["owner_uuid"] == PROJECT
    assert [it["name"] for it in api.records["links"].values() if it["link_class"] == REPO_TAG] == ["made:2"]
    again = run("build", "-t", "made:2", "--ingest", "--project-uuid", PROJECT, "--json", "app")
    document = json.loads(again.out)
    assert (document["uuid"], document["already"], document["bytes_sent"]) == (record["uuid"], True, 0)
    assert (document["engine_id"], document["image_id"], document["name"]) == (ID, ID, "made:2")


def test_an_image_without_a_name_goes_into_keep_by_its_id(engine: FakeEngine, api: FakeApi, run: Run) -> None:
    assert run("build", "--ingest", "app").code == 0
    assert not [it for it in api.records["links"].values() if it["link_class"] == REPO_TAG]
    assert json.loads(run("build", "--json", "app").out) == {"engine_id": ID, "name": None}


@pytest.mark.conforms("G18")
def test_a_build_that_fails(engine: FakeEngine, api: FakeApi, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(wanted: Build) -> Generator[str, None, EngineImage]:
        yield "Step 1/1 : RUN false\n"
        raise BuildFailed("Docker could not build made:2; its last words:", detail="Step 1/1 : RUN false")

    monkeypatch.setattr(engine, "build", build)
    outcome = run("build", "-t", "made:2", "--ingest", "app")
    assert (outcome.code, outcome.out) == (BUILD, "")
    assert outcome.err.endswith("its last words:\n  Step 1/1 : RUN false\n")
    assert not api.records["collections"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere is no context"),
        (["-t", "Upper", "app"], "upper-case"),
        (["--build-arg", "NOT_HERE", "app"], "no variable 'NOT_HERE'"),
        (["--label", "x", "app"], "NAME=VALUE"),
        (["--platform", "x/y/z/a", "app"], "platform"),
        (["--project-uuid", PROJECT, "app"], "--ingest"),
    ],
)
def test_what_is_refused(engine: FakeEngine, run: Run, arguments: list[str], words: str) -> None:
    outcome = run("build", *arguments)
    assert outcome.code == 2
    assert words in outcome.err
    assert not engine.builds

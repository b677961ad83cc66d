# SPDX-License-Identifier: Apache-2.0
"""`arv-docker stage --format sif` and `--sif-cache`, `deploy --engine apptainer`: what is printed, and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arv_docker import cli
from arv_docker.errors import NoEngine

from ..archives import canonical_archive
from ..arvados.fake_api import FakeApi
from ..engines.apptainer import Scripted, sif_of
from ..transports.fake_engine import FakeEngine
from .conftest import APP, Run

MADE = sif_of(canonical_archive(APP))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scripted:
    return Scripted(tmp_path / "bin", monkeypatch)


def test_staging_and_deploying(api: FakeApi, engine: FakeEngine, run: Run, program: Scripted) -> None:
    done = run("stage", "--format", "sif", "app:1", "--dir", "d")
    assert (done.code, done.out) == (0, "d/app%3A1.sif\n")
    assert Path("d/app%3A1.sif").read_bytes() == MADE
    (document,) = json.loads(run("stage", "--format=sif", "app:1", "--dir=d", "--json").out)
    assert (document["format"], document["origin"]) == ("sif", "staged")
    assert run("verify", "d").out.startswith("ok ")
    assert run("deploy", "d", "--engine", "apptainer").out == "d/app%3A1.sif there docker.io/library/app:1\n"
    refused = run("deploy", "d")
    assert (refused.code, refused.out) == (1, "")
    assert "docker takes no SIF files" in refused.err


def test_deploying_archives(api: FakeApi, engine: FakeEngine, run: Run, program: Scripted) -> None:
    run("stage", "app:1", "--dir", "d")
    assert run("deploy", "d", "--engine", "apptainer").out == "d/app%3A1.sif loaded docker.io/library/app:1\n"
    assert Path("d/app%3A1.sif").read_bytes() == MADE


def test_auto_takes_apptainer_where_there_is_nothing_else(
    api: FakeApi, engine: FakeEngine, run: Run, program: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("stage", "app:1", "--dir", "d")

    def version() -> str:
        raise NoEngine("no engine is on PATH")

    monkeypatch.setattr(engine, "version", version)
    done = run("deploy", "d", "--engine", "auto")
    assert (done.code, done.out) == (0, "d/app%3A1.sif loaded docker.io/library/app:1\n")
    assert "using apptainer" in done.err
    monkeypatch.setenv("PATH", str(program.folder / "nowhere"))
    done = run("deploy", "d", "--engine", "auto")
    assert (done.code, done.out) == (3, "")
    assert "no engine is on PATH" in done.err


def test_without_apptainer_nothing_is_asked(
    api: FakeApi, engine: FakeEngine, run: Run, monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    monkeypatch.setenv("PATH", str(here))
    for words in (["--format", "sif", "--dir", "d"], ["--sif-cache"]):
        done = run("stage", "app:1", *words)
        assert (done.code, done.out) == (3, "")
        assert "Install Apptainer" in done.err
    assert (engine.calls, api.total, Path("d").exists()) == ([], 0, False)


@pytest.mark.parametrize(
    "words",
    [
        ["--sif-cache", "--dir", "d"],
        ["--sif-cache", "--offline"],
        ["--sif-cache", "--from", "engine"],
        ["--format", "sif", "--layout", "wfexs", "--dir", "d"],
        [],
    ],
)
def test_what_does_not_go_together(api: FakeApi, run: Run, program: Scripted, words: list[str]) -> None:
    done = run("stage", "app:1", *words)
    assert (done.code, done.out) == (2, "")
    assert api.total == 0


@pytest.mark.parametrize("words", [("sif", "fill"), ("stage", "--sif-cache")], ids=" ".join)
def test_filling_the_cluster_s_cache(
    run: Run, program: Scripted, archive: Path, here: Path, words: tuple[str, ...]
) -> None:
    local = f"--local={here}/site"
    run("ingest", local, "--from-archive", str(archive), "app:1")
    first = run(*words, local, "app:1")
    assert first.code == 0, first.err
    assert "converted" in first.err
    again = run(*words, local, "app:1", "--json")
    (document,) = json.loads(again.out)
    assert document["uuid"] == first.out.strip()
    assert (document["already"], document["image_id"]) == (True, str(APP.parsed.digest))
    assert "already there" in again.err
    assert len(program.builds) == 1
    missing = run(*words, local, "other:1")
    assert (missing.code, missing.out) == (1, "")


def test_the_doctor(api: FakeApi, run: Run, program: Scripted) -> None:
    found = {it["what"]: it for it in json.loads(run("doctor", "--json", "--engine", cli.APPTAINER).out)}
    assert found["engine"]["says"].startswith("apptainer 1.4.5 on linux/")

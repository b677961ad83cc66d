# SPDX-License-Identifier: Apache-2.0
"""`arv-docker folder`: what is printed, exit codes, and when an engine is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arv_docker import cli

from ..archives import canonical_archive
from ..transports.fake_engine import FakeEngine
from .conftest import APP, Run

SHORT = APP.parsed.digest.short_hex


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "images"


def test_update_prints_the_path(folder: Path, engine: FakeEngine, run: Run) -> None:
    path = folder / f"app_1_{SHORT}.docker"
    for arguments in (["app", "1"], ["app:1"]):
        outcome = run("folder", "update", "--dir", str(folder), *arguments)
        assert (outcome.code, outcome.out) == (0, f"{path}\n")
    assert "up to date" in outcome.err
    assert engine.calls == ["save"]
    assert path.read_bytes() == canonical_archive(APP)


def test_update_as_json(folder: Path, engine: FakeEngine, run: Run) -> None:
    run("folder", "update", "--dir", str(folder), "app:1")
    done = json.loads(run("folder", "update", "--dir", str(folder), "app:1", "--compress", "--json").out)
    assert (done["saved"], done["compressed"]) == (False, True)
    assert done["removed"] == [str(folder / f"app_1_{SHORT}.docker")]
    assert done["archive"]["path"] == str(folder / f"app_1_{SHORT}.zip")
    assert done["image_id"] == str(APP.parsed.digest)


@pytest.mark.conforms("G14")
def test_an_image_that_the_engine_has_not(folder: Path, engine: FakeEngine, run: Run) -> None:
    outcome = run("folder", "update", "--dir", str(folder), "app", "2")
    assert (outcome.code, outcome.out) == (1, "")
    assert not folder.exists()


@pytest.mark.conforms("G2")
def test_a_version_with_an_underscore(folder: Path, engine: FakeEngine, run: Run) -> None:
    outcome = run("folder", "update", "--dir", str(folder), "app", "1_2")
    assert outcome.code == 2
    assert "underscore" in outcome.err


@pytest.mark.conforms("G19")
@pytest.mark.conforms("G5")
def test_which_folder(tmp_path: Path, engine: FakeEngine, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = run("folder", "update", "app:1")
    assert (outcome.code, "ARV_DOCKER_FOLDER" in outcome.err) == (2, True)
    monkeypatch.setenv("ARV_DOCKER_FOLDER", str(tmp_path / "configured"))
    for options, folder in (((), "configured"), (("--dir", str(tmp_path / "other")), "other")):
        assert run("folder", "update", *options, "app:1").code == 0
        assert [it.name for it in (tmp_path / folder).glob("*.docker")] == [f"app_1_{SHORT}.docker"]


def test_only_update_asks_the_engine(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_: object) -> None:
        raise AssertionError("the engine was asked for")

    monkeypatch.setattr(cli, "engine", never)
    folder.mkdir()
    for command in (["list"], ["latest"], ["verify"], ["config", "--base-url", "x"]):
        assert run("folder", *command, "--dir", str(folder)).code == 0


def test_listings(folder: Path, engine: FakeEngine, run: Run) -> None:
    run("folder", "update", "--dir", str(folder), "app:1")
    for command in ("list", "latest"):
        outcome = run("folder", command, "--dir", str(folder))
        assert outcome.out.split() == ["IMAGE", "VERSION", "IMAGE", "ID", "FORMAT", "app", "1", SHORT, "docker"]
        (found,) = json.loads(run("folder", command, "--json", "--dir", str(folder)).out)
        assert (found["image"], found["version"], found["short_id"], found["format"]) == ("app", "1", SHORT, "docker")


@pytest.mark.conforms("G17")
def test_verify_says_which_one_is_bad(folder: Path, engine: FakeEngine, run: Run) -> None:
    run("folder", "update", "--dir", str(folder), "app:1")
    good = run("folder", "verify", "--dir", str(folder))
    assert (good.code, good.out) == (0, f"ok   app_1_{SHORT}.docker\n")
    (folder / f"app_1_{SHORT}.docker").rename(folder / "app_1_0123456789ab.docker")
    bad = run("folder", "verify", "--dir", str(folder))
    assert (bad.code, bad.out) == (5, "BAD  app_1_0123456789ab.docker\n")
    assert "should hold image 0123456789ab" in bad.err
    outcome = run("folder", "verify", "--json", "--dir", str(folder))
    assert outcome.code == 5
    assert json.loads(outcome.out)[0]["problem"]


@pytest.mark.conforms("G16")
def test_config(folder: Path, engine: FakeEngine, run: Run) -> None:
    folder.mkdir()
    assert json.loads(run("folder", "config", "--dir", str(folder), "--base-url", "u").out) == []
    run("folder", "update", "--dir", str(folder), "app:1")
    (found,) = json.loads(run("folder", "config", "--dir", str(folder), "--base-url", "https://example.org/i").out)
    assert found["url"] == f"https://example.org/i/app_1_{SHORT}.docker"
    assert list(found) == ["name", "version", "image_id", "format", "url", "size", "sha256"]


@pytest.mark.conforms("G5")
def test_without_a_folder(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = run("folder", "list")
    assert outcome.code == 2
    assert "ARV_DOCKER_FOLDER" in outcome.err
    monkeypatch.setenv("ARV_DOCKER_FOLDER", str(folder))
    for command in (["list"], ["latest"], ["verify"], ["config", "--base-url", "u"]):
        outcome = run("folder", *command)
        assert (outcome.code, outcome.out) == (2, "")
        assert f"{folder} is no folder" in outcome.err
    folder.mkdir()
    assert run("folder", "list").code == 0


def test_an_archive_is_a_line_whatever_its_name(folder: Path, engine: FakeEngine, run: Run) -> None:
    run("folder", "update", "--dir", str(folder), "app:1")
    (folder / f"app_1_{SHORT}.docker").rename(folder / f"a%0Ab_1%0A2_{SHORT}.docker")
    assert [len(run("folder", verb, "--dir", str(folder)).out.splitlines()) for verb in ("list", "latest")] == [2, 2]

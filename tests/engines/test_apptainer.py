# SPDX-License-Identifier: Apache-2.0
"""Apptainer and Singularity as commands: which is found, what they are told, what their failures become."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from arv_docker.engines.apptainer import ARCHIVE, Apptainer, is_sif
from arv_docker.errors import EngineError, NoEngine

from .apptainer import Scripted


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as `build` gets it, in a place whose name has a colon."""
    folder = tmp_path / "docker:__quay.io_a_b:1.img"
    folder.mkdir()
    (folder / ARCHIVE).write_bytes(b"an archive")
    return folder


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scripted:
    return Scripted(tmp_path / "bin", monkeypatch)


@pytest.mark.parametrize("name", ["apptainer", "singularity"])
def test_either_command_will_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    program = Scripted(tmp_path / "bin", monkeypatch, name)
    found = Apptainer()
    assert (found.name, found.version()) == (name, "1.4.5")
    made = found.build(folder)
    assert is_sif(made)
    (call,) = program.builds
    assert call["words"] == ["build", "image.sif", "docker-archive:image.tar"]
    assert call["folder"] == str(folder)
    assert call["archive"] == b"an archive".hex()
    variables = call["variables"]
    assert variables[f"{name.upper()}_CACHEDIR"] == variables[f"{name.upper()}_TMPDIR"] == str(folder)


@pytest.mark.conforms("W23")
def test_neither_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoEngine, match="Install Apptainer"):
        Apptainer()


def test_the_user_says_where_temporary_files_go(
    program: Scripted, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APPTAINER_TMPDIR", "/a/large/disk")
    monkeypatch.setenv("APPTAINER_CACHEDIR", "/what/others/may/write")
    Apptainer().build(folder)
    variables = program.builds[0]["variables"]
    assert (variables["APPTAINER_TMPDIR"], variables["APPTAINER_CACHEDIR"]) == ("/a/large/disk", str(folder))


def test_a_folder_that_is_given_from_here(program: Scripted, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Apptainer finds no file system for a place that is not written in full."""
    monkeypatch.chdir(folder.parent)
    Apptainer().build(Path(folder.name))
    assert program.builds[0]["variables"]["APPTAINER_TMPDIR"] == str(folder)


def test_the_token_is_not_for_it(program: Scripted, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARVADOS_API_TOKEN", "secret")
    Apptainer().build(folder)
    assert "ARVADOS_API_TOKEN" not in program.builds[0]["variables"]


def test_its_own_words_are_kept(program: Scripted, folder: Path) -> None:
    program.answer("fail")
    with pytest.raises(EngineError, match="status 255") as failed:
        Apptainer().build(folder)
    assert "FATAL: while performing build" in failed.value.detail
    assert failed.value.exit_code == 3


def test_what_is_no_sif_file_is_none(program: Scripted, folder: Path) -> None:
    program.answer("nothing")
    with pytest.raises(EngineError, match="no SIF file"):
        Apptainer().build(folder)
    program.answer("other")
    with pytest.raises(EngineError, match="no SIF file"):
        Apptainer().build(folder)


def test_a_version_that_cannot_be_had(program: Scripted) -> None:
    program.answer("broken")
    with pytest.raises(EngineError, match="status 1") as failed:
        Apptainer().version()
    assert "libc is missing" in failed.value.detail
    assert os.environ["PATH"].startswith(str(program.folder))

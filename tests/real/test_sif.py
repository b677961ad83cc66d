# SPDX-License-Identifier: Apache-2.0
"""SIF files by the real Apptainer, as an ordinary user: built, run, refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from arv_docker import sif
from arv_docker.engine.apptainer import Apptainer as Command
from arv_docker.progress import Silent
from arv_docker.transports.docker_archive import ArchiveFile
from tests.real.engines import Docker, Image
from tests.real.sites import show
from tests.real.trees import USER, Apptainer

pytestmark = pytest.mark.engine("docker", "busybox")


@pytest.fixture
def archive(docker: Docker, small_image: Image, apptainer: Apptainer) -> Path:
    """What Docker saves."""
    path = apptainer.folder / "saved.tar"
    docker.run("save", "--output", path, small_image.reference)
    return path


def test_it_is_built_and_run(
    archive: Path,
    apptainer: Apptainer,
    small_image: Image,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = apptainer.folder / "docker:__small_1.img"
    monkeypatch.setenv("PATH", apptainer.environment["PATH"])
    command = Command()
    with sif.building(place, Silent()) as folder, ArchiveFile(archive).open() as opened:
        sif.converted(opened, folder, place.name, command, Silent()).rename(place)
    greeting = apptainer.text("exec", place, "/bin/hello")
    stat = place.stat()
    show(capsys, f"Apptainer {command.version()}, user {stat.st_uid}: {stat.st_size} bytes, {greeting!r}")
    assert greeting == small_image.greeting
    assert stat.st_uid == USER
    assert list(apptainer.folder.glob(".*")) == []

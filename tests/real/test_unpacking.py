# SPDX-License-Identifier: Apache-2.0
"""An image of which every digest is right, and which no engine can unpack: the load fails, and no engine keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest

from arv_docker.model.manifest import machine_platform

from ..archives import Image, classic, files_of, image, tar
from .containerd import ContainerdDocker
from .engines import Docker, Podman
from .sites import Site, show

ENGINE = 3

#: A file below a file.
BROKEN = image(
    files_of(b"low"),
    tar({"a": b"1", "a/b": b"2"}),
    os="linux",
    architecture=machine_platform().architecture,
    config={},
)


def check(made: Image, engine: Docker | Podman, folder: Path, *words: str) -> str:
    """Load an image that cannot be unpacked; return what is said."""
    engine.empty()
    (folder / "broken.tar").write_bytes(classic(made))
    site = Site(folder / "site", engine)
    site.printed("ingest", f"docker-archive:{folder}/broken.tar")
    done = site.run("load", *words, "app:1")
    assert done.status == ENGINE, done.told
    assert "a/b: not a directory" in done.err or "/a: not a directory" in done.err
    assert engine.image_ids() == set()
    return done.err


@pytest.mark.engine("docker")
def test_the_classic_store(second_docker: Docker, tmp_path: Path) -> None:
    check(BROKEN, second_docker, tmp_path)


@pytest.mark.engine("docker", "debootstrap")
def test_the_containerd_store(containerd_docker: ContainerdDocker, tmp_path: Path) -> None:
    """Docker 26.1 fails, and has the image all the same, without a name."""
    check(BROKEN, containerd_docker, tmp_path)


@pytest.mark.engine("docker")
def test_the_newest_docker(sid_docker: ContainerdDocker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Docker 28.5 exits with 0, and says "Error unpacking" among its other words."""
    said = check(BROKEN, sid_docker, tmp_path)
    assert "Error unpacking image" in said
    assert "cannot unpack the image. It was removed again." in said
    show(capsys, said.splitlines()[0])


@pytest.mark.engine("podman")
def test_podman(podman: Podman, tmp_path: Path) -> None:
    check(BROKEN, podman, tmp_path, "--engine=podman")

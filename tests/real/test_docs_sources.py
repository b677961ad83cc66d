# SPDX-License-Identifier: Apache-2.0
"""Every example of docs/sources.md, run in its order, against real engines, a registry and a site."""

import re
from pathlib import Path

import pytest

from . import registries
from .engines import Docker, Image, Podman
from .shells import Shell
from .sites import TOP

LINES = re.findall(r"^    (.*arv-docker .*)$", (TOP / "docs/sources.md").read_text(), re.MULTILINE)


@pytest.mark.engine("docker", "podman", "busybox", "registry")
def test_every_example(docker: Docker, podman: Podman, small_image: Image, tmp_path: Path) -> None:
    shell = Shell(tmp_path, tmp_path / "site", podman, docker, HOME=str(tmp_path))
    saved = docker.run("save", small_image.id).stdout
    podman.run("load", stdin=saved)
    podman.run("tag", small_image.id.removeprefix("sha256:"), "app:1")
    docker.run("tag", small_image.id, "app:1")
    uuids = []
    try:
        with registries.registry(tmp_path / "registry", "open") as registry:
            for line in LINES:
                said = shell.printed(line.replace("registry.example", registry.host))
                if "ingest" in line and "--dry-run" not in line:
                    uuids.append(said.strip())
    finally:
        docker.run("rmi", "-f", "app:1", "again:1")
    assert len(LINES) > 15
    assert len(set(uuids)) == 1, uuids  # one image, wherever it came from

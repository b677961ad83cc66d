# SPDX-License-Identifier: Apache-2.0
"""Every example of docs/staging.md, run in its order, with Keep, Docker and Podman."""

import re
from pathlib import Path

import pytest

from .engines import Docker, Image, Podman
from .shells import Shell
from .sites import TOP, Site

PAGE = (TOP / "docs/staging.md").read_text()
LINES = re.findall(r"^    (arv-docker .*)$", PAGE, re.MULTILINE)
PROGRAM = "\n".join(re.findall(r"^    ((?:from|staged|for|    print|loaded).*)$", PAGE, re.MULTILINE))


@pytest.mark.engine("docker", "podman", "busybox")
def test_every_example(docker: Docker, podman: Podman, small_image: Image, tmp_path: Path) -> None:
    shell = Shell(tmp_path, tmp_path / "site", podman, docker, HOME=str(tmp_path))
    for name in ("app:1", "tools/bwa:0.7"):
        docker.run("tag", small_image.id, name)
    try:
        Site(tmp_path / "site", docker).printed("ingest", "tools/bwa:0.7")
        for line in LINES:
            shell.printed(line)
        said = shell.program(PROGRAM)
    finally:
        docker.run("rmi", "-f", "app:1", "tools/bwa:0.7")
    assert len(LINES) > 10
    assert f"docker.io/library/app:1 {small_image.id}" in said
    assert podman.image_ids() == {small_image.id}

# SPDX-License-Identifier: Apache-2.0
"""Every example of docs/staging.md, run in its order, with Keep, Docker and Podman."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real.engines import Docker, Image, Podman
from tests.real.sites import TOP, Site

PAGE = (TOP / "docs/staging.md").read_text()
LINES = re.findall(r"^    (arv-docker .*)$", PAGE, re.MULTILINE)
PROGRAM = "\n".join(re.findall(r"^    ((?:from|staged|for|    print|loaded).*)$", PAGE, re.MULTILINE))


@pytest.mark.engine("docker", "podman", "busybox")
def test_every_example(docker: Docker, podman: Podman, small_image: Image, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "arv-docker").write_text(
        f'#!/bin/sh\nexec {sys.executable} {TOP}/bin/arv-docker "$@" --local={tmp_path}/site\n'
    )
    (programs / "arv-docker").chmod(0o755)
    environment = os.environ | podman.environment | docker.environment
    environment |= {"PATH": f"{programs}:{environment['PATH']}", "HOME": str(tmp_path), "PYTHONPATH": str(TOP)}
    for name in ("app:1", "tools/bwa:0.7"):
        docker.run("tag", small_image.id, name)
    try:
        Site(tmp_path / "site", docker).printed("ingest", "tools/bwa:0.7")
        for line in (*LINES, f'{sys.executable} -c "$PROGRAM"'):
            done = subprocess.run(
                line,
                shell=True,
                cwd=tmp_path,
                env=environment | {"PROGRAM": PROGRAM},
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    finally:
        docker.run("rmi", "-f", "app:1", "tools/bwa:0.7")
    assert len(LINES) > 10
    assert f"docker.io/library/app:1 {small_image.id}" in done.stdout
    assert podman.image_ids() == {small_image.id}

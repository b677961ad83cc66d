# SPDX-License-Identifier: Apache-2.0
"""Every example of docs/sources.md, run in its order, against real engines, a registry and a site."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real import registries
from tests.real.engines import Docker, Image, Podman
from tests.real.sites import TOP

LINES = re.findall(r"^    (.*arv-docker .*)$", (TOP / "docs/sources.md").read_text(), re.MULTILINE)


@pytest.mark.engine("docker", "podman", "busybox", "registry")
def test_every_example(docker: Docker, podman: Podman, small_image: Image, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "arv-docker").write_text(
        f'#!/bin/sh\nexec {sys.executable} {TOP}/bin/arv-docker "$@" --local={tmp_path}/site\n'
    )
    (programs / "arv-docker").chmod(0o755)
    saved = docker.run("save", small_image.id).stdout
    podman.run("load", stdin=saved)
    podman.run("tag", small_image.id.removeprefix("sha256:"), "app:1")
    docker.run("tag", small_image.id, "app:1")
    environment = os.environ | podman.environment | docker.environment
    environment["PATH"] = f"{programs}:{environment['PATH']}"
    environment["HOME"] = str(tmp_path)
    uuids = []
    try:
        with registries.registry(tmp_path / "registry", "open") as registry:
            for line in LINES:
                words = line.replace("registry.example", registry.host)
                done = subprocess.run(
                    words,
                    shell=True,
                    cwd=tmp_path,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=120,
                    check=False,
                )
                assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
                if "ingest" in line and "--dry-run" not in line:
                    uuids.append(done.stdout.strip())
    finally:
        docker.run("rmi", "-f", "app:1", "again:1")
    assert len(LINES) > 15
    assert len(set(uuids)) == 1, uuids  # one image, wherever it came from

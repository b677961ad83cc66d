# SPDX-License-Identifier: Apache-2.0
"""The sample image: an image that any reader takes, the same each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from arv_docker.archive import sample
from arv_docker.archive.reader import ArchiveReader

from ..archives import Bytes


def test_the_sample_is_an_image(tmp_path: Path) -> None:
    sample.write(tmp_path / "one.tar")
    content = (tmp_path / "one.tar").read_bytes()
    found = ArchiveReader(Bytes(content)).image()
    assert found.tags == (sample.NAME,)
    assert str(found.config.platform) == "linux/amd64"
    layers = [b"".join(iter(layer.read, b"")) for layer in found.layers()]
    assert any(sample.GREETING in layer for layer in layers)


def test_it_comes_out_the_same_each_time(tmp_path: Path) -> None:
    sample.write(tmp_path / "one.tar")
    command = [sys.executable, "-m", "arv_docker.archive.sample", str(tmp_path / "two.tar")]
    subprocess.run(command, check=True)
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()

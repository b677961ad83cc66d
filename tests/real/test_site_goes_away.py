# SPDX-License-Identifier: Apache-2.0
"""A batch whose cluster goes away in the middle: it stops there, and says how many images were not tried."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from arv_docker.site import LocalSite

from ..archives import classic, files_of, image
from .sites import command, finished, show, started


@pytest.fixture
def archives(tmp_path: Path) -> list[str]:
    """Four archives, each of an image of its own."""
    paths = [tmp_path / f"app{number}.tar" for number in range(4)]
    for number, path in enumerate(paths):
        path.write_bytes(classic(image(files_of(bytes([number]) * 20_000_000), os="linux"), [f"app:{number}"]))
    return [f"docker-archive:{path}" for path in paths]


def test_a_batch_stops_where_the_cluster_goes_away(
    tmp_path: Path, archives: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with LocalSite(tmp_path / "site"):
        pass  # makes it
    server = started(command("site", "serve", "--dir", tmp_path / "site"))
    try:
        assert server.stderr is not None
        while "Serving" not in server.stderr.readline():
            assert server.poll() is None
        printed = subprocess.run(
            command("site", "env", "--dir", tmp_path / "site"), capture_output=True, text=True, check=True
        ).stdout
        settings = dict(line.removeprefix("export ").split("=", 1) for line in printed.splitlines())
        environment = {**os.environ, **{name: value.strip("'") for name, value in settings.items()}}
        ingest = started(command("-q", "ingest", "--retries", "0", *archives), environment)
        records = tmp_path / "site" / "blocks"
        while len(list(records.glob("*/*"))) < 3:  # the first image is on its way, or there
            assert ingest.poll() is None, finished(ingest).told
        server.send_signal(signal.SIGKILL)
        done = finished(ingest)
    finally:
        server.kill()
        server.communicate()
    show(capsys, *done.err.splitlines())
    assert done.status == 4, done.told
    assert "of 4 images were not tried: the cluster fails" in done.err
    assert "Traceback" not in done.err

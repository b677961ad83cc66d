# SPDX-License-Identifier: Apache-2.0
"""An ingest that is told to stop does so with a word, and the next one completes it."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .engines import Docker, Image
from .sites import Site, assert_stored_once, cached, finished

INTERRUPTED, TERMINATED = 130, 143


def saving(site: Site, home: Path) -> bool:
    """Whether some of the image is saved."""
    return any(path.stat().st_size > 20 << 20 for path in home.rglob("*.partial"))


def storing(site: Site, home: Path) -> bool:
    """Whether a block is on its way."""
    return any(path.name.startswith("tmp-") and path.exists() for path in site.blocks())


@pytest.mark.engine("docker", "busybox")
@pytest.mark.parametrize("moment", [saving, storing])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, TERMINATED)])
def test_an_ingest_stops_when_told(
    number: signal.Signals,
    code: int,
    moment: Callable[[Site, Path], bool],
    docker: Docker,
    base_image: Image,
    tmp_path: Path,
    home: Path,
) -> None:
    created = docker.text("image", "inspect", "--format", "{{.Created}}", base_image.id)
    site = Site(tmp_path / "site", docker)
    process = site.start("ingest", base_image.reference)
    deadline = time.monotonic() + 60
    while not _true(moment, site, home):
        assert process.poll() is None, finished(process).told
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(number)
    done = finished(process, timeout=20)
    assert (done.status, done.out) == (code, ""), done.told
    assert "Traceback" not in done.err
    # A complete tarball may stay for the next run; nothing that is half of something.
    assert [name for name in cached(home) if name.endswith((".partial", ".lock"))] == []
    assert [path.name for path in site.blocks() if path.name.startswith("tmp-")] == []
    assert site.records() == ([], [])

    again = site.run("ingest", base_image.reference)
    assert again.status == 0, again.told
    with site.opened() as records:
        assert again.out == f"{assert_stored_once(records, base_image, created).uuid}\n"
    assert cached(home) == []
    assert [line for line in done.err.splitlines() if line.startswith("arv-docker: ")], "it stopped without a word"


def _true(moment: Callable[[Site, Path], bool], site: Site, home: Path) -> bool:
    try:
        return moment(site, home)
    except FileNotFoundError:  # renamed while we looked
        return False

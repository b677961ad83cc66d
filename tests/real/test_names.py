# SPDX-License-Identifier: Apache-2.0
"""Names in Keep as a user asks for them: waiting until one means what was stored, and names that never move."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from ..archives import Image, classic, files_of, image
from .sites import Site, finished


def built(day: int) -> Image:
    return image(files_of(b"%d" % day * 5000), os="linux", created=f"2024-01-{day:02}T00:00:00Z")


def saved(folder: Path, made: Image) -> Path:
    file = folder / "app.tar"
    file.write_bytes(classic(made))
    return file


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path / "site")
    site.make()
    return site


@pytest.mark.conforms("H19")
def test_waiting_ends_when_another_process_has_stored_the_image(site: Site, tmp_path: Path) -> None:
    late = site.run("status", "app:1", "--wait", "--timeout", "0.5")
    assert (late.status, late.out) == (10, ""), late.told
    assert "app:1 is absent after 0.5 s" in late.err
    waiting = site.start("status", "app:1", "--wait", "--timeout", "100")
    assert waiting.stderr is not None
    assert re.match(r"waiting until app:1 is ready: \d+ s", waiting.stderr.readline())  # it says so after two seconds
    stored = site.printed("ingest", "--from-archive", saved(tmp_path, built(1)), "app:1")
    done = finished(waiting)
    assert (done.status, done.out.split()[:3]) == (0, ["ready", "app:1", stored]), done.told


@pytest.mark.conforms("H19")
def test_waiting_is_interrupted_at_once(site: Site) -> None:
    waiting = site.start("status", "app:1", "--wait")
    assert waiting.stderr is not None
    waiting.stderr.readline()
    began = time.monotonic()
    os.kill(waiting.pid, signal.SIGINT)
    done = finished(waiting)
    assert time.monotonic() - began < 15
    assert (done.status, done.out) == (130, ""), done.told
    assert done.err.endswith("arv-docker: interrupted\n")
    assert "Traceback" not in done.err


@pytest.mark.conforms("H20")
def test_a_unique_name_means_its_image_whatever_is_stored_later(site: Site, tmp_path: Path) -> None:
    names = {}
    for day in (2, 1):
        made = built(day)
        archive = saved(tmp_path, made)
        done = json.loads(site.printed("ingest", "--unique", "--json", "--from-archive", archive, "app:1"))
        assert done["unique"] == f"app:1-{made.parsed.digest.hex[:10]}"
        names[done["unique"]] = done["pdh"]
    assert len(names) == len(set(names.values())) == 2
    for name, pdh in names.items():
        assert site.printed("resolve", name) == pdh
    before = site.records()
    site.printed("ingest", "--unique", "--from-archive", saved(tmp_path, built(1)), "app:1")
    assert site.records() == before

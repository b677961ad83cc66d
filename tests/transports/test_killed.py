# SPDX-License-Identifier: Apache-2.0
"""Writing archives and layouts: killed at any moment, the old one or the new one is there, and the next run completes
it; two at once do it once."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from arv_docker.archive.reader import ArchiveReader
from arv_docker.errors import BadArchive, DiskError
from arv_docker.model.image import Digest
from arv_docker.transports import names

from ..archives import Bytes, Image, classic, files_of, image
from .contract import check

OLD = image(files_of(b"base" * 500_000), files_of(b"old" * 100_000), os="linux")
NEW = image(files_of(b"base" * 500_000), files_of(b"new" * 400_000), os="linux")
PLACES = pytest.mark.parametrize(
    "place", ["docker-archive:{}/app.tar", "oci:{}/layout:app", "oci-archive:{}/app.tar:app"]
)


def write(place: str, made: Image) -> None:
    names.destination(place).write(ArchiveReader(Bytes(classic(made))).image(), lambda _: None)


def found(place: str) -> Digest | None:
    """The image that is there, every layer checked; None if there is none."""
    try:
        with names.source(place).open() as image:
            digest = image.config.digest
            for layer in image.layers():
                while layer.read():
                    pass
    except BadArchive:
        return None
    return digest


def started(place: str, made: Image) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=write, args=(place, made))
    process.start()
    return process


@PLACES
def test_killed_at_any_moment(tmp_path: Path, place: str) -> None:
    place = place.format(tmp_path)
    chance = random.Random(1)
    allowed: set[Digest | None] = {None}
    for number in range(24):
        made = (OLD, NEW)[number % 2]
        process = started(place, made)
        time.sleep(chance.uniform(0, 0.08))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        allowed.add(made.parsed.digest)
        assert found(place) in allowed
    write(place, NEW)
    with names.source(place).open() as image:
        check(image, NEW)
    left = [path.name for path in tmp_path.rglob("*") if "partial" in path.name or "lock" in path.name]
    assert left == []


@PLACES
def test_interrupted_it_leaves_what_was_there(tmp_path: Path, place: str) -> None:
    place = place.format(tmp_path)
    write(place, OLD)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        names.destination(place).write(ArchiveReader(Bytes(classic(NEW))).image(), interrupted)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@PLACES
def test_several_at_once(tmp_path: Path, place: str) -> None:
    place = place.format(tmp_path)
    processes = [started(place, made) for made in (OLD, NEW) * 4]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 8
    assert found(place) in (OLD.parsed.digest, NEW.parsed.digest)


@PLACES
def test_a_disk_that_is_full_is_told(tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = place.format(tmp_path)
    write(place, OLD)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match="no room in"):
        write(place, NEW)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before

# SPDX-License-Identifier: Apache-2.0
"""Commands on file systems without ``flock``: one line, code 7, and nothing written."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from ..arvados.fake_api import FakeApi
from .conftest import Run


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
@pytest.mark.parametrize(
    "arguments",
    [
        ["ingest", "app:1"],
        ["ingest", "docker-archive:{archive}"],
        ["copy", "docker-archive:{archive}", "docker-archive:{folder}/copy.tar"],
        ["copy", "docker-archive:{archive}", "oci:{folder}/layout"],
        ["stage", "--from", "engine", "app:1", "--dir", "{folder}/staged"],
        ["folder", "update", "--dir", "{folder}/archives", "app:1"],
        ["arv-keepdocker", "app", "1"],
    ],
    ids=" ".join,
)
def test_no_command_works_without_locks(
    run: Run, api: FakeApi, archive: Path, arguments: list[str], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(_descriptor: int, _operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    folder = archive.parent / "out"
    folder.mkdir()
    done = run(*(text.format(archive=archive, folder=folder) for text in arguments))
    assert done.code == (1 if arguments[0] == "arv-keepdocker" else 7), done  # where every error is 1, as it was
    assert "is on a file system without file locks" in done.err
    assert api.records == {"links": {}, "collections": {}}
    left = [path.name for path in folder.rglob("*") if path.is_file()]
    assert all(name.endswith(".lock") for name in left), left
    assert number == errno.ENOLCK or left == []


def test_reading_needs_no_lock(run: Run, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    for verb in ("ls", "inspect"):
        assert run(verb, f"docker-archive:{archive}").code == 0

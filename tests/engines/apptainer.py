# SPDX-License-Identifier: Apache-2.0
"""A program in Apptainer's place, which builds nothing and notes what it was asked for."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

_SCRIPT = """#!{python}
import json, os, signal, sys, time
folder = os.path.dirname(os.path.abspath(__file__))
answer = open(os.path.join(folder, "answer")).read()
if sys.argv[1] == "--version":
    if answer == "broken":
        sys.exit("libc is missing")
    print("apptainer version 1.4.5")
    sys.exit()
archive = open(sys.argv[3].partition(":")[2], "rb").read()
call = dict(words=sys.argv[1:], folder=os.getcwd(), archive=archive.hex(), process=os.getpid())
call["variables"] = dict(os.environ)
with open(os.path.join(folder, "calls"), "a") as calls:
    calls.write(json.dumps(call) + "\\n")
if answer == "fail":
    print("INFO: Starting build...", flush=True)
    os.write(2, b"FATAL: while performing build: conveyor failed\\n")
    sys.exit(255)
if answer == "full":
    os.write(2, b"FATAL: while creating squashfs: write: no space left on device\\n")
    sys.exit(255)
if answer == "slow":
    time.sleep(60)
if answer == "killed":
    os.makedirs("rootfs/locked")
    open("rootfs/locked/file", "w").close()
    os.chmod("rootfs/locked", 0)
    os.symlink("/", "rootfs/everything")
    os.kill(os.getppid(), signal.SIGKILL)
if answer != "nothing":
    with open(sys.argv[2], "wb") as file:
        magic = b"SIF_MAGIC\\0" if answer != "other" else b"otherwise!"
        file.write(b"#!/usr/bin/env run-singularity\\n\\0" + magic + archive)
"""


class Scripted:
    """The program, first on PATH, in a folder of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str = "apptainer") -> None:
        folder.mkdir()
        self.folder = folder
        (folder / name).write_text(_SCRIPT.format(python=sys.executable))
        (folder / name).chmod(0o755)
        self.answer("well")
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def answer(self, how: str) -> None:
        """`well`; `fail` and `full`, for how it ends; `nothing` or `other`, for what it writes; `broken`, which has no
        version; `killed`, which its starter is in the middle; `slow`."""
        (self.folder / "answer").write_text(how)

    @property
    def builds(self) -> list[dict[str, Any]]:
        """Each build: `words`, the `archive` in hex, the `folder` in which it ran, its `variables` and `process`."""
        calls = self.folder / "calls"
        return [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []


def sif_of(archive: bytes) -> bytes:
    """What the program makes of an archive."""
    return b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC\0" + archive

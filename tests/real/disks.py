# SPDX-License-Identifier: Apache-2.0
"""Disks that are small: a file system in memory, and what a command says when one is full."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .sites import Done

DISK = 7
_NUMBERS = re.compile(r": about .* \((\d+) bytes\) are needed, .*? \((\d+) bytes\)")


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A disk of `size` bytes, mounted on a new folder. For root."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "arvtest", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def enlarge(folder: Path, size: int) -> None:
    """Gives a small disk more room."""
    subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)


def assert_full(done: Done, folder: Path, words: str = "no room in") -> None:
    """The command says that it was that folder, how many bytes it needs there and how many are free."""
    assert (done.status, done.out) == (DISK, ""), done.told
    assert "Traceback" not in done.err
    (told,) = (line for line in done.err.splitlines() if words in line)
    assert str(folder) in told, done.told
    numbers = _NUMBERS.search(told)
    assert numbers, done.told
    needed, free = map(int, numbers.groups())
    assert needed > free, done.told


def files_in(folder: Path) -> list[str]:
    """Every file below a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())

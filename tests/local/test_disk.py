# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or not there, and locks."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace

import pytest

from arv_docker.errors import DiskError
from arv_docker.local.disk import hold_lock, partial_of, replace_file, target_of_partial, try_lock


def test_a_file_has_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with replace_file(path) as file:
        file.write(b"new")
        assert [it.name for it in tmp_path.iterdir()] == [".file.partial"]
        file.seek(0)
        assert file.read() == b"new"
    assert [it.name for it in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"new"


def test_after_an_error_all_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(TypeError), replace_file(path) as file:
        file.writelines([b"new", None])  # type: ignore[list-item]
    assert [it.name for it in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_a_full_disk_is_told_with_its_numbers(tmp_path: Path) -> None:
    told = r"no room in .*\(1000 bytes\) are needed, .* are free.*larger disk"
    with pytest.raises(DiskError, match=told) as caught, replace_file(tmp_path / "file", 1000):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "XDG_CACHE_HOME" not in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_can_have_no_more_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_files=100, f_favail=0))
    with pytest.raises(DiskError, match="no more files"), replace_file(tmp_path / "file", 1000):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_names_of_partial_files(tmp_path: Path) -> None:
    assert target_of_partial(partial_of(tmp_path / "file")) == tmp_path / "file"
    assert target_of_partial(tmp_path / "file") is None
    assert target_of_partial(tmp_path / "file.partial") is None


def test_a_lock_is_held_by_one_and_its_file_goes(tmp_path: Path) -> None:
    inside, most = 0, 0
    told = []

    def waiting() -> object:
        told.append(1)
        yield

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with hold_lock(tmp_path / "lock", waiting()):  # type: ignore[arg-type]
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert list(tmp_path.iterdir()) == []


def open_files() -> int:
    """The number of this process's open files."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(("number", "left"), [(errno.ENOSYS, []), (errno.EOPNOTSUPP, []), (errno.ENOLCK, ["lock"])])
@pytest.mark.parametrize("hold", [hold_lock, try_lock])
def test_a_file_system_without_locks(
    hold: Callable[[Path], AbstractContextManager[object]],
    number: int,
    left: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of ENOLCK the file stays: the kernel may be out of locks, and another process hold this one."""

    def flock(_descriptor: int, _operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    before = open_files()
    with pytest.raises(DiskError, match=r"without file locks.*Choose a folder on another"), hold(tmp_path / "lock"):
        pass
    assert [it.name for it in tmp_path.iterdir()] == left
    assert open_files() == before


def test_an_interrupt_while_a_lock_is_waited_for(tmp_path: Path) -> None:
    def interrupted() -> Iterator[None]:
        signal.raise_signal(signal.SIGINT)
        yield

    with hold_lock(tmp_path / "lock"):
        before = open_files()
        with pytest.raises(KeyboardInterrupt), hold_lock(tmp_path / "lock", interrupted()):
            pass
        assert open_files() == before
    assert list(tmp_path.iterdir()) == []

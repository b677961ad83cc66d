# SPDX-License-Identifier: Apache-2.0
"""The stat-keyed cache: what serves again, what is saved anew, and what is left behind: nothing."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import stat as stat_module
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from arv_docker.errors import ClusterError, DiskError, EngineError
from arv_docker.model.image import Digest
from arv_docker.store import tarballs
from arv_docker.store.tarballs import cache_folder, discard, hold_image_lock, prep_image_file, saving, stat_cache_name

ID = Digest.sha256("a" * 64)
CONTENT = b"a saved tarball" * 1000


class Pipe:
    def __init__(self, content: bytes, error: Exception | None) -> None:
        self._content = content
        self._error = error

    def read(self, length: int) -> bytes:
        if not self._content and self._error is not None:
            raise self._error
        piece, self._content = self._content[:length], self._content[length:]
        return piece


class Engine:
    """An engine that saves the same bytes each time, or fails after them."""

    name = "docker"

    def __init__(self, content: bytes = CONTENT, error: Exception | None = None) -> None:
        self._content = content
        self._error = error
        self.saved: list[list[str]] = []

    @contextmanager
    def save(self, images: Iterable[str]) -> Iterator[Pipe]:
        self.saved.append(list(images))
        yield Pipe(self._content, self._error)


def save(file: Path, engine: Engine | None = None) -> None:
    with saving(engine or Engine(), ID, file, 1000) as stream:  # type: ignore[arg-type]
        while stream.read(1000):
            pass


def serves(file: Path) -> bool:
    opened, missing = prep_image_file(file)
    if opened is not None:
        with opened:
            assert opened.read() == file.read_bytes()
    assert (opened is None) is missing
    return not missing


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A tarball that was saved."""
    file = tmp_path / f"{ID}.tar"
    save(file)
    return file


def record(file: Path) -> list[Any]:
    found: list[Any] = json.loads(stat_cache_name(file).read_text())
    return found


# -- saving -----------------------------------------------------------------------------


@pytest.mark.conforms("K13")
def test_a_saved_tarball_serves_again(file: Path) -> None:
    assert serves(file)
    assert file.read_bytes() == CONTENT
    assert sorted(path.name for path in file.parent.iterdir()) == [f"{ID}.tar", f"{ID}.tar.stat"]


def test_the_image_is_asked_for_by_its_id_and_every_byte_is_handed_out(tmp_path: Path) -> None:
    engine = Engine()
    with saving(engine, ID, tmp_path / "x.tar", 0) as stream:  # type: ignore[arg-type]
        assert b"".join(iter(lambda: stream.read(999), b"")) == CONTENT
    assert engine.saved == [[str(ID)]]


@pytest.mark.conforms("K14")
def test_a_cluster_that_fails_in_the_middle_costs_no_second_save(tmp_path: Path) -> None:
    file = tmp_path / "x.tar"
    with pytest.raises(ClusterError, match="gone"):
        _begin_and_lose_the_cluster(Engine(), file)
    assert serves(file)
    assert file.read_bytes() == CONTENT


def test_an_engine_that_fails_after_the_cluster_did_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(EngineError):
        _begin_and_lose_the_cluster(Engine(error=EngineError("no")), tmp_path / "x.tar")
    assert list(tmp_path.iterdir()) == []


def _begin_and_lose_the_cluster(engine: Any, file: Path) -> None:
    with saving(engine, ID, file, 0) as stream:
        stream.read(10)
        raise ClusterError("gone")


def test_the_record_is_upstream_s_ten_numbers_and_ours(file: Path) -> None:
    found, stat = record(file), file.stat()
    assert found[:10] == list(stat)
    assert found[stat_module.ST_MTIME] == int(stat.st_mtime)
    assert len(found[10].pop("seal")) == 64
    assert found[10] == {
        "version": 1,
        "mtime_ns": stat.st_mtime_ns,
        "device": stat.st_dev,
        "engine": "docker",
        "complete": True,
        "passing": False,
    }


def test_upstream_reads_our_record(file: Path) -> None:
    """Its rule, from arvados.commands.keepdocker: size and mtime by their places in the list."""
    found, stat = record(file), file.stat()
    assert found[stat_module.ST_MTIME] == stat.st_mtime // 1
    assert found[stat_module.ST_SIZE] == stat.st_size


@pytest.mark.conforms("K13")
def test_we_read_upstream_s_record(tmp_path: Path) -> None:
    file = tmp_path / "x.tar"
    file.write_bytes(CONTENT)
    stat_cache_name(file).write_text(json.dumps(list(file.stat())))
    assert serves(file)


@pytest.mark.parametrize("error", [EngineError("no"), KeyboardInterrupt(), SystemExit(143)])
def test_a_save_that_fails_leaves_nothing(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)):
        save(tmp_path / "x.tar", Engine(error=error))
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_fails_leaves_the_earlier_tarball(file: Path) -> None:
    with pytest.raises(EngineError):
        save(file, Engine(b"new", EngineError("no")))
    assert serves(file)


def test_saving_over_a_tarball(file: Path) -> None:
    save(file, Engine(b"new"))
    assert serves(file)
    assert file.read_bytes() == b"new"


def test_a_save_that_ended_between_its_two_renames_does_not_serve(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tarballs, "write_record", killed)
    with pytest.raises(KeyboardInterrupt):
        save(file, Engine(CONTENT))
    assert not serves(file)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, r"no room in .*1\.0 kB \(1000 bytes\).*are free.*XDG_CACHE_HOME"),
        (errno.EDQUOT, "no room in"),
        (errno.EACCES, "cannot be written"),
        (errno.EROFS, "cannot be written"),
    ],
)
def test_a_disk_that_does_not_take_it(tmp_path: Path, number: int, words: str) -> None:
    with pytest.raises(DiskError, match=words) as caught:
        save(tmp_path / "x.tar", Engine(error=OSError(number, os.strerror(number))))
    assert caught.value.exit_code == 7
    assert list(tmp_path.iterdir()) == []


# -- what does not serve ----------------------------------------------------------------


def test_nothing_there(tmp_path: Path) -> None:
    assert prep_image_file(tmp_path / "x.tar") == (None, True)


def _grow(file: Path) -> None:
    with file.open("ab") as opened:
        opened.write(b"x")


def _cut(file: Path) -> None:
    os.truncate(file, 10)


def _touch(file: Path) -> None:
    os.utime(file, (0, 12345))


def _touch_a_little(file: Path) -> None:
    time_ns = file.stat().st_mtime_ns
    os.utime(file, ns=(time_ns, time_ns ^ 1))


def _copy(file: Path) -> None:
    """The same size and times, another inode."""
    stat, content = file.stat(), file.read_bytes()
    other = file.with_name("copy")
    other.write_bytes(content)
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.rename(file)


@pytest.mark.conforms("K13")
@pytest.mark.parametrize("change", [_grow, _cut, _touch, _touch_a_little, _copy, Path.unlink])
def test_a_changed_file_does_not_serve(file: Path, change: Any) -> None:
    change(file)
    assert not serves(file)


def test_nor_one_of_another_device(file: Path) -> None:
    changed = record(file)
    changed[stat_module.ST_DEV] += 1
    stat_cache_name(file).write_text(json.dumps(changed))
    assert not serves(file)


@pytest.mark.conforms("K13")
@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"x",
        b"\xff\xfe",
        b"null",
        b"1",
        b"{}",
        b"[]",
        b"[1,2,3]",
        b"[" * 100_000,
        json.dumps([None] * 10).encode(),
        json.dumps([{}] * 11).encode(),
    ],
)
def test_a_record_of_garbage(file: Path, garbage: bytes) -> None:
    stat_cache_name(file).write_bytes(garbage)
    assert not serves(file)


@pytest.mark.parametrize(
    "ours", [None, 1, [], {}, {"complete": True}, {"complete": False, "mtime_ns": 0}, {"complete": "true"}]
)
def test_an_element_of_ours_that_is_incomplete(file: Path, ours: object) -> None:
    stat_cache_name(file).write_text(json.dumps([*record(file)[:10], ours]))
    assert not serves(file)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("which", ["tarball", "record"])
def test_what_is_no_file_does_not_serve(file: Path, which: str, make: Callable[[Path], None]) -> None:
    path = file if which == "tarball" else stat_cache_name(file)
    path.unlink()
    make(path)
    assert prep_image_file(file) == (None, True)


def test_a_record_that_is_missing(file: Path) -> None:
    stat_cache_name(file).unlink()
    assert not serves(file)


def test_discard(file: Path) -> None:
    discard(file)
    discard(file)
    assert list(file.parent.iterdir()) == []


# -- the folder -------------------------------------------------------------------------


def test_the_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == home / ".cache" / "arvados" / "docker"
    assert cache_folder().stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == home / ".cache" / "arvados" / "docker"
    monkeypatch.setenv("CACHE_DIRECTORY", f"relative:{home}/systemd:{home}/other")
    assert cache_folder() == home / "systemd" / "docker"


def test_a_folder_that_cannot_be_made(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "file"))
    with pytest.raises(DiskError, match="cannot be made"):
        cache_folder()


# -- the lock ---------------------------------------------------------------------------


def test_a_folder_of_another_user(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(DiskError, match=r"docker is not this user's to read\. Set XDG_CACHE_HOME"):
        tarballs.cache_folder()


def test_the_lock_goes_with_its_file(tmp_path: Path) -> None:
    with hold_image_lock(tmp_path, ID) as file:
        assert file == tmp_path / f"{ID}.tar"
        assert [path.name for path in tmp_path.iterdir()] == [f"{ID}.tar.lock"]
    assert list(tmp_path.iterdir()) == []


def test_an_error_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(EngineError), hold_image_lock(tmp_path, ID):
        raise EngineError("no")
    with hold_image_lock(tmp_path, ID):
        pass


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    for name in (f"{ID}.tar.partial", f"{ID}.tar.stat.partial", "other.tar.partial"):
        (tmp_path / name).write_text("x")
    with hold_image_lock(tmp_path, ID):
        assert {path.name for path in tmp_path.iterdir()} == {f"{ID}.tar.lock", "other.tar.partial"}


HOLDER = """
import sys, time
from pathlib import Path
from arv_docker.store.tarballs import hold_image_lock
from arv_docker.model.image import Digest
def say(message):
    print("waiting" if message.startswith("another process works on image") else message, flush=True)
with hold_image_lock(Path(sys.argv[1]), Digest.sha256("a" * 64), say):
    print("locked", flush=True)
    if len(sys.argv) > 2:
        time.sleep(600)
"""


@contextmanager
def holder(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that takes the lock; with an argument it keeps it."""
    command = [sys.executable, "-c", textwrap.dedent(HOLDER), str(folder), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_another_process_waits_and_says_so(tmp_path: Path) -> None:
    with hold_image_lock(tmp_path, ID), holder(tmp_path) as waiting:
        assert line(waiting) == "waiting"
        time.sleep(0.2)
        assert waiting.poll() is None


def test_the_waiting_one_gets_the_lock(tmp_path: Path) -> None:
    with holder(tmp_path) as waiting:
        with hold_image_lock(tmp_path, ID):
            first = line(waiting)
        lines = [first] if first == "locked" else [first, line(waiting)]
        assert lines[-1] == "locked"
        assert waiting.wait(10) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_killed_holder_frees_the_lock(tmp_path: Path) -> None:
    with holder(tmp_path, "keep") as process:
        assert line(process) == "locked"
        process.send_signal(signal.SIGKILL)
        process.wait()
        started = time.monotonic()
        with hold_image_lock(tmp_path, ID):
            assert time.monotonic() - started < 30
    assert list(tmp_path.iterdir()) == []


def test_a_lock_file_that_was_removed_and_made_anew_meanwhile_does_not_count(tmp_path: Path) -> None:
    """Who waited on the removed file must not hold a lock beside the one on the new file."""
    path = tmp_path / f"{ID}.tar.lock"
    old = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(old, fcntl.LOCK_EX)
    order: list[str] = []

    def wait() -> None:
        with hold_image_lock(tmp_path, ID, lambda _: order.append("waits")):
            order.append("waiter")

    waiter = threading.Thread(target=wait)
    waiter.start()
    while order != ["waits"]:
        time.sleep(0.01)
    path.unlink()
    new = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(new, fcntl.LOCK_EX)
    os.close(old)
    time.sleep(0.2)
    order.append("holder of the new file")
    os.close(new)
    waiter.join(10)
    assert order[1:] == ["holder of the new file", "waiter"]


def test_many_at_once_are_never_two_in_the_lock(tmp_path: Path) -> None:
    inside, worst, rounds = [0], [0], [0]

    def work() -> None:
        for _ in range(20):
            with hold_image_lock(tmp_path, ID):
                inside[0] += 1
                worst[0] = max(worst[0], inside[0])
                rounds[0] += 1
                time.sleep(0.0005)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (rounds[0], worst[0]) == (160, 1)
    assert list(tmp_path.iterdir()) == []

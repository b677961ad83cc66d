# SPDX-License-Identifier: Apache-2.0
"""This machine's disk: files that are written whole or not at all, locks between processes, and errors of the disk."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ..errors import DigestMismatch, DiskError
from ..model.image import Digest
from .ownership import is_ours
from .progress import Advance, size_text

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
#: Errors of a file system without hard links, or without links between these two places.
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS)
#: Errors of a file system without ``flock``.
_NO_LOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_CACHE_ADVICE = "set XDG_CACHE_HOME to a folder on a larger disk"
_PARTIAL = ".partial"


@contextmanager
def disk_errors(folder: Path, needed: int = 0, *, advice: str = _CACHE_ADVICE) -> Iterator[None]:
    """Turn the errors of a folder that cannot be written into DiskError.

    ``needed`` is the number of bytes that were to be written, if known: the message about a full disk then says what
    was needed and what is free. ``advice`` is what else to do than make room.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskError(_full_disk_message(folder, needed, advice)) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise DiskError(f"{folder} cannot be written: {error.strerror}.") from error
        raise


@contextmanager
def replace_file(path: Path, needed: int = 0) -> Iterator[IO[bytes]]:
    """Open a file to write and read back, which gets the name ``path`` when the block ends without an error.

    The file is on disk by then. Until then its name is ``partial_of(path)``, in the same folder; after an error it is
    removed, and ``path`` is as it was. A lock of the caller keeps others from writing there at the same moment. Raises
    DiskError; ``needed`` as for ``disk_errors``.
    """
    partial = partial_of(path)
    with disk_errors(path.parent, needed, advice="choose a folder on a larger disk"):
        partial.unlink(missing_ok=True)  # of a process that was killed; or somebody's link, which leads elsewhere
        try:
            with partial.open("x+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.rename(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def partial_of(path: Path) -> Path:
    """The path of the file for ``path`` while it is written."""
    return path.with_name(f".{path.name}{_PARTIAL}")


def target_of_partial(path: Path) -> Path | None:
    """The final path of the partial file ``path``; None for other files."""
    if not path.name.startswith(".") or not path.name.endswith(_PARTIAL):
        return None
    return path.with_name(path.name[1 : -len(_PARTIAL)])


def sync_folder(folder: Path) -> None:
    """Make names in the folder survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def hold_lock(path: Path, waiting: Iterable[None] = ()) -> Iterator[None]:
    """Hold the lock at ``path`` while the block lasts; its file is removed afterwards.

    ``waiting`` is advanced once if another process has the lock, to tell the user. Raises DiskError.
    """
    with disk_errors(path.parent):
        descriptor = acquire_lock(path, waiting)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def announce_wait(say: Callable[[str], object], work: str) -> Iterator[None]:
    """Say, where a lock is waited for, that another process does that ``work``; once."""
    say(f"another process {work}; waiting for it")
    yield


def acquire_lock(path: Path, waiting: Iterable[None] = ()) -> int:
    """Lock the file and return the descriptor. A file that was removed meanwhile is made again."""
    notices = iter(waiting)
    while True:
        descriptor = _lock_file(path)
        try:
            try:
                lock_descriptor(descriptor, path, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("waiting for another process that holds %s", path)
                next(notices, None)
                lock_descriptor(descriptor, path, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def lock_descriptor(descriptor: int, path: Path, operation: int) -> None:
    """Lock the open file, by ``flock``; raises BlockingIOError, and DiskError for a file system without locks.

    Without locks two commands at once would spoil each other's work, so none begins.
    """
    try:
        fcntl.flock(descriptor, operation)
    except OSError as error:
        if error.errno not in _NO_LOCK:
            raise
        if error.errno != errno.ENOLCK:  # no locks at all, so the file is nobody's; of these the kernel may run out
            path.unlink(missing_ok=True)
        raise DiskError(
            f"{path.parent} is on a file system without file locks (flock: {error.strerror}), which keep commands from "
            "spoiling each other's work. Choose a folder on another one; that of the cache is below XDG_CACHE_HOME."
        ) from error


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Hold the lock at ``path`` in the block if it is free; yield True if it is held."""
    descriptor = _lock_file(path)
    try:
        try:
            lock_descriptor(descriptor, path, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = os.path.samestat(os.fstat(descriptor), path.stat())
        except (BlockingIOError, FileNotFoundError):
            free = False
        yield free
        if free:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def read_file(path: Path, most: int) -> bytes:
    """Return the content of a small file, at most ``most`` + 1 bytes; raises OSError also for a link, or no regular
    file."""
    with _open_regular(path) as file:
        return file.read(most + 1)


def write_file(path: Path, content: bytes) -> None:
    """Write a small file whole or not at all."""
    with replace_file(path, len(content)) as file:
        file.write(content)


def hash_of(path: Path, advance: Advance) -> Digest | None:
    """Return the SHA-256 of a file's bytes; None if the file cannot be read, or is a link."""
    try:
        with _open_regular(path) as file:
            return _digest_of(file, advance)
    except OSError:
        return None


def free_space(folder: Path) -> str:
    """The free space of a folder, as text for a message."""
    free = shutil.disk_usage(folder).free
    return f"{size_text(free)} ({free} bytes)"


def amount_needed(needed: int) -> str:
    """An amount of bytes that is needed, as text for a message."""
    return f"about {size_text(needed)} ({needed} bytes)"


def link_or_copy(source: Path, target: Path, expected: Digest) -> None:
    """Make ``target`` a hard link to ``source``, or else a copy, whose bytes are compared with ``expected``.

    What others may write to is never linked: they could change it later. A file at ``target`` is replaced.
    Raises DigestMismatch and DiskError, and then leaves ``target`` as it was.
    """
    temporary = partial_of(target)
    with disk_errors(target.parent, advice="choose another folder"):
        temporary.unlink(missing_ok=True)
        if not is_ours(source):
            return _copy(source, target, expected)
        try:
            os.link(source, temporary)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            return _copy(source, target, expected)
        try:
            temporary.rename(target)
        finally:
            temporary.unlink(missing_ok=True)  # rename does nothing where both are one file already
        return sync_folder(target.parent)


@contextmanager
def _open_regular(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to read; raises OSError also for a link, and for what is no regular file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)  # a pipe is not waited for
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        yield file


def _lock_file(path: Path) -> int:
    """Open a lock file and return its descriptor; it is created if missing, and a link is not followed."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _copy(source: Path, target: Path, expected: Digest) -> None:
    with _open_regular(source) as original, replace_file(target, os.fstat(original.fileno()).st_size) as file:
        shutil.copyfileobj(original, file, _CHUNK)
        file.seek(0)
        if _digest_of(file, lambda _: None) != expected:
            raise DigestMismatch(f"{source} is not as it was written, and is not used.")


def _digest_of(file: IO[bytes], advance: Advance) -> Digest:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
        advance(len(chunk))
    return Digest("sha256", digest.hexdigest())


def _full_disk_message(folder: Path, needed: int, advice: str) -> str:
    files = os.statvfs(folder)
    if files.f_files and not files.f_favail:
        return f"no room in {folder}: its file system can have no more files. Remove some, or {advice}."
    wanted = f"{amount_needed(needed)} are needed, " if needed else ""
    return f"no room in {folder}: {wanted}{free_space(folder)} are free. Make room, or {advice}."

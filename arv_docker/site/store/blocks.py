# SPDX-License-Identifier: Apache-2.0
"""Keep blocks as files: ``blocks/<first three hex digits>/<md5>``.

A block is received into a temporary file beside its place, hashed on the way, synced, and
renamed; only then is it stored. Every read is checked against the name. All functions block:
callers run them in threads.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ...local.disk import sync_folder

#: Bytes per read while comparing and verifying; hashing releases the interpreter lock for each.
PIECE = 1 << 20

#: Seconds after which a temporary file's writer is taken for dead.
STALE_SECONDS = 3600

_PREFIX = "tmp-"
_MD5 = re.compile(r"[0-9a-f]{32}", re.ASCII)


class WrongContent(Exception):
    """Received bytes whose MD5 is not the name they were sent under."""

    def __init__(self, wanted: str, actual: str) -> None:
        super().__init__(f"the bytes have MD5 {actual}, not {wanted}")


class Collision(Exception):
    """Received bytes that differ from a good stored block of the same MD5."""


class DamagedBlock(Exception):
    """A stored block with another MD5 than its name."""


@dataclass(frozen=True, slots=True)
class Totals:
    """The number of stored blocks, and of their bytes."""

    blocks: int
    bytes: int


class Incoming:
    """A block being received. Either ``commit`` or ``discard`` ends it."""

    def __init__(self, store: BlockStore, md5: str) -> None:
        self._store = store
        self._md5 = md5
        self._hash = hashlib.md5(usedforsecurity=False)
        self._place = store.path(md5)
        self._temporary = self._place.with_name(f"{_PREFIX}{md5}-{secrets.token_hex(6)}")
        store.make_prefix(self._place.parent)
        self._file = self._temporary.open("xb", buffering=0)
        # A request that is cut off is discarded while a thread may still be writing its last piece.
        self._lock = threading.RLock()
        self.size = 0

    def write(self, data: bytes | bytearray) -> None:
        """Take the next bytes of the block."""
        with self._lock:
            if self._file.closed:
                return  # discarded meanwhile
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
            self._hash.update(data)
            self.size += len(data)

    def commit(self) -> None:
        """Put the block on disk under its name; raises WrongContent and Collision, and leaves nothing then."""
        with self._lock:
            try:
                self._put_in_place()
            finally:
                self.discard()
        # Also for a block that was there: whoever renamed it may not have got to this line yet.
        sync_folder(self._place.parent)

    def discard(self) -> None:
        """Remove the temporary file, and leave only a block that was stored; a second time does nothing."""
        with self._lock:
            if not self._file.closed:
                self._file.close()
                self._temporary.unlink(missing_ok=True)

    def _put_in_place(self) -> None:
        found = self._hash.hexdigest()
        if found != self._md5:
            raise WrongContent(self._md5, found)
        with _open_locked(self._place, fcntl.LOCK_SH) as stored:
            if stored is not None and self._already_stored():
                os.utime(stored)
                os.fsync(stored)
            else:
                os.fsync(self._file.fileno())
                self._temporary.replace(self._place)

    def _already_stored(self) -> bool:
        """Say if the very same bytes are stored. A stored block that lost its content counts as not stored."""
        if _same_bytes(self._place, self._temporary):
            return True
        if _md5_of(self._place) == self._md5:
            raise Collision(self._md5)
        return False


class BlockStore:
    """All blocks of a site."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._durable_prefixes: set[str] = set()

    def prepare(self) -> None:
        """Create the folder of the blocks, and remove what writers left who died over an hour ago."""
        self.root.mkdir(mode=0o700, exist_ok=True)
        sync_folder(self.root.parent)
        limit = time.time() - STALE_SECONDS
        for left in self.root.glob(f"*/{_PREFIX}*"):
            with suppress(FileNotFoundError):
                if left.stat().st_mtime < limit:
                    left.unlink()

    def path(self, md5: str) -> Path:
        """The path where the block of that MD5 lies, or would."""
        return self.root / md5[:3] / md5

    def make_prefix(self, folder: Path) -> None:
        """Make the folder of a block, durably. Each process syncs once a folder: another may have made it just now."""
        if folder.name not in self._durable_prefixes:
            folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(self.root)
            self._durable_prefixes.add(folder.name)

    def receive(self, md5: str) -> Incoming:
        """Begin to receive a block."""
        return Incoming(self, md5)

    def size(self, md5: str) -> int | None:
        """The size of the stored block in bytes, None where there is none."""
        try:
            return self.path(md5).stat().st_size
        except FileNotFoundError:
            return None

    def verify(self, md5: str) -> None:
        """Read the whole block; raises Damaged, and FileNotFoundError."""
        if _md5_of(self.path(md5)) != md5:
            raise DamagedBlock(md5)

    def pieces(self, md5: str) -> Iterator[bytes]:
        """The block in pieces of 1 MiB. The last one comes only if all of them hash to the name; else Damaged.

        A reader therefore never holds a whole block with wrong content.
        """
        digest = hashlib.md5(usedforsecurity=False)
        held = b""
        with self.path(md5).open("rb", buffering=0) as file:
            while piece := file.read(PIECE):
                if held:
                    yield held
                digest.update(piece)
                held = piece
        if digest.hexdigest() != md5:
            raise DamagedBlock(md5)
        yield held

    def names(self) -> Iterator[str]:
        """The MD5 of every stored block."""
        for folder in self.root.glob("[0-9a-f][0-9a-f][0-9a-f]"):
            yield from (found.name for found in folder.iterdir() if _MD5.fullmatch(found.name))

    def totals(self) -> Totals:
        """The number of stored blocks, and their bytes."""
        sizes = [size for md5 in self.names() if (size := self.size(md5)) is not None]
        return Totals(len(sizes), sum(sizes))

    def remove(self, md5: str, before: float, *, dry_run: bool) -> int | None:
        """Remove a block, unless it was stored or touched since the Unix time ``before``; return its size if it went.

        A PUT of the same block waits, and then finds it gone: it never touches a block that is about to go.
        """
        path = self.path(md5)
        with _open_locked(path, fcntl.LOCK_EX) as stored:
            found = os.fstat(stored) if stored is not None else None
            if found is None or found.st_mtime >= before:
                return None
            if not dry_run:
                path.unlink()
            return found.st_size


@contextmanager
def _open_locked(path: Path, operation: int) -> Iterator[int | None]:
    """The file at ``path``, opened and locked; None where there is none. It is at ``path`` when the lock is had."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            yield None
            return
        try:
            fcntl.flock(descriptor, operation)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    yield descriptor
                    return
        finally:
            os.close(descriptor)


def _same_bytes(left: Path, right: Path) -> bool:
    with left.open("rb", buffering=0) as one, right.open("rb", buffering=0) as other:
        if os.fstat(one.fileno()).st_size != os.fstat(other.fileno()).st_size:
            return False
        while piece := one.read(PIECE):
            if piece != other.read(PIECE):
                return False
    return True


def _md5_of(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()

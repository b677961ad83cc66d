# SPDX-License-Identifier: Apache-2.0
"""An archive compressed as a whole, or alone in a ZIP file, read like a plain archive.

A compressed archive can only be read from its front. It is read through once for an index,
small files and the beginnings of others being kept; then again for the layers, which come in its own order.
"""

from __future__ import annotations

import io
import sys
from typing import IO, cast

from ...errors import BadArchive
from ...local.progress import Advance, Progress, SilentProgress
from ...model.image import MAX_JSON_SIZE
from ..blob import RandomAccess
from ..layer import CHUNK, Stream
from ..tar import TOLERANT, HeaderCheck, Member, members
from .decompression import MAGIC_LENGTH, DecompressedStream, kind_of
from .zip_file import ZippedMember

_ZIP = b"PK\x03\x04"
#: Of the form of today, and of that before 2010.
_LZ4 = (b"\x04\x22\x4d\x18", b"\x02\x21\x4c\x18")
#: What is kept of all small files together.
_ROOM = 64 << 20


def unwrap(
    source: RandomAccess, progress: Progress | None = None, check: HeaderCheck = TOLERANT
) -> tuple[RandomAccess, list[Member] | None]:
    """Return ``source``; for a compressed one the archive in it, and the members, which had to be read.

    Raises BadArchive for what is damaged, cut short, or compressed twice.
    """
    start = source.read_at(0, MAGIC_LENGTH)
    _refuse_lz4(start)
    if (kind := kind_of(start)) is not None:
        inner = UnwrappedArchive(source, kind)
        _refuse_wrapped(inner)
        return inner, inner.read_members(progress or SilentProgress(), check)
    if start.startswith(_ZIP):
        member = ZippedMember(cast(IO[bytes], _File(source)))
        _refuse_wrapped(member)
        return member, None
    return source, None


def _refuse_lz4(start: bytes) -> None:
    if start.startswith(_LZ4):
        raise BadArchive("the archive is compressed with lz4, which is not read. Decompress it first: lz4 -d FILE.")


def _refuse_wrapped(source: RandomAccess) -> None:
    start = source.read_at(0, MAGIC_LENGTH)
    if kind_of(start) is not None or start.startswith(_ZIP):
        raise BadArchive("the archive is compressed twice. Decompress it once, and try again.")


def unwrapped_stream(stream: Stream) -> Stream:
    """Return ``stream``, decompressed where it is compressed; raises BadArchive for a ZIP file, and as it is read."""
    start = stream.read(MAGIC_LENGTH)
    _refuse_lz4(start)
    if start.startswith(_ZIP):
        raise BadArchive("a ZIP file is read from its end, and what is piped in has none. Save it to a file first.")
    whole = _PrefixedStream(start, stream)
    kind = kind_of(start)
    return DecompressedStream(whole.read, kind, what="the archive") if kind else whole


class UnwrappedArchive:
    """Decompressed content of a file, read at any place; fast only from the front on. A RandomAccess."""

    def __init__(self, source: RandomAccess, kind: str) -> None:
        self._source = source
        self._kind = kind
        self._kept: dict[int, bytes] = {}
        self._begin()
        self.size = sys.maxsize  # nobody knows before its end

    def read_members(self, progress: Progress, check: HeaderCheck = TOLERANT) -> list[Member]:
        """Return the members of the compressed tar, read once to the end. Raises the errors of ``tar.members``."""
        found = []
        room = _ROOM
        with progress.step("reading the compressed archive", self._source.size) as advance:
            self._begin(advance)
            for member in members(self, check):
                small = member.size <= min(MAX_JSON_SIZE, room)
                content = self.read_at(member.offset, member.size if small else MAGIC_LENGTH)
                room -= len(content)
                self._kept[member.offset] = content
                found.append(member)
            while self._next(CHUNK):
                pass
        self.size = self._position
        self._begin()
        return found

    def read_at(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``; fewer only at the end. Raises BadArchive for what is damaged."""
        if (kept := self._kept.get(offset)) is not None and length <= len(kept):
            return kept[:length]
        if offset < self._position:
            self._begin()
        while self._position < offset:
            if not self._next(min(CHUNK, offset - self._position)):
                return b""
        return self._next(length)

    def _begin(self, advance: Advance | None = None) -> None:
        """Go back to the archive's front."""
        compressed = _File(self._source)

        def read(length: int) -> bytes:
            content = compressed.read(length)
            if advance is not None:
                advance(len(content))
            return content

        self._stream = DecompressedStream(read, self._kind, what="the archive")
        self._position = 0

    def _next(self, length: int) -> bytes:
        content = self._stream.read(length)
        self._position += len(content)
        return content


class _PrefixedStream:
    """A Stream, put together again with its first bytes, which have been read."""

    def __init__(self, start: bytes, rest: Stream) -> None:
        self._start = start
        self._rest = rest

    def read(self, length: int) -> bytes:
        start, self._start = self._start[:length], self._start[length:]
        return start + self._rest.read(length - len(start))

    def readinto(self, buffer: memoryview) -> int:
        start, self._start = self._start[: len(buffer)], self._start[len(buffer) :]
        buffer[: len(start)] = start
        return len(start) + self._rest.readinto(buffer[len(start) :])


class _File(io.RawIOBase):
    """A RandomAccess in the form of the standard library."""

    def __init__(self, source: RandomAccess) -> None:
        self._source = source
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, length: int = -1, /) -> bytes:
        length = self._source.size - self._position if length < 0 else length
        content = self._source.read_at(self._position, length)
        self._position += len(content)
        return content

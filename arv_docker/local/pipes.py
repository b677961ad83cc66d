# SPDX-License-Identifier: Apache-2.0
"""Standard input as a stream that a signal can always end."""

from __future__ import annotations

import io
import os
import select
import sys
from typing import BinaryIO

#: Seconds after which a signal is looked for while nothing comes.
_STEP = 0.5


class StandardInput:
    """Bytes that are piped in, read once, from the front.

    Python's own buffered reader collects what is asked for below the interpreter: a signal that arrives there between
    two reads is seen when the next bytes come, which may be never. Here bytes are waited for in short steps.
    """

    def __init__(self) -> None:
        self._file: BinaryIO = sys.stdin.buffer
        try:
            self._descriptor: int | None = self._file.fileno()
        except io.UnsupportedOperation:  # a calling program put something in its place
            self._descriptor = None

    def read(self, length: int, /) -> bytes:
        """Return the next ``length`` bytes; fewer only at the end."""
        content = bytearray(length)
        return bytes(content[: self.readinto(memoryview(content))])

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill ``buffer`` and return the number of bytes; fewer than it holds only at the end."""
        count = 0
        while count < len(buffer):
            some = self._read_some(buffer[count:])
            if not some:
                break
            count += some
        return count

    def _read_some(self, buffer: memoryview) -> int:
        if self._descriptor is None:
            return self._file.readinto(buffer)  # type: ignore[attr-defined, no-any-return]
        while not select.select([self._descriptor], [], [], _STEP)[0]:
            pass
        return os.readv(self._descriptor, [buffer])

# SPDX-License-Identifier: Apache-2.0
"""Compressing a layer with gzip: the same bytes each time, on all processors.

The content is cut into pieces that are compressed at the same time, each with the end of the
one before as its dictionary, and joined into one ordinary gzip stream (as pigz does). What comes out is a function
of the content and of the zlib that Python has; time, name and number of processors are not in it.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

#: Part of what is remembered of a compressed layer: a change here makes other bytes.
FORM = "gzip-1"

#: No name, no time, of no system.
_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
#: An empty last block, which ends the stream.
_LAST = b"\x03\0"
_PIECE = 1 << 20
_WINDOW = 32 << 10
#: Twice as fast as the usual 6 (54 against 25 MB/s of one processor, measured on a program) and 4 % larger.
_LEVEL = 4


def gzip_chunks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """Yield the gzip stream of ``read``'s bytes, in chunks. ``read`` gives fewer than asked for only at the end."""
    processors = os.cpu_count() or 1
    yield _HEADER
    checksum = size = 0
    before = b""
    under_way: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(processors) as pool:
        while piece := read(_PIECE):
            checksum, size = zlib.crc32(piece, checksum), size + len(piece)
            under_way.append(pool.submit(_deflate, piece, before))
            before = piece[-_WINDOW:]
            if len(under_way) > 2 * processors:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    yield _LAST + struct.pack("<II", checksum, size & 0xFFFFFFFF)


def _deflate(piece: bytes, before: bytes) -> bytes:
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -15, zdict=before)
    return deflate.compress(piece) + deflate.flush(zlib.Z_SYNC_FLUSH)

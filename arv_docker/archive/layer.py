# SPDX-License-Identifier: Apache-2.0
"""A layer while it is read: its uncompressed bytes, once, from the front, hashed on the way.

Every source hands out layers as these, and every destination reads them through
``read``; so no byte passes through the program unhashed, and a layer that is not what
it claims to be raises at its end, before anything is made of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol

from ..errors import BadArchive, DigestMismatch
from ..model.image import Digest
from .codecs.decompression import MAGIC_LENGTH, kind_of

_BLOCK = 512
#: Where a tar's first header says what it is.
_MAGIC = 257

#: Bytes that are read at once where nothing larger is asked for.
CHUNK = 1 << 20


class Stream(Protocol):
    """Bytes that are read once, from the front."""

    def read(self, length: int, /) -> bytes:
        """Return the next ``length`` bytes; fewer only at the end."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill ``buffer`` and return the number of bytes; fewer than it holds only at the end."""


class Layer:
    """A layer's bytes. ``claimed`` is the diff_id by the source, None where the source knows it at the end only.

    ``size`` is the number of uncompressed bytes, None where unknown before the end.
    """

    __slots__ = ("_hash", "_read", "_readinto", "claimed", "position", "size")

    def __init__(
        self,
        read: Callable[[int], bytes],
        *,
        claimed: Digest | None,
        size: int | None,
        readinto: Callable[[memoryview], int] | None = None,
    ) -> None:
        """Take ``read`` and ``readinto`` of a ``Stream``; one that cannot fill a buffer has the first alone."""
        self._read = read
        self._readinto = readinto or self._copy_into
        self._hash = hashlib.sha256()
        self.claimed = claimed
        self.size = size
        self.position = 0

    def read(self, length: int = CHUNK) -> bytes:
        """Return the next ``length`` bytes; fewer only at the end, ``b""`` after it.

        At the end raises DigestMismatch if the bytes are not those of ``claimed``, and
        BadArchive if there were fewer than ``size``.
        """
        content = self._read(length)
        if self.position == 0:
            self._refuse_compressed(content)
        self._hash.update(content)
        self.position += len(content)
        if len(content) < length:
            self._check()
        return content

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` with the next bytes and return their number; fewer only at the end. Raises like ``read``."""
        filled = 0
        while filled < len(buffer):
            piece = buffer[filled : filled + CHUNK]
            count = self._readinto(piece)
            if self.position == filled == 0:
                self._refuse_compressed(bytes(piece[: min(count, _BLOCK)]))
            self._hash.update(piece[:count])
            filled += count
            if count < len(piece):
                break
        self.position += filled
        if filled < len(buffer):
            self._check()
        return filled

    @property
    def diff_id(self) -> Digest:
        """The SHA-256 of the bytes read: the layer's diff_id, once ``read`` has come to the end."""
        return Digest("sha256", self._hash.hexdigest())

    def _copy_into(self, buffer: memoryview) -> int:
        content = self._read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def _refuse_compressed(self, start: bytes) -> None:
        """Raise DigestMismatch where the bytes that a config names are those of a compressed stream: a diff_id is the
        digest of the tar in it, and no engine loads an image that says otherwise."""
        kind = kind_of(start[:MAGIC_LENGTH]) if self.claimed is not None else None
        if kind is not None and start[_MAGIC : _MAGIC + 5] != b"ustar":
            raise DigestMismatch(
                f"the config names layer {self.claimed} by the digest of its {kind} stream, not of the tar in it. No "
                "engine loads such an image; build it again."
            )

    def _check(self) -> None:
        what = f"layer {self.claimed}" if self.claimed else "a layer"
        if self.size is not None and self.position != self.size:
            raise BadArchive(f"{what} ends after {self.position} of {self.size} bytes. Save the image again.")
        if self.claimed is not None and self.diff_id != self.claimed:
            raise DigestMismatch(
                f"{what} holds other bytes: they hash to {self.diff_id}. Nothing of this image is used."
            )

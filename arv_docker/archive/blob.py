# SPDX-License-Identifier: Apache-2.0
"""Files of an archive or layout: found by name, read at any place. No name becomes a path here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from ..errors import BadArchive, DigestMismatch
from ..model.image import Digest


class RandomAccess(Protocol):
    """Bytes that can be read anywhere: a local file, a file in Keep."""

    @property
    def size(self) -> int:
        """The number of bytes in all."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``; fewer only at the end."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A file of an archive or layout: ``size`` bytes of ``source`` from ``offset``."""

    source: RandomAccess
    offset: int
    size: int

    def reader(self) -> Callable[[int], bytes]:
        """Return a function that reads the file on from its front."""
        return section(self.source, self.offset, self.size)

    def start(self, length: int) -> bytes:
        """The first ``length`` bytes of the file, or all of it."""
        return self.source.read_at(self.offset, min(length, self.size))


class Files(Protocol):
    """The files of an archive or layout."""

    def __contains__(self, name: str, /) -> bool:
        """True if there is a file called ``name``."""

    def names(self) -> Iterator[str]:
        """The names of all the files."""

    def blob(self, name: str) -> Blob:
        """The file called ``name``; raises BadArchive without one, and for a name that several files have."""

    def read(self, name: str, *, limit: int) -> bytes:
        """Return a file's content; raises BadArchive where it is larger than ``limit`` bytes."""


class CheckedReader:
    """A blob's bytes, read from its front: checked at the end to be ``size`` bytes that hash to the blob's digest."""

    def __init__(self, read: Callable[[int], bytes], size: int, named: Digest | None, *, what: str) -> None:
        """Take the digest ``named``, or None: then only the blob's size is checked."""
        self._read = read
        self._left = size
        self._hash = hashlib.new(named.algorithm) if named else None
        self._named = named
        self._what = what

    def read(self, length: int) -> bytes:
        """Return ``length`` bytes; fewer only at the end, which raises DigestMismatch or BadArchive if it is wrong."""
        content = self._read(length)
        self._left -= len(content)
        if self._hash is not None:
            self._hash.update(content)
        if len(content) < length:
            self._check()
        return content

    def _check(self) -> None:
        if self._left:
            raise BadArchive(f"{self._what} ends {self._left} bytes early. Save or copy the image again.")
        if self._hash is not None and self._named is not None and self._hash.hexdigest() != self._named.hex:
            raise DigestMismatch(
                f"{self._what} is stored as {self._named}, and that holds other bytes. Nothing of this image is used."
            )


def section(source: RandomAccess, offset: int, size: int) -> Callable[[int], bytes]:
    """Return a function that reads ``source`` on from ``offset``, ``size`` bytes in all."""
    return partial(_read_on, source, [offset, offset + size])


def _read_on(source: RandomAccess, bounds: list[int], length: int) -> bytes:
    content = source.read_at(bounds[0], min(length, bounds[1] - bounds[0]))
    bounds[0] += len(content)
    return content

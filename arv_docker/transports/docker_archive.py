# SPDX-License-Identifier: Apache-2.0
"""``docker-archive:``, a file that ``docker save`` or its like wrote, whole or compressed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..archive.archived import ArchivedImage
from ..archive.docker import DockerArchive
from ..archive.listing import Name
from ..errors import BadArchive, UsageError
from ..reference import parse_name
from .names import Choice


def source(rest: str, choice: Choice) -> ArchiveFile:
    """``PATH[:REFERENCE]``; the path ends at the first colon, as skopeo has it."""
    path, _, name = rest.partition(":")
    if not path:
        raise UsageError(f"docker-archive:{rest} names no file.")
    return ArchiveFile(Path(path), parse_name(name) if name else None, choice)


class LocalFile:
    """An open file that is read at any place, by several threads at once."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``; fewer only at the end."""
        content = os.pread(self._descriptor, length, offset)
        if len(content) in (0, length) or offset + len(content) >= self.size:
            return content
        return content + self.read_at(offset + len(content), length - len(content))


class ArchiveFile:
    """An archive in a file, and which of its images is meant (None: the only one)."""

    def __init__(self, path: Path, name: Name | None = None, choice: Choice | None = None) -> None:
        self._path = path
        self._name = name
        self._choice = choice or Choice()

    @contextmanager
    def open(self) -> Iterator[ArchivedImage]:
        """The image; raises BadArchive for a file that cannot be read, and what ``archive.docker`` refuses."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise BadArchive(f"{self._path} cannot be read: {error.strerror}.") from None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BadArchive(f"{self._path} is no regular file; an archive is read at any place. Save it to one.")
            yield opened(descriptor, self._name, self._choice)
        finally:
            os.close(descriptor)


def opened(descriptor: int, name: Name | None = None, choice: Choice | None = None) -> ArchivedImage:
    """The image in the archive that is open as ``descriptor``."""
    choice = choice or Choice()
    return DockerArchive(LocalFile(descriptor), progress=choice.progress).image(name, choice.platform)

# SPDX-License-Identifier: Apache-2.0
"""An archive in a ZIP file: one member, the same bytes each time, and a seal over the whole file.

The seal is the file's comment: the SHA-256 of all bytes before it. So a damaged byte is
found wherever it is, also where no reader of ZIP files looks. ZIP files of others have
no comment; what is in them is judged by its own digests alone.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterable
from threading import Lock
from typing import IO, cast

from ...errors import BadArchive, DigestMismatch
from ...local.progress import UNHEARD_STEP, Advance
from ..layer import CHUNK

_SEAL = b"sha256:"
_SEAL_LENGTH = len(_SEAL) + 64
_END_RECORD = 22
#: The earliest time that the format knows; a real one would make every file differ.
_TIME = (1980, 1, 1, 0, 0, 0)

#: Of the other methods zipfile decompresses as much at once as a bomb holds.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

#: The largest part of a file that zipfile may read at once. The directory is read so, which takes eight times its size
#: and a second for each 8 MiB; that of one member is small, and of the member no more than this is ever asked for.
_MOST = 8 << 20

#: What zipfile raises for files that are none, or are damaged.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)


class ZippedMember:
    """The one member of a ZIP file, to be read anywhere; fast only from the front on. A RandomAccess.

    ``compressed_size`` is that of the member's bytes in the file.
    """

    def __init__(self, file: IO[bytes]) -> None:
        """Read the ZIP file's directory; raises BadArchive where that cannot be done or does not list one file."""
        try:
            self._zip = zipfile.ZipFile(cast(IO[bytes], _BoundedReader(file)))
            members = self._zip.infolist()
            if len(members) != 1 or members[0].is_dir():
                raise BadArchive(f"the ZIP file holds {len(members)} members; an image archive is exactly one file.")
            if members[0].compress_type not in _METHODS:
                raise BadArchive("the ZIP file is compressed in an unusual way. Take the archive out of it first.")
            self._member = self._zip.open(members[0])
        except _UNREADABLE as error:
            raise BadArchive(f"the ZIP file cannot be read: {error}.") from None
        self._lock = Lock()
        self._file = file
        self.size = members[0].file_size
        self.compressed_size = members[0].compress_size

    def read_at(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``; fewer only at the end. Raises BadArchive for damaged ones."""
        with self._lock:
            try:
                self._member.seek(offset)
                return self._member.read(length)
            except _UNREADABLE as error:
                raise BadArchive(f"the ZIP file is damaged: {error}.") from None

    def check_seal(self, advance: Advance = UNHEARD_STEP) -> None:
        """Raise DigestMismatch if the file was sealed and is not as it was; reads all of it."""
        comment = self._zip.comment
        with self._lock:
            length = self._file.seek(0, 2)
            start = length - len(comment)
            self._file.seek(max(0, start - _END_RECORD))
            if self._file.read(4) != b"PK\5\6" or len(comment) not in (0, _SEAL_LENGTH):
                raise DigestMismatch("the end of the ZIP file is not what was written there.")
            if comment and comment != _seal(self._file, start, advance):
                raise DigestMismatch("the ZIP file is not as it was written: its bytes do not hash to its seal.")


class _BoundedReader:
    """The part of a file object that zipfile needs for reading, with a bound to the bytes of one read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, length: int = -1) -> bytes:
        content = self._file.read(length if 0 <= length <= _MOST else _MOST + 1)
        if len(content) > _MOST:
            raise BadArchive(f"the ZIP file has a directory of more than {_MOST} bytes; it holds more than an image.")
        return content


def write(file: IO[bytes], name: str, size: int, content: Iterable[bytes]) -> None:
    """Write a sealed ZIP file of one member of ``size`` bytes to ``file``, which can be read back."""
    member = zipfile.ZipInfo(name, _TIME)
    member.compress_type = zipfile.ZIP_DEFLATED
    member.create_system = 3  # Unix, on every system
    member.external_attr = 0o644 << 16
    member.file_size = size  # tells whether sizes of 64 bits are needed
    with zipfile.ZipFile(file, "w") as archive:
        archive.comment = bytes(_SEAL_LENGTH)
        with archive.open(member, "w") as target:
            for chunk in content:
                target.write(chunk)
    file.flush()
    start = file.seek(0, 2) - _SEAL_LENGTH
    seal = _seal(file, start)
    file.seek(start)
    file.write(seal)


def _seal(file: IO[bytes], length: int, advance: Advance = UNHEARD_STEP) -> bytes:
    digest = hashlib.sha256()
    file.seek(0)
    while length > 0 and (content := file.read(min(CHUNK, length))):
        digest.update(content)
        advance(len(content))
        length -= len(content)
    return _SEAL + digest.hexdigest().encode()

# SPDX-License-Identifier: Apache-2.0
"""Features forbidden in a tar that is vouched for as it lies: anything that two readers may read differently.

Engines read tars with Go's reader. It lets a metadata header replace the one before, forgets both at a global
header, takes the prefix of a name from other places in old variants of the header, and refuses fields and records
that other readers skip. Programs that extract an archive follow links to folders. An archive with such features can
show one image to a reader and another one to the next, each byte of both being right
(docs/spec/archive.md#two-readers).
"""

from __future__ import annotations

import posixpath
import re

from ..errors import BadArchive
from .blob import RandomAccess
from .tar import BLOCK, HeaderCheck, normal_name

_POSIX, _GNU = b"ustar\x0000", b"ustar  \0"
#: Mode, owner, group and time, which no image is made of and Go's reader reads all the same.
_NUMBERS = ((100, 108), (108, 116), (116, 124), (136, 148), (329, 337), (337, 345))
_OCTAL = re.compile(rb"[ \0]*[0-7]*[ \0]*")
_BASE_256 = (0x80, 0xFF)

#: Records that Go's reader understands, and what their values must be.
_NUMBER, _TIME = re.compile(rb"-?[0-9]{1,18}"), re.compile(rb"-?[0-9]{1,18}(\.[0-9]*)?")
_VALUES = {
    b"uid": _NUMBER,
    b"gid": _NUMBER,
    b"size": re.compile(rb"[0-9]{1,18}"),
    b"mtime": _TIME,
    b"atime": _TIME,
    b"ctime": _TIME,
}

_FILES, _FOLDER, _SYMBOLIC_LINK = (b"0", b"\0"), b"5", b"2"


class StrictCheck(HeaderCheck):
    """A check that refuses, as ``tar.members`` reads an archive, what another reader may read differently."""

    def __init__(self) -> None:
        self._pending: set[bytes] = set()
        self._kinds: dict[str, bytes] = {}
        self._links: dict[str, str] = {}

    def metadata(self, header: bytes, kind: bytes, content: bytes) -> None:
        """Raise BadArchive for a global header, for a repeated header, and for records that Go refuses."""
        _check_header(header)
        if kind == b"g":
            raise _odd("a global metadata header")
        if kind in self._pending:
            raise _odd("a metadata header that replaces the one before it")
        self._pending.add(kind)
        if kind == b"x":
            _check_records(content)
        elif b"\0" in content.rstrip(b"\0"):
            raise _odd("a long name with a NUL in it")

    def member(self, header: bytes, written: str, kind: bytes, target: str | None) -> None:
        """Raise BadArchive for a header of an old variant, and for a member whose place is another's."""
        self._pending.clear()
        _check_header(header)
        if kind not in (*_FILES, _FOLDER, _SYMBOLIC_LINK):
            raise _odd(f"{written!r}, a member of type {kind!r}")
        if written.startswith("/"):
            raise _odd(f"the absolute name {written!r}")
        name = normal_name(written)
        if kind == _FOLDER and name in (".", ""):
            return
        if kind not in _FILES and header[124:136].strip(b" \0").strip(b"0"):
            raise _odd(f"{written!r}, which is no file and has a size")
        if target is not None:
            if target.startswith("/"):
                raise _odd(f"the link {written!r}, which leads out of it, to {target!r}")
            self._links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        before = self._kinds.setdefault(name, kind)
        if before != kind and not {before, kind} <= set(_FILES):
            raise _odd(f"{name!r} twice, as members of different types")
        for folder in _folders_above(name):
            if self._kinds.setdefault(folder, _FOLDER) != _FOLDER:
                raise _odd(f"{name!r} below {folder!r}, which is no folder")

    def end(self, source: RandomAccess, offset: int) -> None:
        """Raise BadArchive for metadata of no member, and for anything behind a single block of zeros."""
        if self._pending:
            raise _odd("a metadata header that belongs to no member")
        if source.read_at(offset, BLOCK).strip(b"\0"):
            raise _odd("other bytes behind a single block of zeros")
        for name, path in self._links.items():
            if self._kinds.get(path) not in _FILES:
                raise _odd(f"the link {name!r}, which leads to no file")


def _folders_above(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _check_header(header: bytes) -> None:
    magic = header[257:265]
    if magic not in (_POSIX, _GNU):
        raise _odd("a header that is neither POSIX's nor GNU's")
    # star's variant ends in `tar`; GNU's old one has times and a map of holes where POSIX has the prefix.
    if header[500:BLOCK].strip(b"\0") or (magic == _GNU and header[345:BLOCK].strip(b"\0")):
        raise _odd("a header of an old variant")
    for start, end in _NUMBERS:
        field = header[start:end]
        if field[0] not in _BASE_256 and not _OCTAL.fullmatch(field):
            raise _odd("a header with a field that is no number")


def _check_records(content: bytes) -> None:
    """Raise BadArchive for PAX records that Go's reader refuses; ``tar`` has checked their form."""
    start = 0
    keys: set[bytes] = set()
    while start < len(content):
        digits, blank, _ = content[start:].partition(b" ")
        if not blank or not digits.isdigit() or digits.startswith(b"0"):
            raise _odd("a PAX header with other bytes behind its records")
        key, _, value = content[start + len(digits) + 1 : start + int(digits) - 1].partition(b"=")
        if not key or b"\0" in key or (b"\0" in value and key in (b"path", b"linkpath", b"uname", b"gname")):
            raise _odd("a PAX record with a NUL in it")
        if value and (pattern := _VALUES.get(key)) is not None and not pattern.fullmatch(value):
            raise _odd(f"the PAX record {key.decode()!r} with a value that is no number")
        if key in keys:
            raise _odd(f"the PAX record {key.decode(errors='replace')!r} twice")
        keys.add(key)
        if key.startswith(b"GNU.sparse"):
            raise _odd("a sparse member")
        start += int(digits)


def _odd(what: str) -> BadArchive:
    return BadArchive(f"the archive has {what}. Readers disagree about such archives; save the image again.")

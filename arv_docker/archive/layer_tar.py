# SPDX-License-Identifier: Apache-2.0
"""The files in a layer's tar, header after header: attributes, and the place of the bytes.

Headers are read as engines read them, with Go's reader, and content is skipped. Layers are strangers': the number of
headers, the length of names and of metadata are bounded, and no name becomes a path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, Literal, Protocol

from ..errors import BadArchive
from .blob import Blob
from .layer import CHUNK, Layer
from .tar import (
    BLOCK,
    MAX_METADATA,
    METADATA,
    WITHOUT_CONTENT,
    check_header,
    name_of,
    number_of,
    pax_records,
    size_of,
    text_of,
)

#: More files than images have, their layers together. One takes about 400 bytes of memory.
MAX_FILES = 1_000_000
#: Characters of all names, targets of links and attributes of one image.
MAX_TEXT = 128 << 20
#: Names that its links may lead through while its layers are put upon each other.
MAX_STEPS = 20_000_000
#: The longest path, and the longest target of a link, that Linux takes.
MAX_PATH = 4096

Kind = Literal["file", "directory", "symlink", "character", "block", "fifo"]
DIRECTORY: Final = "directory"
SYMLINK: Final = "symlink"
FILE: Final = "file"

_KINDS: dict[bytes, Kind] = {
    b"\0": "file",
    b"0": "file",
    b"7": "file",
    b"2": "symlink",
    b"3": "character",
    b"4": "block",
    b"5": "directory",
    b"6": "fifo",
}
_HARD_LINK = b"1"
#: GNU's headers for a long name or target, which count more than PAX headers.
_LONG_NAMES = {b"L": b"path", b"K": b"linkpath"}
_XATTR, _SPARSE = b"SCHILY.xattr.", b"GNU.sparse."
_ZEROS = bytes(BLOCK)
_CUT_SHORT = "the layer is cut short within a file. Save or copy the image again."
#: The largest number of a device that a tar has room for, and of an owner that Linux knows.
_MAX_DEVICE, _MAX_OWNER = 1 << 21, 1 << 32
_MAX_TIME = 1 << 40


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of an image: kind, attributes, and for a regular file the place of the bytes.

    ``target`` is where a symbolic link leads, ``device`` the numbers of a device. ``layer`` numbers the layer that has
    the file, by the caller's own count, and ``offset`` is where its ``size`` bytes begin there.
    """

    kind: Kind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    target: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()
    layer: int = field(default=0, compare=False)
    offset: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class HardLink:
    """A further name of the file that is called ``target``, as the layer writes it."""

    target: str


class Tape(Protocol):
    """The bytes of a layer, read from the front; what is not wanted is skipped."""

    def read(self, length: int) -> bytes:
        """Return the next ``length`` bytes; fewer only at the end."""

    def skip(self, length: int, padding: int = 0) -> None:
        """Leave out the next ``length`` bytes, and up to ``padding`` behind them that the end may lack.

        Raises BadArchive where there are fewer than ``length``.
        """

    def drain(self) -> None:
        """Deal with the bytes that are left."""


class WholeTape:
    """A layer that is read whole, every byte hashed, so that the digest is checked at the end."""

    def __init__(self, layer: Layer, advance: Callable[[int], None]) -> None:
        """Take a layer, and what is told of the bytes that are read."""
        self._layer = layer
        self._advance = advance
        self._ended = False

    def read(self, length: int) -> bytes:
        """Return the next ``length`` bytes; fewer only at the end, where the layer checks itself."""
        if self._ended:
            return b""
        content = self._layer.read(length)
        self._ended = len(content) < length
        self._advance(len(content))
        return content

    def skip(self, length: int, padding: int = 0) -> None:
        """Read the next ``length`` bytes, and up to ``padding`` more, and drop them."""
        left = length + padding
        while left > 0 and (content := self.read(min(left, CHUNK))):
            left -= len(content)
        if left > padding:
            raise BadArchive(_CUT_SHORT)

    def drain(self) -> None:
        """Read to the end of the layer; raises what ``Layer.read`` raises there."""
        while self.read(CHUNK):
            pass


class BlobTape:
    """A layer whose bytes can be read at any place: what is skipped is not read."""

    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        self._position = 0

    def read(self, length: int) -> bytes:
        """Return the next ``length`` bytes; fewer only at the end."""
        start = self._blob.offset + self._position
        content = self._blob.source.read_at(start, max(0, min(length, self._blob.size - self._position)))
        self._position += len(content)
        return content

    def skip(self, length: int, padding: int = 0) -> None:
        """Go on behind the next ``length`` bytes and ``padding``; raises BadArchive where there are fewer bytes."""
        if length > self._blob.size - self._position:
            raise BadArchive(_CUT_SHORT)
        self._position = min(self._position + length + padding, self._blob.size)

    def drain(self) -> None:
        """Leave the rest unread."""


class Budget:
    """The number of files, the amount of text and the length of links that an image may have, its layers together."""

    def __init__(self) -> None:
        self._files = MAX_FILES
        self._text = MAX_TEXT
        self._steps = MAX_STEPS

    def spend(self, text: int) -> None:
        """Take one file with so much text from the budget; raises BadArchive if it is used up."""
        self._files -= 1
        self._text -= text
        if self._files < 0:
            raise BadArchive(f"the image's layers have more than {MAX_FILES} files.")
        if self._text < 0:
            raise BadArchive(f"the names in the image's layers have more than {MAX_TEXT} characters.")

    def follow(self, steps: int) -> None:
        """Take a link that leads through so many names from the budget; raises BadArchive if it is used up."""
        self._steps -= steps
        if self._steps < 0:
            raise BadArchive(f"the links in the image's layers lead through more than {MAX_STEPS} names.")


def entries(tape: Tape, number: int, budget: Budget) -> Iterator[tuple[str, FileEntry | HardLink]]:
    """Yield the files of a layer, each with its name as it is written; ``number`` is the layer's.

    Raises BadArchive for a tar that is cut short, damaged, or beyond the budget, and for what no engine unpacks.
    """
    position = 0
    records: dict[bytes, bytes] = {}
    long_names: dict[bytes, bytes] = {}
    while header := tape.read(BLOCK):
        if header == _ZEROS:
            return
        check_header(header, position)
        position += BLOCK
        kind = header[156:157]
        size = 0 if kind in WITHOUT_CONTENT else size_of(header, {} if kind in METADATA else _texts(records))
        if kind in METADATA:
            budget.spend(0)
            content = _content(tape, size)
            if kind in _LONG_NAMES:
                long_names[_LONG_NAMES[kind]] = content.partition(b"\0")[0]
            else:  # only the last PAX header counts, so that many do not add up; behind a global one nothing does
                records = _pax(content) if kind == b"x" else {}
                long_names = long_names if kind == b"x" else {}
            position += size + -size % BLOCK
            continue
        records |= {key: value for key, value in long_names.items() if value}
        name = _text(records, b"path") or name_of(header)
        entry = _entry(header, records, size, number, position)
        budget.spend(len(name) + _length(entry))
        records, long_names = {}, {}
        if kind == b"\0" and name.endswith("/") and isinstance(entry, FileEntry):  # as before POSIX
            entry = replace(entry, kind=DIRECTORY, size=0)
        yield name, entry
        tape.skip(size, -size % BLOCK)
        position += size + -size % BLOCK


def _entry(header: bytes, records: dict[bytes, bytes], size: int, number: int, position: int) -> FileEntry | HardLink:
    kind = header[156:157]
    target = _text(records, b"linkpath") or text_of(header[157:257])
    if len(target) > MAX_PATH or "\0" in target:
        raise BadArchive(f"the layer has a link to a name of {len(target)} characters, which no system takes.")
    if kind == _HARD_LINK:
        return HardLink(target)
    if kind not in _KINDS:
        raise BadArchive(f"the layer has a member of type {kind!r}, which no engine unpacks.")
    if any(key.startswith(_SPARSE) for key in records):
        raise BadArchive("the layer has a sparse file, which is not read here. Build the image again without them.")
    device = (0, 0)
    if kind in (b"3", b"4"):
        device = _number(header[329:337], _MAX_DEVICE), _number(header[337:345], _MAX_DEVICE)
    return FileEntry(
        _KINDS[kind],
        mode=_number(header[100:108], 1 << 32) & 0o7777,
        uid=_owner(records.get(b"uid"), header[108:116]),
        gid=_owner(records.get(b"gid"), header[116:124]),
        mtime=_time(records.get(b"mtime"), header[136:148]),
        size=size,
        target=target if kind == b"2" else "",
        device=device,
        xattrs=tuple((text_of(key[len(_XATTR) :]), value) for key, value in records.items() if key.startswith(_XATTR)),
        layer=number,
        offset=position,
    )


def _length(entry: FileEntry | HardLink) -> int:
    """The characters of an entry besides the name."""
    if isinstance(entry, HardLink):
        return len(entry.target)
    return len(entry.target) + sum(len(key) + len(value) for key, value in entry.xattrs)


def _content(tape: Tape, size: int) -> bytes:
    if size > MAX_METADATA:
        raise BadArchive(f"the layer has a metadata record of {size} bytes; at most {MAX_METADATA} are read.")
    content = tape.read(size)
    tape.skip(0, -size % BLOCK)
    if len(content) < size:
        raise BadArchive("the layer is cut short within a metadata record. Save or copy the image again.")
    return content


def _pax(content: bytes) -> dict[bytes, bytes]:
    """The records that a PAX header sets for the next member, as far as they count here."""
    wanted = (b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime")
    return {key: value for key, value in pax_records(content) if key in wanted or key.startswith((_XATTR, _SPARSE))}


def _text(records: dict[bytes, bytes], key: bytes) -> str:
    return records.get(key, b"").decode("utf-8", "surrogateescape")


def _texts(records: dict[bytes, bytes]) -> dict[str, str]:
    return {"size": _text(records, b"size")} if records.get(b"size") else {}


def _owner(record: bytes | None, header_field: bytes) -> int:
    if record is not None and record.isdigit() and len(record) < 20:
        return _check_limit(int(record), _MAX_OWNER)
    return _number(header_field, _MAX_OWNER)


def _time(record: bytes | None, header_field: bytes) -> int:
    """Seconds since 1970, as far as a calendar goes; parts of a second are left out, as engines do."""
    whole = (record or b"").partition(b".")[0]
    if whole.removeprefix(b"-").isdigit() and len(whole) < 20:
        return max(-_MAX_TIME, min(int(whole), _MAX_TIME))
    if header_field[0] == 0xFF:  # a negative number in base 256
        return max(-_MAX_TIME, int.from_bytes(header_field, "big", signed=True))
    return _number(header_field, _MAX_TIME)


def _number(header_field: bytes, limit: int) -> int:
    if header_field[0] & 0x80:
        return _check_limit(int.from_bytes(bytes([header_field[0] & 0x7F]) + header_field[1:], "big"), limit)
    return _check_limit(number_of(header_field), limit)


def _check_limit(number: int, limit: int) -> int:
    if number >= limit:
        raise BadArchive(f"the layer has a member with the number {number} in its header, where none is so large.")
    return number

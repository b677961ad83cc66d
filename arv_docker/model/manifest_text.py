# SPDX-License-Identifier: Apache-2.0
"""Manifest text: the list of blocks and files that a collection is. Pure functions, no I/O.

The grammar is that of docs/spec/arvados-collections.md#manifest-grammar, with the edge cases that a running
server showed: one line a stream, ``NAME LOCATOR… POS:LEN:FILE…``,
single spaces, a line end after each.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..errors import BadManifestText

#: Largest block that Keep stores, in bytes.
BLOCK_SIZE = 64 << 20
EMPTY_BLOCK = "d41d8cd98f00b204e9800998ecf8427e+0"

_LOCATOR = re.compile(r"([0-9a-fA-F]{32})(?:\+(\d+))?((?:\+[A-Z][A-Za-z0-9@_-]*)*)", re.ASCII)
_FILE_TOKEN = re.compile(r"(\d+):(\d+):(.+)", re.ASCII | re.DOTALL)
_PLAIN = re.compile(r"(?:[^\x00-\x20\\]|\\[0-3][0-7][0-7])+")
_UNSAFE = re.compile(rb"[\x00-\x20\\:]")
_PDH = re.compile(r"[0-9a-f]{32}\+\d+", re.ASCII)

#: Positions and sizes beyond 63 bits are refused by the server
#: (docs/spec/arvados-collections.md#manifest-grammar).
_MAX_NUMBER = (1 << 63) - 1

#: Runs of blocks that files are made of; a terabyte has 16,384. A few megabytes of text can spell many millions.
_MAX_SEGMENTS = 1 << 20


@dataclass(frozen=True, slots=True)
class Locator:
    """A block's name: MD5 in hex, size in bytes (None where not given), hints such as ``+A…@…``."""

    md5: str
    size: int | None
    hints: str = ""

    @classmethod
    def parse(cls, text: str) -> Locator:
        """Parse ``text`` as a locator; raises BadManifestText where it spells none."""
        match = _LOCATOR.fullmatch(text)
        if not match:
            raise BadManifestText(f"{text!r} is not a block locator.")
        return cls(match[1], _number(match[2]) if match[2] else None, match[3])

    @property
    def without_hints(self) -> str:
        """The locator without hints: ``md5+size``, or ``md5`` alone where no size was given."""
        return self.md5 if self.size is None else f"{self.md5}+{self.size}"

    def __str__(self) -> str:
        return self.without_hints + self.hints


@dataclass(frozen=True, slots=True)
class FileToken:
    """A run of a stream's bytes that belongs to a file: start, length, the file's name."""

    position: int
    length: int
    name: str


@dataclass(frozen=True, slots=True)
class Stream:
    """One line of manifest text."""

    name: str
    locators: tuple[Locator, ...]
    files: tuple[FileToken, ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a block: ``length`` bytes from ``offset`` in it."""

    locator: Locator
    offset: int
    length: int


def parse(text: str) -> tuple[Stream, ...]:
    """Parse manifest text into streams; raises BadManifestText with the line of anything malformed."""
    if not text:
        return ()
    _utf8(text)
    if not text.endswith("\n"):
        raise BadManifestText("manifest text does not end with a line end.")
    return tuple(_stream(number, line) for number, line in enumerate(text[:-1].split("\n"), 1))


def pdh(text: str) -> str:
    """The portable data hash of manifest text: MD5 and length of the text without any hints."""
    bare = _utf8(without_hints(text))
    return f"{hashlib.md5(bare, usedforsecurity=False).hexdigest()}+{len(bare)}"


def without_hints(text: str) -> str:
    """Return manifest text with each locator reduced to ``md5+size``; nothing else changes."""

    def bare(line: str) -> str:
        name, *tokens = line.split(" ")
        return " ".join([name, *(_bare_token(token) for token in tokens)])

    return "".join(bare(line) + "\n" for line in text.split("\n") if line)


def single_file(name: str, size: int, locators: Sequence[str]) -> str:
    """Manifest text of a collection that holds one file of ``size`` bytes, made of the blocks in order."""
    blocks = " ".join(locators) or EMPTY_BLOCK
    return f". {blocks} 0:{size}:{escape(name)}\n"


def files(streams: Iterable[Stream]) -> dict[str, tuple[Segment, ...]]:
    """The files by path (``dir/name``, without the leading ``./``) with their bytes as segments, in order.

    A run that reaches beyond its stream's blocks raises BadManifestText. Placeholders of
    empty folders (``0:0:.``) are no files.
    """
    found: dict[str, list[Segment]] = {}
    room = _MAX_SEGMENTS
    for stream in streams:
        starts = _starts(stream)
        for token in stream.files:
            if token.name == "." and not token.length:
                continue
            path = f"{stream.name}/{token.name}".removeprefix("./")
            segments = list(itertools.islice(_segments(stream, starts, token), room + 1))
            if (room := room - len(segments)) < 0:
                raise BadManifestText("the files of the manifest text use its blocks over and over; that is no image.")
            found.setdefault(path, []).extend(segments)
    return {path: tuple(segments) for path, segments in found.items()}


def locators(streams: Iterable[Stream]) -> Iterator[Locator]:
    """Every locator of the streams, in order, repeats included."""
    for stream in streams:
        yield from stream.locators


def is_pdh(text: str) -> bool:
    """True if ``text`` has the form of a portable data hash: 32 hex digits, ``+``, a length."""
    return _PDH.fullmatch(text) is not None


def escape(name: str) -> str:
    """Return ``name`` as manifest text writes it: backslash, colon, blanks and control bytes in octal."""
    return _UNSAFE.sub(lambda byte: b"\\%03o" % byte[0][0], name.encode()).decode()


def unescape(token: str) -> str:
    """Return the name that ``token`` stands for."""
    if "\\" not in token:
        return token
    raw = re.sub(rb"\\([0-3][0-7][0-7])", lambda match: bytes([int(match[1], 8)]), token.encode())
    return raw.decode("utf-8", "surrogateescape")


def _stream(number: int, line: str) -> Stream:
    name, *tokens = line.split(" ")
    count = next((i for i, token in enumerate(tokens) if not _LOCATOR.fullmatch(token)), len(tokens))
    blocks, rest = tokens[:count], tokens[count:]
    if not blocks or not rest:
        raise BadManifestText(f"line {number} of the manifest text needs a block and a file.")
    if not _valid_path(name, first="."):
        raise BadManifestText(f"line {number} of the manifest text begins with a bad stream name {name[:80]!r}.")
    return Stream(
        unescape(name),
        tuple(Locator.parse(token) for token in blocks),
        tuple(_file_token(number, token) for token in rest),
    )


def _file_token(number: int, token: str) -> FileToken:
    match = _FILE_TOKEN.fullmatch(token)
    if not match:
        raise BadManifestText(f"line {number} of the manifest text has a bad token {token[:80]!r}.")
    position, length, name = _number(match[1]), _number(match[2]), match[3]
    placeholder = name in (".", "\\056") and position == length == 0
    if not placeholder and not _valid_path(name, first=None):
        raise BadManifestText(f"line {number} of the manifest text has a bad file name {name[:80]!r}.")
    return FileToken(position, length, "." if placeholder else unescape(name))


def _valid_path(token: str, *, first: str | None) -> bool:
    """True if ``token`` is a path of non-empty components, none ``.`` or ``..``, after ``first`` if given."""
    if not _PLAIN.fullmatch(token):
        return False
    components = unescape(token).split("/")
    if first is not None:
        if components[0] != first:
            return False
        components = components[1:]
    return all(component not in ("", ".", "..") for component in components)


def _number(digits: str) -> int:
    if len(digits) > 19 or int(digits) > _MAX_NUMBER:
        raise BadManifestText(f"a number in the manifest text is out of range: {digits[:30]}.")
    return int(digits)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BadManifestText("manifest text holds half a character; it is not UTF-8.") from None


def _bare_token(token: str) -> str:
    match = _LOCATOR.fullmatch(token)
    if not match:
        return token
    return match[1] if match[2] is None else f"{match[1]}+{match[2]}"


def _starts(stream: Stream) -> list[int]:
    """The offset of each block in the stream, and last the stream's end."""
    starts = [0]
    for locator in stream.locators:
        starts.append(starts[-1] + (locator.size or 0))
    return starts


def _segments(stream: Stream, starts: list[int], token: FileToken) -> Iterator[Segment]:
    end = token.position + token.length
    if end > starts[-1]:
        raise BadManifestText(f"file {token.name[:80]!r} reaches beyond the blocks of its stream.")
    for number in range(bisect.bisect_right(starts, token.position) - 1, len(stream.locators)):
        start, stop = starts[number], starts[number + 1]
        if start >= end:
            return
        low, high = max(token.position, start), min(end, stop)
        if low < high:
            yield Segment(stream.locators[number], low - start, high - low)

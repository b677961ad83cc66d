# SPDX-License-Identifier: Apache-2.0
"""A second reader of tars, for tests: what Go's `archive/tar` makes of the same bytes.

Written from what its documentation and behaviour say, not from its text: which headers it knows, which records it
takes, what it forgets, and where it stops. `read` gives the members as Docker and containers/image see them, or raises
`Refused` where Go's reader returns an error.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

BLOCK = 512
_ZEROS = bytes(BLOCK)
_WITHOUT_CONTENT = b"123456"
_MOST_METADATA = 1 << 20


class Refused(Exception):
    """The reader returns an error."""


@dataclass(frozen=True)
class Seen:
    """A member as the reader hands it out."""

    name: str
    kind: bytes
    target: str
    content: bytes


def read(content: bytes) -> list[Seen]:
    """Every member, in order."""
    reader = _Reader(content)
    members = []
    while (member := reader.following()) is not None:
        members.append(member)
    return members


def files(content: bytes) -> dict[str, bytes]:
    """What a program finds by name that takes the last member of a name, and follows one symbolic link."""
    found: dict[str, Seen] = {}
    for member in read(content):
        if member.kind != b"g":
            found[posixpath.normpath(member.name)] = member
    contents = {}
    for name, member in found.items():
        path = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.target))
        end = found.get(path, member) if member.kind == b"2" else member
        if end.kind in (b"0", b"\0", b"7"):
            contents[name] = end.content
    return contents


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._position = 0

    def following(self) -> Seen | None:
        records: dict[str, str] = {}
        long_name = long_link = ""
        while (header := self._header()) is not None:
            kind = header[156:157]
            if kind in (b"x", b"g"):
                found = _records(self._take(_number(header[124:136])))
                if kind == b"g":
                    # handed out as a member of its own: what was waiting for the next one is gone
                    return Seen(_name(header), kind, "", b"")
                records = found
            elif kind in (b"L", b"K"):
                text = _text(self._take(_number(header[124:136])))
                long_name, long_link = (text, long_link) if kind == b"L" else (long_name, text)
            else:
                return self._member(header, records, long_name, long_link)
        return None

    def _member(self, header: bytes, records: dict[str, str], long_name: str, long_link: str) -> Seen:
        kind = header[156:157]
        name = long_name or records.get("path") or _name(header)
        target = long_link or records.get("linkpath") or _text(header[157:257])
        size = int(records["size"]) if records.get("size") else _number(header[124:136])
        if size < 0:
            raise Refused("a negative size")
        if any(key.startswith("GNU.sparse.") for key in records) or kind == b"S":
            raise Refused("sparse")  # read, with other content than its bytes; no case for an image
        if kind == b"\0":
            kind = b"5" if name.endswith("/") else b"0"
        content = b"" if kind in _WITHOUT_CONTENT else self._take(size)
        return Seen(name, kind, target, content)

    def _take(self, size: int) -> bytes:
        end = self._position + size
        if end > len(self._content):
            raise Refused("an unexpected end")
        content = self._content[self._position : end]
        self._position = min(len(self._content), end + -size % BLOCK)
        return content

    def _header(self) -> bytes | None:
        header = self._content[self._position : self._position + BLOCK]
        self._position += BLOCK
        if not header:
            return None
        if len(header) < BLOCK:
            raise Refused("an unexpected end")
        if header == _ZEROS:
            second = self._content[self._position : self._position + BLOCK]
            if second not in (b"", _ZEROS):
                raise Refused("zeros, and then something else")
            return None
        _check(header)
        return header


def _check(header: bytes) -> None:
    summed = header[:148] + b" " * 8 + header[156:]
    signed = sum(byte - 256 if byte > 127 else byte for byte in summed)
    if _number(header[148:156]) not in (sum(summed), signed):
        raise Refused("a checksum")
    for start, end in ((100, 108), (108, 116), (116, 124), (124, 136), (136, 148)):
        _number(header[start:end])
    if header[257:263] == b"ustar\0" or header[257:265] == b"ustar  \0":
        _number(header[329:337])
        _number(header[337:345])


def _name(header: bytes) -> str:
    name, prefix = _text(header[:100]), ""
    if header[257:263] == b"ustar\0":
        prefix = _text(header[345:476] if header[508:512] == b"tar\0" else header[345:500])
    elif header[257:265] == b"ustar  \0":
        try:
            for start in (345, 357):
                if header[start]:
                    _number(header[start : start + 12])
        except Refused:
            prefix = _text(header[345:500])
            prefix = prefix if prefix.isascii() else ""
    return f"{prefix}/{name}" if prefix else name


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        value = int.from_bytes(bytes([field[0] & 0x7F, *field[1:]]), "big")
        if field[0] & 0x40:
            value -= 1 << (8 * len(field) - 1)
        if not -(1 << 63) <= value < 1 << 63:
            raise Refused("a number")
        return value
    digits = field.strip(b" \0").partition(b"\0")[0]
    if digits.strip(b"01234567"):
        raise Refused("a number")
    return int(digits, 8) if digits else 0


_TIME = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]*)?")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_PATTERNS = {
    **dict.fromkeys(("mtime", "atime", "ctime"), _TIME),
    **dict.fromkeys(("uid", "gid", "size"), _INTEGER),
}


def _records(content: bytes) -> dict[str, str]:
    if len(content) > _MOST_METADATA:
        raise Refused("too much metadata")
    records: dict[str, str] = {}
    while content:
        digits, blank, _ = content.partition(b" ")
        if not blank or not digits.isdigit() or not 5 <= (length := int(digits)) <= len(content):
            raise Refused("a record")
        record, content = content[len(digits) + 1 : length], content[length:]
        key, equals, value = record[:-1].partition(b"=")
        if not record.endswith(b"\n") or not equals or not key or b"\0" in key:
            raise Refused("a record")
        if b"\0" in value and key in (b"path", b"linkpath", b"uname", b"gname"):
            raise Refused("a record")
        records[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
    for key_text, pattern in _PATTERNS.items():
        if (text := records.get(key_text)) and not pattern.fullmatch(text):
            raise Refused("a record")
    return records


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")

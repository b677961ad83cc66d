# SPDX-License-Identifier: Apache-2.0
"""An index of a tar: where each member's bytes are. Nothing is extracted, no name becomes a path.

Archives are hostile (docs/spec/archive.md#hostile-archives): names that climb with
``..`` are refused whoever uses them, sizes and counts are bounded, checksums are
checked, sparse members are refused because their stored bytes are not their content.

Whatever else an archive may have is read as engines read it, for what is made of it is checked and stored anew. Where
the bytes are vouched for as they lie, ``strict_tar`` refuses what two readers may read differently.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..errors import BadArchive, MissingMember
from .blob import Blob, RandomAccess

BLOCK = 512

#: More members than any image archive has; the real ones have about four for each layer.
MAX_MEMBERS = 100_000
#: Long names and PAX records; real ones are a few hundred bytes.
MAX_METADATA = 1 << 20
#: Characters of the names of all members; real archives have less than a hundred for each.
MAX_NAMES = 16 << 20

#: Links that lead to links; an engine follows one.
_MAX_LINKS = 8
_CHUNK = 1 << 20

_REGULAR = frozenset((b"\0", b"0", b"7"))
#: Hard and symbolic links, devices, folders and fifos: no content follows, whatever their size field says.
WITHOUT_CONTENT = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))
METADATA = frozenset((b"x", b"g", b"L", b"K"))
#: What a PAX header may say that matters here; the last is how each key of a sparse file begins.
_USED, _SPARSE = (b"path", b"linkpath", b"size"), b"GNU.sparse."
_ZEROS = bytes(BLOCK)


@dataclass(frozen=True, slots=True)
class Member:
    """A file or link in a tar: the normal name, the place of the bytes, and a link's target.

    ``target`` is the normal name of the member that a symbolic or hard link leads to,
    None for a regular file.
    """

    name: str
    offset: int
    size: int
    target: str | None = None
    #: The SHA-256 of a file's bytes, where they went by.
    digest: bytes | None = field(default=None, compare=False)


class HeaderCheck:
    """A check of an archive's headers during the read; this class takes all headers."""

    def metadata(self, header: bytes, kind: bytes, content: bytes) -> None:
        """Judge a long-name or PAX header."""

    def member(self, header: bytes, written: str, kind: bytes, target: str | None) -> None:
        """Judge a member of any kind, its name as it is written."""

    def end(self, source: RandomAccess, offset: int) -> None:
        """Judge the bytes at ``offset``, behind the first block of zeros or the last member of a tar without any."""


#: Takes every header that can be read at all.
TOLERANT = HeaderCheck()


class Index:
    """The members of a tar by name. Folders and special files are left out."""

    def __init__(
        self, source: RandomAccess, known: Iterable[Member] | None = None, *, check: HeaderCheck = TOLERANT
    ) -> None:
        """Read every header unless its members are ``known``; raises BadArchive as ``members`` does."""
        self._source = source
        self._members: dict[str, Member] = {}
        self._copies: dict[str, list[Member]] = {}
        for member in members(source, check) if known is None else known:
            if (first := self._members.setdefault(member.name, member)) is not member:
                self._copies.setdefault(member.name, [first]).append(member)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def names(self) -> Iterator[str]:
        """The members' names in the order of the archive."""
        return iter(self._members)

    def file(self, name: str) -> Member:
        """The regular file called ``name``, through a few links at most.

        Raises BadArchive if there is none, if the name stands in the archive twice with different content (readers
        disagree which one counts), or if a link leads out of the archive or in a circle.
        """
        member = self._member(name)
        for _ in range(_MAX_LINKS):
            if member.target is None:
                return member
            if _leads_out(member.target):
                raise BadArchive(
                    f"the link {member.name!r} leads out of the archive, to {member.target!r}. "
                    "Such archives are not read."
                )
            member = self._member(member.target, wanted_by=f"the link {member.name!r}")
        raise BadArchive(f"the link {name!r} leads to more than {_MAX_LINKS} other links.")

    def blob(self, name: str) -> Blob:
        """The bytes of the file called ``name``; raises as ``file`` does."""
        member = self.file(name)
        return Blob(self._source, member.offset, member.size)

    def read(self, name: str, *, limit: int) -> bytes:
        """Return a file's content; raises BadArchive where it is larger than ``limit`` bytes."""
        member = self.file(name)
        if member.size > limit:
            raise BadArchive(f"{name!r} in the archive is {member.size} bytes; at most {limit} are read.")
        return self._source.read_at(member.offset, member.size)

    def _member(self, name: str, *, wanted_by: str = "") -> Member:
        normal = normal_name(name)
        try:
            member = self._members[normal]
        except KeyError:
            who = f", which {wanted_by} leads to" if wanted_by else ""
            raise MissingMember(f"the archive has no file {normal!r}{who}. Is it cut short?") from None
        if normal in self._copies and not self._are_alike(self._copies.pop(normal)):
            raise BadArchive(f"{normal!r} stands in the archive more than once, with different content.")
        return member

    def _are_alike(self, copies: list[Member]) -> bool:
        """True if copies of a member are alike: writers that do not look put a layer in twice."""
        kinds = {(it.target, it.size) for it in copies}
        if len(kinds) > 1 or copies[0].target is not None:
            return len(kinds) == 1
        return len({self._digest_of(it) for it in copies}) == 1

    def _digest_of(self, member: Member) -> bytes:
        if member.digest is not None:
            return member.digest
        digest = hashlib.sha256()
        for start in range(0, member.size, _CHUNK):
            digest.update(self._source.read_at(member.offset + start, min(_CHUNK, member.size - start)))
        return digest.digest()


def normal_name(name: str) -> str:
    """Return ``name`` without ``./``, doubled slashes, and slashes in front, which every engine takes off.

    Raises BadArchive if the name climbs, or holds NUL.
    """
    if "\0" in name or ".." in name.split("/"):
        raise BadArchive(f"the archive names {name!r}, which would leave it. Such archives are not read.")
    name = name.lstrip("/")
    return posixpath.normpath(name) if name else name


def members(source: RandomAccess, check: HeaderCheck = TOLERANT) -> Iterator[Member]:
    """Yield the files and links of a tar, each when its header has been read.

    The end mark may be missing: what the images need is missed by its name. ``check`` is told of every header. Raises
    what that raises, and BadArchive for a tar that is cut short within a member, malformed or unsafe.
    """
    offset = count = named = 0
    overrides: dict[str, str] = {}
    while header := source.read_at(offset, BLOCK):
        if header == _ZEROS:
            check.end(source, offset + BLOCK)
            return
        count += 1
        if count > MAX_MEMBERS:
            raise BadArchive(f"the archive has more than {MAX_MEMBERS} members.")
        check_header(header, offset)
        kind = header[156:157]
        size = 0 if kind in WITHOUT_CONTENT else size_of(header, {} if kind in METADATA else overrides)
        offset += BLOCK
        if offset + size > source.size:
            raise BadArchive(
                f"the archive is cut short: a member at byte {offset} should have {size} bytes, "
                f"and {source.size - offset} are left. Save or copy it again."
            )
        if kind in METADATA:
            content = _metadata_content(source, offset, size)
            check.metadata(header, kind, content)
            overrides = _merge_metadata(overrides, _metadata(kind, content))
        else:
            check.member(header, overrides.get("path") or name_of(header), kind, _target(header, kind, overrides))
            if (member := _member(header, kind, offset, size, overrides)) is not None:
                named += len(member.name) + len(member.target or "")
                if named > MAX_NAMES:
                    raise BadArchive(f"the names in the archive have more than {MAX_NAMES} characters.")
                yield member
            overrides = {}
        offset += -(-size // BLOCK) * BLOCK
    if offset == 0:
        raise BadArchive("the archive is empty.")
    check.end(source, offset)


def _merge_metadata(overrides: dict[str, str], more: dict[str, str]) -> dict[str, str]:
    """Merge two metadata records about the next member; raises BadArchive where they say the same thing twice."""
    for key in ("path", "linkpath", "size"):
        if key in overrides and key in more:
            raise BadArchive(f"the archive states the {key} of a member twice; readers disagree which one counts.")
    return overrides | more


def check_header(header: bytes, offset: int) -> None:
    """Raise BadArchive for a header that is cut short or has a wrong checksum."""
    if len(header) < BLOCK:
        raise BadArchive(f"the archive is cut short: it ends within a header at byte {offset}.")
    total = sum(header) - sum(header[148:156]) + 8 * 0x20
    if number_of(header[148:156]) != total:
        raise BadArchive(f"not a tar archive, or a damaged one: the header at byte {offset} has a wrong checksum.")


def _member(header: bytes, kind: bytes, offset: int, size: int, overrides: dict[str, str]) -> Member | None:
    if kind == b"S" or text_of(_SPARSE) in overrides:
        raise BadArchive("the archive has a sparse member; no engine saves images so.")
    written = overrides.get("path") or name_of(header)
    name = normal_name(written)
    if kind in _REGULAR:
        if written.endswith("/"):
            raise BadArchive(f"{written!r} in the archive is a file by its type and a folder by its name.")
        return Member(name, offset, size)
    if kind not in WITHOUT_CONTENT:
        raise BadArchive(f"{name!r} in the archive is of a type, {kind!r}, that readers take for different things.")
    if (target := _target(header, kind, overrides)) is not None:
        return Member(name, offset, size, _link_target(name, target, symbolic=kind == b"2"))
    return None  # folders, devices, fifos: nothing that an image is made of


def _target(header: bytes, kind: bytes, overrides: dict[str, str]) -> str | None:
    """The target of a link, as written; None for a file."""
    return (overrides.get("linkpath") or text_of(header[157:257])) if kind in (b"1", b"2") else None


def _link_target(name: str, target: str, *, symbolic: bool) -> str:
    """The target of a link: a symbolic link counts from its folder, a hard link from the top.

    One that leads out of the archive is an error for whoever follows it.
    """
    if "\0" in target:
        raise BadArchive(f"the link {name!r} leads to {target!r}, which is no name.")
    return posixpath.normpath(posixpath.join(posixpath.dirname(name) if symbolic else "", target))


def _leads_out(path: str) -> bool:
    return path.startswith("/") or path.split("/", maxsplit=1)[0] == ".."


def _metadata_content(source: RandomAccess, offset: int, size: int) -> bytes:
    if size > MAX_METADATA:
        raise BadArchive(f"the archive has a metadata record of {size} bytes; at most {MAX_METADATA} are read.")
    return source.read_at(offset, size)


def _metadata(kind: bytes, content: bytes) -> dict[str, str]:
    """The fields for the next member in a long-name or PAX header. Global PAX records are without effect here."""
    if kind == b"L":
        return {"path": text_of(content)}
    if kind == b"K":
        return {"linkpath": text_of(content)}
    return _pax(content) if kind == b"x" else {}


def _pax(content: bytes) -> dict[str, str]:
    records: dict[str, str] = {}
    for key, value in pax_records(content):
        if key in _USED:  # of the others there may be very many, one header after the other
            records[text_of(key)] = value.decode("utf-8", "surrogateescape")
        elif key.startswith(_SPARSE):
            records[text_of(_SPARSE)] = ""
    return records


def pax_records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a PAX header, in its order; raises BadArchive for a malformed one."""
    content = content.rstrip(b"\0")
    start = 0
    while start < len(content):
        digits, _, _ = content[start : start + 8].partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        record = content[start + len(digits) + 1 : start + length]
        key, equals, value = record.partition(b"=")
        if not equals or not record.endswith(b"\n") or start + length > len(content):
            raise BadArchive("the archive has a malformed PAX record.")
        yield key, value[:-1]
        start += length


def size_of(header: bytes, overrides: dict[str, str]) -> int:
    """The size of a member's content, by PAX records or header; raises BadArchive for a text that is no number."""
    if (text := overrides.get("size")) is not None:
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise BadArchive("the archive has a malformed size in a PAX record.")
        return int(text)
    field = header[124:136]
    if not field[0] & 0x80:
        return number_of(field)
    if field[0] != 0x80:  # 0xff begins a negative number
        raise BadArchive("the archive has a member of negative size.")
    return int.from_bytes(field[1:], "big")


def number_of(field: bytes) -> int:
    """The octal number in a field, 0 if it is blank; raises BadArchive for anything else."""
    digits = field.strip(b" \0")
    if digits.strip(b"01234567"):  # int() would also take a sign, underscores, blanks and a prefix
        raise BadArchive("not a tar archive, or a damaged one: a header holds no octal number.")
    return int(digits, 8) if digits else 0


def name_of(header: bytes) -> str:
    """The name in a header, with the prefix that POSIX has for it."""
    prefix = text_of(header[345:500]) if header[257:263] == b"ustar\0" else ""
    name = text_of(header[:100])
    return f"{prefix}/{name}" if prefix else name


def text_of(field: bytes) -> str:
    """The text of a field, which a NUL ends; bytes that are not UTF-8 are kept as half characters."""
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")

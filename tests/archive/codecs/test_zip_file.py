# SPDX-License-Identifier: Apache-2.0
"""ZIP files with one member: the same bytes each time, and every damage found."""

from __future__ import annotations

import io
import random
import zipfile

import pytest

from arv_docker.archive.codecs.zip_file import ZippedMember, write
from arv_docker.errors import BadArchive, ContentError, DigestMismatch

CONTENT = bytes(random.Random(7).choices(range(8), k=50_000))


def zipped(content: bytes = CONTENT, name: str = "web.docker") -> bytes:
    file = io.BytesIO()
    write(file, name, len(content), (content[place : place + 777] for place in range(0, len(content), 777)))
    return file.getvalue()


def read(raw: bytes) -> bytes:
    member = ZippedMember(io.BytesIO(raw))
    member.check_seal()
    return member.read_at(0, member.size)


@pytest.mark.conforms("W11")
def test_the_same_content_gives_the_same_file() -> None:
    assert zipped() == zipped()
    assert len(zipped()) < len(CONTENT) / 2


def test_every_reader_of_zip_files_takes_it() -> None:
    with zipfile.ZipFile(io.BytesIO(zipped())) as file:
        assert file.testzip() is None
        assert [(it.filename, it.date_time) for it in file.infolist()] == [("web.docker", (1980, 1, 1, 0, 0, 0))]
        assert file.read("web.docker") == CONTENT


def test_reading_anywhere() -> None:
    member = ZippedMember(io.BytesIO(zipped()))
    assert member.size == len(CONTENT)
    for offset, length in [(0, 10), (40_000, 100), (5, 7), (49_990, 50), (60_000, 1)]:
        assert member.read_at(offset, length) == CONTENT[offset : offset + length]


def test_a_directory_that_takes_hundreds_of_megabytes_is_not_read() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("web.docker", CONTENT)
        archive.infolist()[0].comment = bytes(60_000)
        archive.filelist *= 140
    assert len(file.getvalue()) > 8 << 20
    with pytest.raises(BadArchive, match="directory of more than"):
        ZippedMember(file)


def test_a_flipped_bit_is_found_wherever_it_is() -> None:
    """Also where readers of ZIP files do not look: times, modes, what the first header repeats, the comment."""
    whole = zipped(CONTENT[:300])
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(ContentError):
            read(bytes(damaged))


@pytest.mark.parametrize("value", range(256))
def test_a_changed_length_of_the_comment_is_found(value: int) -> None:
    damaged = bytearray(zipped(b"content"))
    assert damaged[-73:-71] == b"G\0"
    damaged[-73] = value
    if value != ord("G"):
        with pytest.raises(ContentError):
            read(bytes(damaged))


def test_a_zip_file_of_others_has_no_seal() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as other:
        other.writestr("web.docker", CONTENT)
    assert read(file.getvalue()) == CONTENT


@pytest.mark.parametrize("names", [[], ["a", "b"], ["folder/"]])
def test_anything_but_one_file_is_refused(names: list[str]) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as other:
        for name in names:
            other.writestr(name, b"")
    with pytest.raises(BadArchive, match="exactly one file"):
        ZippedMember(file)


@pytest.mark.parametrize("raw", [b"", b"PK\3\4", b"no zip file", zipped()[:200]])
def test_what_is_no_zip_file(raw: bytes) -> None:
    with pytest.raises(BadArchive):
        ZippedMember(io.BytesIO(raw))


def test_a_foreign_comment_is_refused() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as other:
        other.writestr("web.docker", CONTENT)
        other.comment = b"made by hand"
    with pytest.raises(DigestMismatch):
        read(file.getvalue())

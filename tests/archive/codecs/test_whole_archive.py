# SPDX-License-Identifier: Apache-2.0
"""Archives that are compressed as a whole, or lie in a ZIP file: the same image, read from the front and no more often
than it must be."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import zstandard

from arv_docker.archive.codecs import whole_archive
from arv_docker.archive.codecs.whole_archive import unwrapped_stream
from arv_docker.archive.reader import ArchiveReader
from arv_docker.archive.stream import StreamedImage
from arv_docker.errors import ArvDockerError, BadArchive, ContentError
from arv_docker.local.progress import Advance, SilentProgress

from ...archives import Bytes, Image, canonical_archive, classic, containerd, files_of, flat, hybrid, image, layout

APP = image(files_of(b"low" * 100_000), files_of(b"high"), files_of(b"low" * 100_000), os="linux")


def zipped(content: bytes, *others: str, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name in ("app.tar", *others):
            archive.writestr(name, content)
    return stream.getvalue()


WRAP: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "zip": zipped,
}
KINDS = pytest.mark.parametrize("kind", WRAP)


def read(content: bytes) -> tuple[object, set[bytes]]:
    found = ArchiveReader(Bytes(content)).image()
    return found.config, {layer.read() for layer in found.layers()}


@KINDS
@pytest.mark.conforms("W20", "K19")
@pytest.mark.parametrize("form", [classic, hybrid, containerd, flat, layout, canonical_archive])
def test_the_same_image(kind: str, form: Callable[[Image], bytes]) -> None:
    assert read(WRAP[kind](form(APP))) == (APP.parsed, set(APP.layers))


def test_each_method_of_zip() -> None:
    assert read(zipped(classic(APP), method=zipfile.ZIP_STORED)) == (APP.parsed, set(APP.layers))
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with pytest.raises(BadArchive, match="unusual way"):
            read(zipped(classic(APP), method=method))


@KINDS
def test_layers_in_any_order(kind: str) -> None:
    found = ArchiveReader(Bytes(WRAP[kind](classic(APP)))).image()
    for diff_id in (*reversed(APP.by_id), *APP.by_id):
        assert found.layer(diff_id).read() == APP.by_id[diff_id]


def test_it_is_read_twice_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_archive, "_ROOM", 1 << 20)  # as if every layer were larger than what is kept
    big = image(*(files_of(random.Random(it).randbytes(2_000_000)) for it in range(4)))
    source = Bytes(gzip.compress(classic(big), 1))
    taken = 0

    class Counted(Bytes):
        def read_at(self, offset: int, length: int) -> bytes:
            nonlocal taken
            content = super().read_at(offset, length)
            taken += len(content)
            return content

    found = ArchiveReader(Counted(source.content)).image()
    assert {layer.read(1 << 30) for layer in found.layers()} == set(big.layers)
    # Once for the index, once for the layers; the beginnings are looked at, in pieces of 16 KiB.
    assert taken < 2 * len(source.content) + (64 << 10)


def test_what_is_kept_is_read_no_more() -> None:
    source = Bytes(gzip.compress(classic(APP)))
    found = ArchiveReader(source).image()
    before = source.reads
    assert {layer.read() for layer in found.layers()} == set(APP.layers)
    assert source.reads == before


def test_a_person_is_told_how_far_it_is() -> None:
    told: list[tuple[str, int | None]] = []
    counted: list[int] = []

    class Told(SilentProgress):
        def step(self, title: str, total: int | None) -> AbstractContextManager[Advance]:
            told.append((title, total))
            return nullcontext(counted.append)

    content = gzip.compress(layout(APP))
    found = ArchiveReader(Bytes(content), progress=Told()).image()
    assert told == [("reading the compressed archive", len(content))]
    assert sum(counted) == len(content)
    assert found.sizes == APP.sizes
    assert told[1:] == [("reading compressed layers", sum(counted) - len(content))]


@KINDS
def test_cut_short_anywhere(kind: str) -> None:
    content = WRAP[kind](classic(APP))
    for cut in (*range(8, 30), len(content) // 3, len(content) // 2, len(content) - 30, len(content) - 1):
        with pytest.raises(ContentError):
            read(content[:cut])


@pytest.mark.parametrize("kind", ["gzip", "xz", "bzip2", "zstd"])
def test_trailing_bytes(kind: str) -> None:
    content = WRAP[kind](classic(APP))
    assert read(content + bytes(10_000)) == (APP.parsed, set(APP.layers))
    with pytest.raises(BadArchive, match="other bytes behind"):
        read(content + b"garbage")


@KINDS
def test_damage(kind: str) -> None:
    """What the wrap does not notice the digests do."""
    content = WRAP[kind](classic(APP))
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 0x10
        try:
            assert read(bytes(changed)) == (APP.parsed, set(APP.layers))
        except ArvDockerError:
            continue


@KINDS
def test_what_is_wrapped_is_no_archive(kind: str) -> None:
    for content in (b"", b"x", b"x" * 5000, bytes(1024)):
        with pytest.raises(ContentError):
            read(WRAP[kind](content))
    for wrap in WRAP.values():
        with pytest.raises(BadArchive, match="compressed twice"):
            read(WRAP[kind](wrap(classic(APP))))


@pytest.mark.parametrize(
    "content", [zipped(b"x", "second"), zipped(b"", "folder/")[:-1], b"PK\x03\x04", b"PK\x03\x04" + bytes(1000)]
)
def test_zip_files_that_hold_no_archive(content: bytes) -> None:
    with pytest.raises(BadArchive):
        read(content)


def test_a_directory_of_a_gigabyte_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arv_docker.archive.codecs.zip_file._MOST", 10_000)
    with pytest.raises(BadArchive, match="directory of"):
        read(zipped(b"", *("n" * 100 + str(it) for it in range(200))))


def test_a_bomb_in_a_bomb_takes_no_memory_and_ends() -> None:
    with pytest.raises(ContentError):
        read(gzip.compress(bytes(100 << 20)))


# -- piped in ---------------------------------------------------------------------------


def piped(content: bytes, length: int = 1 << 20) -> tuple[object, set[bytes]]:
    streamed = StreamedImage(unwrapped_stream(io.BytesIO(content)))
    layers = {b"".join(iter(lambda layer=layer: layer.read(length), b"")) for layer in streamed.layers()}  # type: ignore[misc]
    return streamed.config, layers


@pytest.mark.conforms("W20")
@pytest.mark.parametrize("kind", ["none", "gzip", "xz", "bzip2", "zstd"])
@pytest.mark.parametrize("form", [classic, hybrid, containerd, flat, layout, canonical_archive])
def test_the_same_image_from_a_pipe(kind: str, form: Callable[[Image], bytes]) -> None:
    content = WRAP.get(kind, bytes)(form(APP))
    for length in (1, 5, 1000, 1 << 20) if len(content) < 3000 else (1000, 1 << 20):
        config, layers = piped(content, length)
        assert config == APP.parsed
        assert set(APP.layers) <= layers


def test_a_zip_file_cannot_be_piped_in() -> None:
    with pytest.raises(BadArchive, match="Save it to a file first"):
        piped(zipped(classic(APP)))


@pytest.mark.parametrize("kind", ["gzip", "xz", "bzip2", "zstd"])
def test_a_pipe_that_ends_early_or_goes_on(kind: str) -> None:
    content = WRAP[kind](classic(APP))
    for wrong in (content[:-1], content[: len(content) // 2], content[:10], content + b"garbage"):
        with pytest.raises(BadArchive):
            piped(wrong)


def test_a_stream_fills_buffers_across_what_was_looked_at() -> None:
    for content in (b"", b"abc", b"abcdefghij"):
        for length in (1, 4, 6, 20):
            stream, buffer, found = unwrapped_stream(io.BytesIO(content)), bytearray(length), b""
            while count := stream.readinto(memoryview(buffer)):
                found += buffer[:count]
            assert found == content

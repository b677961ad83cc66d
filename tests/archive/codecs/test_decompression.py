# SPDX-License-Identifier: Apache-2.0
"""Compressed bytes as a stream: what comes out is what went in, and damage, bombs and trailing bytes are told."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from arv_docker.archive.codecs import decompression
from arv_docker.archive.codecs.decompression import DecompressedStream, kind_of
from arv_docker.errors import ArvDockerError, BadArchive

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": lambda content: zstandard.ZstdCompressor(write_checksum=True).compress(content),
}
KINDS = pytest.mark.parametrize("kind", COMPRESS)
CONTENT = bytes(range(256)) * 3000 + bytes(1 << 20) + b"end"


@pytest.fixture(params=["isal", "standard library"])
def gunzip(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once with isal, once as if it were not installed."""
    if request.param != "isal":
        monkeypatch.setitem(sys.modules, "isal", None)


def opened(content: bytes, kind: str) -> DecompressedStream:
    return DecompressedStream(io.BytesIO(content).read, kind, what="the layer")


def whole(content: bytes, kind: str, length: int = 100_000) -> bytes:
    stream = opened(content, kind)
    return b"".join(iter(lambda: stream.read(length), b""))


@KINDS
@pytest.mark.usefixtures("gunzip")
def test_what_went_in_comes_out(kind: str) -> None:
    content = COMPRESS[kind](CONTENT)
    assert kind_of(content) == kind
    assert whole(content, kind) == CONTENT
    assert whole(content, kind, 7777) == CONTENT
    assert whole(COMPRESS[kind](b""), kind) == b""


@KINDS
@given(st.lists(st.binary(max_size=50), min_size=1, max_size=5), st.integers(1, 60), st.integers(0, 9))
def test_several_streams_in_a_row_are_one(kind: str, contents: list[bytes], length: int, nuls: int) -> None:
    compressed = bytes(nuls).join(COMPRESS[kind](content) for content in contents)
    assert whole(compressed, kind, length) == b"".join(contents)


@KINDS
@pytest.mark.usefixtures("gunzip")
def test_a_buffer_is_filled(kind: str) -> None:
    stream, buffer = opened(COMPRESS[kind](CONTENT), kind), bytearray(700_000)
    found = b""
    while count := stream.readinto(memoryview(buffer)):
        assert count == min(len(buffer), len(CONTENT) - len(found))
        found += buffer[:count]
    assert found == CONTENT


@KINDS
@pytest.mark.usefixtures("gunzip")
def test_nuls_may_follow_and_nothing_else(kind: str) -> None:
    content = COMPRESS[kind](b"layer")
    assert whole(content + bytes(100_000), kind) == b"layer"
    for rest in (b"x", b"garbage" * 10_000, bytes(5000) + b"x", b"\x1f"):
        with pytest.raises(BadArchive, match="other bytes behind"):
            whole(content + rest, kind)


@KINDS
@pytest.mark.usefixtures("gunzip")
def test_cut_short_anywhere(kind: str) -> None:
    content = COMPRESS[kind](CONTENT)
    for cut in (*range(6, 60), len(content) // 2, len(content) - 1):
        with pytest.raises(BadArchive, match="cut short"):
            whole(content[:cut], kind)


@KINDS
@pytest.mark.usefixtures("gunzip")
def test_damage_is_told_or_harmless(kind: str) -> None:
    """All four have checksums, and only some bytes, such as gzip's time, are under none."""
    content = COMPRESS[kind](bytes(range(256)) * 4)
    told = 0
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 0x55
        try:
            assert whole(bytes(changed), kind) == bytes(range(256)) * 4
        except BadArchive:
            told += 1
    assert told > len(content) - 12


def test_what_is_not_compressed() -> None:
    for content in (b"", b"\x1f", b"a tar", b"PK\x03\x04", bytes(512)):
        assert kind_of(content) is None
    with pytest.raises(BadArchive, match="no gzip stream"):
        whole(b"BZh91AY&SY", "gzip")
    with pytest.raises(BadArchive, match="no gzip stream"):
        whole(b"", "gzip")


def test_zstd_frames_without_content() -> None:
    """pzstd writes one first; the layers of Podman's zstd:chunked end in some."""
    skipped = b"\x5f*M\x18" + struct.pack("<I", 5000) + bytes(5000)
    content = COMPRESS["zstd"](b"layer")
    assert kind_of(skipped) == "zstd"
    assert whole(skipped + content + skipped + content + skipped, "zstd") == b"layerlayer"


@KINDS
def test_a_bomb_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompression, "RATIO_FLOOR", 1 << 20)
    monkeypatch.setattr(decompression, "MAX_RATIO", 100)
    bomb = COMPRESS[kind](bytes(32 << 20))
    stream = opened(bomb, kind)
    pieces: list[bytes] = []
    with pytest.raises(BadArchive, match="more than 100-fold"):
        pieces.extend(iter(lambda: stream.read(1 << 16), b""))
    assert sum(map(len, pieces)) <= max(1 << 20, len(bomb) * 100)


@KINDS
def test_what_is_known_to_be_large_may_grow(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long zeros are a lawful layer: where its size is known, and where as much is still to come as explains them."""
    monkeypatch.setattr(decompression, "RATIO_FLOOR", 1 << 20)
    monkeypatch.setattr(decompression, "MAX_RATIO", 10)
    zeros = COMPRESS[kind](bytes(8 << 20))
    known = DecompressedStream(io.BytesIO(zeros).read, kind, what="it", compressed_size=len(zeros), size=8 << 20)
    assert known.read(9 << 20) == bytes(8 << 20)
    noise = hashlib.shake_128(b"noise").digest(1 << 20)
    rest = COMPRESS[kind](noise)
    mixed = DecompressedStream(io.BytesIO(zeros + rest).read, kind, what="it", compressed_size=len(zeros + rest))
    assert mixed.read(10 << 20) == bytes(8 << 20) + noise
    with pytest.raises(BadArchive, match="more than 10-fold"):
        opened(zeros + rest, kind).read(10 << 20)


@KINDS
def test_a_size_that_a_header_claims_excuses_no_bomb(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry's manifest or the header of a piped tar may claim any number of bytes that are still to come."""
    monkeypatch.setattr(decompression, "RATIO_FLOOR", 1 << 20)
    monkeypatch.setattr(decompression, "MAX_RATIO", 10)
    monkeypatch.setattr(decompression, "MAX_AHEAD", 1 << 17)
    bomb = io.BytesIO(COMPRESS[kind](bytes(8 << 20)))
    stream = DecompressedStream(bomb.read, kind, what="it", compressed_size=1 << 60)
    with pytest.raises(BadArchive, match="more than 10-fold"):
        stream.read(9 << 20)


@KINDS
def test_more_than_the_size_that_is_known_is_refused(kind: str) -> None:
    """At once, though the ratio is nothing unusual, and never given out."""
    content = COMPRESS[kind](bytes(4 << 20))
    stream = DecompressedStream(io.BytesIO(content).read, kind, what="layer x", size=1 << 20)
    pieces: list[bytes] = []
    with pytest.raises(BadArchive, match="layer x has more than its 1048576 bytes"):
        pieces.extend(iter(lambda: stream.read(1 << 16), b""))
    assert sum(map(len, pieces)) <= 1 << 20


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
@pytest.mark.usefixtures("gunzip")
def test_memory_is_bounded_by_the_input_that_is_read_at_once(kind: str) -> None:
    bomb = COMPRESS[kind](bytes(100 << 20))
    stream = opened(bomb, kind)
    tracemalloc.start()
    try:
        while stream.read(1 << 16):
            pass
        assert tracemalloc.get_traced_memory()[1] < 80 << 20
    finally:
        tracemalloc.stop()


def test_a_window_of_a_gigabyte_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=30)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    content = compressor.compress(b"x") + compressor.flush()
    with pytest.raises(BadArchive, match="damaged: zstd says"):
        whole(content, "zstd")


def test_zstd_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ArvDockerError, match=r"pip install 'arv-docker\[zstd\]'"):
        opened(b"", "zstd")


def test_the_packages_are_not_imported_before_they_are_needed() -> None:
    code = "import sys, arv_docker.archive.codecs.decompression; print({'isal', 'zstandard'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"

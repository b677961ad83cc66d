# SPDX-License-Identifier: Apache-2.0
"""An image as a collection holds it, in any layout, read from blocks."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arv_docker.archive.reader import ArchiveReader
from arv_docker.arvados.client import CollectionRecord
from arv_docker.arvados.stored import KeepFile, StoredImage, holds, image_file
from arv_docker.errors import BadManifestText, ContentError, DigestMismatch, NotAnImage
from arv_docker.model import manifest_text
from arv_docker.model.image import Digest
from arv_docker.model.manifest_text import Locator, Segment

from ..archives import Bytes, canonical_archive, classic, containerd, files_of, flat, hybrid, image

ID = "a" * 64
BLOCK = f"{'0' * 32}+10"
APP = image(files_of(b"low"), files_of(b"high" * 500), os="linux")


class Blocks:
    """A cluster that has nothing but blocks."""

    def __init__(self) -> None:
        self.blocks: dict[str, bytes] = {}
        self.asked: list[str] = []

    def put(self, content: bytes, size: int = 1000) -> list[str]:
        pieces = [content[start : start + size] for start in range(0, len(content), size)]
        names = [f"{hashlib.md5(piece).hexdigest()}+{len(piece)}" for piece in pieces]
        self.blocks |= dict(zip(names, pieces, strict=True))
        return names

    def get_block(self, locator: str) -> bytes:
        self.asked.append(locator)
        return self.blocks[locator]


def collection(text: str) -> CollectionRecord:
    return CollectionRecord.of({"uuid": "u", "manifest_text": text})


def read_whole(found: StoredImage) -> list[bytes]:
    return [b"".join(iter(layer.read, b"")) for layer in found.archived.layers()]


def stored(content: bytes, image_id: Digest) -> StoredImage:
    cluster = Blocks()
    text = manifest_text.single_file(f"{image_id}.tar", len(content), cluster.put(content))
    return StoredImage(cluster, collection(text))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (f". {BLOCK} 0:10:sha256\\072{ID}.tar\n", 2),
        (f". {BLOCK} 0:10:sha256:{ID}.tar\n", 2),
        (f". {BLOCK} 0:10:{ID}.tar\n", 1),
        (f". {BLOCK} 0:10:sha256\\072{ID.upper()}.tar\n", 2),
        (f". {BLOCK} 0:5:sha256\\072{ID}.tar 5:5:sha256\\072{ID}.tar\n", 2),
        (f". {BLOCK} 0:10:sha256\\072{ID}.tar\n./d {BLOCK} 0:0:.\n", 2),
    ],
)
def test_the_one_file(text: str, version: int) -> None:
    found = image_file(collection(text))
    assert (found.image_id, found.version, found.size) == (Digest.sha256(ID), version, 10)


@pytest.mark.parametrize(
    "text",
    [
        "",
        f". {BLOCK} 0:10:notes.txt\n",
        f". {BLOCK} 0:10:sha256\\072{ID}.tar 0:0:extra\n",
        f"./d {BLOCK} 0:10:sha256\\072{ID}.tar\n",
        f". {BLOCK} 0:10:sha256\\072{ID[1:]}.tar\n",
        f". {BLOCK} 0:10:sha512\\072{ID}.tar\n",
        f". {BLOCK} 0:10:sha256\\072{ID}.tar.gz\n",
        f". {BLOCK} 0:10:sha256\\072{ID}.tar\\012\n",
        f". {BLOCK} 0:10:xsha256\\072{ID}.tar\n",
    ],
)
def test_what_is_no_image_s_file(text: str) -> None:
    with pytest.raises(NotAnImage):
        image_file(collection(text))
    assert not holds(collection(text), Digest.sha256(ID))


def test_malformed_text() -> None:
    with pytest.raises(BadManifestText):
        image_file(collection("garbage"))
    assert not holds(collection("garbage"), Digest.sha256(ID))


def test_holds() -> None:
    good = collection(f". {BLOCK} 0:10:sha256\\072{ID}.tar\n")
    assert holds(good, Digest.sha256(ID))
    assert not holds(good, Digest.sha256("b" * 64))
    assert not holds(collection(f". {BLOCK} 0:10:{ID}.tar\n"), Digest.sha256(ID))


@pytest.mark.parametrize(
    ("form", "canonical"),
    [(classic, False), (hybrid, False), (containerd, False), (flat, False), (canonical_archive, True)],
)
def test_any_layout_is_read(form: Callable[..., bytes], canonical: bool) -> None:
    found = stored(form(APP), APP.parsed.digest)
    assert found.config == APP.parsed
    assert bool(found.canonical) is canonical
    assert sorted(read_whole(found)) == sorted(APP.layers)


def test_a_file_named_by_the_manifest_digest() -> None:
    by_manifest = stored(canonical_archive(APP), APP.parsed.digest).layout.manifest_digest
    assert stored(canonical_archive(APP), by_manifest).config == APP.parsed


def test_a_file_named_by_what_a_containerd_store_calls_the_image() -> None:
    for digest in ArchiveReader(Bytes(containerd(APP))).image().digests:
        assert stored(containerd(APP), digest).config == APP.parsed


def test_a_file_named_after_another_image() -> None:
    with pytest.raises(DigestMismatch, match="named after image"):
        stored(canonical_archive(APP), Digest.sha256(ID))


def test_a_block_that_was_changed() -> None:
    content = bytearray(canonical_archive(APP))
    content[content.index(b"highhigh")] ^= 1
    found = stored(bytes(content), APP.parsed.digest)
    with pytest.raises(DigestMismatch):
        read_whole(found)


def test_an_archive_with_a_changed_end_is_not_canonical() -> None:
    content = canonical_archive(APP) + bytes(512)
    assert not stored(content, APP.parsed.digest).canonical


# -- a file in blocks -------------------------------------------------------------------

_parts = st.lists(st.tuples(st.binary(min_size=1, max_size=20), st.integers(0, 19), st.integers(1, 20)), max_size=6)


@given(_parts, st.integers(0, 130), st.integers(-1, 130))
def test_a_file_reads_as_its_bytes_would(parts: list[tuple[bytes, int, int]], offset: int, length: int) -> None:
    blocks, segments, whole = Blocks(), [], b""
    for content, place, length_ in parts:
        start = place % len(content)
        size = min(length_, len(content) - start)
        (name,) = blocks.put(content)
        segments.append(Segment(Locator.parse(name), start, size))
        whole += content[start : start + size]
    file = KeepFile(segments, blocks.get_block)
    assert file.size == len(whole)
    assert file.read_at(offset, length) == whole[offset : offset + max(0, length)]


def test_a_block_that_is_shorter_than_its_name_says() -> None:
    """Its neighbour's bytes must not be read in its place."""
    segments = [Segment(Locator("0" * 32, 10), 0, 10), Segment(Locator("1" * 32, 3), 0, 3)]
    file = KeepFile(segments, lambda locator: b"abc")
    with pytest.raises(ContentError, match="3 bytes"):
        file.read_at(0, 13)


# -- reading ahead ----------------------------------------------------------------------


class Gate(Blocks):
    """Blocks of ten bytes that are given when they are let through."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.names = self.put(bytes(range(10 * count)), 10)
        self._open = {name: threading.Event() for name in self.names}

    def let_through(self, *numbers: int) -> None:
        for number in numbers:
            self._open[self.names[number]].set()

    def get_block(self, locator: str) -> bytes:
        self.asked.append(locator)
        assert self._open[locator].wait(10)
        return self.blocks[locator]

    def file(self) -> KeepFile:
        return KeepFile([Segment(Locator.parse(name), 0, 10) for name in self.names], self.get_block)

    def numbers_asked(self, count: int) -> list[int]:
        """Those of the first `count` blocks that were asked for, in any order; waits for them."""
        deadline = time.monotonic() + 10
        while len(self.asked) < count and time.monotonic() < deadline:
            time.sleep(0.005)
        return sorted(map(self.names.index, self.asked))


def test_expected_blocks_are_fetched_while_another_is_used() -> None:
    gate = Gate(6)
    file = gate.file()
    file.expect([(5, 10), (35, 25)])  # blocks 0 and 1, then 3, 4 and 5
    gate.let_through(0)
    assert file.read_at(5, 5) == bytes(range(5, 10))
    assert gate.numbers_asked(3) == [0, 1, 3]  # and no more than two ahead
    gate.let_through(1)
    assert file.read_at(10, 5) == bytes(range(10, 15))
    assert gate.numbers_asked(4) == [0, 1, 3, 4]
    gate.let_through(3, 4, 5)
    assert file.read_at(35, 25) == bytes(range(35, 60))
    assert gate.numbers_asked(5) == [0, 1, 3, 4, 5]  # each once, and never block 2
    assert file.bytes_read == 50


def test_nothing_is_fetched_that_was_not_expected() -> None:
    gate = Gate(4)
    gate.let_through(0, 1, 2, 3)
    file = gate.file()
    assert file.read_at(12, 3) == bytes(range(12, 15))
    assert file.read_at(16, 0) == b""
    assert file.read_at(20, 0) == b""
    file.expect([(0, 5)])
    assert file.read_at(0, 5) == bytes(range(5))
    assert gate.numbers_asked(2) == [0, 1]
    assert file.bytes_read == 20


def test_a_block_that_cannot_be_had_is_told_when_it_is_needed() -> None:
    blocks = Blocks()
    names = [*blocks.put(bytes(30), 10), BLOCK]
    file = KeepFile([Segment(Locator.parse(name), 0, 10) for name in names], blocks.get_block)
    file.expect([(0, 40)])
    assert file.read_at(0, 30) == bytes(30)
    with pytest.raises(KeyError):
        file.read_at(30, 10)


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 40)), max_size=8))
def test_what_is_expected_changes_no_byte(ranges: list[tuple[int, int]]) -> None:
    """Also where the same block is wanted several times, or something else is read than was expected."""
    blocks, whole = Blocks(), bytes(range(50)) * 2
    segments = [Segment(Locator.parse(name), 0, 10) for name in blocks.put(whole, 10)]
    file = KeepFile(segments, blocks.get_block)
    file.expect(ranges[1:])
    for offset, length in ranges:
        assert file.read_at(offset, length) == whole[offset : offset + length]


def test_an_image_reads_its_layers_ahead_and_fetches_no_block_twice() -> None:
    made = image(*(hashlib.shake_128(name).digest(5000) for name in (b"low", b"high")))
    cluster = Blocks()
    content = canonical_archive(made)
    text = manifest_text.single_file(f"{made.parsed.digest}.tar", len(content), cluster.put(content, 512))
    found = StoredImage(cluster, collection(text))  # type: ignore[arg-type]
    low, high = made.parsed.diff_ids
    before = len(cluster.asked)
    (layer,) = found.layers(skip={low})
    assert layer.read() == made.layers[1]
    assert len(cluster.asked) - before == -(-5000 // 512)
    assert [layer.read() for layer in found.layers()] == list(made.layers)
    assert len(cluster.asked) - before == 3 * -(-5000 // 512)
    assert found.bytes_read == 512 * len(cluster.asked)
    assert found.sizes == made.sizes
    assert found.layer(high).read() == made.layers[1]

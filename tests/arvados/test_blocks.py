# SPDX-License-Identifier: Apache-2.0
"""Storing the canonical archive as layers come: always its bytes, its blocks, few of them in memory.

The sizes at which the rule changes are made small here, so that images on every side of
them can be tried by the hundred.
"""

from __future__ import annotations

import gc
import hashlib
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arv_docker.archive import canonical
from arv_docker.archive.codecs.decompression import MAGIC_LENGTH, kind_of
from arv_docker.archive.layer import Layer
from arv_docker.arvados import blocks
from arv_docker.arvados.blocks import ArchiveWriter, BlockStore, StoredArchive
from arv_docker.errors import BadArchive, DigestMismatch, DiskError, KeepError
from arv_docker.model import manifest_text
from arv_docker.model.image import Digest

from ..archives import Image, image, layer_of

ALIGNED_SPAN = 4096
BLOCK_SIZE = 16384


def shrink(patch: pytest.MonkeyPatch, *, span: int, block: int, memory: int) -> None:
    """Other figures for the block rule, in both modules that read them."""
    for module in (canonical, blocks):
        patch.setattr(module, "ALIGNED_SPAN", span)
        patch.setattr(module, "BLOCK_SIZE", block)
    patch.setattr(blocks, "_MOST_PACKED", span - 1024)
    patch.setattr(blocks, "_PACKED_IN_MEMORY", memory)


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, span=ALIGNED_SPAN, block=BLOCK_SIZE, memory=BLOCK_SIZE)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spool")


class Keep:
    """Keep as a dictionary; `sent` are the blocks in the order in which they came, repeats included."""

    def __init__(self, seconds: float = 0) -> None:
        self.blocks: dict[str, bytes] = {}
        self.sent: list[str] = []
        self._seconds = seconds
        self._lock = threading.Lock()

    def put(self, content: memoryview, md5: str) -> str:
        time.sleep(self._seconds)
        name = f"{md5}+{len(content)}"
        with self._lock:
            self.blocks[name] = bytes(content)
            self.sent.append(name)
        return f"{name}+A{'0' * 40}@{len(self.sent):08x}"

    def read(self, stored: StoredArchive) -> bytes:
        return b"".join(self.blocks[locator.partition("+A")[0]] for locator in stored.locators)


def submitted(store: BlockStore, content: bytes) -> Future[str]:
    """A block on its way."""
    buffer = store.buffer()
    buffer[: len(content)] = content
    return store.submit(buffer, len(content))


def stored(keep: Keep, made: Image, folder: Path, order: list[Layer] | None = None) -> StoredArchive:
    writer = ArchiveWriter(BlockStore(keep.put), lambda _: None, folder)
    for layer in order if order is not None else [layer_of(content) for content in made.by_id.values()]:
        writer.add(layer)
    return writer.finish(made.parsed)


def expected(made: Image) -> bytes:
    return b"".join(canonical.content(canonical.layout(made.parsed, made.sizes), made.layer))


_near = st.sampled_from([0, 512, 1024, ALIGNED_SPAN, BLOCK_SIZE, 2 * BLOCK_SIZE, 3 * BLOCK_SIZE])
_size = st.one_of(
    st.tuples(_near, st.integers(-1025, 3)).map(lambda pair: max(0, sum(pair))), st.integers(0, 4 * BLOCK_SIZE)
)
_layer = (
    st.tuples(_size, st.binary(min_size=1, max_size=3))
    .map(lambda pair: (pair[1] * pair[0])[: pair[0]])
    .filter(lambda content: kind_of(content[:MAGIC_LENGTH]) is None)  # by a diff_id such bytes are no layer
)


@given(st.data())
def test_the_blocks_are_those_of_the_canonical_archive(folder: Path, data: st.DataObject) -> None:
    """Whatever the sizes, in whatever order the layers come, whether or not their names and sizes are known."""
    layers = data.draw(st.lists(_layer, max_size=6))
    made = image(*layers)
    distinct = list(made.by_id.values())
    order = data.draw(st.permutations(distinct))
    keep = Keep()
    result = stored(keep, made, folder, [layer_of(content, known=data.draw(st.booleans())) for content in order])
    assert keep.read(result) == expected(made)
    sizes = [int(locator.split("+")[1]) for locator in result.locators]
    assert tuple(sizes) == result.layout.block_sizes()
    assert result.layout == canonical.layout(made.parsed, made.sizes)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    "size",
    [
        ALIGNED_SPAN - 1024,
        ALIGNED_SPAN - 1023,
        BLOCK_SIZE - 1025,
        BLOCK_SIZE - 1024,
        BLOCK_SIZE - 1023,
        BLOCK_SIZE - 513,
        BLOCK_SIZE - 512,
        BLOCK_SIZE - 511,
        BLOCK_SIZE,
        2 * BLOCK_SIZE - 1024,
        2 * BLOCK_SIZE - 513,
        2 * BLOCK_SIZE - 512,
        2 * BLOCK_SIZE - 511,
    ],
)
def test_layers_at_each_edge(folder: Path, size: int, known: bool) -> None:
    made, keep = image(b"x" * size, b"y"), Keep()
    result = stored(keep, made, folder, [layer_of(content, known=known) for content in made.layers])
    assert keep.read(result) == expected(made)
    assert len(result.locators) == len(result.layout.block_sizes())


def test_the_manifest_text_has_one_file_and_the_blocks_in_order(folder: Path) -> None:
    made, keep = image(b"x" * 50_000), Keep()
    result = stored(keep, made, folder)
    text = result.manifest_text(made.parsed.digest)
    ((name, parts),) = manifest_text.files(manifest_text.parse(text)).items()
    assert name == f"{made.parsed.digest}.tar"
    assert [str(part.locator) for part in parts] == list(result.locators)
    assert sum(part.length for part in parts) == result.layout.size


def test_reading_is_told_byte_by_byte(folder: Path) -> None:
    made, told = image(b"x" * 50_000, b"y" * 10), list[int]()
    writer = ArchiveWriter(BlockStore(Keep().put), told.append, folder)
    for content in made.layers:
        writer.add(layer_of(content))
    assert sum(told) == 50_010


# -- what is sent -----------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, 0.01])
def test_equal_blocks_are_sent_once(folder: Path, seconds: float) -> None:
    """Also when the first is still under way; the layer here is 20 equal blocks and a first and last one."""
    keep = Keep(seconds)
    made = image(bytes(21 * BLOCK_SIZE))
    store = BlockStore(keep.put)
    writer = ArchiveWriter(store, lambda _: None, folder)
    writer.add(layer_of(made.layers[0]))
    result = writer.finish(made.parsed)
    assert sorted(keep.sent) == sorted(set(keep.sent))
    assert len(store.sent) == len(keep.sent) == len(set(result.locators))
    assert store.bytes_sent == sum(map(len, keep.blocks.values()))
    assert keep.read(result) == expected(made)


def test_what_keep_had_is_not_sent_and_told(folder: Path) -> None:
    """Each time that it is read: an image may have equal blocks."""
    keep, told = Keep(), list[int]()
    made = image(bytes(21 * BLOCK_SIZE), b"new" * BLOCK_SIZE)
    had = stored(keep, image(made.layers[0]), folder)
    store = BlockStore(keep.put, {locator.partition("+A")[0]: locator for locator in had.locators}, told.append)
    writer = ArchiveWriter(store, lambda _: None, folder)
    for content in made.layers:
        writer.add(layer_of(content))
    result = writer.finish(made.parsed)
    assert keep.read(result) == expected(made)
    assert sum(told) == store.bytes_spared
    assert store.bytes_spared + store.bytes_sent == result.layout.size
    assert told.count(BLOCK_SIZE) >= 20


def test_an_equal_block_fails_with_the_one_it_waited_for() -> None:
    started, puts = threading.Event(), list[int]()

    def put(content: memoryview, md5: str) -> str:
        puts.append(len(content))
        started.wait(5)
        raise KeepError("full")

    store = BlockStore(put)
    first, second = submitted(store, b"same"), submitted(store, b"same")
    started.set()
    for future in (first, second):
        with pytest.raises(KeepError):
            future.result(5)
    assert puts == [4]


def test_no_more_than_there_are_buffers_are_sent_at_once() -> None:
    now, most, lock = [0], [0], threading.Lock()

    def put(content: memoryview, md5: str) -> str:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.005)
        with lock:
            now[0] -= 1
        return "x"

    store = BlockStore(put)
    for future in [submitted(store, b"%d" % number) for number in range(20)]:
        future.result(5)
    assert most[0] == blocks.BUFFERS


# -- failures ---------------------------------------------------------------------------


def test_a_failing_put_ends_the_reading(folder: Path) -> None:
    read = [0]

    def endless(length: int) -> bytes:
        read[0] += length
        assert read[0] < 100 * BLOCK_SIZE, "the reading goes on"
        return read[0].to_bytes(8, "big") * (length // 8) + bytes(length % 8)

    def put(content: memoryview, md5: str) -> str:
        raise KeepError("Keep is full")

    writer = ArchiveWriter(BlockStore(put), lambda _: None, folder)
    with pytest.raises(KeepError, match="Keep is full"):
        writer.add(Layer(endless, claimed=None, size=None))
    assert read[0] <= (blocks.BUFFERS + 1) * BLOCK_SIZE


def test_a_failing_put_of_the_last_block_is_raised_too(folder: Path) -> None:
    def put(content: memoryview, md5: str) -> str:
        if content == canonical.END:
            raise KeepError("no")
        return "x"

    writer = ArchiveWriter(BlockStore(put), lambda _: None, folder)
    with pytest.raises(KeepError):
        writer.finish(image().parsed)


@pytest.mark.parametrize("size", [10, ALIGNED_SPAN, 3 * BLOCK_SIZE])
@pytest.mark.parametrize("known", [True, False])
def test_a_layer_that_is_not_what_it_claims(folder: Path, size: int, known: bool) -> None:
    writer = ArchiveWriter(BlockStore(Keep().put), lambda _: None, folder)
    layer = layer_of(b"x" * size, claimed=Digest.of(b"other"))
    if not known:
        layer.size = None
    with pytest.raises(DigestMismatch):
        writer.add(layer)


@pytest.mark.parametrize("size", [10, ALIGNED_SPAN, 3 * BLOCK_SIZE])
@pytest.mark.parametrize("error", [-1, 1])
def test_a_layer_of_another_size_than_it_claims(folder: Path, size: int, error: int) -> None:
    writer = ArchiveWriter(BlockStore(Keep().put), lambda _: None, folder)
    layer = layer_of(b"x" * size)
    layer.size = size + error
    with pytest.raises(BadArchive):
        writer.add(layer)


def test_a_layer_that_never_came(folder: Path) -> None:
    made, keep = image(b"one", b"two"), Keep()
    writer = ArchiveWriter(BlockStore(keep.put), lambda _: None, folder)
    writer.add(layer_of(b"one"))
    with pytest.raises(BadArchive, match=str(Digest.of(b"two"))):
        writer.finish(made.parsed)
    assert keep.sent == []


def test_a_full_disk_while_small_layers_wait(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(ArchiveWriter(BlockStore(Keep().put), lambda _: None, folder)) as writer:
        monkeypatch.setattr(writer, "_spool", Path("/dev/full").open("w+b"))  # noqa: SIM115 -- the writer closes it
        with pytest.raises(DiskError, match="no room in"):
            writer.add(layer_of(b"x"))


# -- memory -----------------------------------------------------------------------------

MIB = 1 << 20


class Forgetful:
    """A slow Keep that keeps nothing, so that what is in memory is ours."""

    def put(self, content: memoryview, md5: str) -> str:
        time.sleep(0.002)
        return "x"


def peak(work: Callable[[], object]) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("known", [True, False])
def test_a_large_layer_is_never_more_than_a_few_blocks(
    folder: Path, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its blocks go out of the same few buffers, whatever the layer's size."""
    shrink(monkeypatch, span=MIB // 4, block=MIB, memory=MIB)
    size, position = 30 * MIB, [0]
    pattern = bytes(range(251)) * (2 * MIB // 251)  # its period divides no block, so that no two are equal

    def read(length: int) -> bytes:
        length, start = min(length, size - position[0]), position[0] % 251
        position[0] += length
        return pattern[start : start + length]

    claimed = Digest("sha256", hashlib.sha256(b"".join(iter(lambda: read(MIB), b""))).hexdigest())
    position[0] = 0
    layer = Layer(read, claimed=claimed if known else None, size=size if known else None)

    writer = ArchiveWriter(BlockStore(Forgetful().put), lambda _: None, folder)
    most = peak(lambda: writer.add(layer))
    assert (layer.diff_id, layer.position) == (claimed, size)
    assert most < (blocks.BUFFERS + 1.5) * MIB


def test_many_small_layers_are_never_more_than_a_few_blocks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch, span=MIB // 4, block=MIB, memory=MIB)
    made = image(*(b"%07d\n" % number * (MIB // 40) for number in range(60)))
    writer = ArchiveWriter(BlockStore(Forgetful().put), lambda _: None, folder)

    def work() -> None:
        for content in made.layers:
            writer.add(layer_of(content))
        writer.finish(made.parsed)

    assert peak(work) < (blocks.BUFFERS + 1) * MIB

# SPDX-License-Identifier: Apache-2.0
"""Storing a canonical archive in Keep as its layers come, in any order, with few blocks in memory.

Aligned layers go out as they are read. Packed ones wait until all are known, for they
share a run of blocks in a fixed order. The archive is composed at the end, from
locators: it exists nowhere as a file.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import LifoQueue
from typing import IO

from ..archive import canonical
from ..archive.canonical import ALIGNED_SPAN, BLOCK_SIZE, END, Layout
from ..archive.layer import Layer
from ..errors import BadArchive
from ..local.background import future_of
from ..local.disk import disk_errors
from ..local.progress import UNHEARD_STEP, Advance
from ..model import manifest_text
from ..model.image import Config, Digest

#: Buffers of BLOCK_SIZE bytes in all: one is read into, the others are hashed and sent, or one of them holds a first
#: block that waits for its header. This bounds the memory. A fourth one made a first ingest slower on two cores (1.1
#: times, medians of eight rounds), for its memory is cold.
BUFFERS = 3

#: Stores a block, whose MD5 in hex is known, and gives its signed locator.
Put = Callable[[memoryview, str], str]

_HEADER = 512
#: A layer of more content bytes than this is aligned: its span with header and padding reaches ALIGNED_SPAN.
_MOST_PACKED = ALIGNED_SPAN - 2 * _HEADER
#: Packed layers beyond this many bytes wait on disk, in a file without a name.
_PACKED_IN_MEMORY = 64 << 20


@dataclass(frozen=True, slots=True)
class StoredArchive:
    """A canonical archive whose blocks are all in Keep; ``locators`` are signed, in the archive's order."""

    layout: Layout
    locators: tuple[str, ...] = field(repr=False)

    @property
    def names(self) -> frozenset[str]:
        """Names of the archive's blocks, ``md5+size``."""
        return frozenset("+".join(locator.split("+", 2)[:2]) for locator in self.locators)

    def manifest_text(self, image_id: Digest) -> str:
        """The text of a collection that holds the archive alone, as ``<image_id>.tar``."""
        return manifest_text.single_file(f"{image_id}.tar", self.layout.size, self.locators)


class BlockStore:
    """Store that hashes and sends blocks out of BUFFERS buffers, each on a thread. Of equal blocks one is sent.

    The threads are daemons: whoever gives up, on an error or Ctrl-C, does not wait for a
    request that is being tried again and again. ``sent`` are the names (``md5+size``) of the
    blocks that really went to Keep, ``bytes_sent`` counts them, ``bytes_spared`` what was there before.
    """

    def __init__(self, put: Put, known: Mapping[str, str] | None = None, spared: Advance = UNHEARD_STEP) -> None:
        """``put`` gets a block and its MD5 in hex, and gives its locator.

        ``known`` are locators of blocks that Keep has, by ``md5+size``: such blocks are not
        sent, and ``spared`` is told of their bytes, from any thread.
        """
        self._put = put
        self._spared = spared
        self._before = frozenset(known or ())
        self._known: dict[str, Future[str]] = {
            name: _completed_future(locator) for name, locator in (known or {}).items()
        }
        # The last one given back first: a small image touches the memory of one or two.
        self._free: LifoQueue[memoryview | None] = LifoQueue()
        for _ in range(BUFFERS):
            self._free.put(None)  # not made before it is needed
        self._lock = threading.Lock()
        self._failed: BaseException | None = None
        self.sent: set[str] = set()
        self.bytes_sent = 0
        self.bytes_spared = 0

    def buffer(self) -> memoryview:
        """Return a buffer of BLOCK_SIZE bytes, whatever is in it; wait while all are in use.

        It goes back by ``submit`` or ``release``. Raises what an earlier block failed with, so
        that nothing more is read for a lost cause.
        """
        found = self._free.get()
        if self._failed is not None:
            self._free.put(found)
            raise self._failed
        return memoryview(bytearray(BLOCK_SIZE)) if found is None else found

    def release(self, buffer: memoryview) -> None:
        """Give back a buffer that is not needed after all."""
        self._free.put(buffer)

    def submit(self, buffer: memoryview, length: int) -> Future[str]:
        """Begin to store the first ``length`` bytes of a buffer as a block, and return its locator to come."""
        return future_of(partial(self._store, buffer, length), "block")

    def _store(self, buffer: memoryview, length: int) -> str:
        try:
            return self._locator(buffer[:length])
        except BaseException as error:
            self._failed = error
            raise
        finally:
            self.release(buffer)

    def _locator(self, content: memoryview) -> str:
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        name = f"{md5}+{len(content)}"
        with self._lock:
            first = self._known.get(name)
            mine: Future[str] = self._known.setdefault(name, Future())
        if first is not None:
            locator = first.result()  # of an equal block, which may still be under way
            if name in self._before:
                with self._lock:
                    self.bytes_spared += len(content)
                self._spared(len(content))
            return locator
        try:
            locator = self._put(content, md5)
        except BaseException as error:
            mine.set_exception(error)
            raise
        mine.set_result(locator)
        with self._lock:
            self.sent.add(name)
            self.bytes_sent += len(content)
        return locator


class ArchiveWriter:
    """Writer that takes layers in any order and composes the canonical archives of images from their blocks."""

    def __init__(self, blocks: BlockStore, advance: Callable[[int], None], spool_folder: Path) -> None:
        """``advance`` is told of bytes as they are read; ``spool_folder`` is where many packed layers may wait."""
        self._blocks = blocks
        self._advance = advance
        self._sizes: dict[Digest, int] = {}
        self._aligned: dict[Digest, list[Future[str]]] = {}
        self._packed: dict[Digest, int] = {}
        self._spool_folder = spool_folder
        self._spool: IO[bytes] = tempfile.SpooledTemporaryFile(_PACKED_IN_MEMORY, dir=str(spool_folder))  # noqa: SIM115

    def add(self, layer: Layer) -> None:
        """Read a layer to the end, check, and store or keep it. Raises the errors of ``Layer.readinto``."""
        buffer = self._blocks.buffer()
        try:
            end = _HEADER + self._read(layer, buffer[_HEADER : _HEADER + _MOST_PACKED + 1])
        except BaseException:
            self._blocks.release(buffer)  # another layer may be read in its place
            raise
        if end > _HEADER + _MOST_PACKED:
            self._aligned[layer.claimed or layer.diff_id] = self._store_aligned(layer, buffer, end)
        else:
            self._packed[layer.diff_id] = self._spool.tell()
            with disk_errors(self._spool_folder, end - _HEADER):
                self._spool.write(buffer[_HEADER:end])
                self._spool.flush()
            self._blocks.release(buffer)
        self._sizes[layer.diff_id] = layer.position

    def take(self, diff_id: Digest, size: int, locators: Sequence[str]) -> None:
        """Note an aligned layer whose blocks Keep has, header and padding with them."""
        self._aligned[diff_id] = [_completed_future(locator) for locator in locators]
        self._sizes[diff_id] = size

    def finish(self, config: Config) -> StoredArchive:
        """Store the rest of an image's archive and wait for all its blocks; raises BadArchive if a layer never came.

        Any number of images may be finished that have layers in common.
        """
        for diff_id in config.diff_ids:
            if diff_id not in self._sizes:
                raise BadArchive(f"layer {diff_id} is missing. Save the image again.")
        layout = canonical.layout(config, self._sizes)
        runs = [
            self._store_run([layout.head]),
            self._store_run(self._packed_run(layout)),
            *(self._aligned[span.diff_id] for span in layout.aligned_spans),
            self._store_run([END]),
        ]
        return StoredArchive(layout, tuple(block.result() for run in runs for block in run))

    def close(self) -> None:
        """Forget the layers that wait."""
        with suppress(OSError):  # a full disk, of which ``add`` has told
            self._spool.close()

    def _read(self, layer: Layer, buffer: memoryview) -> int:
        count = layer.readinto(buffer)
        self._advance(count)
        return count

    def _store_aligned(self, layer: Layer, buffer: memoryview, end: int) -> list[Future[str]]:
        """Store the blocks of an aligned layer, whose start is in ``buffer`` up to ``end``, with room for the header.

        The header waits for the layer's end unless its name and size are known ahead; then what
        it claims is checked at the end all the same.
        """
        end += self._read(layer, buffer[end:])
        first = None
        if layer.claimed is not None and layer.size is not None:
            first = self._store_first(layer.claimed, layer.size, buffer, end)
        rest = list(self._blocks_after_first(layer)) if end == len(buffer) else []
        return [first or self._store_first(layer.diff_id, layer.position, buffer, end), *rest]

    def _store_first(self, diff_id: Digest, size: int, buffer: memoryview, end: int) -> Future[str]:
        buffer[:_HEADER] = canonical.layer_header(diff_id, size)
        return self._blocks.submit(buffer, _pad_to_record(buffer, end))

    def _blocks_after_first(self, layer: Layer) -> Iterator[Future[str]]:
        """Store the other blocks of a layer. Each begins at a multiple of 512, so it is padded like the whole."""
        while True:
            buffer = self._blocks.buffer()
            count = self._read(layer, buffer)
            if not count:
                self._blocks.release(buffer)
                return
            yield self._blocks.submit(buffer, _pad_to_record(buffer, count))
            if count < len(buffer):
                return

    def _packed_run(self, layout: Layout) -> Iterator[bytes]:
        for span in layout.packed_spans:
            self._spool.seek(self._packed[span.diff_id])
            yield b"".join((span.header, self._spool.read(span.size), canonical.padding(span.size)))

    def _store_run(self, pieces: Iterable[bytes]) -> list[Future[str]]:
        """Store the pieces joined, cut at every BLOCK_SIZE."""
        blocks: list[Future[str]] = []
        buffer, end = None, 0
        for piece in pieces:
            left = memoryview(piece)
            while left:
                if buffer is None:
                    buffer, end = self._blocks.buffer(), 0
                taken = left[: len(buffer) - end]
                buffer[end : end + len(taken)] = taken
                left, end = left[len(taken) :], end + len(taken)
                if end == len(buffer):
                    blocks.append(self._blocks.submit(buffer, end))
                    buffer = None
        if buffer is not None:
            blocks.append(self._blocks.submit(buffer, end))
        return blocks


def _pad_to_record(buffer: memoryview, end: int) -> int:
    """Fill the buffer up from ``end`` to the next multiple of 512, and return that."""
    padding = canonical.padding(end)
    buffer[end : end + len(padding)] = padding
    return end + len(padding)


def _completed_future(locator: str) -> Future[str]:
    result: Future[str] = Future()
    result.set_result(locator)
    return result

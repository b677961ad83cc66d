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
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from ..archive import canonical
from ..archive.canonical import ALIGNED_SPAN, BLOCK_SIZE, END, Layout
from ..archive.layer import Layer
from ..disk import writing
from ..errors import BadArchive
from ..image import Config, Digest
from . import manifest

#: Blocks that are hashed and sent at the same time. With one more being read, this bounds the memory.
IN_FLIGHT = 2

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

    def manifest_text(self, image_id: Digest) -> str:
        """The text of a collection that holds the archive alone, as ``<image_id>.tar``."""
        return manifest.single_file(f"{image_id}.tar", self.layout.size, self.locators)


class BlockStore:
    """Hashes and stores at most IN_FLIGHT blocks at a time, each on a thread. Of equal blocks one is sent.

    The threads are daemons: whoever gives up, on an error or Ctrl-C, does not wait for a
    request that is being tried again and again. ``bytes_sent`` and ``blocks_sent`` count
    what really went to Keep, ``bytes_spared`` what was there before.
    """

    def __init__(self, put: Callable[[bytes], str], known: Mapping[str, str] | None = None) -> None:
        """``known`` are locators of blocks that Keep has, by ``md5+size``: such blocks are not sent."""
        self._put = put
        self._before = frozenset(known or ())
        self._known: dict[str, Future[str]] = {name: _done(locator) for name, locator in (known or {}).items()}
        self._room = threading.Semaphore(IN_FLIGHT)
        self._lock = threading.Lock()
        self._failed: BaseException | None = None
        self.bytes_sent = 0
        self.blocks_sent = 0
        self.bytes_spared = 0

    def submit(self, content: bytes) -> Future[str]:
        """Begins to store a block and gives its locator to come; waits while IN_FLIGHT blocks are under way.

        Raises what an earlier block failed with, so that nothing more is read for a lost cause.
        """
        self._room.acquire()
        if self._failed is not None:
            self._room.release()
            raise self._failed
        locator: Future[str] = Future()
        threading.Thread(target=self._store, args=(content, locator), daemon=True).start()
        return locator

    def _store(self, content: bytes, result: Future[str]) -> None:
        try:
            result.set_result(self._locator(content, result))
        except BaseException as error:  # noqa: BLE001 -- it goes on to whoever asks for the result
            self._failed = error
            result.set_exception(error)
        finally:
            self._room.release()

    def _locator(self, content: bytes, result: Future[str]) -> str:
        name = f"{hashlib.md5(content, usedforsecurity=False).hexdigest()}+{len(content)}"
        with self._lock:
            first = self._known.setdefault(name, result)
        if first is not result:
            locator = first.result()  # of an equal block, which may still be under way
            if name in self._before:
                with self._lock:
                    self.bytes_spared += len(content)
            return locator
        locator = self._put(content)
        with self._lock:
            self.bytes_sent += len(content)
            self.blocks_sent += 1
        return locator


class ArchiveWriter:
    """Takes an image's layers in any order and composes its canonical archive from their blocks."""

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
        """Reads a layer to its end, checks it, and stores or keeps it. Raises what ``Layer.read`` raises."""
        start = self._read(layer, _MOST_PACKED + 1)
        if len(start) > _MOST_PACKED:
            self._aligned[layer.claimed or layer.diff_id] = self._store_aligned(layer, start)
        else:
            self._packed[layer.diff_id] = self._spool.tell()
            with writing(self._spool_folder, len(start)):
                self._spool.write(start)
        self._sizes[layer.diff_id] = layer.position

    def finish(self, config: Config) -> StoredArchive:
        """Stores the rest of the archive and waits for every block; raises BadArchive if a layer never came."""
        for diff_id in config.diff_ids:
            if diff_id not in self._sizes:
                raise BadArchive(f"layer {diff_id} is missing. Save the image again.")
        layout = canonical.layout(config, self._sizes)
        runs = [
            self._store_run([layout.head]),
            self._store_run(self._packed_run(layout)),
            *(self._aligned[span.diff_id] for span in layout.aligned),
            self._store_run([END]),
        ]
        self._spool.close()
        return StoredArchive(layout, tuple(block.result() for run in runs for block in run))

    def _read(self, layer: Layer, length: int) -> bytes:
        content = layer.read(length)
        self._advance(len(content))
        return content

    def _store_aligned(self, layer: Layer, start: bytes) -> list[Future[str]]:
        """The blocks of an aligned layer. The first holds the header, so it waits for the layer's end
        unless the layer's name and size are known ahead; then what it claims is checked at the end all the same."""
        start += self._read(layer, BLOCK_SIZE - _HEADER - len(start))
        first = None
        if layer.claimed is not None and layer.size is not None:
            first = self._store_first(layer.claimed, layer.size, start)
            start = b""
        rest = [self._blocks.submit(block) for block in self._blocks_after_first(layer)]
        return [first or self._store_first(layer.diff_id, layer.position, start), *rest]

    def _store_first(self, diff_id: Digest, size: int, start: bytes) -> Future[str]:
        end = canonical.padding(size) if size <= BLOCK_SIZE - _HEADER else b""
        return self._blocks.submit(b"".join((canonical.layer_header(diff_id, size), start, end)))

    def _blocks_after_first(self, layer: Layer) -> Iterator[bytes]:
        while layer.position % BLOCK_SIZE == BLOCK_SIZE - _HEADER:
            content = self._read(layer, BLOCK_SIZE)
            if len(content) < BLOCK_SIZE:
                content += canonical.padding(layer.position)
            if content:
                yield content
            if len(content) < BLOCK_SIZE:
                return

    def _packed_run(self, layout: Layout) -> Iterator[bytes]:
        for span in layout.packed:
            self._spool.seek(self._packed[span.diff_id])
            yield b"".join((span.header, self._spool.read(span.size), canonical.padding(span.size)))

    def _store_run(self, pieces: Iterable[bytes]) -> list[Future[str]]:
        """Stores the pieces joined, cut at every BLOCK_SIZE; pieces are smaller than that."""
        blocks: list[Future[str]] = []
        waiting = bytearray()
        for piece in pieces:
            waiting += piece
            if len(waiting) >= BLOCK_SIZE:
                with memoryview(waiting) as view:
                    block = bytes(view[:BLOCK_SIZE])
                del waiting[:BLOCK_SIZE]
                blocks.append(self._blocks.submit(block))
        if waiting:
            blocks.append(self._blocks.submit(bytes(waiting)))
        return blocks


def _done(locator: str) -> Future[str]:
    result: Future[str] = Future()
    result.set_result(locator)
    return result

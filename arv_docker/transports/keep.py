# SPDX-License-Identifier: Apache-2.0
"""``keep:``, an image in a collection of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ..keep.blocks import ArchiveWriter, BlockStore, StoredArchive
from ..keep.client import Cluster
from ..progress import Advance
from . import OpenedImage


class KeepDestination:
    """Keep as a place for canonical archives. Writing stores blocks; a collection is made of them afterwards.

    ``spool_folder`` is where small layers may wait if there are very many. ``known`` are
    signed locators of blocks that need not be sent, by ``md5+size``; ``note`` is told of
    each that was. ``bytes_sent`` and ``bytes_spared`` count what went to Keep, and what did
    not have to.
    """

    def __init__(
        self,
        cluster: Cluster,
        spool_folder: Path,
        known: Mapping[str, str] | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self._cluster = cluster
        self._spool_folder = spool_folder
        self._known = known or {}
        self._note = note
        self.bytes_sent = 0
        self.bytes_spared = 0

    def write(self, image: OpenedImage, advance: Advance) -> StoredArchive:
        """Stores the image's canonical archive, every layer checked. Raises what the layers raise, and KeepError."""
        blocks = BlockStore(self._put, self._known)
        writer = ArchiveWriter(blocks, advance, self._spool_folder)
        for layer in image.layers():
            writer.add(layer)
        stored = writer.finish(image.config)
        self.bytes_sent, self.bytes_spared = blocks.bytes_sent, blocks.bytes_spared
        return stored

    def _put(self, content: memoryview, md5: str) -> str:
        locator = self._cluster.put_block(content, md5)
        if self._note is not None:
            self._note(locator)
        return locator

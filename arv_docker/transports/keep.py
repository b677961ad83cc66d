# SPDX-License-Identifier: Apache-2.0
"""``keep:``, an image in a collection of a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..keep.blocks import ArchiveWriter, BlockStore, StoredArchive
from ..keep.client import Cluster, CollectionRecord
from ..keep.stored import StoredImage
from ..progress import Advance
from . import OpenedImage, SeekableImage


class KeepSource:
    """The image that a collection holds, in whatever layout."""

    def __init__(self, cluster: Cluster, collection: CollectionRecord) -> None:
        self._cluster = cluster
        self._collection = collection

    @contextmanager
    def open(self) -> Iterator[SeekableImage]:
        """The image; raises what ``StoredImage`` refuses."""
        yield StoredImage(self._cluster, self._collection).archived


class KeepDestination:
    """Keep as a place for canonical archives. Writing stores blocks; a collection is made of them afterwards.

    ``spool_folder`` is where small layers may wait if there are very many; ``bytes_sent``
    counts what went to Keep.
    """

    def __init__(self, cluster: Cluster, spool_folder: Path) -> None:
        self._cluster = cluster
        self._spool_folder = spool_folder
        self.bytes_sent = 0

    def write(self, image: OpenedImage, advance: Advance) -> StoredArchive:
        """Stores the image's canonical archive, every layer checked. Raises what the layers raise, and KeepError."""
        blocks = BlockStore(self._cluster.put_block)
        writer = ArchiveWriter(blocks, advance, self._spool_folder)
        for layer in image.layers():
            writer.add(layer)
        stored = writer.finish(image.config)
        self.bytes_sent += blocks.bytes_sent
        return stored

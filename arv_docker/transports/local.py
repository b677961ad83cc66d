# SPDX-License-Identifier: Apache-2.0
"""Local files: read at any place; and images whose layers wait in one, for destinations that need another order."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..archive import canonical
from ..archive.blob import section
from ..archive.canonical import Layout
from ..archive.layer import CHUNK, Layer
from ..archive.stream import StreamedImage
from ..disk import writing
from ..errors import BadArchive
from ..image import Config, Digest
from ..progress import Advance
from . import OpenedImage, ReadsAhead, SeekableImage, can_seek


class LocalFile:
    """An open file that is read at any place, by several threads at once."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``; fewer only at the end."""
        content = os.pread(self._descriptor, length, offset)
        if len(content) in (0, length) or offset + len(content) >= self.size:
            return content
        return content + self.read_at(offset + len(content), length - len(content))


class SpooledImage:
    """An image whose layers lie one behind the other in a file. ``sizes`` are their bytes."""

    def __init__(self, config: Config, file: LocalFile, places: Mapping[Digest, tuple[int, int]]) -> None:
        """``places`` are offset and size of each layer."""
        self.config = config
        self.sizes: Mapping[Digest, int] = {diff_id: places[diff_id][1] for diff_id in config.distinct_diff_ids}
        self._file = file
        self._places = places

    def layers(self, skip: Container[Digest] = ()) -> Iterator[Layer]:
        """Each distinct layer that is not in ``skip``."""
        return (self.layer(diff_id) for diff_id in self.sizes if diff_id not in skip)

    def layer(self, diff_id: Digest) -> Layer:
        """The layer of that name, from its front."""
        offset, size = self._places[diff_id]
        return Layer(section(self._file, offset, size), claimed=diff_id, size=size)


@contextmanager
def seekable(image: OpenedImage, folder: Path) -> Iterator[SeekableImage]:
    """The image itself if its layers can be had in any order; else with them in a file without a name in ``folder``.

    Raises what reading the layers raises, DiskError, and BadArchive if one never came.
    """
    if can_seek(image):
        yield image
        return
    needed = image.size if isinstance(image, StreamedImage) else 0
    with writing(folder, needed, advice="choose a folder on a larger disk"), tempfile.TemporaryFile(dir=folder) as file:
        places = {}
        for layer in image.layers():
            start = file.tell()
            while content := layer.read(CHUNK):
                file.write(content)
            places[layer.diff_id] = start, layer.position
        file.flush()
        for diff_id in image.config.diff_ids:
            if diff_id not in places:
                raise BadArchive(f"layer {diff_id} is missing. Save the image again.")
        yield SpooledImage(image.config, LocalFile(file.fileno()), places)


def archive_of(image: SeekableImage, layout: Layout, advance: Advance, skip: Container[Digest] = ()) -> Iterator[bytes]:
    """The image's archive in that layout, as ``canonical.content`` gives it, without the layers in ``skip``.

    ``advance`` is told of each chunk when the next is asked for: then it has been dealt with.
    """
    if isinstance(image, ReadsAhead):
        image.read_ahead([span.diff_id for span in layout.spans if span.diff_id not in skip])
    for chunk in canonical.content(layout, image.layer, skip):
        yield chunk
        advance(len(chunk))

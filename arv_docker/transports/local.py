# SPDX-License-Identifier: Apache-2.0
"""Local files: read at any place; and images whose layers wait in one, for destinations that need another order."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..archive import canonical
from ..archive.blob import Blob, section
from ..archive.canonical import Layout
from ..archive.layer import CHUNK, Layer
from ..errors import BadArchive
from ..local.disk import disk_errors
from ..local.progress import Advance, Progress, SilentProgress
from ..model.image import Config, Digest
from ..store.layer_index import LayerTable
from . import OpenedImage, SeekableImage, can_seek, known_layers


class LocalFile:
    """An open file that is read at any place, by several threads at once."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``; fewer only at the end."""
        content = os.pread(self._descriptor, length, offset)
        if len(content) in (0, length) or offset + len(content) >= self.size:
            return content
        return content + self.read_at(offset + len(content), length - len(content))


class SpooledImage(SeekableImage):
    """An image whose layers come in the source's own order and are had in any: they wait in a file, one after another.

    One is read from the source when it is first asked for, or its size is, unless that is known.
    """

    def __init__(self, image: OpenedImage, file: IO[bytes], table: LayerTable, progress: Progress) -> None:
        self._image = image
        self._file = file
        self._table = table
        self._progress = progress
        self._places: dict[Digest, tuple[int, int]] = {}

    @property
    def config(self) -> Config:
        """The image's config."""
        return self._image.config

    @property
    def sizes(self) -> Mapping[Digest, int]:
        """The uncompressed bytes of each distinct layer: of one that was not read as another run learned them."""
        diff_ids = self.config.distinct_diff_ids
        self.read_ahead([it for it in diff_ids if self._table.size(it) is None])
        return {it: self._places[it][1] if it in self._places else self._table.size(it) or 0 for it in diff_ids}

    def layers(self, skip: Container[Digest] = ()) -> Iterator[Layer]:
        """Each distinct layer that is not in ``skip``."""
        wanted = [diff_id for diff_id in self.config.distinct_diff_ids if diff_id not in skip]
        self.read_ahead(wanted)
        return map(self.layer, wanted)

    def layer(self, diff_id: Digest) -> Layer:
        """The layer of that name, from the front."""
        self.read_ahead([diff_id])
        offset, size = self._places[diff_id]
        return Layer(section(LocalFile(self._file.fileno()), offset, size), claimed=diff_id, size=size)

    def plain_blob(self, diff_id: Digest) -> Blob:
        """The layer's bytes, where they wait."""
        self.read_ahead([diff_id])
        return Blob(LocalFile(self._file.fileno()), *self._places[diff_id])

    def read_ahead(self, diff_ids: Sequence[Digest]) -> None:
        """Read those of the layers that are not spooled yet.

        Raises what reading them raises, and BadArchive if one never came.
        """
        if set(diff_ids) <= self._places.keys():
            return
        self.read(skip=frozenset(self.config.diff_ids).difference(diff_ids).union(self._places))
        for diff_id in diff_ids:
            if diff_id not in self._places:
                raise BadArchive(f"layer {diff_id} is missing. Save the image again.")

    def read(self, skip: Container[Digest] = ()) -> None:
        """Read all layers of the source except ``skip``, and remember the sizes."""
        with self._progress.step("reading layers", None) as advance:
            for layer in self._image.layers(skip):
                start = self._file.tell()
                while content := layer.read(CHUNK):
                    self._file.write(content)
                    advance(len(content))
                self._places[layer.diff_id] = start, layer.position
                self._table.note(layer.diff_id, layer.position)
        self._file.flush()


@contextmanager
def seekable(
    image: OpenedImage, folder: Path, table: LayerTable | None = None, progress: Progress | None = None
) -> Iterator[SeekableImage]:
    """The image itself if its layers can be had in any order; else with them in a file without a name in ``folder``.

    Of a stream all are read at once, else those that are asked for. The sizes of the others are those in ``table``;
    without it all are read. ``progress`` is told of what is read. Raises what reading the layers raises, DiskError,
    and BadArchive if one never came.
    """
    if can_seek(image):
        yield image
        return
    with (
        disk_errors(folder, image.size_hint, advice="choose a folder on a larger disk"),
        tempfile.TemporaryFile(dir=folder) as file,
    ):
        spooled = SpooledImage(image, file, table or LayerTable(), progress or SilentProgress())
        if not known_layers(image):
            spooled.read()
        if table is None:
            spooled.read_ahead(spooled.config.diff_ids)
        yield spooled


def split_path(rest: str) -> tuple[str, str]:
    """The path and the name in ``PATH[:NAME]``, the name being empty where there is none.

    The path ends at the first colon, as skopeo has it. Where that is no file and a longer one is, as of a staged image
    ``app:1.img``, the first colon that leaves a file ends it. With a colon at its end the text is a path alone.
    """
    if rest.endswith(":"):
        return rest[:-1], ""
    ends = [place for place, character in enumerate(rest) if character == ":"] + [len(rest)]
    there = (place for place in ends if os.path.exists(rest[:place]))  # noqa: PTH110 -- also of what no file can be called
    end = next(there, ends[0])
    return rest[:end], rest[end + 1 :]


def folder_advice(path: Path) -> str:
    """Advice on a folder that was given for an archive or a layout; empty for other paths."""
    if (path / "index.json").is_file():
        return f" It is an OCI layout: write oci:{path}."
    if (path / "manifest.json").is_file() and (path / "version").is_file():
        return (
            " It is a folder of podman save --format docker-dir, which skopeo calls dir:. Make an archive of it: "
            f"skopeo copy dir:{path} oci-archive:FILE."
        )
    return ""


def names_present(
    layers: Sequence[Digest], find: Callable[[Sequence[Digest]], Container[Digest]], table: LayerTable
) -> frozenset[Digest]:
    """The names of layers whose diff_ids are in what ``find`` gives for the diff_ids of all of them.

    Each is named by its diff_id, or by a compressed digest, of which ``table`` says whose it is.
    """
    diff_ids = [table.diff_id(it) for it in layers]
    present = find(diff_ids)
    return frozenset(name for name, diff_id in zip(layers, diff_ids, strict=True) if diff_id in present)


def archive_of(image: SeekableImage, layout: Layout, advance: Advance, skip: Container[Digest] = ()) -> Iterator[bytes]:
    """The image's archive in that layout, as ``canonical.content`` gives it, without the layers in ``skip``.

    ``advance`` is told of each chunk when the next is asked for: then it has been dealt with.
    """
    image.read_ahead([span.diff_id for span in layout.spans if span.diff_id not in skip])
    for chunk in canonical.content(layout, image.layer, skip):
        yield chunk
        advance(len(chunk))

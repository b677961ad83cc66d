# SPDX-License-Identifier: Apache-2.0
"""The files of an opened image: an index of all layers, and the contents of requested files.

A layer that lies uncompressed where it can be read at any place is read by offset: its headers for the index, and
then the bytes that are wanted. Any other is read from its front, and checked at its end. No layer is unpacked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ..errors import BadArchive
from ..model.image import Digest
from .file_tree import Directory, add_layer, layer_tree, walk
from .layer import CHUNK
from .layer_tar import BlobTape, Budget, FileEntry, Tape, WholeTape, entries
from .opened_image import OpenedImage, can_seek


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """The files of an image, below ``root``; ``layers`` are the distinct layers, numbered as in the entries."""

    root: Directory
    layers: tuple[Digest, ...]
    image: OpenedImage

    def contents(
        self, wanted: Iterable[FileEntry], advance: Callable[[int], None], *, whole: bool = False
    ) -> Iterator[tuple[FileEntry, Iterator[bytes]]]:
        """Each of these regular files once, with content to be read before the next file; in the layers' order.

        ``whole``: layers are read to their ends and checked. ``advance`` is told of the bytes that are read. Raises
        what the layers raise, and BadArchive for a layer that is shorter than it was, or does not come once more.
        """
        places = sorted({(it.layer, it.offset): it for it in wanted}.items())
        by_layer: dict[Digest, list[FileEntry]] = {}
        for (number, _), entry in places:
            by_layer.setdefault(self.layers[number], []).append(entry)
        for diff_id, tape in self._tapes(by_layer, advance, whole=whole):
            yield from _contents(tape, by_layer.pop(diff_id, []))
        if by_layer:
            raise BadArchive(f"layer {next(iter(by_layer))} is missing. Save the image again.")

    def _tapes(
        self, wanted: Iterable[Digest], advance: Callable[[int], None], *, whole: bool
    ) -> Iterator[tuple[Digest, Tape]]:
        wanted = list(wanted)
        if not can_seek(self.image):
            for layer in self.image.layers(frozenset(self.layers).difference(wanted)):
                yield layer.claimed or layer.diff_id, WholeTape(layer, advance)
            return
        self.image.read_ahead(wanted)
        for diff_id in wanted:
            yield diff_id, _tape_of(self.image, diff_id, advance, whole=whole)


def files_of(image: OpenedImage, advance: Callable[[int], None], *, whole: bool = False) -> ImageFiles:
    """Index the files of an image, which may be a stream; arguments as for ``ImageFiles.contents``.

    Raises what reading its layers raises, and BadArchive for layers that no engine unpacks or that have too many files.
    """
    budget = Budget()
    trees: dict[Digest, Directory | BadArchive] = {}
    if can_seek(image):
        image.read_ahead(image.config.distinct_diff_ids)
        for diff_id in image.config.distinct_diff_ids:
            trees[diff_id] = _tree(_tape_of(image, diff_id, advance, whole=whole), len(trees), budget)
    else:
        for layer in image.layers():
            tree = _tree(WholeTape(layer, advance), len(trees), budget)
            trees.setdefault(layer.diff_id, tree)
    root = Directory()
    for diff_id in image.config.diff_ids:
        tree = trees[diff_id]
        if isinstance(tree, BadArchive):
            raise tree
        add_layer(root, tree, budget)
    paths = Budget()
    for path, _ in walk(root):  # links within a layer can put many files below long paths that no header has
        paths.spend(len(path))
    return ImageFiles(root, tuple(trees), image)


def _tree(tape: Tape, number: int, budget: Budget) -> Directory | BadArchive:
    """The files of a layer, or the fault of its tar: a stream has members that are no layers of the image."""
    try:
        tree: Directory | BadArchive = layer_tree(entries(tape, number, budget), budget)
    except BadArchive as error:
        tree = error
    tape.drain()  # where the bytes are not the layer's, that is what is wrong
    return tree


def _tape_of(image: OpenedImage, diff_id: Digest, advance: Callable[[int], None], *, whole: bool) -> Tape:
    assert can_seek(image)
    blob = None if whole else image.plain_blob(diff_id)
    return WholeTape(image.layer(diff_id), advance) if blob is None else BlobTape(blob)


def _contents(tape: Tape, wanted: list[FileEntry]) -> Iterator[tuple[FileEntry, Iterator[bytes]]]:
    position = 0
    for entry in wanted:
        tape.skip(entry.offset - position)
        left = [entry.size]
        yield entry, _pieces(tape, left)
        tape.skip(left[0])
        position = entry.offset + entry.size
    tape.drain()


def _pieces(tape: Tape, left: list[int]) -> Iterator[bytes]:
    while left[0] > 0:
        piece = tape.read(min(left[0], CHUNK))
        if not piece:
            raise BadArchive("a layer is cut short within a file. Save or copy the image again.")
        left[0] -= len(piece)
        yield piece

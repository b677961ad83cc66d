# SPDX-License-Identifier: Apache-2.0
"""An image as a collection holds it: one file ``sha256:<id>.tar``, made of blocks.

Reads any layout, upstream's as well as the canonical one. What is read is as the blocks
have it; that the bytes are the image's is for the reader of the layers to find out.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

from ..archive import canonical
from ..archive.archived_image import ArchivedImage
from ..archive.blob import Blob, RandomAccess
from ..archive.canonical_image import CanonicalImage, recognise
from ..archive.layer import Layer
from ..archive.opened_image import SeekableImage
from ..archive.reader import ArchiveReader
from ..errors import BadManifestText, DigestMismatch, NotAnImage
from ..local.background import future_of
from ..model.image import Config, Digest
from ..model.manifest_text import Locator, Segment, Stream, files, locators, parse, single_file
from .client import Cluster, CollectionRecord

#: Blocks that are fetched while another is used; with that one they bound the memory, to three blocks.
_AHEAD = 2

_FILE_NAME = re.compile(r"(sha256:)?([0-9A-Fa-f]{64})\.tar", re.ASCII)


@dataclass(frozen=True, slots=True)
class ImageFile:
    """The only file of an image's collection: the ID in the file's name, and the segments of the bytes.

    ``version`` is 2 for ``sha256:<id>.tar``, 1 for the names of before Docker 1.10, without ``sha256:``.
    """

    image_id: Digest
    version: int
    segments: tuple[Segment, ...] = field(repr=False)
    streams: tuple[Stream, ...] = field(repr=False)

    @property
    def size(self) -> int:
        """Bytes of the archive."""
        return sum(segment.length for segment in self.segments)


def image_file(collection: CollectionRecord) -> ImageFile:
    """The image's file in a collection, by the rule that the server and crunch-run follow.

    Raises NotAnImage unless the collection holds exactly one file, at its top, whose name
    is an image ID and ``.tar`` (docs/spec/arvados-images.md#compatible-collections), and BadManifestText.
    """
    streams = parse(collection.manifest_text or "")
    found = files(streams)
    if len(found) != 1:
        raise NotAnImage(f"collection {collection.uuid} holds {len(found)} files; an image is exactly one.")
    ((name, segments),) = found.items()
    match = _FILE_NAME.fullmatch(name)
    if not match:
        raise NotAnImage(f"collection {collection.uuid} holds {name[:100]!r}, whose name is not an image ID and .tar.")
    return ImageFile(Digest.sha256(match[2].lower()), 2 if match[1] else 1, segments, streams)


def holds(collection: CollectionRecord, image_id: Digest) -> bool:
    """True if the collection holds that image's file and nothing else, named as version 2 images are."""
    try:
        found = files(parse(collection.manifest_text or ""))
    except BadManifestText:
        return False
    return list(found) == [f"{image_id}.tar"]


def may_be_canonical(collection: CollectionRecord) -> bool:
    """True if the collection may hold a canonical archive: its last block is the end of the tar."""
    try:
        found = list(locators(parse(collection.manifest_text or "")))
    except BadManifestText:
        return False
    return bool(found) and found[-1].size == len(canonical.END)


class StoredImage(SeekableImage):
    """An image in Keep: the file, and the documents of the archive. Blocks are fetched ahead.

    ``archived`` is the image as the archive has it; ``canonical`` the same if the archive is
    the canonical one, else None. ``layout`` is the canonical archive's in any case. ``proven_digests`` are the image's
    by its bytes: of its config, of its canonical manifest, and of what else in the archive describes it.
    """

    def __init__(self, cluster: Cluster, collection: CollectionRecord, *, tags: tuple[str, ...] = ()) -> None:
        """Read the image's structure and config; ``tags`` are the names that the cluster's users gave it.

        Raises KeepError, what ``image_file`` and ``archive.docker`` refuse, and DigestMismatch if the file is named
        after another image.
        """
        self.collection = collection
        self.tags = tags
        self.file = image_file(collection)
        self._source = KeepFile(self.file.segments, cluster.get_block)
        self.canonical = recognise(self._source)
        self.archived: ArchivedImage | CanonicalImage = self.canonical or _archive_image(self._source)
        self.layout = canonical.layout(self.config, self.archived.sizes)
        # The original names a file by whatever the engine says: by its own manifest or index, with a containerd store.
        self.proven_digests = (self.config.digest, self.layout.manifest_digest, *self.archived.digests)
        if self.file.image_id not in self.proven_digests:
            raise DigestMismatch(
                f"collection {collection.uuid} is named after image {self.file.image_id}, "
                f"and holds {self.config.digest}."
            )

    @property
    def config(self) -> Config:
        """The image's config."""
        return self.archived.config

    @property
    def sizes(self) -> Mapping[Digest, int]:
        """The uncompressed size of each distinct layer, in bytes."""
        return self.archived.sizes

    @property
    def known_sizes(self) -> Mapping[Digest, int]:
        """Sizes of the layers, as ``sizes`` has them: they are known since the image was opened."""
        return self.sizes

    @property
    def is_ours(self) -> bool:
        """True if the collection's blocks are the blocks of the image's canonical archive."""
        whole = all((it.offset, it.length) == (0, it.locator.size) for it in self.file.segments)
        sizes = tuple(it.length for it in self.file.segments)
        return self.canonical is not None and whole and sizes == self.layout.block_sizes()

    def manifest_text(self, image_id: Digest) -> str:
        """The text of a collection of the same blocks, the file named by another digest; for one that ``is_ours``."""
        blocks = [str(it.locator) for it in self.file.segments]
        return single_file(f"{image_id}.tar", self.layout.size, blocks)

    @property
    def bytes_read(self) -> int:
        """Bytes of the blocks that were fetched from Keep so far."""
        return self._source.bytes_read

    def layers(self, skip: Container[Digest] = ()) -> Iterator[Layer]:
        """Each distinct layer that is not in ``skip``, in the archive's order."""
        wanted = sorted((diff_id for diff_id in self.sizes if diff_id not in skip), key=self.archived.place)
        self.read_ahead(wanted)
        return map(self.layer, wanted)

    def layer(self, diff_id: Digest) -> Layer:
        """The layer of that name, from the front."""
        return self.archived.layer(diff_id)

    def plain_blob(self, diff_id: Digest) -> Blob | None:
        """The layer's bytes, where they lie in the archive."""
        return self.archived.plain_blob(diff_id)

    def read_ahead(self, diff_ids: Sequence[Digest]) -> None:
        """Announce the layers that are read next, in this order: only blocks of these layers are fetched ahead."""
        self._source.expect([self.archived.place(diff_id) for diff_id in diff_ids])


def _archive_image(source: RandomAccess) -> ArchivedImage:
    """Image of an archive that is vouched for as it lies: no two readers may see different images in it."""
    image = ArchiveReader(source, strict=True).image()
    image.check_layout()
    return image


class KeepFile(RandomAccess):
    """A file in Keep, read at any place through a function that gives whole blocks by locator.

    Read by one thread; ``get_block`` is called on others. ``bytes_read`` counts the bytes of the blocks fetched.
    """

    def __init__(self, segments: Sequence[Segment], get_block: Callable[[str], bytes]) -> None:
        self._segments = segments
        self._get_block = get_block
        self._ends = list(itertools.accumulate(segment.length for segment in segments))
        self._held: dict[Locator, Future[bytes]] = {}
        self._expected: list[Locator] = []
        self.bytes_read = 0

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._ends[-1] if self._ends else 0

    def expect(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Announce the ranges that are read next, as offsets and lengths in order, so that blocks are fetched ahead."""
        numbers = itertools.chain.from_iterable(self._segments_of(offset, length) for offset, length in ranges)
        self._expected = [locator for locator, _ in itertools.groupby(self._segments[it].locator for it in numbers)]

    def read_at(self, offset: int, length: int) -> bytes:
        """Read ``length`` bytes from ``offset``; fewer only at the end."""
        pieces = []
        for number in self._segments_of(offset, length):
            piece = self._piece(number, offset, length)
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _segments_of(self, offset: int, length: int) -> Iterator[int]:
        """Indices of the segments that hold the range."""
        for number in range(bisect.bisect_right(self._ends, offset), len(self._segments)):
            if length <= 0 or self._ends[number] - self._segments[number].length >= offset + length:
                return
            yield number

    def _piece(self, number: int, offset: int, length: int) -> bytes:
        segment = self._segments[number]
        start = offset - (self._ends[number] - segment.length)
        length = min(length, segment.length - start)
        block = memoryview(self._block(segment.locator))
        if len(block) < segment.offset + segment.length:
            raise BadManifestText(
                f"block {segment.locator.without_hints} has {len(block)} bytes, fewer than its name says."
            )
        return bytes(block[segment.offset + start : segment.offset + start + length])

    def _block(self, locator: Locator) -> bytes:
        """Bytes of the block. Blocks expected next are fetched meanwhile, all others are dropped."""
        if locator in self._expected:
            del self._expected[: self._expected.index(locator)]
        wanted = dict.fromkeys([locator, *self._expected[1 : 1 + _AHEAD]])
        self._held = {name: self._held.get(name) or self._fetch_ahead(name) for name in wanted}
        return self._held[locator].result()

    def _fetch_ahead(self, locator: Locator) -> Future[bytes]:
        """The block to come, from a daemon thread: whoever gives up does not wait for a request tried again."""
        self.bytes_read += locator.size or 0
        return future_of(partial(self._get_block, str(locator)), "read-ahead")

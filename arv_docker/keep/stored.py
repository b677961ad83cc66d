# SPDX-License-Identifier: Apache-2.0
"""An image as a collection holds it: one file ``sha256:<id>.tar``, made of blocks.

Reads any layout, upstream's as well as the canonical one. What is read is as the blocks
have it; that the bytes are the image's is for the reader of the layers to find out.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..archive import canonical
from ..archive.docker import ArchivedImage, DockerArchive
from ..archive.recognised import CanonicalImage, recognised
from ..archive.tar import RandomAccess
from ..errors import BadManifestText, DigestMismatch, NotAnImage
from ..image import Config, Digest
from .client import Cluster, CollectionRecord
from .manifest import Segment, Stream, files, parse

_FILE_NAME = re.compile(r"(sha256:)?([0-9A-Fa-f]{64})\.tar", re.ASCII)


@dataclass(frozen=True, slots=True)
class ImageFile:
    """The one file of an image's collection: the ID that its name states, and the segments of its bytes.

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
    is an image ID and ``.tar`` (spec/arvados-semantics §6.1), and BadManifestText.
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
    """Whether the collection holds that image's file and nothing else, named as version 2 images are."""
    try:
        found = files(parse(collection.manifest_text or ""))
    except BadManifestText:
        return False
    return list(found) == [f"{image_id}.tar"]


class StoredImage:
    """An image in Keep: its file, and what its archive says.

    ``archived`` is the image to read layers from; ``canonical`` the same if the archive is
    the canonical one, else None. ``layout`` is the canonical archive's in any case.
    """

    def __init__(self, cluster: Cluster, collection: CollectionRecord) -> None:
        """Reads structure and config. Raises KeepError, what ``image_file`` and ``archive.docker`` refuse,
        and DigestMismatch if the file is named after another image."""
        self.collection = collection
        self.file = image_file(collection)
        source = KeepFile(self.file.segments, cluster.get_block)
        self.canonical = recognised(source)
        self.archived: ArchivedImage | CanonicalImage = self.canonical or DockerArchive(source).image()
        self.layout = canonical.layout(self.config, self.archived.sizes)
        if self.file.image_id not in (self.config.digest, self.layout.manifest_digest):
            raise DigestMismatch(
                f"collection {collection.uuid} is named after image {self.file.image_id}, "
                f"and holds {self.config.digest}."
            )

    @property
    def config(self) -> Config:
        """The image's config."""
        return self.archived.config


class KeepFile(RandomAccess):
    """A file in Keep, read at any place through a function that gives whole blocks by locator."""

    def __init__(self, segments: Sequence[Segment], get_block: Callable[[str], bytes]) -> None:
        self._segments = segments
        self._get_block = get_block
        self._ends = list(itertools.accumulate(segment.length for segment in segments))

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._ends[-1] if self._ends else 0

    def read_at(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``; fewer only at the end."""
        pieces = []
        for number in range(bisect.bisect_right(self._ends, offset), len(self._segments)):
            if length <= 0:
                break
            piece = self._piece(number, offset, length)
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _piece(self, number: int, offset: int, length: int) -> bytes:
        segment = self._segments[number]
        start = offset - (self._ends[number] - segment.length)
        length = min(length, segment.length - start)
        block = memoryview(self._get_block(str(segment.locator)))
        if len(block) < segment.offset + segment.length:
            raise BadManifestText(f"block {segment.locator.stripped} has {len(block)} bytes, fewer than its name says.")
        return bytes(block[segment.offset + start : segment.offset + start + length])

# SPDX-License-Identifier: Apache-2.0
"""Reading an archive as it comes out of an engine or a pipe: once, from the front, with nothing kept but documents.

A stream says last what it is: Docker writes ``manifest.json`` behind the layers. So every
member that may be a layer is handed out as one, without a name, and small documents are
kept. At the end ``manifest.json`` and the config say which of them are the image's
layers, and the digests computed on the way whether they are right.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections import Counter
from collections.abc import Container, Generator, Iterator
from dataclasses import replace

from ..errors import ArvDockerError, BadArchive, DigestMismatch
from ..model.image import MAX_JSON_SIZE, Config, Digest, Platform
from . import oci
from .archived_image import ArchiveLayer
from .blob import Blob, CheckedReader
from .codecs.decompression import MAGIC_LENGTH, DecompressedStream, kind_of
from .layer import CHUNK, Layer, Stream
from .listing import ArchiveEntry, Name, check_platform, choose_image, digest_in, each_once
from .opened_image import OpenedImage
from .reader import check_listed, config_of, layer_paths, named_listing
from .tar import Index, Member, members

#: Documents of all kinds together; a real archive has some hundred kilobytes.
_MAX_DOCUMENTS = 64 << 20

_LAYER_NAME = re.compile(r"(?:.*/)?layer\.tar|[0-9a-f]{64}\.tar")
_BLOB_NAME = re.compile(r"blobs/[^/]+/[0-9a-f]{64,}")


class StreamedArchive:
    """The images of a docker-archive that is being read. ``images`` is there when ``layers`` is exhausted."""

    def __init__(self, stream: Stream) -> None:
        self._tape = _Tape(stream)
        self._members: list[Member] = []
        self._digests: dict[int, Digest] = {}
        self._listed: tuple[ArchiveEntry, ...] = ()
        self._by_index: tuple[ArchiveEntry, ...] = ()  # manifest.json has one platform of each image
        self._configs: dict[int, Config] = {}
        self._room = _MAX_DOCUMENTS
        self._images: dict[str, Config | ArvDockerError] = {}

    @property
    def images(self) -> dict[Digest, Config | ArvDockerError]:
        """The archive's images, by ID and by other digests that are one image's alone: the config of each image that
        is whole, else what is wrong with it."""
        found: dict[Digest, Config | ArvDockerError] = {}
        shared = Counter(digest for listed in self._listed for digest in set(listed.digests))
        for listed in self._listed:
            image = self._images[listed.config_path]
            own = image.digest if isinstance(image, Config) else listed.config_digest
            found |= {digest: image for digest in (own, *listed.digests) if digest and shared[digest] < 2}
        return found

    def every(self) -> list[tuple[ArchiveEntry, Config | ArvDockerError]]:
        """Each image once, with all names, and the config or an error, as ``images`` has them."""
        return [(listed, self._images[listed.config_path]) for listed in each_once(self._listed)]

    def image(self, name: Name | None = None, platform: Platform | None = None) -> tuple[ArchiveEntry, Config]:
        """Return the image called ``name``, or the only one; raises its error, and what ``choose_image`` raises."""
        listed = choose_image((platform and self._by_index) or self._listed, name, platform)
        image = self._images[listed.config_path]
        if isinstance(image, ArvDockerError):
            raise image
        check_platform(image, platform)
        return listed, image

    def layers(self) -> Iterator[Layer]:
        """Yield every member that may be a layer, each to be read to its end before the next.

        Raises at the end what ``archive.reader`` refuses of the archive as a whole; what is
        wrong with one image leaves the others as they are.
        """
        for member in members(self._tape):
            if member.target is not None:
                self._members.append(member)
                continue
            section = _Section(self._tape, member.offset + member.size)
            if not _may_be_document(member, section):
                yield from self._layer(member, section)
                self._members.append(replace(member, digest=bytes.fromhex(self._digests[member.offset].hex)))
                continue
            content = section.read(member.size)
            if len(content) < member.size:
                raise BadArchive(f"the archive is cut short within {member.name!r}. Save the image again.")
            self._tape.keep(member.offset, content)
            self._members.append(replace(member, digest=hashlib.sha256(content).digest()))
        index = Index(self._tape, self._members)
        self._listed = self._named_images(index)
        for listed in (*self._listed, *self._by_index):
            if listed.config_path in self._images:
                continue
            try:
                self._images[listed.config_path] = yield from self._conclude(index, listed)
            except ArvDockerError as error:
                self._images[listed.config_path] = error
        self._tape.drain()

    def _named_images(self, index: Index) -> tuple[ArchiveEntry, ...]:
        """The images that the archive lists, with their digests in the OCI index."""
        images = named_listing(index)
        if "manifest.json" not in index or "index.json" not in index:
            return images
        faces = oci.check(index, images)
        self._by_index = oci.with_names_of(faces, images)
        return tuple(replace(image, digests=oci.digests_of(faces, image)) for image in images)

    def _layer(self, member: Member, section: _Section) -> Iterator[Layer]:
        if (kind := kind_of(section.start(MAGIC_LENGTH))) is None:
            layer = Layer(section.read, claimed=None, size=member.size, readinto=section.readinto)
        else:
            what = f"the layer {member.name!r}"
            stored = CheckedReader(section.read, member.size, digest_in(member.name), what=what)
            stream = DecompressedStream(stored.read, kind, what=what, compressed_size=member.size)
            layer = Layer(stream.read, claimed=None, size=None, readinto=stream.readinto)
        yield layer
        self._digests[member.offset] = layer.diff_id

    def _conclude(self, index: Index, listed: ArchiveEntry) -> Generator[Layer, None, Config]:
        """Judge an image by the documents; hand out layers that were kept for looking like documents."""
        check_listed(listed)
        config = self._config(index, listed)
        for diff_id, path in layer_paths(listed, config):
            blob = index.blob(path)
            if blob.offset not in self._digests:
                content = _Content(blob.start(blob.size))
                kept = ArchiveLayer.of(diff_id, Blob(content, 0, content.size), digest_in(path)).open(None)
                yield kept
                self._digests[blob.offset] = kept.diff_id
            if (found := self._digests[blob.offset]) != diff_id:
                raise DigestMismatch(
                    f"layer {diff_id} holds other bytes: they hash to {found}. Nothing of this image is used."
                )
        return config

    def _config(self, index: Index, listed: ArchiveEntry) -> Config:
        """The config of a listed image, read once: a few bytes can claim to be the config of each of many images."""
        blob = index.blob(listed.config_path)
        known = self._configs.get(blob.offset)
        if known is not None and listed.config_digest in (None, known.digest):
            return known
        self._room -= blob.size
        if self._room < 0:
            raise BadArchive(f"the archive has more than {_MAX_DOCUMENTS} bytes of configs; no images have.")
        self._configs[blob.offset] = config = config_of(index, listed)
        return config


class StreamedImage(OpenedImage):
    """One image of an archive that is being read. ``config`` is there when ``layers`` is exhausted.

    Then, too, ``tags`` are the names that the archive gives it, and ``digests`` those of the OCI manifest
    and the indexes that it has for it.
    """

    streams = True
    is_local = True

    def __init__(
        self,
        stream: Stream,
        expected: Digest | None = None,
        *,
        name: Name | None = None,
        platform: Platform | None = None,
        size: int = 0,
    ) -> None:
        """Choose the image by ``name`` and ``platform`` where there are several; one that the archive does not call
        ``expected`` is refused at the end with DigestMismatch. ``size`` is about its bytes."""
        self.size_hint = size
        self._archive = StreamedArchive(stream)
        self._expected = expected
        self._choice = name, platform
        self._config: Config | None = None

    @property
    def config(self) -> Config:
        """The image's config; raises BadArchive before the end of the stream."""
        if self._config is None:
            raise BadArchive("the archive was not read to its end.")
        return self._config

    def layers(self, skip: Container[Digest] = ()) -> Iterator[Layer]:
        """Yield every member that may be a layer, each to be read to its end before the next.

        ``skip`` spares nothing here: what a layer is, is known when it has been read. Raises at
        the end what ``archive.reader`` refuses, and DigestMismatch for wrong layers.
        """
        del skip
        yield from self._archive.layers()
        listed, config = self._archive.image(*self._choice)
        if self._expected not in (None, config.digest, *listed.digests):
            raise DigestMismatch(
                f"the engine calls the image {self._expected}, and what it saves is {config.digest}. "
                "Save the image again."
            )
        self.tags, self.digests = listed.tags, listed.digests
        self._config = config


def _may_be_document(member: Member, section: _Section) -> bool:
    """True if a member may be a document, and is to be kept; what is a layer after all is handed out at the end."""
    if member.size > MAX_JSON_SIZE or _LAYER_NAME.fullmatch(member.name):
        return False
    return not _BLOB_NAME.fullmatch(member.name) or section.start(1) in (b"{", b"[")


class _Tape:
    """A stream as RandomAccess: readable at offsets not passed yet, and at kept ones again."""

    size = sys.maxsize  # nobody knows

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.position = 0
        self._kept: dict[int, bytes] = {}
        self._room = _MAX_DOCUMENTS

    def read_at(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``; fewer only at the end of the stream."""
        if offset in self._kept and length <= len(self._kept[offset]):
            return self._kept[offset][:length]
        if offset < self.position:
            raise BadArchive(
                "the archive has its documents where a stream of it cannot be read. Save it to a file first."
            )
        while self.position < offset:
            if not self._next(min(CHUNK, offset - self.position)):
                return b""
        return self._next(length)

    def keep(self, offset: int, content: bytes) -> None:
        """Keep ``content``, which was read at ``offset``, at hand from now on."""
        self._room -= len(content)
        if self._room < 0:
            raise BadArchive(f"the archive has more than {_MAX_DOCUMENTS} bytes of documents; no image has.")
        self._kept[offset] = content

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` with the stream's next bytes and return the number; less than its size only at the end."""
        count = self._stream.readinto(buffer)
        self.position += count
        return count

    def drain(self) -> None:
        """Read to the end of the stream."""
        while self._next(CHUNK):
            pass

    def _next(self, length: int) -> bytes:
        content = self._stream.read(length)
        self.position += len(content)
        return content


class _Content:
    """Bytes in memory. A RandomAccess."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size = len(content)

    def read_at(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``; fewer only at the end."""
        return self._content[offset : offset + length]


class _Section:
    """The rest of a tape up to a position. A Stream whose beginning can be looked at."""

    def __init__(self, tape: _Tape, end: int) -> None:
        self._tape = tape
        self._end = end
        self._start = b""

    def start(self, length: int) -> bytes:
        """The next ``length`` bytes of the section, which are still to be read."""
        self._start += self._next(max(0, length - len(self._start)))
        return self._start[:length]

    def read(self, length: int) -> bytes:
        start, self._start = self._start[:length], self._start[length:]
        return start + self._next(length - len(start)) if start else self._next(length)

    def readinto(self, buffer: memoryview) -> int:
        start, self._start = self._start[: len(buffer)], self._start[len(buffer) :]
        buffer[: len(start)] = start
        left = min(self._end - self._tape.position, len(buffer) - len(start))
        return len(start) + self._tape.readinto(buffer[len(start) : len(start) + left])

    def _next(self, length: int) -> bytes:
        return self._tape.read_at(self._tape.position, min(length, self._end - self._tape.position))

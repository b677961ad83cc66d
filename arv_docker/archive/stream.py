# SPDX-License-Identifier: Apache-2.0
"""Reading a docker-archive as it comes out of an engine: once, from the front, with nothing kept but documents.

A stream says last what it is: Docker writes ``manifest.json`` behind the layers. So every
member that may be a layer is handed out as one, without a name, and small documents are
kept. At the end ``manifest.json`` and the config say which of them are the image's
layers, and the digests computed on the way whether they are right.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Container, Generator, Iterator

from ..errors import ArvDockerError, BadArchive, DigestMismatch
from ..image import MAX_JSON_SIZE, Config, Digest
from . import oci
from .docker import config_of, layer_members, listing
from .layer import CHUNK, Layer, Stream
from .listing import Listed, only
from .tar import Index, Member, members

#: Documents of all kinds together; a real archive has some hundred kilobytes.
_MAX_DOCUMENTS = 64 << 20

_LAYER_NAME = re.compile(r"(?:.*/)?layer\.tar|[0-9a-f]{64}\.tar")
_BLOB_NAME = re.compile(r"blobs/sha256/[0-9a-f]{64}")


class StreamedArchive:
    """The images of a docker-archive that is being read. ``images`` is there when ``layers`` is exhausted."""

    def __init__(self, stream: Stream) -> None:
        self._tape = _Tape(stream)
        self._members: list[Member] = []
        self._digests: dict[int, Digest] = {}
        self._listed: tuple[Listed, ...] = ()
        self._images: dict[str, Config | ArvDockerError] = {}

    @property
    def images(self) -> dict[Digest, Config | ArvDockerError]:
        """What the archive holds, by ID: the config of each image that is whole, else what is wrong with it."""
        found: dict[Digest, Config | ArvDockerError] = {}
        for path, image in self._images.items():
            claimed = next(listed.config_digest for listed in self._listed if listed.config_path == path)
            digest = image.digest if isinstance(image, Config) else claimed
            if digest is not None:
                found[digest] = image
        return found

    @property
    def image(self) -> Config:
        """The only image; raises what is wrong with it, and SeveralImages."""
        image = self._images[only(self._listed).config_path]
        if isinstance(image, ArvDockerError):
            raise image
        return image

    def layers(self) -> Iterator[Layer]:
        """Every member that may be a layer, each to be read to its end before the next.

        Raises at the end what ``archive.docker`` refuses of the archive as a whole; what is
        wrong with one image leaves the others as they are.
        """
        for member in members(self._tape):
            self._members.append(member)
            if member.target is not None:
                continue
            if member.size <= MAX_JSON_SIZE and not _LAYER_NAME.fullmatch(member.name):
                content = self._tape.read_at(member.offset, member.size)
                if len(content) < member.size:
                    raise BadArchive(f"the archive is cut short within {member.name!r}. Save the image again.")
                self._tape.keep(member.offset, content)
                if not _BLOB_NAME.fullmatch(member.name) or content[:1] in (b"{", b"["):
                    continue
            yield from self._layer(member)
        index = Index(self._tape, self._members)
        self._listed = listing(index)
        if "manifest.json" in index and "index.json" in index:
            oci.check(index, self._listed)
        for listed in self._listed:
            try:
                self._images[listed.config_path] = yield from self._concluded(index, listed)
            except ArvDockerError as error:
                self._images[listed.config_path] = error
        self._tape.drain()

    def _layer(self, member: Member) -> Iterator[Layer]:
        section = self._tape.section(member)
        layer = Layer(section.read, claimed=None, size=member.size, readinto=section.readinto)
        yield layer
        self._digests[member.offset] = layer.diff_id

    def _concluded(self, index: Index, listed: Listed) -> Generator[Layer, None, Config]:
        """Judges an image by its documents; hands out layers that were kept because they looked like documents."""
        config = config_of(index, listed)
        for diff_id, member in layer_members(index, listed, config).items():
            if member.offset not in self._digests:
                yield from self._layer(member)
            if (found := self._digests[member.offset]) != diff_id:
                raise DigestMismatch(
                    f"layer {diff_id} holds other bytes: they hash to {found}. Nothing of this image is used."
                )
        return config


class StreamedImage:
    """The one image of a docker-archive that is being read. ``config`` is there when ``layers`` is exhausted."""

    def __init__(self, stream: Stream, expected: Digest | None = None) -> None:
        """An image whose config is not ``expected`` is refused at the end with DigestMismatch."""
        self._archive = StreamedArchive(stream)
        self._expected = expected
        self._config: Config | None = None

    @property
    def config(self) -> Config:
        """The image's config; raises BadArchive before the end of the stream."""
        if self._config is None:
            raise BadArchive("the archive was not read to its end.")
        return self._config

    def layers(self, skip: Container[Digest] = ()) -> Iterator[Layer]:
        """Every member that may be a layer, each to be read to its end before the next.

        ``skip`` spares nothing here: what a layer is, is known when it has been read. Raises at
        the end what ``archive.docker`` refuses, and DigestMismatch for wrong layers.
        """
        del skip
        yield from self._archive.layers()
        config = self._archive.image
        if self._expected is not None and config.digest != self._expected:
            raise DigestMismatch(
                f"the engine calls the image {self._expected}, and what it saves is {config.digest}. "
                "Engines with a containerd store do this; save the image from one with a classic store."
            )
        self._config = config


class _Tape:
    """A stream that can be read at any offset that has not gone by, and again where it was kept. A RandomAccess."""

    size = sys.maxsize  # nobody knows

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.position = 0
        self._kept: dict[int, bytes] = {}
        self._room = _MAX_DOCUMENTS

    def read_at(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``; fewer only at the end of the stream."""
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
        """Has ``content``, which was read at ``offset``, at hand from now on."""
        self._room -= len(content)
        if self._room < 0:
            raise BadArchive(f"the archive has more than {_MAX_DOCUMENTS} bytes of documents; no image has.")
        self._kept[offset] = content

    def section(self, member: Member) -> Stream:
        """A member's content, from memory if it was kept, else what is next on the tape."""
        if (content := self._kept.get(member.offset)) is not None:
            return io.BytesIO(content)
        return _Section(self, member.offset + member.size)

    def readinto(self, buffer: memoryview) -> int:
        """The next bytes of the stream; fewer than ``buffer`` holds only at its end."""
        count = self._stream.readinto(buffer)
        self.position += count
        return count

    def drain(self) -> None:
        """Reads to the end of the stream."""
        while self._next(CHUNK):
            pass

    def _next(self, length: int) -> bytes:
        content = self._stream.read(length)
        self.position += len(content)
        return content


class _Section:
    """What is left of a tape up to a position."""

    def __init__(self, tape: _Tape, end: int) -> None:
        self._tape = tape
        self._end = end

    def read(self, length: int) -> bytes:
        return self._tape.read_at(self._tape.position, min(length, self._end - self._tape.position))

    def readinto(self, buffer: memoryview) -> int:
        return self._tape.readinto(buffer[: self._end - self._tape.position])

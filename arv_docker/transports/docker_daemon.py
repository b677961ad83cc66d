# SPDX-License-Identifier: Apache-2.0
"""``docker-daemon:``, an image in a Docker engine: read while it is saved, written by ``docker load``."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .. import cache
from ..archive import canonical
from ..archive.canonical import Layout
from ..archive.stream import StreamedImage
from ..engine import Engine, EngineImage
from ..errors import EngineError, NoSuchImage
from ..image import Digest
from ..progress import Advance
from ..reference import ImageId
from . import OpenedImage, ReadsAhead, SeekableImage


class EngineSource:
    """An image of an engine, read while the engine saves it.

    ``image_file`` is the tarball's place in the stat-keyed cache, which gets what is read;
    None writes nothing to disk.
    """

    def __init__(self, engine: Engine, image: EngineImage, image_file: Path | None) -> None:
        self._engine = engine
        self._image = image
        self._file = image_file

    @contextmanager
    def open(self) -> Iterator[StreamedImage]:
        """The image. Raises EngineError, DiskError, and at its end DigestMismatch if the engine saved another one."""
        if self._file is None:
            with self._engine.save([str(self._image.id)]) as output:
                yield StreamedImage(output, self._image.id)
        else:
            with cache.saving(self._engine, self._image.id, self._file, self._image.size) as stream:
                yield StreamedImage(stream, self._image.id)


class EngineDestination:
    """An engine that images are loaded into."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def present(self, diff_ids: Sequence[Digest]) -> frozenset[Digest]:
        """Those of an image's layers, given from the lowest up, that the engine can do without.

        Docker's classic store knows a layer by its chain, the layers below it, so one counts only
        where an image there begins with the same ones; and not if it stands in another place too.
        """
        try:
            chains = self._engine.chains()
        except NoSuchImage:  # one was removed between two commands
            return frozenset()
        shared = max((_shared(diff_ids, chain) for chain in chains), default=0)
        return frozenset(diff_ids[:shared]).difference(diff_ids[shared:])

    def write(self, image: OpenedImage, advance: Advance, skip: Container[Digest] = ()) -> Digest:
        """Loads the image, every layer checked before the engine can take the archive for complete.

        Layers in ``skip`` are not read, and the engine is to take its own. Gives the ID under
        which the engine has the image: the config's digest, or the manifest's in a containerd
        store. Raises what the layers raise, and EngineError if the image is not there afterwards.
        """
        if not isinstance(image, SeekableImage):
            raise TypeError("an engine is loaded from an image that can seek")
        layout = canonical.layout(image.config, image.sizes)
        if isinstance(image, ReadsAhead):
            image.read_ahead([span.diff_id for span in layout.spans if span.diff_id not in skip])
        words = self._engine.load(_told(canonical.content(layout, image.layer, skip), advance))
        if (found := engine_id(self._engine, layout)) is None:
            raise EngineError(
                f"{self._engine.name} took the archive, but has no image {image.config.digest} now.", detail=words
            )
        return found


def engine_id(engine: Engine, layout: Layout) -> Digest | None:
    """What the engine calls the image: config digest, or manifest digest in a containerd store; None if absent."""
    for name in (layout.config.digest, layout.manifest_digest):
        try:
            return engine.inspect(ImageId(name.hex)).id
        except NoSuchImage:
            continue
    return None


def _shared(one: Sequence[Digest], other: Sequence[Digest]) -> int:
    """How many layers both have in common, from the lowest up."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (mine, theirs) in pairs if mine != theirs), min(len(one), len(other)))


def _told(chunks: Iterator[bytes], advance: Advance) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        advance(len(chunk))

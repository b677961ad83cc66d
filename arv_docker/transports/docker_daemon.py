# SPDX-License-Identifier: Apache-2.0
"""``docker-daemon:``, an image in a Docker engine: read through a saved tarball, written by ``docker load``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from .. import cache
from ..archive import canonical
from ..archive.canonical import Layout
from ..archive.docker import ArchivedImage
from ..engine import Engine, EngineImage
from ..errors import DigestMismatch, EngineError, NoSuchImage
from ..image import Digest
from ..progress import Advance, Progress
from ..reference import ImageId
from . import OpenedImage, SeekableImage
from .docker_archive import opened


class EngineSource:
    """An image of an engine, read from the tarball that the engine saves of it.

    ``image_file`` is the tarball's place in the stat-keyed cache; a tarball that is there
    and unchanged spares the save. None saves into a file without a name.
    """

    def __init__(self, engine: Engine, image: EngineImage, image_file: Path | None, progress: Progress) -> None:
        self._engine = engine
        self._image = image
        self._file = image_file
        self._progress = progress

    @contextmanager
    def open(self) -> Iterator[ArchivedImage]:
        """The image. Raises EngineError, DiskError, and DigestMismatch if the engine saved another image."""
        if self._file is None:
            with ExitStack() as stack:
                with self._saving() as advance:  # this step ends before the next one begins
                    unnamed = cache.unnamed(self._engine, self._image.id, advance, self._image.size)
                    file = stack.enter_context(unnamed)
                yield self._checked(file.fileno())
            return
        saved, missing = cache.prep_image_file(self._file)
        if missing:
            with self._saving() as advance:
                cache.save_image(self._engine, self._image.id, self._file, advance, self._image.size)
        with saved or self._file.open("rb") as file:
            yield self._checked(file.fileno())

    def _saving(self) -> AbstractContextManager[Advance]:
        return self._progress.step(f"saving from {self._engine.name}", self._image.size or None)

    def _checked(self, descriptor: int) -> ArchivedImage:
        image = opened(descriptor)
        if image.config.digest != self._image.id:
            raise DigestMismatch(
                f"{self._engine.name} calls the image {self._image.id}, and what it saves is {image.config.digest}. "
                "Engines with a containerd store do this; save the image from one with a classic store."
            )
        return image


class EngineDestination:
    """An engine that images are loaded into."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def write(self, image: OpenedImage, advance: Advance) -> Digest:
        """Loads the image, every layer checked before the engine can take the archive for complete.

        Gives the ID under which the engine has it: the config's digest, or the manifest's in
        a containerd store. Raises what the layers raise, and EngineError if the image is
        not there afterwards.
        """
        if not isinstance(image, SeekableImage):
            raise TypeError("an engine is loaded from an image that can seek")
        layout = canonical.layout(image.config, image.sizes)
        words = self._engine.load(_told(canonical.content(layout, image.layer), advance))
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


def _told(chunks: Iterator[bytes], advance: Advance) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        advance(len(chunk))

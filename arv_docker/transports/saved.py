# SPDX-License-Identifier: Apache-2.0
"""An image of an engine for destinations that need its layers in another order than the engine saves them.

It is saved into the stat-keyed cache first; a tarball that an earlier try left there serves again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..archive.archived_image import ArchivedImage
from ..archive.layer import CHUNK
from ..engines import Engine, EngineImage
from ..errors import ContentError, NoSuchImage
from ..local.progress import Progress
from ..model.reference import ImageId
from ..store import tarballs
from ..store.cache import CacheFolder
from . import Source
from .docker_archive import image_in_file


class SavedSource(Source):
    """An image of an engine, its layers to be had in any order."""

    def __init__(self, engine: Engine, image: EngineImage, progress: Progress, cache: CacheFolder) -> None:
        self._engine = engine
        self._image = image
        self._progress = progress
        self._cache = cache

    @contextmanager
    def open(self) -> Iterator[ArchivedImage]:
        """The image. The tarball goes when the block ends well, or finds it wrong; after other errors it stays.

        Raises EngineError, DiskError, and NoSuchImage or ContentError for an engine that saved something else.
        """
        with tarballs.hold_image_lock(self._cache.path, self._image.id, self._progress.say) as tarball:
            file, missing = tarballs.prep_image_file(tarball)
            if missing or file is None:
                expected = self._image.size
                with (
                    self._progress.step(f"saving from {self._engine.name}", expected or None) as advance,
                    tarballs.saving(self._engine, self._image.id, tarball, expected, passing=True) as stream,
                ):
                    while content := stream.read(CHUNK):
                        advance(len(content))
                file = tarball.open("rb")
            try:
                with file:
                    yield image_in_file(file.fileno(), ImageId(self._image.id.hex))
            except (ContentError, NoSuchImage):
                tarballs.discard(tarball)
                raise
            tarballs.discard(tarball)

# SPDX-License-Identifier: Apache-2.0
"""The engine of this machine that has an image, chosen among several."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from ..archive.layer import Stream
from ..errors import EngineError, EngineNotRunning, EnginePermissionDenied, NoEngine, NoSuchImage
from ..model.image import Digest, Platform
from ..model.reference import ImageId, Reference
from . import Engine, EngineImage, ListedImage
from .building import Build

Answer = TypeVar("Answer")

log = logging.getLogger(__name__)

#: Failures after which another engine is asked. Any other failure may be of the engine that has the image.
_NEXT = (NoSuchImage, NoEngine, EngineNotRunning, EnginePermissionDenied)


class Auto:
    """The first engine that has an image; for a question about no image, the first engine that answers.

    The choice is made once, and ``say`` is told of it.
    """

    def __init__(self, engines: Sequence[Callable[[], Engine]], say: Callable[[str], None]) -> None:
        """Take ``engines``, which make the engines in the order of preference, and may raise NoEngine."""
        self._engines = engines
        self._say = say
        self._chosen: Engine | None = None

    @property
    def name(self) -> str:
        """The name of the chosen engine."""
        return self._engine.name

    def version(self) -> str:
        """The version of the chosen engine."""
        return self._engine.version()

    def platform(self) -> Platform:
        """The platform that the chosen engine runs on."""
        return self._engine.platform()

    def list(self) -> list[ListedImage]:
        """The images of the chosen engine."""
        return self._engine.list()

    def chains(self) -> set[tuple[Digest, ...]]:
        """The layers of the images of the chosen engine."""
        return self._engine.chains()

    def inspect(self, name: Reference | ImageId) -> EngineImage:
        """Return the image of the first engine that has it. Raises NoSuchImage, or the engines' failure."""
        if self._chosen is not None:
            return self._chosen.inspect(name)
        return self._first_engine(lambda engine: engine.inspect(name))

    def save(self, images: Iterable[str]) -> AbstractContextManager[Stream]:
        """Open a docker-archive of images of the chosen engine."""
        return self._engine.save(images)

    def load(self, archive: Iterable[bytes]) -> str:
        """Load an archive into the chosen engine."""
        return self._engine.load(archive)

    def tag(self, image: Digest, name: Reference) -> None:
        """Give a name to an image of the chosen engine."""
        self._engine.tag(image, name)

    def remove(self, image: Digest) -> None:
        """Remove an image of the chosen engine."""
        self._engine.remove(image)

    def pull(self, name: Reference, on_line: Callable[[str], None] | None = None) -> None:
        """Fetch an image into the chosen engine."""
        self._engine.pull(name, on_line)

    def build(self, wanted: Build) -> Generator[str, None, EngineImage]:
        """Build an image in the chosen engine."""
        return self._engine.build(wanted)

    @property
    def _engine(self) -> Engine:
        if self._chosen is None:
            self._first_engine(lambda engine: engine.version())
        assert self._chosen is not None
        return self._chosen

    def _first_engine(self, question: Callable[[Engine], Answer]) -> Answer:
        failures: list[EngineError | NoSuchImage] = []
        for make in self._engines:
            try:
                engine = make()
                answer = question(engine)
            except _NEXT as error:
                log.info("another engine is asked: %s", error.message)
                failures.append(error)
                continue
            self._chosen = engine
            self._say(f"using {engine.name}")
            return answer
        # An engine that runs and has no such image says more than an engine that is not installed.
        failure = min(failures, key=lambda error: (not isinstance(error, NoSuchImage), isinstance(error, NoEngine)))
        others = [str(error) for error in failures if error is not failure]
        raise type(failure)(failure.message, detail="\n".join(filter(None, [failure.detail, *others])))

# SPDX-License-Identifier: Apache-2.0
"""Transports, the places where images are read from and written to: one small module for each, behind two protocols.

A *source* opens an image: its layers in whatever order they come, and its config, which a
stream knows only at its end. A *destination* says which layers it has, writes an image from
what a source opened, and asks only for those that it lacks. Every pair works. A module
knows only those whose form it shares, as `oci-archive:` does that of `oci:`.

What only some sources, images and destinations can do has a default in ``Source``, ``OpenedImage`` and
``Destination``. Callers ask for the ability, never for the kind. Transports of other packages may derive from these
classes or not: ``completed`` gives what they lack.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from ..archive.opened_image import OpenedImage, SeekableImage, can_seek, known_layers
from ..errors import UsageError
from ..local.progress import Advance
from ..model.image import Digest
from ..model.reference import ImageId, Reference

if TYPE_CHECKING:
    from ..archive.stream import StreamedArchive
    from ..engines import Engine, EngineImage

__all__ = [
    "Destination",
    "EngineImageNamed",
    "Openable",
    "OpenedImage",
    "SeekableImage",
    "Source",
    "can_seek",
    "known_layers",
]

Result = TypeVar("Result")

#: One of several images: what it is called, and what opens it, which raises what is wrong with it alone.
Openable = tuple[str, Callable[[], OpenedImage]]


@dataclass(frozen=True, slots=True)
class EngineImageNamed:
    """An image of an engine: the name that was asked for, and the engine's description."""

    engine: Engine
    name: Reference | ImageId
    image: EngineImage


class Source(ABC):
    """A place that an image is read from."""

    @property
    def catalog_name(self) -> Reference | None:
        """The image's name at the source, where that is a name for a catalogue too."""
        return None

    @abstractmethod
    def open(self) -> AbstractContextManager[OpenedImage]:
        """The image, for as long as the block lasts."""

    def every(self) -> AbstractContextManager[Iterator[Openable]]:
        """Every image, or every image of the given name; raises UsageError for a source of a single image."""
        raise UsageError("--all is for docker-archive:, oci: and oci-archive:, and to plan for a file.")

    def platforms(self) -> AbstractContextManager[Iterator[Openable]]:
        """The image for each of its platforms; raises UsageError where there is always one."""
        raise UsageError("--all-platforms is for docker://, oci:, oci-archive: and docker-archive:FILE.")

    def in_engine(self) -> EngineImageNamed | None:
        """The image as its engine knows it; None for other sources."""
        return None

    def piped_archive(self) -> StreamedArchive | None:
        """The archive of any number of images that is read once, from its front; None of every other source."""
        return None


class Destination(ABC, Generic[Result]):
    """A place that an image is written to."""

    def present(self, layers: Sequence[Digest]) -> frozenset[Digest]:  # noqa: ARG002 -- of those that can be asked
        """The layers of an image, given from the lowest up, that ``write`` would not ask the image for.

        Each is named by its diff_id or by a compressed digest. What cannot be told without reading a layer, or a
        compressed digest of which nobody learned whose it is, is not among them. Writes nothing. Raises UsageError
        where the destination cannot be asked.
        """
        raise UsageError("the destination cannot be asked which layers it has. Copy without --dry-run.")

    @abstractmethod
    def write(self, image: OpenedImage, advance: Advance) -> Result:
        """Write the image whole, or raise and leave nothing that looks like it."""

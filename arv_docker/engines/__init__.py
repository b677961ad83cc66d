# SPDX-License-Identifier: Apache-2.0
"""Programs that hold images, behind a common protocol; each is driven by a command line."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..archive.layer import Stream
from ..model.image import Digest, Platform
from ..model.reference import ImageId, Reference
from .building import Build


@dataclass(frozen=True, slots=True)
class ListedImage:
    """A line of an engine's listing, with the columns of ``docker images --no-trunc``.

    ``repository`` and ``tag`` are ``<none>`` where the image has none; ``created`` and
    ``size`` are the engine's own words ("3 days ago", "4.2MB").
    """

    repository: str
    tag: str
    id: Digest
    created: str
    size: str


@dataclass(frozen=True, slots=True)
class EngineImage:
    """An image as described by its engine. ``id`` is the engine's ID, which the bytes must confirm.

    ``size`` is in bytes as the engine counts them. ``tags`` and ``digests`` are as the engine prints them, and so is
    ``config``, which says how containers of the image start. ``by_manifest`` is True in a containerd store, where
    ``id`` is the digest of a manifest, or of an index whose image for one platform this is.
    """

    id: Digest
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    diff_ids: tuple[Digest, ...]
    platform: Platform
    size: int
    config: Mapping[str, Any] = field(default_factory=dict, compare=False)
    by_manifest: bool = field(default=False, compare=False)


class Engine(Protocol):
    """A container engine. Every method raises the EngineError that fits; see ``errors``."""

    @property
    def name(self) -> str:
        """The engine's name in messages and records, for example ``docker``."""

    def version(self) -> str:
        """The version of the engine, not of the command."""

    def platform(self) -> Platform:
        """The operating system and processor that the engine runs on."""

    def list(self) -> list[ListedImage]:
        """Every tagged or dangling image, newest first."""

    def chains(self) -> set[tuple[Digest, ...]]:
        """The diff_ids of each tagged or dangling image, from its lowest layer up."""

    def inspect(self, name: Reference | ImageId) -> EngineImage:
        """Return the image of that name or ID; raises NoSuchImage or AmbiguousImage."""

    def save(self, images: Iterable[str]) -> AbstractContextManager[Stream]:
        """Open a docker-archive of the images as a stream; leaving the block checks that the stream was complete."""

    def load(self, archive: Iterable[bytes]) -> str:
        """Feed a docker-archive to the engine, and return the engine's words.

        If ``archive`` raises, the engine gets no end of file and keeps nothing.
        """

    def tag(self, image: Digest, name: Reference) -> None:
        """Give the image a name; another image of that name loses it."""

    def remove(self, image: Digest) -> None:
        """Remove an image that has no name, and that no container uses."""

    def pull(self, name: Reference, on_line: Callable[[str], None] | None = None) -> None:
        """Fetch the image from its registry; the command's lines go to ``on_line`` as they come."""

    def build(self, wanted: Build) -> Generator[str, None, EngineImage]:
        """Build an image: yield each line of the log as it comes, and return the image.

        A line ends in a line feed, or in a carriage return where the next takes its place.
        Raises BuildFailed. A generator that is closed ends the build.
        """

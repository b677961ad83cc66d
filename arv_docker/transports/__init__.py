# SPDX-License-Identifier: Apache-2.0
"""Where images are read from and written to: one small module for each, behind two protocols.

A *source* opens an image: its layers in whatever order they come, and its config, which a
stream knows only at its end. A *destination* says which layers it has, writes an image from
what a source opened, and asks only for those that it lacks. Every pair works; no module
knows another.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeGuard, TypeVar, runtime_checkable

from ..archive.layer import Layer
from ..errors import BadArchive
from ..local.progress import Advance
from ..model.image import Config, Digest

Result_co = TypeVar("Result_co", covariant=True)


class OpenedImage(Protocol):
    """An image while it is read."""

    @property
    def config(self) -> Config:
        """The image's config: at once from a source that can seek, from a stream once ``layers`` is exhausted."""

    def layers(self, skip: Container[Digest] = ()) -> Iterator[Layer]:
        """Each distinct layer once, in the source's own order, each read to its end before the next.

        Layers in ``skip`` are left out where the source can do without reading them. Such a source gives them when it
        is asked once more, which a destination does that has them not after all.
        """


@runtime_checkable
class SeekableImage(OpenedImage, Protocol):
    """An image whose config and layers can be had in any order."""

    @property
    def sizes(self) -> Mapping[Digest, int]:
        """The uncompressed bytes of each distinct layer."""

    def layer(self, diff_id: Digest) -> Layer:
        """The layer of that name, from its front."""


def can_seek(image: OpenedImage) -> TypeGuard[SeekableImage]:
    """Whether the image is a SeekableImage. Costs nothing; ``isinstance`` may compute its properties."""
    return hasattr(image, "layer")


def known_layers(image: OpenedImage) -> tuple[Digest, ...]:
    """The image's layers from the lowest up, repeats kept; none of a stream, which says them at its end."""
    try:
        return image.config.diff_ids
    except BadArchive:
        return ()


@runtime_checkable
class Digested(Protocol):
    """An image with further digests by which its source calls it: those of manifests and indexes. Of a stream they are
    there when ``layers`` is exhausted."""

    @property
    def digests(self) -> tuple[Digest, ...]:
        """Each as its source has proven it."""


@runtime_checkable
class ReadsAhead(Protocol):
    """An image that comes from far away and fetches what is needed next while something else is used."""

    def read_ahead(self, diff_ids: Sequence[Digest]) -> None:
        """Says that these layers are read next, in this order."""


class Source(Protocol):
    """Somewhere an image is read from."""

    def open(self) -> AbstractContextManager[OpenedImage]:
        """The image, for as long as the block lasts."""


#: One of several images: what it is called, and what opens it, which raises what is wrong with it alone.
Openable = tuple[str, Callable[[], OpenedImage]]


@runtime_checkable
class HasImages(Protocol):
    """A source with any number of images."""

    def every(self) -> AbstractContextManager[Iterator[Openable]]:
        """Every image, or every one of the name that was given."""


@runtime_checkable
class HasPlatforms(Protocol):
    """A source with one image for any number of platforms."""

    def platforms(self) -> AbstractContextManager[Iterator[Openable]]:
        """The image for each of its platforms."""


class Destination(Protocol[Result_co]):
    """Somewhere an image is written to."""

    def present(self, layers: Sequence[Digest]) -> frozenset[Digest]:
        """Those of an image's layers, given from the lowest up, that ``write`` would not ask the image for.

        Each is named by its diff_id or by a compressed digest. What cannot be told without reading a layer, or a
        compressed digest of which nobody learned whose it is, is not among them. Writes nothing.
        """

    def write(self, image: OpenedImage, advance: Advance) -> Result_co:
        """Writes the image whole, or raises and leaves nothing that could be taken for it."""

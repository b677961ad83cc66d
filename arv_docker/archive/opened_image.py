# SPDX-License-Identifier: Apache-2.0
"""An image open for reading, in any place: the base of every image that a source opens.

Two members are each source's own, ``config`` and ``layers``. What else may be known of an image has a
default here, so that whoever reads images never asks which kind one is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TypeGuard

from ..errors import BadArchive
from ..model.image import Config, Descriptor, Digest
from .blob import Blob
from .layer import Layer


class OpenedImage(ABC):
    """An image while it is read.

    A stream, which is read once from the front, knows its ``config``, ``tags`` and ``digests`` when ``layers`` is
    exhausted; every other image at once.
    """

    #: Whether the image is a stream.
    streams: bool = False
    #: Whether its bytes are on this machine, so that leaving a layer out saves less than asking a cluster about it.
    is_local: bool = False
    #: The names that its place gives it, as they are written there.
    tags: tuple[str, ...] = ()
    #: Further digests by which its place calls it, those of manifests and indexes, each proven.
    digests: tuple[Digest, ...] = ()
    #: About the bytes of all layers, where somebody said so before they are read; else 0.
    size_hint: int = 0

    @property
    @abstractmethod
    def config(self) -> Config:
        """The image's config; of a stream raises BadArchive until ``layers`` is exhausted."""

    @abstractmethod
    def layers(self, skip: Container[Digest] = ()) -> Iterator[Layer]:
        """Each distinct layer once, in the source's own order, each read to its end before the next.

        Layers in ``skip`` are left out where the source can do without reading them. Such a source gives them when it
        is asked once more, which a destination does that has them not after all.
        """

    @property
    def known_sizes(self) -> Mapping[Digest, int]:
        """The uncompressed bytes of each layer whose size is known without reading a layer."""
        return MappingProxyType({})

    @property
    def known_size(self) -> int | None:
        """The uncompressed bytes of all distinct layers together, None unless all are known without reading one."""
        sizes = self.known_sizes
        layers = known_layers(self)
        return sum(sizes[it] for it in set(layers)) if layers and set(layers) <= sizes.keys() else None

    def read_manifest(self) -> bytes | None:
        """The image's own manifest as its place has it, byte for byte, checked by its digest; None where it has none
        but what is made of the config and the layers."""
        return None

    @property
    def compressed_layers(self) -> Mapping[Digest, Descriptor]:
        """The layers that the image's place has compressed and calls by a digest, by diff_id."""
        return MappingProxyType({})


class SeekableImage(OpenedImage):
    """An image whose config and layers can be had in any order."""

    @property
    @abstractmethod
    def sizes(self) -> Mapping[Digest, int]:
        """The uncompressed bytes of each distinct layer; layers may have to be read for it."""

    @abstractmethod
    def layer(self, diff_id: Digest) -> Layer:
        """The layer called ``diff_id``, from its front."""

    def plain_blob(self, diff_id: Digest) -> Blob | None:  # noqa: ARG002 -- of those that have one
        """The layer's uncompressed bytes where they can be read at any place, unchecked; None otherwise."""
        return None

    def read_ahead(self, diff_ids: Sequence[Digest]) -> None:
        """Announce the layers that are read next, in this order, so that a remote image can fetch them ahead."""


def can_seek(image: OpenedImage) -> TypeGuard[SeekableImage]:
    """True if the image's layers can be had in any order."""
    return isinstance(image, SeekableImage)


def known_layers(image: OpenedImage) -> tuple[Digest, ...]:
    """The image's layers from the lowest up, repeats kept; empty for a stream before its end."""
    try:
        return image.config.diff_ids
    except BadArchive:
        return ()

# SPDX-License-Identifier: Apache-2.0
"""Sources, images and destinations of other packages, with the abilities that they lack filled in by the defaults.

A transport of another package need only have what ``OpenedImage``, ``Source`` and ``Destination`` leave open:
``config`` and ``layers``, ``open``, ``write``. This is the one place that asks what more it has.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from ..archive.layer import Layer
from ..errors import BadArchive
from ..local.progress import Advance
from ..model.image import Config, Descriptor, Digest
from ..model.reference import Reference
from . import Destination, Openable, OpenedImage, SeekableImage, Source


def completed_source(source: Any) -> Source:
    """The source itself, or a source around one of another package that does not derive from ``Source``."""
    return source if isinstance(source, Source) else _CompletedSource(source)


def completed_destination(destination: Any) -> Destination[Any]:
    """The destination, wrapped if it is another package's and does not derive from ``Destination``."""
    return destination if isinstance(destination, Destination) else _CompletedDestination(destination)


def completed_image(image: Any) -> OpenedImage:
    """The image itself, or an image around one of another package that does not derive from ``OpenedImage``."""
    if isinstance(image, OpenedImage):
        return image
    return _CompletedSeekable(image) if hasattr(image, "layer") and hasattr(image, "sizes") else _CompletedImage(image)


class _CompletedImage(OpenedImage):
    """An image with ``config`` and ``layers``, and whatever else it has."""

    def __init__(self, image: Any) -> None:
        self._image = image
        self._at_end = _is_stream(image)

    @property
    def streams(self) -> bool:  # type: ignore[override]
        """Say if the image is a stream: it says so, or else has no config yet."""
        return bool(getattr(self._image, "streams", self._at_end))

    @property
    def is_local(self) -> bool:  # type: ignore[override]
        return bool(getattr(self._image, "is_local", self.streams))

    @property
    def tags(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(getattr(self._image, "tags", ()))

    @property
    def digests(self) -> tuple[Digest, ...]:  # type: ignore[override]
        return tuple(getattr(self._image, "digests", ()))

    @property
    def size_hint(self) -> int:  # type: ignore[override]
        return int(getattr(self._image, "size_hint", 0))

    @property
    def config(self) -> Config:
        try:
            config: Config = self._image.config
        except AttributeError:
            raise BadArchive("the image was not read to its end.") from None
        return config

    def layers(self, skip: Container[Digest] = ()) -> Iterator[Layer]:
        return iter(self._image.layers(skip))

    @property
    def known_sizes(self) -> Mapping[Digest, int]:
        return getattr(self._image, "known_sizes", None) or super().known_sizes

    def read_manifest(self) -> bytes | None:
        read = getattr(self._image, "read_manifest", None)
        return read() if read else None

    @property
    def compressed_layers(self) -> Mapping[Digest, Descriptor]:
        return getattr(self._image, "compressed_layers", None) or super().compressed_layers


class _CompletedSeekable(_CompletedImage, SeekableImage):
    """An image whose layers can be had in any order."""

    @property
    def sizes(self) -> Mapping[Digest, int]:
        sizes: Mapping[Digest, int] = self._image.sizes
        return sizes

    def layer(self, diff_id: Digest) -> Layer:
        layer: Layer = self._image.layer(diff_id)
        return layer

    def read_ahead(self, diff_ids: Sequence[Digest]) -> None:
        if (read_ahead := getattr(self._image, "read_ahead", None)) is not None:
            read_ahead(diff_ids)


class _CompletedSource(Source):
    """A source with ``open``, and the optional methods that are there."""

    def __init__(self, source: Any) -> None:
        self._source = source

    @property
    def catalog_name(self) -> Reference | None:
        return getattr(self._source, "catalog_name", None)

    @contextmanager
    def open(self) -> Iterator[OpenedImage]:
        with self._source.open() as image:
            yield completed_image(image)

    def every(self) -> AbstractContextManager[Iterator[Openable]]:
        return _completed_images(self._source.every) if hasattr(self._source, "every") else super().every()

    def platforms(self) -> AbstractContextManager[Iterator[Openable]]:
        return _completed_images(self._source.platforms) if hasattr(self._source, "platforms") else super().platforms()


class _CompletedDestination(Destination[Any]):
    """A destination with ``write``, and with ``present`` or without."""

    def __init__(self, destination: Any) -> None:
        self._destination = destination

    def present(self, layers: Sequence[Digest]) -> frozenset[Digest]:
        if not hasattr(self._destination, "present"):
            return super().present(layers)
        return frozenset(self._destination.present(layers))

    def write(self, image: OpenedImage, advance: Advance) -> Any:
        return self._destination.write(image, advance)


@contextmanager
def _completed_images(
    open_all: Callable[[], AbstractContextManager[Iterator[Openable]]],
) -> Iterator[Iterator[Openable]]:
    """The images of a source, opened one by one and completed."""

    def open_completed(open_one: Callable[[], Any]) -> OpenedImage:
        return completed_image(open_one())

    with open_all() as images:
        yield ((called, partial(open_completed, open_one)) for called, open_one in images)


def _is_stream(image: Any) -> bool:
    """Say if the image has no config before its layers are read, as ``OpenedImage`` says of a stream."""
    try:
        return image.config is None
    except (BadArchive, AttributeError):
        return True

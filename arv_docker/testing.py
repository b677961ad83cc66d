# SPDX-License-Identifier: Apache-2.0
"""Tests that every transport passes, ours and those of other packages, and images in memory for them.

A test module of another package says which transport is meant, and pytest runs the statements:

    from arv_docker.testing import TransportContract
    from arv_docker.transports import names

    class TestShelf(TransportContract):
        def places(self, tmp_path):
            choice = self.choice(tmp_path)
            return names.destination(f"shelf:{tmp_path}", choice), names.source(f"shelf:{tmp_path}", choice)

A source that nothing is written to passes those of ``SourceContract``. This module needs pytest.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from .archive.layer import Layer
from .archive.opened_image import OpenedImage, SeekableImage, can_seek, known_layers
from .errors import ArvDockerError, BadArchive, DigestMismatch
from .model.image import Config, Digest
from .store.cache import CacheFolder
from .transports import Destination, Source
from .transports.names import Choice

__all__ = [
    "MemoryImage",
    "SourceContract",
    "StreamedMemoryImage",
    "TransportContract",
    "check_image",
    "file_layer",
    "memory_image",
]


def file_layer(content: bytes, name: str = "file") -> bytes:
    """A layer with one file, as the bytes of a tar."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return layer.getvalue()


class MemoryImage(SeekableImage):
    """An image in memory, of these layers from the lowest up; ``asked`` are the layers read so far."""

    def __init__(self, *layers: bytes, **keys: object) -> None:
        """``keys`` are the config's keys besides the layers, for example ``os``."""
        diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
        self._config = Config.parse(json.dumps({**keys, "rootfs": {"type": "layers", "diff_ids": diff_ids}}).encode())
        self.contents = {Digest.of(layer): layer for layer in layers}
        self.asked: list[Digest] = []

    @property
    def config(self) -> Config:
        """The image's config."""
        return self._config

    @property
    def sizes(self) -> Mapping[Digest, int]:
        """The bytes of each distinct layer."""
        return {diff_id: len(content) for diff_id, content in self.contents.items()}

    def layers(self, skip: Container[Digest] = ()) -> Iterator[Layer]:
        """Each distinct layer that is not in ``skip``."""
        return (self.layer(diff_id) for diff_id in self.contents if diff_id not in skip)

    def layer(self, diff_id: Digest) -> Layer:
        """The layer of that name."""
        self.asked.append(diff_id)
        content = self.contents[diff_id]
        return Layer(io.BytesIO(content).read, claimed=diff_id, size=len(content))


class StreamedMemoryImage(OpenedImage):
    """A ``MemoryImage`` that is read once, from the front, and has its config at the end."""

    streams = True

    def __init__(self, image: MemoryImage) -> None:
        self._image = image
        self._at_end = False

    @property
    def config(self) -> Config:
        """The image's config; raises BadArchive before the end."""
        if not self._at_end:
            raise BadArchive("the image was not read to its end.")
        return self._image.config

    def layers(self, skip: Container[Digest] = ()) -> Iterator[Layer]:  # noqa: ARG002 -- a stream has them all
        """Each distinct layer once, whatever is in ``skip``, none with a name or a size."""
        for content in self._image.contents.values():
            yield Layer(io.BytesIO(content).read, claimed=None, size=None)
        self._at_end = True


_LOW, _HIGH = file_layer(b"low" * 100_000), file_layer(b"high")

#: Images of every shape: a layer twice, one without content, none at all, and configs that say more or less.
SHAPES: Mapping[str, tuple[tuple[bytes, ...], Mapping[str, object]]] = {
    "layers": ((_LOW, _HIGH), {"os": "linux", "architecture": "amd64", "created": "2026-01-02T03:04:05Z"}),
    "repeated": ((_LOW, _HIGH, _LOW, _LOW), {}),
    "one": ((_HIGH,), {"os": "linux"}),
    "empty layer": ((b"", _HIGH), {}),
    "no layers": ((), {"os": "linux"}),
    "no platform": ((file_layer(b"x"),), {}),
}


def memory_image(shape: str) -> MemoryImage:
    """An image of one of the SHAPES."""
    layers, keys = SHAPES[shape]
    return MemoryImage(*layers, **keys)


def _next_version() -> MemoryImage:
    """The next version of the image with layers: of its two layers one is new."""
    return MemoryImage(_LOW, file_layer(b"higher"), os="linux", created="2026-02-03T04:05:06Z")


def check_image(image: OpenedImage, expected: MemoryImage) -> None:
    """Read the image, and raise AssertionError unless it is that one: each layer once, its config at the end at the
    latest."""
    if image.streams:
        assert known_layers(image) == ()
        with pytest.raises(BadArchive):
            _ = image.config
    else:
        assert image.config == expected.config
    contents: dict[Digest, bytes] = {}
    for layer in image.layers():
        content = b"".join(iter(layer.read, b""))
        assert layer.diff_id not in contents
        contents[layer.diff_id] = content
    assert {diff_id: contents[diff_id] for diff_id in expected.contents} == expected.contents
    assert image.streams or len(contents) == len(expected.contents)  # a stream may hold other images too
    assert image.config == expected.config
    assert set(image.known_sizes.items()) <= set(expected.sizes.items())
    assert image.known_size in (None, sum(expected.sizes.values()))
    if can_seek(image):
        assert image.sizes == expected.sizes
        for diff_id in reversed(expected.config.diff_ids):
            assert image.layer(diff_id).read(1 << 30) == expected.contents[diff_id]


class SourceContract(ABC):
    """Contract of every source of one image."""

    @abstractmethod
    def source_of(self, image: MemoryImage, tmp_path: Path) -> Source:
        """A source of that image."""

    @pytest.mark.parametrize("shape", SHAPES)
    def test_the_image_is_read(self, tmp_path: Path, shape: str) -> None:
        """Whatever its shape."""
        image = memory_image(shape)
        with self.source_of(image, tmp_path).open() as opened:
            check_image(opened, image)

    def test_the_image_is_read_again(self, tmp_path: Path) -> None:
        """A source can be opened twice, but for what is piped in."""
        source = self.source_of(memory_image("layers"), tmp_path)
        for _ in range(2):
            with source.open() as opened:
                check_image(opened, memory_image("layers"))

    def test_layers_that_are_not_wanted_are_not_handed_out(self, tmp_path: Path) -> None:
        """But by a stream, which has no choice."""
        with self.source_of(memory_image("layers"), tmp_path).open() as opened:
            if not opened.streams:
                assert [layer.claimed for layer in opened.layers(skip={Digest.of(_LOW)})] == [Digest.of(_HIGH)]


class TransportContract(SourceContract):
    """Contract of every transport that is both source and destination.

    ``remembers`` is False for a destination that is written anew each time, ``replaces`` for one that keeps what was
    there, so that a source without a name no longer says which image it is.
    """

    remembers = True
    replaces = True

    @abstractmethod
    def places(self, tmp_path: Path) -> tuple[Destination[Any], Source]:
        """A place as destination and as source, empty at first, with the cache of ``choice``."""

    def choice(self, tmp_path: Path) -> Choice:
        """The options of the test, with a cache of its own."""
        folder = tmp_path / "cache"
        folder.mkdir(mode=0o700, exist_ok=True)
        return Choice(cache=CacheFolder.at(folder))

    def source_of(self, image: MemoryImage, tmp_path: Path) -> Source:
        """The place, with the image written to it."""
        destination, source = self.places(tmp_path)
        destination.write(image, lambda _: None)
        return source

    @pytest.mark.parametrize("shape", SHAPES)
    def test_a_stream_is_written(self, tmp_path: Path, shape: str) -> None:
        """A destination takes an image that has its config at the end."""
        image = memory_image(shape)
        destination, source = self.places(tmp_path)
        destination.write(StreamedMemoryImage(image), lambda _: None)
        with source.open() as opened:
            check_image(opened, image)

    def test_twice_is_once(self, tmp_path: Path) -> None:
        """Writing an image again changes nothing."""
        destination, source = self.places(tmp_path)
        first = destination.write(memory_image("layers"), lambda _: None)
        assert destination.write(StreamedMemoryImage(memory_image("layers")), lambda _: None) == first
        with source.open() as opened:
            check_image(opened, memory_image("layers"))

    def test_what_is_present_is_not_asked_for_and_all_else_is(self, tmp_path: Path) -> None:
        """The next version of an image costs the layers that are new."""
        destination, source = self.places(tmp_path)
        following = _next_version()
        assert destination.present(following.config.diff_ids) == frozenset()
        destination.write(_Far(memory_image("layers")), lambda _: None)
        present = destination.present(following.config.diff_ids)
        assert present == ({Digest.of(_LOW)} if self.remembers else frozenset())
        following.asked.clear()
        destination.write(_Far(following), lambda _: None)
        assert following.asked == [it for it in following.config.diff_ids if it not in present]
        if self.replaces:
            with source.open() as opened:
                check_image(opened, following)

    def test_a_layer_is_called_by_its_compressed_digest_too_where_that_was_learned(self, tmp_path: Path) -> None:
        """Digests that a registry calls a layer by are not asked for either."""
        destination, _ = self.places(tmp_path)
        destination.write(memory_image("layers"), lambda _: None)
        low, high = Digest.of(b"the low one, compressed"), Digest.of(_HIGH)
        assert low not in destination.present([low, high])
        self.choice(tmp_path).cache.layer_table().note(Digest.of(_LOW), len(_LOW), low)
        assert destination.present([low, high]) == ({low, high} if self.remembers else frozenset())

    def test_the_bytes_of_layers_are_told(self, tmp_path: Path) -> None:
        """Progress is not silent."""
        destination, _ = self.places(tmp_path)
        counts: list[int] = []
        destination.write(memory_image("layers"), counts.append)
        assert sum(counts) >= len(_LOW) + len(_HIGH)

    def test_what_is_wrong_is_not_there_afterwards(self, tmp_path: Path) -> None:
        """A layer with a wrong digest leaves nothing behind, nothing in the way of the right layer."""
        destination, source = self.places(tmp_path)
        wrong = memory_image("layers")
        wrong.contents[Digest.of(_LOW)] = file_layer(b"LOW" * 100_000)
        with pytest.raises(DigestMismatch):
            destination.write(wrong, lambda _: None)
        with pytest.raises(ArvDockerError), source.open() as opened:
            list(opened.layers())
        destination.write(memory_image("layers"), lambda _: None)
        with source.open() as opened:
            check_image(opened, memory_image("layers"))


class _Far(OpenedImage):
    """A ``MemoryImage`` with layers fetched one by one, as from a registry."""

    def __init__(self, image: MemoryImage) -> None:
        self._image = image

    @property
    def config(self) -> Config:
        return self._image.config

    def layers(self, skip: Container[Digest] = ()) -> Iterator[Layer]:
        return self._image.layers(skip)

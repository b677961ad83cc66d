# SPDX-License-Identifier: Apache-2.0
"""What holds for every transport that is both source and destination.

A test of one begins with a class that inherits these statements:

    class TestFolder(Contract):
        def places(self, tmp_path: Path) -> tuple[Destination[Any], Source]: ...

`places` gives both ends of the same place, empty at first. `takes_streams` is False for a destination that
needs an image that can seek, `remembers` for one that is written anew each time, `replaces` for one that keeps what was
there, so that a source without a name no longer says which image it is.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

import pytest

from arv_docker.archive.layer import Layer
from arv_docker.archive.reader import DockerArchive
from arv_docker.archive.stream import StreamedImage
from arv_docker.errors import ArvDockerError, DigestMismatch
from arv_docker.model.image import Digest
from arv_docker.store.layer_index import LayerTable
from arv_docker.store.tarballs import cache_folder
from arv_docker.transports import Destination, OpenedImage, Source, can_seek

from ..archives import Bytes, Image, canonical_archive, classic, files_of, hybrid, image, layout

LOW, HIGH = files_of(b"low" * 100_000), files_of(b"high")
SHAPES = {
    "layers": image(LOW, HIGH, os="linux", architecture="amd64", created="2026-01-02T03:04:05Z"),
    "repeated": image(LOW, HIGH, LOW, LOW),
    "one": image(HIGH, os="linux"),
    "empty layer": image(b"", HIGH),
    "no layers": image(os="linux"),
    "no platform": image(files_of(b"x")),
}
#: The next version of the one with layers.
NEXT = image(LOW, files_of(b"higher"), os="linux", created="2026-02-03T04:05:06Z")
FORMS: list[Callable[[Image], bytes]] = [classic, hybrid, layout, canonical_archive]


def opened(made: Image, form: Callable[[Image], bytes] = classic) -> OpenedImage:
    """The image, read from an archive in memory."""
    return DockerArchive(Bytes(form(made))).image()


def streamed(made: Image) -> OpenedImage:
    """The image, read once from the front."""
    return StreamedImage(io.BytesIO(classic(made)))


class Far:
    """An image whose layers are fetched one by one, as from a registry; `asked` are those that were."""

    def __init__(self, made: Image) -> None:
        self._made = made
        self.config = made.parsed
        self.asked: list[Digest] = []

    def layers(self, skip: Container[Digest] = ()) -> Iterator[Layer]:
        for diff_id in self.config.distinct_diff_ids:
            if diff_id not in skip:
                self.asked.append(diff_id)
                yield self._made.layer(diff_id)


def check(found: OpenedImage, made: Image) -> None:
    """What was opened is that image: each layer once, and its config at the latest after them."""
    layers = {}
    for layer in found.layers():
        content = b"".join(iter(layer.read, b""))
        assert layer.diff_id not in layers
        layers[layer.diff_id] = content
    assert {diff_id: layers[diff_id] for diff_id in made.parsed.diff_ids} == made.by_id
    assert found.config == made.parsed
    if can_seek(found):
        assert found.sizes == made.sizes
        for diff_id in reversed(made.parsed.diff_ids):
            assert found.layer(diff_id).read(1 << 30) == made.by_id[diff_id]


class Contract(ABC):
    """The statements."""

    takes_streams = True
    remembers = True
    replaces = True

    @abstractmethod
    def places(self, tmp_path: Path) -> tuple[Destination[Any], Source]:
        """A place as destination and as source."""

    @pytest.mark.parametrize("made", SHAPES.values(), ids=SHAPES)
    def test_what_is_written_is_read(self, tmp_path: Path, made: Image) -> None:
        destination, source = self.places(tmp_path)
        destination.write(opened(made), lambda _: None)
        with source.open() as found:
            check(found, made)

    @pytest.mark.parametrize("form", FORMS)
    def test_from_archives_of_every_form(self, tmp_path: Path, form: Callable[[Image], bytes]) -> None:
        destination, source = self.places(tmp_path)
        destination.write(opened(SHAPES["repeated"], form), lambda _: None)
        with source.open() as found:
            check(found, SHAPES["repeated"])

    def test_from_a_stream(self, tmp_path: Path) -> None:
        destination, source = self.places(tmp_path)
        if not self.takes_streams:
            with pytest.raises(TypeError):
                destination.write(streamed(SHAPES["layers"]), lambda _: None)
            return
        destination.write(streamed(SHAPES["layers"]), lambda _: None)
        with source.open() as found:
            check(found, SHAPES["layers"])

    def test_twice_is_once(self, tmp_path: Path) -> None:
        destination, source = self.places(tmp_path)
        first = destination.write(opened(SHAPES["layers"]), lambda _: None)
        assert destination.write(opened(SHAPES["layers"], layout), lambda _: None) == first
        with source.open() as found:
            check(found, SHAPES["layers"])

    def test_what_is_present_is_not_asked_for_and_all_else_is(self, tmp_path: Path) -> None:
        destination, source = self.places(tmp_path)
        assert destination.present(NEXT.parsed.diff_ids) == frozenset()
        destination.write(Far(SHAPES["layers"]), lambda _: None)
        present = destination.present(NEXT.parsed.diff_ids)
        assert present == ({Digest.of(LOW)} if self.remembers else frozenset())
        far = Far(NEXT)
        destination.write(far, lambda _: None)
        assert far.asked == [it for it in NEXT.parsed.diff_ids if it not in present]
        if self.replaces:
            with source.open() as found:
                check(found, NEXT)

    def test_a_layer_is_called_by_its_compressed_digest_too_where_that_was_learned(self, tmp_path: Path) -> None:
        destination, _ = self.places(tmp_path)
        destination.write(opened(SHAPES["layers"]), lambda _: None)
        low, high = Digest.of(b"the low one, compressed"), Digest.of(HIGH)
        assert low not in destination.present([low, high])
        LayerTable(cache_folder()).note(Digest.of(LOW), len(LOW), low)
        assert destination.present([low, high]) == ({low, high} if self.remembers else frozenset())

    def test_layers_that_are_not_wanted_are_not_handed_out(self, tmp_path: Path) -> None:
        destination, source = self.places(tmp_path)
        destination.write(opened(SHAPES["layers"]), lambda _: None)
        with source.open() as found:
            if can_seek(found):
                assert [layer.claimed for layer in found.layers(skip={Digest.of(LOW)})] == [Digest.of(HIGH)]

    def test_the_bytes_of_layers_are_told(self, tmp_path: Path) -> None:
        destination, _ = self.places(tmp_path)
        told: list[int] = []
        destination.write(opened(SHAPES["layers"]), told.append)
        assert sum(told) >= len(LOW) + len(HIGH)

    def test_what_is_wrong_is_not_there_afterwards(self, tmp_path: Path) -> None:
        destination, source = self.places(tmp_path)
        wrong = classic(SHAPES["layers"]).replace(b"lowlow", b"LOWlow", 1)
        with pytest.raises(DigestMismatch):
            destination.write(DockerArchive(Bytes(wrong)).image(), lambda _: None)
        with pytest.raises(ArvDockerError), source.open() as found:
            list(found.layers())
        destination.write(opened(SHAPES["layers"]), lambda _: None)
        with source.open() as found:
            check(found, SHAPES["layers"])

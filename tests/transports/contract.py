# SPDX-License-Identifier: Apache-2.0
"""What holds for our own transports beyond the public contract: archives of every form, and images made by hand."""

from __future__ import annotations

import io
from collections.abc import Callable, Container, Iterator
from pathlib import Path

import pytest

from arv_docker.archive.layer import Layer
from arv_docker.archive.reader import ArchiveReader
from arv_docker.archive.stream import StreamedImage
from arv_docker.model.image import Config, Digest
from arv_docker.testing import TransportContract
from arv_docker.transports import OpenedImage, can_seek

from ..archives import Bytes, Image, canonical_archive, classic, files_of, hybrid, image, layout

FORMS: list[Callable[[Image], bytes]] = [classic, hybrid, layout, canonical_archive]
_LOW, _HIGH = files_of(b"low" * 100_000), files_of(b"high")
_REPEATED = image(_LOW, _HIGH, _LOW, _LOW)


def opened(made: Image, form: Callable[[Image], bytes] = classic) -> OpenedImage:
    """The image, read from an archive in memory."""
    return ArchiveReader(Bytes(form(made))).image()


class Far(OpenedImage):
    """An image whose layers are fetched one by one, as from a registry; `asked` are those that were."""

    def __init__(self, made: Image) -> None:
        self._made = made
        self.asked: list[Digest] = []

    @property
    def config(self) -> Config:
        return self._made.parsed

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


class Contract(TransportContract):
    """The public statements, and those about archives."""

    @pytest.mark.parametrize("form", FORMS)
    def test_from_archives_of_every_form(self, tmp_path: Path, form: Callable[[Image], bytes]) -> None:
        destination, source = self.places(tmp_path)
        destination.write(opened(_REPEATED, form), lambda _: None)
        with source.open() as found:
            check(found, _REPEATED)

    def test_from_an_archive_that_is_piped_in(self, tmp_path: Path) -> None:
        destination, source = self.places(tmp_path)
        destination.write(StreamedImage(io.BytesIO(classic(_REPEATED))), lambda _: None)
        with source.open() as found:
            check(found, _REPEATED)

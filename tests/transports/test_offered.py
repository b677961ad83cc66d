# SPDX-License-Identifier: Apache-2.0
"""A transport of another package: what holds for ours holds for it, and one that cannot be asked is written to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from arv_docker.archive.archived_image import ArchivedImage
from arv_docker.archive.reader import ArchiveReader
from arv_docker.errors import BadArchive, NoSuchImage
from arv_docker.local.progress import Advance
from arv_docker.model.image import Config, Digest
from arv_docker.store.cache import CacheFolder
from arv_docker.transports import Destination, OpenedImage, Source, known_layers, names
from arv_docker.transports.local import names_present

from ..archives import Bytes, Image, canonical_archive
from .contract import Contract
from .test_names import offered

__all__ = ["offered"]


class Shelf:
    """Images in memory, layers that they share once."""

    def __init__(self, cache: CacheFolder) -> None:
        self._cache = cache
        self._layers: dict[Digest, bytes] = {}
        self._config: Config | None = None

    def present(self, layers: Sequence[Digest]) -> frozenset[Digest]:
        return names_present(layers, lambda _: self._layers, self._cache.layer_table())

    def write(self, image: OpenedImage, advance: Advance) -> Digest:
        new = {}
        for layer in image.layers(skip=self.present(known_layers(image))):
            content = b"".join(iter(layer.read, b""))
            advance(len(content))
            new[layer.diff_id] = content
        if missing := set(image.config.diff_ids) - {*new, *self._layers}:
            raise BadArchive(f"{missing} never came")
        self._layers |= new
        self._config = image.config
        return image.config.digest

    @contextmanager
    def open(self) -> Iterator[ArchivedImage]:
        if self._config is None:
            raise NoSuchImage("the shelf is empty")
        made = Image(self._config.raw, tuple(self._layers[diff_id] for diff_id in self._config.diff_ids))
        yield ArchiveReader(Bytes(canonical_archive(made))).image()


class TestOffered(Contract):
    @pytest.fixture(autouse=True)
    def _offers(self, offered: dict[str, Any]) -> None:
        shelves: dict[str, Shelf] = {}

        def shelf(rest: str, choice: names.Choice) -> Shelf:
            return shelves.setdefault(rest, Shelf(choice.cache))

        offered["shelf"] = SimpleNamespace(source=shelf, destination=shelf)

    def places(self, tmp_path: Path) -> tuple[Destination[Any], Source]:
        choice = self.choice(tmp_path)
        return names.destination("shelf:upper", choice), names.source("shelf:upper", choice)

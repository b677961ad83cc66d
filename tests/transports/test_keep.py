# SPDX-License-Identifier: Apache-2.0
"""Keep as a place for images: what is written is read again out of the collection that holds it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from arv_docker.errors import NoSuchImage
from arv_docker.keep.client import Cluster, CollectionRecord
from arv_docker.keep.stored import StoredImage
from arv_docker.progress import Advance
from arv_docker.transports import OpenedImage
from arv_docker.transports.keep import KeepDestination
from tests.keep.fake_api import FakeApi
from tests.transports.contract import Contract


class InACollection:
    """A destination in Keep, and a collection of what it wrote as the source."""

    def __init__(self, cluster: Cluster, spool_folder: Path) -> None:
        self._cluster = cluster
        self._spool_folder = spool_folder
        self._text = ""

    def write(self, image: OpenedImage, advance: Advance) -> str:
        stored = KeepDestination(self._cluster, self._spool_folder).write(image, advance)
        self._text = stored.manifest_text(image.config.digest)
        return self._text

    @contextmanager
    def open(self) -> Iterator[StoredImage]:
        if not self._text:
            raise NoSuchImage("nothing was written")
        yield StoredImage(self._cluster, CollectionRecord.of({"uuid": "u", "manifest_text": self._text}))


class TestKeep(Contract):
    def places(self, tmp_path: Path) -> tuple[InACollection, InACollection]:
        place = InACollection(Cluster(FakeApi(), retries=0), tmp_path)
        return place, place

# SPDX-License-Identifier: Apache-2.0
"""Keep as a place for images: what is written is read again out of the collection that holds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from arv_docker.arvados.client import Cluster, CollectionRecord
from arv_docker.arvados.dedup import LayerInKeep, LayerLookup
from arv_docker.arvados.stored import StoredImage
from arv_docker.arvados.trust import Trust
from arv_docker.errors import NoSuchImage
from arv_docker.local.progress import Advance
from arv_docker.model import manifest_text
from arv_docker.model.image import Digest
from arv_docker.store.cache import CacheFolder
from arv_docker.transports import Destination, OpenedImage, Source
from arv_docker.transports.keep import KeepDestination

from ..archives import files_of, image
from ..arvados.fake_api import ME, SYSTEM, FakeApi
from .contract import Contract, Far

TRUST = Trust.of(ME, SYSTEM)


class InACollection(Destination[str], Source):
    """A destination in Keep, and a collection of what it wrote last as the source."""

    def __init__(self, api: FakeApi, spool_folder: Path, cache: CacheFolder) -> None:
        self._cache = cache
        self._api = api
        self._cluster = Cluster(api, retries=0)
        self._spool_folder = spool_folder
        self._collections: list[CollectionRecord] = []

    def present(self, layers: Sequence[Digest]) -> frozenset[Digest]:
        return self._destination().present(layers)

    def write(self, image: OpenedImage, advance: Advance) -> str:
        stored = self._destination().write(image, advance)
        text = stored.manifest_text(image.config.digest)
        record = self._api.add(
            "collections", owner_uuid=ME, manifest_text=text, portable_data_hash=manifest_text.pdh(text)
        )
        self._collections.append(CollectionRecord.of(record))
        return text

    @contextmanager
    def open(self) -> Iterator[StoredImage]:
        if not self._collections:
            raise NoSuchImage("nothing was written")
        yield StoredImage(self._cluster, self._collections[-1])

    def _destination(self) -> KeepDestination:
        """One that looks for layers where an ingest does."""

        def look_up(diff_ids: Sequence[Digest]) -> Mapping[Digest, LayerInKeep]:
            known = LayerLookup(self._cluster, diff_ids, TRUST)
            return {**known.packed_layers_in(self._collections, diff_ids), **known.layers_in_keep(diff_ids)}

        return KeepDestination(self._cluster, self._spool_folder, look_up=look_up, cache=self._cache)


class TestKeep(Contract):
    def places(self, tmp_path: Path) -> tuple[InACollection, InACollection]:
        place = InACollection(FakeApi(), tmp_path, self.choice(tmp_path).cache)
        return place, place


def test_what_is_not_to_be_spared_is_not_present(tmp_path: Path) -> None:
    """As with `--force`: nothing is looked up."""
    made = image(files_of(b"low"))
    destination = KeepDestination(Cluster(FakeApi(), retries=0), tmp_path)
    destination.write(Far(made), lambda _: None)
    assert destination.present(made.parsed.diff_ids) == frozenset()


def test_keep_is_asked_once_for_each_layer(tmp_path: Path) -> None:
    made, asked = image(files_of(b"low"), files_of(b"high")), list[Digest]()

    def look_up(diff_ids: Sequence[Digest]) -> Mapping[Digest, LayerInKeep]:
        asked.extend(diff_ids)
        return {}

    destination = KeepDestination(Cluster(FakeApi(), retries=0), tmp_path, look_up=look_up)
    assert destination.present(made.parsed.diff_ids[:1]) == frozenset()
    destination.write(Far(made), lambda _: None)
    assert asked == list(made.parsed.diff_ids)

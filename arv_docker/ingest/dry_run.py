# SPDX-License-Identifier: Apache-2.0
"""Plans of an ingest: the images that would be stored, and the layers that Keep has. Nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from ..archive.canonical import ALIGNED_SPAN, span_length
from ..arvados.client import Cluster
from ..arvados.dedup import LayerLookup
from ..arvados.resume import SentBlocks
from ..engines import Engine
from ..errors import UsageError
from ..local.progress import Progress, size_text
from ..model.image import Digest
from ..model.reference import ImageId, Reference
from ..transports import OpenedImage, Source
from . import link_names
from .from_keep import find_in_keep
from .lookup import LookupResult
from .records import ImageRecords
from .results import TwinCollection
from .upload import bytes_of, warn_of_platform


@dataclass(frozen=True, slots=True)
class IngestPlan:
    """Plan for one image. ``uuid`` is the collection of a stored image, None for an image to be stored.

    ``size`` is about its number of bytes, None where it is not known before it is read. Of its ``layers``
    Keep has ``layers_held``, of ``bytes_held`` bytes, and an interrupted run left blocks of ``bytes_resumed`` bytes
    there, some of which may be other images'. ``bytes_to_send`` is about what would go to Keep, at most. What images
    that were planned before bring counts as there, as far as that is known.
    ``twin`` is the collection under its other digest, where that is wanted too; in JSON it is called ``beside``.
    """

    name: str
    image_id: Digest
    uuid: str | None
    size: int | None
    layers: int
    layers_held: int
    bytes_held: int
    bytes_resumed: int
    bytes_to_send: int | None
    twin: TwinCollection | None = field(default=None, metadata={"json": "beside"})

    def __str__(self) -> str:
        return f"{self.name}: {self._first_part}{self._second_part}"

    @property
    def _first_part(self) -> str:
        if self.uuid is not None:
            return f"already stored, as {self.uuid}"
        of = "an unknown number of bytes" if self.size is None else f"about {size_text(self.size)}"
        held = f", {self.layers_held} of {self.layers} layers are in Keep ({size_text(self.bytes_held)})"
        resumed = (
            f", up to {size_text(self.bytes_resumed)} were sent by an interrupted run" if self.bytes_resumed else ""
        )
        most = "at most" if self.bytes_resumed else "about"
        to_send = "" if self.bytes_to_send is None else f"; {most} {size_text(self.bytes_to_send)} would be sent"
        return f"{of}{held if self.layers else ''}{resumed}{to_send}"

    @property
    def _second_part(self) -> str:
        if self.twin is None:
            return ""
        called = self.twin.image_id or "its other digest"
        if self.twin.uuid is not None:
            return f"; under {called} too, as {self.twin.uuid}"
        again = self.uuid is not None and self.bytes_to_send
        return f"; under {called} too, " + ("to be read and stored" if again else "of the same blocks")


class IngestPlanner:
    """Planner of what would be done with images; nothing is written."""

    def __init__(self, cluster: Cluster, records: ImageRecords, progress: Progress) -> None:
        """Plan for images that go into ``cluster``, whose records ``records`` are."""
        self._cluster = cluster
        self._records = records
        self._progress = progress
        self._coming: dict[Digest, int] = {}

    def engine(self, engine: Engine, name: Reference | ImageId, called: Reference | None = None) -> IngestPlan:
        """Plan what ``Ingest.from_engine`` would do; raises NotVerified as that does."""
        image = engine.inspect(name)
        if called is not None:
            link_names.check_engine_name(called, image)
        warn_of_platform(self._records.options, image.platform, self._progress)
        return plan_for(self._cluster, self._records, str(name), image.id, diff_ids=image.diff_ids, total=image.size)

    def source(
        self, source: Source, name: Reference | ImageId | None, otherwise: Reference | None = None
    ) -> IngestPlan:
        """Plan the work of ``Ingest.from_source``. The source is opened, without reading layers."""
        if (place := source.in_engine()) is not None:
            return self.engine(place.engine, place.name, name if isinstance(name, Reference) else None)
        with source.open() as image:
            if image.streams:
                raise UsageError("what is piped in is known only when all of it was read; save it to a file first.")
            link_names.of_source(image, name, otherwise)  # raises for a digest that is not proven
            return self.image(image, str(name or otherwise or image.config.digest))

    def image(self, image: OpenedImage, called: str) -> IngestPlan:
        """Plan what ``Ingest.from_image`` would do with an image ``called`` so, after the images planned before."""
        config, total = image.config, image.known_size
        warn_of_platform(self._records.options, config.platform, self._progress)
        coming = large_layers(image.known_sizes) if total is not None else {}
        about = (called, config.digest)
        found = plan_for(
            self._cluster, self._records, *about, diff_ids=config.diff_ids, total=total, coming=self._coming
        )
        self._coming |= coming
        return found

    def keep(self, name: Reference | ImageId) -> IngestPlan | None:
        """Plan the work of ``Ingest.from_keep``; None without such an image."""
        image = find_in_keep(self._cluster, name, self._records.trust, self._progress)
        if image is None:
            return None
        plan = plan_for(self._cluster, self._records, str(name), image.image_id)
        if plan.uuid is None and plan.bytes_to_send is None:  # strangers say so, and it would be compared
            return replace(plan, uuid=image.collection.uuid, bytes_to_send=0)
        return plan


def plan_for(
    cluster: Cluster,
    records: ImageRecords,
    name: str,
    image_id: Digest,
    *,
    diff_ids: Sequence[Digest] = (),
    total: int | None = None,
    coming: Mapping[Digest, int] = MappingProxyType({}),
) -> IngestPlan:
    """Plan for an image with the ``image_id`` of its source; raises ClusterError.

    ``coming`` are large layers, with their bytes, that Keep will have by then, from images before this one.
    """
    layers = list(dict.fromkeys(diff_ids))
    first, *others = records.options.kinds
    found = records.look_up(image_id, diff_ids)
    collection = found.by_kind.get(first)
    twins = [_twin(found, kind) for kind in others]
    plan = IngestPlan(
        name=name,
        image_id=collection.image_id if collection else found.ids.get(first, image_id),
        uuid=collection.collection.uuid if collection else None,
        size=found.source.layout.size if total is None and found.source is not None else total,
        layers=len(layers),
        layers_held=len(layers),
        bytes_held=total or 0,
        bytes_resumed=0,
        bytes_to_send=0,
        twin=next(iter(twins), None),
    )
    if found.suffices(records.options.kinds):
        return plan
    if records.options.force:
        return replace(plan, layers_held=0, bytes_held=0, bytes_to_send=total)
    known = LayerLookup(cluster, layers, records.trust)
    held = known.layers_in_keep(layers)
    held_then = {diff_id: coming[diff_id] for diff_id in layers if diff_id in coming}
    # Packed ones go out with others of theirs.
    aligned = {layer.diff_id: layer.size for layer in held.values() if layer.locators}
    bytes_held = sum((held_then | aligned).values())
    resumed = SentBlocks(records.options.cache, cluster, image_id).blocks.keys() - known.blocks.keys()
    return replace(
        plan,
        layers_held=len(held.keys() | held_then.keys()),
        bytes_held=bytes_held,
        bytes_resumed=bytes_of(resumed),
        bytes_to_send=None if total is None else max(0, total - bytes_held),
    )


def large_layers(sizes: Mapping[Digest, int]) -> dict[Digest, int]:
    """Aligned layers among some, with their sizes: such layers make the same blocks in every image."""
    return {diff_id: size for diff_id, size in sizes.items() if span_length(size) >= ALIGNED_SPAN}


def _twin(image: LookupResult, kind: str) -> TwinCollection:
    stored = image.by_kind.get(kind)
    if stored is None:
        return TwinCollection(None, None, image.ids.get(kind), already=False)
    return TwinCollection(stored.collection.uuid, stored.collection.pdh, stored.image_id, already=True)

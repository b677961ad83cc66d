# SPDX-License-Identifier: Apache-2.0
"""What an ingest would do: which images are stored, and of the others which layers Keep has. Nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from ..archive.canonical import ALIGNED_SPAN, span_length
from ..arvados.client import Cluster
from ..arvados.dedup import LayerLookup
from ..arvados.resume import SentBlocks
from ..engines import Engine
from ..errors import UsageError
from ..local.progress import size_text
from ..model.image import Digest
from ..model.reference import ImageId, Reference
from ..store import tarballs
from ..transports import OpenedImage, Source
from .lookup import Held
from .options import Beside
from .records import Cataloguing
from .upload import bytes_of


@dataclass(frozen=True, slots=True)
class Planned:
    """What would be done with one image. ``uuid`` is the collection that has it already, None if it is to be stored.

    ``size_text`` is about its number of bytes, None where it is not known before it is read. Of its ``layers``
    Keep has ``layers_held``, of ``bytes_held`` bytes, and an interrupted run left blocks of ``bytes_resumed`` bytes
    there, some of which may be other images'. ``bytes_to_send`` is about what would go to Keep, at most. What images
    that were planned before bring counts as there, as far as that is known.
    ``beside`` is the collection under its other digest, where that is wanted too.
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
    beside: Beside | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self._first}{self._second}"

    @property
    def _first(self) -> str:
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
    def _second(self) -> str:
        if self.beside is None:
            return ""
        called = self.beside.image_id or "its other digest"
        if self.beside.uuid is not None:
            return f"; under {called} too, as {self.beside.uuid}"
        again = self.uuid is not None and self.bytes_to_send
        return f"; under {called} too, " + ("to be read and stored" if again else "of the same blocks")


class Planning:
    """What would be done with images; nothing is written."""

    def __init__(self, cluster: Cluster, records: Cataloguing) -> None:
        """Of images that go into this cluster, whose records these are."""
        self._cluster = cluster
        self._records = records
        self._coming: dict[Digest, int] = {}

    def engine(self, engine: Engine, name: Reference | ImageId) -> Planned:
        """What ``Ingest.from_engine`` would do."""
        image = engine.inspect(name)
        return planned(self._cluster, self._records, str(name), image.id, diff_ids=image.diff_ids, total=image.size)

    def source(self, source: Source, name: Reference | ImageId | None, otherwise: Reference | None = None) -> Planned:
        """What ``Ingest.from_source`` would do. The source is opened, and none of its layers read."""
        if (place := source.in_engine()) is not None:
            return self.engine(place.engine, place.name)
        with source.open() as image:
            if image.streams:
                raise UsageError("what is piped in is known only when all of it was read; save it to a file first.")
            return self.image(image, str(name or otherwise or image.config.digest))

    def image(self, image: OpenedImage, called: str) -> Planned:
        """What ``Ingest.from_image`` would do with an image ``called`` so, after those that were planned before."""
        config, total = image.config, image.known_size
        coming = large(image.known_sizes) if total is not None else {}
        about = (called, config.digest)
        found = planned(
            self._cluster, self._records, *about, diff_ids=config.diff_ids, total=total, coming=self._coming
        )
        self._coming |= coming
        return found

    def keep(self, name: Reference | ImageId) -> Planned | None:
        """What ``Ingest.from_keep`` would do; None if there is no such image."""
        found = self._records.in_keep(name)
        if found is None:
            return None
        plan = planned(self._cluster, self._records, str(name), found[0])
        if plan.uuid is None and plan.bytes_to_send is None:  # strangers say so, and it would be compared
            return replace(plan, uuid=found[1].uuid, bytes_to_send=0)
        return plan


def planned(
    cluster: Cluster,
    records: Cataloguing,
    name: str,
    image_id: Digest,
    *,
    diff_ids: Sequence[Digest] = (),
    total: int | None = None,
    coming: Mapping[Digest, int] = MappingProxyType({}),
) -> Planned:
    """The plan for one image, which its source calls ``image_id``; raises ClusterError.

    ``coming`` are large layers, with their bytes, that Keep will have by then, from images before this one.
    """
    layers = list(dict.fromkeys(diff_ids))
    first, *others = records.options.kinds
    held = records.held(image_id, diff_ids)
    there = held.holders.get(first)
    besides = [_beside(held, kind) for kind in others]
    found = Planned(
        name=name,
        image_id=there.image_id if there else held.ids.get(first, image_id),
        uuid=there.collection.uuid if there else None,
        size=held.source.layout.size if total is None and held.source is not None else total,
        layers=len(layers),
        layers_held=len(layers),
        bytes_held=total or 0,
        bytes_resumed=0,
        bytes_to_send=0,
        beside=next(iter(besides), None),
    )
    if held.has(records.options.kinds):
        return found
    if records.options.force:
        return replace(found, layers_held=0, bytes_held=0, bytes_to_send=total)
    known = LayerLookup(cluster, layers, records.trust)
    parts = known.layers_in_keep(layers)
    there_then = {diff_id: coming[diff_id] for diff_id in layers if diff_id in coming}
    # Packed ones go out with others of theirs.
    in_keep = sum((there_then | {it.diff_id: it.size for it in parts.values() if it.locators}).values())
    resumed = SentBlocks(tarballs.cache_folder(), cluster, image_id).blocks.keys() - known.blocks.keys()
    return replace(
        found,
        layers_held=len(parts.keys() | there_then.keys()),
        bytes_held=in_keep,
        bytes_resumed=bytes_of(resumed),
        bytes_to_send=None if total is None else max(0, total - in_keep),
    )


def large(sizes: Mapping[Digest, int]) -> dict[Digest, int]:
    """Those of some layers that make blocks of their own, the same in every image; by their bytes."""
    return {diff_id: size for diff_id, size in sizes.items() if span_length(size) >= ALIGNED_SPAN}


def _beside(held: Held, kind: str) -> Beside:
    holder = held.holders.get(kind)
    if holder is None:
        return Beside(None, None, held.ids.get(kind), already=False)
    return Beside(holder.collection.uuid, holder.collection.pdh, holder.image_id, already=True)

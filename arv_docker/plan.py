# SPDX-License-Identifier: Apache-2.0
"""What an ingest would do: which images are stored, and of the others which layers Keep has. Nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from . import cache
from .cataloguing import Beside, Cataloguing
from .identities import Held
from .image import Digest
from .keep.client import Cluster
from .keep.delta import KnownLayers
from .keep.resume import SentBlocks
from .progress import size


@dataclass(frozen=True, slots=True)
class Planned:
    """What would be done with one image. ``uuid`` is the collection that has it already, None if it is to be stored.

    ``size`` is about its number of bytes, None where it is not known before it is read. Of its ``layers``
    Keep has ``layers_held``, of ``bytes_held`` bytes, and an interrupted run left blocks of ``bytes_resumed`` bytes
    there, some of which may be other images'. ``bytes_to_send`` is about what would go to Keep, at most.
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
        of = "an unknown number of bytes" if self.size is None else f"about {size(self.size)}"
        held = f", {self.layers_held} of {self.layers} layers are in Keep ({size(self.bytes_held)})"
        resumed = f", up to {size(self.bytes_resumed)} were sent by an interrupted run" if self.bytes_resumed else ""
        most = "at most" if self.bytes_resumed else "about"
        to_send = "" if self.bytes_to_send is None else f"; {most} {size(self.bytes_to_send)} would be sent"
        return f"{of}{held if self.layers else ''}{resumed}{to_send}"

    @property
    def _second(self) -> str:
        if self.beside is None:
            return ""
        called = self.beside.image_id or "its manifest digest"
        if self.beside.uuid is not None:
            return f"; under {called} too, as {self.beside.uuid}"
        again = self.uuid is not None and self.bytes_to_send
        return f"; under {called} too, " + ("to be read and stored" if again else "of the same blocks")


def planned(
    cluster: Cluster,
    records: Cataloguing,
    name: str,
    image_id: Digest,
    *,
    diff_ids: Sequence[Digest] = (),
    total: int | None = None,
) -> Planned:
    """The plan for one image, which its source calls ``image_id``; raises ClusterError."""
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
    known = KnownLayers(cluster, layers, records.trust)
    parts = known.held(layers)
    in_keep = sum(layer.size for layer in parts.values() if layer.locators)  # packed ones go out with others of theirs
    resumed = SentBlocks(cache.cache_folder(), cluster, image_id).blocks.keys() - known.blocks.keys()
    return replace(
        found,
        layers_held=len(parts),
        bytes_held=in_keep,
        bytes_resumed=sum(int(block.partition("+")[2]) for block in resumed),
        bytes_to_send=None if total is None else max(0, total - in_keep),
    )


def _beside(held: Held, kind: str) -> Beside:
    holder = held.holders.get(kind)
    if holder is None:
        return Beside(None, None, held.ids.get(kind), already=False)
    return Beside(holder.collection.uuid, holder.collection.pdh, holder.image_id, already=True)

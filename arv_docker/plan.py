# SPDX-License-Identifier: Apache-2.0
"""What an ingest would do: which images are stored, and of the others which layers Keep has. Nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import cache
from .cataloguing import Cataloguing
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

    def __str__(self) -> str:
        if self.uuid is not None:
            return f"{self.name}: already stored, as {self.uuid}"
        of = "an unknown number of bytes" if self.size is None else f"about {size(self.size)}"
        held = f", {self.layers_held} of {self.layers} layers are in Keep ({size(self.bytes_held)})"
        resumed = f", up to {size(self.bytes_resumed)} were sent by an interrupted run" if self.bytes_resumed else ""
        most = "at most" if self.bytes_resumed else "about"
        to_send = "" if self.bytes_to_send is None else f"; {most} {size(self.bytes_to_send)} would be sent"
        return f"{self.name}: {of}{held if self.layers else ''}{resumed}{to_send}"


def planned(
    cluster: Cluster,
    records: Cataloguing,
    name: str,
    image_id: Digest,
    *,
    diff_ids: Sequence[Digest],
    total: int | None,
) -> Planned:
    """The plan for one image; raises ClusterError."""
    layers = list(dict.fromkeys(diff_ids))
    if (there := records.peek(image_id)) is not None:
        return Planned(name, image_id, there.uuid, total, len(layers), len(layers), total or 0, 0, 0)
    known = KnownLayers(cluster, layers, records.trust)
    held = known.held(layers)
    in_keep = sum(layer.size for layer in held.values() if layer.locators)  # packed ones go out with others of theirs
    resumed = SentBlocks(cache.cache_folder(), cluster, image_id).blocks.keys() - known.blocks.keys()
    left = sum(int(block.partition("+")[2]) for block in resumed)
    to_send = None if total is None else max(0, total - in_keep)
    return Planned(name, image_id, None, total, len(layers), len(held), in_keep, left, to_send)

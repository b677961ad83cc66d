# SPDX-License-Identifier: Apache-2.0
"""Blocks that Keep has already: found by the layers of an image, before any of them is sent.

An aligned layer makes the same blocks in every image (docs/spec/trust.md#layer-links). A link of class
``docker_image_layer`` says which collection holds a layer; reading that collection gives
locators that are signed for us. Nobody's word is taken for bytes: each block is still
read, and hashed by MD5 like its layer by SHA-256; a link that lies spares nothing and
harms nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

from ..archive.canonical import BLOCK_SIZE, Layout
from ..archive.layer import Layer
from ..errors import BadManifestText, ClusterError, ContentError
from ..model.image import Digest
from ..model.manifest_text import Locator, locators, parse
from .catalog.link_query import collections_of
from .client import Cluster, CollectionRecord, Link
from .stored import StoredImage
from .trust import Trust

LAYER = "docker_image_layer"

#: A locator whose signature ends sooner is not used: the collection may be created only when the last block is sent.
LEAST_VALIDITY = 3600

#: Collections that are read for their locators; the newest hold what is wanted.
_MOST_COLLECTIONS = 50
_MOST_OF_OTHERS = 3
#: The storage classes that our collections have; blocks of others may be kept with less care.
_USUAL = ((), ("default",))
_SIGNATURE = re.compile(r"\+A[0-9a-f]{40}@([0-9a-f]{1,8})")


@dataclass(frozen=True, slots=True)
class LayerInKeep:
    """A layer that a trusted collection holds. ``locators`` are its blocks if it is aligned; a packed one has none
    of its own, and ``opened`` reads it from Keep. ``size`` is that of its content in bytes."""

    diff_id: Digest
    size: int
    locators: tuple[str, ...]
    opened: Callable[[], Layer]


class LayerLookup:
    """Lookup of what the cluster's links say of some layers, in two requests.

    ``blocks`` are signed locators by ``md5+size``, fit to go into a manifest text of ours.
    """

    def __init__(self, cluster: Cluster, diff_ids: Collection[Digest], trust: Trust) -> None:
        self._cluster = cluster
        self._trust = trust
        names = list(dict.fromkeys(map(str, diff_ids)))
        self._links = cluster.newest_links([["link_class", "=", LAYER], ["name", "in", names]]) if names else []
        self._holders: dict[str, CollectionRecord] = {}
        self.blocks: dict[str, str] = {}
        for holder in _readable(cluster, self._worth_reading()):
            self.blocks.update(usable_blocks(holder.manifest_text or "", time.time()))
            self._holders[holder.uuid] = holder
        self._served = {link.name for link in self._links if self._serves(link)}

    def _worth_reading(self) -> list[Link]:
        """The newest links of trusted users, and a few of others, whose collections may be large and of no use."""
        ours = [link for link in self._links if self._trust.includes(link.modified_by)]
        others = [link for link in self._links if not self._trust.includes(link.modified_by)]
        return ours[:_MOST_COLLECTIONS] + others[:_MOST_OF_OTHERS]

    @property
    def holders(self) -> list[CollectionRecord]:
        """The collections that hold some of the layers by attested links, those of the newest first."""
        heads = dict.fromkeys(link.head_uuid for link in self._links if self._serves(link))
        return [self._holders[uuid] for uuid in heads]

    @property
    def unattested_layers(self) -> frozenset[str]:
        """Layers that are in Keep only by links that are not attested: old links, or links of other users."""
        return frozenset(link.name for link in self._links) - self._served

    def layers_in_keep(self, diff_ids: Collection[Digest]) -> dict[Digest, LayerInKeep]:
        """Layers among ``diff_ids`` that need not come from anywhere else.

        An aligned one on the word of an attested link to it, which says that its bytes were
        checked; a packed one out of the same collections, for it is read and hashed.
        """
        images: dict[str, StoredImage | None] = {}
        found: dict[Digest, LayerInKeep] = {}
        for link in self._links:
            holder = self._holders.get(link.head_uuid)
            if holder is None or not self._trust.attests(link, holder):
                continue
            if holder.uuid not in images:
                images[holder.uuid] = self._open_image(holder)
            stored = images[holder.uuid]
            if stored is None:
                continue
            for layer in _layers_of(stored, self.blocks):
                if layer.diff_id in diff_ids and (not layer.locators or link.name == str(layer.diff_id)):
                    found.setdefault(layer.diff_id, layer)
        return found

    def packed_layers_in(
        self, collections: Iterable[CollectionRecord], diff_ids: Collection[Digest]
    ) -> dict[Digest, LayerInKeep]:
        """Layers among ``diff_ids`` that are packed in the archives of some collections. No link is about such layers:
        they are read from Keep, and hashed."""
        found: dict[Digest, LayerInKeep] = {}
        for collection in collections:
            if len(found) < len(set(diff_ids)) and (stored := self._open_image(collection)) is not None:
                for layer in _layers_of(stored, {}):
                    if layer.diff_id in diff_ids:
                        found.setdefault(layer.diff_id, layer)
        return found

    def _open_image(self, holder: CollectionRecord) -> StoredImage | None:
        """The image of a collection, if it is a canonical archive that can be read."""
        try:
            stored = StoredImage(self._cluster, holder)
        except (ContentError, ClusterError):
            return None
        return stored if stored.canonical is not None else None

    def write_links(self, layout: Layout, collection: CollectionRecord) -> list[str]:
        """Write a link for each aligned layer that no trusted link finds; return what the cluster refused, as words.

        Such a link only saves work, so that a refusal is no failure. Of those that several processes wrote at the same
        moment, for one image or for several that share a layer, the oldest stays.
        """
        refused, written = [], []
        for span in layout.aligned_spans:
            if str(span.diff_id) in self._served:
                continue
            self._served.add(str(span.diff_id))
            try:
                self._cluster.create_link(_attributes(span.diff_id, collection))
                written.append(str(span.diff_id))
            except ClusterError as error:
                refused.append(f"layer {span.diff_id.short_hex} was not linked: {error.message}")
                if not error.is_refusal:  # the next would fail as well, and be waited for
                    break
        if written:
            try:
                self._delete_later_links(written)
            except ClusterError as error:
                refused.append(f"whether others linked the same layers was not found out: {error.message}")
        return refused

    def _delete_later_links(self, names: Sequence[str]) -> None:
        """Leave the oldest of this user's links for each of these layers that attests where it is; whoever wrote one
        looks afterwards, so that the last to look sees all."""
        cluster = self._cluster
        by_name = cluster.links([["link_class", "=", LAYER], ["name", "in", list(names)]])
        mine = [link for link in by_name if link.modified_by == cluster.user_uuid]
        if len(mine) == len(names):
            return
        holders = collections_of(cluster, mine)
        kept: set[str] = set()
        for link in sorted(mine, key=lambda link: (link.created_at, link.uuid)):
            holder = holders.get(link.head_uuid)
            if holder is None or holder.trash_at or not self._trust.attests(link, holder):
                continue
            if link.name in kept:
                cluster.delete_link(link.uuid)
            kept.add(link.name)

    def _serves(self, link: Link) -> bool:
        holder = self._holders.get(link.head_uuid)
        return holder is not None and self._trust.attests(link, holder)


def _layers_of(stored: StoredImage, usable: Mapping[str, str]) -> Iterator[LayerInKeep]:
    """The layers of a canonical archive whose blocks may go into a manifest text of ours."""
    starts = dict(
        zip(accumulate((it.length for it in stored.file.segments), initial=0), stored.file.segments, strict=False)
    )
    for span in stored.layout.spans:
        locators: tuple[str, ...] = ()
        if span.is_aligned:
            parts = [starts.get(span.offset + start) for start in range(0, span.length, BLOCK_SIZE)]
            names = [part.locator.without_hints if part else "" for part in parts]
            locators = tuple(usable[name] for name in names if name in usable)
            held = sum(part.length for part in parts if part and (part.offset, part.length) == (0, part.locator.size))
            if len(locators) < len(parts) or held != span.length:
                continue
        yield LayerInKeep(span.diff_id, span.size, locators, partial(stored.archived.layer, span.diff_id))


def usable_blocks(text: str, now: float) -> dict[str, str]:
    """The locators of a manifest text that may go into another one, by ``md5+size``.

    Not those of other clusters (``+R``), without a size, or whose signature ends within
    LEAST_VALIDITY seconds. Text that does not parse has none.
    """
    try:
        found = locators(parse(text))
        return {locator.without_hints: str(locator) for locator in found if _is_usable(locator, now)}
    except BadManifestText:
        return {}


def _is_usable(locator: Locator, now: float) -> bool:
    signature = _SIGNATURE.search(locator.hints)
    if locator.size is None or "+R" in locator.hints or "+K" in locator.hints:
        return False
    # Without a signature: a cluster that signs nothing.
    return signature is None or int(signature[1], 16) > now + LEAST_VALIDITY


def _readable(cluster: Cluster, links: Iterable[Link]) -> Iterator[CollectionRecord]:
    """Collections that the links still lead to, with storage no weaker than ours.

    Whoever wishes for no copy at all may have none: the server takes 0, and its garbage collection at its word.
    """
    for found in collections_of(cluster, links, manifest=True).values():
        copies = cluster.replication if found.replication is None else found.replication
        if copies >= cluster.replication and found.storage_classes in _USUAL:
            yield found


def _attributes(diff_id: Digest, collection: CollectionRecord) -> dict[str, object]:
    """Attributes of a layer link. No properties: clusters with a strict vocabulary refuse keys they do not know."""
    return {
        "link_class": LAYER,
        "name": str(diff_id),
        "head_uuid": collection.uuid,
        "tail_uuid": collection.pdh,
        "owner_uuid": collection.owner_uuid,
    }

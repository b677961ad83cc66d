# SPDX-License-Identifier: Apache-2.0
"""``keep:``, an image in a collection of a cluster.

As a source it is any image there, by its name, its ID, or its collection's UUID or PDH. As a destination it takes
blocks; that they become a collection, and which names that gets, is for ``ingest`` to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..archive.stream import StreamedArchive
from ..arvados.blocks import ArchiveWriter, BlockStore, StoredArchive
from ..arvados.catalog import link_query, platforms, resolver
from ..arvados.catalog.link_classes import REPO_TAG
from ..arvados.client import Cluster
from ..arvados.dedup import LayerInKeep
from ..arvados.sdk import settings_file
from ..arvados.stored import StoredImage
from ..errors import ArvDockerError, ContentError, KeepError, UsageError
from ..local.progress import UNHEARD_STEP, Advance
from ..model.image import Digest
from ..model.reference import references_in
from ..store.cache import NO_CACHE, CacheFolder
from . import Destination, OpenedImage, Source, known_layers
from .local import names_present
from .names import Choice, split

#: Says of which of these layers Keep has every byte, by the word of attested links; they need not come from elsewhere.
LookUp = Callable[[Sequence[Digest]], Mapping[Digest, LayerInKeep]]


@dataclass(frozen=True, slots=True)
class Place:
    """A place in Keep: the name of a cluster's settings file, None for the usual cluster, and what an image is called
    there."""

    cluster: str | None
    name: str

    @classmethod
    def parse(cls, rest: str) -> Place:
        """The place in ``[CLUSTER/]NAME``. A name may have slashes of its own; its first part is a cluster if there
        are settings of that name."""
        first, slash, name = rest.partition("/")
        named_cluster = bool(slash) and (not name or settings_file(first) is not None)
        return cls(first, name) if named_cluster else cls(None, rest)


def place_of(text: str) -> Place | None:
    """The place in Keep that ``text`` names; None for any other transport, and for a plain name."""
    transport, rest = split(text)
    return Place.parse(rest) if transport == "keep" else None


def source(rest: str, choice: Choice) -> KeepSource:
    """The source ``[CLUSTER/]NAME``, the name being an image's name or ID, or a collection's UUID or PDH."""
    place = Place.parse(rest)
    if not place.name:
        raise UsageError(f"keep:{rest} names no image. Write keep:[CLUSTER/]NAME.")
    return KeepSource(place, choice)


class KeepSource(Source):
    """An image in a cluster."""

    def __init__(self, place: Place, choice: Choice) -> None:
        self._place = place
        self._choice = choice

    @contextmanager
    def open(self) -> Iterator[StoredImage]:
        """Open the image; ``tags`` are the names by trusted users there, beginning with the name that was asked for.

        Raises what ``resolver.resolve`` and ``StoredImage`` raise, and UntrustedName for a name by the word of an
        untrusted user, where what is read here is written elsewhere under that name; else that is a warning.
        """
        with self._choice.clusters(self._place.cluster) as cluster:
            trust = self._choice.trust(cluster)
            found = resolver.resolve(cluster, self._place.name, trust)
            if self._choice.only_shown:
                for warning in found.warnings:
                    self._choice.progress.warn(warning)
            else:
                resolver.check_trusted(self._place.name, found)
            if self._choice.platform is not None:
                found = platforms.choose_platform(cluster, found, self._choice.platform, self._choice.progress)
            collection = resolver.collection_with_uuid(cluster, found.collection)
            links = link_query.links_to(cluster, [collection.uuid], [REPO_TAG])
            attested = (link.name for link in links if trust.attests(link, collection))
            tags = dict.fromkeys(name.link_name for name in references_in(attested))
            yield StoredImage(cluster, collection, tags=tuple(self._asked_first(tags)))

    def _asked_first(self, tags: Iterable[str]) -> list[str]:
        asked = {name.link_name for name in references_in([self._place.name])}
        return sorted(tags, key=lambda tag: tag not in asked)


class KeepDestination(Destination[StoredArchive]):
    """Keep as a place for canonical archives. Writing stores blocks; a collection is made of them afterwards.

    ``spool_folder`` is where small layers may wait if there are very many. ``known`` are
    signed locators of blocks that need not be sent, by ``md5+size``; ``note`` is told of
    each that was; ``look_up`` is asked once for each layer, None where all are to be read.
    ``bytes_sent`` and ``bytes_spared`` count what went to Keep, and what did not have to;
    ``sent`` are the names of the blocks that did.
    """

    def __init__(
        self,
        cluster: Cluster,
        spool_folder: Path,
        known: Mapping[str, str] | None = None,
        note: Callable[[str], None] | None = None,
        look_up: LookUp | None = None,
        *,
        cache: CacheFolder = NO_CACHE,
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self._spool_folder = spool_folder
        self.known = known or {}
        self._note = note
        self._look_up = look_up
        self._held: dict[Digest, LayerInKeep | None] = {}
        self.sent: set[str] = set()
        self.bytes_sent = 0
        self.bytes_spared = 0

    def present(self, layers: Sequence[Digest]) -> frozenset[Digest]:
        """The layers that Keep has by the word of attested links, and small ones in the same collections. Blocks that
        it has otherwise are not sent either, but their layers are read and hashed. Raises ClusterError."""
        return names_present(layers, self._there, self._cache.layer_table())

    def write(self, image: OpenedImage, advance: Advance, spared: Advance = UNHEARD_STEP) -> StoredArchive:
        """Store the image's canonical archive, every layer checked. Raises what the layers raise, and KeepError.

        Layers that are ``present`` are not asked of the image: of the aligned ones Keep has every
        block, and the packed ones are read from there, if that can be done. ``spared`` is told
        of bytes that are not sent, from any thread.
        """
        blocks = BlockStore(self._put, self.known, spared)
        there = self._there(known_layers(image))
        with closing(ArchiveWriter(blocks, advance, self._spool_folder)) as writer:
            taken = {it.diff_id for it in there.values() if self._take_layer(writer, it, advance, spared)}
            for layer in image.layers(skip=taken):
                writer.add(layer)
            stored = writer.finish(image.config)
        self._count(blocks)
        return stored

    def write_all(
        self, archive: StreamedArchive, advance: Advance, spared: Advance = UNHEARD_STEP
    ) -> dict[Digest, StoredArchive | ArvDockerError]:
        """Store every image of an archive, layers that they share once; by ID and by its other digests there.

        What is wrong with one is in its place.

        Raises what concerns them all: KeepError, and what the archive as a whole raises.
        """
        blocks = BlockStore(self._put, self.known, spared)
        stored: dict[Digest, StoredArchive | ArvDockerError] = {}
        with closing(ArchiveWriter(blocks, advance, self._spool_folder)) as writer:
            for layer in archive.layers():
                writer.add(layer)
            finished: dict[Digest, StoredArchive] = {}
            for name, image in archive.images.items():
                if isinstance(image, ArvDockerError):
                    stored[name] = image
                elif image.digest not in finished:
                    stored[name] = finished[image.digest] = writer.finish(image)
                else:  # by another of its digests
                    stored[name] = finished[image.digest]
        self._count(blocks)
        return stored

    def _there(self, diff_ids: Sequence[Digest]) -> Mapping[Digest, LayerInKeep]:
        new = [it for it in dict.fromkeys(diff_ids) if it not in self._held]
        if new and self._look_up is not None:
            found = self._look_up(new)
            self._held.update((it, found.get(it)) for it in new)
        return {it: held for it in diff_ids if (held := self._held.get(it)) is not None}

    def _count(self, blocks: BlockStore) -> None:
        self.sent = blocks.sent
        self.bytes_sent = blocks.bytes_sent
        self.bytes_spared += blocks.bytes_spared

    def _take_layer(self, writer: ArchiveWriter, layer: LayerInKeep, advance: Advance, spared: Advance) -> bool:
        """Take the layer from Keep, and say if it came; a block that is lost or damaged there is no reason to fail."""
        if layer.locators:
            writer.take(layer.diff_id, layer.size, layer.locators)
            self.bytes_spared += layer.size
            advance(layer.size)
            spared(layer.size)
            return True
        try:
            writer.add(layer.opened())
        except (ContentError, KeepError):
            return False
        return True

    def _put(self, content: memoryview, md5: str) -> str:
        locator = self._cluster.put_block(content, md5)
        if self._note is not None:
            self._note(locator)
        return locator

# SPDX-License-Identifier: Apache-2.0
"""Storing images in Keep: first their blocks, as far as Keep lacks them, then their records.

The rules are those of docs/spec/ingest.md#store.

Which images these are, and what they are called, is for ``ingest``, ``piped`` and ``together`` to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from ..archive.stream import StreamedArchive
from ..arvados.blocks import StoredArchive
from ..arvados.catalog import resolver
from ..arvados.client import Cluster
from ..arvados.dedup import LayerInKeep, LayerLookup
from ..arvados.resume import SentBlocks
from ..errors import ArvDockerError, ClusterError
from ..images import tags
from ..local.progress import Progress
from ..model.image import CLASSIC_LAYER_LIMIT, Digest
from ..model.reference import Reference
from ..store import tarballs
from ..transports import OpenedImage
from ..transports.keep import KeepDestination
from .options import Ingested
from .records import Cataloguing, Written

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Expected:
    """What images are said to be before they are read; by that it is looked up what Keep has of them.

    ``size`` is about their number of bytes, None where nobody says.
    """

    image_ids: Sequence[Digest]
    diff_ids: Sequence[Digest]
    size: int | None


#: What is piped in: nothing is known of it before its end.
UNKNOWN = Expected((), (), None)


@dataclass(slots=True)
class Joint:
    """Images of one archive whose blocks were stored together, by ID and by their other digests; what is wrong with one
    is in its place. ``Storing.share_of`` gives each of them.

    ``unsaid`` are the names of blocks that were sent and count for none of them yet, ``known`` of those that Keep had.
    """

    images: Mapping[Digest, StoredArchive | ArvDockerError]
    expected: Expected
    layers: LayerLookup
    unsaid: set[str]
    known: Set[str]


class Storing:
    """Stores images in one cluster, and has them recorded there."""

    def __init__(self, cluster: Cluster, records: Cataloguing, progress: Progress) -> None:
        """``records`` are the cluster's; how images are stored is what their options say."""
        self.records = records
        self.options = records.options
        self._cluster = cluster
        self._progress = progress

    def locked(self, image_id: Digest) -> AbstractContextManager[Path]:
        """Where the image's tarball belongs, while no other process works on that image."""
        return tarballs.locked(tarballs.cache_folder(), image_id, self._waiting(image_id))

    def unless_known(
        self, image_id: Digest, known: Callable[[], Ingested | None], store: Callable[[bool], Ingested]
    ) -> Ingested:
        """The image, if it is ``known`` and not to be stored all the same; else what ``store`` makes of it, which is
        called as by ``anew_if_refused``."""
        result = None if self.options.force else known()
        if result is None:
            result = self.anew_if_refused(store)
        self.forget(image_id)
        return result

    def anew_if_refused(self, store: Callable[[bool], Value]) -> Value:
        """What ``store`` gives, which is told whether blocks that Keep has are to be spared.

        If the cluster makes no collection of such blocks, once more, with every block sent.
        """
        try:
            return store(not self.options.force)
        except _SparedRefusedError:
            self._progress.say("the cluster does not take blocks that it had already; sending everything again")
        return store(False)

    def forget(self, image_id: Digest) -> None:
        """Removes the record of the blocks that were sent: the image is in Keep."""
        SentBlocks(tarballs.cache_folder(), self._cluster, image_id).discard()

    # -- blocks --------------------------------------------------------------------------

    def store(self, image: OpenedImage, expected: Expected, *, spare: bool, called: Reference | None = None) -> Written:
        """Stores the blocks of an image; those that Keep has are not sent, if they are to be spared.

        Of one that is far away not even such layers are read: they are looked for in other images
        of what it is ``called``, too.
        """
        far = not image.is_local
        layers, destination = self._destination(expected, spare=spare, far=far, called=called)
        if far and (doubted := layers.unattested_layers - set(map(str, destination.present(expected.diff_ids)))):
            self._progress.say(
                f"layers that only others say to be in Keep: {len(doubted)}; they are fetched and compared"
            )
        with self._progress.store_step("storing in Keep", expected.size) as told:
            stored = destination.write(image, told, told.skip)
        sent, spared = destination.bytes_sent, destination.bytes_spared
        return self._written(stored, expected, layers, image.digests, sent=sent, spared=spared)

    def store_every(self, archive: StreamedArchive, expected: Expected, title: str, *, spare: bool) -> Joint:
        """Stores the blocks of every image of an archive, those that they share once."""
        layers, destination = self._destination(expected, spare=spare)
        with self._progress.store_step(title, expected.size) as told:
            images = destination.write_all(archive, told, told.skip)
        return Joint(images, expected, layers, set(destination.sent), destination.known.keys())

    def share_of(self, joint: Joint, archive: StoredArchive, digests: tuple[Digest, ...]) -> Written:
        """One of the images that were stored together, with the digests by which its source calls it.

        A block counts as sent for the first of them that is asked for.
        """
        sent, spared = archive.names & joint.unsaid, archive.names & joint.known
        joint.unsaid -= sent
        return self._written(
            archive, joint.expected, joint.layers, digests, sent=bytes_of(sent), spared=bytes_of(spared)
        )

    def catalogue(self, written: Written, name: Reference | None) -> Ingested:
        """Has an image recorded whose blocks are in Keep; raises what ``naming.check_free`` raises."""
        if name is not None:
            tags.check_free(self._cluster, name, written.stored.layout.config.digest)
        try:
            return self.records.write(written, name)
        except ClusterError as error:
            if error.status == 403 and written.spared:
                raise _SparedRefusedError from error
            raise

    # -- private -------------------------------------------------------------------------

    def _destination(
        self, expected: Expected, *, spare: bool, far: bool = False, called: Reference | None = None
    ) -> tuple[LayerLookup, KeepDestination]:
        """Keep, with what it has of these layers and of what an interrupted run sent of these images."""
        folder = tarballs.cache_folder()
        sent = SentBlocks(folder, self._cluster, *expected.image_ids)
        layers = LayerLookup(self._cluster, expected.diff_ids, self.records.trust)
        resumed = sent.blocks if self.options.use_cache else {}
        known = {**layers.blocks, **resumed} if spare else {}
        note = sent.note if self.options.use_cache else None
        look_up = partial(self._held, layers, called) if far and spare else None
        return layers, KeepDestination(self._cluster, folder, known, note, look_up)

    def _held(
        self, layers: LayerLookup, called: Reference | None, diff_ids: Sequence[Digest]
    ) -> dict[Digest, LayerInKeep]:
        """The layers that need not be fetched."""
        held = layers.layers_in_keep(diff_ids)
        if called is None or not (left := set(diff_ids) - held.keys()):
            return held
        return held | layers.packed_layers_in(
            resolver.collections_of_repository(self._cluster, called, self.records.trust), left
        )

    def _written(
        self,
        stored: StoredArchive,
        expected: Expected,
        layers: LayerLookup,
        digests: tuple[Digest, ...],
        *,
        sent: int,
        spared: int,
    ) -> Written:
        diff_ids = stored.layout.config.diff_ids
        if not expected.diff_ids:  # only now is it known which layers these are
            layers = LayerLookup(self._cluster, diff_ids, self.records.trust)
        if len(diff_ids) > CLASSIC_LAYER_LIMIT:
            self._progress.warn(
                f"the image has {len(diff_ids)} layers; Docker's classic store "
                f"cannot load more than {CLASSIC_LAYER_LIMIT}"
            )
        return Written(stored, sent, spared, layers, digests)

    def _waiting(self, image_id: Digest) -> Iterator[None]:
        self._progress.say(f"another process works on image {image_id.short}; waiting for it")
        yield


class _SparedRefusedError(Exception):
    """The cluster does not make a collection of blocks that it had before us."""


def bytes_of(names: Iterable[str]) -> int:
    """The bytes of some blocks, by their names (``md5+size``)."""
    return sum(int(name.partition("+")[2]) for name in names)

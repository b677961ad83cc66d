# SPDX-License-Identifier: Apache-2.0
"""Getting an image out of Keep into an engine, with nothing loaded that was not verified."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

from ..arvados.client import Cluster, CollectionRecord
from ..arvados.stored import StoredImage
from ..engines import Engine
from ..local.progress import Advance, Progress
from ..model.image import Digest
from ..model.reference import Reference
from ..store.cache import NO_CACHE, CacheFolder
from ..transports.docker_daemon import ensure_loaded


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image that the engine has now. ``already``: it was there before, and nothing was fed.

    ``bytes_read`` counts what came out of Keep, in whole blocks; ``bytes_spared`` what of the archive
    did not have to, for the engine had those layers.
    """

    image_id: Digest
    engine_id: Digest
    name: str | None
    already: bool
    bytes_read: int
    bytes_spared: int


def load(
    cluster: Cluster,
    collection: CollectionRecord,
    engine: Engine,
    name: Reference | None,
    progress: Progress,
    *,
    cache: CacheFolder = NO_CACHE,
) -> LoadedImage:
    """Load the image of a collection into an engine and give it ``name`` there; ``cache`` learns the layers' sizes.

    Raises what reading and checking the image raises (ContentError, KeepError), in which
    case the engine has nothing new, and EngineError.
    """
    stored = StoredImage(cluster, collection)
    tagged = name if name is not None and name.digest is None else None

    def step(total: int) -> AbstractContextManager[Advance]:
        return progress.step(f"loading into {engine.name}", total)  # which engine it is shows only now

    there = ensure_loaded(engine, stored, tagged, step, progress.say, table=cache.layer_table())
    text = str(tagged) if tagged is not None else None
    return LoadedImage(stored.config.digest, there.engine_id, text, there.already, stored.bytes_read, there.spared)

# SPDX-License-Identifier: Apache-2.0
"""Getting an image out of Keep into an engine, with nothing loaded that was not verified."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from .engine import Engine
from .errors import EngineError
from .image import Digest
from .keep.client import Cluster, CollectionRecord
from .keep.stored import StoredImage
from .progress import Progress
from .reference import Reference
from .transports.docker_daemon import EngineDestination, engine_id


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image that the engine has now. ``already`` says that it had it before and nothing was fed.

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
    cluster: Cluster, collection: CollectionRecord, engine: Engine, name: Reference | None, progress: Progress
) -> Loaded:
    """Loads the image of a collection into an engine and gives it ``name`` there.

    Raises what reading and checking the image raises (ContentError, KeepError), in which
    case the engine has nothing new, and EngineError.
    """
    stored = StoredImage(cluster, collection)
    there, spared = engine_id(engine, stored.layout), 0
    if there is None:
        loaded, spared = _fed(stored, engine, progress)
    else:
        loaded = there
    tagged = name is not None and name.digest is None
    if name is not None and tagged:
        engine.tag(loaded, name)
    text = str(name) if tagged else None
    return Loaded(stored.config.digest, loaded, text, there is not None, stored.bytes_read, spared)


def _fed(stored: StoredImage, engine: Engine, progress: Progress) -> tuple[Digest, int]:
    """The engine's ID of the image after loading it, and the bytes that it could do without.

    First without the layers that the engine has. Whether it takes such an archive is for it to
    say; where it does not, all is loaded.
    """
    destination = EngineDestination(engine)
    present = destination.present(stored.config.diff_ids)
    spared = sum(span.length for span in stored.layout.spans if span.diff_id in present)

    def feed(skip: Container[Digest], size: int) -> Digest:
        with progress.step(f"loading into {engine.name}", size) as advance:
            return destination.write(stored, advance, skip)

    if spared:
        try:
            return feed(present, stored.layout.size - spared), spared
        except EngineError as error:
            progress.say(f"{engine.name} does not do with the layers that it has, loading all of them: {error.message}")
    return feed((), stored.layout.size), 0

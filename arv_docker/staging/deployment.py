# SPDX-License-Identifier: Apache-2.0
"""Loading the images of a folder into an engine: those that it has not, and none before all are verified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..engine import Engine
from ..engine.docker import Docker
from ..errors import NoSuchImage
from ..image import Digest
from ..progress import Progress, Silent
from ..transports.docker_daemon import held
from .folder import PlainFolder
from .staged import Container, Copy, sound


@dataclass(frozen=True, slots=True)
class Deployed:
    """An image that an engine has now: its ID there, and whether it had to be loaded."""

    container: Container
    engine_id: Digest
    loaded: bool


def deploy(
    directory: Path | str,
    engine: Engine | None = None,
    *,
    copies: Sequence[Copy] | None = None,
    progress: Progress | None = None,
) -> tuple[Deployed, ...]:
    """Sees to it that the engine (Docker unless given) has every image of the folder, under its name.

    ``copies`` are what the folder holds, where that is of another form than the usual one. Raises
    NoSuchImage for one that holds no image, NotVerified, before anything is loaded, if something
    in it is not as it was staged, and EngineError.

    >>> import arv_docker  # doctest: +SKIP
    >>> [it.container.name for it in arv_docker.deploy("containers") if it.loaded]  # doctest: +SKIP
    """
    progress = progress or Silent()
    found = verified(PlainFolder(Path(directory)).copies() if copies is None else copies, directory, progress)
    engine = engine or Docker()
    return tuple(_deployed(it, engine, progress) for it in found)


def verified(copies: Sequence[Copy], directory: Path | str, progress: Progress) -> list[Container]:
    """The images of a folder, all as they were staged; raises NoSuchImage and NotVerified as ``deploy`` does."""
    if not copies:
        raise NoSuchImage(f"{directory} holds no staged image. Put some there: arv-docker stage NAME --dir {directory}")
    return sound(copies, progress)


def _deployed(container: Container, engine: Engine, progress: Progress) -> Deployed:
    with container.open() as image:
        step = partial(progress.step, f"loading {container.name} into {engine.name}")
        there = held(engine, image, container.called, step, progress.say)
    return Deployed(container, there.engine_id, not there.already)

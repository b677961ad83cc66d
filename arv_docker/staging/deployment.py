# SPDX-License-Identifier: Apache-2.0
"""Loading the images of a folder into an engine: those that it has not, and none before all are verified."""

from __future__ import annotations

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
from .staged import Container, Folder, sound


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
    folder: Folder | None = None,
    progress: Progress | None = None,
) -> tuple[Deployed, ...]:
    """Sees to it that the engine (Docker unless given) has every image of the folder, under its name.

    ``folder`` is the form in which the directory is kept. Raises NoSuchImage for one that holds no image,
    NotVerified, before anything is loaded, if something in it is not as it was staged, and EngineError.

    >>> import arv_docker  # doctest: +SKIP
    >>> [it.container.name for it in arv_docker.deploy("containers") if it.loaded]  # doctest: +SKIP
    """
    progress = progress or Silent()
    found = verified(folder or PlainFolder(Path(directory)), directory, progress)
    engine = engine or Docker()
    return tuple(_deployed(it, engine, progress) for it in found)


def verified(folder: Folder, directory: Path | str, progress: Progress) -> list[Container]:
    """The images of a folder, all as they were staged; raises NoSuchImage and NotVerified as ``deploy`` does."""
    copies = folder.copies()
    if not copies:
        raise NoSuchImage(f"{directory} holds no staged image. Put some there: arv-docker stage NAME --dir {directory}")
    return sound(copies, progress)


def _deployed(container: Container, engine: Engine, progress: Progress) -> Deployed:
    with container.open() as image:
        step = partial(progress.step, f"loading {container.name} into {engine.name}")
        there = held(engine, image, container.called, step, progress.say)
    return Deployed(container, there.engine_id, not there.already)

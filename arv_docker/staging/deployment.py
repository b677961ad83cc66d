# SPDX-License-Identifier: Apache-2.0
"""Loading the images of a folder into an engine: those that it has not, and none before all are verified.

Apptainer holds no images: for it an image is there when there is a SIF file of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..engines import Engine
from ..engines.apptainer import Apptainer
from ..engines.docker import Docker
from ..errors import NoSuchImage
from ..local.progress import Progress, Silent
from ..model.image import Digest, Platform
from ..model.manifest import suits
from ..store.content_store import Entry, user_entries
from ..transports.docker_daemon import held
from .folder import PlainFolder
from .sifs import SifFolder
from .staged import Container, Copy, containers, sound, wanted

_OF_DOCKER = frozenset({"docker", "udocker", "podman"})
#: The kinds of images that each engine takes, as WfExS has it (docs/spec/wfexs.md#accepted-images).
TAKES: Mapping[str, frozenset[str]] = {
    "docker": _OF_DOCKER,
    "podman": _OF_DOCKER,
    "apptainer": _OF_DOCKER | {"singularity"},
    "singularity": _OF_DOCKER | {"singularity"},
    "none": frozenset({"none"}),
}


@dataclass(frozen=True, slots=True)
class Deployed:
    """An image that an engine has now: its ID there, and whether it had to be loaded; for Apptainer, built."""

    container: Container
    engine_id: Digest
    loaded: bool


def deploy(
    directory: Path | str,
    engine: Engine | Apptainer | None = None,
    *,
    copies: Sequence[Copy] | None = None,
    progress: Progress | None = None,
) -> tuple[Deployed, ...]:
    """Sees to it that the engine (Docker unless given) has every image of the folder, under its name.

    For Apptainer a SIF file is built where the folder has only an archive; other engines take no SIF files.
    ``copies`` are what the folder holds, where that is of another form than the usual one. Raises
    NoSuchImage for one that holds no image, NotVerified, before anything is loaded, if something
    in it is not as it was staged, and EngineError.

    >>> import arv_docker  # doctest: +SKIP
    >>> [it.container.name for it in arv_docker.deploy("containers") if it.loaded]  # doctest: +SKIP
    """
    progress = progress or Silent()
    copies = PlainFolder(Path(directory)).copies() if copies is None else copies
    found = verified(copies, directory, progress)
    engine = engine or Docker()
    if isinstance(engine, Apptainer):
        _tell_of_others(found, engine.name, engine.platform(), progress)
        return tuple(_built(found, copies, SifFolder(Path(directory), progress=progress, apptainer=engine)))
    taken = [it for it in found if accepts(engine.name, [it.kind])]
    _tell_left_out(found, taken, engine.name, progress)
    _tell_of_others(taken, engine.name, engine.platform(), progress)
    return tuple(_deployed(it, engine, progress) for it in taken)


def accepts(engine: str, kinds: Iterable[str]) -> bool:
    """Whether an engine takes images of one of the kinds."""
    return not TAKES[engine].isdisjoint(kinds)


def verified(copies: Sequence[Copy], directory: Path | str, progress: Progress) -> list[Container]:
    """The images of a folder, all as they were staged; raises NoSuchImage and NotVerified as ``deploy`` does."""
    if not copies:
        raise NoSuchImage(f"{directory} holds no staged image. Put some there: arv-docker stage NAME --dir {directory}")
    return sound(copies, progress)


def _built(found: Sequence[Container], copies: Sequence[Copy], folder: SifFolder) -> Iterator[Deployed]:
    """Each image with its SIF file."""
    made = {(it.name, it.image_id): it for it in found if it.is_sif}
    archives = {copy.path: Entry(copy.path, copy.metadata) for copy in copies if copy.metadata is not None}
    for it in {(it.name, it.image_id): it for it in found}.values():
        there = made.get((it.name, it.image_id))
        if there is None:
            (image,) = wanted([it.name])
            new = folder.put(image, archives[it.paths[0]], user_entries(), force=False)
            (there,) = containers(new)
            yield Deployed(there, it.image_id, loaded=True)
        else:
            yield Deployed(there, it.image_id, loaded=False)


def _tell_left_out(found: Sequence[Container], taken: Sequence[Container], engine: str, progress: Progress) -> None:
    """Says which images an engine gets in no form; raises NoSuchImage if it gets none."""
    names = {it.name for it in taken}
    for it in found:
        if it.name not in names:
            progress.say(f"{it.paths[0]} is left out: {engine} takes no SIF files")
    if not taken:
        raise NoSuchImage(
            f"there is nothing that {engine} takes. Stage the images as archives too, without --format sif."
        )


def _tell_of_others(taken: Sequence[Container], engine: str, own: Platform, progress: Progress) -> None:
    """Says which images are for another platform than the engine's, which may run them or not."""
    for it in taken:
        if "unknown" not in (it.platform.os, it.platform.architecture) and not suits(it.platform, own):
            progress.warn(f"{it.name} is for {it.platform}, and {engine} runs on {own}")


def _deployed(container: Container, engine: Engine, progress: Progress) -> Deployed:
    with container.open() as image:
        step = partial(progress.step, f"loading {container.name} into {engine.name}")
        there = held(engine, image, container.called, step, progress.say)
    return Deployed(container, there.engine_id, not there.already)

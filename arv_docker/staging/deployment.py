# SPDX-License-Identifier: Apache-2.0
"""Deployment of a folder's images into an engine: only missing images, and none before all are verified.

Apptainer holds no images: for it an image is there when there is a SIF file of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..engines import Engine
from ..engines.apptainer import Apptainer
from ..errors import NoSuchImage
from ..local.progress import Progress, SilentProgress
from ..model.image import Digest, Platform
from ..model.manifest import suits
from ..store.cache import CacheFolder
from ..store.content_store import Entry, entries_in
from ..transports.docker_daemon import ensure_loaded
from .folder import PlainFolder
from .sifs import SifFolder
from .staged import Container, Copy, check_all, containers, wanted_images

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
class DeployedImage:
    """An image that an engine has now. ``engine_id`` is the ID there; ``loaded``: it was loaded or built now."""

    container: Container
    engine_id: Digest
    loaded: bool


def deploy_images(
    directory: Path | str,
    engine: Engine | Apptainer,
    cache: CacheFolder,
    *,
    copies: Sequence[Copy] | None = None,
    progress: Progress | None = None,
) -> tuple[DeployedImage, ...]:
    """Load the images of a folder that the engine lacks, as ``api.deploy`` does; ``cache`` learns their layers."""
    progress = progress or SilentProgress()
    copies = PlainFolder(Path(directory)).copies() if copies is None else copies
    staged = verify_containers(copies, directory, progress)
    if isinstance(engine, Apptainer):
        _warn_of_platforms(staged, engine.name, engine.platform(), progress)
        return tuple(
            _build_sifs(staged, copies, SifFolder(Path(directory), progress=progress, apptainer=engine), cache)
        )
    taken = [container for container in staged if accepts(engine.name, [container.kind])]
    _tell_left_out(staged, taken, engine.name, progress)
    _warn_of_platforms(taken, engine.name, engine.platform(), progress)
    return tuple(_deploy_image(container, engine, progress, cache) for container in taken)


def accepts(engine: str, kinds: Iterable[str]) -> bool:
    """Say if an engine takes images of one of the kinds."""
    return not TAKES[engine].isdisjoint(kinds)


def verify_containers(copies: Sequence[Copy], directory: Path | str, progress: Progress) -> list[Container]:
    """The images of a folder, all as they were staged; raises NoSuchImage and NotVerified as ``deploy_images`` does."""
    if not copies:
        raise NoSuchImage(f"{directory} holds no staged image. Put some there: arv-docker stage NAME --dir {directory}")
    staged = check_all(copies, progress)
    if unsealed := sum(not copy.sealed for copy in copies):
        progress.say(f"{unsealed} of {len(copies)} files in {directory} have no seal: WfExS staged them")
    return staged


def _build_sifs(
    staged: Sequence[Container], copies: Sequence[Copy], folder: SifFolder, cache: CacheFolder
) -> Iterator[DeployedImage]:
    """Build missing SIF files, and yield each image with the file."""
    sifs = {(container.name, container.image_id): container for container in staged if container.is_sif}
    archives = {copy.path: Entry(copy.path, copy.metadata) for copy in copies if copy.metadata is not None}
    for key, container in {(container.name, container.image_id): container for container in staged}.items():
        if key in sifs:
            yield DeployedImage(sifs[key], container.image_id, loaded=False)
            continue
        (image,) = wanted_images([container.name])
        copies_made = folder.put(image, archives[container.paths[0]], entries_in(cache.path), force=False)
        (sif,) = containers(copies_made)
        yield DeployedImage(sif, container.image_id, loaded=True)


def _tell_left_out(staged: Sequence[Container], taken: Sequence[Container], engine: str, progress: Progress) -> None:
    """Name the images that an engine cannot get; raises NoSuchImage if that is all."""
    names = {container.name for container in taken}
    for container in staged:
        if container.name not in names:
            progress.say(f"{container.paths[0]} is left out: {engine} takes no SIF files")
    if not taken:
        raise NoSuchImage(
            f"there is nothing that {engine} takes. Stage the images as archives too, without --format sif."
        )


def _warn_of_platforms(taken: Sequence[Container], engine: str, native: Platform, progress: Progress) -> None:
    """Warn of images for another platform than the engine's, which may run them or not."""
    for container in taken:
        platform = container.platform
        if "unknown" not in (platform.os, platform.architecture) and not suits(platform, native):
            progress.warn(f"{container.name} is for {platform}, and {engine} runs on {native}")


def _deploy_image(container: Container, engine: Engine, progress: Progress, cache: CacheFolder) -> DeployedImage:
    with container.open() as image:
        step = partial(progress.step, f"loading {container.name} into {engine.name}")
        loaded = ensure_loaded(engine, image, container.engine_name, step, progress.say, table=cache.layer_table())
    return DeployedImage(container, loaded.engine_id, not loaded.already)

# SPDX-License-Identifier: Apache-2.0
"""Fixtures that hand out real engines and the images in them; a test that uses one is skipped where it cannot run.

`docker` holds `small_image`, `base_image` and `layered_image` for the whole run: a test may tag and add, and removes
what it added.
`second_docker` and `podman` are empty at the start of each test, to do anything with.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

from . import engines, environments, trees
from .containerd import ContainerdDocker
from .engines import Docker, Image, Podman, Program
from .environments import Environment
from .trees import Apptainer, TreePodman

Daemon = TypeVar("Daemon", bound=Docker)
Made = TypeVar("Made")


@pytest.fixture(scope="session")
def engine_scratch() -> Iterator[Path]:
    """Where the engines of this run have their roots."""
    with engines.scratch() as folder:
        yield folder


@pytest.fixture(scope="session")
def docker(engine_scratch: Path) -> Iterator[Docker]:
    """A private daemon for the whole run."""
    yield from _daemon(lambda: Docker(engine_scratch / "d1"))


@pytest.fixture(scope="session")
def _second_daemon(engine_scratch: Path) -> Iterator[Docker]:
    yield from _daemon(lambda: Docker(engine_scratch / "d2"))


@pytest.fixture
def second_docker(_second_daemon: Docker) -> Docker:
    """Another daemon, empty."""
    _second_daemon.empty()
    return _second_daemon


@pytest.fixture(scope="session")
def trixie(engine_scratch: Path) -> Path:
    """The tree of a newer Debian. It takes two minutes to make, once in a run."""
    if ready := os.environ.get(trees.TRIXIE):
        return Path(ready)
    engines.require("debootstrap")
    return _made(lambda: trees.made("trixie", engine_scratch / "trixie"), engines.unavailable)


@pytest.fixture(scope="session")
def sid(engine_scratch: Path, request: pytest.FixtureRequest) -> Path:
    """The tree of the newest Debian, if there is one: what a suite that moves cannot give today is no failure."""
    if ready := os.environ.get(trees.SID):
        return Path(ready)
    if not request.config.getoption("--long"):
        pytest.skip(f"needs {trees.SID}, or --long to make a tree of the newest Debian")
    if missing := engines.missing("debootstrap"):
        pytest.skip(missing)
    return _made(lambda: trees.made("sid", engine_scratch / "sid"), pytest.skip)


@pytest.fixture(scope="session")
def _containerd_daemon(engine_scratch: Path, trixie: Path) -> Iterator[ContainerdDocker]:
    yield from _daemon(lambda: ContainerdDocker(engine_scratch / "d3", trixie))


@pytest.fixture
def containerd_docker(_containerd_daemon: ContainerdDocker) -> ContainerdDocker:
    """A daemon with the containerd store, empty."""
    _containerd_daemon.empty()
    return _containerd_daemon


@pytest.fixture(scope="session")
def _sid_daemon(engine_scratch: Path, sid: Path) -> Iterator[ContainerdDocker]:
    yield from _daemon(lambda: ContainerdDocker(engine_scratch / "d4", sid), pytest.skip)


@pytest.fixture
def sid_docker(_sid_daemon: ContainerdDocker) -> ContainerdDocker:
    """The newest one, empty."""
    _sid_daemon.empty()
    return _sid_daemon


@pytest.fixture(scope="session")
def _podman(engine_scratch: Path) -> Podman:
    engines.require("podman")
    return Podman(engine_scratch / "p")


@pytest.fixture
def podman(_podman: Podman) -> Iterator[Podman]:
    """Podman with a store of its own, empty."""
    _podman.empty()
    yield _podman
    _podman.empty()


@pytest.fixture
def trixie_podman(engine_scratch: Path, trixie: Path) -> Iterator[TreePodman]:
    """A newer Podman, empty."""
    yield from _tree_podman(engine_scratch / "p5", trixie, engines.unavailable)


@pytest.fixture
def sid_podman(engine_scratch: Path, sid: Path) -> Iterator[TreePodman]:
    """The newest one, empty."""
    yield from _tree_podman(engine_scratch / "p6", sid, pytest.skip)


@pytest.fixture
def apptainer(engine_scratch: Path, sid: Path) -> Iterator[Apptainer]:
    """Apptainer, as an ordinary user, with a folder of its own."""
    folder = engine_scratch / "a"
    try:
        yield _made(lambda: Apptainer(folder, sid), pytest.skip)
    finally:
        engines.remove_tree(folder)


@pytest.fixture(scope="session")
def skopeo(engine_scratch: Path) -> Program:
    """skopeo, which reaches a daemon by `--src-daemon-host` or `--dest-daemon-host`."""
    engines.require("skopeo")
    return engines.skopeo(engine_scratch / "s")


@pytest.fixture(scope="session")
def small_image(docker: Docker) -> Image:
    """Three layers, about 2 MB."""
    engines.require("busybox")
    return engines.build_small(docker)


@pytest.fixture(scope="session")
def base_image(docker: Docker) -> Image:
    """Three layers, one of them of 104 MiB that do not compress."""
    engines.require("busybox")
    return engines.build_base(docker)


@pytest.fixture(scope="session")
def layered_image(docker: Docker) -> Image:
    """Five layers, less than 3 MB: for what goes through many places."""
    engines.require("busybox")
    return engines.build_noisy(docker, 3, 200_000, "arvtest/five:1")


@pytest.fixture
def variant_of(docker: Docker) -> Iterator[Callable[[Image, str], Image]]:
    """`variant_of(image, reference)` builds the image with another top layer; removed again after the test."""
    built = []

    def variant_of(image: Image, reference: str) -> Image:
        built.append(engines.build_variant(docker, image, reference))
        return built[-1]

    yield variant_of
    for image in built:
        docker.run("rmi", "--force", "--no-prune", image.reference, check=False)


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment of its own with the SDK, arvados-cwl-runner, and this package in place of the SDK's module."""
    return environments.with_upgrades(tmp_path_factory.mktemp("environment"))


def _daemon(start: Callable[[], Daemon], give_up: Callable[[str], NoReturn] = engines.unavailable) -> Iterator[Daemon]:
    engines.require("docker")
    daemon = _made(start, give_up)
    yield daemon
    daemon.close()


def _tree_podman(folder: Path, root: Path, give_up: Callable[[str], NoReturn]) -> Iterator[TreePodman]:
    podman = _made(lambda: TreePodman(folder, root), give_up)
    yield podman
    podman.empty()
    engines.remove_tree(folder)


def _made(make: Callable[[], Made], give_up: Callable[[str], NoReturn]) -> Made:
    """What `make` gives; what keeps an engine from being there is for `give_up` to say."""
    try:
        return make()
    except engines.EngineFailed as failed:
        give_up(str(failed))

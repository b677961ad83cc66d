# SPDX-License-Identifier: Apache-2.0
"""From a registry into an engine: of the next version only what changed is fetched, and the image works."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from . import registries
from .engines import Docker, Engine, Image, Podman
from .registries import Distribution
from .sites import Site, show
from .test_every_source import pushed

#: What else comes: manifests, configs, heads of answers.
BESIDE = 64 << 10


@pytest.fixture
def registry(engine_scratch: Path, tmp_path: Path) -> Iterator[Distribution]:
    with registries.registry(tmp_path / "registry", "open") as server:
        yield server


def place(engine: Engine, name: str) -> str:
    return f"{'containers-storage' if isinstance(engine, Podman) else 'docker-daemon'}:{name}"


@pytest.mark.engine("docker", "busybox", "registry")
@pytest.mark.parametrize("fixture", ["second_docker", "podman", "containerd_docker"])
def test_of_the_next_version_only_what_changed_is_fetched(
    fixture: str,
    docker: Docker,
    registry: Distribution,
    small_image: Image,
    variant_of: Callable[[Image, str], Image],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine: Engine = request.getfixturevalue(fixture)
    following = variant_of(small_image, "arvtest/small:2")
    names = [pushed(docker, registry, it, f"app:{number}") for number, it in enumerate((small_image, following))]
    copies = Site(tmp_path / "none", engine)  # no site comes into it

    def between(name: str, tag: int) -> tuple[str, ...]:
        return "--insecure", f"docker://{name}", place(engine, f"arvtest/copied:{tag}")

    def copied(name: str, tag: int) -> tuple[str, int]:
        before = registry.served
        return copies.printed("copy", *between(name, tag)), registry.served - before

    first = copied(names[0], 1)
    asked = json.loads(copies.printed("copy", "--dry-run", "--json", *between(names[1], 2)))
    second = copied(names[1], 2)
    show(capsys, f"{fixture}: {first[1]:,} bytes from the registry, of the next version {second[1]:,}")
    assert (first[0], second[0]) == (small_image.id, following.id)
    assert (asked["image_id"], asked["layers"], asked["layers_held"]) == (following.id, 3, 2)
    assert first[1] > 500_000
    assert second[1] < BESIDE
    # It is listed, runs without the first one, and is saved again as the same image, every layer of it.
    assert len(engine.image_ids()) == 2
    engine.run("rmi", "arvtest/copied:1")
    assert engine.text("run", "--rm", "--network", "none", "arvtest/copied:2") == following.greeting
    back = Site(tmp_path / "back", engine)
    again = json.loads(back.printed("ingest", "--json", place(engine, "arvtest/copied:2"), "--as", following.reference))
    assert again["image_id"] == following.id


@pytest.mark.long
@pytest.mark.engine("docker", "busybox", "registry")
@pytest.mark.parametrize("fixture", ["second_docker", "containerd_docker"])
def test_an_engine_that_pulled_the_first_version_itself(
    fixture: str,
    docker: Docker,
    registry: Distribution,
    small_image: Image,
    variant_of: Callable[[Image, str], Image],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A classic store does with its layers once their sizes are known; one of containerd has them compressed, which it
    takes and cannot save: all are fetched then."""
    engine: Engine = request.getfixturevalue(fixture)
    following = variant_of(small_image, "arvtest/small:2")
    names = [pushed(docker, registry, it, f"app:{number}") for number, it in enumerate((small_image, following))]
    engine.run("pull", names[0])
    copies = Site(tmp_path / "none", engine)
    copies.printed("copy", "--insecure", f"docker://{names[0]}", f"docker-archive:{tmp_path}/first.tar")
    before = registry.served
    done = copies.run("copy", "--insecure", f"docker://{names[1]}", "docker-daemon:arvtest/copied:2")
    served = registry.served - before
    assert done.status == 0, done.told
    show(capsys, f"{fixture}: {served:,} bytes from the registry", *done.err.splitlines())
    classic = fixture == "second_docker"
    assert (served < BESIDE) == classic
    assert ("loading all of them" in done.err) != classic
    engine.run("rmi", "--force", names[0])
    assert engine.text("run", "--rm", "--network", "none", "arvtest/copied:2") == following.greeting
    back = Site(tmp_path / "back", engine)
    again = json.loads(back.printed("ingest", "--json", "arvtest/copied:2", "--as", following.reference))
    assert again["image_id"] == following.id

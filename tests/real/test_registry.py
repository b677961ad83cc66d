# SPDX-License-Identifier: Apache-2.0
"""Images go into a real registry and come out of it, by our commands and by those of others."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from arv_docker.archive.layer import CHUNK
from arv_docker.image import Digest
from arv_docker.reference import Reference
from arv_docker.registry.credentials import Provider, static
from arv_docker.transports.registry import RegistrySource
from tests.real import registries
from tests.real.engines import Docker, Image, Podman, Program
from tests.real.registries import PASSWORD, USER, Distribution

Logged = Callable[[Docker, Distribution], None]


@pytest.fixture(params=registries.KINDS)
def registry(request: pytest.FixtureRequest, engine_scratch: Path, tmp_path: Path) -> Iterator[Distribution]:
    """A registry of each kind."""
    with registries.registry(tmp_path / "registry", request.param) as server:
        yield server


def provider(registry: Distribution) -> Provider | None:
    return None if registry.kind == "open" else static(USER, PASSWORD)


def log_in(engine: Program, registry: Distribution) -> None:
    if registry.kind != "open":
        insecure = ["--tls-verify=false"] if isinstance(engine, Podman) else []
        engine.run("login", *insecure, "--username", USER, "--password-stdin", registry.host, stdin=PASSWORD.encode())


def read(registry: Distribution, name: str) -> tuple[Digest, list[Digest]]:
    """The image's ID and its layers, each read to its end."""
    source = RegistrySource(Reference.parse(f"{registry.host}/{name}"), insecure=True, provider=provider(registry))
    with source.open() as image:
        layers = []
        for layer in image.layers():
            while layer.read(CHUNK):
                pass
            layers.append(layer.diff_id)
        return image.config.digest, layers


def pushed_by_docker(docker: Docker, registry: Distribution, image: Image, name: str) -> None:
    log_in(docker, registry)
    docker.run("tag", image.reference, f"{registry.host}/{name}")
    try:
        docker.run("push", f"{registry.host}/{name}")
    finally:
        docker.run("rmi", f"{registry.host}/{name}")


@pytest.mark.conforms("H17")
@pytest.mark.engine("docker", "busybox", "registry")
def test_what_docker_pushed_is_read(docker: Docker, registry: Distribution, small_image: Image) -> None:
    pushed_by_docker(docker, registry, small_image, "tools/app:1")
    image_id, layers = read(registry, "tools/app:1")
    assert str(image_id) == small_image.id
    assert tuple(map(str, layers)) == small_image.diff_ids

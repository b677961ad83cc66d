# SPDX-License-Identifier: Apache-2.0
"""Containers of real engines by the interface that repo2docker uses, and what an engine says of its images."""

import time
from collections.abc import Iterator

import pytest

from arv_docker.engines.docker import Docker as DockerCommand
from arv_docker.engines.podman import Podman as PodmanCommand
from arv_docker.integrations.container_engine import ContainerEngine

from .engines import Docker, Engine, Image, Podman

pytestmark = pytest.mark.engine("docker", "podman", "busybox")

#: Says two lines, one on each channel, and goes on until it is told to end.
SCRIPT = "trap 'exit 7' TERM; echo one; echo $WORD >&2; while :; do sleep 0.1; done"


@pytest.fixture(params=["docker", "podman"])
def holder(request: pytest.FixtureRequest, docker: Docker, podman: Podman, small_image: Image) -> Iterator[Engine]:
    """An engine with the small image, in which no container is left."""
    if request.param == "docker":
        yield docker
        assert docker.text("ps", "--all", "--quiet") == ""
        return
    podman.run("load", stdin=docker.run("save", small_image.reference).stdout)
    yield podman
    assert podman.text("ps", "--all", "--quiet") == ""


@pytest.fixture
def engine(holder: Engine, monkeypatch: pytest.MonkeyPatch) -> ContainerEngine:
    for name, value in holder.environment.items():
        monkeypatch.setenv(name, value)
    return ContainerEngine(DockerCommand() if isinstance(holder, Docker) else PodmanCommand())


@pytest.mark.conforms("R9")
def test_images(engine: ContainerEngine, small_image: Image) -> None:
    assert [small_image.reference] in [image.tags for image in engine.images()]
    found = engine.inspect_image(small_image.reference)
    assert found is not None
    assert found.tags == [small_image.reference]
    assert found.config is not None
    assert found.config["WorkingDir"] in ("", "/")
    assert engine.inspect_image("arvtest/nowhere:1") is None


@pytest.mark.conforms("R15")
def test_a_container(engine: ContainerEngine, small_image: Image) -> None:
    container = engine.run(small_image.reference, command=["sh", "-c", SCRIPT], environment=["WORD=two words"])
    try:
        deadline = time.monotonic() + 60
        while len(said := "".join(container.logs()).splitlines()) < 2:
            assert time.monotonic() < deadline, said
            time.sleep(0.1)
        assert sorted(said) == ["one", "two words"]
        lines = container.logs(stream=True, timestamps=True)
        first = next(iter(lines))
        assert first.split(" ", 1)[1] in ("one\n", "two words\n")
        container.reload()
        assert (container.status, container.exitcode) == ("running", None)
        container.stop(timeout=30)
        container.wait()
        container.reload()
        assert (container.status, container.exitcode) == ("exited", 7)
        after = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1))
        assert "".join(container.logs(since=after)) == ""
    finally:
        container.remove()


@pytest.mark.conforms("R15")
def test_a_container_that_is_killed(engine: ContainerEngine, small_image: Image) -> None:
    container = engine.run(small_image.reference, command=["sleep", "600"])
    try:
        container.kill()
        container.wait()
        container.reload()
        assert (container.status, container.exitcode) == ("exited", 137)
    finally:
        container.remove()

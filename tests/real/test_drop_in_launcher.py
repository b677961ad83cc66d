# SPDX-License-Identifier: Apache-2.0
"""The published arvados-cwl-runner looks images up through this package, in an environment where it takes the place.

The site is served, Docker is real, the runner is the one from the package index.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .engines import Docker, Image
from .environments import Environment
from .sites import TOP, Site, served, show

HOST_5000 = "host.example:5000/lib/small"


@dataclass
class Runner:
    """The runner on a served site; `errors` is what the last look-up wrote on standard error."""

    environment: Environment
    variables: dict[str, str]
    errors: str = ""

    def __call__(self, image: str, **options: Any) -> dict[str, str]:
        (answer,) = self.each({"image": image, **options})
        return answer

    def each(self, *look_ups: dict[str, Any]) -> list[dict[str, str]]:
        """The answers to several look-ups of one process, for its imports take seconds."""
        program = TOP / "tests/real/look_up.py"
        done = self.environment.run("python", program, json.dumps(look_ups), variables=self.variables)
        self.errors = done.stderr
        found: list[dict[str, str]] = json.loads(done.stdout)
        return found


@pytest.fixture
def site(docker: Docker, tmp_path: Path) -> Site:
    return Site(tmp_path / "site", docker)


@pytest.fixture
def runner(site: Site, docker: Docker, environment: Environment) -> Iterator[Runner]:
    with served(site.folder) as variables:
        yield Runner(environment, docker.environment | {"HOME": os.environ["HOME"]} | variables)


@pytest.fixture
def also_called(docker: Docker) -> Iterator[Callable[[Image, str], None]]:
    """Gives an image of the daemon another name; taken away after the test."""
    given: list[str] = []

    def also_called(image: Image, name: str) -> None:
        docker.run("tag", image.reference, name)
        given.append(name)

    yield also_called
    for name in given:
        docker.run("rmi", "--no-prune", name, check=False)


@pytest.mark.conforms("K23")
@pytest.mark.engine("docker", "busybox")
def test_the_runner_gets_the_image_that_is_meant(
    site: Site, runner: Runner, small_image: Image, base_image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    # From Docker, through our main.
    first = runner(small_image.reference)
    with site.opened() as records:
        (collection,) = records.collections()
    assert first == {"pdh": collection.pdh}
    # From Keep: by its name, by a digest that it is proven to have (registered without an upload), by its ID.
    digest = f"arvtest/small@{small_image.id}"
    site.printed("link", collection.uuid, digest)
    again = [small_image.reference, digest, small_image.id]
    *found, other = runner.each(
        {"image": small_image.reference, "match_local": True},
        *({"image": name} for name in again),
        {"image": base_image.reference},
    )
    assert found == [first] * 4
    assert set(other) == {"pdh"}
    assert other != first
    show(capsys, f"{small_image.reference}, {digest[:30]}… and the ID are {first['pdh']}")


@pytest.mark.conforms("K23", "K5")
@pytest.mark.engine("docker", "busybox")
def test_an_image_that_is_only_in_another_project(site: Site, runner: Runner, small_image: Image) -> None:
    with site.opened() as records:
        groups = records.api.groups()
        one, two = (
            groups.create(body={"group_class": "project", "name": name}).execute()["uuid"] for name in ("one", "two")
        )
    uuid = site.printed("ingest", "--project-uuid", one, small_image.reference)
    pdh = site.printed("resolve", small_image.reference)
    assert runner(small_image.reference, project=two) == {"pdh": pdh}
    with site.opened() as records:
        assert [it.uuid for it in records.collections()] == [uuid]
    # With its dependencies in the project, and without asking Docker for what Keep has.
    runner.variables["DOCKER_HOST"] = "unix:///nowhere"
    assert runner(small_image.reference, project=two, copy_deps=True) == {"pdh": pdh}
    with site.opened() as records:
        assert sorted(it.owner_uuid for it in records.collections()) == sorted((one, two))
        assert {it.pdh for it in records.collections()} == {pdh}


@pytest.mark.conforms("K23", "K26")
@pytest.mark.engine("docker", "busybox")
def test_an_image_that_is_nowhere_is_the_runner_s_own_error(site: Site, runner: Runner, small_image: Image) -> None:
    site.printed("ingest", small_image.reference)
    names = ("arvtest/none:1", f"sha256:{'9' * 64}", f"arvtest/small@sha256:{'8' * 64}")
    for name, answer in zip(names, runner.each(*({"image": name} for name in names)), strict=True):
        assert answer == {"error": f"WorkflowException: Docker image '{name}' not available"}
    assert len(site.records()[0]) == 1


@pytest.mark.conforms("K23")
@pytest.mark.engine("docker", "busybox")
def test_a_registry_with_a_port_is_never_another_tag(
    site: Site,
    runner: Runner,
    docker: Docker,
    small_image: Image,
    base_image: Image,
    also_called: Callable[[Image, str], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The runner splits the name at its first two colons and loses the tag before it calls anything of ours."""
    for image, tag in ((base_image, "latest"), (base_image, "other"), (small_image, "wanted")):
        also_called(image, f"{HOST_5000}:{tag}")
    for tag in ("latest", "other"):
        site.printed("ingest", f"{HOST_5000}:{tag}")
    said = runner(f"{HOST_5000}:wanted")
    assert said == {"error": "WorkflowException: keepdocker exited with code 1"}
    assert "split it at its first colon and lost the tag" in runner.errors
    assert "arv_docker.get_image" in runner.errors
    show(capsys, *runner.errors.splitlines()[-1:])
    # The same reference through arv_docker.get_image.
    code = f"import arvados, arv_docker; print(arv_docker.get_image(arvados.api('v1'), '{HOST_5000}:wanted'))"
    record = runner.environment.run("python", "-c", code, variables=runner.variables).stdout
    pdh = site.printed("resolve", f"{HOST_5000}:wanted")
    assert f"pdh='{pdh}'" in record
    assert site.printed("resolve", f"{HOST_5000}:latest") != pdh
    assert json.loads(site.printed("inspect", "--json", f"{HOST_5000}:wanted"))["image_id"] == small_image.id


@pytest.mark.engine("docker", "busybox")
def test_the_script_of_the_environment_works_without_a_checkout(site: Site, runner: Runner, small_image: Image) -> None:
    uuid = runner.environment.run(
        "arv-keepdocker", *small_image.reference.split(":"), variables=runner.variables
    ).stdout
    assert uuid.strip() in site.records()[0]
    listed = runner.environment.run("arv-keepdocker", variables=runner.variables).stdout
    assert small_image.reference.split(":")[0] in listed

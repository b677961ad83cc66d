# SPDX-License-Identifier: Apache-2.0
"""One image in the engines of each generation: the same collection out of each, and it starts in each."""

import json
from dataclasses import dataclass
from pathlib import Path

import arvados.collection
import pytest

from .containerd import ContainerdDocker
from .engines import Docker, Engine, Image, Podman
from .sites import Site, show
from .trees import Apptainer

pytestmark = pytest.mark.engine("docker", "busybox")

#: The fixtures; on Debian 12 they are of versions 20.10, 26.1 and newer, 4.3, 5.4 and newer.
ENGINES = ("second_docker", "containerd_docker", "sid_docker", "podman", "trixie_podman", "sid_podman")


@dataclass(frozen=True)
class Stored:
    """The image in Keep, as a site has it; what was said of it there."""

    site: Site
    image: Image
    pdh: str
    manifest_digest: str

    def expected(self, engine: Engine) -> str:
        """What it is called in an engine."""
        return self.manifest_digest if isinstance(engine, ContainerdDocker) else self.image.id


@pytest.fixture(scope="module")
def stored(docker: Docker, layered_image: Image, tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """Stored by Docker 20.10."""
    image = layered_image
    assert len(set(image.diff_ids)) == 5
    site = Site(tmp_path_factory.mktemp("engines") / "site", docker)
    site.printed("ingest", image.reference)
    said = json.loads(site.printed("inspect", "--json", image.reference))
    return Stored(site, image, said["pdh"], said["manifest_digest"])


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, stored: Stored) -> Engine:
    """Each of them, empty."""
    found: Engine = request.getfixturevalue(request.param)
    return found


def version(engine: Engine) -> str:
    which = "Client" if isinstance(engine, Podman) else "Server"
    return engine.text("version", "--format", f"{{{{.{which}.Version}}}}")


def option(engine: Engine) -> str:
    return "--engine=podman" if isinstance(engine, Podman) else "--engine=docker"


def greeting(engine: Engine, name: str) -> str:
    return engine.text("run", "--rm", "--network", "none", name)


def test_the_same_collection_and_it_starts(
    engine: Engine,
    stored: Stored,
    docker: Docker,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image = stored.image
    engine.run("load", stdin=docker.run("save", image.reference).stdout)
    there = Site(tmp_path / "site", engine)
    there.printed("ingest", option(engine), image.reference)
    pdh = there.printed("resolve", image.reference)
    engine.run("rmi", "--force", image.reference)
    assert engine.image_ids() == set()
    back = Site(stored.site.folder, engine)
    loaded = back.printed("load", option(engine), image.reference)
    title = "Podman" if isinstance(engine, Podman) else "Docker"
    show(capsys, f"{pdh}  {title} {version(engine)}: loaded and started as {loaded[:19]}")
    assert pdh == stored.pdh
    assert loaded == stored.expected(engine)
    assert greeting(engine, loaded) == image.greeting


@pytest.mark.parametrize(
    ("engine", "maker", "kind"),
    [
        ("containerd_docker", "docker", "manifest"),
        ("sid_docker", "docker", "manifest"),
        ("second_docker", "containerd_docker", "config"),
    ],
    indirect=["engine"],
)
def test_a_node_starts_it_by_the_name_of_the_file(
    engine: Engine,
    maker: str,
    kind: str,
    request: pytest.FixtureRequest,
    stored: Stored,
    docker: Docker,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As crunch-run does: it loads the file that the collection has, and starts a container by the file's name.

    Each from a collection that an engine with a store of the other kind made.
    """
    made_by: Docker = request.getfixturevalue(maker)
    if made_by is not docker:
        made_by.run("load", stdin=docker.run("save", stored.image.reference).stdout)
    site = Site(tmp_path / "site", made_by)
    uuid = site.printed("ingest", f"--image-id={kind}", stored.image.reference)
    with site.opened() as records:
        collection = arvados.collection.CollectionReader(uuid, api_client=records.api)
        (name,) = collection
        with collection.open(name, "rb") as file:
            engine.run("load", stdin=file.read())
    started = name.removesuffix(".tar")
    how = f"made by Docker {version(made_by)} with --image-id {kind}"
    show(capsys, f"{how}, started by Docker {version(engine)} as {started[:19]}")
    assert started == stored.expected(engine)
    assert greeting(engine, started) == stored.image.greeting


def test_apptainer_runs_it(stored: Stored, apptainer: Apptainer, capsys: pytest.CaptureFixture[str]) -> None:
    there = Site(stored.site.folder, apptainer)
    words = ("stage", "--from=keep", "--format=sif", stored.image.reference, f"--dir={apptainer.folder}/sifs")
    path = there.printed(*words)
    show(capsys, f"{stored.pdh}  {apptainer.text('--version')}: built and started")
    assert apptainer.text("run", path) == stored.image.greeting

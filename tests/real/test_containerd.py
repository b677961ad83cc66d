# SPDX-License-Identifier: Apache-2.0
"""Docker with the containerd store: it calls an image by another digest, and the image is the same."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from .containerd import ContainerdDocker
from .engines import BASE_DATA, Docker, Image, Program
from .sites import Site, show

pytestmark = pytest.mark.engine("docker", "busybox", "debootstrap")

VariantOf = Callable[[Image, str], Image]


@pytest.fixture
def site(docker: Docker, tmp_path: Path) -> Site:
    """Where images are put from the engine with the classic store."""
    return Site(tmp_path / "site", docker)


def greets(engine: Docker, image: Image, name: str) -> bool:
    return engine.text("run", "--rm", "--network", "none", name) == image.greeting


@pytest.mark.conforms("K22", "S9")
def test_the_same_collection_from_either_store(
    site: Site, docker: Docker, containerd_docker: ContainerdDocker, small_image: Image, tmp_path: Path
) -> None:
    containerd_docker.run("load", stdin=docker.run("save", small_image.reference).stdout)
    own = containerd_docker.text("image", "inspect", "--format", "{{.Id}}", small_image.reference)
    assert own != small_image.id
    newer = Site(tmp_path / "newer", containerd_docker)
    for name in (small_image.reference, own):
        uuid = newer.printed("ingest", name)
    site.printed("ingest", small_image.reference)
    assert newer.printed("resolve", small_image.reference) == site.printed("resolve", small_image.reference)
    assert json.loads(newer.printed("inspect", "--json", uuid))["file"] == f"{small_image.id}.tar"


def test_a_container_is_started_by_the_digest_that_was_said_beforehand(
    site: Site,
    containerd_docker: ContainerdDocker,
    second_docker: Docker,
    small_image: Image,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Stored out of the one store for nodes with the other, both ways; under both digests over one set of blocks."""
    both = json.loads(site.printed("ingest", "--image-id=both", "--json", small_image.reference))
    assert both["image_id"] == small_image.id
    said = json.loads(site.printed("inspect", "--json", both["beside"]["image_id"]))
    assert said["file"] == f"{said['manifest_digest']}.tar"
    assert said["blocks"] == json.loads(site.printed("inspect", "--json", small_image.reference))["blocks"]
    there = Site(site.folder, containerd_docker)
    assert there.printed("load", said["manifest_digest"]) == said["manifest_digest"]
    assert greets(containerd_docker, small_image, said["manifest_digest"])
    back = Site(tmp_path / "back", containerd_docker)
    back.printed("ingest", said["manifest_digest"])
    assert Site(back.folder, second_docker).printed("load", small_image.id) == small_image.id
    assert greets(second_docker, small_image, small_image.id)
    show(capsys, f"{small_image.id[:19]} in the classic store is {said['manifest_digest'][:19]} in containerd's: runs")


def test_of_the_next_version_it_is_fed_what_it_lacks(
    site: Site, containerd_docker: ContainerdDocker, base_image: Image, variant_of: VariantOf, tmp_path: Path
) -> None:
    following = variant_of(base_image, "arvtest/base:2")
    there = Site(site.folder, containerd_docker)
    for image in (base_image, following):
        site.printed("ingest", image.reference)
        loaded = json.loads(there.printed("load", "--json", image.reference))
    assert loaded["bytes_spared"] > BASE_DATA
    assert loaded["bytes_read"] < 64 << 20
    assert_whole(containerd_docker, following, loaded["engine_id"], site, tmp_path)


def test_layers_that_it_has_only_compressed_are_fed(
    site: Site,
    containerd_docker: ContainerdDocker,
    skopeo: Program,
    small_image: Image,
    variant_of: VariantOf,
    tmp_path: Path,
) -> None:
    """It would take the image without them and run it, and then save it without its layers."""
    following = variant_of(small_image, "arvtest/small:2")
    for image in (small_image, following):
        site.printed("ingest", image.reference)
    site.printed("copy", f"keep:{small_image.reference}", f"docker-archive:{tmp_path}/plain.tar")
    ways = (f"oci-archive:{tmp_path}/plain.tar", f"oci-archive:{tmp_path}/compressed.tar")
    skopeo.run("copy", "--dest-compress", *ways)
    containerd_docker.run("load", stdin=tmp_path / "compressed.tar")
    there = Site(site.folder, containerd_docker)
    done = there.run("load", "--json", following.reference)
    assert done.status == 0, done.told
    assert "loading all of them" in done.err
    loaded = json.loads(done.out)
    assert loaded["bytes_spared"] == 0
    assert_whole(containerd_docker, following, loaded["engine_id"], site, tmp_path)
    assert "already there" in there.run("load", following.reference).err


def assert_whole(engine: ContainerdDocker, image: Image, name: str, site: Site, folder: Path) -> None:
    """It is listed, runs, and is saved again as the image that the site has."""
    assert name in engine.image_ids()
    assert greets(engine, image, name)
    engine.run("save", "--output", folder / "saved.tar", image.reference)
    again = Site(folder / "again")
    again.printed("ingest", "--from-archive", folder / "saved.tar", image.reference)
    assert again.printed("resolve", image.reference) == site.printed("resolve", image.reference)

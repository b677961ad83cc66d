# SPDX-License-Identifier: Apache-2.0
"""One image is one collection wherever it comes from; of a next version only what changed comes from a registry."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from arv_docker.arvados.client import Cluster
from arv_docker.arvados.dedup import LAYER

from . import registries
from .engines import Docker, Image, Podman, Program
from .registries import Distribution
from .sites import Site, show
from .strangers import Stranger
from .test_drop_in_poison import altered, site, stranger

__all__ = ["site", "stranger"]


@pytest.fixture
def registry(engine_scratch: Path, tmp_path: Path) -> Iterator[Distribution]:
    with registries.registry(tmp_path / "registry", "open") as server:
        yield server


def pushed(docker: Docker, registry: Distribution, image: Image, name: str) -> str:
    """The image in the registry, as Docker pushes it; gives its name there."""
    full = f"{registry.host}/{name}"
    docker.run("tag", image.reference, full)
    try:
        docker.run("push", full)
    finally:
        docker.run("rmi", full)
    return full


@pytest.mark.engine("docker", "podman", "busybox", "skopeo", "registry")
def test_one_image_from_every_source_is_one_content(
    docker: Docker,
    podman: Podman,
    skopeo: Program,
    registry: Distribution,
    layered_image: Image,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each into a site of its own, so that nothing is known there yet."""
    saved, canonical = tmp_path / "saved.tar", tmp_path / "canonical.tar"
    docker.run("save", "-o", str(saved), layered_image.reference)
    first = Site(tmp_path / "first", docker)
    first.printed("ingest", layered_image.reference)
    first.printed("copy", f"keep:{layered_image.reference}", f"docker-archive:{canonical}")
    podman.run("load", "-i", str(saved))
    podman.run("save", "-o", str(tmp_path / "podman.tar"), layered_image.id)
    skopeo.run("copy", f"docker-archive:{saved}", f"docker-archive:{tmp_path}/skopeo.tar")
    for kind in ("gzip", "zstd"):
        layout = [
            "--dest-compress",
            "--dest-compress-format",
            kind,
            f"oci-archive:{canonical}",
            f"oci:{tmp_path}/{kind}:app",
        ]
        skopeo.run("copy", *layout)
    name = pushed(docker, registry, layered_image, "tools/app:1")
    sources = {
        "docker, by name": [layered_image.reference],
        "docker, by ID": [layered_image.id],
        "docker save": [f"docker-archive:{saved}"],
        "podman save": [f"docker-archive:{tmp_path}/podman.tar"],
        "skopeo": [f"docker-archive:{tmp_path}/skopeo.tar"],
        "canonical archive": [f"oci-archive:{canonical}"],
        "OCI layout, gzip": [f"oci:{tmp_path}/gzip:app"],
        "OCI layout, zstd": [f"oci:{tmp_path}/zstd:app"],
        "registry": ["--insecure", f"docker://{name}"],
    }
    found = {}
    for number, (what, words) in enumerate(sources.items()):
        site = Site(tmp_path / f"site{number}", docker)
        found[what] = json.loads(site.printed("ingest", "--json", *words))["pdh"]
    show(capsys, *(f"{pdh}  {what}" for what, pdh in found.items()))
    assert len(set(found.values())) == 1, found


@pytest.mark.engine("docker", "busybox", "registry")
@pytest.mark.parametrize("layers", ["large", "small"])
def test_of_the_next_version_only_the_changed_layer_is_fetched(
    docker: Docker,
    registry: Distribution,
    base_image: Image,
    small_image: Image,
    variant_of: Callable[[Image, str], Image],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    layers: str,
) -> None:
    """A large layer is known by a link; small ones are read from the first version, and hashed."""
    site = Site(tmp_path / "site", docker)
    image = base_image if layers == "large" else small_image
    first = pushed(docker, registry, image, "tools/app:1")
    second = pushed(docker, registry, variant_of(image, "arvtest/variant:2"), "tools/app:2")
    site.printed("ingest", "--insecure", f"docker://{first}")
    before = registry.served
    document = json.loads(site.printed("ingest", "--json", "--insecure", f"docker://{second}"))
    fetched = registry.served - before
    with site.opened() as records:
        for collection in records.collections():
            records.verified(collection)
    show(
        capsys,
        f"the next version, {layers} layers: {fetched} bytes from the registry, {document['bytes_sent']} sent to Keep",
    )
    assert not document["already"]
    assert fetched <= 64 << 10  # the changed layer is one small file


def poisoned(image: Image) -> Callable[[Stranger, Cluster], str]:
    """Links for each layer of an image to a collection in which one of them is altered."""

    def deed(stranger: Stranger, cluster: Cluster) -> str:
        text = altered(cluster, stranger.ingests(cluster, image))
        bad = cluster.create_collection({"manifest_text": text, "owner_uuid": stranger.project, "name": "bad"})
        for diff_id in image.diff_ids:
            stranger.publish(cluster, bad, LAYER, diff_id)
        return bad.uuid

    return deed


@pytest.mark.conforms("S8")
@pytest.mark.engine("docker", "busybox", "registry")
def test_a_poisoned_layer_link_costs_a_download_once_and_says_how_much(
    docker: Docker,
    registry: Distribution,
    site: Site,
    stranger: Stranger,
    base_image: Image,
    variant_of: Callable[[Image, str], Image],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What another user says of a layer is not believed: it is fetched and compared. Then our own word counts."""
    versions = [variant_of(base_image, f"arvtest/variant:{number}") for number in (2, 3)]
    names = [pushed(docker, registry, it, f"tools/app:{number}") for number, it in enumerate(versions)]
    fetched, told = [], []
    for name, version in zip(names, versions, strict=True):
        bad = stranger.does(poisoned(base_image))  # the second time newer than our own
        before = registry.served
        done = site.run("ingest", "--json", "--insecure", f"docker://{name}")
        fetched.append(registry.served - before)
        told.append(done.err)
        assert done.status == 0, done.told
        document = json.loads(done.out)
        assert document["uuid"] != bad
        assert document["image_id"] == version.id
        with site.opened() as records:
            assert records.verified(records.cluster.collection(document["uuid"])) == version.id
    assert fetched[0] > 100_000_000
    assert "layers that only others say to be in Keep: 2; they are fetched and compared" in told[0]
    assert re.search(rf"{registry.host}: 1[01]\d\.\d MB of layers fetched", told[0]), told[0]
    assert fetched[1] <= 64 << 10
    assert "only others" not in told[1]
    show(capsys, *(line for text in told for line in text.splitlines()))

# SPDX-License-Identifier: Apache-2.0
"""One image is one collection wherever it comes from; of a next version only what changed comes from a registry."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.real import registries
from tests.real.engines import Docker, Image, Podman, Program
from tests.real.registries import Distribution
from tests.real.sites import Site, show


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
    small_image: Image,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each into a site of its own, so that nothing is known there yet."""
    saved, canonical = tmp_path / "saved.tar", tmp_path / "canonical.tar"
    docker.run("save", "-o", str(saved), small_image.reference)
    first = Site(tmp_path / "first", docker)
    first.printed("ingest", small_image.reference)
    first.printed("copy", f"keep:{small_image.reference}", f"docker-archive:{canonical}")
    podman.run("load", "-i", str(saved))
    podman.run("save", "-o", str(tmp_path / "podman.tar"), small_image.id)
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
    name = pushed(docker, registry, small_image, "tools/app:1")
    sources = {
        "docker, by name": [small_image.reference],
        "docker, by ID": [small_image.id],
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
def test_of_the_next_version_only_the_changed_layer_is_fetched(
    docker: Docker,
    registry: Distribution,
    base_image: Image,
    variant_of: Callable[[Image, str], Image],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    site = Site(tmp_path / "site", docker)
    first = pushed(docker, registry, base_image, "tools/app:1")
    second = pushed(docker, registry, variant_of(base_image, "arvtest/variant:2"), "tools/app:2")
    site.printed("ingest", "--insecure", f"docker://{first}")
    before = registry.served
    document = json.loads(site.printed("ingest", "--json", "--insecure", f"docker://{second}"))
    fetched = registry.served - before
    with site.opened() as records:
        for collection in records.collections():
            records.verified(collection)
    show(capsys, f"the next version: {fetched} bytes from the registry, {document['bytes_sent']} sent to Keep")
    assert not document["already"]
    assert fetched <= 64 << 10  # the changed layer is one small file

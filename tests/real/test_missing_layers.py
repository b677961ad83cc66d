# SPDX-License-Identifier: Apache-2.0
"""Docker with the containerd store saves an image without a layer: it has the layer unpacked already, of another image
that compresses it in another way, and never fetched the bytes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from arv_docker.archive.tar import Index
from arv_docker.model.image import OCI_LAYER, OCI_MANIFEST
from arv_docker.model.manifest import machine_platform

from .. import archives
from ..archives import Bytes, blobs_of, descriptor, oci_index, oci_manifest, tar
from . import registries
from .containerd import ContainerdDocker
from .engines import Program, noise
from .registries import Distribution
from .sites import Site, show

ENGINE = 3

pytestmark = pytest.mark.engine("docker", "skopeo", "registry", "debootstrap")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Distribution]:
    with registries.registry(tmp_path / "registry", "open") as server:
        yield server


@pytest.fixture
def pushed(registry: Distribution, skopeo: Program, tmp_path: Path) -> dict[str, archives.Image]:
    """Two images in the registry with a layer in common, each compressed by another program."""
    base = tar({"base": noise(200_000)})
    made = {}
    for name, level in (("one", 9), ("two", 1)):
        layers = (base, tar({name: name.encode() * 100}))
        image = archives.image(*layers, os="linux", architecture=machine_platform().architecture, config={})
        stored = [gzip.compress(layer, level, mtime=0) for layer in layers]
        manifest = oci_manifest(image.config, stored, f"{OCI_LAYER}+gzip")
        index = oci_index(descriptor(manifest, OCI_MANIFEST))
        files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index}
        content = tar({**files, **blobs_of(image.config, *stored, manifest)})
        (tmp_path / f"{name}.tar").write_bytes(content)
        target = f"docker://{registry.host}/{name}:1"
        skopeo.run("copy", "--dest-tls-verify=false", f"oci-archive:{tmp_path}/{name}.tar", target)
        made[f"{registry.host}/{name}:1"] = image
    return made


@pytest.mark.parametrize("engine", ["containerd_docker", "sid_docker"])
def test_it_is_told_and_its_registry_has_it(
    engine: str,
    pushed: dict[str, archives.Image],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    docker: ContainerdDocker = request.getfixturevalue(engine)
    one, two = pushed
    for name in pushed:
        docker.run("pull", name)
    saved = Index(Bytes(docker.run("save", two).stdout))  # it exits with 0
    assert {"manifest.json", "index.json"} <= set(saved.names())
    assert f"blobs/sha256/{pushed[two].parsed.digest.hex}" not in saved
    site = Site(tmp_path / "site", docker)
    assert site.run("ingest", one).status == 0
    done = site.run("ingest", two)
    assert (done.status, f"Docker does not have all of {two}" in done.err) == (ENGINE, True), done.told
    assert "docker://NAME" in done.err
    assert "cut short" not in done.err
    show(capsys, done.err.splitlines()[0])
    stored = json.loads(site.printed("ingest", "--json", "--insecure", f"docker://{two}"))
    assert stored["image_id"] == str(pushed[two].parsed.digest)
    known = json.loads(site.printed("ingest", "--json", two))  # what Docker calls it is known now
    assert (known["uuid"], known["already"]) == (stored["uuid"], True)

# SPDX-License-Identifier: Apache-2.0
"""What is not the same image: one that a tool converted, and the images of one name for several platforms."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from .. import archives
from ..archives import descriptor, files_of, oci_index
from . import registries
from .engines import Docker, Image, Podman, Program
from .registries import Distribution
from .sites import Site, show


@pytest.mark.engine("docker", "podman", "busybox", "skopeo")
def test_that_a_tool_made_another_image_is_said(
    docker: Docker,
    podman: Podman,
    skopeo: Program,
    base_image: Image,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """skopeo and Podman write the config anew when they convert Docker's form to OCI's."""
    site = Site(tmp_path / "site", docker)
    uuid = site.printed("ingest", base_image.reference)
    docker.run("save", "-o", tmp_path / "saved.tar", base_image.reference)
    skopeo.run(
        "copy",
        "--dest-oci-accept-uncompressed-layers",
        f"docker-archive:{tmp_path}/saved.tar",
        f"oci:{tmp_path}/skopeo:x",
    )
    podman.run("load", "-i", str(tmp_path / "saved.tar"))
    podman.run("save", "--format", "oci-archive", "-o", str(tmp_path / "podman.tar"), base_image.id)
    sources = f"oci:{tmp_path}/skopeo:x", f"oci-archive:{tmp_path}/podman.tar"
    for source in sources:
        seen = json.loads(site.printed("inspect", "--json", source))
        assert seen["image_id"] != base_image.id
        assert [(it["uuid"], it["image_id"]) for it in seen["same_layers"]] == [(uuid, base_image.id)]
        assert base_image.reference in seen["same_layers"][0]["names"]
    done = site.run("ingest", sources[0])
    assert done.status == 0, done.told
    (said,) = (line for line in done.err.splitlines() if "another image" in line)
    assert f"{base_image.id} ({base_image.reference}), {uuid}, with the same layers" in said
    show(capsys, said)


@pytest.fixture
def registry(engine_scratch: Path, tmp_path: Path) -> Iterator[Distribution]:
    with registries.registry(tmp_path / "registry", "open") as server:
        yield server


@pytest.mark.engine("skopeo", "registry")
def test_every_platform_of_an_index_in_a_registry(
    skopeo: Program, registry: Distribution, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    platforms = ("amd64", "arm64", "s390x")
    made = {
        it: archives.image(
            files_of(it.encode()),
            os="linux",
            architecture=it,
            config={},
            history=[],
            created=f"200{number}-01-01T00:00:00Z",
        )
        for number, it in enumerate(platforms)
    }
    files: dict[str, bytes] = {}
    entries = []
    for architecture, image in made.items():
        single = archives.layout_files(image, platform={"os": "linux", "architecture": architecture})
        entries += json.loads(single["index.json"])["manifests"]
        files |= single
    inner = oci_index(*entries)
    files |= archives.blobs_of(inner)
    files["index.json"] = oci_index(descriptor(inner, "application/vnd.oci.image.index.v1+json"))
    for name, content in files.items():
        (tmp_path / "layout" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "layout" / name).write_bytes(content)
    name = f"docker://{registry.host}/tools/app:1"
    skopeo.run("copy", "--all", "--dest-tls-verify=false", f"oci:{tmp_path}/layout", name)
    site = Site(tmp_path / "site")
    done = site.run("ingest", "--insecure", "--all-platforms", "--as", "app:1", "--json", name)
    assert done.status == 0, done.told
    stored = {it["image_id"]: it["pdh"] for it in json.loads(done.out)}
    assert list(stored) == [str(image.parsed.digest) for image in made.values()]
    for architecture, image in made.items():
        pdh = site.printed("resolve", "--platform", f"linux/{architecture}", "app:1")
        assert pdh == stored[str(image.parsed.digest)]
        show(capsys, f"app:1 for linux/{architecture} is {pdh}")
    assert "app:1: to the cluster it means" in done.err
    assert "(linux/s390x)" in done.err
    assert site.printed("ingest", "--all-platforms", f"oci:{tmp_path}/layout").split() == [
        it["uuid"] for it in json.loads(done.out)
    ]

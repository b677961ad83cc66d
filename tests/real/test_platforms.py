# SPDX-License-Identifier: Apache-2.0
"""Docker with the containerd store: an index of two platforms, of which it has both, or the foreign one alone."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ..archives import tar
from .containerd import ContainerdDocker
from .engines import Docker, Image
from .sites import Site, command

pytestmark = pytest.mark.engine("docker", "debootstrap")

OCI = "application/vnd.oci.image."
ARM, AMD = "linux/arm64", "linux/amd64"
ENGINE = 3


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def described(kind: str, content: bytes, **more: Any) -> dict[str, Any]:
    return {"mediaType": OCI + kind, "digest": sha256(content), "size": len(content), **more}


def an_index(name: str, there: tuple[str, ...]) -> tuple[bytes, dict[str, str]]:
    """An OCI archive of an index for two platforms, with the blobs of some, and each platform's config digest."""
    blobs: list[bytes] = []
    entries, configs = [], {}
    for platform in (AMD, ARM):
        system, processor = platform.split("/")
        layer = tar({"file": f"{name} {platform}".encode() * 50})
        packed = gzip.compress(layer, mtime=0)
        rootfs = {"type": "layers", "diff_ids": [sha256(layer)]}
        config = json.dumps({"architecture": processor, "os": system, "config": {}, "rootfs": rootfs}).encode()
        document = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}manifest.v1+json",
            "config": described("config.v1+json", config),
            "layers": [described("layer.v1.tar+gzip", packed)],
        }
        manifest = json.dumps(document).encode()
        entries.append(described("manifest.v1+json", manifest, platform={"architecture": processor, "os": system}))
        configs[platform] = sha256(config)
        if platform in there:
            blobs += [packed, config, manifest]
    inner = json.dumps({"schemaVersion": 2, "mediaType": f"{OCI}index.v1+json", "manifests": entries}).encode()
    names = {"io.containerd.image.name": f"docker.io/library/{name}:1", "org.opencontainers.image.ref.name": "1"}
    top = {"schemaVersion": 2, "manifests": [described("index.v1+json", inner, annotations=names)]}
    files = {f"blobs/sha256/{sha256(blob)[7:]}": blob for blob in [*blobs, inner]}
    return tar(
        {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(top).encode(), **files}
    ), configs


def stored_id(site: Site, *words: str) -> str:
    return str(json.loads(site.printed("ingest", "--json", *words))["image_id"])


def test_both_platforms_of_a_name_can_be_had(sid_docker: ContainerdDocker, tmp_path: Path) -> None:
    archive, configs = an_index("both", (AMD, ARM))
    sid_docker.run("load", stdin=archive)
    site = Site(tmp_path / "site", sid_docker)
    assert stored_id(site, "both:1") == configs[AMD]
    assert stored_id(site, "--platform", ARM, "both:1") == configs[ARM]
    assert stored_id(site, "--platform", ARM, "docker-daemon:both:1") == configs[ARM]
    site.printed("copy", "--platform", ARM, "docker-daemon:both:1", f"oci-archive:{tmp_path}/arm.tar:both:1")
    assert json.loads(site.printed("inspect", "--json", f"oci-archive:{tmp_path}/arm.tar"))["image_id"] == configs[ARM]
    seen = json.loads(site.printed("inspect", "--json", "--platform", ARM, "docker-daemon:both:1"))
    assert (seen["image_id"], seen["platform"]) == (configs[ARM], ARM)
    for platform, config in configs.items():
        empty = Site(tmp_path / f"empty-{platform[6:]}", sid_docker)  # so that it comes from the engine
        empty.make()
        staged = tmp_path / f"staged-{platform[6:]}"
        empty.printed("stage", "--platform", platform, "both:1", "--dir", staged)
        (tarball,) = staged.glob("*.tar")
        assert json.loads(site.printed("inspect", "--json", f"docker-archive:{tarball}"))["image_id"] == config


def test_a_foreign_platform_alone_is_stored(sid_docker: ContainerdDocker, tmp_path: Path) -> None:
    archive, configs = an_index("other", (ARM,))
    sid_docker.run("load", stdin=archive)
    site = Site(tmp_path / "site", sid_docker)
    done = site.run("ingest", "other:1")
    assert (done.status, f"the image is for {ARM}, and the cluster's nodes are taken to be" in done.err) == (0, True)
    assert stored_id(site, "other:1") == stored_id(site, "--platform", ARM, "other:1") == configs[ARM]
    site.printed("copy", "docker-daemon:other:1", f"oci-archive:{tmp_path}/arm.tar:other:1")
    for source in ("docker-daemon:other:1", f"oci-archive:{tmp_path}/arm.tar"):
        assert json.loads(site.printed("inspect", "--json", source))["image_id"] == configs[ARM]
    empty = Site(tmp_path / "empty", sid_docker)
    empty.make()
    empty.printed("stage", "--platform", ARM, "other:1", "--dir", tmp_path / "staged")
    (tarball,) = (tmp_path / "staged").glob("*.tar")
    assert json.loads(site.printed("inspect", "--json", f"docker-archive:{tarball}"))["image_id"] == configs[ARM]


def test_of_an_older_docker_all_platforms_are_saved_and_one_is_taken(
    containerd_docker: ContainerdDocker, tmp_path: Path
) -> None:
    """It cannot be asked for one. What it has not all of it cannot save at all."""
    both, configs = an_index("both", (AMD, ARM))
    other, _ = an_index("other", (ARM,))
    for archive in (both, other):
        containerd_docker.run("load", stdin=archive)
    site = Site(tmp_path / "site", containerd_docker)
    assert stored_id(site, "both:1") == configs[AMD]
    assert stored_id(site, "--platform", ARM, "both:1") == configs[ARM]
    assert stored_id(site, "--platform", ARM, "docker-daemon:both:1") == configs[ARM]
    site.printed("copy", "--platform", ARM, "docker-daemon:both:1", f"oci-archive:{tmp_path}/arm.tar:both:1")
    seen = json.loads(site.printed("inspect", "--json", "--platform", ARM, "docker-daemon:both:1"))
    assert seen["image_id"] == configs[ARM]
    assert json.loads(site.printed("inspect", "--json", f"oci-archive:{tmp_path}/arm.tar"))["image_id"] == configs[ARM]
    done = site.run("ingest", "--platform", "linux/s390x", "both:1")
    assert (done.status, "no image for linux/s390x" in done.err) == (1, True)
    containerd_docker.run("save", "both:1", "-o", tmp_path / "both.tar")
    for platform, config in configs.items():
        assert stored_id(site, "--platform", platform, f"oci-archive:{tmp_path}/both.tar") == config
        words = ("ingest", "--json", f"--local={tmp_path}/{platform[6:]}", "--platform", platform, "docker-archive:-")
        with (tmp_path / "both.tar").open("rb") as saved:
            piped = subprocess.run(command(*words), stdin=saved, capture_output=True, text=True, check=True)
        assert json.loads(piped.stdout)["image_id"] == config
    done = site.run("ingest", "other:1")
    assert (done.status, "does not have all of other:1" in done.err) == (ENGINE, True)


@pytest.mark.parametrize("engine", ["docker", "containerd_docker", "sid_docker"])
def test_a_name_given_in_an_oci_archive_works_after_loading(
    engine: str, request: pytest.FixtureRequest, small_image: Image, docker: Docker, tmp_path: Path
) -> None:
    """Classic store and containerd store: the name can be inspected, run and removed."""
    path = tmp_path / "named.tar"
    Site(tmp_path / "site", docker).printed(
        "copy", f"docker-daemon:{small_image.reference}", f"oci-archive:{path}:team/named:2"
    )
    loaded: Docker = request.getfixturevalue(engine)
    loaded.run("load", "--input", str(path))
    assert "team/named:2" in loaded.text("image", "inspect", "--format", "{{.RepoTags}}", "team/named:2")
    assert loaded.text("run", "--rm", "--network", "none", "team/named:2") == small_image.greeting
    loaded.run("rmi", "team/named:2")

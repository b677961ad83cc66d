# SPDX-License-Identifier: Apache-2.0
"""Archives and layouts as real tools write them: one image is one canonical archive, and skopeo reads them as we do.

Those of tools that cannot run here are written by `tests/archives.py`, which says what they look like and why.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import zstandard

from arv_docker.archive import canonical
from arv_docker.archive.archived_image import ArchivedImage
from arv_docker.model.image import Digest
from arv_docker.transports import names

from . import engines, registries
from .containerd import ContainerdDocker
from .engines import Docker, Image, Podman, Program

pytestmark = pytest.mark.engine("docker", "busybox", "skopeo")

WRAPS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
    "zst": zstandard.ZstdCompressor().compress,
}


@dataclass(frozen=True)
class Golden:
    """What tools wrote, by the names of places; `image` is the ID that Docker has for what went in."""

    folder: Path
    image: Digest
    diff_ids: tuple[Digest, ...]

    def place(self, name: str) -> str:
        """The place with the folder in it."""
        transport, _, rest = name.partition(":")
        return f"{transport}:{self.folder}/{rest}"

    def canonical(self, name: str) -> str:
        """The SHA-256 of the canonical archive of the image at that place."""
        with names.source(self.place(name)).open() as image:
            assert isinstance(image, ArchivedImage)
            layout = canonical.layout(image.config, image.sizes)
            found = hashlib.sha256()
            for chunk in canonical.content(layout, image.layer):
                found.update(chunk)
        return found.hexdigest()


#: Places whose tools keep the config, so that the image is the same.
KEPT = [
    "docker-archive:docker.tar",
    "docker-archive:docker-by-id.tar",
    "docker-archive:docker-two.tar:arvtest/golden:1",
    *(f"docker-archive:docker.tar.{kind}" for kind in WRAPS),
    "docker-archive:docker.zip",
    "docker-archive:canonical.tar",
    "oci-archive:canonical.tar",
    "docker-archive:skopeo.tar",
    "docker-archive:skopeo.tar:docker.io/arvtest/golden:1",
    "oci:skopeo-gzip:golden",
    "oci:skopeo-zstd:golden",
    "oci:skopeo-plain",
    "oci-archive:skopeo-oci.tar",
    "oci:ours:golden",
]
PODMAN_KEPT = ["docker-archive:podman.tar", "docker-archive:podman-two.tar:localhost/arvtest/golden:1"]
CONTAINERD_KEPT = [
    "docker-archive:containerd.tar",
    "docker-archive:containerd-by-id.tar",
    "docker-archive:containerd-two.tar:arvtest/golden:1",
    "docker-archive:containerd-pulled.tar",
    "oci-archive:containerd-pulled.tar",
]
#: Those whose tools write another config from it, which is another image (docs/spec/archive.md#conversions).
CONVERTED = ["oci:skopeo-converted:golden", "oci-archive:skopeo-converted.tar"]
PODMAN_CONVERTED = ["oci-archive:podman-oci.tar", "oci:podman-oci"]


@pytest.fixture(scope="module")
def golden(docker: Docker, skopeo: Program, small_image: Image, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    """Everything that Docker and skopeo write, of an image with a repeated layer."""
    folder = tmp_path_factory.mktemp("golden")
    layers = {"a.tar": engines.tar_of({"a": (b"a" * 5000, 0o644)}), "b.tar": engines.tar_of({"b": (b"b", 0o644)})}
    dockerfile = f"FROM {small_image.id}\nADD a.tar /\nADD b.tar /\nADD a.tar /\nWORKDIR /\nLABEL x=y\n"
    identity = docker.build(dockerfile, layers, "arvtest/golden:1")
    diff_ids = json.loads(docker.text("image", "inspect", "--format", "{{json .RootFS.Layers}}", identity))
    found = Golden(folder, Digest.parse(identity), tuple(map(Digest.parse, diff_ids)))
    docker.run("save", "--output", folder / "docker.tar", "arvtest/golden:1")
    docker.run("save", "--output", folder / "docker-by-id.tar", identity)
    docker.run("save", "--output", folder / "docker-two.tar", "arvtest/golden:1", small_image.reference)
    for kind, wrap in WRAPS.items():
        (folder / f"docker.tar.{kind}").write_bytes(wrap((folder / "docker.tar").read_bytes()))
    with zipfile.ZipFile(folder / "docker.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "docker.tar", "docker.tar")
    with names.source(found.place("docker-archive:docker.tar")).open() as image:
        names.destination(found.place("docker-archive:canonical.tar")).write(image, lambda _: None)
        names.destination(found.place("oci:ours:golden")).write(image, lambda _: None)

    def copy(source: str, destination: str, *options: str) -> None:
        skopeo.run("copy", "--quiet", *options, found.place(source), found.place(destination))

    copy("docker-archive:docker.tar", "docker-archive:skopeo.tar:arvtest/golden:1")
    copy("oci-archive:canonical.tar", "oci:skopeo-gzip:golden", "--dest-compress")
    copy("oci-archive:canonical.tar", "oci:skopeo-zstd:golden", "--dest-compress", "--dest-compress-format", "zstd")
    copy("oci-archive:canonical.tar", "oci:skopeo-plain", "--dest-oci-accept-uncompressed-layers")
    copy("oci-archive:canonical.tar", "oci-archive:skopeo-oci.tar")
    copy("docker-archive:docker.tar", "oci:skopeo-converted:golden")
    copy("docker-archive:docker.tar", "oci-archive:skopeo-converted.tar")
    return found


@pytest.fixture(scope="module")
def podman_golden(golden: Golden, engine_scratch: Path) -> Golden:
    """And what Podman writes."""
    engines.require("podman")
    podman = Podman(engine_scratch / "pg")
    podman.run("load", "--input", golden.folder / "docker-two.tar")
    name, other = "localhost/arvtest/golden:1", "localhost/arvtest/small:1"
    podman.run("save", "--format", "docker-archive", "--output", golden.folder / "podman.tar", name)
    podman.run("save", "--multi-image-archive", "--output", golden.folder / "podman-two.tar", name, other)
    podman.run("save", "--format", "oci-archive", "--output", golden.folder / "podman-oci.tar", name)
    podman.run("save", "--format", "oci-dir", "--output", golden.folder / "podman-oci", name)
    podman.empty()
    return golden


@pytest.fixture(scope="module")
def containerd_golden(
    golden: Golden, docker: Docker, _containerd_daemon: ContainerdDocker, tmp_path_factory: pytest.TempPathFactory
) -> Golden:
    """And what Docker with the containerd store writes: of an image that was loaded, and of one that was pulled, whose
    layers it keeps compressed."""
    engine = _containerd_daemon
    engine.empty()
    engine.run("load", "--input", golden.folder / "docker-two.tar")
    name = "arvtest/golden:1"
    identity = engine.text("image", "inspect", "--format", "{{.Id}}", name)
    engine.run("save", "--output", golden.folder / "containerd.tar", name)
    engine.run("save", "--output", golden.folder / "containerd-by-id.tar", identity)
    engine.run("save", "--output", golden.folder / "containerd-two.tar", name, "arvtest/small:1")
    engine.empty()
    with registries.registry(tmp_path_factory.mktemp("registry") / "r", "open") as server:
        there = f"{server.host}/tools/golden:1"
        docker.run("tag", name, there)
        docker.run("push", there)
        docker.run("rmi", there)
        engine.run("pull", there)
        engine.run("save", "--output", golden.folder / "containerd-pulled.tar", there)
    engine.empty()
    return golden


def seen_by_skopeo(skopeo: Program, place: str) -> dict[str, Any]:
    config = skopeo.run("inspect", "--config", "--raw", place).stdout
    shown = json.loads(skopeo.run("inspect", "--no-tags", place).stdout)
    return {
        "image_id": f"sha256:{hashlib.sha256(config).hexdigest()}",
        "platform": f"{shown['Os']}/{shown['Architecture']}",
        "layers": shown["Layers"],
    }


def seen_by_us(place: str) -> dict[str, Any]:
    with names.source(place).open() as image:
        assert isinstance(image, ArchivedImage)
        stored = {diff_id: it.digest for diff_id, it in image.compressed_layers.items()}
        return {
            "image_id": str(image.config.digest),
            "platform": str(image.config.platform),
            "layers": [str(stored.get(diff_id, diff_id)) for diff_id in image.config.diff_ids],
        }


@pytest.mark.parametrize("name", KEPT)
def test_one_image_is_one_archive(golden: Golden, name: str) -> None:
    assert golden.canonical(name) == hashlib.sha256((golden.folder / "canonical.tar").read_bytes()).hexdigest()


@pytest.mark.parametrize("name", PODMAN_KEPT)
def test_one_image_is_one_archive_from_podman(podman_golden: Golden, name: str) -> None:
    test_one_image_is_one_archive(podman_golden, name)


@pytest.mark.engine("debootstrap", "registry")
@pytest.mark.parametrize("name", CONTAINERD_KEPT)
def test_one_image_is_one_archive_from_containerd(containerd_golden: Golden, skopeo: Program, name: str) -> None:
    """Layers that lie there compressed are called by that digest; skopeo, where it reads Docker's `manifest.json`
    instead of the OCI index, knows only what they hash to when unpacked."""
    test_one_image_is_one_archive(containerd_golden, name)
    theirs = seen_by_skopeo(skopeo, containerd_golden.place(name))
    ours = seen_by_us(containerd_golden.place(name))
    if name == "docker-archive:containerd-pulled.tar":
        assert not set(ours["layers"]) & set(map(str, containerd_golden.diff_ids))
        ours["layers"] = [str(diff_id) for diff_id in containerd_golden.diff_ids]
    assert ours == theirs


@pytest.mark.parametrize("name", [name for name in (*KEPT, *CONVERTED) if not name.endswith((".zip", ".gz"))])
def test_skopeo_sees_the_same(golden: Golden, skopeo: Program, name: str) -> None:
    """ZIP files it does not read, nor, in version 1.9, archives in a gzip: "invalid tar header"."""
    place = golden.place(name)
    assert seen_by_us(place) == seen_by_skopeo(skopeo, place)


@pytest.mark.parametrize("name", [*PODMAN_KEPT, *PODMAN_CONVERTED])
def test_skopeo_sees_the_same_of_podmans(podman_golden: Golden, skopeo: Program, name: str) -> None:
    test_skopeo_sees_the_same(podman_golden, skopeo, name)


@pytest.mark.parametrize("name", CONVERTED)
def test_a_converted_image_is_another_one_with_the_same_layers(golden: Golden, name: str) -> None:
    with names.source(golden.place(name)).open() as image:
        assert image.config.digest != golden.image
        assert image.config.diff_ids == golden.diff_ids
        assert {layer.diff_id for layer in image.layers() if _drained(layer)} == set(golden.diff_ids)


@pytest.mark.parametrize("name", PODMAN_CONVERTED)
def test_what_podman_converted(podman_golden: Golden, name: str) -> None:
    test_a_converted_image_is_another_one_with_the_same_layers(podman_golden, name)


def _drained(layer: Any) -> bool:
    while layer.read():
        pass
    return True


def test_what_is_in_the_image(golden: Golden) -> None:
    """The image has what the statements above are about: a layer twice."""
    assert len(set(golden.diff_ids)) < len(golden.diff_ids)
    with names.source(golden.place("oci:skopeo-zstd:golden")).open() as image:
        assert isinstance(image, ArchivedImage)
        assert set(image.compressed_layers) == set(golden.diff_ids)


@pytest.mark.engine("umoci")
def test_what_umoci_makes(skopeo: Program, tmp_path: Path) -> None:
    """An image that no engine has seen: an empty one, and a layer that umoci adds and compresses."""

    def umoci(*arguments: str) -> None:
        subprocess.run(["umoci", *arguments], check=True, capture_output=True)

    place = f"oci:{tmp_path}/layout:made"
    (tmp_path / "file").write_text("x" * 1000)
    umoci("init", "--layout", f"{tmp_path}/layout")
    umoci("new", "--image", f"{tmp_path}/layout:made")
    assert seen_by_us(place)["layers"] == []
    umoci("insert", "--image", f"{tmp_path}/layout:made", f"{tmp_path}/file", "/file")
    assert seen_by_us(place) == seen_by_skopeo(skopeo, place)
    assert len(seen_by_us(place)["layers"]) == 1


def test_engines_take_what_is_written(golden: Golden, second_docker: Docker) -> None:
    """With a name in it, as `docker load` shows one."""
    with names.source(golden.place("oci:skopeo-zstd:golden")).open() as image:
        names.destination(golden.place("docker-archive:named.tar:arvtest/back:1")).write(image, lambda _: None)
        names.destination(golden.place("oci-archive:named-oci.tar:back")).write(image, lambda _: None)
    second_docker.run("load", "--input", golden.folder / "named.tar")
    assert second_docker.text("image", "inspect", "--format", "{{.Id}}", "arvtest/back:1") == str(golden.image)
    assert golden.canonical("oci-archive:named-oci.tar:back") == golden.canonical("docker-archive:docker.tar")
    second_docker.empty()

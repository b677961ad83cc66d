# SPDX-License-Identifier: Apache-2.0
"""Images go into a real registry and come out of it, by our commands and by those of others."""

import base64
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from arv_docker.archive.layer import CHUNK
from arv_docker.model.image import Digest
from arv_docker.model.reference import Reference
from arv_docker.registry.credentials import Provider, static_provider
from arv_docker.transports.registry import RegistrySource

from . import registries
from .engines import Docker, Image, Podman, Program
from .registries import PASSWORD, USER, Distribution
from .sites import Done, Site, command, finished, show, started


@pytest.fixture(params=registries.KINDS)
def registry(request: pytest.FixtureRequest, engine_scratch: Path, tmp_path: Path) -> Iterator[Distribution]:
    """A registry of each kind."""
    with registries.registry(tmp_path / "registry", request.param) as server:
        yield server


def provider(registry: Distribution) -> Provider | None:
    return None if registry.kind == "open" else static_provider(USER, PASSWORD)


def log_in(engine: Program, registry: Distribution) -> None:
    if registry.kind != "open":
        insecure = ["--tls-verify=false"] if isinstance(engine, Podman) else []
        engine.run("login", *insecure, "--username", USER, "--password-stdin", registry.host, stdin=PASSWORD.encode())


def read(registry: Distribution, name: str) -> tuple[Digest, list[Digest]]:
    """The image's ID and its layers, each read to its end."""
    source = RegistrySource(Reference.parse(f"{registry.host}/{name}"), insecure=True, provider=provider(registry))
    with source.open() as image:
        layers = []
        for layer in image.layers():
            while layer.read(CHUNK):
                pass
            layers.append(layer.diff_id)
        return image.config.digest, layers


def pushed_by_docker(docker: Docker, registry: Distribution, image: Image, name: str) -> None:
    log_in(docker, registry)
    docker.run("tag", image.reference, f"{registry.host}/{name}")
    try:
        docker.run("push", f"{registry.host}/{name}")
    finally:
        docker.run("rmi", f"{registry.host}/{name}")


@pytest.mark.conforms("H17")
@pytest.mark.engine("docker", "busybox", "registry")
def test_what_docker_pushed_is_read(docker: Docker, registry: Distribution, small_image: Image) -> None:
    pushed_by_docker(docker, registry, small_image, "tools/app:1")
    image_id, layers = read(registry, "tools/app:1")
    assert str(image_id) == small_image.id
    assert tuple(map(str, layers)) == small_image.diff_ids


# -- pushing -----------------------------------------------------------------------------------


def pushed(engine: Program, registry: Distribution, *words: str, **variables: str) -> Done:
    """What `arv-docker registry push` says, with the secret in a variable where there is one."""
    options = [] if registry.kind == "open" else ["--username", USER, "--password-env", "THE_SECRET"]
    line = command("registry", "push", "--insecure", registry.host, *words, *options)
    secret = {} if registry.kind == "open" else {"THE_SECRET": PASSWORD}
    return finished(started(line, engine.environment | secret | variables))


def inspected(skopeo: Program, registry: Distribution, name: str) -> dict[str, Any]:
    """The image's config and manifest, as skopeo reads them; it fails where digests do not fit."""
    reference = f"docker://{registry.host}/{name}"
    credentials = ["--no-creds"] if registry.kind == "open" else ["--creds", f"{USER}:{PASSWORD}"]
    words = ("inspect", "--tls-verify=false", *credentials)
    raw = skopeo.text(*words, "--config", "--raw", reference)
    assert isinstance(json.loads(raw), dict)
    image = json.loads(skopeo.text(*words, reference))
    return {
        "id": Digest.of(raw.encode()),
        "diff_ids": tuple(json.loads(raw)["rootfs"]["diff_ids"]),
        "digest": image["Digest"],
        "layers": image["Layers"],
    }


def recording(folder: Path, program: str) -> Path:
    """A folder for the front of PATH, whose program notes its arguments and environment before it does its work."""
    real = shutil.which(program)
    folder.mkdir()
    (folder / program).write_text(f'#!/bin/sh\n{{ echo "$0" "$@"; env; }} >>{folder}/noted\nexec {real} "$@"\n')
    (folder / program).chmod(0o755)
    return folder


def names_in(docker: Docker) -> set[str]:
    """Its images with their names; it lists those that were made at the same time in any order."""
    return set(docker.text("image", "ls", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}").splitlines())


@pytest.mark.conforms("H6", "H10", "H16", "H17")
@pytest.mark.engine("docker", "busybox", "registry", "skopeo")
def test_a_push_from_docker_is_what_others_pull(
    docker: Docker,
    second_docker: Docker,
    skopeo: Program,
    registry: Distribution,
    small_image: Image,
    tmp_path: Path,
    home: Path,
) -> None:
    before = names_in(docker)
    programs = recording(tmp_path / "programs", "docker")
    done = pushed(docker, registry, small_image.reference, PATH=f"{programs}:{os.environ['PATH']}")
    assert done.status == 0, done.told
    name = done.out.strip()
    assert name == f"arvtest/small:1-{small_image.id.removeprefix('sha256:')[:10]}"
    assert names_in(docker) == before
    found = inspected(skopeo, registry, name)
    assert (str(found["id"]), found["diff_ids"]) == (small_image.id, small_image.diff_ids)
    log_in(second_docker, registry)
    second_docker.run("pull", "--quiet", f"{registry.host}/{name}")
    assert second_docker.image_ids() == {small_image.id}
    assert second_docker.text("run", "--rm", "--network", "none", small_image.id) == small_image.greeting
    files = [path for path in (*home.rglob("*"), programs / "noted") if path.is_file()]
    basic = base64.b64encode(f"{USER}:{PASSWORD}".encode())
    for secret in (PASSWORD.encode(), basic):
        assert secret not in (done.out + done.err).encode()
        assert [path for path in files if secret in path.read_bytes()] == []
    assert "docker" in (programs / "noted").read_text()


@pytest.mark.conforms("H6", "H17")
@pytest.mark.engine("docker", "busybox", "registry", "podman", "skopeo")
def test_the_same_image_from_an_archive_podman_a_folder_and_keep_is_the_same(
    docker: Docker,
    second_docker: Docker,
    podman: Podman,
    skopeo: Program,
    registry: Distribution,
    small_image: Image,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One manifest, layers that are sent once (other repositories of the registry take them over), and others agree."""
    saved, folder = tmp_path / "docker.tar", tmp_path / "folder"
    docker.run("save", "--output", saved, small_image.reference)
    podman.run("load", "--input", saved)
    site = Site(tmp_path / "site", docker)
    site.printed("ingest", small_image.reference)
    site.printed("copy", f"docker-archive:{saved}", f"folder:{folder}:app:1")
    log_in(second_docker, registry)
    sources = {
        "archive": (docker, [f"docker-archive:{saved}"]),
        "podman": (podman, [f"localhost/{small_image.reference}", "--engine", "podman"]),
        "keep": (docker, [f"keep:{small_image.reference}", f"--local={site.folder}"]),
        "folder": (docker, [f"folder:{folder}:app:1"]),
        "docker": (docker, [small_image.reference]),
    }
    if registry.kind == "open":
        sources["registry"] = (docker, [f"docker://{registry.host}/from/archive:1"])
    sent = {}
    digests = set()
    for source, (engine, words) in sources.items():
        name = f"from/{source}:1"
        before = registry.received
        done = pushed(engine, registry, *words[:1], name, *words[1:], "--json")
        sent[source] = registry.received - before
        assert done.status == 0, done.told
        answer = json.loads(done.out)
        digests.add(answer["digest"])
        assert read(registry, name) == (Digest.parse(small_image.id), list(map(Digest.parse, small_image.diff_ids)))
        found = inspected(skopeo, registry, name)
        assert (str(found["id"]), found["diff_ids"]) == (small_image.id, small_image.diff_ids)
        assert (found["digest"], len(found["layers"])) == (answer["digest"], len(small_image.diff_ids))
        second_docker.empty()
        second_docker.run("pull", "--quiet", f"{registry.host}/{name}")
        layers = second_docker.text("image", "inspect", "--format", "{{json .RootFS.Layers}}", small_image.id)
        assert (second_docker.image_ids(), tuple(json.loads(layers))) == ({small_image.id}, small_image.diff_ids)
    assert len(digests) == 1
    assert sent.pop("archive") > 1_000_000
    assert max(sent.values()) < 32_768, sent  # the config, the manifest and questions, as they arrived
    show(capsys, f"registry ({registry.kind}): the same image again, bytes that it got: {sent}")


@pytest.mark.engine("docker", "busybox", "registry")
def test_of_the_next_version_only_the_changed_layer_is_sent(
    docker: Docker,
    registry: Distribution,
    base_image: Image,
    small_image: Image,
    variant_of: Callable[[Image, str], Image],
    capsys: pytest.CaptureFixture[str],
) -> None:
    image = base_image if registry.kind == "open" else small_image
    first = pushed(docker, registry, image.reference)
    assert first.status == 0, first.told
    before = registry.received
    variant = variant_of(image, "arvtest/next:2")
    second = pushed(docker, registry, variant.reference)
    assert second.status == 0, second.told
    received = registry.received - before
    image_id, layers = read(registry, second.out.strip())
    assert (str(image_id), tuple(map(str, layers))) == (variant.id, variant.diff_ids)
    assert variant.diff_ids[:-1] == image.diff_ids[:-1]
    assert received < 32_768  # the changed layer is one small file; the rest is heads of requests, with their tokens
    show(capsys, f"registry ({registry.kind}): first push {before:,} bytes, the next version {received:,}")


@pytest.mark.engine("docker", "busybox", "registry")
@pytest.mark.parametrize("registry", ["open"], indirect=True)
def test_connections_that_break_cost_little(
    docker: Docker, registry: Distribution, base_image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reading goes on where it broke. Distribution 2.8 forgets an upload that broke in a request: it is sent anew."""
    registry.breaks(3, 20_000_000)
    done = pushed(docker, registry, base_image.reference, "app:1")
    assert done.status == 0, done.told
    size = registry.received
    assert size < 110_200_000 + 3 * 22_000_000
    served = registry.served
    registry.breaks(3, 20_000_000)
    with RegistrySource(Reference.parse(f"{registry.host}/app:1"), insecure=True).open() as image:
        assert str(image.config.digest) == base_image.id
        for layer in image.layers():
            while layer.read(CHUNK):
                pass
        assert image.bytes_received <= sum(it.size for it in image.compressed_layers.values())
    show(
        capsys,
        f"registry: over connections that broke three times {size:,} bytes sent, {registry.served - served:,} got",
    )


@pytest.mark.conforms("H12", "H13", "H15")
@pytest.mark.engine("docker", "busybox", "registry")
@pytest.mark.parametrize("registry", ["open", "password"], indirect=True)
def test_lists_status_and_deletion(docker: Docker, registry: Distribution, small_image: Image) -> None:
    options = [] if registry.kind == "open" else ["--username", USER, "--password-env", "THE_SECRET"]

    def run(verb: str, *words: str) -> tuple[int, list[str]]:
        line = command("registry", verb, "--insecure", registry.host, *words, *options)
        done = finished(started(line, docker.environment | {"THE_SECRET": PASSWORD}))
        assert "Traceback" not in done.err
        return done.status, sorted(done.out.split())

    assert run("images") == (0, [])
    assert pushed(docker, registry, small_image.reference, "app:1").status == 0
    assert pushed(docker, registry, small_image.reference, "app:2").status == 0
    assert (run("repos"), run("images")) == ((0, ["app"]), (0, ["app:1", "app:2"]))
    assert (run("status", "app:1"), run("status", "app:3")) == ((0, ["ready"]), (1, ["absent"]))
    assert run("delete", "app:1") == (9, [])  # it would take app:2 along
    assert run("images") == (0, ["app:1", "app:2"])


@pytest.mark.conforms("H8")
@pytest.mark.engine("docker", "busybox", "registry")
@pytest.mark.parametrize("registry", ["password", "tokens"], indirect=True)
def test_a_wrong_password(docker: Docker, registry: Distribution, small_image: Image) -> None:
    line = command("registry", "push", "--insecure", registry.host, small_image.reference, "--username", USER)
    done = finished(started([*line, "--password-env", "WRONG"], docker.environment | {"WRONG": "another secret"}))
    assert (done.status, done.out) == (9, "")
    assert f"{registry.host}: " in done.err
    assert "401" in done.err
    assert "another secret" not in done.err

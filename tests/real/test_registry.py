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
from arv_docker.image import Digest
from arv_docker.reference import Reference
from arv_docker.registry.credentials import Provider, static
from arv_docker.transports.registry import RegistrySource
from tests.real import registries
from tests.real.engines import Docker, Image, Podman, Program
from tests.real.registries import PASSWORD, USER, Distribution
from tests.real.sites import Done, Site, command, finished, show, started


@pytest.fixture(params=registries.KINDS)
def registry(request: pytest.FixtureRequest, engine_scratch: Path, tmp_path: Path) -> Iterator[Distribution]:
    """A registry of each kind."""
    with registries.registry(tmp_path / "registry", request.param) as server:
        yield server


def provider(registry: Distribution) -> Provider | None:
    return None if registry.kind == "open" else static(USER, PASSWORD)


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
    """The image's config, as skopeo reads it; it fails where digests do not fit."""
    reference = f"docker://{registry.host}/{name}"
    credentials = ["--no-creds"] if registry.kind == "open" else ["--creds", f"{USER}:{PASSWORD}"]
    raw = skopeo.text("inspect", "--tls-verify=false", *credentials, "--config", "--raw", reference)
    assert isinstance(json.loads(raw), dict)
    return {"id": Digest.of(raw.encode()), "diff_ids": tuple(json.loads(raw)["rootfs"]["diff_ids"])}


def recording(folder: Path, program: str) -> Path:
    """A folder for the front of PATH, whose program notes its arguments and environment before it does its work."""
    real = shutil.which(program)
    folder.mkdir()
    (folder / program).write_text(f'#!/bin/sh\n{{ echo "$0" "$@"; env; }} >>{folder}/noted\nexec {real} "$@"\n')
    (folder / program).chmod(0o755)
    return folder


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
    before = docker.text("image", "ls", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}")
    programs = recording(tmp_path / "programs", "docker")
    done = pushed(docker, registry, small_image.reference, PATH=f"{programs}:{os.environ['PATH']}")
    assert done.status == 0, done.told
    name = done.out.strip()
    assert name == f"arvtest/small:1-{small_image.id.removeprefix('sha256:')[:10]}"
    assert docker.text("image", "ls", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}") == before
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


@pytest.mark.engine("docker", "busybox", "registry", "podman", "skopeo")
@pytest.mark.parametrize("registry", ["open"], indirect=True)
def test_the_same_image_from_an_archive_podman_and_keep_is_the_same(
    docker: Docker, podman: Podman, skopeo: Program, registry: Distribution, small_image: Image, tmp_path: Path
) -> None:
    """One manifest, and layers that are sent once: other repositories of the registry take them over."""
    saved = tmp_path / "docker.tar"
    docker.run("save", "--output", saved, small_image.reference)
    podman.run("load", "--input", saved)
    site = Site(tmp_path / "site", docker)
    site.printed("ingest", small_image.reference)
    answers = []
    for number, (engine, words) in enumerate(
        (
            (docker, [f"docker-archive:{saved}"]),
            (podman, [f"localhost/{small_image.reference}", "--engine", "podman"]),
            (docker, [f"keep:{small_image.reference}", f"--local={site.folder}"]),
            (docker, [f"docker://{registry.host}/from/0:1"]),
        )
    ):
        done = pushed(engine, registry, *words[:1], f"from/{number}:1", *words[1:], "--json")
        assert done.status == 0, done.told
        answers.append(json.loads(done.out))
        assert str(read(registry, f"from/{number}:1")[0]) == small_image.id
        assert inspected(skopeo, registry, f"from/{number}:1")["diff_ids"] == small_image.diff_ids
    assert len({answer["digest"] for answer in answers}) == 1
    assert answers[0]["bytes_sent"] > 1_000_000
    assert max(answer["bytes_sent"] for answer in answers[1:]) < 10_000  # the config


@pytest.mark.engine("docker", "busybox", "registry")
@pytest.mark.parametrize("registry", ["open"], indirect=True)
def test_of_the_next_version_only_the_changed_layer_is_sent(
    docker: Docker,
    registry: Distribution,
    base_image: Image,
    variant_of: Callable[[Image, str], Image],
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = pushed(docker, registry, base_image.reference)
    assert first.status == 0, first.told
    before = registry.received
    variant = variant_of(base_image, "arvtest/base:2")
    second = pushed(docker, registry, variant.reference)
    assert second.status == 0, second.told
    assert read(registry, second.out.strip())[1][-1] != Digest.parse(base_image.diff_ids[-1])
    received = registry.received - before
    assert received < 16_384
    show(capsys, f"registry: first push {before:,} bytes, the next version {received:,}")


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
        assert image.received <= sum(it.size for it in image.compressed.values())
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

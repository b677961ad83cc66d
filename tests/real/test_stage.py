# SPDX-License-Identifier: Apache-2.0
"""Images that are carried along: staged with engines, Keep and registries, used where there is none of them."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import arv_docker
from arv_docker.engines import docker as docker_command
from arv_docker.engines import podman as podman_command
from arv_docker.staging.origins import FromEngine
from arv_docker.store.cache import CacheFolder
from arv_docker.store.tarballs import cache_folder
from arv_docker.transports.docker_archive import ArchiveFile

from ..archives import Image as Made
from ..archives import classic
from ..staging.conftest import Said
from . import registries
from .containerd import ContainerdDocker
from .engines import Docker, Engine, Image, Podman, Program
from .sites import Done, Site, command, finished, started

VariantOf = Callable[[Image, str], Image]

COMMANDS = {"docker": docker_command.Docker, "podman": podman_command.Podman}

CONTENT = 5


@pytest.fixture
def site(docker: Docker, tmp_path: Path) -> Site:
    """A site beside the one Docker that has the small image."""
    return Site(tmp_path / "site", docker)


@pytest.fixture
def loaded(request: pytest.FixtureRequest) -> tuple[str, Engine]:
    """An empty engine, by its name."""
    engine: Engine = request.getfixturevalue({"docker": "second_docker"}.get(request.param, request.param))
    return request.param, engine


def alone(*words: str | Path, engine: Program | None = None) -> Done:
    """A command without a network, and with no engine on PATH but the given one."""
    environment = engine.environment if engine else dict(os.environ)
    if engine is None:
        environment = {name: value for name, value in environment.items() if not name.startswith("DOCKER")}
        environment["PATH"] = "/nowhere"
    prefix = ["/usr/bin/unshare", "--net"]  # in a network with nothing in it
    return finished(started(command(*words, prefix=prefix), environment))


def run(engine: Engine, name: str) -> str:
    """What a container of the image prints; nothing is fetched for it."""
    return engine.text("run", "--rm", "--network", "none", "--pull", "never", name)


def insecurely(registry: registries.Distribution, folder: Path) -> dict[str, str]:
    """Variables with which Podman talks to a registry on this machine without TLS, as Docker does in any case."""
    (folder / "registries.conf").write_text(f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n')
    return {"CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf")}


def empty(engine: Engine) -> None:
    """Removes all its images."""
    assert isinstance(engine, Docker | Podman)
    engine.empty()


@pytest.mark.engine("docker", "podman", "busybox")
@pytest.mark.conforms("W13", "W14", "W18")
def test_offline_from_the_cache_into_an_empty_podman(
    site: Site, docker: Docker, podman: Podman, small_image: Image, variant_of: VariantOf, tmp_path: Path
) -> None:
    """Staged with an engine and Keep; then with neither, and with no network."""
    following = variant_of(small_image, "arvtest/small:2")
    site.printed("ingest", small_image.reference)
    names = (small_image.reference, following.reference)
    done = site.run("stage", *names, "--dir", tmp_path / "first")
    assert done.status == 0, done.told
    assert f"{small_image.reference}: from Keep" in done.err
    assert f"{following.reference}: from the engine" in done.err

    offline = alone("stage", "--offline", *names, "--dir", tmp_path / "carried")
    assert offline.status == 0, offline.told
    assert len(offline.out.splitlines()) == 2
    verified = alone("verify", tmp_path / "carried")
    assert verified.status == 0, verified.told
    assert [line.split()[0] for line in verified.out.splitlines()] == ["ok", "ok"]
    missing = alone("stage", "--offline", "arvtest/none:1", "--dir", tmp_path / "carried")
    assert (missing.status, "arvtest/none:1" in missing.err) == (1, True), missing.told

    deployed = alone("deploy", tmp_path / "carried", "--engine", "podman", engine=podman)
    assert deployed.status == 0, deployed.told
    assert {tuple(line.split()) for line in deployed.out.splitlines()} == {
        (image.id, "loaded", f"docker.io/{image.reference}") for image in (small_image, following)
    }
    assert podman.image_ids() == {small_image.id, following.id}
    for image in (small_image, following):
        assert run(podman, image.reference) == image.greeting
    again = alone("deploy", tmp_path / "carried", "--engine", "podman", engine=podman)
    assert [line.split()[1] for line in again.out.splitlines()] == ["there", "there"], again.told


@pytest.mark.engine("docker", "podman", "busybox")
def test_the_image_for_a_platform(
    site: Site, docker: Docker, second_docker: Docker, podman: Podman, small_image: Image, tmp_path: Path
) -> None:
    """Two images by one name in Keep: each into a folder of its own, and from there into engines."""
    native = docker.text("image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", small_image.id)
    other = "linux/riscv64"
    (tmp_path / "native.tar").write_bytes(docker.run("save", small_image.id).stdout)
    with ArchiveFile(tmp_path / "native.tar").open() as image:
        config = {**json.loads(image.config.raw), "architecture": "riscv64", "variant": ""}
        made = Made(json.dumps(config).encode(), tuple(image.layer(it).read(1 << 30) for it in image.config.diff_ids))
    (tmp_path / "other.tar").write_bytes(classic(made))
    for name in ("native", "other"):
        site.printed("ingest", f"docker-archive:{tmp_path}/{name}.tar", "--as", "app:1")
    for platform in (native, other):
        folder = tmp_path / platform.replace("/", "-")
        (found,) = json.loads(site.printed("stage", "--platform", platform, "--json", "app:1", "--dir", folder))
        assert f"{found['os']}/{found['architecture']}" == platform
        for name, engine in (("docker", second_docker), ("podman", podman)):
            done = Site(site.folder, engine).run("deploy", folder, "--engine", name)
            assert (done.status, done.out) == (0, f"{found['image_id']} loaded docker.io/library/app:1\n"), done.told
            assert ("warning" in done.err) == (platform == other)
    offline = alone("stage", "--offline", "--platform", native, "app:1", "--dir", tmp_path / "again")
    assert offline.status == 0, offline.told
    refused = site.run("stage", "--platform", native, "app:1", "--dir", tmp_path / other.replace("/", "-"))
    assert (refused.status, "a folder has one image of a name" in refused.err) == (1, True), refused.told


@pytest.mark.engine("docker", "podman", "busybox")
@pytest.mark.conforms("W18", "W19", "W20")
@pytest.mark.parametrize(("loaded", "layout"), [("docker", "plain"), ("podman", "wfexs")], indirect=["loaded"])
def test_what_an_engine_lacks_is_loaded_once_and_nothing_that_was_altered(
    site: Site, loaded: tuple[str, Engine], small_image: Image, layout: str, tmp_path: Path
) -> None:
    name, engine = loaded
    there = Site(site.folder, engine)
    site.make()
    site.printed("stage", "--layout", layout, small_image.reference, "--dir", tmp_path / "d")
    archive = next(it for it in sorted((tmp_path / "d").rglob("*")) if it.is_file() and "meta" not in it.name)
    content = archive.read_bytes()
    archive = archive.resolve()
    archive.chmod(0o644)
    damaged = bytearray(content)
    damaged[len(damaged) // 2] ^= 1
    archive.write_bytes(damaged)
    refused = there.run("deploy", tmp_path / "d", "--engine", name)
    assert refused.status == CONTENT, refused.told
    assert engine.image_ids() == set()
    archive.write_bytes(content)
    for state in ("loaded", "there"):
        done = there.run("deploy", tmp_path / "d", "--engine", name)
        assert done.status == 0, done.told
        assert done.out == f"{small_image.id} {state} docker.io/{small_image.reference}\n"
    assert run(engine, small_image.reference) == small_image.greeting
    engine.run("rmi", small_image.reference)
    assert there.printed("deploy", tmp_path / "d", "--engine", name).split()[1] == "loaded"


@pytest.mark.engine("docker", "podman", "busybox", "registry")
@pytest.mark.conforms("W12", "W13", "W15")
@pytest.mark.parametrize("loaded", ["docker", "podman"], indirect=True)
def test_an_engine_fetches_what_it_lacks(
    site: Site, loaded: tuple[str, Engine], small_image: Image, variant_of: VariantOf, tmp_path: Path
) -> None:
    engine_name, engine = loaded
    there = Site(site.folder, engine)
    following = variant_of(small_image, "arvtest/small:2")
    with registries.registry(tmp_path / "registry", "open") as registry:
        variables = insecurely(registry, tmp_path)
        name = f"{registry.host}/tools/small:1"
        copy = ("copy", "--insecure")
        site.printed(*copy, f"docker-daemon:{small_image.reference}", f"docker://{name}")
        cold = ("stage", "--json", "--from", "engine", "--engine", engine_name, name, "--dir", tmp_path / "d")
        (found,) = json.loads(there.printed(*cold, **variables))
        assert found["image_id"] == small_image.id
        assert (found["origin"], found["name"]) == ("engine", name)
        assert found["repo_digest"].startswith(f"{registry.host}/tools/small@sha256:")
        assert (found["os"], found["architecture"]) == ("linux", "amd64")
        assert engine.image_ids() == {small_image.id}
        served = registry.served
        (again,) = json.loads(there.printed(*cold[:-1], tmp_path / "second", **variables))
        assert again["origin"] == "cache"
        assert registry.served == served
        site.printed(*copy, f"docker-daemon:{following.reference}", f"docker://{name}")  # the tag moves
        (kept,) = json.loads(there.printed(*cold, **variables))
        assert (kept["origin"], kept["image_id"]) == ("staged", small_image.id)
        (new,) = json.loads(there.printed(*cold, "--force", **variables))
        assert (new["origin"], new["image_id"]) == ("engine", following.id)
        assert {str(it) for it in (tmp_path / "d").iterdir()} == {*new["paths"], *new["metadata_paths"]}


@pytest.mark.engine("docker", "podman", "busybox", "registry")
def test_one_image_is_one_entry_wherever_it_comes_from(
    site: Site, docker: Docker, podman: Podman, small_image: Image, tmp_path: Path
) -> None:
    """And the same file in the folder, as long as all is on one file system."""
    site.printed("ingest", small_image.reference)
    podman.run("load", stdin=docker.run("save", small_image.reference).stdout)
    environment = {name: podman.environment[name] for name in ("CONTAINERS_STORAGE_CONF", "CONTAINERS_CONF")}
    with registries.registry(tmp_path / "registry", "open") as registry:
        name = f"{registry.host}/small:1"
        site.printed("copy", "--insecure", f"keep:{small_image.reference}", f"docker://{name}")
        origins = {
            "keep": ("--from", "keep", small_image.reference),
            "docker": ("--from", "engine", small_image.reference),
            "podman": ("--from", "engine", "--engine", "podman", f"localhost/{small_image.reference}"),
            "registry": ("--from", "registry", "--insecure", name),
        }
        found = [
            json.loads(site.printed("stage", "--json", "--force", *words, "--dir", tmp_path / title, **environment))[0]
            for title, words in origins.items()
        ]
    assert {it["image_id"] for it in found} == {small_image.id}
    assert len({it["archive"] for it in found}) == 1
    (entry,) = json.loads(finished(started(command("cache", "list", "--json"))).out)
    assert (entry["kind"], entry["image_id"]) == ("image", small_image.id)
    assert len(entry["names"]) == 3
    layouts = [site.printed("stage", "--json", "--layout", "wfexs", small_image.reference, "--dir", tmp_path / it)
               for it in ("w1", "w2")]  # fmt: skip
    assert len({json.loads(it)[0]["archive"] for it in layouts}) == 1


@pytest.mark.engine("docker", "busybox", "debootstrap")
@pytest.mark.conforms("W13", "W18")
def test_out_of_a_containerd_store_and_into_it(
    site: Site, docker: Docker, containerd_docker: ContainerdDocker, small_image: Image, tmp_path: Path
) -> None:
    """It calls an image by its manifest, and another one by that of whoever saved it."""
    there = Site(site.folder, containerd_docker)
    site.make()
    site.printed("stage", small_image.reference, "--dir", tmp_path / "classic")
    for state in ("loaded", "there"):
        engine_id, said, _ = there.printed("deploy", tmp_path / "classic").split()
        assert (said, engine_id == small_image.id) == (state, False)
    assert {engine_id} == containerd_docker.image_ids()
    assert run(containerd_docker, small_image.reference) == small_image.greeting
    containerd_docker.empty()
    containerd_docker.run("load", stdin=docker.run("save", small_image.reference).stdout)
    for origin in ("engine", "cache"):  # what it calls the image now is not known before it was saved once
        words = ("stage", "--json", "--from", "engine", small_image.reference, "--dir", tmp_path / origin)
        (found,) = json.loads(there.printed(*words))
        assert (found["origin"], found["image_id"]) == (origin, small_image.id)
    assert len(json.loads(finished(started(command("cache", "list", "--json"))).out)) == 1


@pytest.mark.engine("docker", "podman", "busybox", "skopeo")
@pytest.mark.conforms("W26")
def test_from_an_oci_layout_into_podman(
    site: Site, docker: Docker, podman: Podman, skopeo: Program, small_image: Image, tmp_path: Path
) -> None:
    """skopeo rewrites the config when it converts an image: what it makes has another ID, which stays."""
    source = f"docker-daemon:{small_image.reference}"
    skopeo.run("copy", "--src-daemon-host", docker.host, source, f"oci:{tmp_path}/layout:small")
    image_id = json.loads(skopeo.text("inspect", "--raw", f"oci:{tmp_path}/layout:small"))["config"]["digest"]
    assert image_id != small_image.id
    site.printed("ingest", f"oci:{tmp_path}/layout:small", "--as", "arvtest/converted:1")
    there = Site(site.folder, podman)
    there.printed("stage", "arvtest/converted:1", "--dir", tmp_path / "d")
    done = there.printed("deploy", tmp_path / "d", "--engine", "podman")
    assert done == f"{image_id} loaded docker.io/arvtest/converted:1"
    assert podman.text("images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}") == (
        f"{image_id} docker.io/arvtest/converted:1"
    )
    assert run(podman, "arvtest/converted:1") == small_image.greeting


@pytest.mark.engine("docker", "podman")
@pytest.mark.conforms("W23")
@pytest.mark.parametrize("loaded", ["docker", "podman"], indirect=True)
def test_what_an_engine_runs_on(loaded: tuple[str, Engine], tmp_path: Path) -> None:
    name, engine = loaded
    done = finished(started(command("doctor", "--engine", name, "--json"), engine.environment))
    (found,) = (it for it in json.loads(done.out) if it["what"] == "engine")
    assert found["well"], done.told
    assert found["says"].endswith(f"({os.uname().machine})")
    nowhere = engine.environment | {"PATH": str(tmp_path)}
    missing = finished(started(command("deploy", tmp_path, "--engine", name), nowhere))
    assert missing.status == 3, missing.told
    assert "command is on PATH" in missing.err


@pytest.mark.engine("docker", "podman", "busybox", "registry")
@pytest.mark.conforms("W16")
@pytest.mark.parametrize("loaded", ["docker", "podman"], indirect=True)
def test_a_known_digest_is_what_an_engine_pulls(
    site: Site,
    loaded: tuple[str, Engine],
    small_image: Image,
    variant_of: VariantOf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine_name, engine = loaded
    following = variant_of(small_image, "arvtest/small:2")
    said = Said()
    origin = FromEngine(COMMANDS[engine_name], said, CacheFolder(cache_folder), pull=True)
    with registries.registry(tmp_path / "registry", "open") as registry:
        for variable, value in (engine.environment | insecurely(registry, tmp_path)).items():
            monkeypatch.setenv(variable, value)
        name = f"{registry.host}/small:1"

        def publish(image: Image) -> None:
            site.printed("copy", "--insecure", f"docker-daemon:{image.reference}", f"docker://{name}")

        publish(small_image)
        (known,) = arv_docker.materialize([name], tmp_path / "first", origins=[origin], progress=said)
        assert known.repo_digest is not None
        publish(following)  # the tag moves
        empty(engine)
        (same,) = arv_docker.materialize([known], tmp_path / "second", force=True, origins=[origin], progress=said)
        assert (str(same.image_id), same.repo_digest) == (small_image.id, known.repo_digest)
        assert engine.text("image", "inspect", "--format", "{{.Id}}", name).endswith(small_image.id[7:])
        gone = replace(known, repo_digest=f"{registry.host}/small@sha256:{'1' * 64}")  # Docker remembers manifests
        empty(engine)
        (new,) = arv_docker.materialize([gone], tmp_path / "third", force=True, origins=[origin], progress=said)
    assert str(new.image_id) == following.id, said.text
    assert "what the name means now is taken" in said.text
    empty(engine)

# SPDX-License-Identifier: Apache-2.0
"""Podman in Docker's place: the same collection out of it, and the same image into it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from arv_docker.archive.reader import ArchiveReader
from arv_docker.engines.podman import Podman as Command
from arv_docker.engines.podman import Store
from arv_docker.model.image import Digest
from arv_docker.model.reference import Reference
from arv_docker.transports.local import LocalFile

from .engines import BASE_DATA, Docker, Image, Podman, Program
from .sites import Site, assert_stored_once, show

pytestmark = pytest.mark.engine("docker", "podman", "busybox")

NOT_THERE = 1
CONTENT = 5


@pytest.fixture
def holding(podman: Podman, docker: Docker, small_image: Image) -> Podman:
    """Podman with the small image, under the name that Docker has for it, as Podman writes that."""
    podman.run("load", stdin=docker.run("save", small_image.reference).stdout)
    assert podman.text("images", "--format", "{{.Repository}}:{{.Tag}}") == f"localhost/{small_image.reference}"
    return podman


@pytest.mark.conforms("K27")
def test_what_is_stored_is_what_docker_s_would_be(
    holding: Podman, docker: Docker, small_image: Image, tmp_path: Path
) -> None:
    site = Site(tmp_path / "site", holding)
    uuid = site.printed("--engine=podman", small_image.reference, program="arv_keepdocker")
    created = docker.text("image", "inspect", "--format", "{{.Created}}", small_image.id)
    with site.opened() as records:
        stored = assert_stored_once(records, small_image, created)
    assert stored.uuid == uuid
    short = small_image.id.removeprefix("sha256:")[:12]
    assert site.printed("images", program="arv_keepdocker").splitlines()[1].split()[2:4] == [short, uuid]
    for name in (f"localhost/{small_image.reference}", short):
        again = site.run("ingest", "--engine=podman", name)
        assert (again.status, again.out) == (0, f"{uuid}\n"), again.told
    by_docker = Site(tmp_path / "other", docker)
    by_docker.printed("ingest", small_image.reference)
    assert by_docker.printed("resolve", small_image.reference) == stored.pdh


def test_the_end_of_a_name_is_no_name(holding: Podman, small_image: Image, tmp_path: Path) -> None:
    """Podman itself takes it for one; Keep would call another image so for good."""
    end = small_image.reference.partition("/")[2]
    assert holding.text("image", "inspect", "--format", "{{.Id}}", end) == small_image.id.removeprefix("sha256:")
    site = Site(tmp_path / "site", holding)
    done = site.run("ingest", "--engine=podman", end)
    assert done.status == NOT_THERE, done.told
    assert "Podman has no image" in done.err
    assert site.records() == ([], [])


def test_auto_takes_the_engine_that_has_the_image(
    holding: Podman, docker: Docker, second_docker: Docker, small_image: Image, tmp_path: Path
) -> None:
    site = Site(tmp_path / "site", holding)
    for host, used in ((second_docker.host, "podman"), ("unix:///nowhere.sock", "podman"), (docker.host, "docker")):
        done = site.run("ingest", "--engine=auto", small_image.reference, DOCKER_HOST=host)
        assert done.status == 0, done.told
        assert f"using {used}\n" in done.err
    missing = site.run("ingest", "--engine=auto", "arvtest/none:1", DOCKER_HOST=docker.host)
    assert missing.status == NOT_THERE, missing.told
    assert "Docker has no image" in missing.err
    assert "Podman has no image" in missing.err
    loaded = site.run("load", "--engine=auto", small_image.reference, DOCKER_HOST=second_docker.host)
    assert (loaded.status, loaded.out) == (0, f"{small_image.id}\n"), loaded.told
    assert "already there" in loaded.err
    assert small_image.id not in second_docker.image_ids()


def test_an_image_comes_out_of_keep_into_podman_and_of_the_next_what_is_missing(
    podman: Podman,
    docker: Docker,
    base_image: Image,
    variant_of: Callable[[Image, str], Image],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    site = Site(tmp_path / "site", docker)
    following = variant_of(base_image, "arvtest/base:2")
    for image in (base_image, following):
        site.printed("ingest", image.reference)
    (tmp_path / "tmp").mkdir()
    there = Site(site.folder, podman)
    first, second = (
        json.loads(there.printed("load", "--engine=podman", "--json", it.reference, TMPDIR=str(tmp_path / "tmp")))
        for it in (base_image, following)
    )
    show(
        capsys, f"first {first['bytes_read']} bytes read, then {second['bytes_read']}; {second['bytes_spared']} spared"
    )
    assert first["bytes_spared"] == 0
    assert second["bytes_spared"] > BASE_DATA
    assert second["bytes_read"] < 64 << 20
    assert list((tmp_path / "tmp").iterdir()) == []
    # It is listed, runs, and is saved again as the same image.
    assert podman.image_ids() == {base_image.id, following.id}
    podman.run("rmi", base_image.reference)
    assert podman.text("run", "--rm", "--network", "none", following.reference) == following.greeting
    again = Site(tmp_path / "again", podman)
    again.printed("ingest", "--engine=podman", following.reference)
    assert again.printed("resolve", following.reference) == site.printed("resolve", following.reference)


def test_an_altered_layer_does_not_reach_podman(
    podman: Podman, docker: Docker, small_image: Image, tmp_path: Path
) -> None:
    site = Site(tmp_path / "site", docker)
    site.printed("ingest", small_image.reference)
    _, packed, *_ = json.loads(site.printed("inspect", "--json", small_image.reference))["blocks"]
    md5 = packed.partition("+")[0]
    block = site.folder / "blocks" / md5[:3] / md5
    content = bytearray(block.read_bytes())
    content[len(content) // 2] ^= 1
    block.chmod(0o644)
    block.write_bytes(content)
    (tmp_path / "tmp").mkdir()
    environment = {"TMPDIR": str(tmp_path / "tmp")}
    done = Site(site.folder, podman).run("load", "--engine=podman", "--retries=0", small_image.reference, **environment)
    assert done.status != 0, done.told
    assert podman.image_ids() == set()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_copies_from_engine_to_engine(
    holding: Podman, second_docker: Docker, small_image: Image, tmp_path: Path
) -> None:
    site = Site(tmp_path / "site", holding)
    host = {"DOCKER_HOST": second_docker.host}
    into_docker = ("copy", f"containers-storage:{small_image.reference}", "docker-daemon:arvtest/copied:2")
    assert site.printed(*into_docker, **host) == small_image.id
    assert second_docker.text("run", "--rm", "--network", "none", "arvtest/copied:2") == small_image.greeting
    store = f"[vfs@{holding.folder}/second+{holding.folder}/run2]"
    into_store = ("copy", "docker-daemon:arvtest/copied:2", f"containers-storage:{store}arvtest/back:3")
    assert site.printed(*into_store, **host) == small_image.id
    uuid = site.printed("ingest", f"containers-storage:{store}arvtest/back:3")
    assert site.printed("resolve", "arvtest/back:3") == json.loads(site.printed("inspect", "--json", uuid))["pdh"]


@pytest.mark.conforms("W24")
def test_a_store_of_its_own_and_several_images_at_once(
    holding: Podman, small_image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told by options, where the environment leads to another store."""
    for name, value in holding.environment.items():
        monkeypatch.setenv(name, value)
    usual = Command()
    assert usual.version().split(".")[0].isdigit()
    (found,) = usual.list()
    assert (str(found.id), found.repository, found.tag) == (small_image.id, "localhost/arvtest/small", "1")
    assert usual.chains() == {tuple(map(Digest.parse, small_image.diff_ids))}
    image = usual.inspect(Reference.parse(small_image.reference))
    assert (str(image.id), str(image.platform)[:6]) == (small_image.id, "linux/")
    folder = holding.folder / "own"  # the name of a runroot has 50 characters at most
    own = Command(Store(f"{folder}/root", f"{folder}/run", "vfs"))
    assert own.list() == []
    with usual.save([small_image.id]) as stream:
        own.load(iter(lambda: stream.read(1 << 20), b""))
    own.tag(image.id, Reference.parse("arvtest/renamed:2"))
    assert str(own.inspect(Reference.parse("arvtest/renamed:2")).id) == small_image.id
    assert len(usual.list()) == 1
    with own.save([small_image.id, "localhost/arvtest/renamed:2"]) as stream, (tmp_path / "two.tar").open("wb") as file:
        while content := stream.read(1 << 20):
            file.write(content)
    with (tmp_path / "two.tar").open("rb") as file:
        assert ArchiveReader(LocalFile(file.fileno())).image().config.digest == image.id


@pytest.mark.engine("skopeo")
@pytest.mark.parametrize("transport", ["docker-archive", "oci-archive", "oci"])
def test_a_folder_of_podman_is_told_as_that_and_the_advice_works(
    transport: str, holding: Podman, small_image: Image, skopeo: Program, tmp_path: Path
) -> None:
    """`podman save --format docker-dir`: the image in another form."""
    holding.run("save", "--format", "docker-dir", "--output", tmp_path / "folder", small_image.reference)
    site = Site(tmp_path / "site")
    done = site.run("ingest", f"{transport}:{tmp_path}/folder")
    assert done.status == CONTENT, done.told
    assert "a folder of podman save --format docker-dir" in done.err
    advice = f"skopeo copy dir:{tmp_path}/folder oci-archive:FILE"
    assert advice in done.err
    skopeo.run(*advice.replace("FILE", f"{tmp_path}/made.tar").split()[1:])
    stored = json.loads(site.printed("ingest", "--json", f"oci-archive:{tmp_path}/made.tar"))
    seen = json.loads(site.printed("inspect", "--json", stored["uuid"]))
    assert [it["diff_id"] for it in seen["layers"]] == list(small_image.diff_ids)

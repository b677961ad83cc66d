# SPDX-License-Identifier: Apache-2.0
"""A real image goes into Keep and comes out again the same, by our commands and by the SDK's own tools."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .engines import Docker, Image, Podman, Program
from .sites import Site, assert_stored_once, cached, served, show

Created = Callable[[Image], str]


@pytest.fixture
def site(docker: Docker, tmp_path: Path) -> Site:
    return Site(tmp_path / "site", docker)


@pytest.fixture
def created(docker: Docker) -> Created:
    return lambda image: docker.text("image", "inspect", "--format", "{{.Created}}", image.id)


def runs(engine: Docker, image: Image) -> bool:
    return engine.text("run", "--rm", "--network", "none", image.id) == image.greeting


@pytest.mark.conforms("K3", "K4", "K11", "S2")
@pytest.mark.engine("docker", "busybox")
def test_an_image_is_one_collection_by_whatever_name_it_is_ingested(
    site: Site, base_image: Image, created: Created, home: Path
) -> None:
    done = site.run("ingest", base_image.reference)
    assert done.status == 0, done.told
    uuid = done.out.removesuffix("\n")
    assert done.err.splitlines()[-1].startswith(f"{base_image.reference}: stored, ")
    digits = base_image.id.removeprefix("sha256:")
    for name in (base_image.reference, base_image.id, digits, digits[:12], base_image.id[:20]):
        again = site.run("ingest", name)
        assert (again.status, again.out) == (0, f"{uuid}\n"), again.told
        assert "already stored, 0 bytes sent" in again.err
    drop_in = site.run(*base_image.reference.split(":"), program="arv_keepdocker")
    assert (drop_in.status, drop_in.out) == (0, f"{uuid}\n"), drop_in.told
    with site.opened() as records:
        assert assert_stored_once(records, base_image, created(base_image)).uuid == uuid
    assert cached(home) == []


@pytest.mark.conforms("K1", "S22")
@pytest.mark.engine("docker", "busybox")
def test_a_stored_image_is_listed_resolved_inspected_and_verified(site: Site, base_image: Image) -> None:
    uuid = site.printed("ingest", base_image.reference)
    with site.opened() as records:
        (collection,) = records.collections()
    repository, tag = base_image.reference.split(":")
    short = base_image.id.removeprefix("sha256:")[:12]
    columns = ["REPOSITORY", "TAG", "IMAGE", "ID", "COLLECTION", "CREATED"]
    for program in ("arv_docker", "arv_keepdocker"):
        heading, row = site.printed("images", program=program).splitlines()
        # Those of the original, to which only `arv-docker` may add.
        assert heading.split()[: None if program == "arv_keepdocker" else 6] == columns
        assert row.split()[:4] == [repository, tag, short, uuid]
    for name in (base_image.reference, base_image.id, short):
        assert site.printed("resolve", name) == collection.pdh
    inspected = json.loads(site.printed("inspect", "--json", uuid))
    assert inspected["image_id"] == base_image.id
    assert [layer["diff_id"] for layer in inspected["layers"]] == list(base_image.diff_ids)
    verified = json.loads(site.printed("verify", "--json", base_image.reference))
    assert (verified["pdh"], verified["config_digest"]) == (collection.pdh, base_image.id)
    assert verified["bytes_read"] > 100 << 20


@pytest.mark.engine("docker", "busybox")
def test_what_arv_get_fetches_is_the_image(
    site: Site, base_image: Image, second_docker: Docker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.printed("ingest", base_image.reference)
    pdh = site.printed("resolve", base_image.reference)
    (tmp_path / "fetched").mkdir()
    with served(site.folder) as variables:
        fetch = [str(Path(sys.executable).with_name("arv-get")), "--no-progress", f"{pdh}/", f"{tmp_path}/fetched/"]
        subprocess.run(fetch, env=site.environment(**variables), check=True, capture_output=True, timeout=120)
    (file,) = (tmp_path / "fetched").iterdir()
    assert file.name == f"{base_image.id}.tar"
    second_docker.run("load", stdin=file)
    assert base_image.id in second_docker.image_ids()
    assert runs(second_docker, base_image)
    show(capsys, f"{base_image.reference} {base_image.id[:19]} is {pdh}: fetched by arv-get, loaded, runs")


@pytest.mark.engine("docker", "busybox")
def test_load_brings_the_image_into_another_engine(site: Site, base_image: Image, second_docker: Docker) -> None:
    uuid = site.printed("ingest", base_image.reference)
    there = Site(site.folder, second_docker)
    first = there.run("load", base_image.reference)
    assert (first.status, first.out) == (0, f"{base_image.id}\n"), first.told
    assert "already there" not in first.err
    assert second_docker.text("image", "inspect", "--format", "{{.Id}}", base_image.reference) == base_image.id
    assert runs(second_docker, base_image)
    for name in (base_image.reference, uuid):
        again = there.run("load", name)
        assert (again.status, again.out) == (0, f"{base_image.id}\n"), again.told
        assert "already there" in again.err


@pytest.mark.conforms("K19", "K20", "K27")
@pytest.mark.engine("docker", "busybox", "podman", "skopeo")
def test_one_image_is_one_pdh_whoever_saved_it(
    docker: Docker,
    podman: Podman,
    skopeo: Program,
    small_image: Image,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def file(who: str) -> Path:
        return tmp_path / f"{who.replace(' ', '-')}.tar"

    docker.run("save", "--output", file("docker by tag"), small_image.reference)
    docker.run("save", "--output", file("docker by ID"), small_image.id)
    podman.run("load", "--input", file("docker by tag"))
    podman.run("save", "--output", file("podman by tag"), small_image.reference)
    podman.run("save", "--output", file("podman by ID"), small_image.id)
    source = ("--src-daemon-host", docker.host, f"docker-daemon:{small_image.reference}")
    skopeo.run("copy", *source, f"docker-archive:{file('skopeo')}")
    skopeo.run("copy", *source, f"docker-archive:{file('skopeo with tag')}:renamed/image:2")
    found = {}
    for path in sorted(tmp_path.glob("*.tar")):
        site = Site(tmp_path / f"site-{path.stem}")
        uuid = site.printed("ingest", "--from-archive", path)
        found[path.stem] = json.loads(site.printed("inspect", "--json", uuid))["pdh"]
    engine = Site(tmp_path / "site", docker)
    engine.printed("ingest", small_image.reference)
    found["the engine"] = engine.printed("resolve", small_image.reference)
    show(capsys, *(f"{who:16} {pdh}" for who, pdh in found.items()))
    assert len(found) == 7
    assert len(set(found.values())) == 1
    assert len({path.read_bytes() for path in tmp_path.glob("*.tar")}) > 1, "the archives were no different"

# SPDX-License-Identifier: Apache-2.0
"""Another user's archive in another layout than ours is never adopted: the image is stored anew, and is the same one
to each engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from arv_docker.arvados.catalog.link_classes import HASH, REPO_TAG
from arv_docker.arvados.client import Cluster
from arv_docker.model import manifest_text

from .engines import Docker, Image, Program
from .sites import Done, Site, show
from .strangers import Stranger
from .trees import Apptainer

pytestmark = pytest.mark.engine("docker", "busybox")

NAME = "tools/app:1"
PERMISSION = 8


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site whose user has no engine."""
    return Site(tmp_path / "site")


@pytest.fixture
def saved(docker: Docker, small_image: Image, tmp_path: Path) -> Path:
    """The image as Docker 20.10 saves it."""
    docker.run("save", "--output", tmp_path / "saved.tar", small_image.id)
    return tmp_path / "saved.tar"


@pytest.fixture
def theirs(site: Site, small_image: Image, saved: Path) -> str:
    """The UUID of the stranger's collection, which holds that file as it is, in a project that everybody reads."""

    def publish(stranger: Stranger, cluster: Cluster) -> str:
        content = saved.read_bytes()
        text = manifest_text.single_file(f"{small_image.id}.tar", len(content), [cluster.put_block(content)])
        made = cluster.create_collection({"manifest_text": text, "owner_uuid": stranger.project, "name": "mine"})
        for link_class, name in ((HASH, small_image.id), (REPO_TAG, NAME)):
            stranger.publish(cluster, made, link_class, name)
        return made.uuid

    return str(Stranger.on(site).does(publish))


def from_the_same_file(site: Site, _: str, saved: Path) -> Done:
    return site.run("ingest", f"docker-archive:{saved}", "--as", NAME)


def by_its_name(site: Site, _: str, saved: Path) -> Done:
    """As a job launcher does, into a project of its own."""
    with site.opened() as records:
        project = records.api.groups().create(body={"group_class": "project", "name": "jobs"}).execute()["uuid"]
    repository, _, tag = NAME.partition(":")
    return site.run("--project-uuid", project, repository, tag, program="arv_keepdocker", PATH=str(saved.parent))


def by_its_uuid(site: Site, theirs: str, _: Path) -> Done:
    return site.run("copy", f"keep:{theirs}", f"keep:{NAME}")


def stored_anew(site: Site, theirs: str, image: Image, folder: Path) -> tuple[Path, str]:
    """The one other collection of the site, which holds the canonical archive: its file as it lies in Keep, and its
    portable data hash."""
    with site.opened() as records:
        (collection,) = (it for it in records.collections() if it.uuid != theirs)
        assert records.verified(collection) == image.id
        links = [it for it in records.links() if it.head_uuid == collection.uuid]
        assert {(it.link_class, it.name) for it in links} >= {(HASH, image.id), (REPO_TAG, NAME)}
        assert {it.modified_by for it in links} == {records.cluster.user_uuid}
        archive = folder / "archive.tar"
        streams = manifest_text.parse(collection.manifest_text or "")
        archive.write_bytes(b"".join(records.cluster.get_block(str(it)) for it in manifest_text.locators(streams)))
    assert json.loads(site.printed("verify", "--json", collection.uuid))["canonical"]
    return archive, collection.pdh


@pytest.mark.parametrize("store", [from_the_same_file, by_its_name, by_its_uuid])
def test_what_is_stored_is_canonical_and_the_same_image_to_docker_and_skopeo(
    store: Callable[[Site, str, Path], Done],
    site: Site,
    theirs: str,
    saved: Path,
    small_image: Image,
    second_docker: Docker,
    skopeo: Program,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    done = store(site, theirs, saved)
    assert done.status == 0, done.told
    archive, pdh = stored_anew(site, theirs, small_image, tmp_path)
    reference = Site(tmp_path / "reference/site")
    reference.printed("ingest", f"docker-archive:{saved}", "--as", NAME)
    assert pdh == reference.printed("resolve", NAME)
    second_docker.run("load", "--input", archive)
    assert second_docker.image_ids() == {small_image.id}
    assert second_docker.text("run", "--rm", "--network", "none", small_image.id) == small_image.greeting
    for kind in ("docker-archive", "oci-archive"):
        skopeo.run("copy", f"{kind}:{archive}", f"dir:{tmp_path}/{kind}")
        manifest = json.loads((tmp_path / kind / "manifest.json").read_text())
        assert manifest["config"]["digest"] == small_image.id
        inspected = json.loads(skopeo.text("inspect", "--config", f"{kind}:{archive}"))
        assert inspected["rootfs"]["diff_ids"] == list(small_image.diff_ids)
    show(capsys, f"{theirs} is stored anew as {pdh}: {small_image.id[:19]} to Docker and to skopeo")


def test_it_is_the_same_image_to_apptainer(
    site: Site, theirs: str, saved: Path, small_image: Image, apptainer: Apptainer, capsys: pytest.CaptureFixture[str]
) -> None:
    done = from_the_same_file(site, theirs, saved)
    assert done.status == 0, done.told
    archive, _ = stored_anew(site, theirs, small_image, apptainer.folder)
    archive.chmod(0o644)
    for kind in ("docker-archive", "oci-archive"):
        said = apptainer.text("exec", f"{kind}:{archive}", "/bin/hello")
        assert said == small_image.greeting
        show(capsys, f"{apptainer.text('--version')}, {kind}: {said!r}")


@pytest.mark.parametrize("verb", ["link", "tag"])
def test_neither_link_nor_tag_takes_it(verb: str, site: Site, theirs: str) -> None:
    before = site.records()
    done = site.run(verb, theirs, "mine:1")
    assert (done.status, "another layout than the canonical one" in done.err) == (5, True), done.told
    assert site.records() == before

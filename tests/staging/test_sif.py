# SPDX-License-Identifier: Apache-2.0
"""SIF files: made of verified archives alone, whole or not there; and the cluster's cache of them."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from arv_docker.archive import canonical
from arv_docker.arvados.client import Cluster, CollectionRecord
from arv_docker.arvados.converted import ConvertedImages
from arv_docker.arvados.stored import ImageFile
from arv_docker.arvados.trust import Trust
from arv_docker.engines.apptainer import Apptainer
from arv_docker.errors import DigestMismatch, DiskError, EngineError
from arv_docker.ingest.service import Ingest, Options
from arv_docker.local.disk import hold_lock
from arv_docker.local.progress import SilentProgress
from arv_docker.maintenance import Cache
from arv_docker.model import manifest_text
from arv_docker.site import LocalSite
from arv_docker.staging import sif
from arv_docker.staging.sif import CachedSif
from arv_docker.store import tarballs
from arv_docker.store.tarballs import cache_folder
from arv_docker.transports.docker_archive import ArchiveFile

from ..archives import canonical_archive, classic, files_of, image
from ..engines.apptainer import Scripted, sif_of

LAYER = files_of(b"what is in it" * 1000)
APP = image(LAYER, files_of(b"high"), os="linux", created="2024-01-02T03:04:05Z")
MADE = sif_of(canonical_archive(APP))
NAME = "docker:__quay.io_a_b:1.img"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scripted:
    return Scripted(tmp_path / "bin", monkeypatch)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "app.tar").write_bytes(classic(APP))
    return tmp_path / "app.tar"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the file belongs, alone in its folder."""
    (tmp_path / "images").mkdir()
    return tmp_path / "images" / NAME


def built(archive: Path, place: Path) -> None:
    with sif.build_folder(place, SilentProgress()) as folder, ArchiveFile(archive).open() as opened:
        sif.build_sif(opened, folder, NAME, Apptainer(), SilentProgress()).rename(place)


# -- one file ---------------------------------------------------------------------------


def test_it_is_made_of_the_canonical_archive(archive: Path, place: Path, program: Scripted) -> None:
    built(archive, place)
    assert place.read_bytes() == MADE
    assert [it.name for it in place.parent.iterdir()] == [NAME]


def test_an_altered_layer_does_not_reach_apptainer(archive: Path, place: Path, program: Scripted) -> None:
    """It would build it, and run it."""
    content = archive.read_bytes()
    archive.write_bytes(content.replace(b"what is in it", b"what it is in", 1))
    with pytest.raises(DigestMismatch):
        built(archive, place)
    assert program.builds == []
    assert list(place.parent.iterdir()) == []


@pytest.mark.parametrize("how", ["fail", "nothing", "other"])
def test_nothing_is_left_of_a_build_that_fails(how: str, archive: Path, place: Path, program: Scripted) -> None:
    program.answer(how)
    with pytest.raises(EngineError):
        built(archive, place)
    assert list(place.parent.iterdir()) == []


def test_a_full_disk_is_told_with_what_is_needed(
    archive: Path, place: Path, program: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.answer("full")
    with pytest.raises(EngineError, match="status 255"):  # it was another disk
        built(archive, place)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DiskError, match=rf"\({2 * len(canonical_archive(APP))} bytes\) are needed, .* are free"):
        built(archive, place)


def test_what_a_killed_build_left_is_cleared(program: Scripted) -> None:
    """By `arv-docker cache gc`, where it lies in the cache."""
    folder = tarballs.cache_folder()
    for name in ("killed.sif", "busy.sif"):
        (folder / f".{name}.abcdefgh.building" / "rootfs").mkdir(parents=True)
        (folder / f".{name}.abcdefgh.building" / "image.tar").write_bytes(bytes(1000))
        (folder / f".{name}.abcdefgh.building" / "rootfs" / "all").symlink_to("/")
    (folder / ".killed.sif.abcdefgh.building" / "rootfs").chmod(0)
    with hold_lock(folder / ".busy.sif.lock"):
        assert Cache(cache_folder(), SilentProgress()).gc() == 1000
        assert [it.name for it in folder.glob(".*.building")] == [".busy.sif.abcdefgh.building"]
    Cache(cache_folder(), SilentProgress()).clear()
    assert list(folder.glob(".*")) == []


# -- the cluster's cache ----------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with LocalSite(tmp_path / "site") as site:
        yield Cluster.at_url(site.url, site.token, retries=0)


@pytest.fixture
def collection(cluster: Cluster, archive: Path) -> CollectionRecord:
    """The image in Keep."""
    stored = Ingest(cluster, Options(cache_folder()), SilentProgress()).from_archive(archive, None)
    return cluster.collection(stored.uuid)


def trust(cluster: Cluster) -> Trust:
    return Trust.of(cluster.user_uuid, cluster.system_user_uuid)


def filled(cluster: Cluster, collection: CollectionRecord, *, force: bool = False) -> CachedSif:
    return sif.fill_sif_cache(
        cluster, collection, Apptainer(), SilentProgress(), trust(cluster), cache=cache_folder(), force=force
    )


def conversions(cluster: Cluster) -> list[CollectionRecord]:
    """What crunch-run finds for this user, step by step as it looks."""
    outer = cluster.project(cluster.user_uuid, ".cache")
    inner = cluster.project(outer or "", "auto-generated singularity images")
    return list(cluster.collections([["owner_uuid", "=", inner]], manifest=True))


def days_left(trash_at: str) -> float:
    ends = datetime.datetime.fromisoformat(trash_at.partition(".")[0].removesuffix("Z") + "+00:00")
    return (ends - datetime.datetime.now(datetime.timezone.utc)).total_seconds() / 86400


def content(cluster: Cluster, record: CollectionRecord) -> bytes:
    ((name, segments),) = manifest_text.files(manifest_text.parse(record.manifest_text or "")).items()
    assert name == "image.sif"
    return b"".join(cluster.get_block(str(segment.locator)) for segment in segments)


def test_the_cache_is_filled_as_crunch_run_fills_it(
    cluster: Cluster, collection: CollectionRecord, program: Scripted
) -> None:
    done = filled(cluster, collection)
    (found,) = conversions(cluster)
    assert found.name == f"singularity image for {APP.parsed.digest}"
    assert found.properties == {}
    assert list(cluster.links([["head_uuid", "=", found.uuid]])) == []
    assert 13.9 < days_left(found.trash_at) <= 14
    assert content(cluster, found) == MADE
    assert (done.uuid, done.pdh, done.already, done.size) == (found.uuid, found.pdh, False, len(MADE))
    assert list(tarballs.cache_folder().glob(".*")) == []


def test_an_image_that_is_there_is_not_built_again(
    cluster: Cluster, collection: CollectionRecord, program: Scripted
) -> None:
    first = filled(cluster, collection)
    again = filled(cluster, collection)
    assert (again.uuid, again.already, again.trash_at) == (first.uuid, True, first.trash_at)
    assert len(program.builds) == 1


def test_its_end_is_put_off_when_it_comes_near(
    cluster: Cluster, collection: CollectionRecord, program: Scripted
) -> None:
    first = filled(cluster, collection)
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=12)
    cluster.update_collection(first.uuid, {"trash_at": soon.strftime("%Y-%m-%dT%H:%M:%SZ")})
    again = filled(cluster, collection)
    assert again.already
    assert 13.9 < days_left(again.trash_at) <= 14


def test_force_replaces_it(cluster: Cluster, collection: CollectionRecord, program: Scripted) -> None:
    first = filled(cluster, collection)
    another = cluster.put_block(b"SIF of a defective program")
    cluster.update_collection(first.uuid, {"manifest_text": f". {another} 0:26:image.sif\n"})
    assert filled(cluster, collection).already
    again = filled(cluster, collection, force=True)
    (found,) = conversions(cluster)
    assert not again.already
    assert content(cluster, found) == MADE
    assert len(program.builds) == 2


def test_one_that_holds_no_image_is_removed(cluster: Cluster, collection: CollectionRecord, program: Scripted) -> None:
    first = filled(cluster, collection)
    cluster.update_collection(first.uuid, {"manifest_text": ""})
    again = filled(cluster, collection)
    assert (again.already, again.uuid == first.uuid) == (False, False)
    assert [it.uuid for it in conversions(cluster)] == [again.uuid]


def test_one_of_somebody_who_is_not_trusted_is_replaced(
    cluster: Cluster, collection: CollectionRecord, program: Scripted
) -> None:
    first = filled(cluster, collection)
    nobody = Trust(frozenset())
    again = sif.fill_sif_cache(cluster, collection, Apptainer(), SilentProgress(), nobody, cache=cache_folder())
    assert (again.already, again.uuid) == (False, first.uuid)
    assert len(program.builds) == 2


def test_an_altered_layer_is_not_converted(
    cluster: Cluster, collection: CollectionRecord, program: Scripted, tmp_path: Path
) -> None:
    """As an MD5 twin in Keep would alter it."""
    get = cluster.get_block

    def twin(locator: str) -> bytes:
        return get(locator).replace(b"what is in it", b"what it is in", 1)

    cluster.get_block = twin  # type: ignore[method-assign]
    with pytest.raises(DigestMismatch):
        filled(cluster, collection)
    assert program.builds == []
    assert conversions(cluster) == []


def test_crunch_run_is_faster(
    cluster: Cluster, collection: CollectionRecord, program: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its conversion gets the name while ours is built: that one is used, and none is added."""
    find = ConvertedImages.find
    first = filled(cluster, collection)
    seen: list[CollectionRecord | None] = []

    def late(self: ConvertedImages, image: ImageFile) -> CollectionRecord | None:
        seen.append(find(self, image))
        return None

    monkeypatch.setattr(ConvertedImages, "find", late)
    second = filled(cluster, collection)
    assert seen[0] is not None
    assert second.uuid == first.uuid
    assert len(conversions(cluster)) == 1


def test_the_projects_are_made_by_somebody_else_meanwhile(
    cluster: Cluster, collection: CollectionRecord, program: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = cluster.create_project

    def twice(owner: str, name: str) -> str:
        create(owner, name)
        return create(owner, name)  # refused: the name is taken

    monkeypatch.setattr(cluster, "create_project", twice)
    filled(cluster, collection)
    assert len(conversions(cluster)) == 1


def test_the_file_in_keep_gives_the_name(cluster: Cluster, archive: Path, program: Scripted) -> None:
    """Where nodes call images by their manifests, crunch-run does too."""
    stored = Ingest(cluster, Options(cache_folder(), by_manifest=True), SilentProgress()).from_archive(archive, None)
    filled(cluster, cluster.collection(stored.uuid))
    digest = canonical.layout(APP.parsed, APP.sizes).manifest_digest
    assert [it.name for it in conversions(cluster)] == [f"singularity image for {digest}"]

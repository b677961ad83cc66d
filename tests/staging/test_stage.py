# SPDX-License-Identifier: Apache-2.0
"""Staging images: where each comes from, what is asked on the way, and what is in the folder afterwards."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

import arv_docker
from arv_docker.archive.reader import ArchiveReader
from arv_docker.arvados.catalog.link_classes import DIGEST, HASH, REPO_TAG
from arv_docker.errors import (
    BadReference,
    BadSettings,
    ClusterError,
    DigestMismatch,
    EngineNotRunning,
    NoCluster,
    NoSuchImage,
    OtherImage,
    RegistryError,
    UsageError,
)
from arv_docker.maintenance import Cache
from arv_docker.model.image import Digest, Platform
from arv_docker.staging.folder import PlainFolder
from arv_docker.staging.origins import FromEngine
from arv_docker.staging.staged import verify
from arv_docker.store.cache import CacheFolder
from arv_docker.store.content_store import Entries, Entry, entries_in
from arv_docker.store.filenames import naming
from arv_docker.store.metadata import SealedForm
from arv_docker.store.tarballs import cache_folder

from ..archives import Bytes, canonical_archive, containerd
from ..arvados.fake_api import OTHER as STRANGER
from ..arvados.fake_api import http_error
from .conftest import APP, OTHER, Place, Recorder, Said, slow_save

ID = APP.parsed.digest
NAME = "docker.io/library/app:1"


def cached() -> list[str]:
    """The archives and their metadata in the user's cache."""
    return sorted(it.name for it in entries_in(cache_folder()).root.iterdir() if it.is_file())


# -- what is staged ------------------------------------------------------------------------


@pytest.mark.conforms("W12")
def test_from_an_engine_that_has_to_fetch_it(place: Place) -> None:
    place.engine.remote[NAME] = APP
    (found,) = place.stage("app:1", origins=place.origins("engine", pull=True))
    assert place.engine.calls == ["inspect", "pull app:1", "inspect", "save"]
    path = place.folder / "staged" / "app%3A1.tar"
    assert found == arv_docker.Container(
        name=NAME,
        image_id=ID,
        repo_digest=f"docker.io/library/app@{ID}",
        platform=Platform("linux", "arm64", "v8"),
        archive=Digest.of(canonical_archive(APP)),
        paths=(path,),
        metadata_paths=(path.with_name("app%3A1.tar_meta.json"),),
        digests=found.digests,
        origin="engine",
    )
    assert path.read_bytes() == canonical_archive(APP)
    assert path.stat().st_ino == entries_in(cache_folder()).contents()[0].stat().st_ino
    metadata = SealedForm().load(found.metadata_paths[0].read_bytes())
    assert (metadata.image_id, metadata.archive, metadata.name) == (ID, found.archive, NAME)
    assert metadata.record["Architecture"] == "arm64"
    assert place.files() == ["app%3A1.tar", "app%3A1.tar_meta.json"]


@pytest.mark.conforms("W13")
def test_again_nothing_is_saved(place: Place) -> None:
    place.engine = Recorder(APP)
    first = place.stage("app:1", origins=place.origins("engine"))
    place.engine.calls.clear()
    (there,) = place.stage("app:1", origins=place.origins("engine"))
    assert (there.paths, there.origin, place.engine.calls) == (first[0].paths, "staged", [])
    (again,) = place.stage("app:1", into="second", origins=place.origins("engine"))
    assert (again.origin, place.engine.calls) == ("cache", ["inspect"])
    assert again.archive == first[0].archive


@pytest.mark.conforms("W13")
def test_offline_nothing_is_asked(place: Place) -> None:
    place.engine = Recorder(APP)
    place.stage("app:1")
    place.engine.calls.clear()
    before = place.api.requests.total()
    (found,) = place.stage("app:1", into="second", offline=True)
    (by_id,) = place.stage(str(ID), into="third", offline=True)
    assert (found.origin, found.image_id, by_id.image_id) == ("cache", ID, ID)
    assert place.engine.calls == []
    assert place.api.requests.total() == before
    assert (place.folder / "second" / "app%3A1.tar").read_bytes() == canonical_archive(APP)


@pytest.mark.conforms("W14", "W17")
def test_offline_and_not_there(place: Place) -> None:
    place.engine = Recorder(APP)
    place.stage("app:1")
    with pytest.raises(NoSuchImage, match=r"none:1, b/c:2\. Offline") as raised:
        place.stage("none:1", "app:1", "b/c:2", into="second", offline=True)
    assert raised.value.exit_code == 1
    assert not (place.folder / "second").exists()


@pytest.mark.conforms("W17")
def test_all_that_is_missing_is_named_at_once(place: Place) -> None:
    place.engine = Recorder(APP)
    wanted = ("app:1", f"{place.registry.host}/x:1", f"{place.registry.host}/y:1")
    with pytest.raises(NoSuchImage) as raised:
        place.stage(*wanted)
    for name in wanted[1:]:
        assert name in raised.value.message
        assert raised.value.detail.count(f"{name}: ") == 3
    assert "app:1" not in raised.value.message
    assert not (place.folder / "staged").exists()
    assert "save" not in place.engine.calls


@pytest.mark.conforms("W17")
def test_several_spellings_are_staged_once(place: Place) -> None:
    place.engine = Recorder(APP)
    names = ("app:1", "docker://app:1", "docker.io/library/app:1", "app:1")
    (found,) = place.stage(*names)
    assert place.files() == ["app%3A1.tar", "app%3A1.tar_meta.json"]
    assert place.engine.calls.count("save") == 1
    (cwl,) = place.stage(*names, into="cwl", folder=PlainFolder(place.folder / "cwl", naming("cwl")))
    assert [it.name for it in cwl.paths] == ["app:1.img", "docker:__app:1.img", "docker.io_library_app:1.img"]
    assert len({it.stat().st_ino for it in (*cwl.paths, *found.paths)}) == 1
    assert len(cached()) == 2


def test_the_same_image_by_two_names_is_one_entry(place: Place) -> None:
    place.engine = Recorder(APP)
    place.engine.tags[ID].append("second:1")
    one, two = place.stage("app:1", "second:1")
    assert (one.name, two.name) == (NAME, "docker.io/library/second:1")
    assert one.archive == two.archive
    assert place.engine.calls.count("save") == 1
    assert len(cached()) == 2


def test_the_same_image_out_of_every_origin_is_one_entry(place: Place) -> None:
    place.engine = Recorder(APP)
    name = f"{place.registry.host}/tools/app:1"
    place.store(APP, "app:1")
    place.registry.add("tools/app:1", APP)
    found = [
        place.stage(text, into=origin, origins=place.origins(origin), force=True)[0]
        for origin, text in (("keep", "app:1"), ("engine", "app:1"), ("registry", name))
    ]
    assert [it.origin for it in found] == ["keep", "engine", "registry"]
    assert len({it.archive for it in found}) == 1
    assert len(cached()) == 2


# -- where from ----------------------------------------------------------------------------


def test_keep_is_the_first_to_be_asked(place: Place) -> None:
    place.engine = Recorder(OTHER)
    place.store(APP, "app:1")
    (found,) = place.stage("app:1")
    assert (found.image_id, found.origin, found.repo_digest) == (ID, "keep", None)
    assert place.engine.calls == []
    assert found.paths[0].read_bytes() == canonical_archive(APP)


@pytest.mark.parametrize("spelling", ["docker://app:1", "docker.io/library/app:1"])
def test_keep_is_asked_in_each_spelling(place: Place, spelling: str) -> None:
    place.store(APP, "app:1")
    (found,) = place.stage(spelling, origins=place.origins("keep"))
    assert found.image_id == ID


def test_what_a_cluster_would_run_is_staged_with_its_warnings(place: Place) -> None:
    place.store(APP, "app:1")
    for link in place.api.records["links"].values():
        link["modified_by_user_uuid"] = STRANGER
    (found,) = place.stage("app:1", origins=place.origins("keep"))
    assert found.image_id == ID
    assert "who is not trusted" in place.said.text


def test_of_a_digest_only_a_trusted_link_counts(place: Place) -> None:
    place.store(APP, "app:1")
    digest = "sha256:" + "1" * 64
    (record,) = place.api.records["collections"].values()
    link = place.api.link(record, DIGEST, digest, tail_uuid=record["portable_data_hash"])
    writer, link["modified_by_user_uuid"] = link["modified_by_user_uuid"], STRANGER
    with pytest.raises(NoSuchImage):
        place.stage(f"app@{digest}", origins=place.origins("keep"))
    link["modified_by_user_uuid"] = writer
    (found,) = place.stage(f"app@{digest}", origins=place.origins("keep"))
    assert (found.image_id, found.engine_name) == (ID, None)


def test_an_image_id_needs_nobody_s_word(place: Place) -> None:
    place.store(APP, "app:1")
    for link in place.api.records["links"].values():
        link["modified_by_user_uuid"] = STRANGER
    assert place.stage(str(ID), origins=place.origins("keep"))[0].image_id == ID


def test_an_image_id_that_a_link_has_wrong(place: Place) -> None:
    place.store(APP, "app:1")
    (record,) = place.api.records["collections"].values()
    place.api.link(record, HASH, str(OTHER.parsed.digest), tail_uuid=record["portable_data_hash"])
    with pytest.raises(NoSuchImage, match="is false: it calls"):
        place.stage(str(OTHER.parsed.digest), origins=place.origins("keep"))


def test_what_keep_has_not_comes_from_the_engine_and_then_from_the_registry(place: Place) -> None:
    place.engine = Recorder(OTHER)
    name = f"{place.registry.host}/tools/app:1"
    digest = place.registry.add("tools/app:1", APP)
    other, app = place.stage("app:1", name)
    assert (other.origin, other.image_id) == ("engine", OTHER.parsed.digest)
    assert (app.origin, app.image_id) == ("registry", ID)
    assert app.repo_digest == f"{place.registry.host}/tools/app@{digest}"
    assert Digest.parse(digest) in app.digests
    (again,) = place.stage(f"{place.registry.host}/tools/app@{digest}", into="second", offline=True)
    assert again.image_id == ID


def test_what_each_origin_knows_of_an_image_is_kept(place: Place) -> None:
    """Keep knows of no registry; when one is asked, the bytes are there already."""
    name = f"{place.registry.host}/tools/app:1"
    place.store(APP, "app:1")
    digest = place.registry.add("tools/app:1", APP)
    (first,) = place.stage("app:1", into="first", origins=place.origins("keep"))
    assert first.repo_digest is None
    (second,) = place.stage(name, into="second", origins=place.origins("registry"))
    assert (second.origin, second.repo_digest) == ("cache", f"{place.registry.host}/tools/app@{digest}")
    assert set(first.digests) < set(second.digests)
    (third,) = place.stage(f"{place.registry.host}/tools/app@{digest}", into="third", offline=True)
    assert (third.image_id, third.repo_digest, third.digests) == (ID, second.repo_digest, second.digests)
    assert len(cached()) == 2


def test_an_engine_that_is_down_is_passed_over_and_a_cluster_that_is_down_is_not(place: Place) -> None:
    class Down(Recorder):
        def inspect(self, name: Any) -> Any:
            raise EngineNotRunning("it does not answer.")

    name = f"{place.registry.host}/tools/app:1"
    place.registry.add("tools/app:1", APP)
    place.engine = Down()
    assert place.stage(name)[0].origin == "registry"
    with pytest.raises(EngineNotRunning):
        place.stage("app:1", origins=place.origins("engine"))
    place.api.faults["links.list"] = [http_error(503)] * 50
    with pytest.raises(ClusterError):
        place.stage(name, into="second")


def test_without_a_cluster_the_others_are_asked(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.engine = Recorder(APP)
    wrong: list[Exception] = [NoCluster("no cluster is configured"), BadSettings("a line that is no setting")]

    def nowhere(api: Any) -> Any:
        raise wrong[0]

    monkeypatch.setattr("tests.staging.conftest.cluster", nowhere)
    assert place.stage("app:1")[0].origin == "engine"
    with pytest.raises(NoSuchImage) as raised:
        place.stage("none@sha256:" + "1" * 64, origins=place.origins("keep", "engine"))
    assert "no cluster is configured" in raised.value.detail
    del wrong[0]
    with pytest.raises(BadSettings):
        place.stage("app:1", into="second")


def test_what_nobody_has_any_more_comes_from_the_cache_and_that_is_said(place: Place) -> None:
    place.engine = Recorder(APP)
    place.stage("app:1", origins=place.origins("engine"))
    place.engine.images.clear()
    (found,) = place.stage("app:1", into="second", origins=place.origins("engine"))
    assert found.origin == "cache"
    assert "app:1: no image app:1" in place.said.lines


def test_a_name_that_means_another_image_now(place: Place) -> None:
    place.engine = Recorder(APP)
    place.stage("app:1")
    place.engine.tags = {OTHER.parsed.digest: ["app:1"]}
    place.engine.images[OTHER.parsed.digest] = canonical_archive(OTHER)
    assert place.stage("app:1")[0].image_id == ID  # what is staged stays
    assert place.stage("app:1", into="second")[0].image_id == OTHER.parsed.digest  # the cache is never older


@pytest.mark.conforms("W16")
@pytest.mark.parametrize("there", [True, False])
def test_a_known_digest_is_pulled_first(place: Place, there: bool) -> None:
    digest = f"docker.io/library/app@{ID}"
    place.engine.remote[NAME] = APP
    (known,) = place.stage("app:1", origins=place.origins("engine", pull=True))
    assert known.repo_digest == digest
    fresh = place.engine = Recorder()
    fresh.remote = {NAME: OTHER} | ({digest: APP} if there else {})
    (found,) = place.stage(known, into="second", force=True, origins=place.origins("engine", pull=True))
    if there:
        assert fresh.calls == [f"pull app@{ID}", "inspect", "tag", "save"]
        assert found.image_id == ID
        assert fresh.tags[ID] == ["app:1"]
    else:
        assert fresh.calls == [f"pull app@{ID}", "pull app:1", "inspect", "save"]
        assert found.image_id == OTHER.parsed.digest
        assert f"cannot be had as {digest}" in place.said.text


@pytest.mark.conforms("W16")
def test_a_known_digest_is_asked_of_the_registry_first(place: Place) -> None:
    name = f"{place.registry.host}/tools/app:1"
    place.registry.add("tools/app:1", APP)
    (known,) = place.stage(name, origins=place.origins("registry"))
    place.registry.add("tools/app:1", OTHER)
    (same,) = place.stage(known, into="second", force=True, origins=place.origins("registry"))
    assert same.image_id == ID
    assert known.repo_digest is not None
    del place.registry.manifests["tools/app", known.repo_digest.partition("@")[2]]
    (new,) = place.stage(known, into="third", force=True, origins=place.origins("registry"))
    assert new.image_id == OTHER.parsed.digest
    assert "what the name means now is taken" in place.said.text


def test_a_pull_that_fails_is_no_end_where_the_image_is_there(place: Place) -> None:
    place.engine = Recorder(APP)
    (found,) = place.stage("app:1", force=True, origins=place.origins("engine", pull=True))
    assert found.image_id == ID
    assert "cannot be fetched" in place.said.text
    with pytest.raises(NoSuchImage, match=r"nowhere to be had: x:1, y:1") as raised:
        place.stage("x:1", "y:1", origins=place.origins("engine", pull=True))
    assert "manifest unknown" in str(raised.value.detail)


def test_a_registry_that_fails_is_told_as_that_if_it_alone_was_asked(place: Place) -> None:
    place.registry.fault = lambda conversation: conversation.answer(418)
    with pytest.raises(RegistryError):
        place.stage(f"{place.registry.host}/x:1", origins=place.origins("registry"))


@pytest.mark.conforms("W21")
def test_an_image_that_is_given_is_not_fetched(place: Place) -> None:
    place.engine = Recorder(APP)
    given = place.stage("app:1", into="given")
    place.engine.calls.clear()
    for entry in entries_in(cache_folder()).contents():
        entries_in(cache_folder()).discard(entry)
    (found,) = place.stage("docker://app:1", injected=given)
    assert (found.origin, found.image_id, place.engine.calls) == ("injected", ID, [])
    assert found.paths[0].read_bytes() == canonical_archive(APP)
    (offline,) = place.stage("app:1", into="second", injected=given, offline=True)
    assert offline.image_id == ID


def test_a_given_image_that_was_altered_is_refused(place: Place) -> None:
    place.engine = Recorder(APP)
    given = place.stage("app:1", into="given")
    given[0].paths[0].chmod(0o644)
    given[0].paths[0].write_bytes(canonical_archive(OTHER))
    with pytest.raises(DigestMismatch, match="not as it was staged"):
        place.stage("app:1", injected=given)
    assert not (place.folder / "staged").exists()


@pytest.mark.conforms("W13")
def test_of_a_containerd_store_it_is_saved_once_too(place: Place) -> None:
    content = containerd(APP)
    engine = place.engine = Recorder()
    manifest = ArchiveReader(Bytes(content)).image().digests[0]
    engine.images[manifest] = content
    engine.tags[manifest] = ["app:1"]
    (found,) = place.stage("app:1", origins=place.origins("engine"))
    assert found.image_id == ID
    assert manifest in found.digests
    (again,) = place.stage("app:1", into="second", origins=place.origins("engine"))
    assert again.origin == "cache"
    assert engine.calls.count("save") == 1


# -- what is there already -----------------------------------------------------------------


@pytest.mark.conforms("W15")
def test_force_really_fetches_again(place: Place) -> None:
    place.engine = Recorder(APP)
    (first,) = place.stage("app:1")
    before = first.paths[0].stat().st_ino
    (again,) = place.stage("app:1", force=True)
    assert place.engine.calls.count("save") == 2
    assert again.origin == "engine"
    assert again.paths[0].stat().st_ino != before


@pytest.mark.conforms("W15")
def test_force_offline_overwrites_nothing(place: Place) -> None:
    place.engine = Recorder(APP)
    (first,) = place.stage("app:1")
    inode = first.paths[0].stat().st_ino
    (same,) = place.stage("app:1", offline=True, force=True)
    assert same.paths[0].stat().st_ino == inode
    foreign = place.folder / "second" / "app%3A1.tar"
    foreign.parent.mkdir()
    foreign.write_bytes(b"mine")
    with pytest.raises(OtherImage, match="--force"):
        place.stage("app:1", into="second", offline=True, force=True)
    assert foreign.read_bytes() == b"mine"


def test_a_file_of_that_name_is_kept_unless_forced(place: Place) -> None:
    place.engine = Recorder(APP)
    foreign = place.folder / "staged" / "app%3A1.tar"
    foreign.parent.mkdir()
    foreign.write_bytes(b"mine")
    with pytest.raises(OtherImage, match="is there and is not image"):
        place.stage("app:1")
    assert place.files() == ["app%3A1.tar"]
    place.stage("app:1", force=True)
    assert foreign.read_bytes() == canonical_archive(APP)


@pytest.mark.parametrize("spoil", ["metadata gone", "metadata damaged", "nothing"])
def test_what_a_killed_run_left_is_completed(place: Place, spoil: str) -> None:
    place.engine = Recorder(APP)
    (first,) = place.stage("app:1")
    if spoil == "metadata gone":
        first.metadata_paths[0].unlink()
    elif spoil == "metadata damaged":
        first.metadata_paths[0].write_text("{}")
    for name in (".lock", ".app%3A1.tar.partial", ".app%3A1.tar_meta.json.partial"):
        (place.folder / "staged" / name).write_bytes(b"half")
    (again,) = place.stage("app:1")
    assert again.archive == first.archive
    assert place.files() == ["app%3A1.tar", "app%3A1.tar_meta.json"]


def test_a_damaged_copy_is_an_error_until_it_is_replaced(place: Place) -> None:
    place.engine = Recorder(APP)
    (first,) = place.stage("app:1")
    first.paths[0].unlink()  # the cache has the same file
    first.paths[0].write_bytes(canonical_archive(APP).replace(b"app", b"aqp", 1))
    for offline in (False, True):
        with pytest.raises(DigestMismatch, match="not as it was staged"):
            place.stage("app:1", offline=offline)
    place.stage("app:1", force=True)
    assert first.paths[0].read_bytes() == canonical_archive(APP)


def test_a_damaged_cache_is_never_staged(place: Place) -> None:
    place.engine = Recorder(APP)
    place.stage("app:1")
    (path,) = entries_in(cache_folder()).contents()
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"app", b"aqp", 1))
    with pytest.raises(DigestMismatch):
        place.stage("app:1", into="second", offline=True)
    assert not (place.folder / "second").exists()
    (found,) = place.stage("app:1", into="second")
    assert found.origin == "engine"
    assert "is fetched again" in place.said.text
    assert found.paths[0].read_bytes() == canonical_archive(APP)


def test_a_cache_that_is_cleared_meanwhile(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.engine = Recorder(APP)
    place.stage("app:1")
    adopt = Entries.adopt

    def cleared(entries: Entries, name: str, entry: Entry) -> Entry:
        adopted = adopt(entries, name, entry)
        monkeypatch.setattr(Entries, "adopt", adopt)
        Cache(cache_folder(), Said()).clear()
        return adopted

    monkeypatch.setattr(Entries, "adopt", cleared)
    (found,) = place.stage("app:1", into="second")
    assert found.origin == "engine"
    assert "was removed from the cache meanwhile" in place.said.text
    assert found.paths[0].read_bytes() == canonical_archive(APP)


def test_two_images_never_share_a_file_name(place: Place) -> None:
    place.engine = Recorder(APP, OTHER)
    place.engine.tags[OTHER.parsed.digest] = ["other:1"]
    folder = PlainFolder(place.folder / "staged", naming("{tag}.tar"))
    with pytest.raises(OtherImage, match="would have the same file name"):
        place.stage("app:1", "other:1", folder=folder)
    assert place.files() == ["1.tar", "1.tar_meta.json"]
    assert folder.copies()[0].metadata is not None


def test_two_images_under_one_file_name_at_the_same_time(place: Place) -> None:
    """Whichever comes first, what is written beside the file is about that."""
    place.engine = Recorder(APP, OTHER)
    place.engine.tags[OTHER.parsed.digest] = ["other:1"]
    refused = []

    def work(name: str) -> None:
        try:
            place.stage(name, folder=PlainFolder(place.folder / "staged", naming("{tag}.tar")))
        except OtherImage as error:
            refused.append(error)

    for _ in range(10):
        threads = [threading.Thread(target=work, args=(name,)) for name in ("app:1", "other:1") * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (checked,) = verify(PlainFolder(place.folder / "staged").copies(), Said())
        assert checked.problem == ""
        assert len(refused) == 2
        refused.clear()
        shutil.rmtree(place.folder / "staged")


def test_what_a_name_meant_before_goes_when_it_is_forced(place: Place) -> None:
    place.engine = Recorder(APP)
    folder = PlainFolder(place.folder / "staged", naming("folder"))
    place.stage("app:1", folder=folder)
    place.engine.tags = {OTHER.parsed.digest: ["app:1"]}
    place.engine.images[OTHER.parsed.digest] = canonical_archive(OTHER)
    (found,) = place.stage("app:1", folder=folder, force=True)
    name = f"app_1_{OTHER.parsed.digest.short_hex}.docker"
    assert found.paths == (place.folder / "staged" / name,)
    assert place.files() == [name, f"{name}_meta.json"]


def test_other_file_names_for_what_is_staged(place: Place) -> None:
    place.engine = Recorder(APP)
    place.stage("app:1")
    place.engine.calls.clear()
    folder = PlainFolder(place.folder / "staged", naming("cwl"))
    (found,) = place.stage("app:1", folder=folder, offline=True)
    assert found.paths == (place.folder / "staged" / "app:1.img",)
    assert place.engine.calls == []
    (both,) = place.stage("app:1", folder=folder)
    assert len(both.paths) == 2


@pytest.mark.parametrize("text", ["", "UPPER:1", "a b", "sha256:12"])
def test_what_is_no_name(place: Place, text: str) -> None:
    with pytest.raises(BadReference):
        place.stage("app:1", text)
    assert not (place.folder / "staged").exists()


def test_a_name_that_is_too_long_for_a_file(place: Place) -> None:
    name = f"{'x' * 200}:{'t' * 60}"
    place.engine = Recorder(APP)
    place.engine.tags[ID].append(name)
    with pytest.raises(UsageError, match="more than"):
        place.stage(name, folder=PlainFolder(place.folder / "staged", naming("cwl")))
    assert place.engine.calls == []
    (found,) = place.stage(name)
    assert len(found.paths[0].name) < 200
    assert place.stage(name, into="second", offline=True)[0].image_id == ID


# -- several at once -----------------------------------------------------------------------


@pytest.mark.conforms("W25")
def test_at_the_same_time_one_saves_and_all_succeed(place: Place) -> None:
    place.engine = Recorder(APP)
    found: list[arv_docker.Container] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            found.extend(place.stage("app:1"))
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    with slow_save(place.engine, 0.3):
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []
    assert {it.archive for it in found} == {Digest.of(canonical_archive(APP))}
    assert place.engine.calls.count("save") == 1
    assert place.files() == ["app%3A1.tar", "app%3A1.tar_meta.json"]
    assert len(cached()) == 2


# -- as a library --------------------------------------------------------------------------


def test_the_usual_origins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a cluster, an engine, or a network, each says why it has no such image."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoSuchImage) as raised:
        arv_docker.materialize([str(ID)], tmp_path / "staged")
    for why in (
        "no cluster is configured",
        "no Docker command is on PATH",
        "no Podman command is on PATH",
        "registries know images by name",
    ):
        assert why in raised.value.detail


def test_one_name_need_not_be_in_a_list(place: Place) -> None:
    place.engine = Recorder(APP)
    (found,) = arv_docker.materialize("app:1", place.folder / "staged", origins=place.origins("engine"))
    assert found.name == NAME


def test_links_by_name_are_enough(place: Place) -> None:
    """As the original writes them for an image of before there were hash links."""
    place.store(APP, "app:1")
    links = place.api.records["links"]
    for uuid in [it["uuid"] for it in links.values() if it["link_class"] != REPO_TAG]:
        del links[uuid]
    assert place.stage("app:1", origins=place.origins("keep"))[0].image_id == ID


def test_an_engine_is_made_for_each_image(place: Place) -> None:
    """An engine of whichever has the image must not be settled by the first of several."""
    engines = [Recorder(APP), Recorder(OTHER)]
    engines[1].tags[OTHER.parsed.digest] = ["other:1"]
    made = iter(engines)
    place.stage("app:1", "other:1", origins=[FromEngine(lambda: next(made), place.said, CacheFolder(cache_folder))])
    assert [it.calls.count("save") for it in engines] == [1, 1]

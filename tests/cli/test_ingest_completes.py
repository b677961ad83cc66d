# SPDX-License-Identifier: Apache-2.0
"""`arv-docker ingest` of images that Keep has, and of names that mean another image: links that were left out, older
builds, archives of others, platforms; and what is checked before anything is sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arv_docker.arvados.catalog.link_classes import DIGEST, HASH, REPO_TAG
from arv_docker.arvados.dedup import LAYER
from arv_docker.store.tarballs import cache_folder

from ..archives import classic, files_of, image
from ..arvados.fake_api import ME, OTHER, PROJECT, FakeApi, http_error
from ..transports.fake_engine import FakeEngine
from .conftest import APP, Run, saved

ID = str(APP.parsed.digest)
OLDER = image(files_of(b"older"), os="linux", architecture="amd64", created="2020-01-01T00:00:00Z")
NEWER = image(files_of(b"newer"), os="linux", architecture="amd64", created="2024-01-01T00:00:00Z")


def names_of(api: FakeApi, link_class: str) -> list[str]:
    return sorted(it["name"] for it in api.records["links"].values() if it["link_class"] == link_class)


@pytest.mark.parametrize("link_class", [LAYER, DIGEST])
def test_a_known_image_gets_the_links_that_were_left_out(
    api: FakeApi, engine: FakeEngine, run: Run, link_class: str
) -> None:
    """By a run that was killed after the link of the name, by an earlier version, or because they were refused."""
    run("ingest", "app:1")
    before = names_of(api, link_class)
    assert before
    for uuid in [uuid for uuid, it in api.records["links"].items() if it["link_class"] == link_class]:
        del api.records["links"][uuid]
    outcome = run("ingest", "app:1")
    assert (outcome.code, engine.calls) == (0, ["save"])
    assert names_of(api, link_class) == before
    assert run("ingest", "app:1").code == 0
    assert names_of(api, link_class) == before


def test_layer_links_that_are_refused_again_are_a_warning(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    run("ingest", "app:1")
    for uuid in [uuid for uuid, it in api.records["links"].items() if it["link_class"] == LAYER]:
        del api.records["links"][uuid]
    api.faults["links.create"] = [http_error(403)]
    outcome = run("ingest", "app:1")
    assert outcome.code == 0
    assert "was not linked" in outcome.err
    assert engine.calls == ["save"]


def test_an_older_build_of_a_name_is_stored_with_a_warning(api: FakeApi, run: Run, tmp_path: Path) -> None:
    newer = run("ingest", "--from-archive", str(saved(tmp_path / "newer.tar", NEWER)), "app:1")
    older = run("ingest", "--json", "--from-archive", str(saved(tmp_path / "older.tar", OLDER)), "app:1")
    document = json.loads(older.out)
    assert older.code == 0
    assert f"app:1 still means {newer.out.strip()}" in older.err
    assert f"arv-docker tag {document['uuid']} app:1" in older.err
    assert document["shadowed_by"] == newer.out.strip()
    assert run("tag", document["uuid"], "app:1").code == 0
    assert run("resolve", "app:1").out.strip() == document["pdh"]


def test_a_newer_build_of_a_name_is_stored_without_one(api: FakeApi, run: Run, tmp_path: Path) -> None:
    run("ingest", "--from-archive", str(saved(tmp_path / "older.tar", OLDER)), "app:1")
    newer = run("ingest", "--json", "--from-archive", str(saved(tmp_path / "newer.tar", NEWER)), "app:1")
    assert "still means" not in newer.err
    assert json.loads(newer.out)["shadowed_by"] is None


def test_a_stranger_s_archive_that_is_not_canonical_is_stored_anew(api: FakeApi, run: Run, tmp_path: Path) -> None:
    """It may be another image to another reader, whatever ours finds in it."""
    content = classic(APP)
    api.keep.put(content, 1)
    record = api.image(content, image_id=ID, owner_uuid=OTHER, modified_by_user_uuid=OTHER)
    api.link(record, HASH, ID, modified_by_user_uuid=OTHER, tail_uuid=record["portable_data_hash"])
    outcome = run("ingest", "--json", "--from-archive", str(saved(tmp_path / "app.tar", APP)), "app:1")
    document = json.loads(outcome.out)
    assert f"{record['uuid']} is not used: " in outcome.err
    assert "It is not adopted as it lies" in outcome.err
    assert document["uuid"] != record["uuid"]
    assert document["pdh"] != record["portable_data_hash"]
    assert [it["owner_uuid"] for it in api.records["links"].values() if it["link_class"] == REPO_TAG] == [ME]


def test_our_own_archive_of_another_layout_stays(api: FakeApi, run: Run, tmp_path: Path) -> None:
    """As `arv-keepdocker` stored it: its PDH is pinned."""
    record = api.image(classic(APP), image_id=ID)
    api.link(record, HASH, ID)
    outcome = run("ingest", "--from-archive", str(saved(tmp_path / "app.tar", APP)), "app:1")
    assert outcome.out.strip() == record["uuid"]


@pytest.mark.parametrize(("nodes", "warned"), [("linux/arm64", True), ("linux/amd64", False)])
def test_an_image_for_another_platform_is_stored_with_a_warning(
    api: FakeApi, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: str, warned: bool
) -> None:
    monkeypatch.setenv("ARV_DOCKER_PLATFORM", nodes)
    words = ("ingest", "--from-archive", str(saved(tmp_path / "newer.tar", NEWER)), "app:1")
    for more in (["--dry-run"], [], [], ["--dry-run"]):  # also where Keep has it
        outcome = run(*words, *more)
        assert outcome.code == 0
        said = f"the image is for linux/amd64, and the cluster's nodes are taken to be {nodes}"
        assert outcome.err.count(said) == int(warned)


def test_a_platform_that_is_none_is_a_bad_setting(
    api: FakeApi, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARV_DOCKER_PLATFORM", "amd64")
    outcome = run("ingest", "--from-archive", str(saved(tmp_path / "newer.tar", NEWER)), "app:1")
    assert outcome.code == 6
    assert "ARV_DOCKER_PLATFORM" in outcome.err


@pytest.mark.parametrize("name", ["n" * 256, "a/b", ".."])
@pytest.mark.parametrize("further", [[], ["--dry-run"]])
def test_a_name_that_no_collection_can_have_is_refused_before_anything_is_sent(
    api: FakeApi, engine: FakeEngine, run: Run, name: str, further: list[str]
) -> None:
    outcome = run("ingest", *further, "--name", name, "app:1")
    assert outcome.code == 2
    assert "no collection can be called" in outcome.err
    assert (engine.calls, api.keep.blocks) == ([], {})


def test_a_project_that_may_not_be_written_is_found_by_a_plan(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    api.faults["groups.get"] = [http_error(404)]
    assert run("ingest", "--dry-run", "--project-uuid", PROJECT, "app:1").code == 4


def test_long_names_of_images_are_cut_in_the_collection_s(api: FakeApi, run: Run, tmp_path: Path) -> None:
    name = f"registry.example:5000/{'/'.join(['part' * 10] * 5)}:{'t' * 120}"
    assert run("ingest", "--from-archive", str(saved(tmp_path / "newer.tar", NEWER)), name).code == 0
    (record,) = api.records["collections"].values()
    assert len(record["name"]) == 255
    assert record["name"].endswith(NEWER.parsed.digest.short_hex)


@pytest.mark.parametrize("status", [403, 422])
def test_a_refused_creation_leaves_nothing_in_the_cache(
    api: FakeApi, engine: FakeEngine, run: Run, status: int
) -> None:
    api.faults["collections.create"] = [http_error(status)]
    assert run("ingest", "app:1").code == 4
    assert list(cache_folder().iterdir()) == []

# SPDX-License-Identifier: Apache-2.0
"""`arv_docker.get_image`: what a job launcher gets, from Keep or from the engine, and what it raises."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

import arv_docker
from arv_docker.api import ImageRecord, open_engine
from arv_docker.arvados.catalog.link_classes import DIGEST, HASH, REPO_TAG
from arv_docker.errors import ArvDockerError, BadReference, BadSettings, NoEngine, NoSuchImage, UsageError
from arv_docker.model.image import Digest

from .archives import files_of, image
from .arvados.fake_api import ME, OTHER, PROJECT, FakeApi, http_error
from .transports.fake_engine import FakeEngine

APP = image(files_of(b"app"), os="linux", created="2024-01-02T03:04:05Z")
ID = str(APP.parsed.digest)


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(APP)


def get(api: FakeApi, reference: str, engine: FakeEngine, **options: Any) -> arv_docker.ImageRecord:
    return arv_docker.get_image(api, reference, engine=engine, retries=0, **options)


def test_an_image_of_the_engine_is_stored(api: FakeApi, engine: FakeEngine) -> None:
    found = get(api, "app:1", engine)
    (record,) = api.records["collections"].values()
    assert (found.uuid, found.pdh) == (record["uuid"], record["portable_data_hash"])
    assert (str(found.image_id), found.name) == (ID, "app:1")
    assert found.image_timestamp == datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
    assert (found.linked_by, found.trusted) == (ME, True)
    assert found.linked_at is not None


@pytest.mark.conforms("K4")
def test_an_image_that_keep_has_is_not_asked_of_the_engine(api: FakeApi, engine: FakeEngine) -> None:
    first = get(api, "app:1", engine)
    engine.images.clear()
    before = api.total
    assert get(api, "app:1", engine) == first
    assert api.total - before <= 4
    by_id = get(api, ID, engine)
    assert (by_id.uuid, by_id.name) == (first.uuid, ID)
    assert get(api, ID[:20], engine).uuid == first.uuid


@pytest.mark.conforms("S23")
def test_nobody_has_it(api: FakeApi, engine: FakeEngine) -> None:
    with pytest.raises(NoSuchImage, match="none:1"):
        get(api, "none:1", engine)
    with pytest.raises(NoSuchImage):
        get(api, f"sha256:{'9' * 64}", engine)
    assert api.records["collections"] == {}


def test_keep_has_not_and_there_is_no_engine(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engine: FakeEngine
) -> None:
    get(api, "app:1", engine)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert arv_docker.get_image(api, "app:1").uuid in api.records["collections"]
    with pytest.raises(NoEngine):
        arv_docker.get_image(api, "none:1")


@pytest.mark.parametrize("reference", ["", "Upper", "a b", "host:5000/app:", "sha256:xyz", "app@sha256:12"])
def test_what_is_no_name(api: FakeApi, engine: FakeEngine, reference: str) -> None:
    with pytest.raises(BadReference):
        get(api, reference, engine)
    assert api.total == 0


def test_a_registry_with_a_port(api: FakeApi, engine: FakeEngine) -> None:
    """What a launcher that splits names at colons gets wrong."""
    engine.tags[APP.parsed.digest] = ["host:5000/app:1"]
    found = get(api, "host:5000/app:1", engine)
    assert (found.name, str(found.image_id)) == ("host:5000/app:1", ID)
    assert {ID, "host:5000/app:1"} <= {it["name"] for it in api.records["links"].values()}
    with pytest.raises(NoSuchImage):
        get(api, "host:5000/app:2", engine)
    with pytest.raises(NoSuchImage):
        get(api, "host:5000/app", engine)


@pytest.mark.conforms("K5")
def test_a_project_gets_a_collection_of_its_own(api: FakeApi, engine: FakeEngine) -> None:
    mine = get(api, "app:1", engine)
    engine.images.clear()
    theirs = get(api, "app:1", engine, project_uuid=PROJECT)
    assert theirs.uuid != mine.uuid
    assert (theirs.pdh, theirs.image_timestamp) == (mine.pdh, mine.image_timestamp)
    assert api.records["collections"][theirs.uuid]["owner_uuid"] == PROJECT
    assert get(api, "app:1", engine, project_uuid=PROJECT) == theirs
    assert engine.calls == ["save"]


@pytest.mark.conforms("K12")
def test_pull_takes_what_the_registry_has_now(api: FakeApi, engine: FakeEngine) -> None:
    old = get(api, "app:1", engine)
    newer = FakeEngine(image(files_of(b"newer"), os="linux", created="2023-01-01T00:00:00Z"))
    found = get(api, "app:1", newer, pull=True)
    assert newer.calls == ["pull", "save"]
    assert found.uuid != old.uuid
    with pytest.raises(UsageError):
        get(api, ID, engine, pull=True)


@pytest.mark.conforms("S8")
def test_a_stranger_s_word_is_not_taken(api: FakeApi, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = get(api, "app:1", engine)
    evil = api.image(b"evil", owner_uuid=OTHER, modified_by_user_uuid=OTHER)
    for link_class, name in ((REPO_TAG, "app:1"), (REPO_TAG, "tool:1"), (HASH, ID)):
        properties = {"image_timestamp": "2030-01-01T00:00:00Z"}
        pin = evil["portable_data_hash"]
        api.link(evil, link_class, name, properties=properties, modified_by_user_uuid=OTHER, tail_uuid=pin)
    assert get(api, "app:1", engine).uuid == ours.uuid
    with pytest.raises(NoSuchImage):  # what he calls so is no image
        get(api, "tool:1", engine)
    assert get(api, "tool:1", engine, trust_readable=True).trusted
    monkeypatch.setenv("ARV_DOCKER_TRUSTED_WRITERS", OTHER)
    trusted = get(api, "tool:1", engine)
    assert (trusted.uuid, trusted.linked_by, trusted.trusted) == (evil["uuid"], OTHER, True)


def test_what_a_stranger_calls_by_a_name_is_what_the_cluster_runs(
    api: FakeApi, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = get(api, "tool:1", engine_with("tool:1"))
    for record in (*api.records["links"].values(), *api.records["collections"].values()):
        record["modified_by_user_uuid"] = record["owner_uuid"] = OTHER
    before = dict(api.records["links"])
    found = get(api, "tool:1", engine)
    assert (found.uuid, found.pdh, found.image_id) == (theirs.uuid, theirs.pdh, theirs.image_id)
    assert (found.trusted, found.linked_by) == (False, OTHER)
    assert api.records["links"] == before
    copied = get(api, "tool:1", engine, project_uuid=PROJECT)
    assert (copied.pdh, copied.trusted, copied.linked_by) == (theirs.pdh, True, ME)
    for record in api.records["links"].values():
        record["modified_by_user_uuid"] = OTHER
    monkeypatch.setenv("ARV_DOCKER_NAMES", "trusted")
    with pytest.raises(NoSuchImage):
        get(api, "tool:1", engine)


def engine_with(name: str) -> FakeEngine:
    """An engine with an image of its own by that name."""
    made = image(files_of(b"tool"), os="linux", created="2023-01-01T00:00:00Z")
    engine = FakeEngine(made)
    engine.tags[made.parsed.digest] = [name]
    return engine


def test_by_a_name_with_a_digest(api: FakeApi, engine: FakeEngine) -> None:
    ours = get(api, "app:1", engine)
    engine.images.clear()
    manifest = next(it["name"] for it in api.records["links"].values() if it["link_class"] == DIGEST)
    for digest in (ID, manifest):
        assert get(api, f"app:9@{digest}", engine).uuid == ours.uuid
        assert get(api, digest, engine).uuid == ours.uuid
    assert [it["name"] for it in api.records["links"].values() if it["link_class"] == REPO_TAG] == ["app:1"]
    with pytest.raises(NoSuchImage):
        get(api, f"app:1@sha256:{'e' * 64}", engine)


def test_settings_that_are_wrong(api: FakeApi, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARV_DOCKER_IMAGE_ID", "index")
    with pytest.raises(BadSettings):
        get(api, "app:1", engine)


@pytest.mark.conforms("S23")
@pytest.mark.parametrize("status", [401, 403, 422, 500])
@pytest.mark.parametrize("request_", ["users.current", "links.list", "collections.list", "links.create"])
def test_every_failure_is_an_error_of_ours(
    api: FakeApi, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, request_: str, status: int
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    api.link(api.image(b"x"), REPO_TAG, "other:1")
    api.link(api.image(APP.config, ID), HASH, ID)
    api.faults[request_] = [http_error(status)] * 20
    with pytest.raises(ArvDockerError):
        get(api, "app:1", engine)


def test_a_cluster_that_takes_no_version_2(api: FakeApi, engine: FakeEngine) -> None:
    api._rootDesc["dockerImageFormats"] = ["v1"]
    with pytest.raises(ArvDockerError, match="v2"):
        get(api, "app:1", engine)


def test_it_is_found_in_the_package_without_loading_it_before() -> None:
    assert arv_docker.get_image.__module__ == "arv_docker.api"
    assert all(hasattr(arv_docker, name) for name in arv_docker.__all__)
    with pytest.raises(AttributeError):
        arv_docker.nothing  # noqa: B018 - the look-up is what is tested


def test_what_is_public_is_shown() -> None:
    assert set(dir(arv_docker)) == set(arv_docker.__all__)
    for name in arv_docker.__all__:
        assert getattr(arv_docker, name) is not None
    with pytest.raises(AttributeError):
        _ = arv_docker.nothing_of_that_name


def test_engines_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in ("docker", "podman"):
        (tmp_path / command).write_text("#!/bin/sh\n")
        (tmp_path / command).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [open_engine(name).name for name in ("docker", "podman")] == ["docker", "podman"]
    assert open_engine().name == "docker"
    with pytest.raises(UsageError, match="auto"):
        open_engine("rkt")


def test_a_record_can_be_written_as_json() -> None:
    record = ImageRecord("u", "p", Digest.of(b"x"), "app:1", None, None, "someone", True)
    assert json.loads(json.dumps(record.as_json())) == record.as_json()
    assert record.as_json()["image_id"] == str(Digest.of(b"x"))

# SPDX-License-Identifier: Apache-2.0
"""Under which digests an image is in Keep: its config's, its manifest's, or both over the same blocks
(docs/spec/archive.md#file-name)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from arv_docker.archive import canonical
from arv_docker.archive.reader import ArchiveReader
from arv_docker.arvados.catalog.link_classes import DIGEST, HASH, REPO_TAG
from arv_docker.model import manifest_text
from arv_docker.model.image import Digest

from ..archives import Bytes, Image, canonical_archive, classic, containerd, files_of, hybrid, image
from ..arvados.fake_api import OTHER, PROJECT, FakeApi, http_error
from ..transports.fake_engine import FakeEngine
from .conftest import Run, saved

APP = image(files_of(b"low" * 70_000), files_of(b"high"), os="linux", created="2024-01-02T03:04:05Z")
CONFIG = str(APP.parsed.digest)
MANIFEST = str(canonical.layout(APP.parsed, APP.sizes).manifest_digest)


@pytest.fixture
def engine(engine: FakeEngine) -> FakeEngine:
    """It has APP as app:1."""
    engine.images = FakeEngine(APP).images
    engine.tags = {APP.parsed.digest: ["app:1"]}
    return engine


@pytest.fixture
def archive(tmp_path: Path) -> str:
    return str(saved(tmp_path / "app.tar", APP))


@pytest.fixture
def nodes_by_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARV_DOCKER_IMAGE_ID", "manifest")


def called(engine: FakeEngine, digest: str) -> None:
    """The engine has the image under another digest, as a containerd store does."""
    (content,) = engine.images.values()
    engine.images = {Digest.parse(digest): content}
    engine.tags = {Digest.parse(digest): ["app:1"]}


def files(api: FakeApi) -> dict[str, str]:
    """The digest by which each collection's file is named, and its UUID."""
    found = {}
    for record in api.records["collections"].values():
        (name,) = manifest_text.files(manifest_text.parse(record["manifest_text"]))
        found[name.removesuffix(".tar")] = record["uuid"]
    assert len(found) == len(api.records["collections"])
    return found


def links(api: FakeApi, digest: str) -> list[tuple[str, str]]:
    """Class and name of the links to the collection whose file is named so."""
    head = files(api)[digest]
    classes = (HASH, REPO_TAG, DIGEST)
    records = api.records["links"].values()
    return sorted(
        (it["link_class"], it["name"])
        for it in records
        if (it["head_uuid"], it["link_class"] in classes) == (head, True)
    )


BESIDE = {CONFIG: [(HASH, CONFIG)], MANIFEST: [(HASH, MANIFEST)]}
MAIN = {
    CONFIG: [(DIGEST, MANIFEST), (HASH, CONFIG), (REPO_TAG, "app:1")],
    MANIFEST: sorted([(DIGEST, CONFIG), (DIGEST, MANIFEST), (HASH, MANIFEST), (REPO_TAG, "app:1")]),
}


@pytest.mark.parametrize(("setting", "main", "beside"), [("config", CONFIG, MANIFEST), ("manifest", MANIFEST, CONFIG)])
@pytest.mark.usefixtures("engine")
def test_both_over_one_set_of_blocks(
    api: FakeApi, run: Run, monkeypatch: pytest.MonkeyPatch, setting: str, main: str, beside: str
) -> None:
    monkeypatch.setenv("ARV_DOCKER_IMAGE_ID", setting)
    outcome = run("ingest", "--image-id", "both", "--json", "app:1")
    assert outcome.code == 0, outcome.err
    document = json.loads(outcome.out)
    assert (document["image_id"], document["name"], document["uuid"]) == (main, "app:1", files(api)[main])
    assert document["beside"]["image_id"] == beside
    assert (document["beside"]["uuid"], document["beside"]["already"]) == (files(api)[beside], False)
    assert document["bytes_sent"] == sum(map(len, api.keep.blocks.values()))
    one, two = (it["manifest_text"].split(" 0:")[0] for it in api.records["collections"].values())
    assert one == two
    assert (links(api, main), links(api, beside)) == (MAIN[main], BESIDE[beside])
    records = api.records["links"].values()
    assert {it["properties"].get("image_timestamp") for it in records if it["link_class"] in (HASH, REPO_TAG)} == {
        "2024-01-02T03:04:05Z"
    }
    assert run("resolve", "app:1").out == document["pdh"] + "\n"
    for digest in (main, beside):
        assert (
            run("resolve", digest).out.strip() == api.records["collections"][files(api)[digest]]["portable_data_hash"]
        )
        assert run("verify", files(api)[digest]).code == 0


def test_again_sends_and_writes_nothing(api: FakeApi, run: Run, engine: FakeEngine, archive: str) -> None:
    first = run("ingest", "--image-id", "both", "app:1")
    before = {kind: dict(records) for kind, records in api.records.items()}
    blocks = dict(api.keep.blocks)
    for words in (
        ["app:1"],
        ["--from-archive", archive],
        ["app:1", "--image-id", "manifest"],
        ["app:1", "--image-id", "config"],
    ):
        again = run("ingest", "--image-id", "both", "--json", *words)
        assert json.loads(again.out)["already"], again.err
    assert run("ingest", "--image-id", "both", "app:1").out == first.out
    assert run("ingest", "app:1").out == first.out
    assert (api.records, api.keep.blocks, engine.calls) == (before, blocks, ["save"])


@pytest.mark.parametrize("first", ["config", "manifest"])
@pytest.mark.parametrize("setting", ["config", "manifest"])
@pytest.mark.parametrize("containerd_store", [False, True])
def test_of_a_known_image_only_what_is_missing_is_written(
    api: FakeApi,
    run: Run,
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
    setting: str,
    containerd_store: bool,
) -> None:
    """Whichever of its digests it was stored under, by which of them nodes know it, whatever the engine calls it."""
    monkeypatch.setenv("ARV_DOCKER_IMAGE_ID", setting)
    assert run("ingest", "--image-id", first, "app:1").code == 0
    assert list(files(api)) == [{"config": CONFIG, "manifest": MANIFEST}[first]]
    if containerd_store:
        called(engine, MANIFEST)
    before = dict(api.keep.blocks)
    document = json.loads(run("ingest", "--image-id", "both", "--json", "app:1").out)
    assert (document["bytes_sent"], engine.calls, api.keep.blocks) == (0, ["save"], before)
    main = {"config": CONFIG, "manifest": MANIFEST}[setting]
    assert (document["image_id"], document["already"]) == (main, first == setting)
    assert (document["beside"]["already"], set(files(api))) == (first != setting, {CONFIG, MANIFEST})
    assert set(MAIN[main]) <= set(links(api, main))
    assert (REPO_TAG, "app:1") not in links(api, document["beside"]["image_id"])
    count = len(api.records["links"])
    assert json.loads(run("ingest", "--image-id", "both", "--json", "app:1").out)["links_written"] == 0
    assert len(api.records["links"]) == count


@pytest.mark.parametrize(
    ("setting", "other", "digest"), [("config", "manifest", MANIFEST), ("manifest", "config", CONFIG)]
)
@pytest.mark.usefixtures("engine")
def test_what_the_nodes_do_not_know_gets_no_name(
    api: FakeApi, run: Run, monkeypatch: pytest.MonkeyPatch, setting: str, other: str, digest: str
) -> None:
    monkeypatch.setenv("ARV_DOCKER_IMAGE_ID", setting)
    outcome = run("ingest", "--image-id", other, "--json", "app:1")
    document = json.loads(outcome.out)
    assert (document["image_id"], document["name"], document["beside"]) == (digest, None, None)
    assert f"app:1: stored under its {other} digest and not linked by name" in outcome.err
    assert [link_class for link_class, _ in links(api, digest) if link_class == REPO_TAG] == []
    assert run("resolve", "app:1").code == 1
    assert run("resolve", CONFIG).out == run("resolve", MANIFEST).out == document["pdh"] + "\n"
    plain = run("ingest", "app:1")
    assert plain.code == 0
    assert set(files(api)) == {CONFIG, MANIFEST}
    assert plain.out.strip() == files(api)[{"config": CONFIG, "manifest": MANIFEST}[setting]]


@pytest.mark.usefixtures("nodes_by_manifest")
def test_for_nodes_that_know_manifests(api: FakeApi, run: Run, engine: FakeEngine) -> None:
    uuid = run("ingest", "app:1").out.strip()
    assert (files(api), links(api, MANIFEST)) == ({MANIFEST: uuid}, MAIN[MANIFEST])
    assert run("ingest", "app:1").out.strip() == uuid
    assert run("arv-keepdocker", "app:1").out.strip() == uuid
    assert engine.calls == ["save"]
    called(engine, MANIFEST)
    assert run("ingest", "app:1").out.strip() == uuid
    engine.images.clear()
    assert run("ingest", "app:1").out.strip() == uuid
    assert engine.calls == ["save"]


def test_the_setting_makes_both(api: FakeApi, run: Run, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARV_DOCKER_IMAGE_ID", "manifest,config")
    uuid = run("ingest", "app:1").out.strip()
    assert (set(files(api)), files(api)[MANIFEST]) == ({CONFIG, MANIFEST}, uuid)
    assert (links(api, MANIFEST), links(api, CONFIG)) == (MAIN[MANIFEST], BESIDE[CONFIG])


@pytest.mark.parametrize("request_", ["collections.create", "links.create", "collections.list", "links.list"])
@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("setting", ["both", "manifest,config"])
@pytest.mark.parametrize("status", [403, 500])
def test_a_run_that_failed_anywhere_is_completed_by_the_next(
    api: FakeApi,
    run: Run,
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    request_: str,
    number: int,
    setting: str,
    status: int,
) -> None:
    """A creation that was refused leaves no tarball for another try; after other failures it serves again."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setenv("ARV_DOCKER_IMAGE_ID", setting)
    api.faults[request_] = [None] * number + [http_error(status)] * 20
    first = run("ingest", "app:1")
    api.faults.clear()
    assert run("ingest", "app:1").code == 0
    main, beside = (CONFIG, MANIFEST) if setting == "both" else (MANIFEST, CONFIG)
    assert (links(api, main), links(api, beside)) == (MAIN[main], BESIDE[beside])
    assert first.code in (0, 4)
    assert engine.calls == ["save"] or (status == 403 and engine.calls == ["save", "save"])


def test_a_plan_tells_of_both(api: FakeApi, run: Run, engine: FakeEngine, archive: str) -> None:
    (fresh,) = json.loads("[" + run("ingest", "--image-id", "both", "--dry-run", "--json", "app:1").out + "]")
    assert (fresh["uuid"], fresh["beside"]["uuid"], fresh["beside"]["image_id"]) == (None, None, None)
    text = run("ingest", "--image-id", "both", "--dry-run", "app:1").out
    assert text.rstrip().endswith("; under its other digest too, of the same blocks")
    assert api.records == {"links": {}, "collections": {}}
    uuid = run("ingest", "app:1").out.strip()
    half = json.loads(run("ingest", "--image-id", "both", "--dry-run", "--json", "--from-archive", archive).out)
    assert (half["uuid"], half["bytes_to_send"]) == (uuid, 0)
    run("ingest", "--image-id", "both", "app:1")
    text = run("ingest", "--image-id", "both", "--dry-run", "app:1").out
    assert text == f"app:1: already stored, as {uuid}; under {MANIFEST} too, as {files(api)[MANIFEST]}\n"
    forced = json.loads(run("ingest", "--force", "--image-id", "both", "--dry-run", "--json", "app:1").out)
    assert (forced["uuid"], forced["beside"]["uuid"]) == (None, None)


@pytest.mark.usefixtures("engine")
def test_in_a_project(api: FakeApi, run: Run) -> None:
    run("ingest", "--image-id", "both", "app:1")
    blocks = dict(api.keep.blocks)
    document = json.loads(run("ingest", "--image-id", "both", "--project-uuid", PROJECT, "--json", "app:1").out)
    owners = [(it["owner_uuid"], it["portable_data_hash"]) for it in api.records["collections"].values()]
    assert len(owners) == 4
    assert {(PROJECT, document["pdh"]), (PROJECT, document["beside"]["pdh"])} <= set(owners)
    assert (api.keep.blocks, document["bytes_sent"]) == (blocks, 0)


# -- what was stored otherwise ----------------------------------------------------------


def by_upstream(api: FakeApi, content: bytes, image_id: str, **record: Any) -> dict[str, Any]:
    blocks = [api.keep.put(content[start : start + (8 << 20)], 1) for start in range(0, len(content), 8 << 20)]
    collection = api.add(
        "collections", manifest_text=manifest_text.single_file(f"{image_id}.tar", len(content), blocks)
    )
    for link_class, name in ((HASH, image_id), (REPO_TAG, "app:1")):
        api.link(collection, link_class, name, tail_uuid="", **record)
    return collection


def test_of_an_image_of_another_layout_only_the_other_collection_is_made(
    api: FakeApi, run: Run, engine: FakeEngine
) -> None:
    """It stays the preferred one, for job reuse compares its PDH; nodes of the other kind get the canonical archive."""
    uuid = by_upstream(api, classic(APP), CONFIG)["uuid"]
    assert run("ingest", "app:1").out.strip() == uuid
    assert engine.calls == []
    document = json.loads(run("ingest", "--image-id", "both", "--json", "app:1").out)
    assert (document["uuid"], document["already"], engine.calls) == (uuid, True, ["save"])
    assert (files(api)[CONFIG], document["beside"]["uuid"]) == (uuid, files(api)[MANIFEST])
    assert run("verify", files(api)[MANIFEST]).code == 0
    assert run("ingest", "--image-id", "both", "app:1").out.strip() == uuid
    assert engine.calls == ["save"]


def test_an_image_that_the_engine_calls_otherwise_is_not_stored_beside_one_of_upstream(
    api: FakeApi, run: Run, engine: FakeEngine
) -> None:
    uuid = by_upstream(api, classic(APP), CONFIG)["uuid"]
    engine.images = {(own := ArchiveReader(Bytes(hybrid(APP))).image().digests[-1]): hybrid(APP)}
    engine.tags = {own: ["app:1"]}
    assert run("ingest", "app:1").out.strip() == uuid
    assert (list(files(api)), (DIGEST, str(own)) in links(api, CONFIG)) == ([CONFIG], True)
    assert run("ingest", "app:1").out.strip() == uuid
    assert engine.calls == ["save"]


def test_one_named_by_upstream_after_a_containerd_store_is_used_by_its_nodes(
    api: FakeApi, run: Run, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = containerd(APP)
    own = ArchiveReader(Bytes(content)).image().digests[-1]
    uuid = by_upstream(api, content, str(own))["uuid"]
    engine.images, engine.tags = {own: content}, {own: ["app:1"]}
    monkeypatch.setenv("ARV_DOCKER_IMAGE_ID", "manifest")
    assert run("ingest", "app:1").out.strip() == uuid
    assert (list(files(api)), engine.calls) == ([str(own)], [])


@pytest.mark.usefixtures("engine")
def test_a_stranger_s_links_are_no_proof(api: FakeApi, run: Run) -> None:
    """Neither that the one digest means the image of the other, nor which blocks it has."""
    other = image(files_of(b"other" * 50_000), os="linux")
    engine_s = files(api)
    evil = by_upstream(api, classic(other), str(other.parsed.digest), modified_by_user_uuid=OTHER)
    api.link(evil, DIGEST, CONFIG, modified_by_user_uuid=OTHER, tail_uuid=evil["portable_data_hash"])
    api.link(evil, DIGEST, MANIFEST, modified_by_user_uuid=OTHER, tail_uuid=evil["portable_data_hash"])
    assert engine_s == {}
    assert run("ingest", "--image-id", "both", "app:1").code == 0
    assert (links(api, CONFIG), links(api, MANIFEST)) == (MAIN[CONFIG], BESIDE[MANIFEST])


def test_a_source_s_digests_are_noted_of_a_known_image(
    api: FakeApi, run: Run, engine: FakeEngine, tmp_path: Path
) -> None:
    run("ingest", "app:1")
    (tmp_path / "layout.tar").write_bytes(containerd(APP))
    digests = ArchiveReader(Bytes(containerd(APP))).image().digests
    document = json.loads(run("ingest", "--json", "--from-archive", str(tmp_path / "layout.tar"), "app:1").out)
    assert (document["already"], document["links_written"]) == (True, len(digests))
    assert {(DIGEST, str(digest)) for digest in digests} <= set(links(api, CONFIG))
    assert run("resolve", str(digests[-1])).out == run("resolve", "app:1").out


def test_a_stranger_s_word_for_a_digest_is_not_taken(api: FakeApi, run: Run, engine: FakeEngine) -> None:
    """That it means an image which is there, checked and all."""
    run("ingest", "app:1")
    (record,) = api.records["collections"].values()
    digest = f"sha256:{'e' * 64}"
    planted = api.link(record, DIGEST, digest, modified_by_user_uuid=OTHER, tail_uuid=record["portable_data_hash"])
    for text in (digest, digest[:20], f"app@{digest}"):
        assert run("ingest", text).code == 1
    planted["modified_by_user_uuid"] = record["owner_uuid"]
    assert run("ingest", digest).out.strip() == record["uuid"]
    assert engine.calls == ["save"]


@pytest.mark.parametrize("request_", ["collections.create", "links.create"])
@pytest.mark.parametrize("number", range(6))
def test_a_run_that_ended_after_any_request_is_completed_by_the_next(
    api: FakeApi, run: Run, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, request_: str, number: int
) -> None:
    monkeypatch.setenv("ARV_DOCKER_IMAGE_ID", "both")
    api.faults[request_] = [*[None] * number, (KeyboardInterrupt(),)]  # type: ignore[list-item]
    assert run("ingest", "app:1").code in (0, 130)
    api.faults.clear()
    assert run("ingest", "app:1").code == 0
    assert (links(api, CONFIG), links(api, MANIFEST)) == (MAIN[CONFIG], BESIDE[MANIFEST])
    assert engine.calls == ["save"]


def test_a_stranger_s_word_for_what_an_engine_has_is_not_taken(
    api: FakeApi, run: Run, engine: FakeEngine, tmp_path: Path
) -> None:
    """Of an image with the same layers, and another config."""
    evil = Image(APP.config.replace(b'"linux"', b'"evil!"'), APP.layers)
    (tmp_path / "evil.tar").write_bytes(classic(evil))
    run("ingest", "--from-archive", str(tmp_path / "evil.tar"), "evil:1")
    (record,) = api.records["collections"].values()
    for known in (record, *api.records["links"].values()):
        known["modified_by_user_uuid"] = OTHER
    called(engine, MANIFEST)
    engine.images = {Digest.parse(MANIFEST): canonical_archive(APP)}
    api.link(record, DIGEST, MANIFEST, modified_by_user_uuid=OTHER, tail_uuid=record["portable_data_hash"])
    document = json.loads(run("ingest", "--json", "app:1").out)
    assert (document["image_id"], engine.calls) == (CONFIG, ["save"])


@pytest.mark.usefixtures("engine")
def test_a_canonical_archive_that_is_cut_otherwise_is_not_renamed(api: FakeApi, run: Run) -> None:
    """For an image under one digest has one portable data hash."""
    run("ingest", "--image-id", "manifest", "app:1")
    (record,) = api.records["collections"].values()
    for records in api.records.values():
        records.clear()
    uuid = by_upstream(api, canonical_archive(APP), CONFIG)["uuid"]
    document = json.loads(run("ingest", "--image-id", "both", "--json", "app:1").out)
    assert (document["uuid"], document["beside"]["pdh"]) == (uuid, record["portable_data_hash"])

# SPDX-License-Identifier: Apache-2.0
"""`arv-docker ingest A B C`: one save where images share layers, each stored by itself; and `--dry-run`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arv_docker.archive.reader import ArchiveReader
from arv_docker.arvados.dedup import LAYER
from arv_docker.errors import KeepError
from arv_docker.store.tarballs import cache_folder

from ..archives import Bytes, classic, files_of, hybrid, image
from ..arvados.fake_api import FakeApi, http_error
from ..transports import fake_engine
from ..transports.fake_engine import FakeEngine
from .conftest import Run

LOW = files_of(b"low" * 5_700_000)
IMAGES = [image(LOW, files_of(b"%d" % number * 1000 * number)) for number in (1, 2, 3)]
ALONE = image(files_of(b"alone"))
NAMES = ["app:1", "app:2", "app:3"]


@pytest.fixture
def engine(engine: FakeEngine) -> FakeEngine:
    """It has three images that share a layer, and one that shares none."""
    engine.images.clear()
    engine.tags.clear()
    for made, name in zip([*IMAGES, ALONE], [*NAMES, "alone:1"], strict=True):
        fresh = FakeEngine(made)
        engine.images |= fresh.images
        engine.tags[made.parsed.digest] = [name]
    return engine


def images_in(api: FakeApi) -> dict[str, str]:
    """The images that are linked by name: their IDs."""
    links = api.records["links"].values()
    ids = {it["head_uuid"]: it["name"] for it in links if it["link_class"] == "docker_image_hash"}
    return {it["name"]: ids[it["head_uuid"]] for it in links if it["link_class"] == "docker_image_repo+tag"}


def test_what_shares_layers_is_saved_once(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    outcome = run("ingest", *NAMES, "alone:1")
    assert (outcome.code, engine.calls) == (0, ["save", "save"])
    expected = dict(zip([*NAMES, "alone:1"], [*IMAGES, ALONE], strict=True))
    assert images_in(api) == {name: str(made.parsed.digest) for name, made in expected.items()}
    uuids = {record["portable_data_hash"]: uuid for uuid, record in api.records["collections"].items()}
    assert sorted(outcome.out.split()) == sorted(uuids.values())
    assert "4 of 4 images are in Keep" in outcome.err
    assert len([it for it in api.records["links"].values() if it["link_class"] == LAYER]) == 1
    assert list(cache_folder().iterdir()) == []


def test_the_archives_are_those_of_each_by_itself(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    run("ingest", *NAMES)
    together = {record["portable_data_hash"] for record in api.records["collections"].values()}
    for records in api.records.values():
        records.clear()
    for name in NAMES:
        run("ingest", name)
    assert {record["portable_data_hash"] for record in api.records["collections"].values()} == together


def test_sent_bytes_are_counted_once(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    documents = json.loads(run("ingest", "--json", *NAMES).out)
    assert [it["name"] for it in documents] == NAMES
    assert sum(it["bytes_sent"] for it in documents) == sum(len(block) for block in api.keep.blocks.values())
    assert min(it["bytes_sent"] for it in documents) < len(LOW) < max(it["bytes_sent"] for it in documents)


def test_one_failure_leaves_the_others_whole(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    outcome = run("ingest", "app:1", "nosuch:1", "app:2", "Bad/NAME")
    assert outcome.code == 1
    assert set(images_in(api)) == {"app:1", "app:2"}
    assert "2 of 4 images are in Keep, 2 failed" in outcome.err
    assert len(outcome.out.split()) == 2
    assert "nosuch:1: " in outcome.err
    documents = json.loads(run("ingest", "--json", "nosuch:1", "app:1").out)
    assert (documents[0]["asked"], documents[0]["exit_code"], documents[1]["already"]) == ("nosuch:1", 1, True)


def test_an_image_with_a_wrong_layer_leaves_the_others_whole(
    api: FakeApi, engine: FakeEngine, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fake_engine.together
    content = b"2" * 2000
    monkeypatch.setattr(fake_engine, "together", lambda contents: whole(contents).replace(content, b"x" * 2000))
    outcome = run("ingest", *NAMES)
    assert outcome.code == 5
    assert set(images_in(api)) == {"app:1", "app:3"}
    assert "app:2: layer " in outcome.err


def test_two_names_of_one_image(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    engine.tags[IMAGES[0].parsed.digest].append("app:latest")
    outcome = run("ingest", "app:1", "app:latest", "app:2")
    assert (outcome.code, engine.calls) == (0, ["save"])
    assert images_in(api)["app:latest"] == images_in(api)["app:1"]
    assert outcome.out.split()[0] == outcome.out.split()[1]


def test_those_that_are_stored_are_not_saved_again(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    run("ingest", "app:1")
    engine.calls.clear()
    assert run("ingest", *NAMES).code == 0
    assert engine.calls == ["save"]
    engine.calls.clear()
    assert run("ingest", *NAMES).code == 0
    assert engine.calls == []


def test_an_interrupted_run_is_taken_up(
    api: FakeApi, engine: FakeEngine, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = api.keep.put

    def full(content: bytes, copies: int) -> str:
        if len(api.keep.blocks) >= 1:
            raise KeepError("Keep is full.")
        return put(content, copies)

    monkeypatch.setattr(api.keep, "put", full)
    assert run("ingest", *NAMES).code == 4
    monkeypatch.setattr(api.keep, "put", put)
    before = dict(api.keep.blocks)
    api.keep.blocks.clear()
    assert run("ingest", *NAMES).code == 0
    assert api.keep.blocks.keys().isdisjoint(before)
    assert list(cache_folder().iterdir()) == []


def test_spared_blocks_that_are_refused_are_sent(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    run("ingest", "app:1")
    api.faults["collections.create"] = [http_error(403)]
    outcome = run("ingest", *NAMES)
    assert (outcome.code, set(images_in(api))) == (0, set(NAMES))
    assert "sending everything again" in outcome.err


@pytest.mark.parametrize("option", [["--name", "x"], ["--as", "x:1"], ["--from-archive", "x.tar"]])
def test_options_that_are_for_one_image(run: Run, option: list[str]) -> None:
    assert run("ingest", *option, "app:1", "app:2").code == 2


def test_another_name(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    assert run("ingest", "app:1", "--as", "quay.example.com/other:2").code == 0
    assert list(images_in(api)) == ["quay.example.com/other:2"]


def test_a_failure_of_one_group_leaves_the_others_whole(
    api: FakeApi, engine: FakeEngine, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = files_of(b"other" * 10)
    for name, made in {"b:1": image(other, b"1"), "b:2": image(other, b"2")}.items():
        engine.images |= FakeEngine(made).images
        engine.tags[made.parsed.digest] = [name]
    run("ingest", "alone:1")
    put = api.keep.put

    def refusing(content: bytes, copies: int) -> str:
        if b"otherother" in content:
            raise KeepError("Keep refuses it.")
        return put(content, copies)

    monkeypatch.setattr(api.keep, "put", refusing)
    outcome = run("ingest", "app:1", "b:1", "app:2", "b:2", "alone:1")
    assert outcome.code == 4
    assert set(images_in(api)) == {"app:1", "app:2", "alone:1"}
    assert "3 of 5 images are in Keep, 2 failed" in outcome.err


def test_an_engine_that_calls_images_otherwise(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    """A containerd store: one save all the same, and the digests are links."""
    engine.images = {}
    engine.tags = {}
    for name, made in zip(NAMES, IMAGES, strict=True):
        content = hybrid(made)
        called = ArchiveReader(Bytes(content)).image().digests[-1]
        engine.images[called], engine.tags[called] = content, [name]
    outcome = run("ingest", *NAMES)
    assert (outcome.code, engine.calls) == (0, ["save"])
    assert images_in(api) == {name: str(made.parsed.digest) for name, made in zip(NAMES, IMAGES, strict=True)}
    engine.calls.clear()
    assert run("ingest", *NAMES).out == outcome.out
    assert engine.calls == []


# -- a plan -----------------------------------------------------------------------------


def test_a_plan_writes_nothing(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    outcome = run("ingest", "--dry-run", "app:1", "app:2")
    assert (outcome.code, engine.calls, api.keep.blocks) == (0, [], {})
    assert api.records["collections"] == api.records["links"] == {}
    assert outcome.out.splitlines()[0].startswith("app:1: about 1.0 kB, 0 of 2 layers are in Keep")
    assert "2 of 2 images are planned" in outcome.err


def test_a_plan_knows_what_is_there(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    uuid = run("ingest", "app:1").out.strip()
    first, second = json.loads(run("ingest", "--dry-run", "--json", "app:1", "app:2").out)
    assert (first["uuid"], first["bytes_to_send"]) == (uuid, 0)
    assert (second["uuid"], second["layers"], second["layers_held"], second["bytes_held"]) == (None, 2, 1, len(LOW))


def test_a_plan_follows_the_options(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    uuid = run("ingest", "app:1").out.strip()
    assert json.loads(run("ingest", "--dry-run", "--force", "--json", "app:1").out)["uuid"] is None
    engine.images.clear()
    assert json.loads(run("ingest", "--dry-run", "--json", "app:1").out)["uuid"] == uuid
    assert run("ingest", "--dry-run", "nosuch:1").code == 1


def test_an_archive_by_another_name(api: FakeApi, run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(classic(ALONE))
    assert run("ingest", "--from-archive", str(tmp_path / "a.tar"), "--as", "x:1").code == 0
    assert list(images_in(api)) == ["x:1"]
    assert run("ingest", "--pull", f"docker-archive:{tmp_path}/a.tar").code == 2


def test_a_tag_as_arv_keepdocker_takes_it_gets_a_hint(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    told = run("ingest", "app", "1")
    assert told.code == 1
    assert "If 1 is meant as a tag: arv-docker ingest app:1" in told.err
    assert "meant as a tag" not in run("ingest", "app:1", "absent/one:1").err

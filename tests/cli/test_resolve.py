# SPDX-License-Identifier: Apache-2.0
"""`arv-docker resolve`, `inspect`, `verify` and `load` of an image that is stored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arv_docker.archive import canonical

from ..archives import canonical_archive
from ..arvados.fake_api import OTHER, FakeApi
from ..transports.fake_engine import FakeEngine
from .conftest import APP, Run

ID = str(APP.parsed.digest)


@pytest.fixture
def stored(api: FakeApi, run: Run, archive: Path) -> dict[str, str]:
    assert run("ingest", "--from-archive", str(archive), "app:1").code == 0
    (record,) = api.records["collections"].values()
    return record


def every_way(record: dict[str, str]) -> list[str]:
    return ["app:1", ID, ID[7:], ID[7:19], ID[:20], record["uuid"], record["portable_data_hash"]]


def test_resolve_prints_the_pdh_alone(run: Run, stored: dict[str, str]) -> None:
    for name in every_way(stored):
        outcome = run("resolve", name)
        assert (outcome.code, outcome.out) == (0, f"{stored['portable_data_hash']}\n")


@pytest.mark.conforms("S22")
def test_resolve_json(run: Run, stored: dict[str, str]) -> None:
    document = json.loads(run("resolve", "--json", "app:1").out)
    expected = {"pdh": stored["portable_data_hash"], "uuid": stored["uuid"], "warnings": []}
    assert expected.items() <= document.items()
    assert {"link_uuid", "linked_by"} <= set(document)


def test_inspect_json(run: Run, stored: dict[str, str]) -> None:
    document = json.loads(run("inspect", "--json", "app:1").out)
    layout = canonical.layout(APP.parsed, APP.sizes)
    expected = {
        "image_id": ID,
        "manifest_digest": str(layout.manifest_digest),
        "file": f"{ID}.tar",
        "platform": "linux/unknown",
        "created": "2024-01-02T03:04:05Z",
        "canonical": True,
        "size": layout.size,
        "pdh": stored["portable_data_hash"],
    }
    assert expected.items() <= document.items()
    assert [layer["diff_id"] for layer in document["layers"]] == list(map(str, APP.parsed.diff_ids))
    assert [int(block.split("+")[1]) for block in document["blocks"]] == list(layout.block_sizes())
    assert [it["uuid"] for it in document["collections"]] == [stored["uuid"]]
    assert {(it["link_class"], it["name"]) for it in document["links"]} == {
        ("docker_image_repo+tag", "app:1"),
        ("docker_image_hash", ID),
        ("docker_image_digest", str(layout.manifest_digest)),
    }


def test_inspect_text(run: Run, stored: dict[str, str]) -> None:
    lines = run("inspect", "app:1").out.splitlines()
    assert f"image id:        {ID}" in lines
    assert "layers:          2" in lines


def test_verify(run: Run, stored: dict[str, str]) -> None:
    outcome = run("verify", "app:1")
    assert outcome.code == 0
    assert outcome.out.startswith(f"verified {stored['portable_data_hash']}: ")
    assert "2 layers" in outcome.out
    assert "canonical archive" in outcome.out


def test_verify_json(run: Run, stored: dict[str, str]) -> None:
    full = json.loads(run("verify", "--json", "app:1").out)
    quick = json.loads(run("verify", "--json", "--quick", "app:1").out)
    expected = {"uuid": stored["uuid"], "image_id": ID, "config_digest": ID, "layers": 2, "canonical": True}
    assert expected.items() <= full.items()
    assert (full["quick"], quick["quick"], quick["bytes_read"]) == (False, True, 0)
    assert full["bytes_read"] == sum(APP.sizes.values())


def test_a_lost_block(api: FakeApi, run: Run, stored: dict[str, str]) -> None:
    lost = next(name for name, block in api.keep.blocks.items() if b"lowlow" in block)
    del api.keep.blocks[lost]
    for arguments in (["verify", "app:1"], ["verify", "--quick", "app:1"]):
        outcome = run(*arguments)
        assert outcome.code in (4, 5)
        assert lost in outcome.err
        assert outcome.out == ""


def test_a_changed_block(api: FakeApi, run: Run, stored: dict[str, str]) -> None:
    for name, block in api.keep.blocks.items():
        api.keep.blocks[name] = block.replace(b"lowlow", b"LOWLOW", 1)
    outcome = run("verify", "app:1")
    assert (outcome.code, outcome.out) == (5, "")
    assert run("verify", "--quick", "app:1").code == 0


def test_a_manifest_text_that_is_not_its_pdh_s(api: FakeApi, run: Run, stored: dict[str, str]) -> None:
    stored["manifest_text"] = stored["manifest_text"].replace("0:", "512:", 1)
    assert run("verify", stored["uuid"]).code == 5


def test_load(run: Run, engine: FakeEngine, stored: dict[str, str]) -> None:
    engine.images.clear()
    outcome = run("load", "app:1")
    assert (outcome.code, outcome.out) == (0, f"{ID}\n")
    assert b"".join(engine.fed) == canonical_archive(APP)
    assert engine.calls == ["chains", "load", "tag"]
    again = json.loads(run("load", "--json", "app:1").out)
    assert {"image_id": ID, "engine_id": ID, "already": True}.items() <= again.items()
    assert engine.calls.count("load") == 1


def test_load_warns_of_a_name_that_a_stranger_gave(
    api: FakeApi, run: Run, engine: FakeEngine, stored: dict[str, str]
) -> None:
    """The engine has the image by that name from now on."""
    assert "warning" not in run("load", "app:1").err
    for record in api.records["links"].values():
        record["modified_by_user_uuid"] = OTHER
    outcome = run("load", "app:1")
    assert outcome.code == 0
    assert f"{OTHER}, who is not trusted" in outcome.err


def test_load_by_id_gives_no_name(run: Run, engine: FakeEngine, stored: dict[str, str]) -> None:
    engine.images.clear()
    for name in every_way(stored)[1:]:
        assert run("load", name).code == 0
    assert engine.calls == ["chains", "load"]


def test_load_of_a_changed_image_leaves_the_engine_as_it_was(
    api: FakeApi, run: Run, engine: FakeEngine, stored: dict[str, str]
) -> None:
    engine.images.clear()
    for name, block in api.keep.blocks.items():
        api.keep.blocks[name] = block.replace(b"lowlow", b"LOWLOW", 1)
    outcome = run("load", "app:1")
    assert (outcome.code, outcome.out) == (5, "")
    assert engine.images == {}

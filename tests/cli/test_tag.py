# SPDX-License-Identifier: Apache-2.0
"""`arv-docker tag` and `untag`: the links of others that they delete are named, and asked about."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest

from arv_docker import cli
from arv_docker.arvados.catalog.link_classes import REPO_TAG

from ..arvados.fake_api import OTHER, FakeApi
from ..transports.fake_engine import FakeEngine
from .conftest import Run

LATER = {"image_timestamp": "2031-01-01T00:00:00Z"}


@pytest.fixture
def theirs(api: FakeApi, engine: FakeEngine, run: Run) -> dict[str, Any]:
    """Our image as mine:1, and a link of another user by which app:1 means his, until it is deleted."""
    engine.tags[next(iter(engine.images))] = ["mine:1"]
    assert run("ingest", "mine:1").code == 0
    other = api.image(b"theirs", owner_uuid=OTHER, modified_by_user_uuid=OTHER)
    return api.link(other, REPO_TAG, "app:1", owner_uuid=OTHER, modified_by_user_uuid=OTHER, properties=LATER)


def names(api: FakeApi) -> list[tuple[str, str]]:
    links = (it for it in api.records["links"].values() if it["link_class"] == REPO_TAG)
    return sorted((it["name"], it["modified_by_user_uuid"]) for it in links)


@pytest.mark.parametrize("verb", [["tag", "mine:1", "app:1"], ["untag", "app:1"]])
def test_links_of_others_are_named_and_stay_unless_it_is_said(
    api: FakeApi, run: Run, theirs: dict[str, Any], verb: list[str]
) -> None:
    before = names(api)
    refused = run(*verb)
    assert (refused.code, refused.out) == (8, "")
    assert (
        f"link {theirs['uuid']} of {OTHER}, owned by {OTHER}, to {theirs['head_uuid']} is to be deleted" in refused.err
    )
    assert "Give --yes" in refused.err
    planned = run(*verb, "--dry-run")
    assert planned.code == 0
    assert f"link {theirs['uuid']} of {OTHER}" in planned.err
    assert names(api) == before
    assert run(*verb, "--yes").code == 0
    assert theirs["uuid"] not in api.records["links"]


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 8), ("", 8)])
def test_who_sits_at_a_terminal_is_asked(
    api: FakeApi, run: Run, theirs: dict[str, Any], monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    outcome = run("tag", "mine:1", "app:1")
    assert outcome.code == code
    assert "Delete 1 link of other users?" in outcome.err
    assert (theirs["uuid"] in api.records["links"]) == (code != 0)


def test_nobody_is_asked_for_own_links_and_for_those_that_may_not_be_deleted(
    api: FakeApi, run: Run, theirs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("tag", "mine:1", "own:1").code == 0
    assert run("untag", "own:1").code == 0
    monkeypatch.setattr("arv_docker.arvados.client.Cluster.may_write", lambda _, owner: owner != OTHER)
    outcome = run("untag", "app:1", "--json")
    assert json.loads(outcome.out) == {"deleted": [], "stayed": [theirs["uuid"]]}
    assert outcome.code == 8


def test_a_link_of_another_user_of_the_same_second_is_not_overlooked(
    api: FakeApi, run: Run, theirs: dict[str, Any]
) -> None:
    """Ours is there already, and older: a new one would not count, and his, as old by its image, was linked later."""
    mine = next(it for it in api.records["links"].values() if it["name"] == "mine:1" and it["link_class"] == REPO_TAG)
    head = api.records["collections"][mine["head_uuid"]]
    api.link(head, REPO_TAG, "app:1", tail_uuid=head["portable_data_hash"], created_at="2023-01-01T00:00:00.000000000Z")
    theirs["properties"] = mine["properties"]
    refused = run("tag", "mine:1", "app:1")
    assert (refused.code, theirs["uuid"] in api.records["links"]) == (8, True)
    assert f"link {theirs['uuid']} of {OTHER}" in refused.err
    assert run("tag", "mine:1", "app:1", "--yes").code == 0
    assert theirs["uuid"] not in api.records["links"]


@pytest.mark.parametrize("verb", [["tag", "mine:1", "app:1", "--yes"], ["untag", "app:1", "--yes"]])
def test_a_link_that_came_after_the_question_stays(
    api: FakeApi, run: Run, theirs: dict[str, Any], verb: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    confirm = cli.confirm_deletion
    late: list[dict[str, Any]] = []

    def confirm_and_wait(*arguments: Any) -> frozenset[str]:
        confirmed = confirm(*arguments)
        head = api.records["collections"][theirs["head_uuid"]]
        late.append(api.link(head, REPO_TAG, "app:1", modified_by_user_uuid=OTHER, properties=LATER))
        return confirmed

    monkeypatch.setattr(cli, "confirm_deletion", confirm_and_wait)
    assert run(*verb).code == 8
    assert late[0]["uuid"] in api.records["links"]
    assert theirs["uuid"] not in api.records["links"]

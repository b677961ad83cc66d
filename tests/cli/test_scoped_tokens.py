# SPDX-License-Identifier: Apache-2.0
"""A token for links and collections alone reads images, on a site that holds tokens to their scopes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import arvados
import pytest

import arv_docker as product
from arv_docker import cli
from arv_docker.arvados.client import Cluster
from arv_docker.site import LocalSite
from arv_docker.site.api import users
from arv_docker.site.folder import open_site

from ..transports.fake_engine import FakeEngine
from .conftest import Outcome, Run
from .test_whose_word import ID, OURS, _as, ingested

READING = ("GET /arvados/v1/links", "GET /arvados/v1/collections", "GET /arvados/v1/collections/")


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The client of a reader; a user whom they trust stored our image as ours:1 in a project that everybody reads."""
    monkeypatch.setattr(cli, "engine", lambda args: FakeEngine())
    folder = tmp_path / "site"
    site = open_site(folder)
    for name in ("keeper", "reader"):
        users.create(site.database, site.settings, name, is_admin=False)
    storing = users.new_token(site.database, site.settings, "keeper", None)
    scoped = users.new_token(site.database, site.settings, "reader", None, READING)
    site.close()
    with LocalSite(folder) as running:
        api, theirs = (
            arvados.api("v1", discoveryServiceUrl=running.discovery_url, token=token, cache=False)
            for token in (storing, scoped)
        )
        project = api.groups().create(body={"group_class": "project", "name": "images"}).execute()["uuid"]
        permission = {"link_class": "permission", "name": "can_read", "head_uuid": project}
        api.links().create(body=permission | {"tail_uuid": f"{project[:5]}-j7d0g-fffffffffffffff"}).execute()
        ingested(api, OURS, tmp_path, "ours:1", project)
        monkeypatch.setenv("ARV_DOCKER_TRUSTED_WRITERS", api.users().current().execute()["uuid"])
        monkeypatch.setattr(cli, "cluster", lambda args: _as(theirs))
        monkeypatch.setattr(cli, "cluster_named", lambda args, name: _as(theirs))
        yield theirs


def test_the_site_holds_a_token_to_its_scopes(reader: Any) -> None:
    with pytest.raises(arvados.errors.ApiError, match="Forbidden"):
        reader.users().current().execute()
    with pytest.raises(arvados.errors.ApiError, match="Forbidden"):
        reader.links().create(body={"link_class": "x", "name": "y"}).execute()
    assert Cluster(reader).user_if_known is None
    assert len(reader.collections().list().execute()["items"]) == 1


@pytest.mark.parametrize("name", ["ours:1", ID, ID[7:19], f"ours@{ID}"])
def test_it_is_enough_to_read_images(reader: Any, run: Run, tmp_path: Path, name: str) -> None:
    (record,) = reader.collections().list().execute()["items"]
    expected = {
        ("resolve", name): record["portable_data_hash"],
        ("resolve", "--explain", name): record["portable_data_hash"],
        ("inspect", name): ID,
        ("ls", name): "file",
        ("cat", name, "/file"): "ours",
        ("export", name): "ours",
        ("verify", name): record["portable_data_hash"],
        ("load", name): ID,
        ("stage", "--json", "--from", "keep", "--dir", str(tmp_path / "staged"), name): ID,
        ("images", name): record["uuid"],
        ("images",): record["uuid"],
        ("copy", f"keep:{name}", f"docker-archive:{tmp_path / 'out.tar'}"): ID,
        ("arv-keepdocker", "images"): record["uuid"],
    }
    for words, shown in expected.items():
        outcome: Outcome = run(*words)
        assert (outcome.code, shown in outcome.out) == (0, True), (words, outcome)
    image = product.get_image(reader, name)
    assert (image.pdh, str(image.image_id), image.trusted) == (record["portable_data_hash"], ID, True)


def test_what_it_is_not_for_is_said_and_changes_nothing(reader: Any, run: Run, archive: Path) -> None:
    before = json.dumps(reader.links().list().execute()["items"])
    for words in (("link", "ours:1", "more:1"), ("tag", "ours:1", "more:1"), ("ingest", f"docker-archive:{archive}")):
        outcome = run(*words)
        assert (outcome.code, outcome.out) == (4, ""), (words, outcome)
        assert "403" in outcome.err or "Forbidden" in outcome.err, (words, outcome)
    assert json.dumps(reader.links().list().execute()["items"]) == before

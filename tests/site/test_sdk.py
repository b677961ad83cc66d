# SPDX-License-Identifier: Apache-2.0
"""The real Python SDK against a site in this process."""

from __future__ import annotations

import os
import sqlite3
from typing import Any

import arvados
import arvados.collection
import arvados.errors
import arvados.util
import pytest

from arv_docker.site import LocalSite
from arv_docker.site.api import parameters


@pytest.fixture
def sdk(local: LocalSite) -> Any:
    """An API client of the SDK; errors come at once instead of after retries."""
    return arvados.api("v1", discoveryServiceUrl=local.discovery_url, token=local.token, num_retries=0)


def test_a_collection_is_written_and_read(sdk: Any) -> None:
    big = os.urandom(1 << 20) * 65  # more than one block
    made = arvados.collection.Collection(api_client=sdk)
    with made.open("dir/small.txt", "w") as file:
        file.write("hello")
    with made.open("big", "wb") as file:
        file.write(big)
    made.save_new("first")
    uuid = made.manifest_locator()
    for name in (uuid, made.portable_data_hash()):
        reader = arvados.collection.CollectionReader(name, api_client=sdk)
        assert sorted(reader) == ["big", "dir"]
        with reader.open("dir/small.txt") as file:
            assert file.read() == "hello"
        with reader.open("big", "rb") as file:
            assert file.read() == big


def test_a_collection_is_changed_and_copied(sdk: Any) -> None:
    made = arvados.collection.Collection(api_client=sdk)
    with made.open("a", "w") as file:
        file.write("a")
    made.save_new("first", ensure_unique_name=True)
    with made.open("b", "w") as file:
        file.write("b")
    made.save()
    copy = arvados.collection.Collection(api_client=sdk)
    copy.copy("a", "a", source_collection=made)
    copy.save_new("first", ensure_unique_name=True)
    assert sorted(arvados.collection.Collection(made.manifest_locator(), api_client=sdk)) == ["a", "b"]
    assert sorted(arvados.collection.Collection(copy.manifest_locator(), api_client=sdk)) == ["a"]


def test_keyset_paging_meets_every_row_once(sdk: Any, local: LocalSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parameters, "MAX_LIMIT", 7)
    made = {sdk.links().create(body={"name": str(number)}).execute()["uuid"] for number in range(40)}
    # Half of them of the same microsecond: paging then goes by UUID.
    database = sqlite3.connect(local.folder / "site.db")
    with database:
        database.execute(
            "UPDATE links SET created_at = (SELECT min(created_at) FROM links) WHERE CAST(name AS INT) < 20"
        )
    database.close()
    for options in ({}, {"order_key": "uuid"}, {"ascending": False}):
        found = [item["uuid"] for item in arvados.util.keyset_list_all(sdk.links().list, **options)]
        assert len(found) == 40
        assert set(found) == made


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_keyset_paging_of_few_rows(sdk: Any, rows: int) -> None:
    for _ in range(rows):
        sdk.links().create(body={"link_class": "tag"}).execute()
    found = list(arvados.util.keyset_list_all(sdk.links().list, filters=[["link_class", "=", "tag"]], select=["uuid"]))
    assert len(found) == rows


def test_a_query_too_long_for_a_url_arrives_as_a_post(sdk: Any) -> None:
    made = sdk.collections().create(body={"collection": {"name": "x"}}).execute()
    wanted = [made["uuid"]] * 1000
    found = sdk.collections().list(filters=[["uuid", "in", wanted]], select=["uuid", "name"]).execute()
    assert [item["name"] for item in found["items"]] == ["x"]


def test_errors_arrive_as_api_errors(sdk: Any) -> None:
    with pytest.raises(arvados.errors.ApiError) as refused:
        sdk.collections().get(uuid="zzzzz-4zz18-zzzzzzzzzzzzzzz").execute()
    assert refused.value.resp.status == 404
    assert "Path not found" in str(refused.value)


def test_trash_and_untrash(sdk: Any) -> None:
    uuid = sdk.collections().create(body={}).execute()["uuid"]
    sdk.collections().trash(uuid=uuid).execute()
    assert sdk.collections().list(include_trash=True).execute()["items_available"] == 1
    sdk.collections().untrash(uuid=uuid).execute()
    sdk.collections().delete(uuid=uuid).execute()
    assert sdk.collections().list().execute()["items_available"] == 0


def test_a_block_of_another_token_cannot_be_claimed(sdk: Any, local: LocalSite) -> None:
    short = arvados.api(
        "v1", discoveryServiceUrl=local.discovery_url, token=local.token.rpartition("/")[2], num_retries=0
    )
    locator = short.keep.put(b"hello", copies=1)
    assert short.keep.get(locator) == b"hello"
    with pytest.raises(arvados.errors.ApiError) as refused:
        sdk.collections().create(body={"manifest_text": f". {locator} 0:5:x\n"}).execute()
    assert refused.value.resp.status == 403

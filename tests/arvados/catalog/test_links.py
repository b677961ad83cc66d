# SPDX-License-Identifier: Apache-2.0
"""One link of each kind, however often it is tried."""

from __future__ import annotations

import json
from typing import Any

import pytest

from arv_docker.arvados.catalog import links
from arv_docker.arvados.catalog.link_classes import HASH, REPO_TAG
from arv_docker.arvados.client import CollectionRecord, Link
from arv_docker.arvados.trust import Trust
from arv_docker.errors import ClusterError
from arv_docker.model.image import Config, Digest
from arv_docker.model.reference import Reference

from ..fake_api import ME, OTHER, PROJECT, SYSTEM, FakeApi, cluster, http_error, lost

ID = Digest.sha256("a" * 64)
NAME = Reference.parse("host:443/app:1")


def ensure(api: FakeApi, record: dict[str, Any], name: Reference | None = NAME, *, look: bool = True) -> int:
    existing = list(map(Link.of, api.records["links"].values())) if look else []
    return links.ensure_links(
        cluster(api),
        CollectionRecord.of(record),
        ID,
        name,
        trust=Trust.of(ME, SYSTEM),
        properties={"image_timestamp": "2024-01-01T00:00:00Z"},
        existing=existing,
    )


def written(api: FakeApi) -> list[tuple[str, str]]:
    return [(it["link_class"], it["name"]) for it in api.records["links"].values()]


def test_both_links_pin_the_content() -> None:
    api = FakeApi()
    record = api.image(owner_uuid=OTHER)
    assert ensure(api, record) == 2
    assert written(api) == [(HASH, str(ID)), (REPO_TAG, "host/app:1")]
    for it in api.records["links"].values():
        assert it["head_uuid"] == record["uuid"]
        assert it["tail_uuid"] == record["portable_data_hash"]
        assert it["owner_uuid"] == OTHER
        assert it["properties"] == {"image_timestamp": "2024-01-01T00:00:00Z"}


def test_an_image_without_a_name_has_its_hash_link_alone() -> None:
    api = FakeApi()
    assert ensure(api, api.image(), None) == 1
    assert written(api) == [(HASH, str(ID))]


def test_what_is_there_is_not_written_again() -> None:
    api = FakeApi()
    record = api.image()
    ensure(api, record)
    assert ensure(api, record) == 0
    assert len(written(api)) == 2


@pytest.mark.conforms("S3")
def test_links_to_another_collection_do_not_count() -> None:
    """A stale hash link must not keep the new collection from getting one (docs/conformance.md#s3)."""
    api = FakeApi()
    ensure(api, api.image(b"old"))
    assert ensure(api, api.image(b"new")) == 2


def test_links_of_a_stranger_do_not_count() -> None:
    """Such a link may go, or point elsewhere, as its writer likes."""
    api = FakeApi()
    record = api.image()
    api.link(record, HASH, str(ID), modified_by_user_uuid=OTHER, tail_uuid=record["portable_data_hash"])
    api.link(record, REPO_TAG, NAME.link_name, modified_by_user_uuid=OTHER)
    assert ensure(api, record) == 2


@pytest.mark.conforms("S3")
def test_links_about_another_content_do_not_count() -> None:
    api = FakeApi()
    record = api.image()
    for link_class, name in ((HASH, str(ID)), (REPO_TAG, NAME.link_name)):
        api.link(record, link_class, name, tail_uuid=api.image(b"before")["portable_data_hash"])
    assert ensure(api, record) == 2


@pytest.mark.conforms("K21")
def test_a_collection_in_a_project_that_others_write_to_is_linked_from_home() -> None:
    api = FakeApi()
    api.faults["links.create"] = [http_error(403), None, http_error(403), None]
    assert ensure(api, api.image(owner_uuid=PROJECT)) == 2
    assert {link["owner_uuid"] for link in api.records["links"].values()} == {ME}


def test_a_refusal_at_home_is_final() -> None:
    api = FakeApi()
    api.faults["links.create"] = [http_error(403)]
    with pytest.raises(ClusterError):
        ensure(api, api.image())
    assert written(api) == []


def test_a_lost_answer_makes_no_second_link() -> None:
    api = FakeApi()
    api.faults["links.create"] = [lost(), lost()]
    assert ensure(api, api.image()) == 2
    assert written(api) == [(HASH, str(ID)), (REPO_TAG, "host/app:1")]


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_5xx_that_hid_a_link_makes_no_second_one(status: int) -> None:
    api = FakeApi()
    api.faults["links.create"] = [(http_error(status),)]
    assert ensure(api, api.image()) == 2
    assert written(api) == [(HASH, str(ID)), (REPO_TAG, "host/app:1")]


@pytest.mark.parametrize("error", [ConnectionRefusedError(), http_error(503)])
def test_what_may_pass_is_tried_again(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    api = FakeApi()
    api.faults["links.create"] = [error, error, None, error]
    assert ensure(api, api.image()) == 2
    assert written(api) == [(HASH, str(ID)), (REPO_TAG, "host/app:1")]


@pytest.mark.parametrize("status", [403, 422])
def test_a_refusal_is_raised_at_once(status: int) -> None:
    api = FakeApi()
    api.faults["links.create"] = [http_error(status)] * 9
    with pytest.raises(ClusterError) as caught:
        ensure(api, api.image())
    assert caught.value.status == status
    assert (written(api), api.requests["links.create"]) == ([], 1)


def test_of_two_that_were_written_at_once_the_older_stays() -> None:
    api = FakeApi()
    record = api.image()
    same = {"tail_uuid": record["portable_data_hash"], "created_at": "2023-01-01T00:00:00Z"}
    api.before["links.create"] = lambda: api.link(record, HASH, str(ID), **same)
    ensure(api, record, None)
    (kept,) = api.records["links"].values()
    assert kept["created_at"].startswith("2023")


def test_one_request_looks_for_second_ones_of_all_that_were_written() -> None:
    api = FakeApi()
    assert ensure(api, api.image(), look=False) == 2
    assert (api.requests["links.create"], api.requests["links.list"]) == (2, 1)


def test_an_equal_link_of_somebody_else_is_left_alone() -> None:
    api = FakeApi()
    record = api.image()
    for writer in (OTHER, SYSTEM):
        api.link(record, HASH, str(ID), modified_by_user_uuid=writer, tail_uuid=record["portable_data_hash"])
    ensure(api, record, None, look=False)
    assert len(written(api)) == 3


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        ("2024-01-01T00:00:00.5Z", {"image_timestamp": "2024-01-01T00:00:00.5Z"}),
        ("yesterday", {}),
        (None, {}),
        (0, {}),
    ],
)
def test_the_timestamp_is_the_config_s_own_text_or_absent(created: object, expected: dict[str, str]) -> None:
    document = {"created": created, "rootfs": {"type": "layers", "diff_ids": []}}
    assert links.timestamp_of(Config.parse(json.dumps(document).encode())) == expected

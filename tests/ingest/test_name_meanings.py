# SPDX-License-Identifier: Apache-2.0
"""Names after a copy: made to mean what they mean on the other cluster, or listed."""

from __future__ import annotations

from typing import Any

import pytest

from arv_docker.arvados.catalog.link_classes import MIGRATION, REPO_TAG
from arv_docker.arvados.catalog.resolver import resolve
from arv_docker.arvados.client import Cluster
from arv_docker.arvados.trust import Trust
from arv_docker.ingest.name_meanings import CopiedImage, NameDifference, NameSettlement
from arv_docker.model.reference import Reference

from ..arvados.fake_api import ME, OTHER, SYSTEM, FakeApi, cluster

APP = Reference.parse("app:1")
EARLY, LATE = {"image_timestamp": "2024-01-01T00:00:00Z"}, {"image_timestamp": "2025-01-01T00:00:00Z"}


@pytest.fixture
def there() -> FakeApi:
    return FakeApi()


@pytest.fixture
def here() -> FakeApi:
    return FakeApi()


def linked(api: FakeApi, content: bytes, properties: dict[str, str], **record: Any) -> dict[str, Any]:
    """A collection called app:1."""
    made = api.image(content)
    api.link(made, REPO_TAG, "app:1", tail_uuid=made["portable_data_hash"], properties=properties, **record)
    return made


def settled(there: FakeApi, here: FakeApi, naps: list[float] | None = None) -> list[NameDifference]:
    """Settle app:1 after a copy of what this user linked there."""
    by_pdh = {it["portable_data_hash"]: it for it in here.records["collections"].values()}
    copied = {
        pdh: CopiedImage(by_pdh[pdh]["uuid"], pdh, ME)
        for pdh in (it["portable_data_hash"] for it in there.records["collections"].values())
        if pdh in by_pdh
    }
    sleep = (naps if naps is not None else []).append
    return NameSettlement(cluster(there), cluster(here), copied, sleep).settle([APP])


def meaning(api: FakeApi) -> str:
    return resolve(Cluster(api), "app:1", Trust.of(ME, SYSTEM)).collection.pdh


def test_of_two_that_were_linked_in_one_second_the_right_one_is_linked_again(there: FakeApi, here: FakeApi) -> None:
    for content in (b"one", b"two"):
        linked(there, content, EARLY)
    here.clock = "2024-01-01T00:00:07.000000000Z"
    for content in (b"one", b"two"):
        linked(here, content, EARLY)
    here.clock = ""
    undecided = resolve(Cluster(here), "app:1", Trust.of(ME, SYSTEM))
    assert len(undecided.rivals) == 1
    assert "linked in the same second" in undecided.warnings[-1]
    naps: list[float] = []
    assert settled(there, here, naps) == []
    assert naps
    assert meaning(here) == meaning(there)
    assert resolve(Cluster(here), "app:1", Trust.of(ME, SYSTEM)).rivals == ()
    assert len(here.records["links"]) == 2
    before = dict(here.records["links"])
    assert settled(there, here, naps) == []
    assert (here.records["links"], len(naps)) == (before, 1)


def test_links_get_the_times_that_rank_them_there(there: FakeApi, here: FakeApi) -> None:
    for content, properties in ((b"one", EARLY), (b"two", {})):
        linked(there, content, properties)
    for content, properties in ((b"one", EARLY), (b"two", LATE)):
        linked(here, content, properties)
    assert meaning(here) != meaning(there)
    assert settled(there, here) == []
    assert meaning(here) == meaning(there)
    assert [it["properties"] for it in here.records["links"].values()] == [{}, EARLY]


@pytest.mark.parametrize("writer", [ME, OTHER])
def test_what_would_not_help_is_not_done(there: FakeApi, here: FakeApi, writer: str) -> None:
    """A newer build that was not copied, this user's or another one's, keeps the name."""
    linked(there, b"one", EARLY)
    linked(here, b"one", EARLY)
    newer = linked(here, b"newer", LATE, modified_by_user_uuid=writer)
    before = dict(here.records["links"])
    (difference,) = settled(there, here)
    assert difference == NameDifference("app:1", meaning(there), newer["portable_data_hash"], copied=True)
    assert here.records["links"] == before


def test_what_others_name_so_was_not_copied(there: FakeApi, here: FakeApi) -> None:
    linked(there, b"one", EARLY)
    linked(here, b"one", EARLY)
    his = linked(there, b"his", LATE, modified_by_user_uuid=OTHER)
    (difference,) = settled(there, here)
    assert difference == NameDifference("app:1", his["portable_data_hash"], meaning(here), copied=False)
    assert "which was not copied" in str(difference)


def test_a_name_of_an_image_that_was_migrated(there: FakeApi, here: FakeApi) -> None:
    """It means what the system user migrated it to; the other cluster has no such link, so the name leads there."""
    old = {"manifest_text": f". {'0' * 32}+4 0:4:{'f' * 64}.tar\n"}
    first = there.add("collections", **old)
    there.link(first, REPO_TAG, "app:1", properties=EARLY)
    new = there.image(b"new")
    migration = {"tail_uuid": first["portable_data_hash"], "head_uuid": new["portable_data_hash"]}
    there.add("links", link_class=MIGRATION, name="migrate_1.9_1.10", owner_uuid=SYSTEM, **migration)
    here.link(here.add("collections", **old), REPO_TAG, "app:1", properties=EARLY)
    here.image(b"new")
    assert settled(there, here) == []
    assert meaning(here) == meaning(there) == new["portable_data_hash"]

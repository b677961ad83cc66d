# SPDX-License-Identifier: Apache-2.0
"""One collection, however the creation fails and however many create it."""

from __future__ import annotations

import pytest

from arv_docker.arvados.catalog import collections
from arv_docker.arvados.client import CollectionRecord
from arv_docker.errors import ClusterError
from arv_docker.model import manifest_text

from ..fake_api import ME, PROJECT, FakeApi, cluster, http_error, lost

TEXT = f". {'a' * 32}+3 0:3:f\n"
PDH = manifest_text.pdh(TEXT)


@pytest.fixture(autouse=True)
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it waited between two tries."""
    naps: list[float] = []
    monkeypatch.setattr("time.sleep", naps.append)
    return naps


def create(api: FakeApi, *, anew: bool = False, owner: str = ME) -> CollectionRecord:
    return collections.ensure_collection(
        cluster(api), TEXT, owner=owner, name="name", properties={"key": "value"}, anew=anew
    )


def there(api: FakeApi) -> list[str]:
    return sorted(api.records["collections"])


def test_a_new_collection() -> None:
    api = FakeApi()
    created = create(api)
    (record,) = api.records["collections"].values()
    assert (created.uuid, created.pdh) == (record["uuid"], PDH)
    assert (record["name"], record["owner_uuid"], record["properties"]) == ("name", ME, {"key": "value"})


def test_an_equal_one_that_is_there_is_taken() -> None:
    api = FakeApi()
    old = api.add("collections", manifest_text=TEXT)
    assert create(api).uuid == old["uuid"]
    assert api.requests["collections.create"] == 0


def test_one_of_another_owner_or_content_is_not() -> None:
    api = FakeApi()
    api.add("collections", manifest_text=TEXT, owner_uuid=PROJECT)
    api.add("collections", manifest_text="")
    create(api)
    assert len(there(api)) == 3
    assert create(api, owner=PROJECT).owner_uuid == PROJECT
    assert len(there(api)) == 3


def test_of_several_the_oldest_is_taken() -> None:
    api = FakeApi()
    api.add("collections", manifest_text=TEXT, created_at="2024-01-02T00:00:00Z")
    old = api.add("collections", manifest_text=TEXT, created_at="2024-01-01T00:00:00Z")
    assert create(api).uuid == old["uuid"]


@pytest.mark.conforms("S6", "S14")
@pytest.mark.parametrize("answers_lost", [1, 2, 4])
def test_a_lost_answer_makes_no_second_collection(answers_lost: int) -> None:
    api = FakeApi()
    api.faults["collections.create"] = [lost() for _ in range(answers_lost)]
    assert [create(api).uuid] == there(api)
    assert api.requests["collections.create"] == 1


def test_a_5xx_that_hid_a_collection_makes_no_second_one() -> None:
    api = FakeApi()
    api.faults["collections.create"] = [(http_error(504),)]
    assert [create(api).uuid] == there(api)
    assert api.requests["collections.create"] == 1


@pytest.mark.parametrize("error", [http_error(500), http_error(503), http_error(429), ConnectionRefusedError()])
def test_what_may_pass_is_tried_again(error: Exception, naps: list[float]) -> None:
    api = FakeApi()
    api.faults["collections.create"] = [error, error]
    assert [create(api).uuid] == there(api)
    assert api.requests["collections.create"] == 3
    assert [0.75 <= nap * 4 / 2**number <= 1 for number, nap in enumerate(naps)] == [True, True]


def test_what_does_not_pass_is_raised_in_the_end(naps: list[float]) -> None:
    api = FakeApi()
    api.faults["collections.create"] = [http_error(503)] * 100
    with pytest.raises(ClusterError) as caught:
        create(api)
    assert caught.value.status == 503
    assert api.requests["collections.create"] == 5
    assert sum(naps) < 10
    assert there(api) == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_a_refusal_is_not_tried_again(status: int, naps: list[float]) -> None:
    api = FakeApi()
    api.faults["collections.create"] = [http_error(status)]
    with pytest.raises(ClusterError) as caught:
        create(api)
    assert caught.value.status == status
    assert (api.requests["collections.create"], naps) == (1, [])


@pytest.mark.conforms("S14")
def test_of_two_that_were_created_at_once_the_older_stays() -> None:
    api = FakeApi()
    api.before["collections.create"] = lambda: api.add(
        "collections", manifest_text=TEXT, created_at="2023-01-01T00:00:00Z"
    )
    assert [create(api).uuid] == there(api)
    assert api.requests["collections.delete"] == 1


def test_ours_stays_if_the_other_came_later() -> None:
    api = FakeApi()
    api.before["collections.create"] = lambda: api.add(
        "collections", manifest_text=TEXT, created_at="2030-01-01T00:00:00Z"
    )
    created = create(api)
    assert created.created_at < "2030"
    assert api.requests["collections.delete"] == 0


@pytest.mark.parametrize("other", ["zzzzz-4zz18-000000000000000", "zzzzz-4zz18-zzzzzzzzzzzzzzz"])
def test_created_in_the_same_moment_both_sides_keep_the_same(other: str) -> None:
    api = FakeApi()
    api.clock = "2024-01-01T00:00:00Z"
    api.before["collections.create"] = lambda: api.add("collections", manifest_text=TEXT, uuid=other)
    kept = create(api)
    assert [kept.uuid] == there(api) or kept.uuid == min(there(api))
    assert (kept.uuid == other) is (api.requests["collections.delete"] == 1)


@pytest.mark.parametrize("name", ["other", "name of another"])
def test_anew_does_not_take_one_of_another_name(name: str) -> None:
    api = FakeApi()
    old = api.add("collections", manifest_text=TEXT, name=name)
    assert create(api, anew=True).uuid != old["uuid"]
    assert len(there(api)) == 2


@pytest.mark.conforms("S15")
@pytest.mark.parametrize("name", ["name", "name (2024-01-01T00:00:00.000Z)"])
def test_anew_takes_an_equal_one_of_that_name(name: str) -> None:
    api = FakeApi()
    old = api.add("collections", manifest_text=TEXT, name=name)
    assert create(api, anew=True).uuid == old["uuid"]
    assert len(there(api)) == 1


@pytest.mark.conforms("K3")
def test_the_name_s_property_is_set_once_and_others_stay() -> None:
    api = FakeApi()
    record = api.add("collections", manifest_text=TEXT, properties={"mine": 1})
    collections.set_name_property(cluster(api), CollectionRecord.of(record), "app:1")
    assert record["properties"] == {"mine": 1, "docker-image-repo-tag": "app:1"}
    collections.set_name_property(cluster(api), CollectionRecord.of(record), "app:2")
    assert record["properties"]["docker-image-repo-tag"] == "app:1"
    assert api.requests["collections.update"] == 1

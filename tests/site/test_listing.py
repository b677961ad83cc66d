# SPDX-License-Identifier: Apache-2.0
"""List requests: filters, order, paging, select, count."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arv_docker.site.api.listing import _order
from arv_docker.site.store.resources import LINKS

from .conftest import Direct

PDH = "d41d8cd98f00b204e9800998ecf8427e+0"


@pytest.fixture
def stocked(api: Direct) -> Direct:
    """A site with three links and two collections to look for."""
    for number, name in enumerate(("app:1", "app:2", "other:1")):
        properties = {"n": number, "text": f"v{number}", "a.b": number == 1}
        api.ok("POST", "links", {"link_class": "tag", "name": name, "properties": properties})
    api.ok("POST", "links", {"link_class": "empty"})
    api.ok("POST", "collections", {"name": "A_b", "replication_desired": 2, "properties": {"x": 1}})
    api.ok("POST", "collections", {"name": "Axb", "storage_classes_desired": ["hot", "default"]})
    return api


def names(api: Direct, resource: str, *filters: Any, **query: Any) -> list[str]:
    """The names of what a list finds, sorted."""
    found = api.ok("GET", resource, filters=list(filters), **query)
    return sorted(item["name"] for item in found["items"])


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([["name", "=", "app:1"]], ["app:1"]),
        ([["links.name", "=", "app:1"]], ["app:1"]),
        ([["name", "=", None]], [""]),
        ([["name", "!=", None]], ["app:1", "app:2", "other:1"]),
        ([["name", "!=", "app:1"]], ["", "app:2", "other:1"]),
        ([["name", "<", "app:2"]], ["app:1"]),
        ([["name", ">=", "app:2"]], ["app:2", "other:1"]),
        ([["name", "like", "app:%"]], ["app:1", "app:2"]),
        ([["name", "like", "APP:%"]], []),
        ([["name", "ilike", "APP:_"]], ["app:1", "app:2"]),
        ([["name", "in", ["app:1", "other:1", "nope"]]], ["app:1", "other:1"]),
        ([["name", "in", []]], []),
        ([["name", "in", [None, "app:1"]]], ["app:1"]),
        ([["name", "not in", ["app:1"]]], ["", "app:2", "other:1"]),
        ([["name", "not in", []]], [""]),
        ([["name", "not in", ["app:1", None]]], []),
        ([["name", "IN", ["app:1"]]], ["app:1"]),
        ([["owner_uuid", "is_a", "arvados#user"], ["name", "!=", None]], ["app:1", "app:2", "other:1"]),
        ([["owner_uuid", "is_a", ["arvados#group", "arvados#nosuch"]]], []),
        ([["head_kind", "=", "arvados#collection"]], []),
        ([["properties.n", "=", 1]], ["app:2"]),
        ([["properties.n", "=", "1"]], []),
        ([["properties.n", ">", 0]], ["app:2", "other:1"]),
        ([["properties.text", "like", "v%"], ["properties.text", "!=", "v0"]], ["app:2", "other:1"]),
        ([["properties.a.b", "=", True]], ["app:2"]),
        ([["properties.<a.b>", "=", True]], ["app:2"]),
        ([["properties", "exists", "n"]], ["app:1", "app:2", "other:1"]),
        ([["properties.n", "exists", False]], [""]),
        ([["properties", "contains", ["n", "text"]]], ["app:1", "app:2", "other:1"]),
        ([["properties", "=", "{}"]], [""]),
        ([["created_at", ">", "2001-01-01"], ["name", "=", "app:1"]], ["app:1"]),
        ([["created_at", "<", "2001-01-01T00:00:00+05:00"]], []),
    ],
)
def test_a_filter_finds_what_it_should(stocked: Direct, filters: Any, expected: list[str]) -> None:
    assert names(stocked, "links", *filters) == expected


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([["name", "like", "A_b"]], ["A_b", "Axb"]),
        ([["name", "like", r"A\_b"]], ["A_b"]),
        ([["replication_desired", "=", 2]], ["A_b"]),
        ([["replication_desired", "=", "2"]], ["A_b"]),
        ([["replication_desired", "in", [2]]], ["A_b"]),
        ([["replication_desired", "!=", 2]], ["Axb"]),
        ([["is_trashed", "=", False]], ["A_b", "Axb"]),
        ([["is_trashed", "=", "true"]], []),
        ([["is_trashed", "in", [False]]], ["A_b", "Axb"]),
        ([["storage_classes_desired", "contains", "hot"]], ["Axb"]),
        ([["portable_data_hash", "=", PDH]], ["A_b", "Axb"]),
        ([["uuid", "=", "xxxxx-4zz18-aaaaaaaaaaaaaaa"]], []),
        ([["file_names", "like", "%"]], ["A_b", "Axb"]),
    ],
)
def test_a_filter_on_collections(stocked: Direct, filters: Any, expected: list[str]) -> None:
    assert names(stocked, "collections", *filters) == expected


@pytest.mark.parametrize(
    "item",
    [
        ["bogus", "=", "x"],
        ["name", "bogus", "x"],
        ["name", "<>", "x"],
        ["name", "@@", "x"],
        ["name", "="],
        ["name", "=", "x", "y"],
        [["name", "uuid"], "=", "x"],
        ["name", "=", 5],
        ["name", "=", {"a": 1}],
        ["name", "<", None],
        ["name", "in", "x"],
        ["name", "in", [1]],
        ["name", "like", 1],
        ["name", "is_a", "arvados#user"],
        ["name", "exists", "x"],
        ["name", "contains", "x"],
        ["name.x", "=", "x"],
        ["properties", "contains", []],
        ["properties", "contains", 1],
        ["properties", "=", {"a": 1}],
        ["properties", "=", "{"],
        ["properties", "like", "x"],
        ["properties.x", "in", "x"],
        ["properties.x", "is_a", "x"],
        ["properties.x", "like", 1],
        ["properties.x", "exists", "x"],
        ["created_at", "=", "garbage"],
        ["created_at", "like", "2%"],
        ["version", "=", "x"],
        ["version", "in", ["1"]],
        ["is_trashed", "=", 1],
        ["is_trashed", "<", True],
        ["manifest_text", "=", "x"],
        ["links.name", "=", "x"],
        ["any", "ilike", "x"],
        ["(file_count < version)", "=", True],
        ["(version; drop)", "=", True],
        "name",
        {},
        7,
    ],
)
def test_a_malformed_filter_is_422(api: Direct, item: Any) -> None:
    api.refused(422, "GET", "collections", filters=[item])


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "abc"},
        {"limit": "1.5"},
        {"offset": "-1"},
        {"offset": "x"},
        {"count": "bogus"},
        {"select": "[]"},
        {"select": ["bogus"]},
        {"select": [1]},
        {"select": "name"},
        {"filters": "x"},
        {"filters": {"a": 1}},
        {"filters": "[["},
        {"order": [1]},
        {"order": {"a": 1}},
        {"order": "name sideways"},
        {"order": "users.name"},
        {"where": [1]},
        {"where": {"name": "x"}},
    ],
)
def test_a_malformed_parameter_is_422(api: Direct, query: dict[str, Any]) -> None:
    api.refused(422, "GET", "collections", **query)


def test_limits(stocked: Direct) -> None:
    for asked, effective in (("5000", 1000), ("-3", 100), ("", 100), ("0", 0), ("2", 2)):
        answer = stocked.ok("GET", "links", limit=asked)
        assert (answer["limit"], answer["items_available"]) == (effective, 4)
        assert len(answer["items"]) == min(effective, 4)
    assert len(stocked.ok("GET", "links", offset="3")["items"]) == 1
    assert "items_available" not in stocked.ok("GET", "links", count="none")


def test_order(stocked: Direct) -> None:
    def ordered(**query: Any) -> list[str]:
        return [
            item["name"] for item in stocked.ok("GET", "links", filters=[["link_class", "=", "tag"]], **query)["items"]
        ]

    assert ordered() == ["other:1", "app:2", "app:1"]  # newest first
    assert ordered(order=["name asc"]) == ordered(order="name,uuid desc") == ["app:1", "app:2", "other:1"]
    assert ordered(order=["links.name desc"]) == ["other:1", "app:2", "app:1"]
    assert ordered(order=["nosuch desc", "name"]) == ["app:1", "app:2", "other:1"]
    assert ordered(order="name", select=["name"]) == ["app:1", "app:2", "other:1"]


def test_what_is_not_selected_does_not_sort() -> None:
    """As on a real server: PostgreSQL cannot sort distinct rows by what they do not show."""
    assert _order(LINKS, ["name desc"], ["name"]) == "ORDER BY name desc"
    assert _order(LINKS, ["name desc"], ["link_class"]) == ""
    assert _order(LINKS, [], None) == "ORDER BY modified_at desc, uuid desc"


def test_select_and_distinct(stocked: Direct) -> None:
    answer = stocked.ok("GET", "links", select=["link_class"], distinct=True, order="link_class")
    assert answer["items"] == [
        {"kind": "arvados#link", "etag": "", "link_class": "empty"},
        {"kind": "arvados#link", "etag": "", "link_class": "tag"},
    ]
    [item] = stocked.ok("GET", "links", select=["etag", "head_kind"], limit="1")["items"]
    assert set(item) == {"kind", "etag", "head_kind"}
    assert item["etag"]


def test_a_list_of_ten_thousand_is_one_filter(stocked: Direct) -> None:
    wanted = [f"x{number}" for number in range(10_000)] + ["app:1"]
    answer = stocked("POST", "links", {"filters": [["name", "in", wanted]]}, _method="GET")
    assert [item["name"] for item in answer.body["items"]] == ["app:1"]  # type: ignore[union-attr, index, call-overload]


def test_paging_by_uuid_meets_every_row_once(api: Direct) -> None:
    created = {api.ok("POST", "links", {"name": str(number)})["uuid"] for number in range(25)}
    seen: list[str] = []
    last = ""
    while page := api.ok("GET", "links", filters=[["uuid", ">", last]], order="uuid", limit="7", count="none")["items"]:
        seen += [item["uuid"] for item in page]
        last = seen[-1]
    assert sorted(seen) == seen == sorted(created)


values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=6,
)
columns = st.sampled_from(
    ["name", "uuid", "properties", "properties.a", "version", "is_trashed", "trash_at", "any", "("]
)
operators = st.sampled_from(["=", "!=", "<", "in", "not in", "like", "is_a", "exists", "contains", "@@"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(st.one_of(st.tuples(columns, operators, values).map(list), values))
def test_no_filter_is_a_500(api: Direct, item: Any) -> None:
    assert api("GET", "collections", filters=[item]).status in (200, 422)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(
    st.sampled_from(["collections", "links", "groups"]),
    st.sampled_from(
        ["name", "properties", "trash_at", "manifest_text", "head_uuid", "owner_uuid", "is_trashed", "select"]
    ),
    values,
)
def test_no_attribute_is_a_500(api: Direct, resource: str, name: str, value: Any) -> None:
    body = {"group_class": "project", "name": "p"} if resource == "groups" else {}
    assert api("POST", resource, body | {name: value}).status in (200, 403, 422)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(
    st.sampled_from(["limit", "offset", "order", "select", "count", "where", "distinct", "filters", "_method"]), values
)
def test_no_parameter_is_a_500(api: Direct, name: str, value: Any) -> None:
    assert api("GET", "collections", **{name: value}).status in (200, 400, 422)
    assert api("POST", "collections", {name: value, "collection": {}}).status in (200, 400, 405, 422)

# SPDX-License-Identifier: Apache-2.0
"""The clients' order of links, and the server's."""

from __future__ import annotations

import datetime
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arv_docker.arvados.catalog.link_classes import REPO_TAG
from arv_docker.arvados.catalog.ranking import server_key, server_order, sort_key
from arv_docker.arvados.client import Link


def link(made: Any = None, linked: Any = "2024-01-01T00:00:00Z", head: str = "head", uuid: str = "uuid") -> Link:
    properties = {} if made is None else {"image_timestamp": made}
    return Link.of(
        {"uuid": uuid, "head_uuid": head, "properties": properties, "created_at": linked, "link_class": REPO_TAG}
    )


# -- the clients' order -----------------------------------------------------------------

#: (image_timestamp, created_at), the preferred first.
ORDER: list[tuple[Any, Any]] = [
    ("2024-06-01T00:00:00Z", "2024-01-01T00:00:00Z"),
    ("2024-05-01T00:00:00-05:00", "2024-01-01T00:00:00Z"),
    ("2024-05-01T00:00:00Z", "2024-01-03T00:00:00Z"),
    ("2024-05-01T00:00:00Z", "2024-01-02T00:00:00Z"),
    ("2024-05-01T00:00:00+05:00", "2024-01-01T00:00:00Z"),
    ("2024-04-30T18:59:59Z", "2025-01-01T00:00:00Z"),
    ("1970-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
    ("1960-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
    ("0001-01-01T00:00:00.000001Z", "2024-01-01T00:00:00Z"),
    (None, "2024-02-01T00:00:00Z"),
    ("yesterday", "2024-01-01T00:00:00Z"),
    (None, None),
]


@pytest.mark.conforms("K16")
def test_the_order_of_links() -> None:
    links = [link(made, linked) for made, linked in ORDER]
    links.reverse()
    assert sorted(links, key=sort_key) == links


@pytest.mark.conforms("K16")
@pytest.mark.parametrize("value", [None, "", 0, 1, 1.5, True, [], {}, "garbage", "\ud800", "0000-01-01T00:00:00Z"])
def test_what_is_no_time_ranks_below_every_time(value: Any) -> None:
    assert sort_key(link(value)) < sort_key(link("0001-01-01T00:00:00.1Z"))
    assert sort_key(link(value)) == sort_key(link())


def test_the_first_hours_of_the_first_year_do_not_rank_below_no_time() -> None:
    assert sort_key(link("0001-01-01T00:00:00+05:00")) >= sort_key(link())


_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=5,
)
_times = st.one_of(
    _json, st.datetimes(timezones=st.just(datetime.timezone.utc)).map(lambda time: time.isoformat()), st.just("")
)
_records = st.fixed_dictionaries(
    {},
    optional={
        "properties": st.one_of(_json, st.fixed_dictionaries({"image_timestamp": _times})),
        "created_at": st.one_of(st.none(), st.text(), _times.filter(lambda value: isinstance(value, str))),
        "head_uuid": st.sampled_from(["one", "two", None]),
        "uuid": st.text(max_size=3),
    },
)


@pytest.mark.conforms("K16")
@given(st.lists(_records, max_size=5))
def test_no_record_can_stop_a_ranking(records: list[dict[str, Any]]) -> None:
    links = [Link.of(record) for record in records]
    ranked = list(map(sort_key, sorted(links, key=sort_key)))
    assert all(one <= two for one, two in itertools.pairwise(ranked))
    ordered = server_order(links)
    assert len(ordered) == len({it.head_uuid for it in links})


@pytest.mark.conforms("K16")
@given(st.tuples(_records, _records, _records))
def test_the_order_is_total(records: tuple[dict[str, Any], ...]) -> None:
    one, two, three = (sort_key(Link.of(record)) for record in records)
    assert (one < two) + (one == two) + (one > two) == 1
    if one <= two <= three:
        assert one <= three


# -- the server's order -----------------------------------------------------------------


@pytest.mark.conforms("K17")
@pytest.mark.parametrize(
    ("text", "epoch"),
    [
        (None, 0),
        ("", 0),
        ("garbage", 0),
        (7, 0),
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01.999999Z", 1),
        ("2024-01-01T00:00:00.999999999Z", 1704067200),
        ("2024-01-01T05:00:00+05:00", 1704067200),
        ("9999-12-31T23:59:59.999999Z", 253402300799),
        ("1969-12-31T23:59:59Z", -1),
        ("1969-12-31T23:59:59.5Z", -1),  # Ruby's Time#to_i rounds down
        ("0001-01-01T00:00:00Z", -62135596800),
    ],
)
def test_the_server_counts_whole_seconds(text: Any, epoch: int) -> None:
    assert server_key(link(text, "1970-01-01T00:00:00Z")) == (-epoch, 0)
    if isinstance(text, str):
        assert server_key(link(None, text)) == (0, -epoch)


@pytest.mark.conforms("K17")
def test_the_server_s_order() -> None:
    """An image without a time comes after those with one, and before those of a time before 1970."""
    made = ["2024-01-02T00:00:00Z", "2024-01-01T00:00:00Z", None, "1969-01-01T00:00:00Z", "0001-01-01T00:00:00Z"]
    links = [link(time, head=str(number)) for number, time in enumerate(made)]
    assert server_order(reversed(links)) == links


def test_between_equal_times_the_later_link_counts() -> None:
    early = link("2024-01-01T00:00:00.9Z", "2024-02-01T00:00:00Z", head="one")
    late = link("2024-01-01T00:00:00.1Z", "2024-02-02T00:00:00Z", head="two")
    assert server_order([early, late]) == [late, early]


@pytest.mark.conforms("K17")
def test_several_links_to_one_collection_count_as_its_oldest() -> None:
    old = link("2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z", head="one", uuid="a")
    new = link("2024-09-01T00:00:00Z", "2024-02-03T00:00:00Z", head="one", uuid="b")
    other = link("2024-05-01T00:00:00Z", "2024-02-02T00:00:00Z", head="two", uuid="c")
    assert server_order([new, other, old]) == [other, old]

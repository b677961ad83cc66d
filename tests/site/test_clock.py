# SPDX-License-Identifier: Apache-2.0
"""Times on the wire and in the database."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arv_docker.site.store import clock

moments = st.datetimes(timezones=st.just(timezone.utc))


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("2026-11-20T23:00:55.660634000Z", "2026-11-20T23:00:55.660634000Z"),
        ("2026-11-20T23:00:55.660634867Z", "2026-11-20T23:00:55.660634000Z"),
        ("2026-11-20T23:00:55Z", "2026-11-20T23:00:55.000000000Z"),
        ("2026-11-20T23:00:55+02:00", "2026-11-20T21:00:55.000000000Z"),
        ("2026-11-20 23:00:55", "2026-11-20T23:00:55.000000000Z"),
        ("2026-11-20", "2026-11-20T00:00:00.000000000Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000000Z"),
    ],
)
def test_any_form_becomes_the_form_of_the_wire(text: str, canonical: str) -> None:
    assert clock.canonical(text) == canonical


@pytest.mark.parametrize("text", ["", "garbage", "2026-13-01", "0001-01-01T00:00:00+10:00", "12"])
def test_what_is_no_time_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        clock.canonical(text)


@given(moments)
def test_a_time_survives_the_wire(moment: datetime) -> None:
    assert clock.moment_of(clock.text_of(moment)) == moment


@given(moments, moments)
def test_texts_sort_as_times_do(one: datetime, other: datetime) -> None:
    assert (clock.text_of(one) < clock.text_of(other)) == (one < other)

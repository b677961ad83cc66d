# SPDX-License-Identifier: Apache-2.0
"""Tests on JSON columns and patterns."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arv_docker.site.store import properties

COLUMN = json.dumps({"s": "Text_1", "n": 2, "list": ["a", "b"], "null": None, "yes": True, "a.b": "dots"})


@pytest.mark.parametrize(
    ("key", "op", "operand", "expected"),
    [
        ("s", "=", "Text_1", True),
        ("s", "=", "text_1", False),
        ("n", "=", 2, True),
        ("n", "=", "2", False),
        ("yes", "=", True, True),
        ("yes", "=", 1, False),
        ("nope", "=", None, False),
        ("null", "=", None, True),
        ("a.b", "=", "dots", True),
        ("s", "!=", "other", True),
        ("nope", "!=", "other", True),
        ("s", "!=", "Text_1", False),
        ("n", "<", 3, True),
        ("n", "<", "3", False),
        ("s", ">", "Text_0", True),
        ("s", "like", "Text%", True),
        ("s", "like", "text%", False),
        ("s", "ilike", "text%", True),
        ("n", "like", "%", False),
        ("s", "in", ["Text_1", "b"], True),
        ("s", "in", [], False),
        ("s", "not in", ["b"], True),
        ("nope", "not in", ["b"], True),
        ("s", "not in", ["Text_1"], False),
        ("s", "exists", True, True),
        ("null", "exists", True, True),
        ("nope", "exists", True, False),
        ("nope", "exists", False, True),
        ("list", "contains", "a", True),
        ("list", "contains", "c", False),
        ("s", "contains", "Text_1", True),
    ],
)
def test_a_property_passes_or_not(key: str, op: str, operand: object, expected: bool) -> None:
    assert properties.test(COLUMN, key, op, json.dumps(operand)) is expected


@pytest.mark.parametrize(
    ("text", "pattern", "expected"),
    [
        ("abc", "a%", True),
        ("abc", "a_c", True),
        ("abc", "A%", False),
        ("a_b", r"a\_b", True),
        ("axb", r"a\_b", False),
        ("a%b", r"a\%b", True),
        ("line\nend", "line%end", True),
        ("a.c", "abc", False),
        ("abc", "", False),
        ("", "%", True),
    ],
)
def test_patterns_are_those_of_postgresql(text: str, pattern: str, expected: bool) -> None:
    assert properties.like(text, pattern, False) is expected


@given(st.text(max_size=20))
def test_an_escaped_text_matches_itself_alone(text: str) -> None:
    pattern = text.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
    assert properties.like(text, pattern, False)
    assert not properties.like(text + "x", pattern, False)


def test_keys_of_objects_and_elements_of_arrays() -> None:
    assert properties.has_keys('{"a":1,"b":2}', '["a","b"]')
    assert not properties.has_keys('{"a":1}', '["a","b"]')
    assert properties.has_keys('["default","hot"]', '["hot"]')
    assert not properties.has_keys(None, '["a"]')

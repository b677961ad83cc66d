# SPDX-License-Identifier: Apache-2.0
"""Tests on JSON columns and patterns."""

from __future__ import annotations

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arv_docker.site.store import patterns, properties


def never() -> None:
    """Gives up never."""


def like(text: str, pattern: str, ignore_case: bool = False) -> bool:
    return patterns.compile_pattern(pattern, ignore_case).matches(text, never)


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
    assert properties.test(COLUMN, key, op, json.dumps(operand), never) is expected


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
    assert like(text, pattern) is expected


@given(st.text(max_size=20))
def test_an_escaped_text_matches_itself_alone(text: str) -> None:
    pattern = text.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
    assert like(text, pattern)
    assert not like(text + "x", pattern)


def test_keys_of_objects_and_elements_of_arrays() -> None:
    assert properties.has_keys('{"a":1,"b":2}', '["a","b"]')
    assert not properties.has_keys('{"a":1}', '["a","b"]')
    assert properties.has_keys('["default","hot"]', '["hot"]')
    assert not properties.has_keys(None, '["a"]')


@given(st.text(alphabet="aAb%_", max_size=12), st.text(alphabet="aAb", max_size=8), st.booleans())
def test_a_pattern_matches_what_a_search_for_every_share_finds(pattern: str, text: str, ignore_case: bool) -> None:
    expression = "".join({"%": ".*", "_": "."}.get(character, character) for character in pattern)
    expected = re.fullmatch(expression, text, re.IGNORECASE if ignore_case else 0) is not None
    assert like(text, pattern, ignore_case) is expected


@pytest.mark.parametrize(
    "pattern", ["%a" * 500 + "%b", "%_" * 500 + "b", "a_" * 400 + "%a_" * 50 + "b", "%" * 1000 + "b"]
)
def test_no_pattern_takes_longer_than_its_text_is_long(pattern: str) -> None:
    began = time.monotonic()
    assert not like("a" * 200_000, pattern)
    assert time.monotonic() - began < 20


def test_a_long_match_is_given_up_when_its_time_has_passed() -> None:
    asked = []

    def check() -> None:
        asked.append(1)
        if len(asked) == 3:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        patterns.compile_pattern("%b%", False).matches("a" * 1_000_000, check)

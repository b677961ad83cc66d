# SPDX-License-Identifier: Apache-2.0
"""Tests on JSON columns, as SQL functions: ``properties.KEY`` filters, key presence, equality.

Types count: 2 is not "2" (docs/spec/arvados-api.md#filters). A key that is missing matches nothing,
except where ``exists`` asks for its absence. Pure functions; they run inside SQLite.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable
from functools import lru_cache

from ..refusal import Json
from .patterns import Check, compile_pattern

_ORDERED: dict[str, Callable[[str | float, str | float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def test(column: str | None, key: str, op: str, operand: str, check: Check) -> bool:
    """Say if the value under ``key`` of the JSON object ``column`` passes ``op`` with the JSON ``operand``.

    ``check`` is called now and then while a long text is matched.
    """
    held = _load_json(column)
    wanted = _load_json(operand)
    present = isinstance(held, dict) and key in held
    if op == "exists":
        return present is wanted
    if op == "!=":
        return not (present and isinstance(held, dict) and same_value(held[key], wanted))
    if op == "not in":
        return not (present and isinstance(held, dict) and _among(held[key], wanted))
    if not isinstance(held, dict) or not present:
        return False
    return _passes(held[key], op, wanted, check)


def has_keys(column: str | None, keys: str) -> bool:
    """Say if every one of the JSON array ``keys`` is a key of the object, or an element of the array, ``column``."""
    held, wanted = _load_json(column), _load_json(keys)
    if not isinstance(held, (dict, list)) or not isinstance(wanted, list):
        return False
    return all(any(same_value(key, item) for item in held) for key in wanted)


def same_json(column: str | None, operand: str) -> bool:
    """Say if two JSON texts mean the same value."""
    return same_value(_load_json(column), _load_json(operand))


def same_value(left: Json, right: Json) -> bool:
    """Say if two JSON values are equal: as Python's, but true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_value(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(same_value(a, b) for a, b in zip(left, right, strict=True))
    return left == right


def _passes(value: Json, op: str, wanted: Json, check: Check) -> bool:
    if op == "=":
        return same_value(value, wanted)
    if op == "in":
        return _among(value, wanted)
    if op == "contains":
        return same_value(value, wanted) or (
            isinstance(value, list) and any(same_value(item, wanted) for item in value)
        )
    if op in ("like", "ilike"):
        return (
            isinstance(value, str)
            and isinstance(wanted, str)
            and compile_pattern(wanted, op == "ilike").matches(value, check)
        )
    return _compare(value, op, wanted)


def _among(value: Json, wanted: Json) -> bool:
    return isinstance(wanted, list) and any(same_value(value, item) for item in wanted)


def _compare(value: Json, op: str, wanted: Json) -> bool:
    """Say if a comparison holds: between two texts or two numbers, never across."""
    compare = _ORDERED[op]
    if isinstance(value, bool) or isinstance(wanted, bool):
        return False
    if isinstance(value, str) and isinstance(wanted, str):
        return compare(value, wanted)
    if isinstance(value, (int, float)) and isinstance(wanted, (int, float)):
        return compare(value, wanted)
    return False


#: Characters of a JSON text whose value is remembered for the next row or filter: longer ones take megabytes each.
_MAX_CACHED = 1 << 14


def _load_json(text: str | None) -> Json:
    if text is None:
        return None
    return _cached_json(text) if len(text) <= _MAX_CACHED else _parse_json(text)


def _parse_json(text: str) -> Json:
    value: Json = json.loads(text)
    return value


_cached_json = lru_cache(maxsize=256)(_parse_json)

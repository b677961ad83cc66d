# SPDX-License-Identifier: Apache-2.0
"""Parameters of a request: query, form and JSON body, merged and typed.

The rules are those of docs/spec/arvados-api.md#requests and docs/spec/arvados-api.md#request-size.
Where a real server answers 500 to a parameter of the wrong type, this one answers 422, because clients retry a 500.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import NoReturn
from urllib.parse import parse_qsl

from ..refusal import Json, Record, Refusal, invalid

#: Page size where none is asked for, and the largest there is.
DEFAULT_LIMIT = 100
MAX_LIMIT = 1000

#: SQLite's and PostgreSQL's integers both end here.
MAX_INTEGER = (1 << 63) - 1

#: Levels of arrays and objects in one JSON text; Ruby's parser stops at 100 too.
MAX_DEPTH = 100

#: Values in one JSON text: lists of UUIDs have tens of thousands.
MAX_VALUES = 1_000_000

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Parameters:
    """The merged parameters of a request, before types are checked."""

    values: Record = field(default_factory=dict)
    #: The JSON body, if there was one: its keys may be the attributes of a record.
    body: Record | None = None

    def text(self, name: str) -> str | None:
        """The parameter as a text, or None where it is absent, empty or null."""
        value = self.values.get(name)
        if value in (None, ""):
            return None
        return value if isinstance(value, str) else _refuse(name, "a string")

    def flag(self, name: str) -> bool:
        """The parameter as a boolean: absent, null, "", "false", "0", 0 and false are false, anything else is true."""
        return self.values.get(name) not in (None, "", "false", "0", 0, False)

    def integer(self, name: str, default: int) -> int:
        """The parameter as a whole number, also as a decimal text; ``default`` where it is absent, empty or null."""
        value = self.values.get(name)
        if value in (None, ""):
            return default
        if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,18}", value, re.ASCII):
            return int(value)
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_INTEGER:
            return value
        return _refuse(name, "an integer")

    def limit(self) -> int:
        """The page size: 100 where none or a negative one is given, 1,000 at most (docs/spec/arvados-api.md#lists)."""
        asked = self.integer("limit", DEFAULT_LIMIT)
        return min(asked, MAX_LIMIT) if asked >= 0 else DEFAULT_LIMIT

    def offset(self) -> int:
        """The number of rows to skip."""
        asked = self.integer("offset", 0)
        if asked < 0:
            raise invalid("offset must not be negative")
        return asked

    def array(self, name: str) -> list[Json] | None:
        """The parameter as an array, also as JSON text; None where it is absent, empty or null."""
        value = _decode_value(name, self.values.get(name))
        if value is None:
            return None
        return value if isinstance(value, list) else _refuse(name, "an array")

    def mapping(self, name: str) -> Record | None:
        """The parameter as an object, also as JSON text; None where it is absent, empty or null."""
        value = _decode_value(name, self.values.get(name))
        if value is None:
            return None
        return value if isinstance(value, dict) else _refuse(name, "an object")

    def texts(self, name: str) -> list[str] | None:
        """The parameter as an array of texts; None where it is absent."""
        value = self.array(name)
        if value is None:
            return None
        return [item if isinstance(item, str) else _refuse(name, "an array of strings") for item in value]

    def order(self) -> list[str]:
        """The terms of ``order``: an array, or one text with commas."""
        value = self.values.get("order")
        if isinstance(value, str) and not value.lstrip().startswith("["):
            return [term for term in value.split(",") if term.strip()]
        return self.texts("order") or []

    def attributes(self, singular: str) -> Record:
        """The attributes of a record: the parameter of its name, else every key of the JSON body."""
        if singular in self.values:
            return self.mapping(singular) or {}
        return dict(self.body) if self.body is not None else {}


def parameters_of(query: str) -> Parameters:
    """The parameters of a query string alone; raises Refusal 400."""
    return Parameters(_pairs(query))


def merge_parameters(query: str, content_type: str, body: bytes) -> Parameters:
    """The parameters of a request with this query string and body; raises Refusal 400 for malformed JSON.

    A body of any other type than JSON and form is ignored, as a real server does.
    """
    values = _pairs(query)
    kind = content_type.split(";", maxsplit=1)[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        return Parameters(values | _pairs(body.decode("utf-8", "replace")))
    if kind not in ("", "application/json") or not body.strip():
        return Parameters(values)
    parsed = json_of(body.decode("utf-8", "replace"))
    if not isinstance(parsed, dict):
        raise Refusal(400, "the body must be a JSON object")
    return Parameters(values | parsed, parsed)


def json_of(text: str) -> Json:
    """The value of a JSON text; raises Refusal 400.

    Lone surrogates become U+FFFD, as in Go's decoder (docs/spec/arvados-collections.md#manifest-grammar);
    numbers that are no finite ones and nesting deeper than MAX_DEPTH are refused.
    """
    if _count_values(text) > MAX_VALUES:
        raise Refusal(400, f"the JSON holds more than {MAX_VALUES} values")
    try:
        value: Json = json.loads(text, parse_constant=_no_constant, parse_float=_finite_number)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the JSON cannot be read: {error}") from error
    return _clean_value(value, MAX_DEPTH)


def _count_values(text: str) -> int:
    """The number of values in a JSON text, about and at most: each of them takes a hundred bytes of memory, or more."""
    count = sum(map(text.count, ",[{:"))
    if count <= MAX_VALUES:
        return count
    bare = text.replace(r"\\", "").replace(r"\"", "")
    quotes = bare.count('"')
    if quotes > 4 * MAX_VALUES:  # a key and a value have two each
        return quotes
    return sum(sum(map(piece.count, ",[{:")) for piece in bare.split('"')[::2])


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite_number(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{digits} is out of range")
    return value


def _clean_value(value: Json, depth: int) -> Json:
    if depth == 0:
        raise Refusal(400, f"the JSON is nested deeper than {MAX_DEPTH}")
    if isinstance(value, str):
        return _LONE_SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_clean_value(item, depth - 1) for item in value]
    if isinstance(value, dict):
        return {_LONE_SURROGATE.sub("\ufffd", key): _clean_value(item, depth - 1) for key, item in value.items()}
    return value


def _pairs(text: str) -> Record:
    try:
        return dict(parse_qsl(text, keep_blank_values=True, errors="replace", max_num_fields=1000))
    except ValueError as error:
        raise Refusal(400, f"the parameters cannot be read: {error}") from error


def _decode_value(name: str, value: Json) -> Json:
    if not isinstance(value, str):
        return value
    if value in ("", "null"):
        return None
    try:
        return json_of(value)
    except Refusal as error:
        raise invalid(f"{name}: {error.message}") from error


def _refuse(name: str, expected: str) -> NoReturn:
    raise invalid(f"{name} must be {expected}")

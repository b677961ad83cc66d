# SPDX-License-Identifier: Apache-2.0
"""The attributes of a create or update request, checked against the columns of their resource. Pure.

Unknown names and values of the wrong type are a 422; attributes that belong to the server
are dropped in silence, because clients send whole records back (docs/spec/arvados-api.md#requests).
"""

from __future__ import annotations

from collections.abc import Callable

from ..refusal import Json, Record, Refusal, invalid
from ..store import clock
from ..store.resources import IGNORED, Column, Kind, Resource
from .parameters import MAX_INTEGER, json_of

MAX_NAME = 255
MAX_DESCRIPTION = 524288

#: Columns of other strings; PostgreSQL holds 255 characters in most of them.
_LENGTHS = {
    "description": MAX_DESCRIPTION,
    "file_names": 0,
    "manifest_text": 128 << 20,
    "definition": 16 << 20,
    "filters": MAX_DESCRIPTION,
}


def typed_attributes(resource: Resource, attributes: Record) -> Record:
    """The attributes that a client may set, each in the type of its column."""
    found: Record = {}
    for name, value in attributes.items():
        if name in IGNORED or name in resource.dropped:
            continue
        if name not in resource.selectable:
            raise invalid(f"unknown attribute '{name}' for {resource.class_name}")
        found[name] = _typed_value(resource.columns[name], value)
    return found


def _typed_value(column: Column, value: Json) -> Json:
    if value is None:
        return None
    if column.kind is Kind.DATETIME:
        return _moment(value)
    if column.kind is Kind.BOOLEAN:
        return value not in ("", "false", "0", 0, False)
    return _CHECKS.get(column.kind, _structure)(column, value)


def _text(column: Column, value: Json) -> str:
    if not isinstance(value, str):
        raise invalid(f"{column.name} must be a string")
    if "\0" in value:
        raise invalid(f"{column.name} must not contain a NUL character")
    if len(value) > _LENGTHS.get(column.name, MAX_NAME):
        raise invalid(f"{column.name} is too long: {len(value)} characters")
    return value


def _moment(value: Json) -> str | None:
    """The time that a value names; what cannot be read counts as none, as on a real server
    (docs/spec/arvados-collections.md#trash)."""
    if not isinstance(value, str):
        return None
    try:
        return clock.canonical(value)
    except ValueError:
        return None


def _integer(column: Column, value: Json) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_INTEGER:
        return value
    raise invalid(f"{column.name} must be an integer")


def _number(column: Column, value: Json) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MAX_INTEGER:
        return float(value)
    raise invalid(f"{column.name} must be a number")


def _structure(column: Column, value: Json) -> Json:
    wanted = dict if column.kind is Kind.HASH else list
    if isinstance(value, str):
        try:
            value = json_of(value)
        except Refusal as error:
            raise invalid(f"{column.name}: {error.message}") from error
    if not isinstance(value, wanted):
        raise invalid(f"{column.name} must be {'an object' if wanted is dict else 'an array'}")
    return value


_CHECKS: dict[Kind, Callable[[Column, Json], Json]] = {
    Kind.STRING: _text,
    Kind.TEXT: _text,
    Kind.INTEGER: _integer,
    Kind.FLOAT: _number,
}

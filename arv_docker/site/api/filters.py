# SPDX-License-Identifier: Apache-2.0
"""Filters of list requests, as SQL conditions (docs/spec/arvados-api.md#filters).

A filter is ``[attribute, operator, operand]``; all of a request's filters must hold. Which
operators a column knows depends on its type. Anything malformed is a 422.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..refusal import Json, Refusal, invalid
from ..store import clock
from ..store.patterns import MAX_PATTERN
from ..store.resources import INFIXES, Column, Kind, Resource
from .parameters import MAX_INTEGER, json_of

#: A list of any length as one placeholder, a JSON array: SQLite has a limit on the number of placeholders.
LISTED = "(SELECT value FROM json_each(?))"


@dataclass(frozen=True, slots=True)
class Clause:
    """A condition in SQL with the values of its placeholders."""

    sql: str
    values: tuple[object, ...] = ()


def all_of(clauses: Iterable[Clause]) -> Clause:
    """The condition that all ``clauses`` hold."""
    return _join_clauses(list(clauses), "AND") or Clause("1")


def any_of(clauses: Iterable[Clause]) -> Clause:
    """The condition that any of ``clauses`` holds."""
    return _join_clauses(list(clauses), "OR") or Clause("0")


def _join_clauses(parts: Sequence[Clause], word: str) -> Clause | None:
    """The clauses joined by ``word``, in halves: SQLite takes a thousand of them in a row for too deep."""
    if len(parts) < 2:
        return parts[0] if parts else None
    middle = len(parts) // 2
    left, right = _join_clauses(parts[:middle], word), _join_clauses(parts[middle:], word)
    assert left is not None
    assert right is not None
    return Clause(f"({left.sql}) {word} ({right.sql})", left.values + right.values)


def clause_of(resource: Resource, item: Json) -> Clause:
    """The condition of a filter."""
    if not isinstance(item, list) or len(item) != 3:
        raise invalid("a filter must be an array of three elements: attribute, operator, operand")
    attribute, op, operand = item
    if not isinstance(attribute, str) or not isinstance(op, str):
        raise invalid("attribute and operator of a filter must be strings")
    op = op.lower()
    if op not in _OPERATORS:
        raise invalid(f"invalid operator '{op}'")
    name, _, key = attribute.removeprefix(resource.name + ".").partition(".")
    if name in ("head_kind", "tail_kind") and resource.name == "links" and op == "=":
        name, op = name.replace("kind", "uuid"), "is_a"
    column = resource.columns.get(name)
    if column is None or name == "manifest_text":
        raise invalid(f"invalid attribute '{attribute}' in filter")
    if key:
        return _on_property(column, key, op, operand)
    return _OPERATORS[op](column, op, operand)


# -- operators on plain columns ---------------------------------------------------------


def _equal(column: Column, op: str, operand: Json) -> Clause:
    negated = op == "!="
    if operand is None:
        return Clause(f"{column.name} IS {'NOT ' if negated else ''}NULL")
    if column.kind in (Kind.HASH, Kind.ARRAY):
        if negated or not isinstance(operand, str):
            raise invalid(f"invalid operand for '{op}' on '{column.name}': a JSON text is needed")
        return Clause(f"same_json({column.name}, ?)", (_json_text(column, operand),))
    value = _value(column, op, operand)
    if negated:
        return Clause(f"{column.name} IS NULL OR {column.name} != ?", (value,))
    return Clause(f"{column.name} = ?", (value,))


def _order_clause(column: Column, op: str, operand: Json) -> Clause:
    if column.kind in (Kind.HASH, Kind.ARRAY, Kind.BOOLEAN):
        raise _not_for(column, op)
    return Clause(f"{column.name} {op} ?", (_value(column, op, operand),))


def _pattern(column: Column, op: str, operand: Json) -> Clause:
    if column.kind not in (Kind.STRING, Kind.TEXT):
        raise _not_for(column, op)
    if not isinstance(operand, str):
        raise invalid(f"invalid operand for '{op}': a string is needed")
    _check_pattern(operand)
    return Clause(f"like_pattern({column.name}, ?, {int(op == 'ilike')})", (operand,))


def _check_pattern(pattern: str) -> None:
    if len(pattern) > MAX_PATTERN:
        raise invalid(f"a pattern has at most {MAX_PATTERN} characters, this one has {len(pattern)}")


def _member(column: Column, op: str, operand: Json) -> Clause:
    if column.kind in (Kind.HASH, Kind.ARRAY):
        raise _not_for(column, op)
    if not isinstance(operand, list):
        raise invalid(f"invalid operand for '{op}': an array is needed")
    if column.kind is Kind.INTEGER and not all(isinstance(item, int) or item is None for item in operand):
        raise invalid(f"invalid element for '{op}' on '{column.name}': an integer is needed")
    values = [_value(column, op, item) for item in operand if item is not None]
    listed = Clause(f"{column.name} IN {LISTED}", (json.dumps(values),))
    if op == "in":
        return listed
    if None in operand:
        return Clause("0")  # PostgreSQL: x NOT IN (…, NULL) is never true
    if not values:
        # What a real server does with an empty list (docs/spec/arvados-api.md#filters).
        return Clause(f"{column.name} IS NULL")
    return Clause(f"{column.name} IS NULL OR NOT {listed.sql}", listed.values)


def _is_a(column: Column, op: str, operand: Json) -> Clause:
    kinds = operand if isinstance(operand, list) else [operand]
    if not column.name.endswith("uuid"):
        raise _not_for(column, op)
    if not all(isinstance(kind, str) for kind in kinds):
        raise invalid(f"invalid operand for '{op}': a kind or an array of kinds is needed")
    infixes = {"arvados#" + name.lower(): infix for name, infix in INFIXES.items()}
    wanted = [infixes[kind.lower()] for kind in kinds if isinstance(kind, str) and kind.lower() in infixes]
    return Clause(
        f"length({column.name}) = 27 AND substr({column.name}, 7, 5) IN {LISTED}",
        (json.dumps(wanted),),
    )


def _exists(column: Column, op: str, operand: Json) -> Clause:
    if column.kind is not Kind.HASH:
        raise _not_for(column, op)
    return _has_keys(column, op, operand)


def _contains(column: Column, op: str, operand: Json) -> Clause:
    if column.kind not in (Kind.HASH, Kind.ARRAY):
        raise _not_for(column, op)
    return _has_keys(column, op, operand)


def _has_keys(column: Column, op: str, operand: Json) -> Clause:
    keys = operand if isinstance(operand, list) else [operand]
    if not keys or not all(isinstance(key, str) for key in keys):
        raise invalid(f"invalid operand for '{op}': a string or a non-empty array of strings is needed")
    return Clause(f"has_keys({column.name}, ?)", (json.dumps(keys),))


def _refuse_operator(column: Column, op: str, operand: Json) -> Clause:
    del operand
    raise _not_for(column, op)


_OPERATORS: dict[str, Callable[[Column, str, Json], Clause]] = {
    "=": _equal,
    "!=": _equal,
    "<": _order_clause,
    "<=": _order_clause,
    ">": _order_clause,
    ">=": _order_clause,
    "like": _pattern,
    "ilike": _pattern,
    "in": _member,
    "not in": _member,
    "is_a": _is_a,
    "exists": _exists,
    "contains": _contains,
    "@@": _refuse_operator,
}


# -- other attributes -------------------------------------------------------------------


def _on_property(column: Column, key: str, op: str, operand: Json) -> Clause:
    if column.kind is not Kind.HASH:
        raise invalid(f"invalid attribute '{column.name}.{key}' in filter")
    if key.startswith("<") and key.endswith(">"):
        key = key[1:-1]
    if op in ("is_a", "@@"):
        raise _not_for(column, op)
    if op in ("in", "not in") and not isinstance(operand, list):
        raise invalid(f"invalid operand for '{op}': an array is needed")
    if op in ("like", "ilike"):
        if not isinstance(operand, str):
            raise invalid(f"invalid operand for '{op}': a string is needed")
        _check_pattern(operand)
    if op == "exists" and not isinstance(operand, bool):
        raise invalid("invalid operand for 'exists': true or false is needed")
    return Clause(f"property_test({column.name}, ?, ?, ?)", (key, op, json.dumps(operand)))


# -- operands ---------------------------------------------------------------------------

_TRUE = frozenset({"1", "t", "true", "y", "yes"})
_FALSE = frozenset({"0", "f", "false", "n", "no"})


def _value(column: Column, op: str, operand: Json) -> str | float:
    """``operand`` in the form in which the column stores its values."""
    if column.kind is Kind.INTEGER:
        return _integer(column, op, operand)
    if column.kind is Kind.BOOLEAN:
        return _boolean(column, op, operand)
    if column.kind is Kind.FLOAT:
        return _number(column, op, operand)
    if not isinstance(operand, str):
        raise invalid(f"invalid operand for '{op}' on '{column.name}': a string is needed")
    if column.kind is not Kind.DATETIME:
        return operand
    try:
        return clock.canonical(operand)
    except ValueError as error:
        raise invalid(f"invalid operand for '{op}' on '{column.name}': no such time") from error


def _integer(column: Column, op: str, operand: Json) -> int:
    if isinstance(operand, str) and re.fullmatch(r"[+-]?\d{1,18}", operand, re.ASCII):
        return int(operand)
    if isinstance(operand, int) and not isinstance(operand, bool) and abs(operand) <= MAX_INTEGER:
        return operand
    raise invalid(f"invalid operand for '{op}' on '{column.name}': an integer is needed")


def _number(column: Column, op: str, operand: Json) -> float:
    if isinstance(operand, (int, float)) and not isinstance(operand, bool) and abs(operand) <= MAX_INTEGER:
        return float(operand)
    raise invalid(f"invalid operand for '{op}' on '{column.name}': a number is needed")


def _boolean(column: Column, op: str, operand: Json) -> int:
    if isinstance(operand, bool):
        return int(operand)
    if isinstance(operand, str) and operand.lower() in _TRUE | _FALSE:
        return int(operand.lower() in _TRUE)
    raise invalid(f"invalid operand for '{op}' on '{column.name}': true or false is needed")


def _json_text(column: Column, operand: str) -> str:
    try:
        json_of(operand)
    except Refusal as error:
        raise invalid(f"invalid operand for '=' on '{column.name}': a JSON text is needed") from error
    return operand


def _not_for(column: Column, op: str) -> Exception:
    return invalid(f"invalid operator '{op}' for '{column.name}'")

# SPDX-License-Identifier: Apache-2.0
"""List requests: filters, order, paging, counting, and which columns come back (docs/spec/arvados-api.md#lists)."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..refusal import Json, Record, invalid
from ..store.resources import Kind, Resource
from .filters import Clause, all_of, clause_of
from .parameters import Parameters

#: Characters of texts that one answer holds; always at least one row. Those of JSON count several times: what they
#: spell takes as much memory.
MAX_TEXT, JSON_WEIGHT = 128 << 20, 16

#: Filters of one request, and how many of them SQLite may look up in its indexes.
MAX_FILTERS, _SEPARATE = 1000, 50

#: Attributes that follow from what the caller may do with the record.
_RIGHTS = frozenset({"can_write", "can_manage", "writable_by"})

_LARGE = ("manifest_text", "unsigned_manifest_text")


@dataclass(frozen=True, slots=True)
class Page:
    """The answer to a list request; ``available`` is None without a requested count."""

    records: tuple[Record, ...]
    limit: int
    offset: int
    available: int | None


def selection(resource: Resource, parameters: Parameters) -> tuple[str, ...] | None:
    """The attributes that ``select`` names, None where there is no ``select``."""
    names = parameters.texts("select")
    if names is None:
        return None
    if not names:
        raise invalid("select must name at least one attribute")
    known = {*resource.selectable, "kind", "etag", *derived_attributes(resource)}
    for name in names:
        if name not in known:
            raise invalid(f"invalid attribute '{name}' of {resource.class_name} in select")
    return tuple(dict.fromkeys(names))


def derived_attributes(resource: Resource) -> frozenset[str]:
    """Attributes that an answer has and the database has not."""
    return frozenset(
        {
            "collections": {"unsigned_manifest_text"},
            "links": {"head_kind", "tail_kind"},
            "groups": {"can_write", "can_manage", "writable_by"},
            "users": {"can_write", "can_manage", "writable_by", "full_name"},
            "container_requests": {"runtime_token"},
        }.get(resource.name, set())
    )


def page(connection: sqlite3.Connection, resource: Resource, parameters: Parameters, allowed: Clause) -> Page:
    """The page that ``parameters`` ask for, of the rows that ``allowed`` lets through."""
    select = selection(resource, parameters)
    count = parameters.text("count") or "exact"
    if count not in ("exact", "none"):
        raise invalid("count must be 'exact' or 'none'")
    limit, offset = parameters.limit(), parameters.offset()
    condition = all_of([allowed, *_conditions(resource, parameters)])
    order = _order(resource, parameters.order(), select)
    if parameters.flag("distinct") and not order:
        order = "ORDER BY 1"  # what is selected sorts, so that pages fit together
    statement = " ".join(
        [
            f"SELECT {'DISTINCT ' if parameters.flag('distinct') else ''}{', '.join(stored_columns(resource, select))}",
            f"FROM {resource.name} WHERE {condition.sql}",
            order,
            "LIMIT ? OFFSET ?",
        ]
    )
    rows = connection.execute(statement, (*condition.values, limit, offset))
    records, cut = _bounded_page(resource, rows)
    available = _count(connection, resource, condition) if count == "exact" else None
    return Page(records, len(records) if cut else limit, offset, available)


def record_of(resource: Resource, row: sqlite3.Row) -> Record:
    """A row as attributes: objects, arrays and booleans are themselves again."""
    found: Record = {}
    for name in row.keys():  # noqa: SIM118 - iterating a Row gives values
        value = row[name]
        kind = resource.columns[name].kind
        if value is not None and kind in (Kind.HASH, Kind.ARRAY):
            value = json.loads(value)
        elif value is not None and kind is Kind.BOOLEAN:
            value = bool(value)
        found[name] = value
    return found


def stored_columns(resource: Resource, select: Sequence[str] | None) -> list[str]:
    """The columns of the database that an answer with these attributes is made from."""
    if select is None:
        return [name for name in resource.selectable if name not in _LARGE]
    sources = {"unsigned_manifest_text": "manifest_text", "head_kind": "head_uuid", "tail_kind": "tail_uuid"}
    wanted = [sources.get(name, name) for name in select]
    # A manifest text is signed only until its collection goes to the trash, by itself or with a project.
    extra: tuple[str, ...] = ("trash_at", "is_trashed", "owner_uuid") if "manifest_text" in wanted else ()
    if not _RIGHTS.isdisjoint(wanted):
        extra = ("uuid", "owner_uuid")
    names = [name for name in dict.fromkeys((*wanted, *extra)) if name in resource.columns]
    return names or ["uuid"]


def _conditions(resource: Resource, parameters: Parameters) -> Iterable[Clause]:
    filters = parameters.array("filters") or []
    if len(filters) > MAX_FILTERS:
        raise invalid(f"a request has at most {MAX_FILTERS} filters, this one has {len(filters)}: use 'in' with a list")
    clauses = [clause_of(resource, item) for item in filters]
    yield from clauses[:_SEPARATE]
    if len(clauses) > _SEPARATE:
        # SQLite takes apart what AND joins, and puts it together again in a row that has a bound too; + stops that.
        yield Clause(f"+({all_of(clauses[_SEPARATE:]).sql})", all_of(clauses[_SEPARATE:]).values)
    if parameters.mapping("where"):
        raise invalid("where is not part of the embedded site: use filters")


def _order(resource: Resource, terms: Sequence[str], select: Sequence[str] | None) -> str:
    """The ORDER BY clause: the given terms, completed by newest first; columns that are not selected do not sort."""
    columns: dict[str, str] = {}
    for term in [*terms, "modified_at desc", "uuid desc"]:
        name, direction = _order_term(resource, term)
        if name in resource.columns and name != "manifest_text":
            columns.setdefault(name, direction)
        if name == "uuid":
            break
    shown = [f"{name} {direction}" for name, direction in columns.items() if select is None or name in select]
    return f"ORDER BY {', '.join(shown)}" if shown else ""


def _order_term(resource: Resource, term: str) -> tuple[str, str]:
    match = re.fullmatch(r"\s*(?:(\w+)\.)?(\w+)(?:\s+(asc|desc))?\s*", term, re.ASCII | re.IGNORECASE)
    if not match or (match[1] and match[1] != resource.name):
        raise invalid(f"invalid order '{term}'")
    return match[2], (match[3] or "asc").lower()


def _bounded_page(resource: Resource, rows: Iterable[sqlite3.Row]) -> tuple[tuple[Record, ...], bool]:
    """The first records that fit into an answer, and if any were left out."""
    taken: list[Record] = []
    size = 0
    for row in rows:
        size += _weight(resource, row)
        if taken and size > MAX_TEXT:
            return tuple(taken), True
        taken.append(record_of(resource, row))
    return tuple(taken), False


def _weight(resource: Resource, row: sqlite3.Row) -> int:
    """The characters of a row's texts, those of JSON several times."""
    return sum(
        len(value) * (JSON_WEIGHT if resource.columns[name].kind in (Kind.HASH, Kind.ARRAY) else 1)
        for name, value in zip(row.keys(), row, strict=True)
        if isinstance(value, str)
    )


def _count(connection: sqlite3.Connection, resource: Resource, condition: Clause) -> int:
    found = connection.execute(
        f"SELECT count(*) FROM {resource.name} WHERE {condition.sql}",  # noqa: S608
        condition.values,
    )
    return int(found.fetchone()[0])


def envelope(resource: Resource, page_found: Page, items: Sequence[Json]) -> Record:
    """The JSON of a list answer; without a count there is no ``items_available`` at all."""
    answer: Record = {
        "kind": resource.kind + "List",
        "items": list(items),
        "offset": page_found.offset,
        "limit": page_found.limit,
    }
    if resource.direct:
        answer |= {"etag": "", "self_link": ""}
    if page_found.available is not None:
        answer["items_available"] = page_found.available
    return answer

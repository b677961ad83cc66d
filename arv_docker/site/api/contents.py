# SPDX-License-Identifier: Apache-2.0
"""``groups.contents`` and ``groups.shared``: what lies in a project or home, and what others share with the caller."""

from __future__ import annotations

import json
from collections.abc import Iterator

from ..refusal import Json, Record, invalid
from ..store.resources import (
    COLLECTIONS,
    CONTAINER_REQUESTS,
    CONTAINERS,
    GROUPS,
    SERVED,
    USERS,
    WORKFLOWS,
    Resource,
)
from .filters import LISTED, Clause, all_of, any_of
from .listing import Page, envelope, page, selection
from .parameters import MAX_LIMIT, Parameters
from .permissions import readable
from .records import Context, fetch_record
from .shapes import shape_record

#: The kinds that projects hold here, in the order in which they are listed.
_KINDS = (GROUPS, CONTAINER_REQUESTS, WORKFLOWS, COLLECTIONS)

#: A list of contents never has these attributes, selected or not (docs/spec/arvados-api.md#records).
_LEFT_OUT = frozenset({"manifest_text", "unsigned_manifest_text", "runtime_token"})

_BELOW = """
    owner_uuid IN (WITH RECURSIVE below(uuid) AS (
        SELECT ? UNION SELECT groups.uuid FROM groups JOIN below ON owner_uuid = below.uuid
    ) SELECT uuid FROM below)
"""


def contents(context: Context, parameters: Parameters) -> Record:
    """The objects in a project or home; without ``uuid`` all that is readable. Projects come first, as one list."""
    trash = parameters.flag("include_trash")
    scope = _scope(context, parameters, include_trash=trash)
    limit, offset = parameters.limit(), parameters.offset()
    items: list[Json] = []
    owners: set[str] = set()
    containers: set[str] = set()
    available = 0
    for resource in _wanted_kinds(parameters):
        room = limit - len(items)
        own = _own_parameters(resource, parameters, room, max(0, offset - available))
        allowed = [readable(resource, context.caller, include_trash=trash), scope]
        if parameters.flag("exclude_home_project"):
            allowed.append(_not_at_home(context))
        found = page(context.connection, resource, own, all_of(allowed))
        available += found.available or 0
        select = selection(resource, own)
        for record in found.records:
            item = shape_record(context, resource, record, select)
            if "mounts" in item:
                item["mounts"] = record["mounts"]  # as a request was sent, not in full
            left_out = _LEFT_OUT if select is None or "etag" in select else _LEFT_OUT | {"etag"}
            items.append({name: value for name, value in item.items() if name not in left_out})
            owners.add(str(record.get("owner_uuid")))
            containers.add(str(record.get("container_uuid")))
        if found.limit < room:  # what is left out comes first on the next page
            limit = len(items)
    counted = None if parameters.text("count") == "none" else available
    answer = envelope(GROUPS, Page((), limit, offset, counted), items)
    included = _included_owners(context, parameters, owners) + _included_containers(context, parameters, containers)
    return answer | {"kind": "arvados#objectList", "included": included}


def _wanted_kinds(parameters: Parameters) -> Iterator[Resource]:
    """The kinds of object that are listed. Requests and workflows lack attributes that projects and collections have:
    a filter on one of those leaves them out."""
    filters = [item for item in parameters.array("filters") or [] if isinstance(item, list) and len(item) == 3]
    for resource in _KINDS:
        if any(attribute == "uuid" and not _is_a(resource, op, kinds) for attribute, op, kinds in filters):
            continue
        names = {str(attribute).partition(".")[0] for attribute, _op, _operand in filters} - SERVED.keys()
        if resource in (GROUPS, COLLECTIONS) or names <= resource.columns.keys():
            yield resource


def _is_a(resource: Resource, op: Json, kinds: Json) -> bool:
    """Say if a filter on the UUID lets records of this resource through, as far as their kind goes."""
    wanted = kinds if isinstance(kinds, list) else [kinds]
    return op != "is_a" or resource.kind.lower() in [str(kind).lower() for kind in wanted]


def list_shared(context: Context, parameters: Parameters) -> Record:
    """The groups that are the caller's to see by permission, not by being in the caller's home or in another one."""
    allowed = all_of([readable(GROUPS, context.caller), _not_at_home(context)])
    found = page(context.connection, GROUPS, parameters, allowed)
    select = selection(GROUPS, parameters)
    items: list[Json] = [shape_record(context, GROUPS, record, select) for record in found.records]
    owners = {str(record.get("owner_uuid")) for record in found.records}
    return envelope(GROUPS, found, items) | {"included": _included_owners(context, parameters, owners)}


def _scope(context: Context, parameters: Parameters, *, include_trash: bool) -> Clause:
    """The condition on the owner of what is listed; raises Refusal 404 for a project or user out of sight."""
    uuid = parameters.text("uuid")
    if uuid is None:
        return Clause("1")
    resource = USERS if uuid[6:11] == USERS.infix else GROUPS
    fetch_record(context, resource, uuid, include_trash=include_trash)
    return Clause(_BELOW if parameters.flag("recursive") else "owner_uuid = ?", (uuid,))


def _not_at_home(context: Context) -> Clause:
    """The condition that the owner is another user, or no project that the caller can see."""
    seen = readable(GROUPS, context.caller)
    return any_of(
        [
            Clause(f"substr(owner_uuid, 7, 5) = '{USERS.infix}' AND owner_uuid != ?", (context.caller.user_uuid,)),
            Clause(
                f"substr(owner_uuid, 7, 5) = '{GROUPS.infix}' AND owner_uuid NOT IN "  # noqa: S608
                f"(SELECT uuid FROM groups WHERE group_class = 'project' AND ({seen.sql}))",
                seen.values,
            ),
        ]
    )


def _own_parameters(resource: Resource, parameters: Parameters, limit: int, offset: int) -> Parameters:
    """The parameters as far as they are about one of several kinds: other kinds' filters and orders fall away."""

    def concerns(attribute: Json) -> bool:
        prefix, dot, _ = str(attribute).strip().partition(".")
        return not dot or prefix == resource.name or prefix not in SERVED

    values: Record = parameters.values | {"limit": limit, "offset": offset, "count": "exact"}
    filters = parameters.array("filters") or []
    values["filters"] = [item for item in filters if not (isinstance(item, list) and item and not concerns(item[0]))]
    values["order"] = [term for term in parameters.order() if concerns(term)]
    select = parameters.texts("select")
    if select is not None:
        known = {"kind", "etag", "owner_uuid", *resource.selectable} - _LEFT_OUT
        if unknown := [name for name in select if not any(name in kind.columns for kind in (*_KINDS, CONTAINERS))]:
            raise invalid(f"invalid attribute '{unknown[0]}' in select")
        values["select"] = ["uuid", *(name for name in select if name in known)]
    return Parameters(values)


def _included_owners(context: Context, parameters: Parameters, owners: set[str]) -> list[Json]:
    """The owners of what is listed, as far as they are asked for and readable."""
    if "owner_uuid" not in _include(parameters):
        return []
    listed = Clause(f"uuid IN {LISTED}", (json.dumps(sorted(owners)),))
    found: list[Json] = []
    for resource in (USERS, GROUPS):
        allowed = all_of([listed, readable(resource, context.caller)])
        everything = Parameters({"limit": 1000, "count": "none"})
        rows = page(context.connection, resource, everything, allowed)
        found += [shape_record(context, resource, record, None) for record in rows.records]
    return found


def _included_containers(context: Context, parameters: Parameters, containers: set[str]) -> list[Json]:
    """The containers of the requests that are listed, as far as they are asked for and readable."""
    if "container_uuid" not in _include(parameters):
        return []
    select = parameters.texts("select")
    values: Record = {"limit": MAX_LIMIT, "count": "none", "order": ["created_at", "uuid"]}
    if select is not None:
        values["select"] = ["uuid", "created_at", *(name for name in select if name in CONTAINERS.columns)]
    own = Parameters(values)
    listed = Clause(f"uuid IN {LISTED}", (json.dumps(sorted(containers)),))
    rows = page(context.connection, CONTAINERS, own, all_of([listed, readable(CONTAINERS, context.caller)]))
    chosen = None if select is None else ["uuid", *(name for name in select if name in CONTAINERS.columns)]
    return [shape_record(context, CONTAINERS, record, chosen) for record in rows.records]


def _include(parameters: Parameters) -> list[str]:
    """The attributes whose objects are asked for beside the list; raises Refusal 422 for others."""
    wanted = parameters.values.get("include")
    listed = isinstance(wanted, list) or (isinstance(wanted, str) and wanted.startswith("["))
    names = (parameters.texts("include") or []) if listed else [wanted] if wanted not in (None, "") else []
    if any(name not in ("owner_uuid", "container_uuid") for name in names):
        raise invalid("include must be 'owner_uuid' or 'container_uuid'")
    return [str(name) for name in names]

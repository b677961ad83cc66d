# SPDX-License-Identifier: Apache-2.0
"""Creation, change and removal of records: the rules that all kinds share (docs/spec/arvados-api.md#records).

What a kind adds of its own is in ``collections`` and ``links``; both are called here with
the record before and after.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from ..refusal import Record, Refusal, invalid
from ..store import clock
from ..store.database import encode_value, insertion
from ..store.resources import (
    COLLECTIONS,
    CONTAINER_REQUESTS,
    CONTAINERS,
    GROUPS,
    LINKS,
    SERVED,
    USERS,
    WORKFLOWS,
    Resource,
)
from ..store.settings import Settings
from ..store.vocabulary import Vocabulary
from .attributes import typed_attributes
from .filters import Clause, all_of
from .listing import record_of
from .manifests import Manifest
from .permissions import MANAGE, WRITE, Caller, level_on, readable

#: How often a name with a suffix is tried where ``ensure_unique_name`` is asked for.
UNIQUE_NAME_TRIES = 3


@dataclass(frozen=True, slots=True)
class Context:
    """The context of a rule, all that it may look at: the transaction, who asks, the site, and one time for the whole
    request."""

    connection: sqlite3.Connection
    caller: Caller
    settings: Settings
    vocabulary: Vocabulary
    now: datetime
    #: The manifest text that the request gives, read before the transaction, or why it is refused.
    manifest: Manifest | Refusal | None = None

    @property
    def stamp(self) -> str:
        """The time of the request as records hold it."""
        return clock.text_of(self.now)


#: Checks a record that is about to be written, and fills in what follows from it. The first
#: record is the one before the change, None for a new one. What a rule returns is changed in place of a
#: new record: a permission that is given twice stays one link.
Rule = Callable[[Context, "Record | None", Record], "Record | None"]


#: Kinds of record that others name by UUID.
_NAMED = (COLLECTIONS, LINKS, GROUPS, USERS, WORKFLOWS, CONTAINER_REQUESTS, CONTAINERS)

#: A portable data hash; hints may follow.
_HASH = re.compile(r"[0-9a-f]{32}\+\d+(?=\+|$)", re.ASCII)


def fetch_record(context: Context, resource: Resource, uuid: str, *, include_trash: bool = False) -> Record:
    """The readable record of that UUID, with all its columns; raises Refusal 404."""
    allowed = all_of([Clause("uuid = ?", (uuid,)), readable(resource, context.caller, include_trash=include_trash)])
    row = context.connection.execute(
        f"SELECT * FROM {resource.name} WHERE {allowed.sql}",  # noqa: S608
        allowed.values,
    ).fetchone()
    if row is None:
        raise Refusal(404, "Path not found")
    return record_of(resource, row)


def create(context: Context, resource: Resource, attributes: Record, rule: Rule, *, unique_name: bool) -> Record:
    """Write a new record, and return it as stored."""
    _require_active(context)
    given = typed_attributes(resource, attributes)
    if given.pop("uuid", None):
        raise invalid("uuid assignment not permitted")
    record: Record = dict.fromkeys(resource.columns) | _defaults(context, resource) | given
    record["uuid"] = context.settings.new_uuid(resource.infix)
    _check_common(context, None, record)
    if existing := rule(context, None, record):
        return replace(context, resource, existing, existing | {"name": record["name"]})
    return _insert_record(context, resource, record, unique_name=unique_name)


def update(context: Context, resource: Resource, old: Record, attributes: Record, rule: Rule) -> Record:
    """Change the record ``old``, and return it as stored. Without a difference nothing is written."""
    require_write(context, resource, old)
    given = typed_attributes(resource, attributes)
    if given.get("uuid", old["uuid"]) != old["uuid"]:
        raise invalid("uuid change not permitted")
    new = old | given
    _check_common(context, old, new)
    rule(context, old, new)
    return replace(context, resource, old, new)


def replace(context: Context, resource: Resource, old: Record, new: Record) -> Record:
    """Write ``new`` over ``old``, stamped, where they differ; raises 422 where its name is taken."""
    changed = [name for name in new if new[name] != old.get(name)]
    if not changed:
        return old
    new = new | {"modified_at": context.stamp, "modified_by_user_uuid": context.caller.user_uuid}
    names = sorted({*changed, "modified_at", "modified_by_user_uuid"})
    settings = ", ".join(f"{name} = ?" for name in names)
    try:
        context.connection.execute(
            f"UPDATE {resource.name} SET {settings} WHERE uuid = ?",  # noqa: S608
            [*(encode_value(new[name]) for name in names), new["uuid"]],
        )
    except sqlite3.IntegrityError as error:
        raise name_taken(new) from error
    return new


def remove(context: Context, resource: Resource, record: Record) -> None:
    """Delete the record for good, with the links to and from it."""
    require_write(context, resource, record)
    uuid = record["uuid"]
    context.connection.execute(f"DELETE FROM {resource.name} WHERE uuid = ?", (uuid,))  # noqa: S608
    context.connection.execute("DELETE FROM links WHERE head_uuid = ? OR tail_uuid = ?", (uuid, uuid))


def numbered_name(name: str, uuid: str) -> str:
    """The name that ``ensure_unique_name`` gives a record whose own is taken
    (docs/spec/arvados-api.md#unique-names)."""
    return f"{name[:237]} ({uuid[-15:]})"


def name_taken(record: Record) -> Refusal:
    """The refusal of a second record with one owner and name: 422, which clients do not retry (409 they do)."""
    return invalid(f"the name {record.get('name')!r} is taken: {record['owner_uuid']} already has one of that name")


def _insert_record(context: Context, resource: Resource, record: Record, *, unique_name: bool) -> Record:
    wanted = record.get("name")
    for _ in range(UNIQUE_NAME_TRIES if unique_name and isinstance(wanted, str) else 1):
        try:
            context.connection.execute(*insertion(resource, record))
        except sqlite3.IntegrityError:
            fresh = context.settings.new_uuid(resource.infix)
            if record.get("current_version_uuid") == record["uuid"]:
                record = record | {"current_version_uuid": fresh}
            record = record | {"uuid": fresh, "name": numbered_name(str(wanted), fresh)}
        else:
            return record
    raise name_taken(record | {"name": wanted})


def _defaults(context: Context, resource: Resource) -> Record:
    common: Record = {
        "owner_uuid": context.caller.user_uuid,
        "created_at": context.stamp,
        "modified_at": context.stamp,
        "modified_by_user_uuid": context.caller.user_uuid,
        "properties": {},
        "is_trashed": False,
    }
    return {name: value for name, value in common.items() if name in resource.columns}


def _require_active(context: Context) -> None:
    if not context.caller.is_active:
        raise Refusal(403, "this user is not active and may not write")


def require_write(context: Context, resource: Resource, record: Record) -> None:
    """Raise Refusal 403 where the caller may read the record but not change it.

    A group through which users share is changed by those who manage it, though all of its members may write to it.
    """
    _require_active(context)
    needed = MANAGE if record.get("group_class") == "role" else WRITE
    if level_on(context.connection, context.caller, resource, record) < needed:
        raise Refusal(403, f"{record['uuid']} is not writable by {context.caller.user_uuid}")


# -- checks that all kinds share --------------------------------------------------------


def _check_common(context: Context, old: Record | None, new: Record) -> None:
    if new["owner_uuid"] is None:
        new["owner_uuid"] = context.caller.user_uuid
    if new.get("properties", {}) is None:
        new["properties"] = {}
    if old is None or new["owner_uuid"] != old["owner_uuid"]:
        _check_owner(context, str(new["owner_uuid"]))
        if old is not None and context.caller.inside(str(old["owner_uuid"])) < WRITE:
            raise Refusal(403, "owner_uuid cannot be changed without write permission on the old owner")
    for name in ("head_uuid", "tail_uuid"):
        value = new.get(name)
        if isinstance(value, str) and (old is None or value != old[name]):
            new[name] = _reference(context, name, value)
    if old is None or new.get("properties") != old.get("properties"):
        context.vocabulary.check(new.get("properties"))


def _check_owner(context: Context, uuid: str) -> None:
    """Check the owner of a record: only a home or a project that the caller may write to owns records
    (docs/spec/arvados-api.md#owner-errors)."""
    resource = {USERS.infix: USERS, GROUPS.infix: GROUPS}.get(uuid[6:11]) if is_uuid(uuid) else None
    if resource is None:
        raise Refusal(403, "owner_uuid must be set to a user or a project")
    try:
        owner = fetch_record(context, resource, uuid)
    except Refusal as error:
        raise invalid(f"owner_uuid '{uuid}' not found") from error
    if owner.get("group_class", "project") != "project":
        raise Refusal(403, "owner_uuid must be a project: groups of other classes own nothing")
    if context.caller.inside(uuid) < WRITE:
        raise Refusal(403, "owner_uuid cannot be set or changed without write permission on the new owner")


def _reference(context: Context, name: str, value: str) -> str:
    """A UUID in a record: the target must be readable if it is of this cluster; other values are text.

    A portable data hash loses its hints on the way.
    """
    if match := _HASH.match(value):
        return match[0]
    if not is_uuid(value) or value == context.settings.system_user_uuid:
        return value
    resource = next((found for found in SERVED.values() if found.infix == value[6:11]), None)
    if value[:5] == context.settings.cluster_id and resource in _NAMED:
        try:
            fetch_record(context, resource, value)
        except Refusal:
            pass
        else:
            return value
    raise invalid(f"{name} '{value}' not found")


def is_uuid(text: str) -> bool:
    """Say if ``text`` has the form of a UUID: five, five and fifteen base-36 digits."""
    parts = text.split("-")
    return [len(part) for part in parts] == [5, 5, 15] and all(
        part.isascii() and part.isalnum() and part == part.lower() for part in parts
    )

# SPDX-License-Identifier: Apache-2.0
"""The trash of collections and projects: in, out, by the clock, and away for good.

The rules are those of docs/spec/arvados-collections.md#trash.
"""

from __future__ import annotations

import sqlite3
from datetime import timedelta

from ..refusal import Record, invalid
from ..store import clock
from ..store.released import release_collections
from ..store.resources import Resource
from .permissions import is_site_group
from .records import Context, numbered_name, replace, require_write


def schedule_trash(context: Context, old: Record | None, new: Record) -> None:
    """Settle ``trash_at``, ``delete_at`` and ``is_trashed`` of a record (docs/spec/arvados-collections.md#trash)."""
    if old is not None and all(new[name] == old[name] for name in ("trash_at", "delete_at", "is_trashed")):
        return
    was_trashed = bool(old and old["is_trashed"])
    if new["is_trashed"] and not was_trashed:
        new["trash_at"] = context.stamp
    new["is_trashed"] = was_trashed
    if new["trash_at"] is None:
        if new["delete_at"] is not None and (old is None or new["delete_at"] != old["delete_at"]):
            raise invalid("delete_at must be given together with trash_at")
        new["delete_at"] = None
        return
    try:
        _settle_times(context, old, new)
    except OverflowError as error:
        raise invalid("trash_at is out of range") from error


def _refuse_site_group(record: Record) -> None:
    """Refuse the trash to the groups that every site has; a real server destroys some of them
    (docs/spec/arvados-api.md#special-objects)."""
    if is_site_group(str(record["uuid"])):
        raise invalid(f"{record['name']} is a group that every site has: it cannot be put into the trash")


def _settle_times(context: Context, old: Record | None, new: Record) -> None:
    """Settle the times of trash and deletion. A past ``trash_at`` means now; nothing is deleted while a signature for
    its blocks may be about."""
    wanted = clock.moment_of(str(new["trash_at"]))
    moment = max(wanted, context.now)
    moved = old is not None and new["trash_at"] != old["trash_at"] and new["delete_at"] == old["delete_at"]
    if new["delete_at"] is None or moved:
        deletion = moment + timedelta(seconds=context.settings.trash_lifetime)
    else:
        deletion = clock.moment_of(str(new["delete_at"]))
        if deletion < wanted:
            raise invalid("delete_at must not be earlier than trash_at")
    earliest = context.now + timedelta(seconds=context.settings.blob_signature_ttl)
    new["trash_at"] = clock.text_of(moment)
    new["delete_at"] = clock.text_of(max(deletion, earliest))
    new["is_trashed"] = moment <= context.now


def trash(context: Context, resource: Resource, old: Record, lifetime: int) -> Record:
    """Put a collection or project into the trash, to be deleted after ``lifetime`` seconds, or when the signatures that
    are about have ended."""
    require_write(context, resource, old)
    _refuse_site_group(old)
    lifetime = max(lifetime, context.settings.blob_signature_ttl)
    trash_at = old["trash_at"] if old["is_trashed"] else context.stamp
    delete_at = clock.text_of(clock.moment_of(str(trash_at)) + timedelta(seconds=lifetime))
    if old["is_trashed"] and isinstance(old["delete_at"], str):
        delete_at = min(delete_at, old["delete_at"])
    new = old | {"is_trashed": True, "trash_at": trash_at, "delete_at": delete_at}
    return replace(context, resource, old, new)


def untrash(context: Context, resource: Resource, old: Record, *, unique_name: bool) -> Record:
    """Take a collection or project out of the trash; 422 where it is not in it."""
    require_write(context, resource, old)
    if not old["is_trashed"]:
        raise invalid("item is not trashed, cannot untrash")
    new = old | {"is_trashed": False, "trash_at": None, "delete_at": None}
    if unique_name and isinstance(new["name"], str) and _name_in_use(context, resource, new):
        new["name"] = numbered_name(new["name"], str(new["uuid"]))
    return replace(context, resource, old, new)


def sweep(connection: sqlite3.Connection, now: str) -> None:
    """Trash the records that are due, and delete records whose time in the trash is over.

    A project takes along all that lies in it, and every record the links that join it: they
    would point nowhere (docs/spec/arvados-api.md#image-links).
    """
    for table in ("collections", "groups"):
        connection.execute(
            f"UPDATE {table} SET is_trashed = 1 WHERE trash_at <= ? AND is_trashed = 0",  # noqa: S608
            (now,),
        )
    connection.execute("CREATE TEMP TABLE doomed (uuid TEXT PRIMARY KEY)")
    connection.execute(_DOOMED_PROJECTS, (now, now))
    connection.execute(
        "INSERT INTO doomed SELECT uuid FROM collections "
        "WHERE owner_uuid IN (SELECT uuid FROM doomed) OR (trash_at <= ? AND delete_at <= ?)",
        (now, now),
    )
    release_collections(connection, now, "uuid IN (SELECT uuid FROM doomed)")
    for table in ("container_requests", "workflows"):
        connection.execute(
            f"INSERT INTO doomed SELECT uuid FROM {table} WHERE owner_uuid IN (SELECT uuid FROM doomed)"  # noqa: S608
        )
    for column in ("owner_uuid", "head_uuid", "tail_uuid"):
        connection.execute(f"DELETE FROM links WHERE {column} IN (SELECT uuid FROM doomed)")  # noqa: S608
    for table in ("collections", "groups", "container_requests", "workflows"):
        connection.execute(f"DELETE FROM {table} WHERE uuid IN (SELECT uuid FROM doomed)")  # noqa: S608
    connection.execute("DROP TABLE doomed")


_DOOMED_PROJECTS = """
    INSERT INTO doomed
    WITH RECURSIVE below(uuid) AS (
        SELECT uuid FROM groups WHERE trash_at <= ? AND delete_at <= ? UNION
        SELECT groups.uuid FROM groups JOIN below ON groups.owner_uuid = below.uuid
    ) SELECT uuid FROM below
"""


def sweep_due(connection: sqlite3.Connection, now: str) -> bool:
    """Say if ``sweep`` would change anything."""
    return any(
        connection.execute(
            f"SELECT 1 FROM {table} WHERE trash_at <= ? AND (is_trashed = 0 OR delete_at <= ?) LIMIT 1",  # noqa: S608
            (now, now),
        ).fetchone()
        for table in ("collections", "groups")
    )


def _name_in_use(context: Context, resource: Resource, record: Record) -> bool:
    found = context.connection.execute(
        f"SELECT 1 FROM {resource.name} WHERE owner_uuid = ? AND name = ? AND is_trashed = 0",  # noqa: S608
        (record["owner_uuid"], record["name"]),
    )
    return found.fetchone() is not None

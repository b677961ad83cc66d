# SPDX-License-Identifier: Apache-2.0
"""Permissions: the caller, and the records that the caller may read, write and manage.

As docs/spec/arvados-api.md#permissions has it, permission flows along ownership and permission links: a path
gives the least of its levels, the best path counts. It goes on through groups, and through a user only at the
level MANAGE. All of it is walked once a request, inside the request's transaction; every other module asks here.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..refusal import Record
from ..store.resources import CONTAINER_REQUESTS, CONTAINERS, GROUPS, LINKS, TOKENS, USERS, Resource
from .filters import LISTED, Clause, all_of, any_of

READ, WRITE, MANAGE = 1, 2, 3

#: What the name of a permission link gives.
LEVELS = {"can_read": READ, "can_write": WRITE, "can_manage": MANAGE}

#: The last parts of the UUIDs of groups that every site has (docs/spec/arvados-api.md#special-objects).
SYSTEM_GROUP = "000000000000000"
ANONYMOUS_USERS = "anonymouspublic"
ALL_USERS = "fffffffffffffff"
PUBLIC_FAVORITES = "publicfavorites"
SITE_GROUPS = frozenset({SYSTEM_GROUP, ANONYMOUS_USERS, ALL_USERS, PUBLIC_FAVORITES})

_REACH = f"""
    WITH RECURSIVE reach(uuid, level) AS (
        SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)
        UNION SELECT groups.uuid, level FROM reach JOIN groups ON owner_uuid = reach.uuid
        WHERE level = {MANAGE} OR substr(reach.uuid, 7, 5) = '{GROUPS.infix}'
        UNION SELECT head_uuid, min(level, CASE name WHEN 'can_read' THEN 1 WHEN 'can_write' THEN 2 ELSE 3 END)
        FROM reach JOIN links ON tail_uuid = reach.uuid AND link_class = 'permission'
        WHERE level = {MANAGE} OR substr(reach.uuid, 7, 5) = '{GROUPS.infix}'
    ) SELECT uuid, max(level) FROM reach GROUP BY uuid
"""  # noqa: S608

#: Projects that are in the trash, or will be, each with the time; what lies below one goes with it.
_ENDS = """
    WITH RECURSIVE ending(uuid, moment) AS (
        SELECT uuid, trash_at FROM groups WHERE trash_at > ''
        UNION SELECT groups.uuid, moment FROM groups JOIN ending ON owner_uuid = ending.uuid
    ) SELECT uuid, min(moment) FROM ending GROUP BY uuid
"""


@dataclass(frozen=True, slots=True)
class Caller:
    """The user behind a request."""

    user_uuid: str
    #: The token exactly as it was presented: block signatures are made for this text.
    token: str
    token_uuid: str
    #: What the token is for: ``all``, or methods with paths; a path that ends in a slash stands for all below it.
    scopes: tuple[str, ...]
    is_active: bool
    is_admin: bool
    #: The level that the user has on the users, groups and other records that paths lead to.
    levels: Mapping[str, int]
    #: Trashed projects and the projects below them: they hide what they hold, unless a request wants to see the trash.
    hidden: frozenset[str]
    #: The time at which a project went or will go into the trash, itself or with one above it.
    ends: Mapping[str, str]

    def may_call(self, method: str, path: str) -> bool:
        """True if the token's scopes have that method and path, as ``/arvados/v1/links``."""
        wanted = f"{'GET' if method == 'HEAD' else method} {path}"
        return any(it in ("all", wanted) or (it.endswith("/") and wanted.startswith(it)) for it in self.scopes)

    def level(self, record: Record) -> int:
        """The level on a record that is no permission link: given for the record, or for its owner's contents."""
        if self.is_admin:
            return MANAGE
        return max(self.levels.get(str(record["uuid"]), 0), self.inside(str(record["owner_uuid"])))

    def inside(self, owner: str) -> int:
        """The level on the contents of ``owner``: a home opens to managers of its user, a group to everybody."""
        level = MANAGE if self.is_admin else self.levels.get(owner, 0)
        return level if level == MANAGE or owner[6:11] == GROUPS.infix else 0


def is_site_group(uuid: str) -> bool:
    """Say if the UUID is that of a group that every site has."""
    return uuid[6:11] == GROUPS.infix and uuid[12:] in SITE_GROUPS


def readable(resource: Resource, caller: Caller, *, include_trash: bool = False) -> Clause:
    """The condition on rows of ``resource`` that the caller may see."""
    if resource is TOKENS:
        return Clause("owner_uuid = ?", (caller.user_uuid,))
    if resource is CONTAINERS and not caller.is_admin:
        # The site owns them all: whoever may read a request may read what came of it.
        requests = readable(CONTAINER_REQUESTS, caller, include_trash=include_trash)
        return Clause(f"uuid IN (SELECT container_uuid FROM container_requests WHERE {requests.sql})", requests.values)  # noqa: S608
    seen = Clause("1") if caller.is_admin else any_of(_paths(resource, caller))
    if include_trash or resource is USERS:
        return seen
    parts = [seen]
    if caller.hidden:
        parts.append(Clause(f"owner_uuid NOT IN {LISTED}", (json.dumps(list(caller.hidden)),)))
    if "is_trashed" in resource.columns:
        parts.append(Clause("is_trashed = 0"))
    return all_of(parts)


def level_on(connection: sqlite3.Connection, caller: Caller, resource: Resource, record: Record) -> int:
    """The level on any record; on a permission link MANAGE or nothing, as on the head."""
    if resource is not LINKS or record["link_class"] != "permission" or caller.is_admin:
        return caller.level(record)
    clause = _managed_heads(caller)
    found = connection.execute(
        f"SELECT 1 FROM links WHERE uuid = ? AND ({clause.sql})",  # noqa: S608
        (record["uuid"], *clause.values),
    )
    return MANAGE if found.fetchone() else 0


def owner_of(connection: sqlite3.Connection, token: str, now: str) -> sqlite3.Row | None:
    """The user whose ``token`` it is, ``v2/UUID/SECRET`` or the secret alone, with the token's UUID; None where it is
    nobody's, or is no longer valid."""
    uuid, secret = None, token
    if token.startswith("v2/"):
        parts = token.split("/")
        if len(parts) not in (3, 4):  # the fourth part names a container
            return None
        _, uuid, secret = parts[:3]
    row: sqlite3.Row | None = connection.execute(
        "SELECT tokens.uuid AS token_uuid, users.uuid AS user_uuid, is_active, is_admin, scopes "
        "FROM api_client_authorizations AS tokens JOIN users ON users.uuid = tokens.owner_uuid "
        "WHERE api_token = ? AND (expires_at IS NULL OR expires_at > ?)",
        (secret, now),
    ).fetchone()
    return None if row is None or (uuid is not None and uuid != row["token_uuid"]) else row


def caller_of(connection: sqlite3.Connection, token: str, now: str) -> Caller | None:
    """The user of ``token``, with the permissions; None for an unknown token."""
    row = owner_of(connection, token, now)
    if row is None:
        return None
    user, active = str(row["user_uuid"]), bool(row["is_active"])
    levels = _levels(connection, user) if active else {}
    ends = {str(uuid): str(moment) for uuid, moment in connection.execute(_ENDS)}
    hidden = frozenset(uuid for uuid, moment in ends.items() if moment <= now)
    scopes = tuple(json.loads(row["scopes"]))
    return Caller(user, token, row["token_uuid"], scopes, active, bool(row["is_admin"]), levels, hidden, ends)


def _levels(connection: sqlite3.Connection, user: str) -> dict[str, int]:
    """The levels of an active user, who as such belongs to the group of all users."""
    group = f"{user[:5]}-{GROUPS.infix}-"
    start = [[user, MANAGE], [group + ALL_USERS, WRITE], [group + PUBLIC_FAVORITES, READ]]
    return {str(uuid): int(level) for uuid, level in connection.execute(_REACH, (json.dumps(start),))}


def _paths(resource: Resource, caller: Caller) -> Iterable[Clause]:
    """The ways to see a record without being an administrator."""
    if resource is USERS:
        yield Clause("uuid = ?", (caller.user_uuid,))
        if caller.is_active:  # active users see each other, but not the site's own user
            yield Clause("uuid NOT LIKE '%-000000000000000'")
        return
    yield _among("owner_uuid", (uuid for uuid in caller.levels if caller.inside(uuid)))
    direct = [uuid for uuid in caller.levels if uuid[6:11] == resource.infix]
    if direct:
        yield _among("uuid", direct)
    if resource is GROUPS and caller.is_active:
        yield Clause("group_class = 'role'")
    if resource is LINKS and caller.is_active:
        yield Clause("link_class = 'permission' AND tail_uuid = ?", (caller.user_uuid,))
        managed = _managed_heads(caller)
        yield Clause(f"link_class = 'permission' AND ({managed.sql})", managed.values)


def _managed_heads(caller: Caller) -> Clause:
    """The condition on links whose head the caller manages."""
    managed = [uuid for uuid, level in caller.levels.items() if level == MANAGE]
    listed = json.dumps(managed)
    return Clause(
        f"head_uuid IN {LISTED} OR EXISTS (SELECT 1 FROM collections AS heads "  # noqa: S608
        f"WHERE heads.uuid = head_uuid AND heads.owner_uuid IN {LISTED})",
        (listed, listed),
    )


def _among(column: str, uuids: Iterable[str]) -> Clause:
    return Clause(f"{column} IN {LISTED}", (json.dumps(list(uuids)),))

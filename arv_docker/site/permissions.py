# SPDX-License-Identifier: Apache-2.0
"""Who asks, and what that one may read and write.

One user owns everything for now: readable and writable is what lies in the user's home or in a
project below it. Every other module asks here, so that sharing between users has one place to grow.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from .filters import Clause
from .resources import Resource

#: The caller's home and every project below it. Trashed projects hide what they hold, unless
#: the request wants to see the trash.
_REACH = """
    WITH RECURSIVE reach(uuid) AS (
        SELECT ? UNION
        SELECT groups.uuid FROM groups JOIN reach ON groups.owner_uuid = reach.uuid
        WHERE groups.is_trashed <= {trash}
    ) SELECT uuid FROM reach
"""


@dataclass(frozen=True, slots=True)
class Caller:
    """The user behind a request."""

    user_uuid: str
    #: The token exactly as it was presented: block signatures are made for this text.
    token: str
    token_uuid: str
    is_active: bool
    is_admin: bool


def readable(resource: Resource, caller: Caller, *, include_trash: bool = False) -> Clause:
    """The condition on rows of ``resource`` that the caller may see."""
    reach = _REACH.format(trash=int(include_trash))
    if resource.name == "users":
        return Clause("uuid = ?", (caller.user_uuid,))
    if resource.name == "api_client_authorizations":
        return Clause("owner_uuid = ?", (caller.user_uuid,))
    if "is_trashed" in resource.columns and not include_trash:
        return Clause(f"is_trashed = 0 AND owner_uuid IN ({reach})", (caller.user_uuid,))
    return Clause(f"owner_uuid IN ({reach})", (caller.user_uuid,))


def may_own(connection: sqlite3.Connection, caller: Caller, uuid: str) -> bool:
    """Whether the caller may put records into the home or project ``uuid``."""
    found = connection.execute(
        f"SELECT 1 WHERE ? IN ({_REACH.format(trash=0)})",
        (uuid, caller.user_uuid),
    )
    return found.fetchone() is not None


def caller_of(connection: sqlite3.Connection, token: str, now: str) -> Caller | None:
    """The user to whom ``token`` belongs: ``v2/UUID/SECRET`` or the secret alone; None for no such token."""
    uuid, secret = None, token
    if token.startswith("v2/"):
        parts = token.split("/")
        if len(parts) not in (3, 4):  # the fourth part names a container
            return None
        _, uuid, secret = parts[:3]
    row = connection.execute(
        "SELECT tokens.uuid AS token_uuid, users.uuid AS user_uuid, is_active, is_admin "
        "FROM api_client_authorizations AS tokens JOIN users ON users.uuid = tokens.owner_uuid "
        "WHERE api_token = ? AND (expires_at IS NULL OR expires_at > ?)",
        (secret, now),
    ).fetchone()
    if row is None or (uuid is not None and uuid != row["token_uuid"]):
        return None
    return Caller(row["user_uuid"], token, row["token_uuid"], bool(row["is_active"]), bool(row["is_admin"]))

# SPDX-License-Identifier: Apache-2.0
"""The users of a site, with tokens.

Users are made on the command line alone, by whoever may read the folder, secrets included.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from ...errors import UsageError
from ..refusal import Record
from ..store import clock
from ..store.database import Database, insertion
from ..store.resources import GROUPS, TOKENS, USERS
from ..store.settings import Settings
from .permissions import ALL_USERS, ANONYMOUS_USERS, PUBLIC_FAVORITES, SYSTEM_GROUP

#: The name under which commands know the site's own user, who may do everything.
ROOT = "system"

_NAME = re.compile(r"[a-z][a-z0-9._-]{0,63}", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class User:
    """A user, with the number of tokens that are valid now."""

    uuid: str
    username: str
    email: str
    is_admin: bool
    tokens: int


def seed(database: Database, settings: Settings) -> None:
    """Add the records that every site has to the database; a second time changes nothing."""
    stamp, root = settings.created_at, settings.system_user_uuid
    user = _person(settings, settings.user_uuid, settings.username, stamp)
    system = _person(settings, root, "root", stamp) | {"username": None, "is_admin": True}
    token = _token(settings, settings.user_uuid, settings.token_uuid, settings.token_secret, stamp)
    with database.writing() as connection:
        for resource, record in ((USERS, user), (USERS, system), (TOKENS, token)):
            connection.execute(*insertion(resource, record, "INSERT OR IGNORE"))
        for suffix, name, group_class in (
            (SYSTEM_GROUP, "System group", "role"),
            (ANONYMOUS_USERS, "Anonymous users", "role"),
            (ALL_USERS, "All users", "role"),
            (PUBLIC_FAVORITES, "Public favorites", "project"),
        ):
            uuid = f"{settings.cluster_id}-{GROUPS.infix}-{suffix}"
            group = _common_columns(uuid, root, root, stamp) | {
                "name": name,
                "description": name,
                "group_class": group_class,
            }
            group |= {"properties": {}, "is_trashed": False}
            connection.execute(*insertion(GROUPS, group, "INSERT OR IGNORE"))
            # Older versions let administrators put it into the trash.
            connection.execute(
                "UPDATE groups SET owner_uuid = ?, is_trashed = 0, trash_at = NULL, delete_at = NULL "
                "WHERE uuid = ? AND (is_trashed = 1 OR trash_at IS NOT NULL OR owner_uuid != ?)",
                (root, uuid, root),
            )


def create(database: Database, settings: Settings, username: str, *, is_admin: bool) -> str:
    """Add an active user and return its UUID; raises UsageError where the name is taken or no name."""
    if not _NAME.fullmatch(username) or username == ROOT:
        raise UsageError(f"{username!r} is no name for a user: letters, digits, '.', '_', '-', a letter first.")
    now = clock.text_of(clock.current_time())
    record = _person(settings, settings.new_uuid(USERS.infix), username, now) | {"is_admin": is_admin}
    try:
        with database.writing() as connection:
            connection.execute(*insertion(USERS, record))
    except sqlite3.IntegrityError as error:
        raise UsageError(f"There is a user {username!r} already.") from error
    return str(record["uuid"])


def new_token(
    database: Database, settings: Settings, username: str, days: int | None, scopes: Sequence[str] = ("all",)
) -> str:
    """A fresh token for a user, valid for so many days or for good; raises UsageError where there is no such user.

    ``scopes`` are what it may be used for: ``all``, or texts such as ``GET /arvados/v1/links``.
    """
    now = clock.current_time()
    uuid, secret = settings.new_uuid(TOKENS.infix), settings.new_secret()
    with database.writing() as connection:
        found = connection.execute(
            "SELECT uuid FROM users WHERE username = ? OR (? AND uuid = ?) ORDER BY username IS NOT NULL",
            (username, username == ROOT, settings.system_user_uuid),
        ).fetchone()
        if found is None:
            raise UsageError(f"There is no user {username!r}. Create it: arv-docker site user create {username}")
        record = _token(settings, found[0], uuid, secret, clock.text_of(now)) | {"scopes": list(scopes)}
        if days is not None:
            record["expires_at"] = clock.text_of(now + timedelta(days=days))
        connection.execute(*insertion(TOKENS, record))
    return f"v2/{uuid}/{secret}"


def list_users(database: Database) -> list[User]:
    """All users, the site's own first."""
    with database.reading() as connection:
        rows = connection.execute(
            "SELECT users.uuid, username, email, is_admin, "
            "(SELECT count(*) FROM api_client_authorizations AS tokens "
            "WHERE tokens.owner_uuid = users.uuid AND (expires_at IS NULL OR expires_at > ?)) AS tokens "
            "FROM users ORDER BY users.created_at, username",
            (clock.text_of(clock.current_time()),),
        ).fetchall()
    return [
        User(row["uuid"], row["username"] or ROOT, row["email"], bool(row["is_admin"]), row["tokens"]) for row in rows
    ]


def _common_columns(uuid: str, owner: str, by: str, stamp: str) -> Record:
    return {"uuid": uuid, "owner_uuid": owner, "created_at": stamp, "modified_at": stamp, "modified_by_user_uuid": by}


def _person(settings: Settings, uuid: str, username: str, stamp: str) -> Record:
    root = settings.system_user_uuid
    return _common_columns(uuid, root, root, stamp) | {
        "username": username,
        "email": f"{username}@localhost",
        "first_name": username,
        "last_name": "",
        "is_active": True,
        "is_admin": False,
        "is_invited": True,
        "prefs": {},
    }


def _token(settings: Settings, user: str, uuid: str, secret: str, stamp: str) -> Record:
    common = _common_columns(uuid, user, settings.system_user_uuid, stamp)
    return common | {"api_token": secret, "scopes": ["all"]}

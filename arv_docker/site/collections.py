# SPDX-License-Identifier: Apache-2.0
"""The rules of collections: manifest text, its hash and signatures, names, trash (spec/arvados-semantics §4)."""

from __future__ import annotations

import re
import sqlite3
from datetime import timedelta

from ..errors import BadManifestText
from ..keep import manifest
from . import clock
from .filters import Clause, all_of
from .listing import record_of
from .permissions import readable
from .records import Context, name_taken, numbered, replace
from .refusal import Record, Refusal, invalid
from .resources import COLLECTIONS, GROUPS, Resource
from .signatures import Verdict, unsigned

_ADMIN_ONLY = ("replication_confirmed", "replication_confirmed_at", "storage_classes_confirmed_at")


def check_collection(context: Context, old: Record | None, new: Record) -> None:
    """Fill in and check a collection that is about to be written."""
    _fill(new)
    _check_versions(old, new)
    _check_name(new)
    _check_storage(old, new)
    _take_manifest(context, old, new)
    schedule_trash(context, old, new)


def signed_text(context: Context, record: Record) -> str:
    """The collection's manifest text with every locator signed for the caller; unsigned when it is in the trash."""
    text = str(record["manifest_text"])
    if record["is_trashed"] or not text:
        return text
    expiry = int(context.now.timestamp()) + context.settings.blob_signature_ttl
    trash_at = record["trash_at"]
    if isinstance(trash_at, str):
        expiry = min(expiry, int(clock.moment_of(trash_at).timestamp()))
    signer, token = context.settings.signer, context.caller.token
    return _LOCATOR.sub(lambda found: f" {signer.signed(found[1], token, expiry)}", text)


#: A locator inside valid manifest text: only lower-case hashes are signed (arvados-verified W19).
_LOCATOR = re.compile(r" ([0-9a-f]{32}(?:\+\d+)?(?:\+[A-Z][A-Za-z0-9@_-]*)*)(?=[ \n])", re.ASCII)


def by_hash(context: Context, pdh: str, *, include_trash: bool) -> Record:
    """What the API says of a portable data hash: a collection with nothing but its content (W21)."""
    bare = "+".join(pdh.split("+")[:2])
    allowed = all_of(
        [
            Clause("portable_data_hash = ?", (bare,)),
            readable(COLLECTIONS, context.caller, include_trash=include_trash),
        ]
    )
    row = context.connection.execute(
        f"SELECT * FROM collections WHERE {allowed.sql} "  # noqa: S608
        "ORDER BY is_trashed, trash_at IS NOT NULL, trash_at DESC LIMIT 1",
        allowed.values,
    ).fetchone()
    if row is None:
        raise Refusal(404, "not found")
    found = record_of(COLLECTIONS, row)
    empty: Record = dict.fromkeys(COLLECTIONS.columns)
    return empty | {
        "uuid": bare,
        "portable_data_hash": bare,
        "manifest_text": found["manifest_text"],
        "trash_at": found["trash_at"],
        "is_trashed": found["is_trashed"],
        "preserve_version": False,
        "version": 0,
        "file_count": 0,
        "file_size_total": 0,
    }


def trash(context: Context, resource: Resource, old: Record, lifetime: int) -> Record:
    """Put a collection or project into the trash, to be deleted after ``lifetime`` seconds."""
    trash_at = old["trash_at"] if old["is_trashed"] else context.stamp
    delete_at = clock.text_of(clock.moment_of(str(trash_at)) + timedelta(seconds=lifetime))
    if old["is_trashed"] and isinstance(old["delete_at"], str):
        delete_at = min(delete_at, old["delete_at"])
    new = old | {"is_trashed": True, "trash_at": trash_at, "delete_at": delete_at}
    return replace(context, resource, old, new)


def untrash(context: Context, resource: Resource, old: Record, *, unique_name: bool) -> Record:
    """Take a collection or project out of the trash; 422 where it is not in it."""
    if not old["is_trashed"]:
        raise invalid("item is not trashed, cannot untrash")
    new = old | {"is_trashed": False, "trash_at": None, "delete_at": None}
    if unique_name and isinstance(new["name"], str) and _name_in_use(context, resource, new):
        new["name"] = numbered(new["name"], str(new["uuid"]))
    return replace(context, resource, old, new)


def sweep(connection: sqlite3.Connection, now: str) -> None:
    """Trash what is due to be trashed, and delete what has been in the trash for its time, with its links."""
    for resource in (COLLECTIONS, GROUPS):
        table = resource.name
        connection.execute(
            f"UPDATE {table} SET is_trashed = 1 WHERE trash_at <= ? AND is_trashed = 0",  # noqa: S608
            (now,),
        )
        due = f"SELECT uuid FROM {table} WHERE trash_at <= ?1 AND delete_at <= ?1"  # noqa: S608
        # Links would point nowhere: they go with what they join (spec/arvados-semantics §3.6).
        connection.execute(
            f"DELETE FROM links WHERE head_uuid IN ({due}) OR tail_uuid IN ({due})",  # noqa: S608
            (now,),
        )
        connection.execute(f"DELETE FROM {table} WHERE uuid IN ({due})", (now,))  # noqa: S608


def sweep_due(connection: sqlite3.Connection, now: str) -> bool:
    """Whether ``sweep`` would change anything."""
    return any(
        connection.execute(
            f"SELECT 1 FROM {table} WHERE trash_at <= ? AND (is_trashed = 0 OR delete_at <= ?) LIMIT 1",  # noqa: S608
            (now, now),
        ).fetchone()
        for table in ("collections", "groups")
    )


def check_name(name: str | None) -> None:
    """The rule for names of collections and projects: they become folders, so no ``/``, ``.`` or ``..``."""
    if name is not None and (name in (".", "..") or "/" in name):
        raise invalid(f"name {name!r} is not allowed: it must not be '.' or '..' nor contain '/'")


def schedule_trash(context: Context, old: Record | None, new: Record) -> None:
    """Settle ``trash_at``, ``delete_at`` and ``is_trashed`` of a record (spec/arvados-semantics §4.4)."""
    was_trashed = bool(old and old["is_trashed"])
    if new["is_trashed"] and not was_trashed:
        new["trash_at"] = context.stamp
    new["is_trashed"] = was_trashed
    trash_at, delete_at = new["trash_at"], new["delete_at"]
    if trash_at is None:
        if delete_at is not None and (old is None or delete_at != old["delete_at"]):
            raise invalid("delete_at must be given together with trash_at")
        new["delete_at"] = None
        return
    moment = max(clock.moment_of(str(trash_at)), context.now)
    earliest = context.now + timedelta(seconds=context.settings.blob_signature_ttl)
    if delete_at is None or (old is not None and trash_at != old["trash_at"] and delete_at == old["delete_at"]):
        deletion = moment + timedelta(seconds=context.settings.trash_lifetime)
    else:
        deletion = clock.moment_of(str(delete_at))
        if deletion < clock.moment_of(str(trash_at)):
            raise invalid("delete_at must not be earlier than trash_at")
    new["trash_at"] = clock.text_of(moment)
    new["delete_at"] = clock.text_of(max(deletion, earliest))
    new["is_trashed"] = moment <= context.now


def _fill(new: Record) -> None:
    """Values that a null stands for."""
    if new["name"] == "":
        new["name"] = None
    for name, value in (
        ("manifest_text", ""),
        ("storage_classes_confirmed", []),
        ("is_trashed", False),
        ("preserve_version", False),
    ):
        if new[name] is None:
            new[name] = value
    if new["version"] is None or not new.get("current_version_uuid"):
        new["version"], new["current_version_uuid"] = 1, new["uuid"]


def _check_versions(old: Record | None, new: Record) -> None:
    """Versions are the server's: ignored in a create, refused in an update."""
    if old is None:
        new["version"], new["current_version_uuid"] = 1, new["uuid"]
    elif (new["version"], new["current_version_uuid"]) != (old["version"], old["current_version_uuid"]):
        raise invalid("version and current_version_uuid cannot be set")


def _check_name(new: Record) -> None:
    name = new["name"]
    check_name(name if isinstance(name, str) else None)


def _check_storage(old: Record | None, new: Record) -> None:
    desired = new["storage_classes_desired"]
    if not desired:
        if old is not None:
            raise invalid("storage_classes_desired must not be empty")
        new["storage_classes_desired"] = desired = ["default"]
    if not isinstance(desired, list) or not all(isinstance(item, str) and item for item in desired):
        raise invalid("storage_classes_desired must be an array of names")
    before: Record = old or {}
    if any(new[name] is not None and new[name] != before.get(name) for name in _ADMIN_ONLY) or (
        new["storage_classes_confirmed"] not in ([], before.get("storage_classes_confirmed"))
    ):
        raise Refusal(403, "replication_confirmed and storage_classes_confirmed are set by the server")


# -- manifest text ----------------------------------------------------------------------


def _take_manifest(context: Context, old: Record | None, new: Record) -> None:
    """Check new manifest text, store it without signatures, and derive hash and file counts from it."""
    given = str(new["manifest_text"])
    text = _without_signatures(given)
    claimed = new["portable_data_hash"]
    if old is not None and text == old["manifest_text"]:
        # Unchanged text may come back without signatures.
        new["manifest_text"] = text
        if str(claimed)[:32] != str(old["portable_data_hash"])[:32]:
            raise invalid("portable_data_hash cannot change without manifest_text")
        new["portable_data_hash"] = old["portable_data_hash"]
        return
    try:
        streams = manifest.parse(given)
    except BadManifestText as error:
        raise invalid(f"manifest_text is invalid: {error.message}") from error
    if not context.caller.is_admin:
        _check_signatures(context, streams)
    pdh = manifest.pdh(given)
    sent = claimed if old is None or claimed != old["portable_data_hash"] else None
    if isinstance(sent, str) and sent and sent[:32] != pdh[:32]:
        raise invalid(f"portable_data_hash '{sent}' does not match the computed hash '{pdh}'")
    new["manifest_text"], new["portable_data_hash"] = text, pdh
    _count_files(new, streams)


def _check_signatures(context: Context, streams: tuple[manifest.Stream, ...]) -> None:
    """Every block must be signed for the caller's token, but the empty one (spec/arvados-semantics §4.3)."""
    signer, token = context.settings.signer, context.caller.token
    now = int(context.now.timestamp())
    for locator in {str(found) for found in manifest.locators(streams)}:
        verdict = signer.verdict(locator, token, now)
        empty = locator.startswith(manifest.EMPTY_BLOCK[:32])
        if verdict is Verdict.GOOD or (verdict is Verdict.MISSING and empty):
            continue
        raise Refusal(403, f"the signature of block {locator[:32]} is {verdict.value}: permission denied")


def _count_files(new: Record, streams: tuple[manifest.Stream, ...]) -> None:
    names = {
        f"{stream.name}/{token.name}": None
        for stream in streams
        for token in stream.files
        if token.name != "." or token.length
    }
    new["file_count"] = len(names)
    new["file_size_total"] = sum(token.length for stream in streams for token in stream.files)
    # Names are bytes that need not be UTF-8; for searching, replacement characters do.
    joined = "\n".join(name.removeprefix("./") for name in names)
    new["file_names"] = joined.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if int(str(new["file_size_total"])) >= 1 << 63:
        raise invalid("the files of manifest_text are too large together")


def _without_signatures(text: str) -> str:
    """``text`` as it is stored: signature hints gone, other hints kept."""
    return _SIGNED.sub(lambda found: unsigned(found[0]), text)


_SIGNED = re.compile(r"(?<= )[0-9a-fA-F]{32}(?:\+\d+)?(?:\+[A-Z][A-Za-z0-9@_-]*)+(?=[ \n])", re.ASCII)


def _name_in_use(context: Context, resource: Resource, record: Record) -> bool:
    found = context.connection.execute(
        f"SELECT 1 FROM {resource.name} WHERE owner_uuid = ? AND name = ? AND is_trashed = 0",  # noqa: S608
        (record["owner_uuid"], record["name"]),
    )
    return found.fetchone() is not None


__all__ = [
    "by_hash",
    "check_collection",
    "check_name",
    "name_taken",
    "schedule_trash",
    "signed_text",
    "sweep",
    "sweep_due",
    "trash",
    "untrash",
]

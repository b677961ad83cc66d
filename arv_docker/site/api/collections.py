# SPDX-License-Identifier: Apache-2.0
"""The rules of collections: manifest text, its hash and signatures, names (docs/spec/arvados-collections.md)."""

from __future__ import annotations

import re

from ...model import manifest_text
from ..refusal import Record, Refusal, invalid
from ..store import clock
from ..store.released import release_dropped
from ..store.resources import COLLECTIONS
from ..store.signatures import Verdict
from .filters import Clause, all_of
from .listing import record_of
from .manifests import Manifest, manifest_of, strip_signatures
from .permissions import readable
from .records import Context
from .trash import schedule_trash

_ADMIN_ONLY = ("replication_confirmed", "replication_confirmed_at", "storage_classes_confirmed_at")


def check_collection(context: Context, old: Record | None, new: Record) -> None:
    """Fill in and check a collection that is about to be written."""
    _fill(new)
    _check_versions(old, new)
    check_name(new)
    _check_storage(old, new)
    _take_manifest(context, old, new)
    schedule_trash(context, old, new)


def signed_text(context: Context, record: Record) -> str:
    """The collection's manifest text with every locator signed for the caller; unsigned when it is in the trash.

    Signatures end no later than the collection goes into the trash, by itself or with a project.
    """
    text = str(record["manifest_text"])
    end = _trash_time(context, record)
    if record["is_trashed"] or not text or (end is not None and end <= context.stamp):
        return text
    expiry = int(context.now.timestamp()) + context.settings.blob_signature_ttl
    if end is not None:
        expiry = min(expiry, int(clock.moment_of(end).timestamp()))
    signer, token = context.settings.signer, context.caller.token
    return _LOCATOR.sub(lambda match: f" {signer.sign(match[1], token, expiry)}", text)


def _trash_time(context: Context, record: Record) -> str | None:
    """The time at which a collection goes into the trash, alone or with a project above it."""
    times = (record["trash_at"], context.caller.ends.get(str(record["owner_uuid"])))
    return min((time for time in times if isinstance(time, str)), default=None)


#: A locator inside valid manifest text: only lower-case hashes are signed
#: (docs/spec/arvados-collections.md#manifest-grammar).
_LOCATOR = re.compile(r" ([0-9a-f]{32}(?:\+\d+)?(?:\+[A-Z][A-Za-z0-9@_-]*)*)(?=[ \n])", re.ASCII)


def by_hash(context: Context, pdh: str, *, include_trash: bool) -> Record:
    """The record for a portable data hash: a collection with nothing but its content
    (docs/spec/arvados-collections.md#by-pdh)."""
    bare = "+".join(pdh.split("+")[:2])
    allowed = all_of(
        [
            Clause("portable_data_hash = ?", (bare,)),
            readable(COLLECTIONS, context.caller, include_trash=include_trash),
        ]
    )
    rows = context.connection.execute(
        f"SELECT uuid, owner_uuid, trash_at FROM collections WHERE {allowed.sql}",  # noqa: S608
        allowed.values,
    )
    ends = {row["uuid"]: _trash_time(context, record_of(COLLECTIONS, row)) for row in rows}
    if not ends:
        raise Refusal(404, "not found")
    # Of several the one that stays longest; the rest of its record says nothing about the others.
    uuid = max(ends, key=lambda candidate: ends[candidate] or "~")
    end = ends[uuid]
    text = context.connection.execute("SELECT manifest_text FROM collections WHERE uuid = ?", (uuid,)).fetchone()[0]
    empty: Record = dict.fromkeys(COLLECTIONS.columns)
    return empty | {
        "uuid": bare,
        "portable_data_hash": bare,
        "manifest_text": text,
        "trash_at": end,
        "is_trashed": end is not None and end <= context.stamp,
        "preserve_version": False,
        "version": 0,
        "file_count": 0,
        "file_size_total": 0,
    }


def check_name(new: Record) -> None:
    """Check the name of a collection or project: it becomes a folder, so no ``/``, ``.`` or ``..``."""
    name = new["name"]
    if isinstance(name, str) and (name in (".", "..") or "/" in name):
        raise invalid(f"name {name!r} is not allowed: it must not be '.' or '..' nor contain '/'")


def _fill(new: Record) -> None:
    """Fill in the values that a null stands for."""
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
    """Refuse versions in an update, and ignore them in a create: they are the server's."""
    if old is None:
        new["version"], new["current_version_uuid"] = 1, new["uuid"]
    elif (new["version"], new["current_version_uuid"]) != (old["version"], old["current_version_uuid"]):
        raise invalid("version and current_version_uuid cannot be set")


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
    claimed = new["portable_data_hash"]
    if old is not None and strip_signatures(given) == old["manifest_text"]:
        # Unchanged text may come back without signatures.
        new["manifest_text"] = old["manifest_text"]
        if str(claimed)[:32] != str(old["portable_data_hash"])[:32]:
            raise invalid("portable_data_hash cannot change without manifest_text")
        new["portable_data_hash"] = old["portable_data_hash"]
        return
    manifest = _manifest(context, given)
    if not context.caller.is_admin:
        _check_signatures(context, manifest)
    pdh = manifest.portable_data_hash
    sent = claimed if old is None or claimed != old["portable_data_hash"] else None
    if isinstance(sent, str) and sent and sent[:32] != pdh[:32]:
        raise invalid(f"portable_data_hash '{sent}' does not match the computed hash '{pdh}'")
    if old is not None:
        release_dropped(context.connection, context.stamp, str(old["manifest_text"]), manifest.text)
    new["manifest_text"], new["portable_data_hash"] = manifest.text, pdh
    new["file_count"], new["file_size_total"] = manifest.file_count, manifest.file_size
    new["file_names"] = manifest.file_names


def _manifest(context: Context, given: str) -> Manifest:
    """The manifest of the request, which was read before the transaction, or that of a text it does not give."""
    read = context.manifest
    if isinstance(read, Refusal):
        raise read
    return read if read is not None and read.source_text == given else manifest_of(given)


def _check_signatures(context: Context, manifest: Manifest) -> None:
    """Check that every block is signed for the caller's token, but the empty one
    (docs/spec/arvados-collections.md#block-signatures)."""
    signer, token = context.settings.signer, context.caller.token
    now = int(context.now.timestamp())
    for locator in manifest.locators:
        verdict = signer.verdict(locator, token, now)
        empty = locator.startswith(manifest_text.EMPTY_BLOCK[:32])
        if verdict is Verdict.GOOD or (verdict is Verdict.MISSING and empty):
            continue
        raise Refusal(403, f"the signature of block {locator[:32]} is {verdict.value}: permission denied")

# SPDX-License-Identifier: Apache-2.0
"""Records as answers show them: ``kind``, ``etag``, derived attributes, absent texts as "".

The shapes are those of docs/spec/arvados-api.md#shapes and docs/spec/arvados-api.md#selected-attributes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ..refusal import Json, Record
from ..store.resources import CONTAINER_REQUESTS, Resource, kind_of_uuid
from .collections import signed_text
from .containers import MOUNT
from .permissions import MANAGE, WRITE
from .records import Context


def shape_record(
    context: Context, resource: Resource, record: Record, select: Sequence[str] | None, *, sign: bool = True
) -> Record:
    """``record`` as clients see it; with ``select`` only those attributes, ``kind``, and an empty ``etag``.

    ``record`` may lack columns: a list without ``select`` leaves out the manifest text, and shows it as "".
    """
    full = _full_record(context, resource, record, sign=sign and select is None)
    if select is None:
        return full
    if "manifest_text" in select and record.get("manifest_text") is not None:
        full["manifest_text"] = signed_text(context, record) if sign else record["manifest_text"]
    if "unsigned_manifest_text" in select:
        full["unsigned_manifest_text"] = record["manifest_text"]
    answer: Record = {"kind": resource.kind}
    if not resource.direct or "etag" in select:
        answer["etag"] = full["etag"] if "etag" in select else ""
    return answer | {name: full[name] for name in select if name not in ("kind", "etag")}


def _full_record(context: Context, resource: Resource, record: Record, *, sign: bool) -> Record:
    answer: Record = {"kind": resource.kind, "etag": etag(record)}
    for name in resource.selectable:
        value = record.get(name)
        answer[name] = resource.columns[name].absent if value is None else value
    if answer.get("description") == "":
        answer["description"] = None
    if resource.name == "collections":
        answer["unsigned_manifest_text"] = ""
        if sign and record.get("manifest_text"):
            answer["manifest_text"] = signed_text(context, record)
    return answer | _derived_attributes(context, resource, record)


def _derived_attributes(context: Context, resource: Resource, record: Record) -> Record:
    """The derived attributes of a record: those that no column holds."""
    if resource.name == "links":
        return {f"{end}_kind": kind_of_uuid(str(record.get(f"{end}_uuid") or "")) for end in ("head", "tail")}
    if resource is CONTAINER_REQUESTS:
        return {"runtime_token": "", **_request_details(record)}
    if resource.name in ("groups", "users"):
        rights = _rights(context, resource, record)
        if resource.name == "users":
            if not context.caller.is_admin and record.get("uuid") != context.caller.user_uuid:
                rights["prefs"] = None
            rights["full_name"] = " ".join(str(record.get(name) or "") for name in ("first_name", "last_name")).strip()
        return rights
    return {}


def _request_details(record: Record) -> Record:
    """The mounts of a request in full, each with every attribute that a mount may have; whole costs without a point."""
    mounts, cost = record.get("mounts"), record.get("cumulative_cost")
    found: Record = {}
    if isinstance(mounts, dict):
        found["mounts"] = {path: MOUNT | mount if isinstance(mount, dict) else mount for path, mount in mounts.items()}
    if isinstance(cost, float) and cost.is_integer():
        found["cumulative_cost"] = int(cost)
    return found


def _rights(context: Context, resource: Resource, record: Record) -> Record:
    """The rights on a group or user: what the caller may do, and who else may."""
    caller, owner = context.caller, record.get("owner_uuid")
    level = caller.level({"uuid": record.get("uuid"), "owner_uuid": owner})
    writers: list[Json] = [owner, caller.user_uuid] if level >= WRITE else [owner]
    if resource.name == "users" and level >= WRITE:
        writers.append(f"{context.settings.cluster_id}-j7d0g-000000000000000")
    return {"can_write": level >= WRITE, "can_manage": level >= MANAGE, "writable_by": writers}


def etag(record: Record) -> str:
    """The ETag of a record, which changes whenever the record does: every change is stamped."""
    seed = f"{record.get('uuid')} {record.get('modified_at')} {record.get('is_trashed')}"
    return hashlib.md5(seed.encode(), usedforsecurity=False).hexdigest()[:25]

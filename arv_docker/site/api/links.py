# SPDX-License-Identifier: Apache-2.0
"""The rules of links and of projects, beyond those that all records share."""

from __future__ import annotations

from ..refusal import Record, Refusal, invalid
from ..store.resources import COLLECTIONS, GROUPS, LINKS, USERS
from .collections import check_name
from .listing import record_of
from .permissions import LEVELS, MANAGE, is_site_group
from .records import Context, fetch_record
from .trash import schedule_trash


def check_link(context: Context, old: Record | None, new: Record) -> Record | None:
    """Check a link that is about to be written. Any owner, head and name will do, repeats included: links have no
    uniqueness (docs/spec/arvados-api.md#image-links).

    Permission links are the one kind that acts. Returns the link that gives the same permission already.
    """
    if "permission" not in (new["link_class"], old and old["link_class"]):
        return None
    if old is not None and any(new[name] != old[name] for name in ("link_class", "tail_uuid", "head_uuid")):
        raise invalid("of a permission link only the name can change: delete it and create another one")
    if new["name"] not in LEVELS:
        raise invalid(f"the name of a permission link must be one of {', '.join(LEVELS)}")
    _check_tail(context, str(new["tail_uuid"]))
    _check_head(context, str(new["head_uuid"]))
    new["owner_uuid"] = context.settings.system_user_uuid
    return _same_permission(context, new) if old is None else None


def _check_tail(context: Context, uuid: str) -> None:
    """Check the tail of a permission link: permissions are given to users, and to groups of users."""
    if uuid[6:11] != USERS.infix and not (
        uuid[6:11] == GROUPS.infix and fetch_record(context, GROUPS, uuid)["group_class"] == "role"
    ):
        raise invalid("tail_uuid of a permission link must name a user or a role group")


def _check_head(context: Context, uuid: str) -> None:
    """Check the head of a permission link: only who manages a record gives permission on it."""
    resource = {found.infix: found for found in (COLLECTIONS, GROUPS, USERS)}.get(uuid[6:11])
    if resource is None:
        raise invalid("head_uuid of a permission link must name a collection, a project or a user")
    if context.caller.level(fetch_record(context, resource, uuid)) < MANAGE:
        raise Refusal(403, f"permission on {uuid} can be given only by those who manage it")


def _same_permission(context: Context, new: Record) -> Record | None:
    """The link from the same tail to the same head; ``new`` takes over its name where that gives more."""
    row = context.connection.execute(
        "SELECT * FROM links WHERE link_class = 'permission' AND tail_uuid = ? AND head_uuid = ?",
        (new["tail_uuid"], new["head_uuid"]),
    ).fetchone()
    if row is None:
        return None
    new["name"] = max(str(new["name"]), str(row["name"]), key=LEVELS.__getitem__)
    return record_of(LINKS, row)


def check_group(context: Context, old: Record | None, new: Record) -> None:
    """Check a group that is about to be written: users make projects, which stay projects; the role groups are the
    site's own."""
    if not new["group_class"]:
        raise invalid("group_class must be given: project")
    if old is not None and new["group_class"] != old["group_class"]:
        raise invalid("group_class cannot change")
    if is_site_group(str(new["uuid"])):
        _check_site_group(old or {}, new)
    elif new["group_class"] != "project":
        raise invalid(f"groups of class '{new['group_class']}' are not part of the embedded site: only projects are")
    if not new["name"]:
        raise invalid("a project needs a name")
    check_name(new)
    if new["frozen_by_uuid"] is not None:
        raise Refusal(403, "projects cannot be frozen on the embedded site")
    if old is not None and new["owner_uuid"] != old["owner_uuid"]:
        _check_no_cycle(context, new)
    new["is_trashed"] = bool(new["is_trashed"])
    schedule_trash(context, old, new)


def _check_site_group(old: Record, new: Record) -> None:
    """Refuse a change that would take away a group that every site has, from everybody, now or later."""
    for name in ("owner_uuid", "trash_at", "delete_at", "is_trashed"):
        if (new[name] or None) != (old[name] or None):
            raise invalid(f"{old['name']} is a group that every site has: its {name} cannot change")


def _check_no_cycle(context: Context, new: Record) -> None:
    """Refuse an owner by which a project would come to lie inside itself."""
    above = new["owner_uuid"]
    while above is not None:
        if above == new["uuid"]:
            raise invalid("owner_uuid would make the project lie inside itself")
        row = context.connection.execute("SELECT owner_uuid FROM groups WHERE uuid = ?", (above,)).fetchone()
        above = row["owner_uuid"] if row else None

# SPDX-License-Identifier: Apache-2.0
"""The rules of links and of projects, beyond those that all records share."""

from __future__ import annotations

from .collections import check_name
from .records import Context
from .refusal import Record, Refusal, invalid
from .trash import schedule_trash


def check_link(_context: Context, _old: Record | None, new: Record) -> None:
    """Any owner, head and name will do, repeats included: links have no uniqueness (spec/arvados-semantics §3.6).

    Permission links are the one kind that acts; a site with one user has nobody to share with.
    """
    if new["link_class"] == "permission":
        raise invalid("permission links are not part of the embedded site: it has one user")


def check_group(context: Context, old: Record | None, new: Record) -> None:
    """A project is the only class of group here, and stays one."""
    if not new["group_class"]:
        raise invalid("group_class must be given: project")
    if old is not None and new["group_class"] != old["group_class"]:
        raise invalid("group_class cannot change")
    if new["group_class"] != "project":
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


def _check_no_cycle(context: Context, new: Record) -> None:
    """A project may not come to lie inside itself."""
    above = new["owner_uuid"]
    while above is not None:
        if above == new["uuid"]:
            raise invalid("owner_uuid would make the project lie inside itself")
        row = context.connection.execute("SELECT owner_uuid FROM groups WHERE uuid = ?", (above,)).fetchone()
        above = row["owner_uuid"] if row else None

# SPDX-License-Identifier: Apache-2.0
"""Paths and methods of the API, and what each one means. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ..refusal import Refusal
from ..store.resources import (
    ABSENT,
    COLLECTIONS,
    CONTAINER_REQUESTS,
    CONTAINERS,
    GROUPS,
    LINKS,
    TOKENS,
    USERS,
    WORKFLOWS,
    Resource,
)
from .records import is_uuid


@dataclass(frozen=True, slots=True)
class Call:
    """The call that a method and path mean: a function's name, and the record or resource it is about."""

    function: str
    resource: Resource | None = None
    uuid: str = ""

    @property
    def writes(self) -> bool:
        """Say if the function changes anything."""
        return self.function in ("create", "update", "delete", "trash", "untrash")


#: Functions by HTTP method, on a resource and on one of its records.
_COLLECTIVE = {"GET": "list", "POST": "create"}
_SINGLE = {"GET": "get", "PUT": "update", "PATCH": "update", "DELETE": "delete"}

#: Special paths of two parts: function by (resource, id).
_SPECIAL = {
    ("users", "current"): Call("current_user", USERS),
    ("api_client_authorizations", "current"): Call("current_token", TOKENS),
    ("containers", "current"): Call("current_container", CONTAINERS),
    ("keep_services", "accessible"): Call("keep_services"),
    ("groups", "contents"): Call("contents", GROUPS),
    ("groups", "shared"): Call("shared", GROUPS),
}
_TOP = {
    "config": Call("config"),
    "vocabulary": Call("vocabulary"),
    "keep_services": Call("keep_services"),
}
#: Paths of Arvados that end in these words, and resources of which only a part is here.
_ABSENT_ACTIONS = frozenset({"contents", "provenance", "used_by"})
_PARTIAL = frozenset({"users", "api_client_authorizations", "containers", "container_requests"})

_WRITABLE = {resource.name: resource for resource in (COLLECTIONS, LINKS, GROUPS, WORKFLOWS, CONTAINER_REQUESTS)}
_READABLE = _WRITABLE | {USERS.name: USERS, CONTAINERS.name: CONTAINERS}


def route(method: str, path: str) -> Call:
    """The call that a request makes; raises Refusal 404, 405, or 501 for parts of Arvados that are not here."""
    parts = path.strip("/").split("/")
    calls = _calls(parts)
    method = "GET" if method == "HEAD" else method
    if method in calls:
        return calls[method]
    if parts[0] in ABSENT or (parts[-1] in _ABSENT_ACTIONS and not calls) or parts[0] in _PARTIAL:
        raise Refusal(501, f"{method} {'/'.join(parts)} is not part of the embedded site")
    if calls:
        raise Refusal(405, "API endpoint not found")
    raise Refusal(404, "Path not found")


def _calls(parts: list[str]) -> dict[str, Call]:
    """The call by HTTP method that a path has."""
    if len(parts) == 1 and parts[0] in _TOP:
        return {"GET": _TOP[parts[0]]}
    if len(parts) == 2 and (parts[0], parts[1]) in _SPECIAL:
        return {"GET": _SPECIAL[parts[0], parts[1]]}
    resource = _READABLE.get(parts[0])
    if resource is None:
        return {"GET": Call("keep_service", uuid=parts[1])} if parts[:-1] == ["keep_services"] else {}
    usable: dict[str, str] = {}
    if len(parts) == 1:
        usable = _COLLECTIVE
    elif len(parts) == 2 and (is_uuid(parts[1]) or resource is COLLECTIONS):
        usable = _SINGLE
    elif len(parts) == 3 and parts[2] in ("trash", "untrash") and "is_trashed" in resource.columns:
        usable = {"POST": parts[2]}
    uuid = parts[1] if len(parts) > 1 else ""
    if resource is CONTAINERS:
        usable = {method: name if method == "GET" else "refuse_container" for method, name in usable.items()}
    writable = resource.name in _WRITABLE or resource is CONTAINERS
    return {method: Call(name, resource, uuid) for method, name in usable.items() if writable or method == "GET"}

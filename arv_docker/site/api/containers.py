# SPDX-License-Identifier: Apache-2.0
"""The rules of container requests and containers. Nothing runs here.

A committed request is given a container, so that clients can ask who uses an image; the container stays in the state
Queued (docs/spec/arvados-images.md#container-requests).
"""

from __future__ import annotations

from ..refusal import Json, Record, Refusal, invalid
from ..store import clock
from ..store.database import encode_value, insertion
from ..store.resources import COLLECTIONS, CONTAINER_REQUESTS, CONTAINERS
from .filters import Clause, all_of
from .images import image_hash
from .permissions import readable
from .records import Context, fetch_record, remove, require_write

UNCOMMITTED, COMMITTED, FINAL = "Uncommitted", "Committed", "Final"

#: States that may follow each state; None is before there is a request.
_NEXT: dict[Json, tuple[str, ...]] = {
    None: (UNCOMMITTED, COMMITTED),
    UNCOMMITTED: (UNCOMMITTED, COMMITTED),
    COMMITTED: (COMMITTED, FINAL),
    FINAL: (FINAL,),
}

MAX_PRIORITY = 1000

#: Bytes of local cache that a container has at least, and at most where nobody asks for more.
_LEAST_CACHE, _MOST_CACHE = 2 << 30, 32 << 30

#: Attributes of which a request has one whatever is given, and those that the site sets.
_DEFAULTS: Record = {
    "cwd": ".",
    "environment": {},
    "mounts": {},
    "output_glob": [],
    "output_properties": {},
    "output_storage_classes": ["default"],
    "output_ttl": 0,
    "priority": 0,
    "published_ports": {},
    "service": False,
    "state": UNCOMMITTED,
    "use_existing": True,
    "container_count_max": 3,
    "container_count": 0,
    "cumulative_cost": 0,
}
_BY_SITE = ("container_uuid", "container_count", "requesting_container_uuid", "log_uuid", "output_uuid")

#: Attributes that may change when a request is committed.
_ALWAYS = frozenset(
    ["owner_uuid", "name", "description", "properties", "priority", "state", "output_name", "expires_at"]
)

_RUNTIME: Record = {
    "API": False,
    "gpu": {"device_count": 0, "driver_version": "", "hardware_target": [], "stack": "", "vram": 0},
    "keep_cache_disk": 0,
    "keep_cache_ram": 0,
    "ram": 0,
    "vcpus": 0,
}
_SCHEDULING: Record = {"max_run_time": 0, "partitions": [], "preemptible": False, "supervisor": False}

#: A mount as a single request shows it; what is so anyway is not stored.
MOUNT: Record = {
    "capacity": 0,
    "content": None,
    "device_type": "",
    "exclude_from_output": False,
    "kind": "",
    "path": "",
    "portable_data_hash": "",
    "uuid": "",
    "writable": False,
}

#: Attributes by which a container of an earlier request is the one that a new request means.
_REUSED = (
    "command",
    "cwd",
    "environment",
    "output_path",
    "output_glob",
    "container_image",
    "mounts",
    "runtime_constraints",
    "service",
    "published_ports",
)


def check_request(context: Context, old: Record | None, new: Record) -> None:
    """Fill in and check a container request that is about to be written; a committed one gets a container."""
    _fill(new)
    state = old["state"] if old else None
    if new["state"] not in _NEXT[state]:
        raise invalid(f"State cannot change from {state or ''} to {new['state']}")
    _check_set_by_site(old, new)
    _check_content(new)
    if state in (COMMITTED, FINAL):
        _check_unchanged(old or {}, new)
    elif new["state"] == COMMITTED:
        _check_resources(new)
        new["container_uuid"] = _container(context, new)
        new["container_count"] = 1
    if new["container_uuid"] is not None and (
        old is None or any(new[name] != old[name] for name in ("priority", "state", "container_uuid"))
    ):
        _set_priority(context, new)


def delete_request(context: Context, record: Record) -> Record:
    """Delete a request for good; its container, if no other request wants it, gets the priority 0."""
    require_write(context, CONTAINER_REQUESTS, record)
    if record["state"] == COMMITTED:
        record = record | {"priority": 0}
    if record["container_uuid"] is not None:
        _set_priority(context, record | {"priority": 0})
    remove(context, CONTAINER_REQUESTS, record)
    return record


def refuse_container(context: Context, uuid: str) -> Record:
    """Refuse to write a container, whoever asks: they come from requests alone."""
    if uuid:
        fetch_record(context, CONTAINERS, uuid)
    raise Refusal(403, "containers are made and changed by the site alone: create a container request")


def refuse_current() -> Record:
    """Refuse the question in which container the caller runs: in none."""
    raise Refusal(404, "Token is not assigned to a container.")


# -- checks -----------------------------------------------------------------------------


def _fill(new: Record) -> None:
    for name, value in _DEFAULTS.items():
        if new[name] is None:
            new[name] = value
    new["runtime_constraints"] = _RUNTIME | _mapping(new["runtime_constraints"])
    new["scheduling_parameters"] = _SCHEDULING | _mapping(new["scheduling_parameters"])
    new["mounts"] = {path: _compact_mount(path, mount) for path, mount in _mapping(new["mounts"]).items()}


def _mapping(value: Json) -> Record:
    return value if isinstance(value, dict) else {}


def _compact_mount(path: str, mount: Json) -> Json:
    if not isinstance(mount, dict) or not isinstance(mount.get("kind"), str):
        raise invalid(f"mounts: the mount at {path!r} must be an object with a kind")
    return {name: value for name, value in mount.items() if name not in MOUNT or value != MOUNT[name]}


def _check_set_by_site(old: Record | None, new: Record) -> None:
    for name in _BY_SITE:
        if new[name] != (old[name] if old else _DEFAULTS.get(name)):
            raise invalid(f"{_human(name)} cannot be set: the site does that")


def _check_content(new: Record) -> None:
    problems = [
        f"{_human(name)} can't be blank" for name in ("command", "container_image", "output_path") if not new[name]
    ]
    if new["output_path"] not in _mapping(new["mounts"]):
        problems.append("Output path must be a mount target")
    priority = new["priority"]
    if not isinstance(priority, int) or not 0 <= priority <= MAX_PRIORITY:
        problems.append(f"Priority must be between 0 and {MAX_PRIORITY}")
    if problems:
        raise invalid("; ".join(problems))


def _check_resources(new: Record) -> None:
    constraints = _mapping(new["runtime_constraints"])
    problems = [
        f"Runtime constraints [{name}]={constraints[name]} must be a positive integer"
        for name in ("vcpus", "ram")
        if not _is_positive(constraints[name])
    ]
    if problems:
        raise invalid("; ".join(problems))


def _is_positive(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _check_unchanged(old: Record, new: Record) -> None:
    for name in CONTAINER_REQUESTS.columns:
        if name not in _ALWAYS and new[name] != old[name]:
            raise invalid(f"{_human(name)} cannot be modified in state '{old['state']}'")


def _human(name: str) -> str:
    return name.replace("_", " ").capitalize()


# -- containers -------------------------------------------------------------------------


def _container(context: Context, request: Record) -> str:
    """The UUID of the container for a request: that of an equal request, if the request allows, else a new one."""
    system = context.settings.system_user_uuid
    container: Record = dict.fromkeys(CONTAINERS.columns) | {
        "uuid": context.settings.new_uuid(CONTAINERS.infix),
        "owner_uuid": system,
        "created_at": context.stamp,
        "modified_at": context.stamp,
        "modified_by_user_uuid": system,
        "container_image": image_hash(context, str(request["container_image"])),
        "mounts": _container_mounts(context, _mapping(request["mounts"])),
        "runtime_constraints": _container_constraints(_mapping(request["runtime_constraints"])),
        "state": "Queued",
        "priority": 0,
        "runtime_status": {},
        "runtime_user_uuid": context.caller.user_uuid,
        "runtime_auth_scopes": ["all"],
        "lock_count": 0,
        "interactive_session_started": False,
        "cost": 0.0,
        "subrequests_cost": 0.0,
    }
    for name in CONTAINERS.columns:
        if container[name] is None and name in request and name not in ("priority", "state"):
            container[name] = request[name]
    if request["use_existing"] and (found := _equal_container(context, container)):
        return found
    context.connection.execute(*insertion(CONTAINERS, container))
    return str(container["uuid"])


def _equal_container(context: Context, container: Record) -> str | None:
    """The UUID of a container that waits and does the very same as ``container``."""
    conditions = [f"same_json({name}, ?)" if isinstance(container[name], dict) else f"{name} = ?" for name in _REUSED]
    row = context.connection.execute(
        f"SELECT uuid FROM containers WHERE state = 'Queued' AND {' AND '.join(conditions)} "  # noqa: S608
        "ORDER BY priority DESC, created_at LIMIT 1",
        [encode_value(container[name]) for name in _REUSED],
    ).fetchone()
    return None if row is None else str(row["uuid"])


def _container_mounts(context: Context, mounts: Record) -> Record:
    """The mounts with every collection by its content, which the caller must be able to read."""
    found: Record = {}
    for path, mount in mounts.items():
        given = _mapping(mount)
        if given.get("kind") == "collection" and (given.get("uuid") or given.get("portable_data_hash")):
            pdh = _collection_hash(context, given)
            given = {name: value for name, value in given.items() if name != "uuid"} | {"portable_data_hash": pdh}
        found[path] = given
    return found


def _collection_hash(context: Context, mount: Record) -> str:
    column = "uuid" if mount.get("uuid") else "portable_data_hash"
    allowed = all_of([Clause(f"{column} = ?", (str(mount[column]),)), readable(COLLECTIONS, context.caller)])
    row = context.connection.execute(
        f"SELECT portable_data_hash FROM collections WHERE {allowed.sql} LIMIT 1",  # noqa: S608
        allowed.values,
    ).fetchone()
    if row is None:
        raise invalid(f"cannot mount collection {mount[column]!r}: not found")
    return str(row[0])


def _container_constraints(constraints: Record) -> Record:
    """The constraints with the local cache that a container has where none is asked for."""
    if constraints["keep_cache_ram"] or constraints["keep_cache_disk"] or not isinstance(constraints["ram"], int):
        return constraints
    return constraints | {"keep_cache_disk": min(max(constraints["ram"], _LEAST_CACHE), _MOST_CACHE)}


def _set_priority(context: Context, request: Record) -> None:
    """Give a request's container the highest priority that a committed request has for it, earlier ones first."""
    first = context.connection.execute(
        "SELECT priority, created_at, state FROM container_requests "
        "WHERE container_uuid = ? AND uuid != ? AND state = ? ORDER BY priority DESC, created_at LIMIT 1",
        (request["container_uuid"], request["uuid"], COMMITTED),
    ).fetchone()
    priority = max(_combined_priority(request), _combined_priority(dict(first)) if first else 0)
    context.connection.execute(
        "UPDATE containers SET priority = ?, modified_at = ? WHERE uuid = ?",
        (priority, context.stamp, request["container_uuid"]),
    )


def _combined_priority(request: Record) -> int:
    """The priority of a request's container: of equal numbers the earlier request wins; 0 is none."""
    if request["state"] != COMMITTED or not request["priority"]:
        return 0
    return (int(str(request["priority"])) << 50) - int(clock.moment_of(str(request["created_at"])).timestamp() * 1000)

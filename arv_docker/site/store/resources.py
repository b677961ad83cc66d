# SPDX-License-Identifier: Apache-2.0
"""The kinds of record and their columns, as one compact table that every other module reads.

From it come the database's tables, the discovery document, the check of attributes,
the operators that a filter may use, and the shape of an answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

from ..refusal import Json


class Kind(Enum):
    """The type of a column; its value is the type's name in the discovery document."""

    STRING = "string"
    TEXT = "text"
    DATETIME = "datetime"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    FLOAT = "float"
    HASH = "Hash"
    ARRAY = "Array"


_SHORT = {
    "s": Kind.STRING,
    "t": Kind.TEXT,
    "d": Kind.DATETIME,
    "i": Kind.INTEGER,
    "b": Kind.BOOLEAN,
    "f": Kind.FLOAT,
    "h": Kind.HASH,
    "a": Kind.ARRAY,
}

#: Attributes that clients may send back but never set (docs/spec/arvados-api.md#requests).
IGNORED = frozenset(
    [
        "kind",
        "etag",
        "href",
        "self_link",
        "created_at",
        "modified_at",
        "modified_by_user_uuid",
        "modified_by_client_uuid",
        "unsigned_manifest_text",
        "file_count",
        "file_size_total",
        "can_write",
        "can_manage",
        "writable_by",
        "head_kind",
        "tail_kind",
    ]
)


@dataclass(frozen=True, slots=True)
class Column:
    """One attribute of a record."""

    name: str
    kind: Kind
    #: Shown where nothing is stored: most texts are then "", the rest null (docs/spec/arvados-api.md#shapes).
    absent: Json = None


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of record: names, the five letters in UUIDs, columns."""

    name: str
    singular: str
    class_name: str
    infix: str
    columns: dict[str, Column] = field(repr=False)
    #: Columns of the database that no answer shows and only filters see.
    hidden: frozenset[str] = frozenset()
    #: A real server answers without its controller: absent texts are null, ``select`` adds nothing.
    direct: bool = False
    #: Attributes that a create or update may give, and that are not kept.
    dropped: frozenset[str] = frozenset()

    @property
    def kind(self) -> str:
        """The ``kind`` of an object of this resource."""
        return "arvados#" + self.class_name[0].lower() + self.class_name[1:]

    @property
    def selectable(self) -> tuple[str, ...]:
        """The attributes that an object has, beside ``kind`` and ``etag``."""
        return tuple(name for name in self.columns if name not in self.hidden)


_COMMON = "uuid:s owner_uuid:s created_at:d modified_at:d modified_by_user_uuid:s "

#: Texts that are null, not "", where nothing is stored.
_NULL_TEXTS = frozenset({"description", "frozen_by_uuid"})


def _null_columns(table: str) -> dict[str, Column]:
    """Columns with null for no value."""
    return {name: replace(column, absent=None) for name, column in _columns(table).items()}


def _columns(table: str) -> dict[str, Column]:
    found = {}
    for word in (_COMMON + table).split():
        name, letter = word.split(":")
        kind = _SHORT[letter]
        textual = kind in (Kind.STRING, Kind.TEXT) and name not in _NULL_TEXTS
        found[name] = Column(name, kind, absent="" if textual else None)
    return found


COLLECTIONS = Resource(
    "collections",
    "collection",
    "Collection",
    "4zz18",
    _columns(
        "name:s description:s properties:h portable_data_hash:s manifest_text:t replication_desired:i "
        "replication_confirmed:i replication_confirmed_at:d storage_classes_desired:a "
        "storage_classes_confirmed:a storage_classes_confirmed_at:d trash_at:d delete_at:d is_trashed:b "
        "version:i current_version_uuid:s preserve_version:b file_count:i file_size_total:i file_names:t"
    ),
    hidden=frozenset({"file_names"}),
)
LINKS = Resource("links", "link", "Link", "o0j2j", _columns("link_class:s name:s head_uuid:s tail_uuid:s properties:h"))
GROUPS = Resource(
    "groups",
    "group",
    "Group",
    "j7d0g",
    _columns("name:s group_class:s description:s properties:h trash_at:d delete_at:d is_trashed:b frozen_by_uuid:s"),
)
USERS = Resource(
    "users",
    "user",
    "User",
    "tpzed",
    _columns("email:s username:s first_name:s last_name:s identity_url:s is_active:b is_admin:b is_invited:b prefs:h"),
)
KEEP_SERVICES = Resource(
    "keep_services",
    "keep_service",
    "KeepService",
    "bi6l4",
    _columns("service_host:s service_port:i service_ssl_flag:b service_type:s read_only:b"),
)
TOKENS = Resource(
    "api_client_authorizations",
    "api_client_authorization",
    "ApiClientAuthorization",
    "gj3su",
    _columns("api_token:s created_by_ip_address:s last_used_by_ip_address:s last_used_at:d expires_at:d scopes:a"),
)

WORKFLOWS = Resource(
    "workflows",
    "workflow",
    "Workflow",
    "7fd4e",
    _null_columns("name:s description:s definition:t collection_uuid:s"),
    direct=True,
)
CONTAINER_REQUESTS = Resource(
    "container_requests",
    "container_request",
    "ContainerRequest",
    "xvhdp",
    _columns("name:s")
    | _null_columns(
        "description:s properties:h state:s requesting_container_uuid:s container_uuid:s "
        "container_count_max:i mounts:h runtime_constraints:h container_image:s environment:h cwd:s command:a "
        "output_path:s priority:i expires_at:d filters:t container_count:i use_existing:b scheduling_parameters:h "
        "output_uuid:s log_uuid:s output_name:s output_ttl:i output_storage_classes:a output_properties:h "
        "cumulative_cost:f output_glob:a service:b published_ports:h"
    ),
    dropped=frozenset({"runtime_token", "secret_mounts"}),
)
CONTAINERS = Resource(
    "containers",
    "container",
    "Container",
    "dz642",
    _null_columns(
        "state:s started_at:d finished_at:d log:s environment:h cwd:s command:a output_path:s mounts:h "
        "runtime_constraints:h output:s container_image:s progress:f priority:i exit_code:i auth_uuid:s "
        "locked_by_uuid:s scheduling_parameters:h runtime_status:h runtime_user_uuid:s runtime_auth_scopes:a "
        "lock_count:i gateway_address:s interactive_session_started:b output_storage_classes:a output_properties:h "
        "cost:f subrequests_cost:f output_glob:a service:b published_ports:h"
    ),
    direct=True,
)

#: The resources that answer requests.
SERVED = {
    resource.name: resource
    for resource in (
        COLLECTIONS,
        LINKS,
        GROUPS,
        USERS,
        KEEP_SERVICES,
        TOKENS,
        WORKFLOWS,
        CONTAINER_REQUESTS,
        CONTAINERS,
    )
}

#: UUID infix by class, also of classes that this site has no records of: clients map UUIDs to
#: classes with it, filters of ``is_a`` use it (docs/spec/arvados-api.md#uuids).
INFIXES = {resource.class_name: resource.infix for resource in SERVED.values()} | {
    "AuthorizedKey": "fngyi",
    "Credential": "oss07",
    "Log": "57u5n",
    "UserAgreement": "gv0sa",
    "VirtualMachine": "2x53u",
}

#: Resources and paths of Arvados that this site does not have.
ABSENT = frozenset(
    [
        "authorized_keys",
        "computed_permissions",
        "credentials",
        "logs",
        "permissions",
        "user_agreements",
        "virtual_machines",
        "sys",
    ]
)


def kind_of_uuid(uuid: str) -> str:
    """The ``kind`` of the object with that UUID, or "" for an unknown kind."""
    for class_name, infix in INFIXES.items():
        if uuid[6:11] == infix and len(uuid) == 27:
            return "arvados#" + class_name[0].lower() + class_name[1:]
    return ""

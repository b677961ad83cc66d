# SPDX-License-Identifier: Apache-2.0
"""Self-description of the site: the discovery document, the exported configuration, its Keep service.

All three name addresses, taken from the request (``Origin``), so that they hold for whoever
asked, behind a proxy too. Resources, methods and parameters follow a naming rule
(docs/spec/arvados-clients.md#discovery-document), so the document is made from a table.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..refusal import Json, Record
from ..store.resources import (
    COLLECTIONS,
    CONTAINER_REQUESTS,
    CONTAINERS,
    GROUPS,
    INFIXES,
    KEEP_SERVICES,
    LINKS,
    SERVED,
    TOKENS,
    USERS,
    WORKFLOWS,
    Resource,
)
from ..store.settings import Settings
from .parameters import MAX_LIMIT

#: API revision whose features the site has; clients compare it as text
#: (docs/spec/arvados-clients.md#discovery-document).
REVISION = "20250402"

#: Largest body of an API request, in bytes.
MAX_REQUEST = 128 << 20


@dataclass(frozen=True, slots=True)
class Origin:
    """The address under which a client reached the site."""

    scheme: str
    host: str
    port: int

    @property
    def url(self) -> str:
        """The address as text: ``scheme://host:port/``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}/"


def origin_of(scheme: str, host: str) -> Origin:
    """The origin that a Host header (``name``, ``name:port``, ``[v6]:port``) and a scheme name."""
    name, bracket, rest = host.removeprefix("[").partition("]") if host.startswith("[") else (host, "", "")
    if not bracket:
        name, _, rest = host.partition(":")
    digits = rest.removeprefix(":")
    port = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 6 else 0
    return Origin(scheme, name or "localhost", port or (443 if scheme == "https" else 80))


_PARAMETERS: dict[str, tuple[str, str | None]] = {
    # name: (type, default)
    "filters": ("array", None),
    "order": ("array", None),
    "select": ("array", None),
    "distinct": ("boolean", "false"),
    "limit": ("integer", "100"),
    "offset": ("integer", "0"),
    "count": ("string", "exact"),
    "cluster_id": ("string", None),
    "bypass_federation": ("boolean", "false"),
    "include_trash": ("boolean", "false"),
    "include_old_versions": ("boolean", "false"),
    "ensure_unique_name": ("boolean", "false"),
    "async": ("boolean", "false"),
    "uuid": ("string", ""),
    "include": ("array", None),
    "recursive": ("boolean", "false"),
    "exclude_home_project": ("boolean", "false"),
}
_LIST = "filters order select distinct limit offset count cluster_id bypass_federation"

#: Method by name: HTTP method, path below the resource, parameters beside ``uuid``.
_METHODS = {
    "list": ("GET", "", _LIST),
    "get": ("GET", "/{uuid}", "select"),
    "create": ("POST", "", "select ensure_unique_name cluster_id"),
    "update": ("PUT", "/{uuid}", "select"),
    "delete": ("DELETE", "/{uuid}", ""),
    "trash": ("POST", "/{uuid}/trash", ""),
    "untrash": ("POST", "/{uuid}/untrash", ""),
    "current": ("GET", "/current", ""),
    "accessible": ("GET", "/accessible", ""),
    "contents": ("GET", "/contents", _LIST),
    "shared": ("GET", "/shared", _LIST),
}

#: What each resource has, and parameters beyond the usual.
_RESOURCES: tuple[tuple[Resource, str, dict[str, str]], ...] = (
    (
        COLLECTIONS,
        "list get create update delete trash untrash",
        {"list": "include_trash include_old_versions", "get": "include_trash"},
    ),
    (LINKS, "list get create update delete", {}),
    (
        GROUPS,
        "list get create update delete trash untrash contents shared",
        {
            "list": "include_trash",
            "get": "include_trash",
            "create": "async",
            "update": "async",
            "contents": "uuid include recursive exclude_home_project include_trash include_old_versions",
            "shared": "include:string",
        },
    ),
    (USERS, "list get current", {}),
    (KEEP_SERVICES, "list get accessible", {}),
    (TOKENS, "current", {}),
    (WORKFLOWS, "list get create update delete", {}),
    (
        CONTAINER_REQUESTS,
        "list get create update delete",
        {"list": "include_trash", "get": "include_trash"},
    ),
    # Writing is refused to everybody; arvados-cwl-runner looks whether the method is there before it submits anything.
    (CONTAINERS, "list get create update delete current", {}),
)


def document(settings: Settings, origin: Origin) -> Record:
    """The discovery document."""
    resources: Record = {
        resource.name: {"methods": {name: _method(resource, name, extra.get(name, "")) for name in names.split()}}
        for resource, names, extra in _RESOURCES
    }
    for name, path in (("configs", "config"), ("vocabularies", "vocabulary")):
        resources[name] = {"methods": {"get": _plain_method(f"arvados.{name}.get", path)}}
    return {
        "kind": "discovery#restDescription",
        "discoveryVersion": "v1",
        "id": "arvados:v1",
        "name": "arvados",
        "version": "v1",
        "revision": REVISION,
        "title": "Arvados API",
        "description": "The part of the Arvados API that an embedded site has.",
        "protocol": "rest",
        "rootUrl": origin.url,
        "baseUrl": origin.url + "arvados/v1/",
        "basePath": "/arvados/v1/",
        "servicePath": "arvados/v1/",
        "batchPath": "batch",
        "uuidPrefix": settings.cluster_id,
        # One copy: there is one disk, and clients give up where fewer copies are made than they want.
        "defaultCollectionReplication": 1,
        "defaultTrashLifetime": settings.trash_lifetime,
        "blobSignatureTtl": settings.blob_signature_ttl,
        "maxRequestSize": MAX_REQUEST,
        "maxItemsPerResponse": MAX_LIMIT,
        "dockerImageFormats": ["v2"],
        "remoteHosts": {},
        "remoteHostsViaDNS": False,
        "websocketUrl": "",
        "workbenchUrl": "",
        "workbench2Url": "",
        "keepWebServiceUrl": "",
        "sourceVersion": "unknown",
        "packageVersion": "unknown",
        "parameters": {"alt": {"type": "string", "default": "json", "location": "query"}},
        "schemas": _schemas(),
        "resources": resources,
    }


def configuration(settings: Settings, origin: Origin) -> Record:
    """The answer to ``GET config``: the settings of the cluster that clients may know."""
    hours = f"{settings.blob_signature_ttl // 3600}h"
    services: Record = {
        name: {"ExternalURL": origin.url if name in ("Controller", "Keepstore") else ""}
        for name in [
            "Controller",
            "Keepproxy",
            "Keepstore",
            "Websocket",
            "WebDAV",
            "WebDAVDownload",
            "Workbench1",
            "Workbench2",
        ]
    }
    return {
        "ClusterID": settings.cluster_id,
        "API": {"MaxItemsPerResponse": MAX_LIMIT, "MaxRequestSize": MAX_REQUEST, "RequestTimeout": "5m"},
        "Collections": {
            "BlobSigning": True,
            "BlobSigningTTL": hours,
            "CollectionVersioning": False,
            "DefaultReplication": 1,
            "DefaultTrashLifetime": f"{settings.trash_lifetime // 3600}h",
            "ForwardSlashNameSubstitution": "",
            "ManagedProperties": {},
            "TrustAllContent": False,
        },
        "Containers": {"DefaultKeepCacheRAM": 0, "SupportedDockerImageFormats": {"v2": {}}},
        "Login": {"LoginCluster": ""},
        "RemoteClusters": {},
        "Services": services,
        "StorageClasses": {"default": {"Default": True, "Priority": 0}},
        "Users": {"AnonymousUserToken": "", "CanCreateRoleGroups": False},
        "Volumes": {},
    }


def keep_service(settings: Settings, origin: Origin) -> Record:
    """The record of the site's only Keep service, with the address of the present request."""
    return {
        "uuid": settings.keep_service_uuid,
        "owner_uuid": settings.system_user_uuid,
        "created_at": settings.created_at,
        "modified_at": settings.created_at,
        "modified_by_user_uuid": settings.system_user_uuid,
        "service_host": origin.host,
        "service_port": origin.port,
        "service_ssl_flag": origin.scheme == "https",
        "service_type": "disk",
        "read_only": False,
    }


def _method(resource: Resource, name: str, extra: str) -> Record:
    http_method, path, usual = _METHODS[name]
    method = _plain_method(f"arvados.{resource.name}.{name}", resource.name + path)
    parameters: Record = {}
    if "{uuid}" in path:
        parameters["uuid"] = {"type": "string", "required": True, "location": "path"}
        method["parameterOrder"] = ["uuid"]
    for word in f"{usual} {extra}".split():
        parameter, _, kind = word.partition(":")
        parameters[parameter] = _parameter(parameter) | ({"type": kind} if kind else {})
    method |= {"httpMethod": http_method, "parameters": parameters}
    method["response"] = {"$ref": resource.class_name + ("List" if name == "list" else "")}
    if name in ("create", "update"):
        # No "$ref" at the top: the Python client then sends the body as it is
        # (docs/spec/arvados-clients.md#discovery-document).
        properties: Record = {resource.singular: {"$ref": resource.class_name}}
        method["request"] = {"required": True, "properties": properties}
    return method


def _plain_method(method_id: str, path: str) -> Record:
    return {
        "id": method_id,
        "path": path,
        "httpMethod": "GET",
        "parameters": {},
        "response": {},  # without the key, the Python client hands out bytes instead of JSON
        "scopes": ["https://api.arvados.org/auth/arvados"],
    }


def _parameter(name: str) -> Record:
    kind, default = _PARAMETERS[name]
    found: Record = {"type": kind, "required": False, "location": "query"}
    return found if default is None else found | {"default": default}


def _schemas() -> Record:
    schemas: Record = {
        name: {"id": name, "type": "object", "uuidPrefix": infix, "properties": {}} for name, infix in INFIXES.items()
    }
    for resource in SERVED.values():
        name = resource.class_name
        properties: Record = {"etag": {"type": "string"}}
        properties |= {key: {"type": resource.columns[key].kind.value} for key in resource.selectable}
        schemas[name] = {"id": name, "type": "object", "uuidPrefix": resource.infix, "properties": properties}
        items: dict[str, Json] = {"type": "array", "items": {"$ref": name}}
        schemas[name + "List"] = {
            "id": name + "List",
            "type": "object",
            "properties": {"kind": {"type": "string"}, "etag": {"type": "string"}, "items": items},
        }
    return schemas

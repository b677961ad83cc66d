# SPDX-License-Identifier: Apache-2.0
"""A cluster: API and Keep, through a client object of the Arvados SDK, with our errors and records.

The one place where that object is asked, but that ``put`` sends blocks by it, and where JSON
becomes values; ``sdk`` makes it.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..errors import ClusterError, KeepError
from . import sdk
from .api_requests import RETRIES, ApiRequests
from .block_put import BlockWriter

log = logging.getLogger(__name__)

Filter = list[Any]
Record = Mapping[str, Any]
Value = TypeVar("Value")

#: Reading a block is tried again fewer times: a server that finds it damaged answers as one that is busy does
#: (502), and ten tries, each after twice the time, are minutes.
_READ_RETRIES = 2

#: Records in a page, and values in an ``in`` filter; the server gives no more than 1,000 rows at once.
PAGE = 1000


@dataclass(frozen=True, slots=True)
class Link:
    """A link record. ``created_at`` is the server's own text."""

    uuid: str
    owner_uuid: str
    link_class: str
    name: str
    head_uuid: str
    tail_uuid: str
    properties: Mapping[str, Any] = field(hash=False)
    created_at: str
    modified_by: str

    FIELDS = (
        "uuid",
        "owner_uuid",
        "link_class",
        "name",
        "head_uuid",
        "tail_uuid",
        "properties",
        "created_at",
        "modified_by_user_uuid",
    )

    @classmethod
    def of(cls, record: Record) -> Link:
        """The link in a record of the API; absent and null values are empty."""
        properties = record.get("properties")
        texts = {key: record.get(key) or "" for key in cls.FIELDS}
        return cls(
            uuid=texts["uuid"],
            owner_uuid=texts["owner_uuid"],
            link_class=texts["link_class"],
            name=texts["name"],
            head_uuid=texts["head_uuid"],
            tail_uuid=texts["tail_uuid"],
            properties=properties if isinstance(properties, dict) else {},
            created_at=texts["created_at"],
            modified_by=texts["modified_by_user_uuid"],
        )


@dataclass(frozen=True, slots=True)
class CollectionRecord:
    """A collection record. ``manifest_text`` is signed for this user, None if not requested.

    ``size`` is that of its files, None where the server does not say.
    ``trash_at`` is when it goes to the trash, empty where it stays.
    ``replication`` and ``storage_classes`` are what its owner wishes; None and () mean the cluster's default.
    """

    uuid: str
    owner_uuid: str
    name: str
    pdh: str
    created_at: str
    modified_by: str
    properties: Mapping[str, Any] = field(hash=False)
    replication: int | None
    storage_classes: tuple[str, ...]
    trash_at: str
    size: int | None
    manifest_text: str | None = field(repr=False)

    FIELDS = (
        "uuid",
        "owner_uuid",
        "name",
        "portable_data_hash",
        "created_at",
        "modified_by_user_uuid",
        "properties",
        "replication_desired",
        "storage_classes_desired",
        "trash_at",
        "file_size_total",
    )

    @classmethod
    def of(cls, record: Record) -> CollectionRecord:
        """The collection in a record of the API; absent and null values are empty."""
        properties = record.get("properties")
        replication, size = record.get("replication_desired"), record.get("file_size_total")
        return cls(
            uuid=record.get("uuid") or "",
            owner_uuid=record.get("owner_uuid") or "",
            name=record.get("name") or "",
            pdh=record.get("portable_data_hash") or "",
            created_at=record.get("created_at") or "",
            modified_by=record.get("modified_by_user_uuid") or "",
            properties=properties if isinstance(properties, dict) else {},
            replication=replication if isinstance(replication, int) else None,
            storage_classes=tuple(record.get("storage_classes_desired") or ()),
            trash_at=record.get("trash_at") or "",
            size=size if isinstance(size, int) else None,
            manifest_text=record.get("manifest_text"),
        )


class Cluster:
    """An Arvados cluster for one user. Records are requested by one thread; blocks by any number."""

    def __init__(self, api: Any, *, retries: int = RETRIES) -> None:
        """Use an API client object of the Arvados SDK, which the caller made."""
        self._api = api
        self._retries = retries
        self._requests = ApiRequests(retries)
        self._read_retries = min(retries, _READ_RETRIES)

    @classmethod
    def from_settings(cls, *, retries: int = RETRIES) -> Cluster:
        """The cluster of the Arvados settings (environment, ``settings.conf``); raises NoCluster without."""
        return cls(sdk.client_from_settings(retries), retries=retries)

    @classmethod
    def from_settings_file(cls, name: str, *, retries: int = RETRIES) -> Cluster:
        """The cluster of the settings file ``<name>.conf``, as arv-copy finds it; raises BadSettings without."""
        return cls(sdk.client_from_settings_file(name, retries), retries=retries)

    @classmethod
    def at_url(cls, url: str, token: str, *, retries: int = RETRIES) -> Cluster:
        """The cluster whose API is at ``url`` (http allowed, as the embedded site has it on loopback)."""
        return cls(sdk.client_at_url(url, token, retries), retries=retries)

    @functools.cached_property
    def _writer(self) -> BlockWriter:
        return BlockWriter(self._api.keep, copies=self.replication, retries=self._retries)

    # -- what the cluster says of itself -------------------------------------------------

    @functools.cached_property
    def user_uuid(self) -> str:
        """UUID of the user whom the token belongs to."""
        return str(self._call(self._api.users().current(), "who this token belongs to")["uuid"])

    @functools.cached_property
    def user_if_known(self) -> str | None:
        """UUID of this user; None where the token's scopes do not allow to ask (403), as for one that may only read
        images."""
        try:
            return self.user_uuid
        except ClusterError as error:
            if error.status != 403:
                raise
            return None

    @property
    def system_user_uuid(self) -> str:
        """UUID of the system user, as which the server acts."""
        return f"{self._discovery('uuidPrefix', 'zzzzz')}-tpzed-000000000000000"

    @property
    def image_formats(self) -> list[str]:
        """The image formats that the cluster accepts: ``v1``, ``v2``; empty where it does not say."""
        return list(self._discovery("dockerImageFormats", []))

    @functools.cached_property
    def replication(self) -> int:
        """Number of copies of a block that a collection gets by default."""
        return int(self._discovery("defaultCollectionReplication", 2))

    def check_writable(self, owner: str) -> None:
        """Raise ClusterError unless ``owner`` is this user, or a project writable for this user."""
        if owner == self.user_uuid:
            return
        record = self._owner(owner)
        if (kind := record.get("group_class") or "project") != "project":
            raise ClusterError(
                f"{owner} is no project, but a group of the class {kind}, and can own nothing.", status=403
            )
        if record.get("can_write") is False:
            raise ClusterError(f"project {owner}: the server does not allow this user to write to it.", status=403)

    def check_creatable(self, *resources: str) -> None:
        """Raise ClusterError unless the token's scopes allow to create records of these kinds (``links``, …)."""
        for resource in resources:
            if not any(map(functools.partial(_allows_creation, resource), self._scopes)):
                raise ClusterError(
                    f"this token may not create {resource}; its scopes are {', '.join(self._scopes) or 'none'}. Use a "
                    "token with more scopes.",
                    status=403,
                )

    @functools.cached_property
    def _scopes(self) -> tuple[str, ...]:
        """Scopes of this token; all where the server does not tell."""
        try:
            token = self._call(self._api.api_client_authorizations().current(), "the scopes of this token")
        except ClusterError as error:
            if not error.is_refusal and error.status != 404:
                raise
            return ("all",)
        scopes = token.get("scopes")
        return tuple(map(str, scopes)) if isinstance(scopes, list) else ("all",)

    def may_write(self, owner: str) -> bool:
        """True if this user may change what ``owner``, a user or a project, owns; not where the owner is not shown."""
        if owner == self.user_uuid:
            return True
        try:
            return self._owner(owner).get("can_write") is not False
        except ClusterError as error:
            if error.status not in (403, 404):
                raise
            return False

    def check_readable(self, owner: str) -> None:
        """Raise ClusterError unless ``owner`` is a user or project that this user can see."""
        self._owner(owner)

    # -- records -------------------------------------------------------------------------

    def links(self, filters: Sequence[Filter]) -> Iterator[Link]:
        """Every link that passes ``filters``, in order of UUID."""
        yield from map(Link.of, self._pages("links", filters, Link.FIELDS))

    def newest_links(self, filters: Sequence[Filter]) -> list[Link]:
        """The links that pass ``filters``, the newest first, as many as one request gives."""
        request = self._api.links().list(
            filters=list(filters), select=list(Link.FIELDS), order=["created_at desc"], limit=PAGE, count="none"
        )
        return [Link.of(record) for record in self._call(request, "the list of links").get("items") or []]

    def collections(self, filters: Sequence[Filter], *, manifest: bool = False) -> Iterator[CollectionRecord]:
        """Every readable collection that passes ``filters`` and is not in the trash, in order of UUID."""
        fields = (*CollectionRecord.FIELDS, "manifest_text") if manifest else CollectionRecord.FIELDS
        yield from map(CollectionRecord.of, self._pages("collections", filters, fields))

    def collection(self, uuid_or_pdh: str) -> CollectionRecord:
        """Collection with its signed manifest text; raises ClusterError with status 404 if there is none."""
        request = self._api.collections().get(uuid=uuid_or_pdh)
        return CollectionRecord.of(self._call(request, f"collection {uuid_or_pdh}"))

    def create_collection(self, attributes: Record, *, unique_name: bool = True) -> CollectionRecord:
        """Create a collection, once: a failed request may have created it, so the caller looks before trying again.

        A name that its owner has already gets a time behind it; without ``unique_name`` that is status 422.
        """
        request = self._api.collections().create(body=dict(attributes), ensure_unique_name=unique_name)
        return CollectionRecord.of(self._call(request, "creating a collection", retries=0))

    def update_collection(self, uuid: str, attributes: Record) -> None:
        """Change some attributes of a collection."""
        self._call(self._api.collections().update(uuid=uuid, body=dict(attributes)), f"changing collection {uuid}")

    def trash_collection(self, uuid: str) -> None:
        """Put a collection into the trash; one that is not there any more is well."""
        _delete_if_present(lambda: self._call(self._api.collections().delete(uuid=uuid), f"deleting collection {uuid}"))

    def project(self, owner: str, name: str) -> str | None:
        """The UUID of the project of ``owner`` by that name, or None."""
        filters = [["owner_uuid", "=", owner], ["name", "=", name], ["group_class", "=", "project"]]
        found = [record["uuid"] for record in self._pages("groups", filters, ("uuid",))]
        return str(found[0]) if found else None

    def create_project(self, owner: str, name: str) -> str:
        """Create a project, once, like ``create_collection``; return its UUID. Status 422 where the name is taken."""
        request = self._api.groups().create(body={"owner_uuid": owner, "name": name, "group_class": "project"})
        return str(self._call(request, f"creating project {name!r}", retries=0)["uuid"])

    def create_link(self, attributes: Record) -> Link:
        """Create a link, once, like ``create_collection``."""
        request = self._api.links().create(body=dict(attributes))
        return Link.of(self._call(request, "creating a link", retries=0))

    def delete_link(self, uuid: str) -> None:
        """Delete a link; one that is not there any more is well."""
        _delete_if_present(lambda: self._call(self._api.links().delete(uuid=uuid), f"deleting link {uuid}"))

    # -- blocks --------------------------------------------------------------------------

    def put_block(self, content: bytes | memoryview, md5: str = "") -> str:
        """Store a block and return its signed locator; raises KeepError if too few copies were stored.

        ``md5`` is its MD5 in hex, for whoever has it already.
        """
        return self._writer.put(memoryview(content), md5 or hashlib.md5(content, usedforsecurity=False).hexdigest())

    def get_block(self, locator: str) -> bytes:
        """Bytes of a block, checked by hash; raises KeepError if no server has an intact copy."""
        import arvados.errors

        begun = time.monotonic()
        try:
            content: bytes = self._api.keep.get(locator, num_retries=self._read_retries)
        except (arvados.errors.KeepReadError, arvados.errors.NoKeepServersError) as error:
            raise KeepError(
                _block_message("did not give", locator), detail=sdk.without_signatures(str(error))
            ) from error
        name = locator.partition("+A")[0]
        log.debug("GET block %s: %d bytes in %.2f s", name, len(content), time.monotonic() - begun)
        return content

    def has_block(self, locator: str) -> bool:
        """True if a server has the block, readable for this user; raises KeepError without a clear answer."""
        import arvados.errors

        try:
            return bool(self._api.keep.head(locator, num_retries=self._read_retries))
        except arvados.errors.NotFoundError:
            return False
        except (arvados.errors.KeepReadError, arvados.errors.NoKeepServersError) as error:
            raise KeepError(
                _block_message("did not answer for", locator), detail=sdk.without_signatures(str(error))
            ) from error

    # -- private -------------------------------------------------------------------------

    def _owner(self, uuid: str) -> Record:
        kind = self._api.users() if "-tpzed-" in uuid else self._api.groups()
        return self._call(kind.get(uuid=uuid), f"project {uuid}")

    def _discovery(self, key: str, otherwise: Value) -> Value:
        value = self._api._rootDesc.get(key)
        return otherwise if value is None else value

    def _pages(self, resource: str, filters: Sequence[Filter], fields: Sequence[str]) -> Iterator[Record]:
        """Every record, in pages by UUID. The last page is known by being short: one request for a short answer.

        The server may cut a page of large records (docs/spec/arvados-api.md#lists); its
        ``limit`` then says how long a full page would have been. As many records as UUIDs
        were asked for are all of them.
        """
        last: str | None = None
        missing = next((len(operand) for key, operator, operand in filters if (key, operator) == ("uuid", "in")), None)
        while True:
            beyond = [["uuid", ">", last]] if last else []
            request = getattr(self._api, resource)().list(
                filters=[*filters, *beyond], select=list(fields), order=["uuid asc"], limit=PAGE, count="none"
            )
            page = self._call(request, f"the list of {resource}")
            items = page.get("items") or []
            yield from items
            missing = None if missing is None else missing - len(items)
            if len(items) < min(PAGE, int(page.get("limit") or PAGE)) or not items or missing == 0:
                return
            last = items[-1]["uuid"]

    def _call(self, request: Any, what: str, *, retries: int | None = None) -> Record:
        method = getattr(request, "method", "request")
        where = str(getattr(request, "uri", "")).partition("?")[0]  # filters name images; the path is enough
        begun = time.monotonic()
        try:
            answer = self._requests.execute(request, what, retries=retries)
        except ClusterError as error:
            seconds = time.monotonic() - begun
            log.debug("%s %s (%s): status %s after %.2f s", method, where, what, error.status, seconds)
            raise
        log.debug("%s %s (%s): done in %.2f s", method, where, what, time.monotonic() - begun)
        if not isinstance(answer, dict):
            raise ClusterError(f"{what}: the server's answer is no JSON object.")
        return answer


def batches(values: Collection[str], size: int = PAGE) -> Iterator[list[str]]:
    """``values`` without repeats, in order, at most ``size`` at a time: what one ``in`` filter takes.

    With one fewer than PAGE an answer that has a record for each of them is known to be whole.
    """
    distinct = list(dict.fromkeys(values))
    for start in range(0, len(distinct), size):
        yield distinct[start : start + size]


def _delete_if_present(delete: Callable[[], object]) -> None:
    """Delete a record; a record that is gone already, by another client or an earlier try, is no error."""
    try:
        delete()
    except ClusterError as error:
        if error.status != 404:
            raise


def _allows_creation(resource: str, scope: str) -> bool:
    """True if a scope allows to create records of a kind: ``all``, a method and a path, or one that ends with a
    slash."""
    method, _, path = scope.partition(" ")
    wanted = f"/arvados/v1/{resource}"
    return scope == "all" or (method == "POST" and (path == wanted or (path.endswith("/") and wanted.startswith(path))))


def _block_message(verb: str, locator: str) -> str:
    return f"Keep {verb} block {locator.partition('+A')[0]}: it is lost, damaged or not readable with this token."

# SPDX-License-Identifier: Apache-2.0
"""An API client object as the Arvados SDK makes it, over records in memory; counts requests and fails when told."""

from __future__ import annotations

import datetime
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import arvados.errors
import googleapiclient.errors
import httplib2

from arv_docker.arvados.client import Cluster
from arv_docker.model import manifest_text

ME = "zzzzz-tpzed-000000000000001"
OTHER = "zzzzz-tpzed-000000000000002"
SYSTEM = "zzzzz-tpzed-000000000000000"
PROJECT = "zzzzz-j7d0g-000000000000001"

Records = dict[str, dict[str, Any]]


def http_error(status: int, text: str = "refused") -> googleapiclient.errors.HttpError:
    """What the SDK raises for an answer with that status."""
    return googleapiclient.errors.HttpError(httplib2.Response({"status": status}), text.encode())


class Request:
    def __init__(self, execute: Callable[[], Any]) -> None:
        self._execute = execute

    def execute(self, num_retries: int = 0) -> Any:
        return self._execute()


class Resource:
    def __init__(self, api: FakeApi, name: str, records: Records) -> None:
        self._api = api
        self._name = name
        self._records = records

    def list(self, *, filters: Any, select: Any, order: Any, limit: int, count: str) -> Request:
        assert order in (["uuid asc"], ["created_at desc"])
        assert count == "none"

        def execute() -> Any:
            found = [it for it in self._sorted() if all(_passes(it, *rule) for rule in filters)]
            if order == ["created_at desc"]:
                found.sort(key=lambda it: str(it["created_at"]), reverse=True)
            page = min(limit, self._api.largest_page)
            items = [{key: it.get(key) for key in (*select, "kind")} for it in found[:page]]
            return {"items": items, "limit": page}

        return self._request("list", execute)

    def get(self, *, uuid: str) -> Request:
        def execute() -> Any:
            found = [it for it in self._sorted() if uuid in (it["uuid"], it.get("portable_data_hash"))]
            if not found:
                raise http_error(404)
            return dict(found[0])

        return self._request("get", execute)

    def create(self, *, body: Mapping[str, Any], ensure_unique_name: bool = False) -> Request:
        return self._request("create", lambda: dict(self._api.add(self._name, **body)))

    def update(self, *, uuid: str, body: Mapping[str, Any]) -> Request:
        def execute() -> Any:
            self._records[uuid] |= {**body, "modified_by_user_uuid": self._api.user}
            return dict(self._records[uuid])

        return self._request("update", execute)

    def delete(self, *, uuid: str) -> Request:
        return self._request("delete", lambda: self._records.pop(uuid))

    def _sorted(self) -> Iterator[dict[str, Any]]:
        return iter(sorted(self._records.values(), key=lambda it: str(it["uuid"])))

    def _request(self, verb: str, execute: Callable[[], Any]) -> Request:
        return Request(lambda: self._api.answer(f"{self._name}.{verb}", execute))


class FakeKeep:
    """Keep as a dictionary by `md5+size`; there are no services, as with a local store."""

    local_store = "memory"

    def __init__(self) -> None:
        self.blocks: dict[str, bytes] = {}

    def put(self, content: bytes, copies: int) -> str:
        name = f"{hashlib.md5(content).hexdigest()}+{len(content)}"
        self.blocks[name] = content
        return f"{name}+A{'0' * 40}@ffffffff"

    def get(self, locator: str, num_retries: int) -> bytes:
        if (name := locator.partition("+A")[0]) not in self.blocks:
            raise arvados.errors.NotFoundError(f"{name} not found")
        return self.blocks[name]

    def head(self, locator: str, num_retries: int) -> bool:
        return bool(self.get(locator, num_retries)) or True


class Tokens:
    """The token that is used, which has every scope."""

    def __init__(self, api: FakeApi) -> None:
        self._api = api

    def current(self) -> Request:
        return Request(lambda: self._api.answer("tokens.current", lambda: {"scopes": self._api.scopes}))


class FakeApi:
    """`faults` maps a request such as `links.create` to errors to come, first to last; None lets one through.

    An error in a tuple comes after the request was done: its answer was lost.
    """

    def __init__(self, user: str = ME) -> None:
        self.user = user
        self.records: dict[str, Records] = {"links": {}, "collections": {}}
        self.requests: Counter[str] = Counter()
        self.faults: dict[str, list[Exception | tuple[Exception] | None]] = {}
        self.before: dict[str, Callable[[], object]] = {}
        self.largest_page = 1000
        self.scopes = ["all"]
        self.clock = ""
        self.keep = FakeKeep()
        self._rootDesc: dict[str, Any] = {"uuidPrefix": "zzzzz", "dockerImageFormats": ["v2"]}

    def links(self) -> Resource:
        return Resource(self, "links", self.records["links"])

    def collections(self) -> Resource:
        return Resource(self, "collections", self.records["collections"])

    def users(self) -> Any:
        return self

    def groups(self) -> Any:
        """Every project may be written."""
        return self

    def get(self, uuid: str) -> Request:
        return Request(lambda: self.answer("groups.get", lambda: {"uuid": uuid, "can_write": True}))

    def current(self) -> Request:
        return Request(lambda: self.answer("users.current", lambda: {"uuid": self.user}))

    def api_client_authorizations(self) -> Any:
        return Tokens(self)

    def answer(self, request: str, execute: Callable[[], Any]) -> Any:
        self.requests[request] += 1
        if request in self.before:
            self.before.pop(request)()
        fault = self.faults[request].pop(0) if self.faults.get(request) else None
        if isinstance(fault, Exception):
            raise fault
        result = execute()
        if fault is not None:
            raise fault[0]
        return result

    def add(self, resource: str, **record: Any) -> dict[str, Any]:
        """A record that is there, with the keys that a server fills in."""
        kind = {"links": "o0j2j", "collections": "4zz18"}[resource]
        number = sum(map(len, self.records.values())) + sum(self.requests.values())
        defaults = {
            "uuid": f"zzzzz-{kind}-{number:015d}",
            "owner_uuid": self.user,
            "created_at": self.clock or _second(number),
            "modified_by_user_uuid": self.user,
            "properties": {},
        }
        made = {**defaults, **record}
        if resource == "collections":
            made["portable_data_hash"] = manifest_text.pdh(made.setdefault("manifest_text", ""))
        self.records[resource][made["uuid"]] = made
        return made

    def image(self, content: bytes = b"image", image_id: str | None = None, **record: Any) -> dict[str, Any]:
        """A collection that holds an image's file, of one block."""
        image_id = image_id or f"sha256:{hashlib.sha256(content).hexdigest()}"
        block = f"{hashlib.md5(content).hexdigest()}+{len(content)}"
        text = manifest_text.single_file(f"{image_id}.tar", len(content), [block])
        return self.add("collections", manifest_text=text, file_size_total=len(content), **record)

    def link(self, head: Mapping[str, Any], link_class: str, name: str, **record: Any) -> dict[str, Any]:
        """A link to a collection."""
        return self.add("links", head_uuid=head["uuid"], link_class=link_class, name=name, **record)

    @property
    def total(self) -> int:
        """Requests made."""
        return sum(self.requests.values())


def cluster(api: FakeApi) -> Cluster:
    """The cluster behind the fake."""
    return Cluster(api, retries=0)


def _second(number: int) -> str:
    """A time of its own for each record: of links that were written in one second a server prefers either."""
    moment = datetime.datetime(2024, 1, 1) + datetime.timedelta(seconds=number)
    return f"{moment.isoformat()}.{number % 1_000_000:06d}000Z"


def lost() -> tuple[Exception]:
    """An answer that was lost on its way, when the request was done."""
    return (ConnectionResetError("Connection reset by peer"),)


def _passes(record: Mapping[str, Any], key: str, operator: str, operand: Any) -> bool:
    value = record.get(key)
    if operator == "=":
        return bool(value == operand)
    if operator == "in":
        assert len(operand) <= 1000
        return value in operand
    if operator == ">":
        return str(value) > str(operand)
    assert operator == "like"
    return re.fullmatch(_pattern(operand), str(value), re.DOTALL) is not None


def _pattern(like: str) -> str:
    """A regular expression for the operand of LIKE in PostgreSQL: % and _ are wild, a backslash takes that away."""
    tokens = re.findall(r"\\.|.", like, re.DOTALL)
    return "".join({"%": ".*", "_": "."}.get(token, re.escape(token[-1])) for token in tokens)

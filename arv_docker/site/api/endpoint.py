# SPDX-License-Identifier: Apache-2.0
"""The API below ``/arvados/v1``: from a request as a value to an answer as a value. No HTTP library here.

Which paths exist is ``routing``; the function that a path leads to runs in one transaction.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from ..refusal import Json, Record, Refusal, invalid
from ..store import clock
from ..store.database import Database, TookTooLong
from ..store.resources import (
    COLLECTIONS,
    CONTAINER_REQUESTS,
    KEEP_SERVICES,
    LINKS,
    TOKENS,
    USERS,
    WORKFLOWS,
    Resource,
)
from ..store.settings import Settings
from ..store.vocabulary import Vocabulary
from . import collections, containers, contents, discovery, listing, records, trash
from .collections import check_collection
from .discovery import Origin
from .links import check_group, check_link
from .listing import Page, envelope, selection
from .manifests import Manifest, manifest_of
from .parameters import Parameters, merge_parameters
from .permissions import caller_of, owner_of, readable
from .records import Context, Rule
from .routing import Call, route
from .shapes import etag, shape_record
from .workflows import check_workflow

#: Seconds that one request may keep the database busy.
QUERY_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request, as far as the API looks at it; header names are in lower case."""

    method: str
    #: Below ``/arvados/v1/``.
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    origin: Origin


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer with a JSON body."""

    status: int
    body: Record
    request_id: str


@dataclass(frozen=True, slots=True)
class Api:
    """One site's API."""

    database: Database
    settings: Settings
    vocabulary: Vocabulary

    def answer(self, request: Request) -> Answer:
        """The answer to a request; every refusal is one, in the ``errors`` envelope."""
        request_id = request.headers.get("x-request-id") or new_request_id()
        try:
            return Answer(200, self._answer(request), request_id)
        except Refusal as refusal:
            return Answer(refusal.status, errors(refusal.message, request_id), request_id)
        except TookTooLong:
            # Final: with 503 clients would ask the same again and again.
            message = f"the request took more than {QUERY_SECONDS} s of the database: ask for less, by narrower filters"
            return Answer(422, errors(message, request_id), request_id)
        except sqlite3.DatabaseError as error:
            return Answer(
                _status(error), errors(f"the site's database cannot be used: {error}", request_id), request_id
            )

    def knows(self, token: str) -> bool:
        """Say if ``token`` is somebody's and valid now."""
        with self.database.reading(QUERY_SECONDS) as connection:
            return owner_of(connection, token, clock.text_of(clock.current_time())) is not None

    def _answer(self, request: Request) -> Record:
        parameters = merge_parameters(request.query, request.headers.get("content-type", ""), request.body)
        method = _method(request, parameters)
        call = route(method, request.path)
        if call.function in _OPEN:
            return _OPEN[call.function](self, request.origin)
        token = token_of(request.headers, parameters)
        if not token:
            raise Refusal(401, "Not logged in")
        self._sweep(clock.text_of(clock.current_time()))
        manifest = self._manifest(call, parameters, token)
        begin = self.database.writing if call.writes else self.database.reading
        with begin(QUERY_SECONDS) as connection:
            # Read inside the transaction: writers take turns, so what is written later has the later time.
            now = clock.current_time()
            caller = caller_of(connection, token, clock.text_of(now))
            if caller is None:
                raise Refusal(401, "Not logged in")
            if not caller.may_call(method, f"/arvados/v1/{request.path.strip('/')}"):
                raise Refusal(403, "Forbidden")
            context = Context(connection, caller, self.settings, self.vocabulary, now, manifest)
            return _FUNCTIONS[call.function](Work(context, call, parameters, request.origin))

    def _manifest(self, call: Call, parameters: Parameters, token: str) -> Manifest | Refusal | None:
        """The manifest text that a request gives, or its refusal. Read before the transaction: a long one takes
        seconds, for which nobody else could write."""
        if call.resource is not COLLECTIONS or call.function not in ("create", "update"):
            return None
        try:
            given = parameters.attributes(COLLECTIONS.singular).get("manifest_text")
            return manifest_of(given) if isinstance(given, str) and given and self.knows(token) else None
        except Refusal as refusal:
            return refusal

    def _sweep(self, now: str) -> None:
        """Bring the trash up to this moment, without a process of its own."""
        with self.database.reading() as connection:
            due = trash.sweep_due(connection, now)
        if due:
            with self.database.writing() as connection:
                trash.sweep(connection, now)


def _status(error: sqlite3.DatabaseError) -> int:
    """The status of a database error: 507 for a full disk, 503 where a lock was held for too long or the disk
    fails: those may pass. Else 500."""
    if "disk is full" in str(error):
        return 507
    return 503 if isinstance(error, sqlite3.OperationalError) else 500


def errors(message: str, request_id: str) -> Record:
    """The envelope of every refusal."""
    return {"errors": [f"{message} ({request_id})"]}


def new_request_id() -> str:
    """A name for a request without one: ``req-`` and 20 letters or digits."""
    return "req-" + secrets.token_hex(10)


def token_of(headers: dict[str, str], parameters: Parameters | None = None) -> str:
    """The token in a request, or "".

    ``Bearer TOKEN``, ``OAuth2 TOKEN``, Basic with the token as password, or the parameter
    ``api_token``. Schemes are case-sensitive, as on a real server
    (docs/spec/arvados-api.md#authorization).
    """
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme in ("Bearer", "OAuth2"):
        return value.strip()
    if scheme == "Basic":
        try:
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return (parameters.text("api_token") or "") if parameters else ""


def _method(request: Request, parameters: Parameters) -> str:
    """The method that is meant: a POST may stand for another (docs/spec/arvados-api.md#requests)."""
    if request.method != "POST":
        return request.method
    override = request.headers.get("x-http-method-override") or parameters.text("_method")
    return override.upper() if override else "POST"


@dataclass(frozen=True, slots=True)
class Work:
    """A routed call, with all the values for its function."""

    context: Context
    call: Call
    parameters: Parameters
    origin: Origin

    @property
    def resource(self) -> Resource:
        """The resource that the call is about."""
        assert self.call.resource is not None
        return self.call.resource

    def fetch_record(self, *, include_trash: bool | None = None) -> Record:
        """The record that the call is about; raises Refusal 404."""
        trash = self.parameters.flag("include_trash") if include_trash is None else include_trash
        return records.fetch_record(self.context, self.resource, self.call.uuid, include_trash=trash)

    def shape_answer(self, record: Record, *, sign: bool = True, whole: bool = False) -> Record:
        """``record`` as the answer to this call; ``whole`` whatever is selected."""
        select = selection(self.resource, self.parameters)
        answer = shape_record(self.context, self.resource, record, None if whole else select, sign=sign)
        if select is not None and self.resource.direct and "kind" not in select and not whole:
            del answer["kind"]
        return answer


# -- functions --------------------------------------------------------------------------


def _list(work: Work) -> Record:
    resource, context = work.resource, work.context
    if work.parameters.flag("bypass_federation") and not context.caller.is_admin:
        raise Refusal(403, "bypass_federation is for administrators")
    allowed = readable(resource, context.caller, include_trash=work.parameters.flag("include_trash"))
    found = listing.page(context.connection, resource, work.parameters, allowed)
    select = selection(resource, work.parameters)
    return envelope(resource, found, [shape_record(context, resource, record, select) for record in found.records])


def _get(work: Work) -> Record:
    if work.resource is COLLECTIONS and not records.is_uuid(work.call.uuid):
        return work.shape_answer(_by_hash(work)) | {"etag": ""}
    return work.shape_answer(work.fetch_record())


def _by_hash(work: Work) -> Record:
    digest, _, rest = work.call.uuid.partition("+")
    size = rest.split("+")[0]
    if len(digest) != 32 or not digest.isalnum() or not (size.isascii() and size.isdigit()):
        raise Refusal(404, f'invalid UUID or PDH "{work.call.uuid}"')
    return collections.by_hash(work.context, work.call.uuid, include_trash=work.parameters.flag("include_trash"))


def _create(work: Work) -> Record:
    select = selection(work.resource, work.parameters)
    _refuse_replacements(work)
    attributes = work.parameters.attributes(work.resource.singular)
    unique = work.parameters.flag("ensure_unique_name")
    rule = _RULES[work.resource.name]
    record = records.create(work.context, work.resource, attributes, rule, unique_name=unique)
    return shape_record(work.context, work.resource, record, select)


def _update(work: Work) -> Record:
    select = selection(work.resource, work.parameters)
    _refuse_replacements(work)
    attributes = work.parameters.attributes(work.resource.singular)
    rule = _RULES[work.resource.name]
    record = records.update(work.context, work.resource, _record_to_change(work), attributes, rule)
    return shape_record(work.context, work.resource, record, select)


def _record_to_change(work: Work, *, include_trash: bool = False) -> Record:
    """The record to change; a portable data hash names content, which nobody changes."""
    if work.resource is COLLECTIONS and not records.is_uuid(work.call.uuid):
        _by_hash(work)
        raise invalid("a portable data hash cannot be changed or deleted: give the collection's UUID")
    return work.fetch_record(include_trash=include_trash)


def _delete(work: Work) -> Record:
    if work.resource is CONTAINER_REQUESTS:
        return work.shape_answer(containers.delete_request(work.context, work.fetch_record()), whole=True)
    if work.resource in (LINKS, WORKFLOWS):
        record = work.fetch_record()
        records.remove(work.context, work.resource, record)
        return work.shape_answer(record, whole=True)
    return _move_to_trash(work, work.context.settings.blob_signature_ttl)


def _trash(work: Work) -> Record:
    return _move_to_trash(work, work.context.settings.trash_lifetime)


def _move_to_trash(work: Work, lifetime: int) -> Record:
    record = trash.trash(work.context, work.resource, _record_to_change(work, include_trash=True), lifetime)
    return work.shape_answer(record, sign=False, whole=True)


def _untrash(work: Work) -> Record:
    """Take the record out of the trash. Its answer is unsigned, as on a real server
    (docs/spec/arvados-collections.md#unsigned-answers): who wants to read asks again."""
    unique = work.parameters.flag("ensure_unique_name")
    record = trash.untrash(work.context, work.resource, _record_to_change(work, include_trash=True), unique_name=unique)
    return work.shape_answer(record, sign=False, whole=True)


def _refuse_replacements(work: Work) -> None:
    for name in ("replace_files", "replace_segments"):
        if work.parameters.mapping(name):
            raise Refusal(400, f"{name} is not part of the embedded site: send the whole manifest_text")


def _current_user(work: Work) -> Record:
    uuid = work.context.caller.user_uuid
    return work.shape_answer(records.fetch_record(work.context, USERS, uuid))


def _current_token(work: Work) -> Record:
    return work.shape_answer(records.fetch_record(work.context, TOKENS, work.context.caller.token_uuid))


def _keep_service(work: Work) -> Record:
    record = discovery.keep_service(work.context.settings, work.origin)
    if record["uuid"] != work.call.uuid:
        raise Refusal(404, "Path not found")
    return shape_record(work.context, KEEP_SERVICES, record, None)


def _keep_services(api: Api, origin: Origin) -> Record:
    """The list of Keep services, asked for before anybody logs in; the shape is the one that a real server passes
    through (docs/spec/arvados-api.md#shapes)."""
    record = discovery.keep_service(api.settings, origin)
    item: Json = {"kind": KEEP_SERVICES.kind, "etag": etag(record), **record}
    page = Page((record,), limit=0, offset=0, available=1)
    return envelope(KEEP_SERVICES, page, [item]) | {"limit": None, "offset": None, "etag": "", "self_link": ""}


_RULES: dict[str, Rule] = {
    "collections": check_collection,
    "links": check_link,
    "groups": check_group,
    "workflows": check_workflow,
    "container_requests": containers.check_request,
}

#: Functions that need no token.
_OPEN: dict[str, Callable[[Api, Origin], Record]] = {
    "config": lambda api, origin: discovery.configuration(api.settings, origin),
    "vocabulary": lambda api, _origin: api.vocabulary.document(),
    "keep_services": _keep_services,
}

_FUNCTIONS: dict[str, Callable[[Work], Record]] = {
    "list": _list,
    "current_container": lambda _work: containers.refuse_current(),
    "refuse_container": lambda work: containers.refuse_container(work.context, work.call.uuid),
    "get": _get,
    "create": _create,
    "update": _update,
    "delete": _delete,
    "trash": _trash,
    "untrash": _untrash,
    "current_user": _current_user,
    "current_token": _current_token,
    "keep_service": _keep_service,
    "contents": lambda work: contents.contents(work.context, work.parameters),
    "shared": lambda work: contents.list_shared(work.context, work.parameters),
}

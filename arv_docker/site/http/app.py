# SPDX-License-Identifier: Apache-2.0
"""The site as one ASGI application: discovery, API and Keep on one port; their paths do not meet."""

from __future__ import annotations

import asyncio
import contextlib
import json
from weakref import WeakValueDictionary

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from ..api import discovery, endpoint
from ..api.parameters import parameters_of
from ..folder import Site
from .keep import Keep

#: Bytes of a body in which a token is looked for, where the request has none elsewhere; how many such bodies are
#: read at one time, and for how many seconds.
_MAX_UNKNOWN, _MAX_STRANGERS, STRANGER_SECONDS = 64 << 10, 16, 20

#: Bytes from which a body counts as large: what it is made of takes several times its size. So many are worked on at
#: one time.
_LARGE, _MAX_LARGE = 1 << 20, 2

#: Threads of a server; requests to the API that are worked on at one time, and those of them with one token: nobody
#: takes up all threads.
THREADS, _MAX_REQUESTS, _MAX_TURNS = 32, 24, 8


def application(site: Site) -> Starlette:
    """The ASGI application that serves ``site``."""
    rest = endpoint.Api(site.database, site.settings, site.vocabulary)

    async def document(request: Request) -> Response:
        # Never cached: clients keep it under the URL, and the next site on this port is another one.
        body = discovery.document(site.settings, _origin(request))
        return _json(body, 200, {"Cache-Control": "no-store"})

    async def front(_request: Request) -> Response:
        return HTMLResponse(
            _FRONT, headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
        )

    return Starlette(
        routes=[
            _ForPeople("/", front, methods=["GET"]),
            Route("/discovery/v1/apis/arvados/v1/rest", document, methods=["GET"]),
            Route("/arvados/v1/{path:path}", _Rest(rest)),
            Route("/{locator:path}", Keep(site.blocks, site.settings.signer, rest.knows)),
        ]
    )


class _ForPeople(Route):
    """A route to a page, for browsers that ask for it; other clients go on to the next route."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """The match of the route, and what it adds to the scope."""
        match, child = super().matches(scope)
        accepted = Headers(scope=scope).get("accept", "") if match is Match.FULL else ""
        return (match, child) if "text/html" in accepted else (Match.NONE, {})


_FRONT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>arv-docker site</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:42em;margin:3em auto;padding:0 1em}</style>
</head><body><h1>A site of arv-docker</h1>
<p>Here is the Arvados API of a small store for container images. It is for programs; what follows is for you.</p>
<ul>
<li>To use it in a shell on its machine: <code>eval "$(arv-docker site env)"</code>, then
<code>arv-docker images</code>.</li>
<li>What the API offers: <a href="/discovery/v1/apis/arvados/v1/rest">the discovery document</a>.</li>
<li>How the site is set up: <a href="/arvados/v1/config">its configuration</a>, and
<a href="/arvados/v1/vocabulary">the vocabulary for properties</a>.</li>
</ul></body></html>
"""


class _Rest:
    """The API as an ASGI application: reads the request, answers in a thread."""

    def __init__(self, rest: endpoint.Api) -> None:
        self._rest = rest
        self._strangers = asyncio.Semaphore(_MAX_STRANGERS)
        self._large = asyncio.Semaphore(_MAX_LARGE)
        self._requests = asyncio.Semaphore(_MAX_REQUESTS)
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._response(request)
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _response(self, request: Request) -> Response:
        """The response to a request. The body is read only of somebody whose token is good; of others the little that
        may hold a token."""
        token = endpoint.token_of(_headers(request), parameters_of(request.url.query))
        if not token:
            body = await self._body_of_stranger(request) if _has_body(request) else b""
            if body is None:
                return _not_logged_in(request)
        elif _has_body(request) and not await asyncio.to_thread(self._rest.knows, token):
            return _not_logged_in(request)
        else:
            body = await _body(request, discovery.MAX_REQUEST)
            if body is None:
                return _too_large(request)
        turn = self._turns.setdefault(token, asyncio.Semaphore(_MAX_TURNS))
        large = self._large if len(body) > _LARGE else contextlib.nullcontext()
        async with turn, large, self._requests:
            return await asyncio.to_thread(self._answer, _request(request, body))

    async def _body_of_stranger(self, request: Request) -> bytes | None:
        """The body of a request without a token elsewhere; None where it is too large, or does not come."""
        try:
            return await asyncio.wait_for(self._short_body(request), STRANGER_SECONDS)
        except asyncio.TimeoutError:
            return None

    async def _short_body(self, request: Request) -> bytes | None:
        async with self._strangers:
            return await _body(request, _MAX_UNKNOWN)

    def _answer(self, request: endpoint.Request) -> Response:
        """The API's answer as a response. Runs in a thread: the database blocks, and a large answer takes a while to
        become JSON."""
        answer = self._rest.answer(request)
        return _json(answer.body, answer.status, {"X-Request-Id": answer.request_id})


async def _body(request: Request, limit: int) -> bytes | None:
    """The request's body, None where it has more than ``limit`` bytes."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        return None
    gathered = bytearray()
    async for chunk in request.stream():
        gathered += chunk
        if len(gathered) > limit:
            return None
    return bytes(gathered)


def _has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


def _headers(request: Request) -> dict[str, str]:
    return dict(request.headers.items())


def _not_logged_in(request: Request) -> Response:
    identifier = request.headers.get("x-request-id") or endpoint.new_request_id()
    return _json(endpoint.errors("Not logged in", identifier), 401, {"X-Request-Id": identifier, "Connection": "close"})


def _too_large(request: Request) -> Response:
    """The answer to too large a request: 413 for a form, 400 for JSON, as a real server answers
    (docs/spec/arvados-api.md#request-size)."""
    form = "urlencoded" in request.headers.get("content-type", "")
    request_id = request.headers.get("x-request-id") or endpoint.new_request_id()
    return _json(endpoint.errors("the request body is too large", request_id), 413 if form else 400, {})


def _request(request: Request, body: bytes) -> endpoint.Request:
    return endpoint.Request(
        method=request.method,
        path=request.path_params["path"],
        query=request.url.query,
        headers=_headers(request),
        body=body,
        origin=_origin(request),
    )


def _origin(request: Request) -> discovery.Origin:
    """The address where the client reached the site: its Host header, and the scheme that a proxy may have told."""
    return discovery.origin_of(request.url.scheme, request.headers.get("host", ""))


def _json(body: object, status: int, headers: dict[str, str]) -> Response:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return Response(text, status, headers, "application/json")

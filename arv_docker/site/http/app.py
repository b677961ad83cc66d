# SPDX-License-Identifier: Apache-2.0
"""The site as one ASGI application: discovery, API and Keep on one port; their paths do not meet."""

from __future__ import annotations

import asyncio
import json

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ..api import discovery, endpoint
from ..folder import Site
from .keep import Keep


def application(site: Site) -> Starlette:
    """The ASGI application that serves ``site``."""
    rest = endpoint.Api(site.database, site.settings, site.vocabulary)

    async def document(request: Request) -> Response:
        # Never cached: clients keep it under the URL, and the next site on this port is another one.
        body = discovery.document(site.settings, _origin(request))
        return _json(body, 200, {"Cache-Control": "no-store"})

    return Starlette(
        routes=[
            Route("/discovery/v1/apis/arvados/v1/rest", document, methods=["GET"]),
            Route("/arvados/v1/{path:path}", _Rest(rest)),
            Route("/{locator:path}", Keep(site.blocks, site.settings.signer)),
        ]
    )


class _Rest:
    """The API as an ASGI application: reads the request, answers in a thread."""

    def __init__(self, rest: endpoint.Api) -> None:
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            body = await _body(request)
        except ClientDisconnect:
            return
        if body is None:
            response = _too_large(request)
        else:
            response = await asyncio.to_thread(self._answer, _request(request, body))
        await response(scope, receive, send)

    def _answer(self, request: endpoint.Request) -> Response:
        """Runs in a thread: the database blocks, and a large answer takes a while to become JSON."""
        answer = self._rest.answer(request)
        return _json(answer.body, answer.status, {"X-Request-Id": answer.request_id})


async def _body(request: Request) -> bytes | None:
    """The request's body, None where it is larger than the API takes."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > discovery.MAX_REQUEST:
        return None
    gathered = bytearray()
    async for chunk in request.stream():
        gathered += chunk
        if len(gathered) > discovery.MAX_REQUEST:
            return None
    return bytes(gathered)


def _too_large(request: Request) -> Response:
    """413 for a form, 400 for JSON: what a real server answers (docs/spec/arvados-api.md#request-size)."""
    form = "urlencoded" in request.headers.get("content-type", "")
    request_id = request.headers.get("x-request-id") or endpoint.new_request_id()
    return _json(endpoint.errors("the request body is too large", request_id), 413 if form else 400, {})


def _request(request: Request, body: bytes) -> endpoint.Request:
    return endpoint.Request(
        method=request.method,
        path=request.path_params["path"],
        query=request.url.query,
        headers=dict(request.headers.items()),
        body=body,
        origin=_origin(request),
    )


def _origin(request: Request) -> discovery.Origin:
    """Where the client reached the site: its Host header, and the scheme that a proxy may have told."""
    return discovery.origin_of(request.url.scheme, request.headers.get("host", ""))


def _json(body: object, status: int, headers: dict[str, str]) -> Response:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return Response(text, status, headers, "application/json")

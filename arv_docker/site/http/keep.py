# SPDX-License-Identifier: Apache-2.0
"""The Keep protocol: PUT, GET and HEAD of blocks (docs/spec/arvados-keepstore.md).

Bodies stream between the socket and the block's file; disk work and hashing run in threads,
while the next bytes arrive.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from ...model.manifest_text import BLOCK_SIZE
from ..api.endpoint import new_request_id, token_of
from ..refusal import Refusal
from ..store.blocks import PIECE, BlockStore, Collision, DamagedBlock, Incoming, WrongContent
from ..store.signatures import Signer, Verdict

_log = logging.getLogger(__name__)

#: A size comes first or not at all; then hints, each with a capital letter.
_LOCATOR = re.compile(r"([0-9a-f]{32})(?:\+(\d{1,9}))?((?:\+[A-Z][A-Za-z0-9@_-]*)*)", re.ASCII)

EMPTY = "d41d8cd98f00b204e9800998ecf8427e"


@dataclass(frozen=True, slots=True)
class Keep:
    """The Keep service of a site, as an ASGI application."""

    blocks: BlockStore
    signer: Signer
    #: Whether a token is somebody's and valid now.
    knows: Callable[[str], bool]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; every refusal is one line of plain text."""
        request = Request(scope, receive)
        try:
            response = await self._response(request)
        except Refusal as refusal:
            response = PlainTextResponse(refusal.message + "\n", refusal.status)
        except ClientDisconnect:
            return
        response.headers["X-Request-Id"] = request.headers.get("x-request-id") or new_request_id()
        if request.method in ("GET", "HEAD"):
            response.headers["Vary"] = "X-Keep-Signature"
        await response(scope, receive, send)

    async def _response(self, request: Request) -> Response:
        match = _LOCATOR.fullmatch(request.url.path.lstrip("/"))
        if not match:
            raise Refusal(400, "Bad Request")
        if request.method == "PUT":
            return await self._put(request, match[1])
        if request.method in ("GET", "HEAD"):
            return await self._get(request, match)
        raise Refusal(405, "Method Not Allowed")

    async def _put(self, request: Request, md5: str) -> Response:
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > BLOCK_SIZE:
            raise Refusal(413, f"a block has at most {BLOCK_SIZE} bytes")
        token = _token(request)
        # A real server takes a block from anybody; here nobody fills the disk without a token.
        if not token or not await asyncio.to_thread(self.knows, token):
            raise Refusal(401, "Unauthorized")
        # From before the block is touched: garbage collection leaves it alone for as long as the signature lives.
        began = int(time.time())
        try:
            size = await self._store(request, md5)
        except OSError as error:
            raise _disk_refusal(error) from error
        locator = self.signer.sign(f"{md5}+{size}", token, began + self.signer.ttl)
        headers = {"X-Keep-Replicas-Stored": "1", "X-Keep-Storage-Classes-Confirmed": "default=1"}
        return PlainTextResponse(locator + "\n", headers=headers)

    async def _store(self, request: Request, md5: str) -> int:
        """Receive the body into the store, and return its size."""
        incoming = await asyncio.to_thread(self.blocks.receive, md5)
        try:
            await _pour(request, incoming)
            await asyncio.to_thread(incoming.commit)
        except WrongContent as error:
            raise Refusal(400, f"{error}: the block is refused") from error
        except Collision as error:
            # Final: with 500, which a real server answers here, clients would send it again and again.
            raise Refusal(422, f"another block with MD5 {md5} is stored: an MD5 collision") from error
        except BaseException:
            # Not in a thread of its own: a task that is being cancelled must not wait for one.
            incoming.discard()
            raise
        return incoming.size

    async def _get(self, request: Request, match: re.Match[str]) -> Response:
        locator, md5, size = match[0], match[1], match[2]
        if size is None and md5 != EMPTY:
            raise Refusal(405, "the locator needs a size")
        self._check_signature(locator, _token(request))
        stored = await asyncio.to_thread(self.blocks.size, md5)
        if stored is None:
            raise Refusal(404, "Not Found")
        headers = {"Content-Length": str(stored)}
        try:
            if request.method == "HEAD" or stored <= PIECE or stored != int(size or 0):
                await asyncio.to_thread(self.blocks.verify, md5)
        except DamagedBlock as error:
            _log.warning("Block %s is damaged on disk; storing the same content again repairs it.", md5)
            raise Refusal(502, f"block {md5} is damaged on disk") from error
        if stored != int(size or 0):
            raise Refusal(400, f"block {md5} has {stored} bytes, not {size}")
        if request.method == "HEAD":
            return Response(headers=headers)
        return _BlockResponse(self.blocks, md5, headers)

    def _check_signature(self, locator: str, token: str) -> None:
        """Check a signature, with keepstore's statuses: no token 401, no or wrong signature 400, outdated 401."""
        if not token:
            raise Refusal(401, "Unauthorized")
        verdict = self.signer.verdict(locator, token, int(time.time()))
        if verdict is Verdict.EXPIRED:
            raise Refusal(401, "expired signature")
        if verdict is not Verdict.GOOD:
            raise Refusal(400, "invalid signature")


class _BlockResponse(Response):
    """A response of a block's bytes. Where the block turns out damaged on the way, the connection ends before the last
    piece."""

    def __init__(self, blocks: BlockStore, md5: str, headers: dict[str, str]) -> None:
        super().__init__(headers=headers, media_type="application/octet-stream")
        self._blocks = blocks
        self._md5 = md5

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the block; ``scope`` and ``receive`` are of no interest."""
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async for piece in self._pieces():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except (DamagedBlock, OSError):
            # Without an end of the answer the server drops the connection, and the client sees it cut short.
            _log.warning("Block %s is damaged on disk; storing the same content again repairs it.", self._md5)
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pieces(self) -> AsyncIterator[bytes]:
        pieces = self._blocks.pieces(self._md5)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece


async def _pour(request: Request, incoming: Incoming) -> None:
    """Pour the request's body into ``incoming``, a mebibyte at a time; each is written and hashed while the next
    arrives."""
    gathered = bytearray()
    total = 0
    writing: Awaitable[None] | None = None
    async for chunk in request.stream():
        total += len(chunk)
        if total > BLOCK_SIZE:
            if writing:
                await writing
            raise Refusal(413, f"a block has at most {BLOCK_SIZE} bytes")
        gathered += chunk
        if len(gathered) >= PIECE:
            if writing:
                await writing
            writing = asyncio.ensure_future(asyncio.to_thread(incoming.write, gathered))
            gathered = bytearray()
    if writing:
        await writing
    if gathered:
        await asyncio.to_thread(incoming.write, gathered)


def _token(request: Request) -> str:
    return token_of({"authorization": request.headers.get("authorization", "")})


def _disk_refusal(error: OSError) -> Refusal:
    """The refusal for a disk error: 507 for a full disk, which clients take as final for this service; 503 for anything
    else."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Refusal(507, "the disk of the site is full")
    _log.warning("A block could not be written: %s", error)
    return Refusal(503, f"the block could not be written: {error.strerror}")

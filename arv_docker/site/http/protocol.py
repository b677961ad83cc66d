# SPDX-License-Identifier: Apache-2.0
"""HTTP with bounds on unknown clients: sizes of requests' heads, and numbers of connections.

uvicorn reads a head of any size into memory. Here a head has at most MAX_HEAD bytes and MAX_FIELDS header fields, it
must be there within HEAD_SECONDS, and all heads that are still being read have MAX_HEADS bytes together. Requests that
come before the one before them is answered wait, MAX_WAITING of a connection; TLS handshakes are bounded in number,
time and memory.
"""

from __future__ import annotations

import asyncio
import weakref
from asyncio import Transport, constants, sslproto
from asyncio.events import TimerHandle
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Bytes of a request line with its headers; a real server takes requests of 75 kB in the address, and refuses 1 MB.
MAX_HEAD = 96 << 10

#: Header fields of one request, trailers included.
MAX_FIELDS = 200

#: Bytes of all heads that are being read at one time.
MAX_HEADS = 4 << 20

#: Seconds from the first byte of a head to its end, and from the beginning of a connection.
HEAD_SECONDS = 30

#: Connections at one time, and those of them whose TLS handshake is not done.
MAX_CONNECTIONS, MAX_HANDSHAKES = 250, 50

#: Seconds that a TLS handshake may take.
HANDSHAKE_SECONDS = 15

#: Bytes that asyncio sets aside for each TLS connection, 256 KiB where nobody says so; a record of TLS has 16.
TLS_BUFFER = 32 << 10

#: Requests of a connection that wait for the answers to those before them; clients of Arvados send none ahead.
MAX_WAITING = 8

#: Bytes of an address; the parser of addresses takes no more.
_MAX_ADDRESS = 65_000

#: Seconds that a refused connection stays open.
_LINGER = 1.0

_TOO_LARGE = b"The headers of the request are too large.\n"
_REFUSAL = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(_TOO_LARGE), _TOO_LARGE)
)


def bound_handshakes() -> None:
    """Bound the time and memory of TLS handshakes in this process. uvicorn hands on no such setting to asyncio."""
    constants.SSL_HANDSHAKE_TIMEOUT = HANDSHAKE_SECONDS
    sslproto.SSLProtocol.max_size = TLS_BUFFER  # type: ignore[attr-defined]


class Arrival(asyncio.Protocol):
    """A connection until its TLS handshake is done; then a BoundedProtocol takes its place."""

    _waiting: ClassVar[weakref.WeakSet[Arrival]] = weakref.WeakSet()

    def __init__(self, **options: Any) -> None:
        self._options = options
        connections = len(options["server_state"].connections) + len(self._waiting)
        # Without TLS an arrival waits for nothing but its turn, and a burst of clients arrives in one.
        handshakes = len(self._waiting) if options["config"].is_ssl else 0
        if handshakes >= MAX_HANDSHAKES or connections >= MAX_CONNECTIONS:
            raise ConnectionAbortedError("there are too many connections")  # asyncio drops the new one
        self._waiting.add(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give the connection to the protocol that speaks HTTP."""
        assert isinstance(transport, Transport)
        self._waiting.discard(self)
        protocol = BoundedProtocol(**self._options)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


class BoundedProtocol(HttpToolsProtocol):
    """One connection to a client."""

    #: Bytes of the heads that all connections of this process are reading.
    _all_heads = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head = 0  # bytes of the head that is being read, as they came
        self._held = 0  # the same, with what came in one piece with its beginning
        self._in_head = False
        self._fields = 0
        self._size = 0  # bytes of the head's fields, as they were parsed
        self._refused = False
        self._limit: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Take up a connection."""
        super().connection_made(transport)
        self._limit = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._leave_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client; refuse a head beyond the bounds."""
        if self._refused:
            return
        was_in_head = self._in_head
        super().data_received(data)
        if self._in_head and not self._refused:
            if self._limit is None:
                self._limit = self.loop.call_later(HEAD_SECONDS, self._give_up)
            self._held += len(data)
            BoundedProtocol._all_heads += len(data)
            if was_in_head or self.cycle is None:  # else there may be the end of a body before this head
                self._head += len(data)
            if self._head > MAX_HEAD or BoundedProtocol._all_heads > MAX_HEADS:
                self._refuse()

    def on_message_begin(self) -> None:
        """Begin to count the fields of a request."""
        if self._refused:
            raise httptools.HttpParserError("refused")  # what else there is in these bytes is not looked at
        self._in_head = True
        self._fields = self._size = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count the address of a request."""
        self._size += len(url)
        if len(self.url) <= _MAX_ADDRESS:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header field or a trailer; those beyond the bounds are not kept."""
        self._fields += 1
        self._size += len(name) + len(value)
        if self._fields <= MAX_FIELDS and self._size <= MAX_HEAD:
            super().on_header(name, value)
        elif not self._in_head:
            self._refuse()

    def on_headers_complete(self) -> None:
        """Begin to answer the request, or refuse it."""
        self._leave_head()
        if self._fields > MAX_FIELDS or self._size > MAX_HEAD or len(self.url) > _MAX_ADDRESS:
            self._refuse()
        if not self._refused:
            super().on_headers_complete()
        if len(self.pipeline) > MAX_WAITING:
            self._give_up()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a request's body."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        if not self._refused:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no request, unless the connection was refused."""
        if not self._refused:
            super().send_400_response(msg)

    def _leave_head(self) -> None:
        BoundedProtocol._all_heads -= self._held
        self._head = self._held = 0
        self._in_head = False
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def _give_up(self) -> None:
        self._refused = True
        self._limit = None
        if not self.transport.is_closing():
            self.transport.close()

    def _refuse(self) -> None:
        if self._refused:
            return
        self._refused = True
        if not self.transport.is_closing():
            # An answer that is under way would be mixed with this one.
            if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
                self.transport.write(_REFUSAL)
            # What the client has sent meanwhile is dropped for a moment: closed at once, it would lose the answer.
            self.loop.call_later(_LINGER, self.transport.close)

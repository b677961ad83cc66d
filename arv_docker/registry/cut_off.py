# SPDX-License-Identifier: Apache-2.0
"""Connections with a time limit for answers: a host that sends a byte now and then counts as silent.

A socket's own timeout begins anew with each byte, so that a head of some lines may take hours.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, HTTPConnectionPool, PoolManager

_SOCKETS: WeakKeyDictionary[Any, socket.socket] = WeakKeyDictionary()


@contextmanager
def cutting_off(connection: socket.socket | None, seconds: float | None) -> Iterator[None]:
    """Shut the connection down if the block takes longer, so that a read of it ends at once.

    Raises TimeoutError then, for an end that came so may look like that of a head or of a body.
    """
    if connection is None or seconds is None:
        yield
        return
    is_late = threading.Event()

    def cut_off() -> None:
        is_late.set()
        with suppress(OSError):
            socket.socket.shutdown(connection, socket.SHUT_RDWR)  # not TLS's own, which a reading thread trips over

    timer = threading.Timer(seconds, cut_off)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    if is_late.is_set():
        raise TimeoutError(f"the answer did not come whole within {seconds:.3g} s")


def socket_of(response: BaseHTTPResponse) -> socket.socket | None:
    """The connection that an answer comes by, if that was made by a pool of ``with_deadlines``."""
    return _SOCKETS.get(response)


def with_deadlines(pools: PoolManager) -> PoolManager:
    """Have the connections of ``pools`` cut off an answer whose head does not come whole within their read timeout."""
    import urllib3

    kinds = (urllib3.HTTPConnectionPool, urllib3.HTTPSConnectionPool)
    pools.pool_classes_by_scheme = {str(kind.scheme): _with_deadline(kind) for kind in kinds}
    return pools


def _with_deadline(pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
    connection: Any = pool.ConnectionCls

    def getresponse(self: Any) -> Any:
        place = self.sock  # the object lets go of it where the server closes after its answer
        with cutting_off(place, self.timeout):  # the read timeout by now
            response = connection.getresponse(self)
        _SOCKETS[response] = place
        return response

    def _tunnel(self: Any) -> None:
        with cutting_off(self.sock, self.timeout):
            connection._tunnel(self)

    def send(self: Any, data: Any) -> None:
        try:
            connection.send(self, data)
        except ssl.SSLEOFError as error:
            # As without TLS, where urllib3 then reads the answer: nginx closes behind the one that a body is too large.
            raise BrokenPipeError(str(error)) from error

    methods = {"getresponse": getresponse, "_tunnel": _tunnel, "send": send}
    made = type(connection.__name__, (connection,), methods)
    return type(pool.__name__, (pool,), {"ConnectionCls": made})

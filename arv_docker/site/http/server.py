# SPDX-License-Identifier: Apache-2.0
"""Servers of a site: in this process for ``--local``, or over HTTPS until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import uvicorn

from ...errors import BadSettings, ClusterError
from ..folder import Site, open_site
from . import app, certificates
from .addresses import announce
from .protocol import Arrival, bound_handshakes

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"

#: Seconds that an idle connection stays open; the Python SDK drops its own after 30.
KEEP_ALIVE = 75

#: Seconds in which a server ends after its patience, and a request that was given up.
_LAST_SECONDS = 2.0


class Running:
    """A site that is being served by a thread of this process."""

    def __init__(
        self, site: Site, port: int, tls: certificates.Certificates | None, *, patience: int, host: str = LOOPBACK
    ) -> None:
        self._site = site
        self._patience = patience
        self.token = site.settings.token
        self._socket = _listening(host, port)
        self.port = int(self._socket.getsockname()[1])
        self._server = _Server(_config(site, tls, patience))
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="arv-docker-site", daemon=True
        )

    def start(self) -> None:
        """Serve the site; returns when clients are answered. Raises ClusterError where serving did not begin."""
        self._thread.start()
        while not self._server.started:
            if not self.is_alive:
                self.stop()
                raise ClusterError("The site's server did not start.")
            time.sleep(0.005)

    @property
    def is_alive(self) -> bool:
        """Say if the serving thread runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Finish the requests that are running, within ``patience`` seconds, and close.

        A thread may be at work for longer: then what it does to the database is given up, and it is not waited for.
        """
        self._server.should_exit = True
        self._thread.join(self._patience + _LAST_SECONDS)
        if self._thread.is_alive():
            self._site.database.interrupt()
            self._thread.join(_LAST_SECONDS)
        if self._thread.is_alive():
            log.warning("a request did not end within %g s; leaving it", self._patience + 2 * _LAST_SECONDS)
        self._socket.close()
        self._site.close()


class _Server(uvicorn.Server):
    """A server with as many threads as its requests may need, however few processors there are."""

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to stop."""
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(app.THREADS, "arv-docker-site"))
        await super().serve(sockets)


def local(folder: Path) -> Running:
    """Serve the site in ``folder`` on a free loopback port over plain HTTP."""
    # No patience: whoever leaves has the answers it waited for.
    return Running(open_site(folder), 0, None, patience=0)


def serve(folder: Path, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve the site in ``folder`` over HTTPS until SIGINT or SIGTERM; ``ready`` gets ``host:port`` when it is up."""
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 - refused
        raise BadSettings("Give --host the one name or address under which clients reach this machine.")
    site = open_site(folder)
    tls = certificates.certificates(site.folder, host)
    bound_handshakes()
    running = Running(site, port, tls, patience=10, host=host)
    address = f"[{host}]:{running.port}" if ":" in host else f"{host}:{running.port}"
    stop = threading.Event()
    # The signals inside: while the folder's lock is waited for, they end the process as usual.
    with announce(site.folder, address), _signals(stop):
        running.start()
        ready(address)
        while not stop.wait(1):
            if not running.is_alive:
                raise ClusterError("The site's server stopped by itself.")
        running.stop()
    if running.is_alive:
        # Python would wait at its end for the thread that does not come back. What is on disk is whole at any moment.
        logging.shutdown()
        os._exit(0)


def _config(site: Site, tls: certificates.Certificates | None, patience: int) -> uvicorn.Config:
    return uvicorn.Config(
        app.application(site),
        http=Arrival,
        ws="none",
        lifespan="off",
        loop="asyncio",
        backlog=512,
        access_log=False,
        log_config=None,
        log_level="critical",
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=patience,
        ssl_keyfile=str(tls.server_key) if tls else None,
        ssl_certfile=str(tls.server_chain) if tls else None,
    )


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(place[:2], family=family, backlog=512)
    except OSError as error:
        raise BadSettings(f"Port {port} of {host} cannot be used.", detail=str(error)) from error
    # Accepted sockets inherit it. asyncio sets it only where the socket names its protocol, which this one
    # doesn't; without it every answer waits 40 ms for the client's delayed ACK.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


@contextlib.contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """Let SIGINT and SIGTERM set ``stop``."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

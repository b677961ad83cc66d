# SPDX-License-Identifier: Apache-2.0
"""Requests to the API of a cluster, each with one budget of tries and time.

The SDK tries a request eleven times with pauses that double without an end, the last of 17 minutes; and at least as
often as its client object was made for, whatever a request says. Here it sends each once
(docs/decisions/0013-one-retry-budget-a-request.md).
"""

from __future__ import annotations

import http.client
import logging
import ssl
import time
from collections.abc import Callable
from typing import Any

from ..errors import ClusterError
from ..local.retry import Backoff
from . import sdk

log = logging.getLogger(__name__)

#: How often a request is tried again by default, as arv-put's ``--retries``.
RETRIES = 10
#: Seconds that the tries of one request and the pauses in between may take. One answer may take as long, as in the SDK.
DEADLINE = 300.0

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
#: Statuses of answers that may be others the next time, besides those from 500 on
#: (docs/spec/arvados-clients.md#retries).
_PASSING = frozenset((408, 409, 423, 429))


class ApiRequests:
    """Sender of the requests that an SDK client object makes."""

    def __init__(
        self,
        retries: int = RETRIES,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A request that failed in a way that may pass is tried ``retries`` times more."""
        self._retries = retries
        self._sleep = sleep
        self._clock = clock

    def execute(self, request: Any, what: str, *, retries: int | None = None) -> Any:
        """Send a request until it is answered, and return the answer; with other ``retries`` than the usual ones.

        Raises ClusterError, about ``what``: at once for an answer that will be the same again, else after the last
        try, or DEADLINE seconds.
        """
        retries = self._retries if retries is None else retries
        end = self._clock() + DEADLINE
        pauses = Backoff(retries + 1, _FIRST_PAUSE, _LONGEST_PAUSE).pauses()
        told = False
        while True:
            try:
                return sdk.call_with_our_errors(lambda: _execute_once(request, end - self._clock()), what)
            except ClusterError as error:
                pause = next(pauses, None) if may_pass(error) else None
                if pause is None or self._clock() + pause >= end:
                    raise
                level = logging.DEBUG if told else logging.WARNING
                log.log(level, "%s Trying again, at most %d times and %d s.", error.message, retries, DEADLINE)
                told = True
            self._sleep(pause)


def may_pass(error: ClusterError) -> bool:
    """True if a request that failed so may succeed when it is sent again."""
    import httplib2

    if error.status is not None:
        return error.status in _PASSING or error.status >= 500
    passing = (OSError, httplib2.ServerNotFoundError, http.client.HTTPException)
    return isinstance(error.__cause__, passing) and not isinstance(error.__cause__, ssl.SSLCertVerificationError)


class _SingleTry:
    """The HTTP client of a request, which sends it once, and waits no longer than ``seconds`` for the answer.

    To googleapiclient it is no client of the SDK, by whose number of tries it would go.
    """

    def __init__(self, client: Any, seconds: float) -> None:
        self._client = client
        self._seconds = max(1.0, seconds)

    def request(self, *arguments: Any, **options: Any) -> Any:
        usual = self._client.timeout
        self._wait_at_most(self._seconds)
        try:
            response, content = self._client.request(*arguments, **options)
        finally:
            self._wait_at_most(usual)
        response.status = int(response["status"])  # the SDK has another one for those of _PASSING
        return response, content

    def _wait_at_most(self, seconds: float | None) -> None:
        self._client.timeout = seconds
        for connection in self._client.connections.values():
            connection.timeout = seconds
            if connection.sock is not None:
                connection.sock.settimeout(seconds)


def _execute_once(request: Any, seconds: float) -> Any:
    client = getattr(request, "http", None)
    if client is None or not hasattr(client, "connections"):  # no httplib2
        return request.execute(num_retries=0)
    return request.execute(http=_SingleTry(client, seconds), num_retries=0)

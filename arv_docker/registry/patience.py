# SPDX-License-Identifier: Apache-2.0
"""Patience with a registry: the limits to waiting and to asking again, one budget for each request, whatever it takes.

A request to a registry may need a token of a token server, and lead to storage behind the registry. All of them share
the tries and the time of that one request (docs/decisions/0013-one-retry-budget-a-request.md).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

from ..errors import RegistryError
from ..local.retry import Backoff

log = logging.getLogger(__name__)

Result = TypeVar("Result")

#: Pauses before another try, in seconds: 0.25, 0.5, 1, 2, 4.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 10.0
#: Seconds after which a host that failed too often is asked again.
_GRUDGE = 30.0
#: Share of a pause that every request keeps, whatever its jitter leaves out.
_LEAST_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class Patience:
    """The limits to waiting for a registry.

    ``tries`` is the number of attempts for one request, and ``total`` the seconds that all of them and the pauses in
    between may take, less than 90 with those of a mirror and with starting a command; the time in which bytes of a blob
    move does not count. ``connect`` and ``read`` are seconds of silence, and ``read`` those in which the head of an
    answer, or a document, has to come whole. ``work`` is for a registry that was told to keep what it got: some copy a
    large layer before they answer (seen with storage as Amazon's). A blob that brings less than ``slowest`` bytes a
    second for ``window`` seconds is cut off, and taken up again. ``sleep`` waits, ``clock`` says the time in seconds.
    """

    tries: int = 6
    total: float = 70.0
    connect: float = 15.0
    read: float = 60.0
    work: float = 900.0
    slowest: int = 1024
    window: float = 60.0
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    def for_mirror(self) -> Patience:
        """A shorter patience, for a place that has a substitute: a mirror."""
        return replace(
            self,
            tries=min(self.tries, 2),
            total=min(self.total, 10.0),
            connect=min(self.connect, 5.0),
            read=min(self.read, 7.0),
            window=min(self.window, 10.0),
        )

    def run(self, attempt: Callable[[Attempts], Result]) -> Result:
        """Return the result of ``attempt``, called again after each transient error. Raises the last error."""
        attempts = Attempts(self)
        while True:
            try:
                return attempt(attempts)
            except RegistryError as error:
                attempts.wait_after(error)

    def backoff(self) -> Backoff:
        """The pauses between the tries of one request."""
        return Backoff(self.tries, _FIRST_PAUSE, _LONGEST_PAUSE)


class Attempts:
    """The tries of a request, with a deadline over all."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self.restart()

    @property
    def failures(self) -> int:
        """The number of failed tries since the last useful one."""
        return self._failures

    @property
    def remaining(self) -> float:
        """The seconds that are left."""
        return self.patience.total - (self.patience.clock() - self._since)

    def restart(self) -> None:
        """Begin the tries anew after a try that brought at least some bytes."""
        self._failures = 0
        self._pauses = self.patience.backoff().pauses()
        self.keep_alive()

    def keep_alive(self) -> None:
        """Count the seconds from now on: bytes move, or the other side has worked on what it got."""
        self._since = self.patience.clock()

    def wait_after(self, error: RegistryError) -> None:
        """Wait before the next try; raise ``error`` if there should be none, or if the wait would be too long."""
        self._failures += 1
        if error.retry_after is None:
            raise error
        pause = next(self._pauses, None)
        if pause is None:
            raise error
        if error.retry_after > max(0.0, self.remaining):
            raise _too_long(error)
        pause = max(pause, error.retry_after)
        if pause >= self.remaining:
            raise error
        log.debug("try %d of %d in %.2f s, for %s", self._failures + 1, self.patience.tries, pause, error.message)
        self.patience.sleep(pause)


@dataclass(slots=True)
class _Trouble:
    """A host in trouble: failures in a row, the time of the first, and the last error."""

    failures: int
    last: float
    until: float
    error: RegistryError
    is_probed: bool = False


class Hosts:
    """The hosts of one client, with the troubles of each. May be used by several threads at once.

    A host that failed is asked by one request at a time, less and less often, and by none once as many have failed in
    a row as one request has tries: several requests at once, as for the layers of an image, are no more patient than
    one is.
    """

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._troubles: dict[str, _Trouble] = {}
        self._changed = threading.Condition()

    @contextmanager
    def turn(self, host: str, attempts: Attempts, *, waits: bool) -> Iterator[None]:
        """Ask a host in the block, in its turn. Transient errors are counted, anything else is an answer.

        ``waits`` is False for a request with a body, which comes when the host has answered one without. Raises the
        host's last error if it failed too often.
        """
        probes = self._enter(host, attempts) if waits else False
        error: RegistryError | None = None
        try:
            yield
        except RegistryError as raised:
            error = raised if raised.retry_after is not None else None
            raise
        finally:
            self._leave(host, error, probes=probes)

    def _enter(self, host: str, attempts: Attempts) -> bool:
        """Wait for the turn, and tell if this request is the probe of the host."""
        while True:
            with self._changed:
                trouble = self._troubles.get(host)
                if trouble is None or self._patience.clock() - trouble.last > _GRUDGE:
                    self._troubles.pop(host, None)
                    return False
                if trouble.failures >= self._patience.tries:
                    raise _not_again(trouble)
                pause = trouble.until - self._patience.clock()
                if pause > attempts.remaining or attempts.remaining <= 0:
                    raise trouble.error
                if pause <= 0 and not trouble.is_probed:
                    trouble.is_probed = True
                    return True
                if pause <= 0:
                    self._changed.wait(min(1.0, attempts.remaining))
                    continue
            self._patience.sleep(pause)

    def _leave(self, host: str, error: RegistryError | None, *, probes: bool) -> None:
        with self._changed:
            trouble = self._troubles.get(host)
            if error is None:
                self._troubles.pop(host, None)
            else:
                failures = trouble.failures + 1 if trouble else 1
                now = self._patience.clock()
                pause = min(_FIRST_PAUSE * 2.0 ** (failures - 1), _LONGEST_PAUSE) * _LEAST_SHARE
                pause = max(pause, error.retry_after or 0.0)
                still = trouble.is_probed and not probes if trouble else False
                self._troubles[host] = _Trouble(failures, now, now + pause, error, is_probed=still)
            self._changed.notify_all()


def _too_long(error: RegistryError) -> RegistryError:
    """The error of a host that asks to wait longer than there is time."""
    assert error.retry_after is not None
    return type(error)(
        f"{error.message} It asks to wait {_duration(error.retry_after)} before the next request: try again then.",
        detail=error.detail,
        status=error.status,
        retry_after=error.retry_after,
    )


def _not_again(trouble: _Trouble) -> RegistryError:
    """The error for a request that is not made, since the host failed too often."""
    error = trouble.error
    return type(error)(error.message, detail=error.detail, status=error.status)


def _duration(seconds: float) -> str:
    """A time for people: ``45 s``, ``6 min``, ``6 h``."""
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"

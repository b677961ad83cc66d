# SPDX-License-Identifier: Apache-2.0
"""Waiting until an image can be used: questions at growing intervals, until a time has passed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from ..errors import NotReady
from .retry import Backoff

Answer = TypeVar("Answer")

READY = "ready"

#: Nothing has failed where an image is not ready yet, so nobody has to be kept apart by jitter.
_BACKOFF = Backoff(tries=None, first=1, longest=15, factor=1.5, jitter=0)


def wait_until_ready(
    ask: Callable[[], Answer],
    state_of: Callable[[Answer], str],
    *,
    what: str,
    seconds: float,
    sleep: Callable[[float], None] = time.sleep,
) -> Answer:
    """Ask for an answer until its state is ``ready``, and return that answer; ask at least once.

    ``state_of`` puts any other state into words. Raises NotReady, which names ``what`` and its state, after so many
    seconds.
    """
    deadline = time.monotonic() + seconds
    pauses = _BACKOFF.pauses()
    while (state := state_of(answer := ask())) != READY:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise NotReady(f"{what} is {state} after {seconds:g} s. Wait longer, or ask again later.")
        sleep(min(next(pauses), remaining))
    return answer

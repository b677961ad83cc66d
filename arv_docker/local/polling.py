# SPDX-License-Identifier: Apache-2.0
"""Waiting until an image can be used: asking less and less often, and giving up when the time has passed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from ..errors import NotReady

Answer = TypeVar("Answer")

READY = "ready"

#: Seconds between two questions: the first, and the longest; each is half as long again.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 15.0


def wait_until_ready(
    ask: Callable[[], Answer],
    state_of: Callable[[Answer], str],
    *,
    what: str,
    seconds: float,
    sleep: Callable[[float], None] = time.sleep,
) -> Answer:
    """The first answer whose state is ``ready``; asks at least once.

    ``state_of`` puts any other state into words. Raises NotReady, with ``what`` is not ready and
    those words, when it is not after so many seconds.
    """
    deadline = time.monotonic() + seconds
    pause = _FIRST_PAUSE
    while (state := state_of(answer := ask())) != READY:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise NotReady(f"{what} is {state} after {seconds:g} s. Wait longer, or ask again later.")
        sleep(min(pause, remaining))
        pause = min(pause * 1.5, _LONGEST_PAUSE)
    return answer

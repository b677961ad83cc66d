# SPDX-License-Identifier: Apache-2.0
"""Waiting until an image can be used: questions at growing intervals, until a time has passed."""

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
    """Ask for an answer until its state is ``ready``, and return that answer; ask at least once.

    ``state_of`` puts any other state into words. Raises NotReady, which names ``what`` and its state, after so many
    seconds.
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

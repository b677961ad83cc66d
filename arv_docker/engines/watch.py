# SPDX-License-Identifier: Apache-2.0
"""A limit to how long an engine may be silent.

A thread looks at the clock while another is blocked by the engine, and ends the conversation that the other waits
for. Only waiting counts: an engine whose output nobody reads is not silent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ..errors import EngineSilent
from ..local.settings import ENGINE_TIMEOUT


class Watch:
    """A watch over one conversation with an engine. Each wait is a ``with`` block::

    with watch:
        line = pipe.readline()
    watch.judge()
    """

    def __init__(
        self, name: str, limit: float, end: Callable[[], None], answers: Callable[[], bool] | None = None
    ) -> None:
        """Begin to watch. ``limit`` is in seconds, 0 for none; ``end`` ends the wait, called from another thread.

        ``answers`` returns whether the engine still answers, for conversations in which silence may be work: such a
        wait goes on as long as the engine answers. Without it silence alone ends the wait.
        """
        self._name = name
        self._end = end
        self._answers = answers
        self._limit = limit
        self._since: float | None = None
        self._closed = threading.Event()
        self._silent = False
        if self._limit:
            threading.Thread(target=self._look, daemon=True).start()

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._since = None

    def judge(self) -> None:
        """Raise EngineSilent if a wait was ended because the engine was silent for too long."""
        if self._silent:
            raise EngineSilent(
                f"{self._name} does not answer: it was silent for {self._limit:g} seconds. Look whether it hangs, and "
                f"start it anew if it does; {ENGINE_TIMEOUT} sets another limit, 0 none."
            )

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _look(self) -> None:
        asked = 0.0
        left = self._limit
        while not self._closed.wait(left):
            since = self._since
            left = self._limit if since is None else max(since, asked) + self._limit - time.monotonic()
            if since is None or left > 0:
                continue
            answered = self._answers is not None and self._answers()
            asked, left = time.monotonic(), self._limit
            if answered or since != self._since or self._closed.is_set():
                continue
            self._silent = True
            self._end()
            return

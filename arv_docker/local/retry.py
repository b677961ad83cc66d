# SPDX-License-Identifier: Apache-2.0
"""Retry policy: how often a request is tried again, and how long is waited in between."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between the tries of one request, each longer than the one before.

    ``tries`` counts the first one too; None tries without end. Pauses are seconds: ``first``, then each ``factor``
    times the one before, at most ``longest``. Up to ``jitter`` of a pause (a share, 0 to 1) is left out at random, so
    that clients which failed together do not come again together.

    >>> list(Backoff(tries=4, first=1, longest=3, jitter=0).pauses())
    [1.0, 2.0, 3.0]
    """

    tries: int | None
    first: float
    longest: float
    factor: float = 2.0
    jitter: float = 0.25

    def pauses(self) -> Iterator[float]:
        """The pauses before each further try: ``tries`` - 1 of them, in seconds."""
        pause = self.first
        for _ in repeat(None) if self.tries is None else repeat(None, self.tries - 1):
            yield self._shorten(min(pause, self.longest))
            pause *= self.factor

    def _shorten(self, pause: float) -> float:
        # Jitter needs no secrecy.
        return float(pause) * (1 - self.jitter * random.random())  # noqa: S311

# SPDX-License-Identifier: Apache-2.0
"""Progress of some work as a generator of lines; closing the generator ends the work."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import wait
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from ..errors import one_line
from ..local.background import future_of
from ..local.progress import Advance, Lines, Progress, StoreStep

Value = TypeVar("Value")

#: Seconds that the work has to end by itself, once nobody listens.
_GRACE = 10.0


def stream_progress(work: Callable[[Progress], Value]) -> Generator[str, None, Value]:
    """Do some work in a thread: yield the lines of progress as they come, and return the result.

    Closing the generator, as Ctrl-C does, ends the work the next time that it reports bytes, so that it can leave
    everything in order.
    """
    progress = _QueuedLines()
    result = future_of(lambda: work(progress), "stream_progress")
    result.add_done_callback(lambda _: progress.lines.put(None))
    try:
        yield from iter(progress.lines.get, None)
    finally:
        progress.abandoned.set()
        wait([result], _GRACE)
    return result.result()


class _AbandonedError(BaseException):
    """The end of work whose generator was closed; passes through all handlers of errors."""


class _QueuedLines(Lines):
    """Progress as lines in a queue, until the work is abandoned."""

    def __init__(self) -> None:
        self.lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.abandoned = threading.Event()

    def say(self, message: str) -> None:
        """Put a line into the queue."""
        self.lines.put(f"{one_line(message)}\n")

    def step(self, title: str, total: int | None) -> AbstractContextManager[Advance]:
        """Show a step that ends when the work is abandoned."""
        return self._abandonable(super().store_step(title, total))

    def store_step(self, title: str, total: int | None) -> AbstractContextManager[StoreStep]:
        """Show a step that ends when the work is abandoned."""
        return self._abandonable(super().store_step(title, total))

    @contextmanager
    def _abandonable(self, step: AbstractContextManager[StoreStep]) -> Iterator[StoreStep]:
        with step as advance:
            yield _AbandonableStep(advance, self.abandoned)


class _AbandonableStep:
    """A step that ends abandoned work, in the thread that reads the image and reports bytes."""

    def __init__(self, advance: StoreStep, abandoned: threading.Event) -> None:
        self._advance = advance
        self._abandoned = abandoned
        self.skip = advance.skip

    def __call__(self, count: int, /) -> None:
        if self._abandoned.is_set():
            raise _AbandonedError
        self._advance(count)

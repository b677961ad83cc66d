# SPDX-License-Identifier: Apache-2.0
"""Work of which somebody wants to hear while it goes on, as a generator of lines; who stops listening ends the work."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from ..local.progress import Advance, Lines, Progress, StoreStep, printable

Value = TypeVar("Value")

#: Seconds that the work has to end by itself, once nobody listens.
_GRACE = 10.0


def stream_progress(work: Callable[[Progress], Value]) -> Generator[str, None, Value]:
    """What is said of some work, line by line while it goes on in a thread, and what comes out of it.

    A generator that is closed, as by Ctrl-C, ends the work where that next tells how far it is, so that it can leave
    everything as it should be.
    """
    said = _QueuedLines()
    result: Future[Value] = Future()

    def run() -> None:
        try:
            result.set_result(work(said))
        except BaseException as error:  # noqa: BLE001 -- it goes on to whoever asks for the result
            result.set_exception(error)
        finally:
            said.lines.put(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield from iter(said.lines.get, None)
    finally:
        said.given_up.set()
        thread.join(_GRACE)
    return result.result()


class _AbandonedError(BaseException):
    """Nobody waits for the work any more; passes through whatever handles errors."""


class _QueuedLines(Lines):
    """Progress as lines in a queue, until the work is given up."""

    def __init__(self) -> None:
        self.lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.given_up = threading.Event()

    def say(self, message: str) -> None:
        """A line for whoever empties the queue."""
        self.lines.put(f"{printable(message)}\n")

    def step(self, title: str, total: int | None) -> AbstractContextManager[Advance]:
        """Ends what is done in the step when it is given up."""
        return self._heeded(super().store_step(title, total))

    def store_step(self, title: str, total: int | None) -> AbstractContextManager[StoreStep]:
        """The same."""
        return self._heeded(super().store_step(title, total))

    @contextmanager
    def _heeded(self, step: AbstractContextManager[StoreStep]) -> Iterator[StoreStep]:
        with step as advance:
            yield _AbandonableStep(advance, self.given_up)


class _AbandonableStep:
    """A step that ends where it is given up. Only who tells of bytes is ended, which is whoever reads the image."""

    def __init__(self, advance: StoreStep, given_up: threading.Event) -> None:
        self._advance = advance
        self._given_up = given_up
        self.skip = advance.skip

    def __call__(self, count: int, /) -> None:
        if self._given_up.is_set():
            raise _AbandonedError
        self._advance(count)

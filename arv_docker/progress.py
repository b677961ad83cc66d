# SPDX-License-Identifier: Apache-2.0
"""Telling a waiting person how far the work is: on standard error, never on standard output.

On a terminal a bar; elsewhere a plain line when a step begins to take long and every ten
seconds from then on, so that a log shows that the work goes on.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Protocol, TextIO

#: Told of a number of bytes that have been dealt with since the last call.
Advance = Callable[[int], None]

#: Seconds of silence before the first line, and between two lines.
_PATIENCE = 2.0
_INTERVAL = 10.0


class Progress(Protocol):
    """What the verbs tell of their work."""

    def say(self, message: str) -> None:
        """Something that a person should know, on a line of its own."""

    def step(self, title: str, total: int | None) -> AbstractContextManager[Advance]:
        """A step that deals with ``total`` bytes (None: unknown); the block gets a function to report them to."""


class Silent:
    """Tells nothing."""

    def say(self, message: str) -> None:
        """Nothing."""

    @contextmanager
    def _step(self) -> Iterator[Advance]:
        yield lambda count: None

    def step(self, title: str, total: int | None) -> AbstractContextManager[Advance]:
        """Nothing."""
        return self._step()


class Lines(Silent):
    """Plain lines, for logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def say(self, message: str) -> None:
        """A line; if nobody reads it any more, the work goes on."""
        with suppress(BrokenPipeError):
            print(printable(message), file=self._stream, flush=True)

    def step(self, title: str, total: int | None) -> AbstractContextManager[Advance]:
        """A line when the step has taken two seconds, then one every ten, and one at its end."""
        return self._lines(title, total)

    @contextmanager
    def _lines(self, title: str, total: int | None) -> Iterator[Advance]:
        state = _Counter(title, total, self)
        with _ticking(state.tell_if_due):
            yield state
        state.end()


class _Counter:
    def __init__(self, title: str, total: int | None, lines: Lines) -> None:
        self._title = title
        self._total = total
        self._lines = lines
        self._done = 0
        self._start = time.monotonic()
        self._moved = self._start
        self._next = self._start + _PATIENCE
        self._spoke = False
        self._lock = threading.Lock()

    def __call__(self, count: int, /) -> None:
        self._done += count
        self._moved = time.monotonic()
        self.tell_if_due()

    def tell_if_due(self) -> None:
        """A line if it is time for one, also where nothing moves: a busy engine, a request that is tried again."""
        now = time.monotonic()
        with self._lock:
            if now < self._next:
                return
            self._spoke = True
            self._next = now + _INTERVAL
        still = f", nothing new for {now - self._moved:.0f} s" if now - self._moved >= _INTERVAL else ""
        self._lines.say(f"{self._title}: {self._amount()}, {self._rate(now)}{still}")

    def end(self) -> None:
        if self._spoke:
            self._lines.say(f"{self._title}: {size(self._done)} done, {self._rate(time.monotonic())}")

    def _amount(self) -> str:
        if not self._total:
            return size(self._done)
        return f"{size(self._done)} of {size(self._total)} ({100 * self._done // self._total} %)"

    def _rate(self, now: float) -> str:
        return f"{size(int(self._done / max(now - self._start, 1e-3)))}/s"


@contextmanager
def _ticking(tell: Callable[[], None]) -> Iterator[None]:
    """Calls ``tell`` every second from another thread while the block lasts."""
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(1):
            tell()

    threading.Thread(target=tick, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


class Bar(Silent):
    """A bar on a terminal."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console

        self._console = Console(file=stream, highlight=False, soft_wrap=True)

    def say(self, message: str) -> None:
        """A line, above the bar if there is one."""
        self._console.print(printable(message), markup=False)

    def step(self, title: str, total: int | None) -> AbstractContextManager[Advance]:
        """A bar that goes when the step has ended."""
        return self._bar(title, total)

    @contextmanager
    def _bar(self, title: str, total: int | None) -> Iterator[Advance]:
        from rich import progress

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
        )
        with progress.Progress(*columns, console=self._console, transient=True) as shown:
            task = shown.add_task(title, total=total)
            yield lambda count: shown.advance(task, count)


def on(stream: TextIO | None = None) -> Progress:
    """What fits the stream (standard error unless given): a bar on a terminal, lines elsewhere."""
    stream = stream or sys.stderr
    return Bar(stream) if stream.isatty() else Lines(stream)


def printable(text: str) -> str:
    """``text`` for a terminal: names come from strangers, and must not move its cursor or colour it."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def size(count: int) -> str:
    """A number of bytes as people read it, in powers of 1,000: ``776.3 MB``."""
    if count < 1000:
        return f"{count} bytes"
    amount = float(count)
    for unit in ("kB", "MB", "GB"):
        amount /= 1000
        if amount < 999.95:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1000:.1f} TB"

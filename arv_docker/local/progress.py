# SPDX-License-Identifier: Apache-2.0
"""Progress of the work, for a waiting person: on standard error, never on standard output.

A terminal gets a bar. Elsewhere a step that takes long gets a plain line, and another every ten seconds, so that a log
shows that the work goes on. Programs get the lines that arv-put has for them.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Protocol, TextIO

from ..errors import one_line

if TYPE_CHECKING:
    import rich.progress

#: A function that is called with the number of bytes that were dealt with since the last call.
Advance = Callable[[int], None]

#: Seconds of silence before the first line, and between two lines.
_PATIENCE = 2.0
_INTERVAL = 10.0
#: Seconds that a rate is taken over: an engine gives nothing for a while, and then much at once.
_RECENT = 15.0


class StoreStep(Protocol):
    """A step that stores an image; ``skip`` may be called from any thread."""

    def __call__(self, count: int, /) -> None:
        """Add ``count`` to the bytes that have been dealt with."""

    def skip(self, count: int, /) -> None:
        """Mark ``count`` of those bytes as present already, and not sent."""


class Progress(Protocol):
    """A way to tell a person of the work."""

    def say(self, message: str) -> None:
        """Tell a person ``message``, on a line of its own."""

    def warn(self, message: str) -> None:
        """Warn a person of something that may not be as it was meant, also where little is to be said."""

    def fail(self, message: str) -> None:
        """Tell a person that one of several images failed, also where little is to be said."""

    def step(self, title: str, total: int | None) -> AbstractContextManager[Advance]:
        """Show a step that deals with ``total`` bytes (None: unknown); the block gets a function to report them to."""

    def store_step(self, title: str, total: int | None) -> AbstractContextManager[StoreStep]:
        """Show a step that stores an image of about ``total`` bytes: engines do not say how long their tars are."""


class SilentProgress:
    """Progress that tells nothing."""

    def say(self, message: str) -> None:
        """Drop the message."""

    def warn(self, message: str) -> None:
        """Tell a warning, where anything is told."""
        self.say(f"warning: {message}")

    def fail(self, message: str) -> None:
        """Tell a failure, where anything is told."""
        self.say(message)

    def step(self, title: str, total: int | None) -> AbstractContextManager[Advance]:
        """Show nothing of the step."""
        return nullcontext(UNHEARD_STEP)

    def store_step(self, title: str, total: int | None) -> AbstractContextManager[StoreStep]:
        """Show nothing of the step."""
        return nullcontext(UNHEARD_STEP)


class Lines(SilentProgress):
    """Plain lines, for logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def say(self, message: str) -> None:
        """Write the message as a line; if nobody reads it any more, the work goes on."""
        with suppress(BrokenPipeError):
            self._stream.write(f"{one_line(message)}\n")  # at once, for another thread may have something to say
            self._stream.flush()

    def step(self, title: str, total: int | None) -> AbstractContextManager[Advance]:
        """Write a line when the step has taken two seconds, then one every ten seconds, and one at the end."""
        return _ticking(_Counter(title, total, self.say))

    def store_step(self, title: str, total: int | None) -> AbstractContextManager[StoreStep]:
        """Write lines for the step as ``step`` does."""
        return _ticking(_Counter(title, total, self.say))


class Messages(Lines):
    """Messages for a person, without the progress of steps."""

    step = SilentProgress.step
    store_step = SilentProgress.store_step


class Quiet(Messages):
    """Warnings and failures, and nothing else."""

    def say(self, message: str) -> None:
        """Drop the message."""

    def warn(self, message: str) -> None:
        """Write a warning, as a line."""
        super().say(f"warning: {message}")

    def fail(self, message: str) -> None:
        """Write a failure, as a line."""
        super().say(message)


class BatchLines(Messages):
    """Lines ``PROGRAM PID: COUNT written TOTAL total``, in bytes, as ``arv-put --batch-progress`` writes for programs.

    The total is -1 where it is not known, and in the last line what it turned out to be.
    """

    def store_step(self, title: str, total: int | None) -> AbstractContextManager[StoreStep]:
        """Write a line at the step's beginning, one a second while bytes come, and one at the end."""
        return _ticking(_BatchCounter(total, self.say))


class _SilentAdvance:
    def __call__(self, count: int, /) -> None:
        pass

    def skip(self, count: int, /) -> None:
        pass


#: A step that nobody wants to hear of.
UNHEARD_STEP: StoreStep = _SilentAdvance()


class _Counter(_SilentAdvance):
    """The counts of a step, as lines for a person."""

    def __init__(self, title: str, total: int | None, say: Callable[[str], None]) -> None:
        self._title = title
        self._total = total
        self._say = say
        self._done = 0
        self._spared = 0
        self._start = time.monotonic()
        self._moved = self._start
        self._next = self._start + _PATIENCE
        self._spoke = False
        self._recent = deque([(self._start, 0)])
        self._lock = threading.Lock()

    def __call__(self, count: int, /) -> None:
        with self._lock:
            self._done += count
            self._moved = time.monotonic()
        self.tell_if_due()

    def skip(self, count: int, /) -> None:
        with self._lock:
            self._spared += count

    def tell_if_due(self) -> None:
        """Write a line if one is due, also where nothing moves: a busy engine, a request that is tried again."""
        now = time.monotonic()
        with self._lock:
            rate = self._rate(now)
            if now < self._next:
                return
            self._spoke = True
            self._next = now + _INTERVAL
        if self._without_bytes:
            self._tell(f"{now - self._start:.0f} s")
            return
        if not self._done and not self._spared:
            self._tell(f"waiting for the first byte, {now - self._start:.0f} s")
            return
        quiet = now - self._moved
        still = f"nothing new for {quiet:.0f} s" if quiet >= _INTERVAL else ""
        self._tell(
            self._amount(), _text_of_skipped(self._spared), f"{size_text(int(rate))}/s", self._time_left(rate), still
        )

    def end(self) -> None:
        if self._spoke and self._without_bytes:
            self._tell(f"done after {time.monotonic() - self._start:.0f} s")
        elif self._spoke:
            rate = self._done / max(time.monotonic() - self._start, 1e-3)
            self._tell(f"{size_text(self._done)} done", _text_of_skipped(self._spared), f"{size_text(int(rate))}/s")

    @property
    def _without_bytes(self) -> bool:
        """True if only the time can be told: a server or an engine is asked and does not answer."""
        return self._total is None and not self._done and not self._spared

    def _tell(self, *facts: str) -> None:
        self._say(f"{self._title}: {', '.join(filter(None, facts))}")

    def _amount(self) -> str:
        if not self._total:
            return size_text(self._done)
        if self._done > self._total:
            return f"{size_text(self._done)} of about {size_text(self._total)} (99 %)"
        return f"{size_text(self._done)} of {size_text(self._total)} ({100 * self._done // self._total} %)"

    def _rate(self, now: float) -> float:
        """Bytes a second over the last seconds."""
        if now - self._recent[-1][0] >= 1:
            self._recent.append((now, self._done))
        while len(self._recent) > 1 and self._recent[1][0] <= now - _RECENT:
            self._recent.popleft()
        since, before = self._recent[0]
        return (self._done - before) / max(now - since, 1e-3)

    def _time_left(self, rate: float) -> str:
        missing = (self._total or 0) - self._done
        return f"about {_duration_text(missing / rate)} left" if missing > 0 and rate >= 1 else ""


class _BatchCounter(_SilentAdvance):
    """The counts of a step, as lines for a program."""

    def __init__(self, total: int | None, say: Callable[[str], None]) -> None:
        self._total = total or -1
        self._say = say
        self._done = 0
        self._told = -1
        self.tell_if_due()

    def __call__(self, count: int, /) -> None:
        self._done += count

    def tell_if_due(self) -> None:
        if self._done != self._told:
            self._tell(max(self._total, self._done) if self._total > 0 else self._total)

    def end(self) -> None:
        self._tell(self._done)

    def _tell(self, total: int) -> None:
        self._told = self._done
        self._say(f"{sys.argv[0]} {os.getpid()}: {self._told} written {total} total")


@contextmanager
def _ticking(counter: _Counter | _BatchCounter) -> Iterator[StoreStep]:
    """Have the counter check every second, in another thread, if a line is due; tell it of an end without error."""
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(1):
            counter.tell_if_due()

    ticking = threading.Thread(target=tick, daemon=True)
    ticking.start()
    try:
        yield counter
    finally:
        ended.set()
    ticking.join()  # which may be at a line of its own
    counter.end()


class Bar(SilentProgress):
    """Progress as a bar on a terminal."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console

        self._console = Console(file=stream, highlight=False, soft_wrap=True)

    def say(self, message: str) -> None:
        """Write the message as a line, above the bar if there is one."""
        self._console.print(one_line(message), markup=False)

    def step(self, title: str, total: int | None) -> AbstractContextManager[Advance]:
        """Show a bar for the step, which is removed when the step has ended."""
        return self._bar(title, total)

    def store_step(self, title: str, total: int | None) -> AbstractContextManager[StoreStep]:
        """Show a bar for the step as ``step`` does, with the bytes that were present already."""
        return self._bar(title, total)

    @contextmanager
    def _bar(self, title: str, total: int | None) -> Iterator[StoreStep]:
        from rich import progress

        columns = (
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TextColumn("{task.fields[were_there]}"),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
        )
        with progress.Progress(*columns, console=self._console, transient=True, speed_estimate_period=_RECENT) as shown:
            yield _ProgressBar(shown, shown.add_task(one_line(title), total=total or None, were_there=""))


class _ProgressBar:
    """A step that is shown as a bar."""

    def __init__(self, shown: rich.progress.Progress, task: rich.progress.TaskID) -> None:
        self._shown = shown
        self._task = task
        self._spared = 0
        self._lock = threading.Lock()

    def __call__(self, count: int, /) -> None:
        with self._lock:
            self._shown.advance(self._task, count)
            task = self._shown.tasks[0]
            if task.total is not None and task.completed > task.total:  # an engine said less than it gives
                task.total = None

    def skip(self, count: int, /) -> None:
        with self._lock:
            self._spared += count
            self._shown.update(self._task, were_there=_text_of_skipped(self._spared))


def progress_on(stream: TextIO | None = None) -> Progress:
    """The progress that fits a stream, by default standard error: a bar on a terminal, lines elsewhere.

    A terminal that cannot move its cursor, as ``TERM=dumb`` says, gets lines.
    """
    stream = stream or sys.stderr
    return Bar(stream) if stream.isatty() and os.environ.get("TERM") != "dumb" else Lines(stream)


def printable(text: str) -> str:
    """Make ``text`` safe for a terminal: names come from strangers, and must not move the cursor or colour text."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def size_text(count: int) -> str:
    """A number of bytes as text for people, in powers of 1,000, as in ``776.3 MB``."""
    if count < 1000:
        return f"{count} bytes"
    amount = float(count)
    for unit in ("kB", "MB", "GB"):
        amount /= 1000
        if amount < 999.95:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1000:.1f} TB"


def _duration_text(seconds: float) -> str:
    """A time as text for people: ``40 s``, ``12 min``, ``2 h 5 min``."""
    minutes = round(seconds / 60)
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _text_of_skipped(count: int) -> str:
    return f"{size_text(count)} were there" if count else ""

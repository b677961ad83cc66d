# SPDX-License-Identifier: Apache-2.0
"""What a waiting person is told, and that telling never stops the work."""

from __future__ import annotations

import io
import os
import sys
import threading
import time

import pytest

from arv_docker.local import progress
from arv_docker.local.numbered import NumberedProgress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("arv_docker.local.progress.time.monotonic", clock)
    return clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    """The standard error of a program whose reader has gone."""

    def write(self, text: str, /) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (776_300_000, "776.3 MB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (999_999_999, "1.0 GB"),
        (20 << 30, "21.5 GB"),
        (5 * 10**12, "5.0 TB"),
    ],
)
def test_size(count: int, text: str) -> None:
    assert progress.size_text(count) == text


def test_a_short_step_says_nothing(clock: Clock) -> None:
    stream = io.StringIO()
    with progress.Lines(stream).step("storing", 1000) as advance:
        clock.now += 1.9
        advance(1000)
    assert stream.getvalue() == ""


def test_a_long_step_says_a_line_after_two_seconds_then_every_ten_then_its_end(clock: Clock) -> None:
    stream = io.StringIO()
    with progress.Lines(stream).step("storing", 40_000_000) as advance:
        for _ in range(15):
            clock.now += 1
            advance(1_000_000)
    assert stream.getvalue().splitlines() == [
        "storing: 2.0 MB of 40.0 MB (5 %), 1.0 MB/s, about 38 s left",
        "storing: 12.0 MB of 40.0 MB (30 %), 1.0 MB/s, about 28 s left",
        "storing: 15.0 MB done, 1.0 MB/s",
    ]


def test_the_rate_is_of_the_recent_past(clock: Clock) -> None:
    """An engine gives nothing for a while: what is left takes as long as the bytes that come now."""
    stream = io.StringIO()
    with progress.Lines(stream).step("storing", 400_000_000) as advance:
        clock.now += 60
        for _ in range(30):
            clock.now += 1
            advance(10_000_000)
        assert stream.getvalue().splitlines()[-1] == (
            "storing: 210.0 MB of 400.0 MB (52 %), 10.0 MB/s, about 19 s left"
        )
        clock.now += 30
        advance(0)
    assert "storing: 300.0 MB of 400.0 MB (75 %), 0 bytes/s" in stream.getvalue()
    assert stream.getvalue().splitlines()[-1] == "storing: 300.0 MB done, 2.5 MB/s"


def test_what_was_there_is_said_beside_the_rest(clock: Clock) -> None:
    stream = io.StringIO()
    with progress.Lines(stream).store_step("storing", 776_300_000) as storing:
        for _ in range(4):
            clock.now += 1
            storing.skip(92_550_000)
            storing(103_000_000)
    assert stream.getvalue().splitlines() == [
        "storing: 206.0 MB of 776.3 MB (26 %), 185.1 MB were there, 103.0 MB/s, about 6 s left",
        "storing: 412.0 MB done, 370.2 MB were there, 103.0 MB/s",
    ]


@pytest.mark.parametrize(
    ("done", "amount"),
    [
        (99_999_999, "100.0 MB of 100.0 MB (99 %), "),
        (100_000_000, "100.0 MB of 100.0 MB (100 %), "),
        (102_000_000, "102.0 MB of about 100.0 MB (99 %), "),
    ],
)
def test_more_than_was_expected_is_not_more_than_all(clock: Clock, done: int, amount: str) -> None:
    """What Docker says of an image's size is not the length of its tar."""
    stream = io.StringIO()
    with progress.Lines(stream).store_step("storing", 100_000_000) as storing:
        clock.now += 2
        storing(done)
    assert amount in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (99.4, "99 s"), (99.6, "2 min"), (5940, "99 min"), (6000, "1 h 40 min"), (90_000, "25 h 0 min")],
)
def test_the_time_that_is_left(clock: Clock, seconds: float, text: str) -> None:
    stream = io.StringIO()
    with progress.Lines(stream).step("storing", 1_000_000 + round(seconds * 500_000)) as advance:
        clock.now += 2
        advance(1_000_000)
    assert f"about {text} left" in stream.getvalue()


def test_lines_for_programs_are_those_of_arv_put(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of `machine_progress`: the program, its process, bytes written and in all; here the first and the last."""
    monkeypatch.setattr(sys, "argv", ["/bin/arv-keepdocker", "app:1"])
    stream = io.StringIO()
    batch = progress.BatchLines(stream)
    with batch.store_step("storing", 100) as storing:
        storing(60)
        storing.skip(60)
        storing(42)
    with batch.store_step("storing", None) as storing:
        storing(5)
    begin = f"/bin/arv-keepdocker {os.getpid()}: "
    assert stream.getvalue().splitlines() == [
        begin + "0 written 100 total",
        begin + "102 written 102 total",
        begin + "0 written -1 total",
        begin + "5 written 5 total",
    ]


def test_programs_are_told_of_what_is_written_alone() -> None:
    stream = io.StringIO()
    with progress.BatchLines(stream).step("verifying", 100) as advance:
        advance(100)
    assert stream.getvalue() == ""


@pytest.mark.parametrize(("count", "line"), [(60, ": 60 written 100 total"), (102, ": 102 written 102 total")])
def test_programs_are_told_while_bytes_come(count: int, line: str) -> None:
    """Never that more is written than there is."""
    told = threading.Event()

    class Stream(io.StringIO):
        def write(self, text: str, /) -> int:
            if line in text:
                told.set()
            return super().write(text)

    stream = Stream()
    with progress.BatchLines(stream).store_step("storing", 100) as storing:
        storing(count)
        assert told.wait(20), stream.getvalue()


def test_the_last_line_is_that_of_the_end() -> None:
    """Though another thread is just about to write one; and no line is written in two parts, or both would mix."""
    begun = threading.Event()
    written = []

    class Slow(io.StringIO):
        def write(self, text: str, /) -> int:
            if threading.current_thread() is not threading.main_thread():
                begun.set()
                time.sleep(0.2)
            written.append(text)
            return len(text)

    with progress.BatchLines(Slow()).store_step("storing", 100) as storing:
        storing(40)
        assert begun.wait(20)
    assert written[-1].endswith(": 40 written 40 total\n")
    assert all(text.count("\n") == 1 and text.endswith("\n") for text in written)


@pytest.mark.parametrize("total", [None, 0])
def test_a_step_of_unknown_length(clock: Clock, total: int | None) -> None:
    stream = io.StringIO()
    with progress.Lines(stream).step("saving", total) as advance:
        clock.now += 4
        advance(8_000_000)
    assert stream.getvalue().splitlines()[0] == "saving: 8.0 MB, 2.0 MB/s"


def test_a_step_without_bytes_says_how_long_it_takes(clock: Clock) -> None:
    stream = io.StringIO()
    with progress.Lines(stream).step("asking registry.example", None) as advance:
        clock.now += 4
        advance(0)
        clock.now += 1
    assert stream.getvalue().splitlines() == ["asking registry.example: 4 s", "asking registry.example: done after 5 s"]


def test_a_step_that_fails_does_not_say_that_it_is_done(clock: Clock) -> None:
    stream = io.StringIO()

    def fails() -> None:
        with progress.Lines(stream).step("storing", None) as advance:
            clock.now += 4
            advance(1)
            raise OSError

    with pytest.raises(OSError):
        fails()
    assert "done" not in stream.getvalue()


def test_silent_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    silent = progress.SilentProgress()
    silent.say("x")
    with silent.step("x", 1) as advance:
        advance(1)
    with silent.store_step("x", 1) as storing:
        storing(1)
        storing.skip(1)
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal_and_lines_elsewhere() -> None:
    assert isinstance(progress.progress_on(Terminal()), progress.Bar)
    assert isinstance(progress.progress_on(io.StringIO()), progress.Lines)


def test_the_bar_says_what_was_there() -> None:
    terminal = Terminal()
    with progress.progress_on(terminal).store_step("storing", 100_000_000) as storing:
        storing(102_000_000)
        storing.skip(50_000_000)
        time.sleep(0.3)  # it is drawn ten times a second
    assert "50.0 MB were there" in terminal.getvalue()


def test_the_bar_keeps_what_is_said_as_it_is() -> None:
    terminal = Terminal()
    bar = progress.progress_on(terminal)
    with bar.step("storing", 10) as advance:
        advance(10)
        bar.say("quay.example.com/[red]x:1 " + "y" * 300)
    assert "quay.example.com/[red]x:1 " + "y" * 300 in terminal.getvalue()


def test_a_reader_that_has_gone_does_not_stop_the_work(clock: Clock) -> None:
    """As in `arv-docker ingest … 2>&1 | head -1`: the image is stored all the same."""
    lines = progress.Lines(Gone())
    lines.say("x")
    with lines.step("storing", 10) as advance:
        clock.now += 5
        advance(10)


@pytest.mark.conforms("S19")
def test_a_step_in_which_nothing_moves_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is asked again and again, an engine that takes its time: a log shows that the work goes on."""
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    monkeypatch.setattr(progress, "_INTERVAL", 1.0)
    told = threading.Event()

    class Stream(io.StringIO):
        def write(self, text: str, /) -> int:
            if "nothing new" in text:
                told.set()
            return super().write(text)

    stream = Stream()
    with progress.Lines(stream).step("storing", 1000) as advance:
        advance(10)
        assert told.wait(20), stream.getvalue()
    assert "storing: 10 bytes of 1.0 kB (1 %)" in stream.getvalue()


def test_steps_of_a_batch_are_numbered() -> None:
    stream = io.StringIO()
    numbered = NumberedProgress(progress.Lines(stream), 35)
    numbered.number = 3
    numbered.say("a word")
    assert numbered._title_of("storing") == "[3/35] storing"
    numbered.number = 36
    assert numbered._title_of("comparing") == "[35/35] comparing"
    assert NumberedProgress(progress.Lines(stream), 1)._title_of("storing") == "storing"
    assert stream.getvalue() == "a word\n"


def test_a_bar_never_passes_100_percent() -> None:
    """An engine says less than it gives: then no total is shown any more."""
    bar = progress.Bar(Terminal())
    with bar.step("saving", 100) as advance:
        advance(100)
        assert advance._shown.tasks[0].total == 100  # type: ignore[attr-defined]
        advance(1)
        assert advance._shown.tasks[0].total is None  # type: ignore[attr-defined]


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(progress.progress_on(Terminal()), progress.Lines)

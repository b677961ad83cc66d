# SPDX-License-Identifier: Apache-2.0
"""What a waiting person is told, and that telling never stops the work."""

from __future__ import annotations

import io
import threading

import pytest

from arv_docker import progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("arv_docker.progress.time.monotonic", clock)
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
    assert progress.size(count) == text


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
        "storing: 2.0 MB of 40.0 MB (5 %), 1.0 MB/s",
        "storing: 12.0 MB of 40.0 MB (30 %), 1.0 MB/s",
        "storing: 15.0 MB done, 1.0 MB/s",
    ]


@pytest.mark.parametrize("total", [None, 0])
def test_a_step_of_unknown_length(clock: Clock, total: int | None) -> None:
    stream = io.StringIO()
    with progress.Lines(stream).step("saving", total) as advance:
        clock.now += 4
        advance(8_000_000)
    assert stream.getvalue().splitlines()[0] == "saving: 8.0 MB, 2.0 MB/s"


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
    silent = progress.Silent()
    silent.say("x")
    with silent.step("x", 1) as advance:
        advance(1)
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal_and_lines_elsewhere() -> None:
    assert isinstance(progress.on(Terminal()), progress.Bar)
    assert isinstance(progress.on(io.StringIO()), progress.Lines)


def test_the_bar_keeps_what_is_said_as_it_is() -> None:
    terminal = Terminal()
    bar = progress.on(terminal)
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

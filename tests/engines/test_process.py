# SPDX-License-Identifier: Apache-2.0
"""Running commands: no pipe that fills up, no input that closes by accident, nothing left running."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arv_docker.engines import process
from arv_docker.engines.output import Ending, lines_of, split_lines
from arv_docker.engines.process import CompletedCommand, feed_input, read_output, run_command, stream_output
from arv_docker.errors import ArvDockerError, BadArchive, EngineError


class Judge:
    """A check that keeps what it was given, and raises if told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.seen: list[CompletedCommand] = []
        self._error = error

    def __call__(self, finished: CompletedCommand) -> None:
        self.seen.append(finished)
        if self._error is not None:
            raise self._error


def python(code: str) -> list[str]:
    return [sys.executable, "-c", f"import os, sys, time\n{code}"]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


# -- to the end -------------------------------------------------------------------------


def test_run_gives_what_was_written() -> None:
    judge = Judge()
    command = python("print('out'); print('err', file=sys.stderr); sys.exit(3)")
    finished = run_command(command, judge)
    assert finished == CompletedCommand(tuple(command), 3, b"out\n", "err\n")
    assert judge.seen == [finished]


def test_run_closes_standard_input() -> None:
    assert run_command(python("print(repr(sys.stdin.read()))"), Judge()).stdout == b"''\n"


def test_what_a_command_finds_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours and what it is given, without the key to the cluster."""
    monkeypatch.setenv("ARVADOS_API_TOKEN", "a-secret-token")
    monkeypatch.setenv("OURS", "ours")
    code = "print(os.environ.get('ARVADOS_API_TOKEN'), os.environ['OURS'], os.environ.get('TMPDIR'))"
    assert run_command(python(code), Judge()).stdout == f"None ours {os.environ.get('TMPDIR')}\n".encode()
    assert feed_input(python(code), [], Judge(), variables={"TMPDIR": "/x"}).stdout == b"None ours /x\n"


def test_lines_are_told_as_they_come(tmp_path: Path) -> None:
    """The child waits for the file that the first line makes us write."""
    flag = tmp_path / "flag"
    code = f"""
print("one", flush=True)
while not os.path.exists({str(flag)!r}): time.sleep(0.01)
print("two\\r\\n", end="")
sys.stdout.buffer.write(b"\\xff")
"""
    lines: list[str] = []

    def told(line: str) -> None:
        lines.append(line)
        flag.touch()

    run_command(python(code), Judge(), on_line=told)
    assert lines == ["one", "two", "\ufffd"]


def test_a_check_that_raises() -> None:
    with pytest.raises(EngineError, match="no"):
        run_command(python("sys.exit(1)"), Judge(EngineError("no")))


@pytest.mark.parametrize("command", [["/nowhere/docker"], ["."]])
def test_a_command_that_cannot_be_started(command: list[str]) -> None:
    with pytest.raises(EngineError, match="cannot be started") as caught:
        run_command(command, Judge())
    assert command[0] in caught.value.message


def test_a_command_of_another_machine(tmp_path: Path) -> None:
    program = tmp_path / "docker"
    program.write_bytes(b"\x7fELF no such thing")
    program.chmod(0o755)
    with pytest.raises(ArvDockerError, match="cannot be started"):
        run_command([str(program)], Judge())


# -- lines of both channels ------------------------------------------------------------


def test_both_channels_in_their_order_and_the_status() -> None:
    code = "for n in range(3):\n print('out', n, flush=True); print('err', n, file=sys.stderr, flush=True)\nsys.exit(3)"
    ending = Ending(lines_of(stream_output(python(code))))
    assert list(ending) == [f"{channel} {n}\n" for n in range(3) for channel in ("out", "err")]
    assert ending.value == 3


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (b"one\r\ntwo\n", ["one\n", "two\n"]),
        (b"10 %\r20 %\rdone", ["10 %\r", "20 %\r", "done\n"]),
        (b"last\r", ["last\n"]),
        (b"\n\n", ["\n", "\n"]),
        (b"", []),
        (b"\x1b[91mred\x1b[0m \x1b]0;title\x07\x1b[2Kx\x07\ty\xff\n", ["red x\ufffd  y\ufffd\n"]),
        (b"x" * 70_000, ["x" * 70_000 + "\n"]),
    ],
)
@pytest.mark.conforms("R13")
def test_lines_as_a_terminal_would_have_them(said: bytes, shown: list[str]) -> None:
    assert list(split_lines([said])) == shown


@given(st.lists(st.sampled_from([b"a", b"b\xc3", b"\xa9", b"\r", b"\n", b"\r\n", b"\x1b[", b"1m"])))
def test_lines_do_not_depend_on_how_they_come(pieces: list[bytes]) -> None:
    assert list(split_lines(pieces)) == list(split_lines([b"".join(pieces)]))


def test_a_command_that_may_end_by_itself_first(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    code = f"print(os.getpid(), flush=True)\nwhile not os.path.exists({str(flag)!r}): time.sleep(0.01)\n"
    code += f"open({str(flag)!r} + '2', 'w')"

    def release() -> bool:
        flag.touch()
        return True

    output = lines_of(stream_output(python(code), release=release))
    pid = int(next(output))
    output.close()
    assert gone(pid)
    assert Path(f"{flag}2").exists()


# -- standard error ---------------------------------------------------------------------

_LOUD = "sys.stderr.write('first words\\n' + 'x' * 200_000 + '\\nlast words\\n'); sys.stderr.flush()\n"


@pytest.mark.conforms("S21")
def test_200_kb_on_standard_error_stall_no_stream() -> None:
    judge = Judge()
    code = _LOUD + "sys.stdout.buffer.write(b'y' * 3_000_000); sys.stdout.flush()\n" + _LOUD
    with read_output(python(code), judge) as output:
        content = b"".join(iter(lambda: output.read(1 << 20), b""))
    assert content == b"y" * 3_000_000
    (finished,) = judge.seen
    assert finished.stderr.startswith("first words\n")
    assert finished.stderr.endswith("last words\n")
    assert "bytes left out" in finished.stderr
    assert len(finished.stderr) < 100_000


def test_200_kb_on_standard_error_stall_no_feeding() -> None:
    judge = Judge()
    code = _LOUD + "n = len(sys.stdin.buffer.read())\n" + _LOUD + "print(n)"
    finished = feed_input(python(code), [b"x" * 1_000_000] * 3, judge)
    assert finished.stdout == b"3000000\n"
    assert finished.stderr.endswith("last words\n")


@pytest.mark.conforms("S21")
def test_200_kb_on_standard_output_stall_no_feeding() -> None:
    code = "sys.stdout.write('z' * 200_000); sys.stdout.flush(); sys.stdin.buffer.read()"
    assert len(feed_input(python(code), [b"x" * 2_000_000], Judge()).stdout) > 60_000


def test_what_is_short_is_kept_whole() -> None:
    words = "é" * 30_000
    code = f"sys.stderr.reconfigure(encoding='utf-8'); sys.stderr.write({words!r})"
    assert run_command(python(code), Judge()).stderr == words


# -- a stream ---------------------------------------------------------------------------


def test_a_failing_command_is_judged_at_the_stream_s_end() -> None:
    def read() -> None:
        with read_output(python("print('part', flush=True); sys.exit(1)"), Judge(EngineError("failed"))) as output:
            while output.read(100):
                pass

    with pytest.raises(EngineError, match="failed"):
        read()


def test_a_stream_left_early_ends_the_command_and_is_not_judged() -> None:
    judge = Judge()
    code = "print(f'{os.getpid():99}', flush=True)\nwhile True: sys.stdout.write('x' * 10000)"
    with read_output(python(code), judge) as output:
        pid = int(output.read(100).split()[0])
    assert gone(pid)
    assert judge.seen == []


def test_an_error_while_reading_ends_the_command() -> None:
    pids: list[int] = []

    def read() -> None:
        with read_output(python("print(f'{os.getpid():99}', flush=True); time.sleep(600)"), Judge()) as output:
            pids.append(int(output.read(100)))
            raise ValueError("ours")

    started = time.monotonic()
    with pytest.raises(ValueError, match="ours"):
        read()
    assert time.monotonic() - started < 60
    assert gone(pids[0])


# -- feeding ----------------------------------------------------------------------------


def test_feeding() -> None:
    judge = Judge()
    finished = feed_input(python("print(sys.stdin.buffer.read())"), [b"one ", b"", b"two"], judge)
    assert finished.stdout == b"b'one two'\n"
    assert judge.seen == [finished]


def watcher(report: Path) -> list[str]:
    """A command that notes whether its input ended, as an engine would that loads what it has."""
    code = f"""
open({str(report)!r} + ".pid", "w").write(str(os.getpid()))
sys.stdin.buffer.read()
open({str(report)!r}, "w").write("end of input")
"""
    return python(code)


def started(report: Path) -> Iterator[bytes]:
    """Chunks that raise once the command is up."""
    yield b"x" * 1000
    pid = Path(f"{report}.pid")
    assert wait_for(lambda: pid.exists() and pid.read_text() != "")
    raise ArvDockerError("a layer is not what it claims")


def test_an_error_in_the_chunks_never_ends_the_input(tmp_path: Path) -> None:
    report = tmp_path / "report"
    with pytest.raises(ArvDockerError, match="not what it claims"):
        feed_input(watcher(report), started(report), Judge())
    pid = int(Path(f"{report}.pid").read_text())
    assert wait_for(lambda: gone(pid))
    assert not report.exists()


def test_nor_that_of_a_command_behind_a_script(tmp_path: Path) -> None:
    """`docker` may be a shell script around the real one, which must not go on alone with its input closed."""
    report, script = tmp_path / "report", tmp_path / "docker"
    script.write_text(f"#!/bin/sh\n{shlex.join(watcher(report))}\nexit 0\n")
    script.chmod(0o755)
    began = time.monotonic()
    with pytest.raises(ArvDockerError, match="not what it claims"):
        feed_input([str(script)], started(report), Judge())
    assert time.monotonic() - began < 60
    pid = int(Path(f"{report}.pid").read_text())
    assert wait_for(lambda: gone(pid))
    assert not report.exists()


def test_a_command_that_ends_early_is_judged_by_its_own_words() -> None:
    with pytest.raises(EngineError, match="no space"):
        feed_input(
            python("sys.stdin.buffer.read(10); print('no space', file=sys.stderr); sys.exit(1)"),
            [b"x" * 1_000_000] * 20,
            _words,
        )


def _words(finished: CompletedCommand) -> None:
    raise EngineError(f"{finished.status}: {finished.stderr}")


def test_no_chunk_is_asked_for_after_a_command_has_ended(tmp_path: Path) -> None:
    asked: list[int] = []

    def chunks() -> Iterator[bytes]:
        for number in range(100):
            asked.append(number)
            yield b"x" * (1 << 20)

    feed_input(python("sys.exit(0)"), chunks(), Judge())
    assert len(asked) < 10


def test_nothing_is_left_running_or_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        run_command(python("pass"), Judge())
        feed_input(python("sys.stdin.buffer.read()"), [b"x"], Judge())
        with read_output(python("print('x' * 100)"), Judge()) as output:
            output.read(1)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_ctrl_c_while_feeding_ends_the_command(tmp_path: Path) -> None:
    report = tmp_path / "report"

    def chunks() -> Iterator[bytes]:
        yield b"x"
        pid = Path(f"{report}.pid")
        assert wait_for(lambda: pid.exists() and pid.read_text() != "")
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    with pytest.raises(KeyboardInterrupt):
        feed_input(watcher(report), chunks(), Judge())
    assert wait_for(lambda: gone(int(Path(f"{report}.pid").read_text())))
    assert not report.exists()


# -- whose words count ------------------------------------------------------------------


def test_a_command_that_broke_off_is_judged_by_its_own_words() -> None:
    """What was read of it is cut short, and that is not the reason."""

    def read() -> None:
        with read_output(
            python("print('x' * 100); print('no space left', file=sys.stderr); sys.exit(1)"), refuse
        ) as output:
            output.read(1000)
            raise BadArchive("cut short")

    with pytest.raises(EngineError, match="no space left"):
        read()


def test_content_that_is_refused_of_a_command_that_ended_well() -> None:
    def read() -> None:
        with read_output(python("print('x' * 100)"), refuse) as output:
            output.read(1000)
            raise BadArchive("no image")

    with pytest.raises(BadArchive, match="no image"):
        read()


def test_what_a_command_leaves_running_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_GRACE", 0.2)
    started = time.monotonic()
    code = "import subprocess; subprocess.Popen(['sleep', '20'], stdout=subprocess.DEVNULL); print('done')"
    assert run_command(python(code), Judge()).stdout == b"done\n"
    assert time.monotonic() - started < 60


def refuse(finished: CompletedCommand) -> None:
    if finished.status:
        raise EngineError(finished.stderr)

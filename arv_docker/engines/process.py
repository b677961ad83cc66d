# SPDX-License-Identifier: Apache-2.0
"""Running an engine's command: standard error is drained while the command runs, and kept.

A child that fills an unread pipe stops; so one thread reads standard error to its end while another party reads or
writes the data. The first and the last part of standard error are kept for the error message; a child that writes
much must not fill the memory.

``watch`` limits how long a command may be silent. Where ``answers`` is given, silence may be work, and the engine is
asked whether it still answers.
"""

from __future__ import annotations

import fcntl
import io
import logging
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from ..errors import ContentError, EngineError
from ..local.settings import USUAL_ENGINE_TIMEOUT, command_environment
from .watch import Watch

log = logging.getLogger(__name__)

_HEAD = 16 << 10
_TAIL = 64 << 10
_PIPE = 1 << 20
#: Seconds that a pipe may stay open after its command has ended, and a command may take to end by itself.
_GRACE = 5.0
_F_SETPIPE_SZ = 1031  # fcntl has the name on Linux alone

#: An option whose value may be a secret.
_VALUE = re.compile(r"(--build-arg=[^=]*=).*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class CompletedCommand:
    """A finished command: exit status and output."""

    command: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: str


Check = Callable[[CompletedCommand], None]
AnswerCheck = Callable[[], bool]


class Output:
    """A running command's standard output."""

    def __init__(self, pipe: IO[bytes], watch: Watch) -> None:
        self._pipe = pipe
        self._watch = watch

    def read(self, length: int) -> bytes:
        """Return ``length`` bytes; fewer only at the end."""
        with self._watch:
            return self._pipe.read(length)

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` and return the number of bytes; fewer only at the end."""
        with self._watch:
            return int(self._pipe.readinto(buffer))  # type: ignore[attr-defined]


def run_command(
    command: Sequence[str],
    check: Check,
    *,
    on_line: Callable[[str], None] | None = None,
    answers: AnswerCheck | None = None,
    unlogged: int = 0,
    timeout: float = USUAL_ENGINE_TIMEOUT,
) -> CompletedCommand:
    """Run a command to its end with its standard input closed, and hand the result to ``check``.

    ``on_line`` gets each line of standard output as it comes, for progress. The last ``unlogged`` words of the
    command stay out of the log.
    """
    with _start(command, stdin=subprocess.DEVNULL, answers=answers, unlogged=unlogged, timeout=timeout) as (
        process,
        stderr,
        watch,
    ):
        assert process.stdout is not None
        output = []
        while line := _read_watched(watch, process.stdout.readline):
            output.append(line)
            if on_line is not None:
                on_line(line.decode(errors="replace").rstrip())
        finished = CompletedCommand(tuple(command), _wait_for(process, watch), b"".join(output), stderr.text())
    check(finished)
    return finished


def stream_output(
    command: Sequence[str],
    *,
    stdin: IO[bytes] | None = None,
    folder: Path | None = None,
    variables: Mapping[str, str] | None = None,
    answers: AnswerCheck | None = None,
    release: Callable[[], bool] | None = None,
    timeout: float = USUAL_ENGINE_TIMEOUT,
) -> Generator[bytes, None, int]:
    """Run a command: yield its output, with standard error in it, in pieces of any size as they come, and return its
    exit status. ``output.lines_of`` makes lines of the pieces.

    ``stdin`` is an open file, ``folder`` the folder in which the command runs. Closing the generator ends the
    command. ``release`` may first end what keeps the command from ending by itself; where it returns True, the
    command gets a few seconds to do so.
    """
    with _start(
        command,
        stdin=stdin or subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        folder=folder,
        variables=variables,
        answers=answers,
        release=release,
        timeout=timeout,
    ) as (process, _, watch):
        assert process.stdout is not None
        read = partial(process.stdout.read1, 1 << 16)  # type: ignore[attr-defined]
        yield from iter(lambda: _read_watched(watch, read), b"")
        return _wait_for(process, watch)


@contextmanager
def read_output(
    command: Sequence[str],
    check: Check,
    *,
    variables: Mapping[str, str] | None = None,
    answers: AnswerCheck | None = None,
    timeout: float = USUAL_ENGINE_TIMEOUT,
) -> Iterator[Output]:
    """Run a command whose output is read as a stream; ``check`` is called when the block ends without an error.

    ``variables`` are added to the command's environment. A block that ends early, or with an error, ends the command.
    """
    with _start(command, stdin=subprocess.DEVNULL, variables=variables, answers=answers, timeout=timeout) as (
        process,
        stderr,
        watch,
    ):
        assert process.stdout is not None
        output = Output(process.stdout, watch)
        try:
            yield output
        except ContentError:
            if not output.read(1):  # the command ended by itself, so that its words may say why
                check(CompletedCommand(tuple(command), _wait_for(process, watch), b"", stderr.text()))
            raise
        if not output.read(1):  # the reader came to the end; else the command is killed
            check(CompletedCommand(tuple(command), _wait_for(process, watch), b"", stderr.text()))


def feed_input(
    command: Sequence[str],
    chunks: Iterable[bytes],
    check: Check,
    *,
    variables: Mapping[str, str] | None = None,
    answers: AnswerCheck | None = None,
    timeout: float = USUAL_ENGINE_TIMEOUT,
) -> CompletedCommand:
    """Feed ``chunks`` to a command's standard input, close that, and hand the result to ``check``.

    ``variables`` are added to the command's environment.

    If ``chunks`` raises, the command is killed first and its input never closed: an engine takes a closed input for
    a complete archive. A command that ends by itself in the middle is judged by ``check``, because its words say more
    than a broken pipe.
    """
    with _start(command, stdin=subprocess.PIPE, variables=variables, answers=answers, timeout=timeout) as (
        process,
        stderr,
        watch,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        stdout = _Drain(process.stdout)
        try:
            _write(process.stdin, chunks, watch)
        except BaseException:
            _kill(process)
            raise
        with suppress(BrokenPipeError), watch:
            process.stdin.close()
        finished = CompletedCommand(tuple(command), _wait_for(process, watch), stdout.text().encode(), stderr.text())
    check(finished)
    return finished


def _write(pipe: IO[bytes], chunks: Iterable[bytes], watch: Watch) -> None:
    for chunk in chunks:
        try:
            with watch:
                pipe.write(chunk)
                pipe.flush()
        except BrokenPipeError:
            return


def _read_watched(watch: Watch, read: Callable[[], bytes]) -> bytes:
    with watch:
        return read()


def _wait_for(process: subprocess.Popen[bytes], watch: Watch) -> int:
    """Wait for a command's end and return its exit status; raises EngineSilent if the watch ended the command."""
    with watch:
        status = process.wait()
    watch.judge()
    return status


@contextmanager
def _start(
    command: Sequence[str],
    *,
    stdin: int | IO[bytes],
    stderr: int = subprocess.PIPE,
    folder: Path | None = None,
    variables: Mapping[str, str] | None = None,
    answers: AnswerCheck | None = None,
    release: Callable[[], bool] | None = None,
    unlogged: int = 0,
    timeout: float,
) -> Iterator[tuple[subprocess.Popen[bytes], _Drain, Watch]]:
    line = loggable(command, unlogged)
    log.debug("starting %s", line)
    start = time.monotonic()
    try:
        process = subprocess.Popen(
            list(command),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=folder,
            env={**command_environment(), **(variables or {})},
            start_new_session=True,  # a group of its own, so that what the command started ends with it
        )
    except OSError as error:
        log.info("%s cannot be started: %s", line, error.strerror)
        raise EngineError(f"{command[0]} cannot be started: {error.strerror}.") from error
    _enlarge(process.stdin or process.stdout)
    said = _Drain(process.stderr or io.BytesIO())
    watch = Watch(Path(command[0]).name, timeout, partial(_kill, process), answers)
    try:
        yield process, said, watch
    finally:
        watch.close()
        try:
            if process.poll() is None and release is not None and release():
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_GRACE)
        finally:
            if process.poll() is None:
                _kill(process)
        for pipe in (process.stdout, process.stdin):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        said.text()
        log.info("%s: exit code %s after %.2f s", line, process.returncode, time.monotonic() - start)


def loggable(command: Sequence[str], unlogged: int = 0) -> str:
    """A command for the log: without values of build arguments, and without its last ``unlogged`` words.

    >>> loggable(["/usr/bin/docker", "build", "--build-arg=KEY=secret", "."])
    'docker build --build-arg=KEY=… .'
    """
    words = [Path(command[0]).name, *command[1 : len(command) - unlogged], *["…"] * bool(unlogged)]
    return " ".join(_VALUE.sub(r"\1…", word) for word in words)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a command and all that it started. A command may be a script around the real one (``sudo docker``): if the
    real one went on alone, it would see its input closed, and hold the other end of our pipe open."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _enlarge(pipe: IO[bytes] | None) -> None:
    """Enlarge a pipe, for fewer switches between processes. A user's share of such pipes may be used up."""
    if pipe is not None:
        with suppress(OSError):
            fcntl.fcntl(pipe.fileno(), _F_SETPIPE_SZ, _PIPE)


class _Drain:
    """A thread that reads a pipe to its end, and keeps the first and the last part."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def text(self) -> str:
        """Return the whole text, or its two ends with a note between them.

        Waits for the end of the pipe, but not for what the command left running behind it.
        """
        self._thread.join(_GRACE)
        note = f"\n[{self._dropped} bytes left out]\n".encode() if self._dropped else b""
        return (bytes(self._head) + note + bytes(self._tail)).decode(errors="replace")

    def _read(self) -> None:
        with self._pipe:
            while chunk := self._pipe.read1(1 << 16):  # type: ignore[attr-defined]
                room = max(0, _HEAD - len(self._head))
                self._head += chunk[:room]
                self._tail += chunk[room:]
                if (excess := len(self._tail) - _TAIL) > 0:
                    del self._tail[:excess]
                    self._dropped += excess

# SPDX-License-Identifier: Apache-2.0
"""Running an engine's command: its standard error is drained while it runs, and kept.

A child that fills an unread pipe stops; so one thread reads standard error to its end
while another party reads or writes the data. The first and last part of what a child
said are kept for the error message, for a long-winded child must not fill our memory.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO

from ..errors import ContentError, EngineError

_HEAD = 16 << 10
_TAIL = 64 << 10
_PIPE = 1 << 20
#: Seconds that a pipe may stay open after its command has ended.
_GRACE = 5.0
_F_SETPIPE_SZ = 1031  # fcntl has the name on Linux alone


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended: its exit status and what it wrote."""

    command: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: str


Check = Callable[[Finished], None]


class Output:
    """A running command's standard output."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe

    def read(self, length: int) -> bytes:
        """``length`` bytes; fewer only at the end."""
        return self._pipe.read(length)

    def readinto(self, buffer: memoryview) -> int:
        """Fills ``buffer`` and gives the number of bytes; fewer only at the end."""
        return int(self._pipe.readinto(buffer))  # type: ignore[attr-defined]


def run(command: Sequence[str], check: Check, *, on_line: Callable[[str], None] | None = None) -> Finished:
    """Runs a command to its end with its standard input closed, and hands the result to ``check``.

    ``on_line`` gets each line of standard output as it comes, for progress.
    """
    with _started(command, stdin=subprocess.DEVNULL) as (process, stderr):
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if on_line is not None:
                on_line(line.decode(errors="replace").rstrip())
        finished = Finished(tuple(command), process.wait(), b"".join(lines), stderr.text())
    check(finished)
    return finished


@contextmanager
def reading(command: Sequence[str], check: Check) -> Iterator[Output]:
    """A command whose output is read as a stream; ``check`` is called when the block ends without an error.

    A block that ends early, or with an error, ends the command.
    """
    with _started(command, stdin=subprocess.DEVNULL) as (process, stderr):
        assert process.stdout is not None
        try:
            yield Output(process.stdout)
        except ContentError:
            if not process.stdout.read(1):  # it ended by itself, so that its own words may say why
                check(Finished(tuple(command), process.wait(), b"", stderr.text()))
            raise
        if not process.stdout.read(1):  # the reader came to the end; else the command is killed
            check(Finished(tuple(command), process.wait(), b"", stderr.text()))


def feed(
    command: Sequence[str], chunks: Iterable[bytes], check: Check, *, variables: Mapping[str, str] | None = None
) -> Finished:
    """Feeds ``chunks`` to a command's standard input, closes it, and hands the result to ``check``.

    ``variables`` are set in its environment, beside ours.

    If ``chunks`` raises, the command is killed first and its input never closed: an
    engine takes a closed input for a complete archive. A command that ends by itself in
    the middle is judged by ``check``, since its own words say more than a broken pipe.
    """
    with _started(command, stdin=subprocess.PIPE, variables=variables) as (process, stderr):
        assert process.stdin is not None
        assert process.stdout is not None
        stdout = _Drain(process.stdout)
        try:
            _write(process.stdin, chunks)
        except BaseException:
            _kill(process)
            raise
        with suppress(BrokenPipeError):
            process.stdin.close()
        finished = Finished(tuple(command), process.wait(), stdout.text().encode(), stderr.text())
    check(finished)
    return finished


def _write(pipe: IO[bytes], chunks: Iterable[bytes]) -> None:
    for chunk in chunks:
        try:
            pipe.write(chunk)
            pipe.flush()
        except BrokenPipeError:
            return


@contextmanager
def _started(
    command: Sequence[str], *, stdin: int, variables: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], _Drain]]:
    try:
        process = subprocess.Popen(
            list(command),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**_without_secrets(os.environ), **(variables or {})},
            start_new_session=True,  # a group of its own, so that what the command started ends with it
        )
    except OSError as error:
        raise EngineError(f"{command[0]} cannot be started: {error.strerror}.") from error
    assert process.stderr is not None
    _enlarge(process.stdin or process.stdout)
    stderr = _Drain(process.stderr)
    try:
        yield process, stderr
    finally:
        if process.poll() is None:
            _kill(process)
        for pipe in (process.stdout, process.stdin):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        stderr.text()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends a command and all that it started. A command may be a script around the real one (``sudo docker``):
    if that went on alone, it would see its input closed, and hold our end of its output open."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """What an engine's command gets of our environment: it has no business with the cluster."""
    return {name: value for name, value in environment.items() if name != "ARVADOS_API_TOKEN"}


def _enlarge(pipe: IO[bytes] | None) -> None:
    """Fewer switches between us and the command. Ordinary users have a share of such pipes, which may be used up."""
    if pipe is not None:
        with suppress(OSError):
            fcntl.fcntl(pipe.fileno(), _F_SETPIPE_SZ, _PIPE)


class _Drain:
    """Reads a pipe to its end in a thread and keeps its first and last part."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def text(self) -> str:
        """All of it, or the two ends with a note between them.

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

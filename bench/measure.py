# SPDX-License-Identifier: Apache-2.0
"""One command, run to its end, and what it took: the record that a line of the results holds."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

#: Seconds between two looks at the memory of a running command.
_INTERVAL = 0.05

#: Bytes of what the kernel counts a write to a disk in, for a process and its children.
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Cost:
    """What a command and its child processes took: seconds, and bytes.

    `memory` is the largest sum of resident memory over the processes that was seen (20 looks a second), or the peak of
    one process as the kernel keeps it, whichever is more. `disk` is what the kernel charged for writing to file
    systems (`write_bytes` of /proc/PID/io), whether it reached the disk or was deleted before.
    """

    wall: float
    cpu: float
    memory: int
    disk: int


@dataclass(frozen=True, slots=True)
class Run:
    """One measured run: a line of the results.

    `scenario`, `image` and `who` say what was run, `endpoint` against what (empty: none). `order` is its place in the
    round. `size` are the bytes that it is about (an image as a tar), `allowed` those that a figure allows to be moved;
    `blocks` and `aligned` what the stored image has of each. The others are those of Cost and of endpoint.Counts.
    """

    scenario: str
    image: str
    who: str
    endpoint: str
    round: int
    order: int
    size: int
    wall: float
    cpu: float
    memory: int
    disk: int
    requests: int = 0
    puts: int = 0
    sent: int = 0
    stored: int = 0
    read: int = 0
    allowed: int = 0
    blocks: int = 0
    aligned: int = 0


class Failed(Exception):
    """A measured command failed, so there is nothing to measure."""


def measured(command: Sequence[str], environment: Mapping[str, str], log: Path) -> tuple[Cost, str]:
    """Runs a command to its end; gives its cost and what it printed. What it says else is appended to `log`.

    Raises Failed where its exit code is not 0.
    """
    os.sync()  # what an earlier run left to be written is not this one's
    with log.open("ab") as said:
        said.write(f"$ {shlex.join(command)}\n".encode())
        said.flush()
        began = time.monotonic()
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said
        )
        peak = _Peak(process.pid)
        try:
            assert process.stdout
            out = process.stdout.read()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            wall = time.monotonic() - began
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        finally:
            peak.stop()
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise Failed(f"{shlex.join(command)} ended with {process.returncode}; what it said is in {log}")
    cost = Cost(wall, usage.ru_utime + usage.ru_stime, peak.memory, usage.ru_oublock * _BLOCK)
    return cost, out.decode().strip()


class _Peak:
    """Looks at the memory of a process and its children until it is told to stop."""

    def __init__(self, pid: int) -> None:
        self.memory = 0
        self._pid = pid
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def stop(self) -> None:
        """No more looks."""
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(_INTERVAL):
            seen = [_resident(pid) for pid in _tree(self._pid)]
            self.memory = max([self.memory, sum(now for now, _ in seen), *(peak for _, peak in seen)])


def _tree(pid: int, above: bytes = b"") -> Iterable[int]:
    """The process and those below it; not one that still is its parent's copy, whose memory would count twice."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        if words == above:
            return
        yield pid
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                yield from _tree(int(child), words)


def _resident(pid: int) -> tuple[int, int]:
    """Bytes that the process has in memory now, and had at most. (Not ru_maxrss: that begins with its parent's.)"""
    with suppress(OSError, KeyError):
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return int(fields["VmRSS"].split()[0]) * 1024, int(fields["VmHWM"].split()[0]) * 1024
    return 0, 0


def line(run: Run) -> str:
    """A run as a line of JSON."""
    return json.dumps(asdict(run), separators=(",", ":"))


def runs_in(text: str) -> list[Run]:
    """The runs in such lines."""
    return [Run(**json.loads(found)) for found in text.splitlines() if found]

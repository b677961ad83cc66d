# SPDX-License-Identifier: Apache-2.0
"""Commands that are killed in the middle: by `kill -9`, just before one of the calls that change files.

Which one is a number, so that the moments of a run can be gone through on a machine of whatever speed.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from arv_docker.cli import arv_docker

#: The functions of Python's own that open, write, name, lock and remove files.
CALLS = frozenset(
    ("open", "write", "truncate", "fsync", "rename", "replace", "link", "symlink", "unlink", "mkdir", "chmod", "flock")
)

_FORKS = multiprocessing.get_context("fork")


def ended(work: Callable[[], int], number: int = 0) -> tuple[int, int]:
    """Runs `work` in a process that is killed before its `number`th call, 0 being none.

    Gives its exit code, -9 if it was killed, and how many calls it made or was about to make.
    """
    calls = _FORKS.Value("i", 0, lock=False)
    process = _FORKS.Process(target=_dying, args=(work, number, calls))
    process.start()
    process.join(120)
    assert process.exitcode is not None, "it still runs after two minutes"
    return process.exitcode, calls.value


def command(*words: str | Path, environment: Mapping[str, str]) -> Callable[[], int]:
    """`arv-docker` with these words, as work."""

    def work() -> int:
        os.environ.clear()
        os.environ.update(environment)
        return arv_docker.main(list(map(str, words)))

    return work


def killed(work: Callable[[], int], number: int) -> bool:
    """Whether a process was killed before that call; else it ended well without it: a slow one tells more of its
    progress, and so two runs may differ in a few calls."""
    status, calls = ended(work, number)
    assert status == (-signal.SIGKILL if calls >= number else 0)
    return status != 0


def moments(work: Callable[[], int], count: int) -> list[int]:
    """Numbers of calls, from the first to the last of a whole run of `work`, which must end well."""
    status, calls = ended(work)
    assert status == 0
    assert calls >= count
    return [1 + number * (calls - 1) // (count - 1) for number in range(count)]


def _dying(work: Callable[[], int], number: int, calls: Any) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)

    def count(_: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and called.__name__ in CALLS:
            calls.value += 1
            if calls.value == number:
                os.kill(os.getpid(), signal.SIGKILL)

    threading.setprofile(count)
    sys.setprofile(count)
    status = work()
    sys.setprofile(None)
    sys.exit(status)

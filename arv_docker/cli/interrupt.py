# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C while a command has not begun yet, or has ended: one line and code 130, where Python would print a traceback.

The package itself has the first handler, before anything else is read. In between, while the verb works, an interrupt
is the usual exception. Programs that import the commands keep their own handlers.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from .. import _PROGRAM, _end_interrupted

INTERRUPTED = 130
#: Exit codes of a command that a signal ended.
_SIGNALLED = (INTERRUPTED, 143, 129)

_PROGRAMS = ("arv-docker", "arv-keepdocker")


#: Whether Ctrl-C was pressed while the verb worked.
_interrupted = False


def _raise(_number: int, _frame: FrameType | None) -> NoReturn:
    global _interrupted  # noqa: PLW0603 -- a signal is the process's
    _interrupted = True
    raise KeyboardInterrupt


def raise_interrupts() -> None:
    """Have Ctrl-C raise KeyboardInterrupt from here on, if this module had it end the program."""
    if signal.getsignal(signal.SIGINT) is _end_interrupted:
        signal.signal(signal.SIGINT, _raise)


def was_interrupted() -> bool:
    """Say if Ctrl-C was pressed, also where something made another error of it: while a module is compiled that has
    a character by its name, Python makes a SyntaxError."""
    return _interrupted


def end_command(code: int) -> int:
    """Return the exit code of a command that is over; after a signal end the program here and now.

    Threads that still work, and the destructors of native libraries, must not meet an interpreter that is being taken
    apart: that ended in segmentation faults.
    """
    if _PROGRAM not in _PROGRAMS:
        return code
    if code in _SIGNALLED:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                continue
        os._exit(code)
    if signal.getsignal(signal.SIGINT) is _raise:
        signal.signal(signal.SIGINT, _end_interrupted)
    return code


def _ignore_interrupts() -> None:
    """Leave a command that is over its own exit code: while Python ends, the signal would end it by itself."""
    if signal.getsignal(signal.SIGINT) is _end_interrupted:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if _PROGRAM in _PROGRAMS:
    atexit.register(_ignore_interrupts)  # first of all, so that it is called last

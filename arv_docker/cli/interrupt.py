# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C while a command has not begun yet, or has ended: one line and code 130, where Python would print a traceback.

Imported before everything else of the commands, and quick to import. In between, while the verb works, an interrupt is
the usual exception. Programs that import the commands keep their own handlers.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
#: Exit codes of a command that a signal ended.
_SIGNALLED = (INTERRUPTED, 143, 129)

_PROGRAMS = ("arv-docker", "arv-keepdocker")
_NAME = os.path.basename(sys.argv[0]) if sys.argv else ""  # noqa: PTH119 -- pathlib takes a while to import


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    os.write(2, f"{_NAME}: interrupted\n".encode())
    os._exit(INTERRUPTED)


def raise_interrupts() -> None:
    """Have Ctrl-C raise KeyboardInterrupt from here on, if this module had it end the program."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end_command(code: int) -> int:
    """Return the exit code of a command that is over; after a signal end the program here and now.

    Threads that still work, and the destructors of native libraries, must not meet an interpreter that is being taken
    apart: that ended in segmentation faults.
    """
    if _NAME not in _PROGRAMS:
        return code
    if code in _SIGNALLED:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                continue
        os._exit(code)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    return code


if _NAME in _PROGRAMS and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end)

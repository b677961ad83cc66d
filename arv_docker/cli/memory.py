# SPDX-License-Identifier: Apache-2.0
"""One line where memory is short, as under a tight ``ulimit -v``, for what Python would print a traceback.

Whatever needs memory may fail then, each thing with an error of its own: a thread, a library, a client. So an error
that nobody knows is taken for one of these where the process has come near its limit. No module is loaded for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from .. import _PROGRAM

if TYPE_CHECKING:
    import threading
    from types import TracebackType

    _HOOK = Callable[[type[BaseException], BaseException, TracebackType | None], object]

#: A thread's stack and its heap, the largest amounts that are asked for at once.
_AT_ONCE = 160 << 20


def watch_threads() -> None:
    """Have threads, too, end with one line where memory is short; for a command that begins its work."""
    if isinstance(sys.excepthook, partial):
        import threading

        threading.excepthook = partial(_end_thread_short, threading.excepthook)


def is_short(error: BaseException) -> bool:
    """Say if the error may be one of too little memory."""
    while not isinstance(error, MemoryError):
        following = error.__cause__ or error.__context__
        if following is None:
            limit = _limit()
            return limit is not None and _peak() + _AT_ONCE > limit
        error = following
    return True


def shortage_text(error: BaseException) -> str:
    """A message for a person, with the error's own words."""
    limit = _limit()
    words = " ".join((type(error).__name__, *map(str, error.args[:1]))).replace("\n", " ")
    much = f": this process may have {limit / 1e6:.0f} MB of addresses (ulimit -v)" if limit is not None else ""
    return f"{_PROGRAM}: not enough memory ({words}){much}. Give it more; 1 GB is enough."


def _limit() -> int | None:
    """The limit of the address space in bytes, None without one."""
    return _number("/proc/self/limits", "Max address space")


def _peak() -> int:
    """The most address space that the process has had, in bytes."""
    return (_number("/proc/self/status", "VmPeak:") or 0) << 10


def _number(path: str, key: str) -> int | None:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 -- no further module
            lines = [line for line in file.read().split(b"\n") if line.startswith(key.encode())]
    except OSError:
        return None
    value = lines[0][len(key) :].split()[0] if lines else b""
    return int(value) if value.isdigit() else None


def _end_short(otherwise: _HOOK, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if is_short(error):
        sys.stderr.write(f"{shortage_text(error)}\n")
    else:
        otherwise(kind, error, trace)


def _end_thread_short(
    otherwise: Callable[[threading.ExceptHookArgs], object], thread: threading.ExceptHookArgs
) -> None:
    if thread.exc_value is not None and is_short(thread.exc_value):
        sys.stderr.write(f"{shortage_text(thread.exc_value)}\n")
    else:
        otherwise(thread)


if _PROGRAM in ("arv-docker", "arv-keepdocker"):
    sys.excepthook = partial(_end_short, sys.excepthook)

# SPDX-License-Identifier: Apache-2.0
"""A command from its beginning to its end: streams and signals, and how an error becomes a message and an exit code."""

from __future__ import annotations

import atexit
import gc
import io
import os
import select
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..errors import ArvDockerError, DiskError, one_line
from . import interrupt, memory

if TYPE_CHECKING:
    from types import FrameType
    from typing import TextIO


#: Seconds until a signal is sent again that was lost in a destructor.
_AGAIN = 0.05

INTERRUPTED = interrupt.INTERRUPTED

EXIT_CODES = """\
exit codes:
  0    done
  1    the image: there is none of that name, or more than one; a file that an
       image has not; anything without a code of its own
  2    the command line: an unknown option, a text that is no image name
  3    the engine: none installed, not running, not permitted, or its command
       failed
  4    the cluster: not reachable, refuses, or Keep lost a block
  5    the content: not an image, a damaged archive, bytes that do not match
       their digest
  6    settings: no cluster configured and no --local
  7    this machine's disk: full, or a folder that cannot be written
  8    the name: to the cluster it means another image, or it is another one's
       alone (link, tag, untag, status, ingest, copy)
  9    a registry: not reachable, refuses, or does not offer what was asked for
  10   an image that is not ready for use (registry status, registry wait,
       --wait)
  11   a build that failed (build)
  130  interrupted (Ctrl-C); 143, 129: terminated, hung up
"""


def exit_code_of(
    run: Callable[[], int],
    program: str,
    out: TextIO | None = None,
    err: TextIO | None = None,
    *,
    signals: bool = True,
    log: str | None = None,
) -> int:
    """Call ``run`` and return the exit code; an error is printed on standard error, and gives its own code.

    With ``log``, one of the levels of ``logs.shown``, this is a command of its own, whose log messages are shown.
    """
    if signals:
        _replace_closed_streams()
    out, err = out or sys.stdout, err or sys.stderr
    try:
        if signals:
            interrupt.raise_interrupts()
            _make_ready(out, err)
        code = run() if log is None else _run_with_log(run, log, err)
        if out is not None:  # as where it was closed
            out.flush()
        return code
    except KeyboardInterrupt:
        if not signals:
            raise  # signals are the calling program's
        print(f"{program}: interrupted", file=err)
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 -- what is not known goes on
        if interrupt.was_interrupted():
            print(f"{program}: interrupted", file=err)
            return INTERRUPTED
        return _code_of_error(error, program, out, err)
    except _TerminationRequest as signalled:
        print(f"{program}: terminated", file=err)
        return signalled.code


def _code_of_error(error: Exception, program: str, out: TextIO, err: TextIO) -> int:
    """Print an error of a known kind, and return the exit code; raise any other."""
    if isinstance(error, ArvDockerError):
        print(one_line(f"{program}: {error.message}"), file=err)
        for line in error.detail.splitlines():
            print(one_line(f"  {line}"), file=err)
        return error.exit_code
    if isinstance(error, BrokenPipeError) and (_has_lost_its_reader(out) or _has_lost_its_reader(err)):
        # Who read our output has gone, for example head. Python would complain again at exit.
        if out is sys.stdout:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, OSError):
        print(one_line(f"{program}: {error}"), file=err)
        return DiskError.exit_code
    raise error


def _has_lost_its_reader(stream: TextIO) -> bool:
    """True for a pipe that no program reads any more; other pipes break too, and then the work is not done."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # closed, or no file
        return False


def _run_with_log(run: Callable[[], int], level: str, err: TextIO) -> int:
    from . import logs

    with logs.show_log(level, err):
        return run()


def _replace_closed_streams() -> None:
    """Have an empty standard input where it is closed, and a standard error that nobody reads.

    For what is None there print() would take standard output.
    """
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115 -- pathlib is slow; as long as the process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115


def _make_ready(*streams: TextIO) -> None:
    """Set up streams, exit and signals for a command; a calling program keeps its own."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):  # names come from strangers, and few locales have all characters
            stream.reconfigure(errors="backslashreplace")
    # At exit Python would look for garbage in all that the SDK is made of: a tenth of a short command's time.
    atexit.register(gc.freeze)
    memory.watch_threads()
    if not isinstance(sys.unraisablehook, partial):
        sys.unraisablehook = partial(_repeat_signal, sys.unraisablehook)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves it
            signal.signal(number, _terminate)


class _TerminationRequest(BaseException):
    """A signal's request to end; passes through whatever handles errors."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.code = 128 + number


def _repeat_signal(otherwise: Callable[[sys.UnraisableHookArgs], object], unraisable: sys.UnraisableHookArgs) -> None:
    """Send a signal again that arrived while Python called a destructor, which lets no exception out.

    Of other exceptions ``otherwise`` is told, which was the hook before.
    """
    error = unraisable.exc_value
    number = error.number if isinstance(error, _TerminationRequest) else signal.SIGINT
    if isinstance(error, _TerminationRequest | KeyboardInterrupt):
        import threading

        again = threading.Timer(_AGAIN, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()
    else:
        otherwise(unraisable)


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise _TerminationRequest(number)

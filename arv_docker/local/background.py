# SPDX-License-Identifier: Apache-2.0
"""Work in a thread of its own that does not keep the program alive."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

Result = TypeVar("Result")


def future_of(work: Callable[[], Result], name: str) -> Future[Result]:
    """Start ``work`` in a daemon thread called ``name``, and return the future of what it returns or raises.

    Unlike a pool's, the thread is not waited for when the program ends: after Ctrl-C nobody needs its result.
    """
    future: Future[Result] = Future()

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 -- who asks for the result gets it
            future.set_exception(error)
        else:
            future.set_result(result)

    Thread(target=run, name=name, daemon=True).start()
    return future

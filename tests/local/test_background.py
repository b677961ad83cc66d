# SPDX-License-Identifier: Apache-2.0
"""Work in a thread that does not keep the program alive."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from arv_docker.local.background import future_of


def test_the_result_is_what_the_work_returns() -> None:
    assert future_of(lambda: threading.current_thread().name, "counting").result(timeout=10) == "counting"


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
def test_what_the_work_raises_is_raised_for_who_asks(error: BaseException) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        future_of(fail, "failing").result(timeout=10)


def test_a_program_ends_without_waiting_for_it() -> None:
    code = "import time; from arv_docker.local.background import future_of; future_of(lambda: time.sleep(60), 'long')"
    assert subprocess.run([sys.executable, "-c", code], timeout=20).returncode == 0

# SPDX-License-Identifier: Apache-2.0
"""Several uploads at once: their sum, their number, and what happens when one fails."""

from __future__ import annotations

import threading
import time

import pytest

from arv_docker.errors import RegistryDenied
from arv_docker.registry.upload import Uploads


def failing() -> int:
    raise RegistryDenied("refused")


def test_the_sum_of_all() -> None:
    uploads = Uploads()
    for number in range(10):
        uploads.begin(lambda number=number: number)  # type: ignore[misc]
    assert uploads.finish() == sum(range(10))
    assert Uploads().finish() == 0


def test_no_more_at_once_than_there_is_room_for() -> None:
    now, most, lock = [0], [0], threading.Lock()

    def work() -> int:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        return 1

    uploads = Uploads(2)
    for _ in range(6):
        uploads.begin(work)
    assert uploads.finish() == 6
    assert most == [2]


def test_a_failure_is_told_while_others_go_on() -> None:
    """A refused layer does not wait for a large one."""
    go = threading.Event()
    ended: list[int] = []

    def long() -> int:
        go.wait(60)
        ended.append(1)
        return 1

    uploads = Uploads()
    uploads.begin(long)
    uploads.begin(failing)
    with pytest.raises(RegistryDenied, match="refused"):
        uploads.finish()
    assert ended == []
    go.set()


def test_after_a_failure_nothing_is_begun() -> None:
    uploads = Uploads(1)
    uploads.begin(failing)
    begun: list[int] = []

    def work() -> int:
        begun.append(1)
        return 1

    with pytest.raises(RegistryDenied, match="refused"):
        uploads.begin(work)
    assert begun == []

# SPDX-License-Identifier: Apache-2.0
"""The pauses between tries of one request."""

from __future__ import annotations

from itertools import islice

import pytest

from arv_docker.local.retry import Backoff


def test_pauses_grow_up_to_the_longest() -> None:
    assert list(Backoff(tries=5, first=0.5, longest=2, jitter=0).pauses()) == [0.5, 1, 2, 2]


def test_a_request_that_is_tried_once_has_no_pause() -> None:
    assert list(Backoff(tries=1, first=0.5, longest=2).pauses()) == []


def test_without_a_number_of_tries_the_longest_pause_comes_again_and_again() -> None:
    pauses = list(islice(Backoff(tries=None, first=1, longest=15, factor=1.5, jitter=0).pauses(), 2000))
    assert pauses[:7] == [1, 1.5, 2.25, 3.375, 5.0625, 7.59375, 11.390625]
    assert set(pauses[7:]) == {15}


@pytest.mark.parametrize("_", range(20))
def test_jitter_only_shortens(_: int) -> None:
    for pause, longest in zip(Backoff(tries=4, first=1, longest=4, jitter=0.5).pauses(), (1, 2, 4), strict=True):
        assert longest / 2 <= pause <= longest


def test_clients_that_failed_together_do_not_come_again_together() -> None:
    assert len({next(Backoff(tries=2, first=1, longest=1).pauses()) for _ in range(50)}) > 40

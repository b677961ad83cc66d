# SPDX-License-Identifier: Apache-2.0
"""Options of docker-py for containers, as those of the command."""

from __future__ import annotations

import pytest

from arv_docker.engines.run_options import run_options
from arv_docker.errors import UsageError


@pytest.mark.parametrize(
    ("wanted", "options"),
    [
        ({}, []),
        ({"cpu_quota": 50000, "cpu_period": 100000}, ["--cpu-period=100000", "--cpu-quota=50000"]),
        ({"nano_cpus": 1_500_000_000}, ["--cpus=1.5"]),
        ({"mem_limit": "2g", "privileged": True, "tty": False}, ["--memory=2g", "--privileged"]),
        ({"cap_add": ["A", "B"], "user": None}, ["--cap-add=A", "--cap-add=B"]),
        ({"extra_hosts": {"db": "10.0.0.1"}, "tmpfs": {"/run": ""}}, ["--add-host=db:10.0.0.1", "--tmpfs=/run"]),
    ],
)
def test_options(wanted: dict[str, object], options: list[str]) -> None:
    assert run_options(wanted) == options


@pytest.mark.parametrize("wanted", [{"stdin_open": True}, {"cap_add": "A"}, {"cpu_quota": [1]}])
def test_what_the_command_cannot_do_is_refused(wanted: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wanted))):
        run_options(wanted)

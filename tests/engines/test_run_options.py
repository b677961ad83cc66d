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
        ({"ulimits": [{"Name": "nofile", "Soft": 5, "Hard": 6}]}, ["--ulimit=nofile=5:6"]),
        ({"device_read_bps": [{"Path": "/dev/sda", "Rate": 9}]}, ["--device-read-bps=/dev/sda:9"]),
        ({"restart_policy": {"Name": "on-failure", "MaximumRetryCount": 3}}, ["--restart=on-failure:3"]),
        ({"restart_policy": {"Name": "always"}}, ["--restart=always"]),
        (
            {"log_config": {"Type": "json-file", "Config": {"max-size": "1k"}}},
            ["--log-driver=json-file", "--log-opt=max-size=1k"],
        ),
        ({"stdin_open": True, "uts_mode": "host"}, ["--interactive", "--uts=host"]),
    ],
)
def test_options(wanted: dict[str, object], options: list[str]) -> None:
    assert run_options(wanted) == options


@pytest.mark.parametrize(
    "wanted",
    [
        {"lxc_conf": {}},
        {"cap_add": "A"},
        {"cpu_quota": [1]},
        {"ulimits": [{"Name": "nofile"}]},
        {"ulimits": {"Name": "nofile"}},
        {"restart_policy": "always"},
        {"log_config": {}},
        {"nano_cpus": "many"},
    ],
)
def test_what_the_command_cannot_do_is_refused(wanted: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wanted))):
        run_options(wanted)

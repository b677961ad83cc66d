# SPDX-License-Identifier: Apache-2.0
"""Options for containers make the same container as docker-py does, which is what repo2docker itself uses."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from arv_docker.engines.run_options import run_options

from .engines import Docker, Image, unavailable

#: Of every kind of option, with values that the daemon takes. Where docker-py has none, the command's default counts.
OPTIONS: dict[str, Any] = {
    "cap_add": ["CAP_NET_ADMIN", "CAP_SYS_PTRACE"],
    "cap_drop": ["ALL"],
    "cgroup_parent": "/arvtest",
    "cpu_period": 50000,
    "cpu_quota": 25000,
    "cpu_shares": 512,
    "cpuset_cpus": "0",
    "cpuset_mems": "0",
    "device_cgroup_rules": ["c 1:3 r"],
    "device_read_bps": [{"Path": "/dev/null", "Rate": 1000}],
    "device_write_iops": [{"Path": "/dev/null", "Rate": 10}],
    "devices": ["/dev/null:/dev/nothing:r"],
    "dns": ["192.0.2.1"],
    "dns_opt": ["ndots:2"],
    "dns_search": ["example.com"],
    "domainname": "example.com",
    "extra_hosts": {"db": "192.0.2.2"},
    "group_add": ["44"],
    "hostname": "notebook",
    "init": True,
    "ipc_mode": "host",
    "labels": {"a": "b"},
    "log_config": {"Type": "json-file", "Config": {"max-size": "1k"}},
    "mem_limit": "64m",
    "mem_reservation": "32m",
    "memswap_limit": "128m",
    "nano_cpus": 500000000,
    "network_mode": "none",
    "oom_kill_disable": True,
    "oom_score_adj": 500,
    "pid_mode": "host",
    "pids_limit": 50,
    "privileged": True,
    "read_only": True,
    "restart_policy": {"Name": "on-failure", "MaximumRetryCount": 3},
    "security_opt": ["no-new-privileges"],
    "shm_size": "32m",
    "stop_signal": "SIGINT",
    "sysctls": {"net.ipv4.ip_forward": "1"},
    "tmpfs": {"/run": "size=1m"},
    "tty": True,
    "ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}],
    "user": "1000",
    "uts_mode": "host",
    "volume_driver": "local",
    "working_dir": "/srv",
}
#: What these need beside them.
BESIDE = {"memswap_limit": {"mem_limit": "64m"}, "mem_reservation": {"mem_limit": "64m"}}

CREATE = """\
import json, sys, docker
client = docker.from_env()
for wanted in json.load(sys.stdin):
    print(client.containers.create(sys.argv[1], ["true"], **wanted).id)
"""


def settings(docker: Docker, container: str) -> dict[str, Any]:
    """What a container was created with."""
    (found,) = json.loads(docker.text("container", "inspect", container))
    config, host = found["Config"], found["HostConfig"]
    # What the command says where docker-py says nothing; none of it is an option here.
    for key in ("AttachStdout", "AttachStderr", "AttachStdin", "OpenStdin", "StdinOnce", "Image"):
        config.pop(key, None)
    if config["Hostname"] == found["Id"][:12]:
        config["Hostname"] = ""
    return {"Config": config, "HostConfig": {key: value for key, value in host.items() if value or value == 0}}


@pytest.mark.engine("docker", "busybox")
def test_each_option_does_what_it_does_for_docker_py(docker: Docker, base_image: Image, tmp_path: Path) -> None:
    install = ("-m", "pip", "install", "--quiet", "--target", tmp_path, "docker==7.1.0")
    done = subprocess.run([sys.executable, *install], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        unavailable(f"pip install docker: {done.stderr[-1000:]}")
    every = [{name: value, **BESIDE.get(name, {})} for name, value in OPTIONS.items()]
    made: list[str] = []
    try:
        theirs = subprocess.run(
            [sys.executable, "-c", CREATE, base_image.id],
            env={**os.environ, **docker.environment, "PYTHONPATH": str(tmp_path)},
            input=json.dumps([{}, *every]),
            capture_output=True,
            text=True,
            check=False,
        )
        made += theirs.stdout.split()
        assert len(made) == len(every) + 1, theirs.stderr
        plain = docker.text("create", base_image.id, "true").strip()
        made.append(plain)
        usual = {"theirs": settings(docker, made[0]), "ours": settings(docker, plain)}
        differing = {}
        for wanted, container in zip(every, made[1:-1], strict=True):
            made.append(docker.text("create", *run_options(wanted), base_image.id, "true").strip())
            changed = {
                whose: {
                    f"{part}.{key}": value
                    for part, values in settings(docker, it).items()
                    for key, value in values.items()
                    if usual[whose][part].get(key) != value
                }
                for whose, it in (("theirs", container), ("ours", made[-1]))
            }
            if changed["theirs"] != changed["ours"] or not changed["ours"]:
                differing[next(iter(wanted))] = changed
        assert differing == {}
    finally:
        docker.run("rm", "--force", *made, check=False)

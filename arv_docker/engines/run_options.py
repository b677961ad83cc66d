# SPDX-License-Identifier: Apache-2.0
"""Options for a container by the names that docker-py has for them, as options of the engine's command."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..errors import UsageError

#: Options with one value.
_VALUES = {
    "blkio_weight": "--blkio-weight",
    "cpu_period": "--cpu-period",
    "cpu_quota": "--cpu-quota",
    "cpu_rt_period": "--cpu-rt-period",
    "cpu_rt_runtime": "--cpu-rt-runtime",
    "cpu_shares": "--cpu-shares",
    "cpuset_cpus": "--cpuset-cpus",
    "cpuset_mems": "--cpuset-mems",
    "cgroup_parent": "--cgroup-parent",
    "cgroupns": "--cgroupns",
    "cpu_count": "--cpu-count",
    "cpu_percent": "--cpu-percent",
    "domainname": "--domainname",
    "hostname": "--hostname",
    "ipc_mode": "--ipc",
    "isolation": "--isolation",
    "kernel_memory": "--kernel-memory",
    "mac_address": "--mac-address",
    "mem_limit": "--memory",
    "mem_reservation": "--memory-reservation",
    "mem_swappiness": "--memory-swappiness",
    "memswap_limit": "--memory-swap",
    "name": "--name",
    "network": "--network",
    "network_mode": "--network",
    "oom_score_adj": "--oom-score-adj",
    "pid_mode": "--pid",
    "pids_limit": "--pids-limit",
    "platform": "--platform",
    "runtime": "--runtime",
    "shm_size": "--shm-size",
    "stop_signal": "--stop-signal",
    "user": "--user",
    "userns_mode": "--userns",
    "uts_mode": "--uts",
    "volume_driver": "--volume-driver",
    "working_dir": "--workdir",
}
#: Options that are on or off.
_SWITCHES = {
    "init": "--init",
    "oom_kill_disable": "--oom-kill-disable",
    "privileged": "--privileged",
    "read_only": "--read-only",
    "stdin_open": "--interactive",
    "tty": "--tty",
}
#: Options that may be given several times, for a list of values.
_LISTS = {
    "cap_add": "--cap-add",
    "cap_drop": "--cap-drop",
    "device_cgroup_rules": "--device-cgroup-rule",
    "devices": "--device",
    "dns": "--dns",
    "dns_opt": "--dns-option",
    "dns_search": "--dns-search",
    "group_add": "--group-add",
    "security_opt": "--security-opt",
    "volumes_from": "--volumes-from",
}
#: Options that may be given several times, for a mapping: the option, and what stands between name and value.
_MAPPINGS = {
    "extra_hosts": ("--add-host", ":"),
    "labels": ("--label", "="),
    "links": ("--link", ":"),
    "storage_opt": ("--storage-opt", "="),
    "sysctls": ("--sysctl", "="),
    "tmpfs": ("--tmpfs", ":"),
}
#: Options that may be given several times, for a list of objects with these keys: the option, and how it is written.
_OBJECTS = {
    "blkio_weight_device": ("--blkio-weight-device", "{Path}:{Weight}"),
    "device_read_bps": ("--device-read-bps", "{Path}:{Rate}"),
    "device_read_iops": ("--device-read-iops", "{Path}:{Rate}"),
    "device_write_bps": ("--device-write-bps", "{Path}:{Rate}"),
    "device_write_iops": ("--device-write-iops", "{Path}:{Rate}"),
    "ulimits": ("--ulimit", "{Name}={Soft}:{Hard}"),
}


def run_options(wanted: Mapping[str, object]) -> list[str]:
    """Return the command's options for docker-py's; raises UsageError for names that the command has no option for.

    >>> run_options({"cpu_quota": 50000, "init": True, "cap_drop": ["ALL"], "labels": {"a": "b"}})
    ['--cap-drop=ALL', '--cpu-quota=50000', '--init', '--label=a=b']
    """
    unknown = sorted(set(wanted) - {*_VALUES, *_SWITCHES, *_LISTS, *_MAPPINGS, *_OBJECTS, *_OTHERS})
    if unknown:
        raise UsageError(f"this engine cannot start a container with {', '.join(unknown)}.")
    return [option for name in sorted(wanted) for option in _options_of(name, wanted[name])]


def _options_of(name: str, value: object) -> Iterable[str]:
    if value is None:
        return
    try:
        if name in _OTHERS:
            yield from _OTHERS[name](value)
        elif name in _SWITCHES:
            if value:
                yield _SWITCHES[name]
        elif name in _LISTS and isinstance(value, list | tuple):
            yield from (f"{_LISTS[name]}={each}" for each in value)
        elif name in _OBJECTS and isinstance(value, list | tuple):
            option, form = _OBJECTS[name]
            yield from (f"{option}={form.format_map(each)}" for each in value)
        elif name in _MAPPINGS and isinstance(value, Mapping):
            option, between = _MAPPINGS[name]
            yield from (f"{option}={key}{between}{each}" if each else f"{option}={key}" for key, each in value.items())
        elif name in _VALUES and isinstance(value, str | int | float):
            yield f"{_VALUES[name]}={value}"
        else:
            raise TypeError
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UsageError(f"{name} cannot be {value!r} for a container of this engine.") from None


def _cpus(value: Any) -> Iterable[str]:
    yield f"--cpus={float(value) / 1e9:g}"


def _restart(value: Any) -> Iterable[str]:
    most = value.get("MaximumRetryCount")
    yield f"--restart={value['Name']}{f':{most}' if most else ''}"


def _log(value: Any) -> Iterable[str]:
    fields = {key.lower(): each for key, each in value.items()}
    yield f"--log-driver={fields['type']}"
    yield from (f"--log-opt={key}={each}" for key, each in (fields.get("config") or {}).items())


#: Options that are written in a way of their own.
_OTHERS: Mapping[str, Callable[[Any], Iterable[str]]] = {
    "log_config": _log,
    "nano_cpus": _cpus,
    "restart_policy": _restart,
}

# SPDX-License-Identifier: Apache-2.0
"""Logins for one command of an engine, in a temporary configuration; the user's stays as it is.

The secret is in a file that only this user can read and that is removed with its folder; it is in no argument and no
variable.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..local.settings import home_folder
from ..model.reference import DEFAULT_REGISTRY
from ..registry.credentials import HUB_KEY, Credentials, Logins, config_in


def docker_variables(folder: Path, logins: Mapping[str, Credentials]) -> dict[str, str]:
    """Make a folder for ``DOCKER_CONFIG`` with these logins, and return the variables that point there.

    Contexts, plug-ins and everything else in the user's folder is reached through links.
    """
    users = Path(os.environ.get("DOCKER_CONFIG") or home_folder() / ".docker")
    made = folder / "docker"
    made.mkdir(mode=0o700)
    for entry in users.iterdir() if users.is_dir() else ():
        if entry.name != "config.json":
            (made / entry.name).symlink_to(entry.absolute())
    # For a registry with an empty helper Docker looks into the file itself, whatever store is configured.
    found = _add_logins(config_in(users / "config.json"), logins, helper="")
    _write(made / "config.json", found)
    return {"DOCKER_CONFIG": str(made)}


def podman_variables(folder: Path, logins: Mapping[str, Credentials]) -> dict[str, str]:
    """Make a file for ``REGISTRY_AUTH_FILE`` of the user's files and these logins, and return the variables."""
    made = folder / "auth.json"
    _write(made, _add_logins(_merge_configs(map(config_in, Logins.of_user(os.environ).files)), logins, helper=None))
    return {"REGISTRY_AUTH_FILE": str(made)}


def _merge_configs(documents: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The registries of several configurations; of two entries for one registry the first wins."""
    found: dict[str, Any] = {}
    for one in documents:
        for key in ("auths", "credHelpers"):
            if isinstance(one.get(key), dict):
                found[key] = one[key] | found.get(key, {})
    return found


def _add_logins(config: dict[str, Any], logins: Mapping[str, Credentials], helper: str | None) -> dict[str, Any]:
    for part in ("auths", "credHelpers"):
        if not isinstance(config.get(part), dict):
            config[part] = {}
    for registry, credentials in logins.items():
        key = HUB_KEY if registry == DEFAULT_REGISTRY else registry
        config["auths"][key] = {"auth": credentials.basic}
        config["credHelpers"].pop(key, None)
        if helper is not None:
            config["credHelpers"][key] = helper
    return config


def _write(path: Path, config: Mapping[str, Any]) -> None:
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(json.dumps(config))

# SPDX-License-Identifier: Apache-2.0
"""The settings of this program: ``arv-docker.conf`` beside the Arvados ``settings.conf``, and the environment.

The file is looked for where the Arvados SDK looks for its own (spec/arvados-semantics
§1.1), and has its form: ``KEY=value`` lines. A variable of the environment wins. What
the Arvados settings say (host, token) is the SDK's business.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .errors import BadSettings

FILE_NAME = "arv-docker.conf"
TRUSTED_WRITERS = "ARV_DOCKER_TRUSTED_WRITERS"
IMAGE_ID = "ARV_DOCKER_IMAGE_ID"
IMAGE_IDS = ("config", "manifest")
FOLDER = "ARV_DOCKER_FOLDER"
MIRRORS = "ARV_DOCKER_REGISTRY_MIRRORS"

_KEYS = (TRUSTED_WRITERS, IMAGE_ID, FOLDER, MIRRORS)

_USER = re.compile(r"[0-9a-z]{5}-tpzed-[0-9a-z]{15}")


@dataclass(frozen=True, slots=True)
class Settings:
    """What can be set.

    ``trusted_writers`` are UUIDs of users whose links are taken at their word, besides this
    user and the system user. ``image_id`` says which digest names images in Keep:
    ``config``, or ``manifest`` for clusters whose nodes use the containerd store. ``folder``
    is where ``arv-docker folder`` keeps image archives, None if nothing is set. ``mirrors``
    are registries that are asked first for the images of another, by that one's name.
    """

    trusted_writers: frozenset[str] = frozenset()
    image_id: str = "config"
    folder: Path | None = None
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def settings() -> Settings:
    """The settings in force now; raises BadSettings, which names the file and the key."""
    found = _file()
    values = {key: value for key, value in os.environ.items() if key in _KEYS}
    merged = {**_parsed(found), **values} if found else values
    return Settings(_writers(merged), _image_id(merged), _folder(merged), _mirrors(merged))


def _file() -> Path | None:
    """The first settings file there is."""
    return next((path for path in _places() if path.is_file()), None)


def _places() -> Iterator[Path]:
    for entry in os.environ.get("CONFIGURATION_DIRECTORY", "").split(":"):
        if entry.startswith("/"):
            yield Path(entry) / FILE_NAME
    home = os.environ.get("XDG_CONFIG_HOME", "")
    yield (Path(home) if home.startswith("/") else Path.home() / ".config") / "arvados" / FILE_NAME
    for entry in (os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":"):
        if entry.startswith("/"):
            yield Path(entry) / "arvados" / FILE_NAME


def _parsed(path: Path) -> dict[str, str]:
    values = {}
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"{path} cannot be read: {error}.") from error
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not equals or key.strip() not in _KEYS:
            raise BadSettings(f"{path}, line {number}: {key.strip()!r} is no setting. Known: {', '.join(_KEYS)}.")
        values[key.strip()] = value.strip()
    return values


def _writers(values: Mapping[str, str]) -> frozenset[str]:
    writers = re.split(r"[\s,]+", values.get(TRUSTED_WRITERS, "").strip())
    for writer in filter(None, writers):
        if not _USER.fullmatch(writer):
            raise BadSettings(f"{TRUSTED_WRITERS}: {writer!r} is not the UUID of a user (xxxxx-tpzed-…).")
    return frozenset(filter(None, writers))


def _image_id(values: Mapping[str, str]) -> str:
    value = values.get(IMAGE_ID, "config")
    if value not in IMAGE_IDS:
        raise BadSettings(f"{IMAGE_ID}: {value!r} is neither of {', '.join(IMAGE_IDS)}.")
    return value


def _folder(values: Mapping[str, str]) -> Path | None:
    value = values.get(FOLDER)
    return Path(value).expanduser() if value else None


def _mirrors(values: Mapping[str, str]) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for entry in filter(None, re.split(r"[\s,]+", values.get(MIRRORS, "").strip())):
        registry, equals, mirror = entry.partition("=")
        if not registry or not equals or not mirror:
            raise BadSettings(f"{MIRRORS}: {entry!r} is not REGISTRY=MIRROR, as in docker.io=mirror.example/hub.")
        found[registry] = (*found.get(registry, ()), mirror)
    return found

# SPDX-License-Identifier: Apache-2.0
"""The settings of this program: ``arv-docker.conf`` beside the Arvados ``settings.conf``, and the environment.

The file is looked for where the Arvados SDK looks for its own (docs/spec/arvados-clients.md#settings), and has its
form: ``KEY=value`` lines. A variable of the environment wins. The Arvados settings (host, token) are left to the
SDK.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import BadSettings, UsageError
from ..model.image import Platform
from ..model.manifest import parse_platform

log = logging.getLogger(__name__)

FILE_NAME = "arv-docker.conf"
TRUSTED_WRITERS = "ARV_DOCKER_TRUSTED_WRITERS"
IMAGE_ID = "ARV_DOCKER_IMAGE_ID"
CONFIG, MANIFEST = IMAGE_IDS = ("config", "manifest")
BOTH = "both"
FOLDER = "ARV_DOCKER_FOLDER"
MIRRORS = "ARV_DOCKER_REGISTRY_MIRRORS"
ENGINE_TIMEOUT = "ARV_DOCKER_ENGINE_TIMEOUT"
NAMES = "ARV_DOCKER_NAMES"
BY_CLUSTER, BY_TRUSTED = "cluster", "trusted"
PLATFORM = "ARV_DOCKER_PLATFORM"

_KEYS = (TRUSTED_WRITERS, IMAGE_ID, FOLDER, MIRRORS, ENGINE_TIMEOUT, NAMES, PLATFORM)

#: Seconds in which a busy engine answers: it may have thousands of images to list.
USUAL_ENGINE_TIMEOUT = 120.0

#: Variables with secrets: the token of the cluster, and repo2docker's credentials, which reach the engine in a file.
_SECRETS = ("ARVADOS_API_TOKEN", "CONTAINER_ENGINE_REGISTRY_CREDENTIALS")

_USER = re.compile(r"[0-9a-z]{5}-tpzed-[0-9a-z]{15}")


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of this program.

    ``trusted_writers`` are UUIDs of users whose links are taken at their word, besides this
    user and the system user. ``image_id`` is the digest by which the cluster's nodes know images:
    ``config``, or ``manifest`` for nodes that use the containerd store; with ``both`` an image is
    stored under the other one too. ``folder``
    is the folder in which ``arv-docker folder`` keeps image archives, None if not set. ``mirrors``
    are registries that are asked first for the images of another, by that one's name.
    ``engine_timeout`` is the seconds that an engine may be silent, 0 for no limit. With ``names_by_trusted`` a name
    means an image by the word of trusted users alone; else what the cluster takes it for. ``platform`` is that of the
    cluster's nodes, None for this machine's.
    """

    trusted_writers: frozenset[str] = frozenset()
    image_id: str = "config"
    folder: Path | None = None
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    engine_timeout: float = USUAL_ENGINE_TIMEOUT
    both: bool = False
    names_by_trusted: bool = False
    platform: Platform | None = None

    @property
    def by_manifest(self) -> bool:
        """True if the cluster's nodes know images by the digests of their manifests."""
        return self.image_id == MANIFEST

    def image_ids(self, asked: str | None = None) -> tuple[str, ...]:
        """The kinds of digest under which images are stored: as asked, or as in the settings."""
        if asked == BOTH or (asked is None and self.both):
            return IMAGE_IDS
        return (asked or self.image_id,)


def settings() -> Settings:
    """Read the settings in force; raises BadSettings with the key and the file."""
    path = _settings_file()
    variables = {key: value for key, value in os.environ.items() if key in _KEYS}
    if path is None:
        return _settings_of(variables)
    written = _parse_file(path)
    log.debug("settings of %s: %s", path, ", ".join(written))
    try:
        return _settings_of({**written, **variables})
    except BadSettings as error:
        key = error.message.partition(":")[0]
        raise error if key in variables else BadSettings(f"{path}: {error.message}") from None


def _settings_of(values: Mapping[str, str]) -> Settings:
    image_id, *other = _image_ids(values)
    return Settings(
        _writers(values),
        image_id,
        _folder(values),
        _mirrors(values),
        engine_timeout=_timeout(values),
        both=bool(other),
        names_by_trusted=_names_by_trusted(values),
        platform=_platform(values),
    )


def command_environment() -> dict[str, str]:
    """The environment for commands that we run: this program's, without the secrets."""
    return {name: value for name, value in os.environ.items() if name not in _SECRETS}


def home_folder() -> Path:
    """Return the user's home folder; raises BadSettings where HOME is not set and the system knows no such user."""
    return expand_home(Path("~"))


def user_folder(variable: str, otherwise: str) -> Path:
    """Return the folder that one of XDG's variables names, or ``otherwise`` in the user's home.

    A relative path in the variable does not count. Raises BadSettings as ``home_folder`` does.
    """
    named = os.environ.get(variable, "")
    return Path(named) if named.startswith("/") else home_folder() / otherwise


def expand_home(path: Path) -> Path:
    """Return the path with a ``~`` at its front expanded; raises BadSettings where no such home folder is known."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise BadSettings(f"{path}: no such home folder is known. Set HOME, or write the path in full.") from None


def _settings_file() -> Path | None:
    """Return the first settings file that exists."""
    return next((path for path in _settings_places() if path.is_file()), None)


def _settings_places() -> Iterator[Path]:
    for entry in os.environ.get("CONFIGURATION_DIRECTORY", "").split(":"):
        if entry.startswith("/"):
            yield Path(entry) / FILE_NAME
    yield user_folder("XDG_CONFIG_HOME", ".config") / "arvados" / FILE_NAME
    for entry in (os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":"):
        if entry.startswith("/"):
            yield Path(entry) / "arvados" / FILE_NAME


def _parse_file(path: Path) -> dict[str, str]:
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


def _image_ids(values: Mapping[str, str]) -> tuple[str, ...]:
    """Return one or both of IMAGE_IDS, the kind for the cluster's nodes first."""
    value = values.get(IMAGE_ID, CONFIG)
    found = IMAGE_IDS if value == BOTH else tuple(value.replace(" ", "").split(","))
    if len(set(found)) < len(found) or not set(found) <= set(IMAGE_IDS):
        raise BadSettings(
            f"{IMAGE_ID}: {value!r} is none of {CONFIG}, {MANIFEST}, {BOTH} (as {CONFIG},{MANIFEST}: the first is the "
            f"one that the cluster's nodes know), and {MANIFEST},{CONFIG}."
        )
    return found


def _folder(values: Mapping[str, str]) -> Path | None:
    value = values.get(FOLDER)
    return expand_home(Path(value)) if value else None


def _mirrors(values: Mapping[str, str]) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for entry in filter(None, re.split(r"[\s,]+", values.get(MIRRORS, "").strip())):
        registry, equals, mirror = entry.partition("=")
        if not registry or not equals or not mirror:
            shown = "an entry with @ in it (a password?)" if "@" in entry else repr(entry)
            raise BadSettings(f"{MIRRORS}: {shown} is not REGISTRY=MIRROR, as in docker.io=mirror.example/hub.")
        found[registry] = (*found.get(registry, ()), mirror)
    return found


def _names_by_trusted(values: Mapping[str, str]) -> bool:
    value = values.get(NAMES, BY_CLUSTER)
    if value not in (BY_CLUSTER, BY_TRUSTED):
        raise BadSettings(f"{NAMES}: {value!r} is neither {BY_CLUSTER} nor {BY_TRUSTED}.")
    return value == BY_TRUSTED


def _platform(values: Mapping[str, str]) -> Platform | None:
    value = values.get(PLATFORM)
    try:
        return parse_platform(value) if value else None
    except UsageError as error:
        raise BadSettings(f"{PLATFORM}: {error.message}") from None


def _timeout(values: Mapping[str, str]) -> float:
    value = values.get(ENGINE_TIMEOUT)
    if value is None:
        return USUAL_ENGINE_TIMEOUT
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < math.inf:
        raise BadSettings(f"{ENGINE_TIMEOUT}: {value!r} is not a number of seconds, or 0 for no limit.")
    return seconds

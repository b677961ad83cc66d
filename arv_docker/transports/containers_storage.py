# SPDX-License-Identifier: Apache-2.0
"""``containers-storage:``, an image in Podman's store, or in one whose folders are written in front of the name."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from ..engines.podman import Podman, Store
from ..errors import UsageError
from ..model.reference import parse_name
from .docker_daemon import NamedDestination, NamedSource, name_for
from .names import Choice

#: As skopeo has it: ``[DRIVER@ROOT+RUNROOT]NAME``, of which driver and runroot may be missing.
_STORE = re.compile(
    r"\[(?:(?P<driver>[^@\]]*)@)?(?P<root>/[^+:\]]*)(?:\+(?P<runroot>/[^:\]]*))?\](?P<name>.*)", re.DOTALL
)


def source(rest: str, choice: Choice) -> NamedSource:
    """The source ``[STORE]NAME``, or an ID as ``sha256:ID``."""
    store, name = _split(rest)
    return NamedSource(_podman(store, choice), parse_name(name), choice.platform)


def destination(rest: str, choice: Choice) -> NamedDestination:
    """The destination ``[STORE]NAME[:TAG]``, which the image is called in the store."""
    store, name = _split(rest)
    return NamedDestination(_podman(store, choice), name_for(name), choice.progress, choice.cache)


def _podman(store: Store | None, choice: Choice) -> Callable[[], Podman]:
    return partial(Podman, store, timeout=choice.settings.engine_timeout)


def _split(rest: str) -> tuple[Store | None, str]:
    if not rest.startswith("["):
        return None, rest
    match = _STORE.fullmatch(rest)
    if not match:
        raise UsageError(
            f"containers-storage:{rest} names no store. Write containers-storage:[DRIVER@ROOT+RUNROOT]NAME."
        )
    return Store(match["root"], match["runroot"] or "", match["driver"] or ""), match["name"]

# SPDX-License-Identifier: Apache-2.0
"""The written form of an image's place: ``docker-archive:x.tar``, ``oci:folder:tag``, ``docker://name``; no I/O.

A transport is a module here, or an object that another package offers as an entry point
of the group ``arv_docker.transports``, with one or both of the functions of ``Transport``.
A text without a known transport in front is a plain name, and whoever reads it decides whose.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

from ..errors import ArvDockerError, UsageError
from ..local.progress import Progress, SilentProgress
from ..local.settings import Settings
from ..model.image import Platform
from ..model.reference import Reference
from ..registry.access import Access
from ..registry.credentials import Provider
from ..store.cache import NO_CACHE, CacheFolder
from . import Destination, Source
from .completed import completed_destination, completed_source

if TYPE_CHECKING:
    from ..arvados.client import Cluster
    from ..arvados.trust import Trust

#: The entry points by which other packages add transports.
GROUP = "arv_docker.transports"

#: Our transports and their modules in this package, by the names that skopeo has for them where it has one.
OURS = {
    "containers-storage": "containers_storage",
    "docker": "registry",
    "docker-archive": "docker_archive",
    "docker-daemon": "docker_daemon",
    "folder": "folder",
    "keep": "keep",
    "oci": "oci",
    "oci-archive": "oci_archive",
}


@contextmanager
def configured_cluster(name: str | None) -> Iterator[Cluster]:
    """The cluster of the settings file ``<name>.conf``, or without a name the configured one."""
    from ..arvados.client import Cluster

    yield Cluster.from_settings() if name is None else Cluster.from_settings_file(name)


def trust_in_user(cluster: Cluster) -> Trust:
    """Trust in the user of a cluster and its system user alone."""
    from ..arvados.trust import Trust

    return Trust.of(cluster.user_uuid, cluster.system_user_uuid)


@dataclass(frozen=True, slots=True)
class Choice:
    """The options of a source or destination. ``platform``: of several images (None: this machine's).

    ``insecure`` allows a registry on this machine to be asked without TLS. ``credentials`` are for a registry, and
    ``access`` says how this user gets to one; None for nothing of that. ``progress`` is told of what takes long
    before the first layer comes. ``settings`` are those of this program, and ``cache`` remembers layers; without them
    nothing is configured, and nothing remembered. ``clusters`` gives the cluster of a name, and the usual one of None;
    ``trust`` says whose word is taken there. ``only_shown``: the image is shown and not written anywhere, so that a
    name means what the cluster takes it for, whoever said so.
    """

    platform: Platform | None = None
    insecure: bool = False
    credentials: Provider | None = field(default=None, compare=False, repr=False)
    access: Access | None = field(default=None, compare=False, repr=False)
    progress: Progress = field(default_factory=SilentProgress, compare=False)
    settings: Settings = field(default_factory=Settings, compare=False, repr=False)
    cache: CacheFolder = field(default=NO_CACHE, compare=False, repr=False)
    clusters: Callable[[str | None], AbstractContextManager[Cluster]] = field(
        default=configured_cluster, compare=False, repr=False
    )
    trust: Callable[[Cluster], Trust] = field(default=trust_in_user, compare=False, repr=False)
    only_shown: bool = False


class Transport(Protocol):
    """A maker of sources and destinations, of what is written behind the transport's name and its colon.

    Both raise UsageError or BadReference for a text that names no place, and touch nothing
    until the source is opened or the destination is written to. Either may be missing.
    """

    def source(self, rest: str, choice: Choice) -> Source:
        """The source where ``rest`` says that an image is."""

    def destination(self, rest: str, choice: Choice) -> Destination[Any]:
        """The destination where ``rest`` says that an image is to go."""


def split(text: str) -> tuple[str | None, str]:
    """The transport that stands in front of ``text``, and the rest; None and the whole text of a plain name.

    >>> split("docker-archive:busybox.tar")
    ('docker-archive', 'busybox.tar')
    >>> split("busybox:latest")
    (None, 'busybox:latest')
    """
    name, colon, rest = text.partition(":")
    if not colon or "/" in name or (name == "docker" and not rest.startswith("//")):
        return None, text
    return (name, rest) if name in OURS or _offered_transport(name) else (None, text)


def is_here(text: str) -> bool:
    """Say if ``text`` names an image of a registry on this machine; only there TLS may be done without."""
    from ..registry.http import host_name, is_local

    transport, rest = split(text)
    return transport == "docker" and is_local(host_name(Reference.parse(f"docker:{rest}").registry))


def source(text: str, choice: Choice | None = None) -> Source:
    """The source in ``text``; raises UsageError for an unknown transport, and for a plain name."""
    transport, rest = _transport(text)
    if not hasattr(transport, "source"):
        raise UsageError(f"{text!r}: images cannot be read from there.")
    return completed_source(transport.source(rest, choice or Choice()))


def destination(text: str, choice: Choice | None = None) -> Destination[Any]:
    """The destination that ``text`` names; raises UsageError as ``source`` does."""
    transport, rest = _transport(text)
    if not hasattr(transport, "destination"):
        raise UsageError(f"{text!r}: images cannot be written there.")
    return completed_destination(transport.destination(rest, choice or Choice()))


def _transport(text: str) -> tuple[Transport, str]:
    name, rest = split(text)
    if name is None:
        raise UsageError(f"{text!r} says not where: write a transport in front, as in docker-archive:file.tar.")
    if name in OURS:
        return cast(Transport, importlib.import_module(f"{__package__}.{OURS[name]}")), rest
    entry = _offered_transport(name)[0]
    try:
        return cast(Transport, entry.load()), rest
    except Exception as error:
        raise ArvDockerError(f"the transport {name!r} of {entry.value!r} cannot be used: {error}.") from error


def _offered_transport(name: str) -> tuple[importlib.metadata.EntryPoint, ...]:
    return tuple(importlib.metadata.entry_points(group=GROUP, name=name))

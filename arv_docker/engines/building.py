# SPDX-License-Identifier: Apache-2.0
"""A request to build an image, as a value; ``command`` and the engines' modules turn it into a command line."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ..model.image import Platform
from ..model.reference import Reference

if TYPE_CHECKING:
    from ..registry.credentials import Credentials


@dataclass(frozen=True, slots=True)
class Build:
    """A request to build an image.

    ``context`` is a folder, or an open file with a tar of one, which the engine unpacks (or with
    a Dockerfile alone). ``dockerfile`` is its path within the context, or in full for one of a
    folder. An argument whose value is None takes that of the environment, which then is in no command line.
    ``memory``, ``memory_swap``, ``cpu_shares`` and ``cpuset_cpus`` limit the steps, in
    the engines' own words (``2g``, ``0-3``). ``cache_from`` are images whose layers may be used.
    ``logins`` are for the registries of the base images.
    """

    context: Path | IO[bytes]
    tag: Reference | None = None
    dockerfile: str = ""
    arguments: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None
    cache_from: Sequence[str] = ()
    memory: str = ""
    memory_swap: str = ""
    cpu_shares: str = ""
    cpuset_cpus: str = ""
    network: str = ""
    logins: Mapping[str, Credentials] = field(default_factory=dict)

    @property
    def options(self) -> list[str]:
        """Options of the command that both engines call the same."""
        given = {
            "--file": self._file,
            "--platform": str(self.platform or ""),
            "--memory": self.memory,
            "--memory-swap": self.memory_swap,
            "--cpu-shares": self.cpu_shares,
            "--cpuset-cpus": self.cpuset_cpus,
            "--network": self.network,
        }
        pairs = {"--build-arg": self.arguments, "--label": self.labels}
        return [f"{option}={value}" for option, value in given.items() if value] + [
            f"{option}={name}" if value is None else f"{option}={name}={value}"
            for option, values in pairs.items()
            for name, value in values.items()
        ]

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables that the command needs for the arguments without a value."""
        return {name: os.environ.get(name, "") for name, value in self.arguments.items() if value is None}

    @property
    def source(self) -> str:
        """The context as the command's argument: the path of a folder, or ``-`` for standard input."""
        return str(self.context.resolve()) if isinstance(self.context, Path) else "-"

    @property
    def _file(self) -> str:
        if not self.dockerfile or not isinstance(self.context, Path):
            return self.dockerfile
        return str(self.context.resolve() / self.dockerfile)

# SPDX-License-Identifier: Apache-2.0
"""Podman, driven by its command line. Podman has no daemon: the command itself works on a store of images.

Podman itself finds the store: that of this user, or the one that ``CONTAINERS_STORAGE_CONF``, ``CONTAINERS_CONF``
or ``CONTAINER_HOST`` names, unless a ``Store`` is passed.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..archive.layer import Stream
from ..local.settings import USUAL_ENGINE_TIMEOUT
from ..model.reference import Reference
from ..registry.credentials import Credentials
from . import login
from .command import CommandLine, Refusals, find_command
from .process import feed_input, read_output

#: The registry in the names of images that were built here, or loaded or tagged without a registry.
_OWN = "localhost"


@dataclass(frozen=True, slots=True)
class Store:
    """A store other than the usual one: the folder, the folder of running containers, the storage driver."""

    root: str = ""
    runroot: str = ""
    driver: str = ""

    @property
    def options(self) -> list[str]:
        """Options of the command for the store; empty values are left to Podman."""
        named = {"--root": self.root, "--runroot": self.runroot, "--storage-driver": self.driver}
        return [word for option, value in named.items() if value for word in (option, value)]


class Podman(CommandLine):
    """Podman with the store that the environment points to, or with a ``Store``."""

    name = "podman"
    title = "Podman"
    platform_format = "{{.Server.OsArch}}"
    refusals = Refusals(
        denied=(
            r"newuidmap|newgidmap|cannot set up namespace",
            # Of the store, its settings and its sockets; not of a registry, a container's program, or a limit.
            r"(containers|storage|libpod|podman|/run/user)\S*\s*: (permission denied|operation not permitted)",
        ),
        if_denied="this user may not use Podman's store. Run this as the user that it belongs to, or choose "
        "another one by CONTAINERS_STORAGE_CONF.",
        not_running=("cannot connect to podman", "unable to connect to podman"),
        if_not_running="the Podman service does not answer. Start it, or unset CONTAINER_HOST to use Podman "
        "on this machine.",
        no_such_image=("image not known", "no such image", "no such object", "invalid reference format"),
    )

    def __init__(
        self, store: Store | None = None, command: str | None = None, *, timeout: float = USUAL_ENGINE_TIMEOUT
    ) -> None:
        """Find the command on PATH; raises NoEngine if there is none."""
        options = store.options if store else ()
        super().__init__(command or find_command(self.title, [self.name]), options, timeout=timeout)

    def spellings(self, name: Reference) -> Sequence[str]:
        """Full forms of a name: with its registry, or with ``localhost`` and then Docker Hub.

        Only full ones: Podman takes ``app:1`` for the end of any name, and may give ``localhost/x/app:1``.
        """
        local = Reference.parse(name.written or name.familiar_name, default_registry=_OWN)
        # Podman refuses a name that has both a tag and a digest.
        plain = [replace(full, tag=None) if full.digest else full for full in (local, name)]
        return list(dict.fromkeys(full.canonical for full in plain))

    def target_name(self, name: Reference) -> str:
        """The full name that Podman would make of a name."""
        return self.spellings(name)[0]

    def cache_options(self, images: Sequence[str]) -> Sequence[str]:
        """Options with the images' repositories: Podman refuses tags there, and uses images of its store unasked."""
        repositories = (replace(Reference.parse(image), tag=None, digest=None).canonical for image in images)
        return [f"--cache-from={repository}" for repository in dict.fromkeys(repositories)]

    @contextmanager
    def save(self, images: Iterable[str]) -> Iterator[Stream]:
        """Open what ``podman save`` writes as a docker-archive of the images, each by reference or ID.

        Podman's temporary files would stay if it is killed, as those of ``load``; so they go into a folder of ours.
        """
        names = list(images)
        several = ["--multi-image-archive"] if len(names) > 1 else []
        line = self._line("save", "--format", "docker-archive", *several, *names)
        with tempfile.TemporaryDirectory(prefix="arv-docker-", dir=self.temporary_folder()) as name:
            variables = self.variables(Path(name), {})
            with read_output(
                line, self._check, variables=variables, answers=self._answers, timeout=self.timeout
            ) as output:
                yield output

    def load(self, archive: Iterable[bytes]) -> str:
        """Load the archive, and return what the command printed.

        Podman first writes the whole archive to a file, which would stay if Podman is killed; so into a folder of
        ours, which is removed.
        """
        with tempfile.TemporaryDirectory(prefix="arv-docker-", dir=self.temporary_folder()) as name:
            variables = self.variables(Path(name), {})
            finished = feed_input(
                self._line("load"),
                archive,
                self._check,
                variables=variables,
                answers=self._answers,
                timeout=self.timeout,
            )
        return finished.stdout.decode(errors="replace")

    def data_folders(self) -> Sequence[Path]:
        """The folder of temporary files, and the store."""
        return [
            Path(self.temporary_folder()),
            *map(Path, self._output_of("info", "--format", "{{.Store.GraphRoot}}").split("\n")),
        ]

    def temporary_folder(self) -> str:
        """The folder that Podman chooses, where other programs choose another: whole images go there."""
        return os.environ.get("TMPDIR") or "/var/tmp"  # noqa: S108

    def variables(self, folder: Path, logins: Mapping[str, Credentials]) -> dict[str, str]:
        """Variables that put temporary files, and a file with the logins, into ``folder``."""
        return {"TMPDIR": str(folder)} | (login.podman_variables(folder, logins) if logins else {})

    def end_steps(self, folder: Path) -> bool:
        """Kill the process of a build's step, which Podman notes: Podman then removes its containers and ends.

        If Podman itself were killed, both would stay behind (seen with 4.3).
        """
        ended = False
        for noted in folder.glob("*/pid"):
            with suppress(OSError, ValueError):
                os.kill(int(noted.read_text()), signal.SIGKILL)
                ended = True
        return ended

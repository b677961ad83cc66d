# SPDX-License-Identifier: Apache-2.0
"""Podman, driven by its command line. It has no daemon: the command itself works on a store of images.

Which store is for Podman to find: that of this user, or what ``CONTAINERS_STORAGE_CONF``,
``CONTAINERS_CONF`` and ``CONTAINER_HOST`` say, or the one that is given here.
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
from ..model.reference import Reference
from ..registry.credentials import Credentials
from . import login
from .command import CommandLine, Refusals, find_command
from .process import feed_input, read_output

#: Where Podman names what was built here, and what was loaded or tagged without a registry.
_OWN = "localhost"


@dataclass(frozen=True, slots=True)
class Store:
    """A store of images apart from the usual one: its folder, that of what runs, and its storage driver."""

    root: str = ""
    runroot: str = ""
    driver: str = ""

    @property
    def options(self) -> list[str]:
        """The store as options of the command; those that are empty are left to Podman."""
        named = {"--root": self.root, "--runroot": self.runroot, "--storage-driver": self.driver}
        return [word for option, value in named.items() if value for word in (option, value)]


class Podman(CommandLine):
    """Podman with the store that the environment points to, or a ``Store``."""

    name = "podman"
    title = "Podman"
    platform_format = "{{.Server.OsArch}}"
    refusals = Refusals(
        denied=("permission denied", "operation not permitted", "newuidmap"),
        if_denied="this user may not use Podman's store. Run this as the user that it belongs to, or choose "
        "another one by CONTAINERS_STORAGE_CONF.",
        not_running=("cannot connect to podman", "unable to connect to podman"),
        if_not_running="the Podman service does not answer. Start it, or unset CONTAINER_HOST to use Podman "
        "on this machine.",
        no_such_image=("image not known", "no such image", "no such object", "invalid reference format"),
    )

    def __init__(self, store: Store | None = None, command: str | None = None) -> None:
        """Finds the command on PATH; raises NoEngine if there is none."""
        super().__init__(command or find_command(self.title, [self.name]), store.options if store else ())

    def spellings(self, name: Reference) -> Sequence[str]:
        """The full names that a name stands for: with its registry; without one, ``localhost`` and then Docker Hub.

        Only full ones: Podman takes ``app:1`` for the end of any name, and may give ``localhost/x/app:1``.
        """
        own = Reference.parse(name.written or name.familiar, default_registry=_OWN)
        # Podman refuses a name that has both a tag and a digest.
        plain = [replace(it, tag=None) if it.digest else it for it in (own, name)]
        return list(dict.fromkeys(it.canonical for it in plain))

    def target_name(self, name: Reference) -> str:
        """The full name, which is what Podman would make of it."""
        return self.spellings(name)[0]

    def cache_options(self, images: Sequence[str]) -> Sequence[str]:
        """The images' repositories: Podman refuses tags there. What is in its store it uses unasked."""
        repositories = (replace(Reference.parse(image), tag=None, digest=None).canonical for image in images)
        return [f"--cache-from={repository}" for repository in dict.fromkeys(repositories)]

    @contextmanager
    def save(self, images: Iterable[str]) -> Iterator[Stream]:
        """``podman save`` of the images as a docker-archive, each by reference or ID.

        Its temporary files would stay where it is killed, as those of ``load``.
        """
        names = list(images)
        several = ["--multi-image-archive"] if len(names) > 1 else []
        line = self._line("save", "--format", "docker-archive", *several, *names)
        with tempfile.TemporaryDirectory(prefix="arv-docker-", dir=self.temporary_folder()) as name:
            own = self.variables(Path(name), {})
            with read_output(line, self._check, variables=own, answers=self._answers) as output:
                yield output

    def load(self, archive: Iterable[bytes]) -> str:
        """``podman load`` of the archive; what the command printed.

        Podman first writes all of it to a file, which would stay where it is killed: so into a folder that goes.
        """
        with tempfile.TemporaryDirectory(prefix="arv-docker-", dir=self.temporary_folder()) as name:
            own = self.variables(Path(name), {})
            finished = feed_input(self._line("load"), archive, self._check, variables=own, answers=self._answers)
        return finished.stdout.decode(errors="replace")

    def data_folders(self) -> Sequence[Path]:
        """That of temporary files, and the store."""
        return [
            Path(self.temporary_folder()),
            *map(Path, self._output_of("info", "--format", "{{.Store.GraphRoot}}").split("\n")),
        ]

    def temporary_folder(self) -> str:
        """Podman's own choice, not that of others: whole images go there."""
        return os.environ.get("TMPDIR") or "/var/tmp"  # noqa: S108

    def variables(self, folder: Path, logins: Mapping[str, Credentials]) -> dict[str, str]:
        """Its temporary files go into the folder; with logins those are in a file there."""
        return {"TMPDIR": str(folder)} | (login.podman_variables(folder, logins) if logins else {})

    def end_steps(self, folder: Path) -> bool:
        """Kills what a step runs, of which Podman notes the process: it then takes away its containers and ends.

        Killed itself, Podman would leave both behind (seen with 4.3).
        """
        ended = False
        for noted in folder.glob("*/pid"):
            with suppress(OSError, ValueError):
                os.kill(int(noted.read_text()), signal.SIGKILL)
                ended = True
        return ended

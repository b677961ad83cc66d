# SPDX-License-Identifier: Apache-2.0
"""Podman, driven by its command line. It has no daemon: the command itself works on a store of images.

Which store is for Podman to find: that of this user, or what ``CONTAINERS_STORAGE_CONF``,
``CONTAINERS_CONF`` and ``CONTAINER_HOST`` say, or the one that is given here.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ..archive.layer import Stream
from ..image import Digest
from ..reference import Reference
from .command import CommandLine, Refusals, found
from .process import feed, reading

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
        super().__init__(command or found(self.title, [self.name]), store.options if store else ())

    def spellings(self, name: Reference) -> Sequence[str]:
        """The full names that a name stands for: with its registry; without one, ``localhost`` and then Docker Hub.

        Only full ones: Podman takes ``app:1`` for the end of any name, and may give ``localhost/x/app:1``.
        """
        own = Reference.parse(name.written or name.familiar, default_registry=_OWN)
        # Podman refuses a name that has both a tag and a digest.
        plain = [replace(it, tag=None) if it.digest else it for it in (own, name)]
        return list(dict.fromkeys(it.canonical for it in plain))

    def tag(self, image: Digest, name: Reference) -> None:
        """``podman tag``."""
        self._run("tag", str(image), self.spellings(name)[0])

    @contextmanager
    def save(self, images: Iterable[str]) -> Iterator[Stream]:
        """``podman save`` of the images as a docker-archive, each by reference or ID."""
        names = list(images)
        several = ["--multi-image-archive"] if len(names) > 1 else []
        with reading(self._line("save", "--format", "docker-archive", *several, *names), self._check) as output:
            yield output

    def load(self, archive: Iterable[bytes]) -> str:
        """``podman load`` of the archive; what the command printed.

        Podman first writes all of it to a file, which would stay where it is killed: so into a folder that goes.
        """
        usual = os.environ.get("TMPDIR") or "/var/tmp"  # noqa: S108 -- Podman's own choice
        with tempfile.TemporaryDirectory(prefix="arv-docker-", dir=usual) as folder:
            finished = feed(self._line("load"), archive, self._check, variables={"TMPDIR": folder})
        return finished.stdout.decode(errors="replace")

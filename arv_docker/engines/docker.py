# SPDX-License-Identifier: Apache-2.0
"""Docker, driven by its command line: ``docker``, or ``docker.io`` where that is the command's name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..archive.layer import Stream
from ..errors import ContentError, EngineError
from ..registry.credentials import Credentials
from . import direct, login
from .command import CommandLine, Refusals, find_command
from .process import CompletedCommand, feed_input, read_output

COMMANDS = ("docker", "docker.io")


class Docker(CommandLine):
    """The Docker engine that the environment points to (``DOCKER_HOST``, contexts), by its command."""

    name = "docker"
    title = "Docker"
    platform_format = "{{.Server.Os}}/{{.Server.Arch}}"
    refusals = Refusals(
        denied=("permission denied while trying to connect", "connect: permission denied"),
        if_denied="this user may not talk to the Docker daemon. Ask to be added to the group docker, "
        "log in again, or run this as root.",
        not_running=(
            "cannot connect to the docker daemon",
            "is the docker daemon running",
            "error during connect",
            "failed to connect to the docker api",
        ),
        if_not_running="the Docker daemon does not answer. Start it, or set DOCKER_HOST to the one that is meant.",
        no_such_image=(
            "no such image",
            "no such object",
            "reference does not exist",
            "invalid reference format",
            "image not known",  # Podman, where it has taken the command's name
        ),
    )

    def __init__(self, command: str | None = None) -> None:
        """Find the command on PATH; raises NoEngine if there is none."""
        super().__init__(command or find_command(self.title, COMMANDS))

    @contextmanager
    def save(self, images: Iterable[str]) -> Iterator[Stream]:
        """Open the output of ``docker save`` for the images, each a reference or ID; from the socket if possible."""
        names = list(images)
        with direct.open_save(names, self._answers) as stream:
            if stream is None:
                with read_output(self._line("save", *names), self._check, answers=self._answers) as output:
                    yield output
                return
            try:
                yield stream
            except ContentError:
                self.version()  # raises if the daemon is gone, which then was wrong, not the archive
                raise

    def load(self, archive: Iterable[bytes]) -> str:
        """Load the archive, through the daemon's socket if possible, and return the engine's words."""
        answer = direct.load_archive(archive, self._answers) if self._is_behind_the_socket() else None
        if answer is None:
            finished = feed_input(self._line("load"), archive, self._check, answers=self._answers)
            return finished.stdout.decode(errors="replace")
        self._check(CompletedCommand((self.command, "load"), int(not answer.well), b"", answer.words))
        return answer.words

    def data_folders(self) -> Sequence[Path]:
        """The root folder of the daemon, if the daemon is that of this machine's socket."""
        identity, _, root = self._output_of("info", "--format", "{{.ID}} {{.DockerRootDir}}").partition(" ")
        return [Path(root)] if root and identity == direct.daemon_id() else []

    def variables(self, folder: Path, logins: Mapping[str, Credentials]) -> dict[str, str]:
        """Variables for a configuration with the logins in ``folder``; none without logins."""
        return login.docker_variables(folder, logins) if logins else {}

    def _is_behind_the_socket(self) -> bool:
        """Return whether the command talks to the daemon of the socket; a command that stands for Podman's does not."""
        if (there := direct.daemon_id()) is None:
            return False
        try:
            return self.run("info", "--format", "{{.ID}}").stdout.decode(errors="replace").strip() == there
        except EngineError:
            return False

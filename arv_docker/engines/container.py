# SPDX-License-Identifier: Apache-2.0
"""A container of Docker's or Podman's, driven by the engine's command, with the interface that repo2docker uses."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import EngineError, UsageError
from ..model.reference import parse_name
from .command import CommandLine
from .output import Ending

#: What Podman calls a state for which Docker has another word.
_STATES = {"configured": "created", "initialized": "created", "stopped": "exited", "stopping": "running"}

_RUNNING = {"Status": "running", "ExitCode": 0}


@dataclass(frozen=True, slots=True)
class Run:
    """A container to be started.

    ``environment`` are texts ``NAME=value``. ``ports`` are ports of the container (``8888/tcp``)
    with what they are on this machine: a port, host and port, or None for any. ``volumes`` are
    paths on this machine with the place and the mode (``rw``, ``ro``) that they have in the container.
    ``remove`` has the engine remove the container when it has ended. ``options`` are further ones of the command.
    """

    image: str
    command: Sequence[str] = ()
    environment: Sequence[str] = ()
    ports: Mapping[str, int | str | tuple[str, int | str] | None] = field(default_factory=dict)
    publish_all_ports: bool = False
    remove: bool = False
    volumes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    options: Sequence[str] = ()


def start_container(engine: CommandLine, wanted: Run) -> Container:
    """Start a container of an image that the engine has; raises NoSuchImage, or EngineError if it cannot start.

    Nothing is left of a container that does not start.
    """
    image = engine.inspect(parse_name(wanted.image))
    options = [f"--publish={_port_text(inside, outside)}" for inside, outside in wanted.ports.items()]
    options += [f"--volume={_volume_text(path, *place)}" for path, place in wanted.volumes.items()]
    options += [*wanted.options]
    options += ["--publish-all"] * wanted.publish_all_ports + ["--rm"] * wanted.remove
    with (
        _environment_options(wanted.environment) as from_file,
        tempfile.TemporaryDirectory(prefix="arv-docker-") as folder,
    ):
        noted = Path(folder) / "id"
        line = ("run", "--detach", f"--cidfile={noted}", *options, *from_file, str(image.id), *wanted.command)
        try:
            started = engine.run(*line, patient=True, unlogged=len(wanted.command))  # some stores copy the whole image
        except BaseException:
            with suppress(OSError, EngineError):
                engine.run("rm", "--force", "--volumes", noted.read_text().strip())
            raise
    # A container that the engine removes at its end may be gone by now.
    return Container(engine, started.stdout.decode().strip(), _RUNNING if wanted.remove else None)


class Container:
    """A container that was started; ``status`` and ``exitcode`` are of the last ``reload``."""

    def __init__(self, engine: CommandLine, container_id: str, state: Mapping[str, Any] | None = None) -> None:
        self.id = container_id
        self._engine = engine
        self._state = state or {}
        if state is None:
            self.reload()

    def reload(self) -> None:
        """Ask the engine for the container's state again."""
        answer = self._engine.run("container", "inspect", "--format", "{{json .State}}", self.id).stdout
        try:
            self._state = json.loads(answer)
            str(self._state["Status"]), int(self._state["ExitCode"])
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(f"{self._engine.name} gave a state that cannot be read: {error!r}.") from error

    @property
    def status(self) -> str:
        """The container's state, ``created``, ``running``, ``paused``, ``exited`` …: Docker's words, of Podman too."""
        status = str(self._state["Status"])
        return _STATES.get(status, status)

    @property
    def exitcode(self) -> int | None:
        """The exit code of a container that has ended, else None."""
        return int(self._state["ExitCode"]) if self.status == "exited" else None

    def logs(
        self, *, stream: bool = False, timestamps: bool = False, since: str | None = None
    ) -> str | Generator[str, None, None]:
        """The output of the container, on both channels; with ``stream`` a generator of its lines, as they come.

        With ``timestamps`` each line begins with a time (RFC 3339) and a blank. ``since`` is such a time.
        """
        options = ["--timestamps"] * timestamps + ([f"--since={since}"] if since else [])
        return self._lines("--follow", *options) if stream else "".join(self._lines(*options))

    def kill(self, *, signal: str = "KILL") -> None:
        """Send a signal to the program in the container."""
        self._engine.run("kill", f"--signal={signal}", self.id)

    def stop(self, *, timeout: int = 10) -> None:
        """Ask the container to end, and kill it after so many seconds."""
        self._engine.run("stop", f"-t={timeout}", self.id, patient=True)

    def wait(self) -> None:
        """Wait until the container has ended."""
        self._engine.run("wait", self.id, patient=True)

    def remove(self) -> None:
        """Remove the container, with its anonymous volumes."""
        self._engine.run("rm", "--volumes", self.id, patient=True)

    def _lines(self, *options: str) -> Generator[str, None, None]:
        output = Ending(self._engine.pieces("logs", *options, self.id))
        rest = b""
        for piece in output:
            *whole, rest = (rest + piece).split(b"\n")
            yield from (line.decode(errors="replace") + "\n" for line in whole)
        last = rest.decode(errors="replace")
        if last:
            yield last
        if output.value != 0:
            raise EngineError(f"{self._engine.name} logs of container {self.id[:12]} ended with {output.value}.")


@contextmanager
def _environment_options(environment: Sequence[str]) -> Iterator[list[str]]:
    """Options for a container's variables, which are put into a file: values may be secrets, and all see arguments."""
    if not environment:
        yield []
        return
    for variable in environment:
        name = variable.partition("=")[0]
        if not name or name.startswith("#") or "\n" in variable:
            raise UsageError(f"the variable {name!r} cannot be given to a container: it has several lines, or no name.")
    with tempfile.NamedTemporaryFile("w", prefix="arv-docker-") as file:
        file.write("".join(f"{variable}\n" for variable in environment))
        file.flush()
        yield [f"--env-file={file.name}"]


def _port_text(inside: str, outside: int | str | tuple[str, int | str] | None) -> str:
    if outside is None:
        return inside
    if not isinstance(outside, tuple):
        return f"{outside}:{inside}"
    host, port = outside
    return f"{f'[{host}]' if ':' in host else host}:{port}:{inside}"


def _volume_text(path: str, inside: str, mode: str) -> str:
    words = (str(Path(path).resolve()), inside, mode)
    if any(":" in word for word in words):
        raise UsageError(f"{path!r} cannot be a volume at {inside!r}: engines take no colon in a path.")
    return ":".join(words)

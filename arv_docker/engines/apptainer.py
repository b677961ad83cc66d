# SPDX-License-Identifier: Apache-2.0
"""Apptainer and Singularity, which run images out of SIF files and have no store.

So ``Apptainer`` is no ``Engine``: there is nothing to list, load or save, only a file to build. The archive must have
been verified before, for neither program compares a layer with its digest.
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from pathlib import Path

from ..errors import EngineError, NoEngine
from ..local.disk import read_file
from ..local.settings import USUAL_ENGINE_TIMEOUT
from ..model.image import Platform
from ..model.manifest import machine_platform
from .output import Ending, lines_of
from .process import CompletedCommand, run_command, stream_output

#: In order of preference: where both are installed, the second often is a link to the first.
COMMANDS = ("apptainer", "singularity")

ARCHIVE, _SIF = "image.tar", "image.sif"

#: What every SIF file has behind the 32 bytes that make it a script.
_MAGIC_AT, _MAGIC = 32, b"SIF_MAGIC\0"

#: Lines of a build that failed which its error shows.
_TAIL = 30


class Apptainer:
    """Apptainer or Singularity, driven by a command; ``name`` is ``apptainer`` or ``singularity``."""

    def __init__(self, command: str | None = None, *, timeout: float = USUAL_ENGINE_TIMEOUT) -> None:
        """Find the command on PATH; raises NoEngine if there is none."""
        self.timeout = timeout
        self.command = command or _find_command()
        self.name = Path(self.command).name

    def version(self) -> str:
        """The program's version, for example ``1.4.5``."""
        completed = run_command([self.command, "--version"], self._check, timeout=self.timeout)
        words = completed.stdout.decode(errors="replace").split()
        return words[-1] if words else ""

    def platform(self) -> Platform:
        """The platform of this machine."""
        return machine_platform()

    def build(self, folder: Path) -> Path:
        """Build a SIF file beside the archive ``ARCHIVE`` in ``folder``, and return its path. Raises EngineError.

        The program's cache goes into the folder, and its temporary files too, unless the environment names a folder
        for them.
        """
        prefix = self.name.upper()
        here = str(folder.absolute())
        variables = {f"{prefix}_CACHEDIR": here, f"{prefix}_TMPDIR": os.environ.get(f"{prefix}_TMPDIR") or here}
        # Run in the folder: a path of the user's may have a colon, behind which a name would begin.
        command = [self.command, "build", _SIF, f"docker-archive:{ARCHIVE}"]
        # The program may be silent for long, and there is no daemon behind it that could be gone.
        output = stream_output(command, folder=folder, variables=variables, answers=lambda: True, timeout=self.timeout)
        said = Ending(lines_of(output))
        tail = "".join(deque(said, _TAIL))
        if said.value != 0:
            raise EngineError(f"{self.name} build failed with status {said.value}; its last words:", detail=tail)
        if not is_sif(folder / _SIF):
            raise EngineError(f"{self.name} build ended well, and wrote no SIF file.", detail=tail)
        return folder / _SIF

    def _check(self, completed: CompletedCommand) -> None:
        if completed.status != 0:
            raise EngineError(f"{self.name} failed with status {completed.status}.", detail=completed.stderr)


def is_sif(path: Path) -> bool:
    """Return whether a file begins as SIF files do."""
    try:
        return read_file(path, _MAGIC_AT + len(_MAGIC)).startswith(_MAGIC, _MAGIC_AT)
    except OSError:
        return False


def _find_command() -> str:
    for command in COMMANDS:
        if path := shutil.which(command):
            return path
    raise NoEngine(f"no {' or '.join(COMMANDS)} command is on PATH. Install Apptainer to build and run SIF files.")

# SPDX-License-Identifier: Apache-2.0
"""A shell in which the examples of the documentation run as somebody types them. No fixtures: see `conftest.py`."""

import os
import shlex
import sys
from pathlib import Path

from .engines import Program
from .sites import TOP, Done, finished, started


class Shell:
    """A folder in which lines of a shell are run; `arv-docker` is that of this checkout, with a site of its own."""

    def __init__(self, folder: Path, site: Path, *programs: Program, **variables: str) -> None:
        """The environment is that of the programs, of which the later ones count more, and `variables`."""
        self.folder = folder
        self.environment: dict[str, str] = {}
        for program in programs:
            self.environment |= program.environment
        own = site.with_name("programs")
        own.mkdir()
        (own / "arv-docker").write_text(f'#!/bin/sh\nexec {sys.executable} {TOP}/bin/arv-docker --local={site} "$@"\n')
        (own / "arv-docker").chmod(0o755)
        path = f"{own}:{self.environment.get('PATH', os.environ['PATH'])}"
        self.environment |= {"PATH": path, "PYTHONPATH": str(TOP), **variables}

    def run(self, line: str) -> Done:
        """A line, run to its end."""
        return finished(started(["sh", "-c", line], self.environment, self.folder))

    def printed(self, line: str) -> str:
        """What a line that must succeed prints."""
        done = self.run(line)
        assert done.status == 0, f"{line}\n{done.told}"
        return done.out

    def program(self, code: str) -> str:
        """What a program in Python that must succeed prints."""
        return self.printed(shlex.join([sys.executable, "-c", code]))

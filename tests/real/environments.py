# SPDX-License-Identifier: Apache-2.0
"""A Python environment of its own, with the Arvados SDK, this package, and arvados-cwl-runner, from a package index.

No fixtures: those are in `conftest.py` beside this.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from .engines import unavailable
from .sites import TOP

#: A release of the SDK from before the one that arvados-cwl-runner asks for.
OLDER_SDK = "arvados-python-client==3.1.2"
SDK = "arvados-python-client==3.2.1"
RUNNER = "arvados-cwl-runner==3.2.1"

_MODULE = "import arvados.commands.keepdocker as it; print(it.__name__)"


@dataclass(frozen=True)
class Seen:
    """Whose the command and the module are, as the environment's own programs tell."""

    version: str
    module: str
    well: bool
    says: str


@dataclass
class Environment:
    """A virtual environment; `seen` is what was seen after each step of its making."""

    folder: Path
    seen: dict[str, Seen] = field(default_factory=dict)

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def run(
        self, *words: str | Path, variables: Mapping[str, str] = MappingProxyType({}), check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """One of its programs, with its scripts first on PATH."""
        program, *rest = words
        path = f"{self.folder}/bin:{os.environ['PATH']}"
        done = subprocess.run(
            [self.folder / "bin" / program, *rest],
            env={**os.environ, **variables, "PATH": path},
            cwd=self.folder,  # the checkout is no part of it
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done

    def install(self, *requirements: str | Path) -> None:
        """`pip install`; where that cannot be had, the test is skipped, or fails when CI is set."""
        options = ("--quiet", "--disable-pip-version-check", "--no-compile", "--no-warn-conflicts")
        done = self.run("python", "-m", "pip", "install", *options, *requirements, check=False)
        if done.returncode != 0:
            unavailable(f"pip install {' '.join(map(str, requirements))}: {done.stderr[-1000:]}")

    def look(self, step: str) -> None:
        """Notes whose command and module it has now."""
        findings = json.loads(self.run("arv-docker", "doctor", "--json", check=False).stdout)
        (command,) = (it for it in findings if it["what"] == "command")
        version = self.run("arv-keepdocker", "--version")
        module = self.run("python", "-c", _MODULE).stdout.strip()
        self.seen[step] = Seen((version.stdout + version.stderr).strip(), module, command["well"], command["says"])


def with_upgrades(folder: Path) -> Environment:
    """An environment whose SDK is upgraded, with this package's command put back, taken away, and put back."""
    made = Environment(folder / "venv")
    subprocess.run([sys.executable, "-m", "venv", made.folder], check=True)
    made.install(OLDER_SDK)
    made.install(sources(folder / "sources"))
    made.look("installed after the SDK")
    made.install(RUNNER)  # which upgrades the SDK
    made.look("SDK upgraded")
    made.run("arv-docker", "install-command")
    made.look("install-command")
    made.run("arv-docker", "install-command", "--module")
    made.look("install-command --module")
    made.install("--force-reinstall", "--no-deps", SDK)
    made.look("SDK upgraded again")
    made.run("arv-docker", "install-command", "--undo")
    made.look("install-command --undo")
    made.run("arv-docker", "install-command", "--module")
    return made


def sources(folder: Path) -> Path:
    """A copy of what is installed, for a build leaves files in its folder."""
    folder.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(TOP / name, folder)
    shutil.copytree(TOP / "arv_docker", folder / "arv_docker", ignore=shutil.ignore_patterns("__pycache__"))
    return folder

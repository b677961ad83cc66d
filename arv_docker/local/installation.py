# SPDX-License-Identifier: Apache-2.0
"""The ``arv-keepdocker`` command of an environment: who owns it, and putting ours in the place of the SDK's.

The Arvados SDK installs a script of the same name; whichever package was installed or
upgraded last has it. Nothing is replaced unasked: the SDK's script is kept beside ours
and comes back on request. The module ``arvados.commands.keepdocker`` is replaced only
with ``module=True``, by a ``.pth`` file of one line.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from .disk import disk_errors

COMMAND = "arv-keepdocker"
PTH = "arv_docker_keepdocker.pth"

#: Does nothing, rather than complain at each start of Python, when this package has been uninstalled.
_PTH_LINE = (
    "import importlib.util as _u; "
    "_u.find_spec('arv_docker') and __import__('arv_docker.substitute', fromlist=['install']).install()\n"
)

_OURS = "arv_docker.cli.arv_keepdocker"
_THEIRS = "arvados.commands.keepdocker"
_KEPT = f"{COMMAND}.arvados"


@dataclass(frozen=True, slots=True)
class Environment:
    """A Python environment: where its scripts and modules are."""

    scripts: Path
    packages: Path

    @classmethod
    def at(cls, prefix: Path | None = None) -> Environment:
        """Return the environment at ``prefix``, or that of this Python; raises UsageError if it has no scripts."""
        variables = {} if prefix is None else {"base": str(prefix), "platbase": str(prefix)}
        paths = sysconfig.get_paths(vars=variables)
        scripts = Path(paths["scripts"])
        if not scripts.is_dir():
            raise UsageError(f"{scripts} is no folder: {prefix} is not a Python environment.")
        return cls(scripts, Path(paths["purelib"]))

    @property
    def command(self) -> Path:
        """The path of the environment's arv-keepdocker, also if there is none."""
        return self.scripts / COMMAND

    @property
    def python(self) -> Path:
        """The environment's interpreter; raises UsageError if this package is not installed for it."""
        local = self.scripts / "python3"
        python = local if local.exists() else Path(sys.executable)
        # Not in the current folder, which may be a checkout of this package.
        if subprocess.run([python, "-c", f"import {_OURS}"], cwd=self.scripts, capture_output=True).returncode != 0:
            raise UsageError(f"arv-docker is not installed in the environment of {python}: pip install it there first.")
        return python

    @property
    def replaces_module(self) -> bool:
        """True if ``import arvados.commands.keepdocker`` yields our module in this environment."""
        return (self.packages / PTH).exists()


def owner_of(script: Path) -> str:
    """Return the owner of a script: ``arv-docker``, ``arvados``, ``other``, or ``none`` where there is no file."""
    try:
        text = script.read_text(errors="replace")
    except OSError:
        return "none"
    return "arv-docker" if _OURS in text else "arvados" if _THEIRS in text else "other"


def command_on_path() -> Path | None:
    """The path of the arv-keepdocker that a shell would run, or None."""
    found = shutil.which(COMMAND)
    return Path(found) if found else None


def install(environment: Environment, *, module: bool = False) -> list[str]:
    """Put our command into the environment, and with ``module`` our module; return a line for each change."""
    done = []
    python = environment.python
    if owner_of(environment.command) != "arv-docker":
        with disk_errors(environment.scripts):
            if environment.command.exists():
                environment.command.replace(environment.scripts / _KEPT)
                done.append(f"{environment.command}: kept as {_KEPT}")
            _write_script(environment.command, python)
        done.append(f"{environment.command}: now the command of arv-docker")
    if module and not environment.replaces_module:
        with disk_errors(environment.packages):
            _replace(environment.packages / PTH, _PTH_LINE)
        done.append(
            f"{environment.packages / PTH}: import arvados.commands.keepdocker now yields arv_docker.keepdocker"
        )
    return done


def undo(environment: Environment) -> list[str]:
    """Remove our command and our module, and put the SDK's command back in place; return a line for each change."""
    done = []
    kept = environment.scripts / _KEPT
    if kept.exists():
        if owner_of(environment.command) == "arvados":  # an upgrade of the SDK has put its own there already
            kept.unlink()
        else:
            kept.replace(environment.command)
            done.append(f"{environment.command}: the command of the Arvados SDK again")
    if environment.replaces_module:
        (environment.packages / PTH).unlink()
        done.append(f"{environment.packages / PTH}: removed")
    return done


def _write_script(path: Path, python: Path) -> None:
    _replace(path, f"#!{python}\nimport sys\nfrom {_OURS} import main\nsys.exit(main())\n", mode=0o755)


def _replace(path: Path, text: str, *, mode: int = 0o644) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text)
    partial.chmod(mode)
    partial.replace(path)

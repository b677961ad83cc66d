# SPDX-License-Identifier: Apache-2.0
"""Putting the command into an environment and taking it back; real environments are in `tests/real/`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from arv_docker.cli import arv_docker
from arv_docker.compat import import_hook
from arv_docker.errors import DiskError, UsageError
from arv_docker.local import installation
from arv_docker.local.installation import Environment, install, owner_of, undo

from ..real.sites import TOP

SDKS = "#!/usr/bin/env python3\nfrom arvados.commands.keepdocker import main\nmain()\n"


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """An environment with the SDK's command, whose interpreter has this package."""
    made = Environment.at(made_at(tmp_path))
    made.command.write_text(SDKS)
    made.command.chmod(0o755)
    return made


def made_at(folder: Path) -> Path:
    environment = Environment.at()
    scripts = folder / environment.scripts.name
    scripts.mkdir()
    interpreter = scripts / "python3"
    interpreter.write_text(f'#!/bin/sh\nPYTHONPATH={TOP} exec {sys.executable} "$@"\n')
    interpreter.chmod(0o755)
    (folder / environment.packages.relative_to(sys.prefix)).mkdir(parents=True)
    return folder


def test_install_and_undo(environment: Environment) -> None:
    assert owner_of(environment.command) == "arvados"
    assert len(install(environment, module=True)) == 3
    assert owner_of(environment.command) == "arv-docker"
    assert os.access(environment.command, os.X_OK)
    assert environment.replaces_module
    assert install(environment, module=True) == []
    assert len(undo(environment)) == 2
    assert environment.command.read_text() == SDKS
    assert os.access(environment.command, os.X_OK)
    assert list(environment.packages.iterdir()) == []
    assert sorted(it.name for it in environment.scripts.iterdir()) == ["arv-keepdocker", "python3"]
    assert undo(environment) == []


def test_the_command_that_is_written_runs(environment: Environment) -> None:
    install(environment)
    done = subprocess.run([environment.command, "--version"], capture_output=True, text=True)
    assert "(arv-docker)" in done.stdout


def test_nothing_is_replaced_unasked(environment: Environment) -> None:
    install(environment)
    assert not environment.replaces_module
    assert (environment.scripts / "arv-keepdocker.arvados").read_text() == SDKS


def test_an_upgrade_between_install_and_undo(environment: Environment) -> None:
    install(environment)
    environment.command.write_text(SDKS + "# newer\n")
    undo(environment)
    assert environment.command.read_text() == SDKS + "# newer\n"
    install(environment)
    environment.command.write_text(SDKS + "# newest\n")
    install(environment)
    undo(environment)
    assert environment.command.read_text() == SDKS + "# newest\n"


def test_an_environment_without_a_command(environment: Environment) -> None:
    environment.command.unlink()
    assert owner_of(environment.command) == "none"
    install(environment)
    assert owner_of(environment.command) == "arv-docker"


def test_a_folder_that_is_no_environment(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a Python environment"):
        Environment.at(tmp_path / "none")


def test_an_environment_whose_python_has_not_this_package(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    (environment.scripts / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    monkeypatch.chdir(TOP)
    with pytest.raises(UsageError, match="pip install it there first"):
        install(environment)
    assert environment.command.read_text() == SDKS


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_environment_of_somebody_else(environment: Environment) -> None:
    environment.scripts.chmod(0o555)
    try:
        with pytest.raises(DiskError):
            install(environment)
    finally:
        environment.scripts.chmod(0o755)
    assert environment.command.read_text() == SDKS


def test_the_verb(environment: Environment, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert arv_docker.main(["install-command", "--module", "--prefix", str(tmp_path)]) == 0
    assert "now the command of arv-docker" in capsys.readouterr().out
    assert arv_docker.main(["install-command", "--module", "--prefix", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "nothing to do\n"
    assert arv_docker.main(["install-command", "--undo", "--prefix", str(tmp_path)]) == 0
    assert "of the Arvados SDK again" in capsys.readouterr().out
    assert arv_docker.main(["install-command", "--prefix", str(tmp_path / "none")]) == 2


# -- whose command a shell runs ---------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (SDKS, "is the command of the Arvados SDK"),
        ("#!/bin/sh\n", "is the command of something else"),
        (None, "no arv-keepdocker is on PATH"),
    ],
)
def test_doctor_says_whose_command_it_is(
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    script: str | None,
    words: str,
) -> None:
    if script is None:
        environment.command.unlink()
    else:
        environment.command.write_text(script)
    monkeypatch.setenv("PATH", str(environment.scripts))
    assert installation.command_on_path() == (environment.command if script else None)
    arv_docker.main(["doctor"])
    out = capsys.readouterr().out
    assert words in out
    # Each of the other things is looked at although the first is not well.
    assert [line.split()[0] for line in out.splitlines() if not line.startswith(" ")] == [
        "command",
        "engine",
        "cache",
        "cluster",
    ]


# -- the module -------------------------------------------------------------------------


@pytest.mark.conforms("K23")
def test_a_program_may_replace_the_module_in_its_own_process() -> None:
    code = (
        "import arvados.commands.keepdocker as before; import arv_docker.keepdocker as ours; ours.install();"
        "ours.install(); import arvados.commands.keepdocker as after; import arvados.commands, sys;"
        "assert before is not ours and after is ours;"
        "assert arvados.commands.keepdocker is ours and sys.modules['arvados.commands.keepdocker'] is ours"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_only_that_name_is_replaced() -> None:
    finder = import_hook._Finder()
    assert finder.find_spec("arvados.commands.put") is None
    assert finder.find_spec("arvados.commands.keepdocker") is not None

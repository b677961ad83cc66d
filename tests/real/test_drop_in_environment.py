# SPDX-License-Identifier: Apache-2.0
"""Whose `arv-keepdocker` and `arvados.commands.keepdocker` an environment has, before and after upgrades of the SDK."""

import pytest

from .environments import Environment
from .sites import show

#: Step: whether the command, and whether the module, is this package's; what `arv-docker doctor` says.
EXPECTED = {
    "installed after the SDK": (True, False, "is this package's"),
    "SDK upgraded": (False, False, "is the command of the Arvados SDK. arv-docker install-command"),
    "install-command": (True, False, "is this package's"),
    "install-command --module": (True, True, "is this package's; so is import arvados.commands.keepdocker"),
    "SDK upgraded again": (True, True, "is the command of the Arvados SDK, and runs this package's module"),
    "install-command --undo": (False, False, "is the command of the Arvados SDK. arv-docker install-command"),
}


def test_what_survives_an_upgrade_of_the_sdk(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    show(capsys, *(f"{step:26} {seen.version:36} {seen.module}" for step, seen in environment.seen.items()))
    assert list(environment.seen) == list(EXPECTED)
    for step, (command, module, says) in EXPECTED.items():
        seen = environment.seen[step]
        assert ("(arv-docker)" in seen.version) is command, step
        assert seen.module == ("arv_docker.compat" if module else "arvados.commands") + ".keepdocker", step
        assert seen.well is command, step
        assert says in seen.says, step


@pytest.mark.conforms("K23")
def test_the_module_is_the_same_object_by_either_name(environment: Environment) -> None:
    code = (
        "import arvados.commands.keepdocker, arv_docker.keepdocker, sys;"
        "assert arvados.commands.keepdocker is arv_docker.keepdocker;"
        "assert sys.modules['arvados.commands.keepdocker'].__spec__.name == 'arv_docker.compat.keepdocker';"
        "from arvados.commands.keepdocker import main;"
        "assert main is arv_docker.keepdocker.main"
    )
    environment.run("python", "-c", code)
    environment.run("python", "-m", "arvados.commands.keepdocker", "--version")


def test_nothing_is_loaded_in_programs_that_do_not_want_it(environment: Environment) -> None:
    loaded = environment.run("python", "-c", "import sys; print(*sys.modules)").stdout.split()
    assert not {"arv_docker.keepdocker", "arv_docker.compat.keepdocker"} & set(loaded)
    assert "arvados" not in loaded


def test_an_environment_without_the_package_starts_without_complaint(environment: Environment) -> None:
    """After `pip uninstall arv-docker` the file that replaces the module is still there."""
    done = environment.run("python", "-c", "import sys; print('started')")
    assert (done.stdout, done.stderr) == ("started\n", "")
    package = next(environment.folder.glob("lib/python*/site-packages/arv_docker"))
    package.rename(package.with_name("arv_docker_away"))
    try:
        done = environment.run("python", "-c", "import arvados.commands.keepdocker as it; print(it.__name__)")
    finally:
        package.with_name("arv_docker_away").rename(package)
    assert (done.stdout, done.stderr) == ("arvados.commands.keepdocker\n", "")

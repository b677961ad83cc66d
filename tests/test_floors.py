# SPDX-License-Identifier: Apache-2.0
"""The house (docs/internals/structure.md#floors): who may import whom, and that importing does no work."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import arv_docker

ROOT = Path(arv_docker.__file__).parent
MODULES = sorted(
    ".".join(("arv_docker", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
)

#: The rooms from the ground up: a module imports its own room and those below it, never one above.
FLOORS = (
    "errors",
    "model",
    "local",
    "archive",
    "registry",
    "arvados",
    "engines",
    "store",
    "transports",
    "images",
    "ingest",
    "publishing",
    "staging",
    "testing",
    "maintenance",
    "api",
    "integrations",
    "cli",
    "compat",
    "__main__",
)

#: Names by which other programs import modules of ours, besides those of ``arv_docker`` itself.
KEPT_NAMES = {
    "arv_docker.keepdocker": "arv_docker.compat.keepdocker",
    "arv_docker.substitute": "arv_docker.compat.import_hook",  # it stands in installed .pth files
    "arv_docker.engine.podman": "arv_docker.engines.podman",
    "arv_docker.engine.apptainer": "arv_docker.engines.apptainer",
    "arv_docker.errors": "arv_docker.errors",
    "arv_docker.transports": "arv_docker.transports",
    "arv_docker.registry.credentials": "arv_docker.registry.credentials",
}
_ALIASES = {name for name, module in KEPT_NAMES.items() if name != module} | {"arv_docker.engine"}


def room(module: str) -> str:
    """The room of a module: the first part of its name below the package."""
    return module.split(".")[1]


def floor(module: str) -> int:
    """The floor that a module is on: its room's place in FLOORS."""
    assert room(module) in FLOORS, f"{module} is in no room: add {room(module)} to FLOORS"
    return FLOORS.index(room(module))


def imports(module: str) -> set[str]:
    """The modules of the package that a module imports, in functions too."""
    path = ROOT.joinpath(*module.split(".")[1:])
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    package = module if path.is_dir() else module.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name.startswith("arv_docker")}
        elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("arv_docker")):
            base = ".".join(package.split(".")[: len(package.split(".")) + 1 - node.level]) if node.level else ""
            target = ".".join(filter(None, (base, node.module)))
            found |= {name if (name := f"{target}.{it.name}") in MODULES else target for it in node.names}
    return found - {"arv_docker"}


def site(module: str) -> bool:
    return module.startswith("arv_docker.site")


def housed() -> list[str]:
    """The modules that are in a room: neither the package itself, nor a kept name, nor the site."""
    return [module for module in MODULES if module not in {"arv_docker", *_ALIASES} and not site(module)]


@pytest.mark.parametrize("module", housed())
def test_nothing_imports_upward(module: str) -> None:
    for imported in imports(module):
        if not site(imported):
            assert imported not in _ALIASES, f"{module} imports {imported}, which is for other programs"
            assert floor(imported) <= floor(module), f"{module} imports {imported}, which is above it"


@pytest.mark.parametrize("module", [module for module in MODULES if not site(module)])
def test_only_cli_and_the_starter_of_local_know_of_the_site(module: str) -> None:
    if any(map(site, imports(module))):
        assert module == "arv_docker.api" or module.startswith("arv_docker.cli")


@pytest.mark.parametrize("module", [module for module in MODULES if site(module)])
def test_the_site_shares_only_values_and_what_is_of_this_machine(module: str) -> None:
    for imported in imports(module):
        assert site(imported) or room(imported) in ("errors", "model", "local")


#: The floors of the site: below HTTP the API, below that what is kept on disk. Loose modules hold these together.
SITE_FLOORS = ("refusal", "store", "api", "http")


@pytest.mark.parametrize("module", [module for module in MODULES if module.count(".") == 3 and site(module)])
def test_nothing_in_the_site_imports_upward(module: str) -> None:
    above = SITE_FLOORS[SITE_FLOORS.index(module.split(".")[2]) + 1 :]
    for imported in filter(site, imports(module)):
        assert not [name for name in above if imported.startswith(f"arv_docker.site.{name}")], f"{module}: {imported}"


@pytest.mark.parametrize("name", KEPT_NAMES)
def test_what_other_programs_name_stays_importable(name: str) -> None:
    code = f"import importlib; print(importlib.import_module({name!r}).__name__)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == f"{KEPT_NAMES[name]}\n"


def test_what_the_package_offers_is_importable() -> None:
    code = "import arv_docker; print(*[getattr(arv_docker, name).__module__ for name in ('get_image', 'open_cluster')])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "arv_docker.api arv_docker.api\n"


def test_the_entry_points_lead_to_what_they_name() -> None:
    for group, names in {"console_scripts": ("arv-docker", "arv-keepdocker"), "repo2docker.engines": ("keep",)}.items():
        points = {point.name: point for point in metadata.entry_points(group=group)}
        for name in names:
            module, _, attribute = points[name].value.partition(":")
            source = ROOT.joinpath(*module.split(".")[1:]).with_suffix(".py").read_text()
            assert re.search(rf"^(def|class) {attribute}\b", source, re.MULTILINE), points[name]


def test_the_checks_find_imports() -> None:
    """They would pass with no imports found, so here are some that are known."""
    assert "arv_docker.errors" in imports("arv_docker.model.reference")
    assert "arv_docker.store.tarballs" in imports("arv_docker.transports.docker_daemon")
    assert "arv_docker.site" in imports("arv_docker.api")
    assert "arv_docker.engines.docker" in imports("arv_docker.cli")
    assert floor("arv_docker.model.manifest_text") < floor("arv_docker.arvados.catalog.resolver")


IMPORT_ALL = """
import builtins, os, socket, subprocess, sys, threading
forbidden = []
def refuse(name):
    def refused(*args, **kwargs):
        forbidden.append((name, args))
        raise AssertionError(f"{name}{args} while importing")
    return refused
socket.socket.connect = refuse("connect")
subprocess.Popen = refuse("Popen")
os.mkdir = refuse("mkdir")
os.unlink = refuse("unlink")
real = builtins.open
def reading(file, mode="r", *args, **kwargs):
    return real(file, mode, *args, **kwargs) if not set(mode) & set("wax+") else refuse("open")(file, mode)
builtins.open = reading
environment, folder = dict(os.environ), os.getcwd()
import importlib
for module in sys.argv[1:]:
    importlib.import_module(module)
assert not forbidden, forbidden
assert (dict(os.environ), os.getcwd()) == (environment, folder)
assert threading.active_count() == 1, threading.enumerate()
"""


def test_importing_every_module_does_no_work(home: Path) -> None:
    # A __main__ is there to run. The web framework looks at its own files and may need a package of an extra.
    names = [it for it in MODULES if not it.endswith("__main__") and not site(it) and it not in PLUGINS]
    command = [sys.executable, "-B", "-c", IMPORT_ALL, *names, "arv_docker.site"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert [path.name for path in home.iterdir()] == [".run"]


#: What other programs load, and which needs them.
PLUGINS = {"arv_docker.integrations.repo2docker", "arv_docker.testing"}

SLOW = (
    "arvados",
    "googleapiclient",
    "httplib2",
    "starlette",
    "uvicorn",
    "rich",
    "ciso8601",
    "cryptography",
    "sqlite3",
    "urllib3",
)


#: Imports modules one after another, and names each that brings a slow one with it.
IMPORT_QUICKLY = """
import importlib, sys
slow, *modules = sys.argv[1:]
slow = set(slow.split(","))
for module in modules:
    importlib.import_module(module)
    came = sorted(slow.intersection(sys.modules))
    if came:
        print(module, *came)
        slow.difference_update(came)
"""


def test_slow_imports_wait_until_they_are_needed() -> None:
    """In one process: a module that imports none by itself imports none after others either."""
    runs_when_imported = {module for module in MODULES if module.endswith("__main__")}
    modules = [module for module in MODULES if not site(module)]
    names = [module for module in modules if module not in runs_when_imported and module not in PLUGINS]
    command = [sys.executable, "-c", IMPORT_QUICKLY, ",".join(SLOW), *names]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == ""


def test_every_file_names_its_licence() -> None:
    for path in (*ROOT.rglob("*.py"), *Path(__file__).parent.rglob("*.py")):
        assert path.read_text().startswith("# SPDX-License-Identifier: Apache-2.0\n"), path

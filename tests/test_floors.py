# SPDX-License-Identifier: Apache-2.0
"""The house (design §7): who may import whom, and that importing does no work."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import arv_docker

ROOT = Path(arv_docker.__file__).parent
MODULES = sorted(
    ".".join(("arv_docker", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
)

#: From the ground up. A module may import those of its own floor and of floors below it.
FLOORS: list[set[str]] = [
    {"errors", "reference", "image", "manifest", "progress", "disk", "settings", "version", "inspection"},
    {"archive", "keep.manifest"},
    {"engine", "registry", "keep"},
    {"transports", "cache", "entries", "filenames"},
    {"cataloguing", "identities", "ingested", "labels", "piped", "plan", "storing", "together", "verify"}.union(
        {"ingest", "load", "naming", "copy", "staging", "folder", "sif"}, {"publish", "housekeeping", "waiting"}
    ),
    {"cli", "integrations", "keepdocker", "installation", "launcher", "substitute"},
]


def floor(module: str) -> int:
    """The floor that a module is on, by its longest listed beginning."""
    name = module.removeprefix("arv_docker.")
    while name:
        for number, rooms in enumerate(FLOORS):
            if name in rooms:
                return number
        name = name.rpartition(".")[0]
    raise AssertionError(f"{module} is on no floor: add it to FLOORS")


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


@pytest.mark.parametrize("module", [module for module in MODULES if module != "arv_docker" and not site(module)])
def test_nothing_imports_upward(module: str) -> None:
    own = floor(module)
    for imported in imports(module):
        if not site(imported):
            assert floor(imported) <= own, f"{module} imports {imported}, which is above it"


@pytest.mark.parametrize("module", [module for module in MODULES if not site(module)])
def test_only_cli_knows_of_the_site(module: str) -> None:
    if any(map(site, imports(module))):
        assert module.startswith("arv_docker.cli")


@pytest.mark.parametrize("module", [module for module in MODULES if site(module)])
def test_the_site_shares_only_values_and_manifest_text(module: str) -> None:
    for imported in imports(module):
        assert site(imported) or floor(imported) == 0 or imported == "arv_docker.keep.manifest"


def test_the_checks_find_imports() -> None:
    """They would pass with no imports found, so here are some that are known."""
    assert "arv_docker.errors" in imports("arv_docker.reference")
    assert "arv_docker.cache" in imports("arv_docker.transports.docker_daemon")
    assert "arv_docker.site" in imports("arv_docker.cli")
    assert "arv_docker.engine.docker" in imports("arv_docker.cli")
    assert floor("arv_docker.keep.manifest") < floor("arv_docker.keep.catalogue")


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
PLUGINS = {"arv_docker.integrations.repo2docker"}

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


@pytest.mark.parametrize("module", [module for module in MODULES if not site(module)])
def test_slow_imports_wait_until_they_are_needed(module: str) -> None:
    if module.endswith("__main__"):
        pytest.skip("it runs when it is imported")
    if module in PLUGINS:
        pytest.skip("another program imports it")
    code = f"import sys, {module}; print([name for name in {SLOW!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_every_file_names_its_licence() -> None:
    for path in (*ROOT.rglob("*.py"), *Path(__file__).parent.rglob("*.py")):
        assert path.read_text().startswith("# SPDX-License-Identifier: Apache-2.0\n"), path

# SPDX-License-Identifier: Apache-2.0
"""The environment and the settings are read where a command or a program begins, and passed on from there."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import arv_docker

PACKAGE = Path(arv_docker.__file__).parent

#: Rooms and pages in which commands and other programs begin; the embedded site is a program of its own.
EDGES = ("cli/", "compat/", "integrations/", "api.py", "site/")

#: Functions that read the environment, or a file that it names, and give what is configured for this user.
READERS = {"settings", "cache_folder", "of_user"}

#: Pages below the edges that read variables all the same, and why.
READS_VARIABLES = {
    "local/settings.py": "reads the settings, for the edges; and gives commands this program's environment",
    "local/progress.py": "asks the terminal what it can draw",
    "store/tarballs.py": "finds the cache folder, for the edges",
    "registry/access.py": "reads proxies, certificates and logins of the user, for the edges",
    "registry/credentials.py": "takes a password out of a variable that an option names",
    "arvados/sdk.py": "finds the settings file of a cluster as the Arvados SDK does, whose settings it makes up for",
    "arvados/block_put.py": "asks for proxies as the Arvados SDK does, for each service",
    "engines/login.py": "adds logins to the configuration that the engine's command would read",
    "engines/direct.py": "finds the daemon that the engine's command would talk to",
    "engines/podman.py": "finds the folder that the engine's command would write to",
    "engines/apptainer.py": "finds the folder that the engine's command would write to",
    "engines/building.py": "passes on variables that a build names",
}


def pages() -> Iterator[tuple[str, ast.Module]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).as_posix()
        if not name.startswith(EDGES):
            yield name, ast.parse(file.read_text(encoding="utf-8"))


def variables_read(page: ast.Module) -> list[int]:
    """Lines with `os.environ` or `os.getenv`."""
    return [
        node.lineno
        for node in ast.walk(page)
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"}
    ]


def readers_called(page: ast.Module) -> list[int]:
    """Lines with a call of one of the readers, under whatever name it was imported; with `cache_folder` any use."""
    names = set(READERS)
    for node in ast.walk(page):
        if isinstance(node, ast.ImportFrom):
            names |= {alias.asname for alias in node.names if alias.name in READERS and alias.asname}
    called = [node.func for node in ast.walk(page) if isinstance(node, ast.Call)]
    used = [node for node in ast.walk(page) if isinstance(node, ast.Name | ast.Attribute)]
    return sorted(
        {node.lineno for node in called if _name_of(node) in names}
        | {node.lineno for node in used if _name_of(node) == "cache_folder" and isinstance(node.ctx, ast.Load)}
    )


def _name_of(node: ast.AST) -> str:
    """The last part of a name; empty for anything else."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def test_no_library_code_reads_a_variable() -> None:
    reading = {name: lines for name, page in pages() if (lines := variables_read(page))}
    assert set(reading) == set(READS_VARIABLES), reading


#: Pages that call a reader below the edges, and why.
CALLS_READERS = {
    "arvados/sdk.py": "asks the Arvados SDK for its settings, where nobody made a client",
    "engines/login.py": "adds logins to those that the engine's command would find",
    "registry/access.py": "is made of `Logins.of_user`, for the edges",
}


def test_no_library_code_asks_for_settings_or_the_cache() -> None:
    calling = {name: lines for name, page in pages() if (lines := readers_called(page))}
    assert set(calling) == set(CALLS_READERS), calling


@pytest.mark.parametrize(
    ("text", "variables", "readers"),
    [
        ("import os\nos.environ['X']", [2], []),
        ("import os\nos.getenv('X')", [2], []),
        ("from .settings import settings\nsettings()", [], [2]),
        ("from .settings import settings as user\nuser()", [], [2]),
        ("from ..store import tarballs\ntarballs.cache_folder()", [], [2]),
        ("from ..store.tarballs import cache_folder\nCacheFolder(cache_folder)", [], [2]),
        ("access = Access.of_user()", [], [1]),
        ("settings = options.settings", [], []),
    ],
)
def test_what_counts(text: str, variables: list[int], readers: list[int]) -> None:
    page = ast.parse(text)
    assert (variables_read(page), readers_called(page)) == (variables, readers)

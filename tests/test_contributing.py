# SPDX-License-Identifier: Apache-2.0
"""CONTRIBUTING and the picture of the structure name every room, and nothing that is not there."""

import re
from pathlib import Path

import arv_docker
from tests.test_floors import KEPT_NAMES

ALIASES = {name for name, module in KEPT_NAMES.items() if name != module}
PACKAGE = Path(arv_docker.__file__).parent
TOP = PACKAGE.parent
CONTRIBUTING = (TOP / "CONTRIBUTING.md").read_text()

#: A line of the tree: a name, then its sentence.
_LINE = re.compile(r"^    ([\w.]+/?)  +(\S.*)$", re.MULTILINE)


def rooms() -> set[str]:
    """Every folder and module at the top of the package, as the tree writes them."""
    folders = {f"{path.name}/" for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    modules = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py", "__main__.py"}
    return folders | modules


def aliases() -> set[str]:
    """Names that other programs import, which lead to a module in a room."""
    alias = {name.removeprefix("arv_docker.").partition(".")[0] for name in ALIASES}
    return {f"{name}/" if (PACKAGE / name).is_dir() else f"{name}.py" for name in alias}


def tree() -> dict[str, str]:
    """The rooms that CONTRIBUTING names, each with its sentence."""
    (section,) = re.findall(r"^## Where things are\n(.*?)^## ", CONTRIBUTING, re.MULTILINE | re.DOTALL)
    return dict(_LINE.findall(section))


def test_the_tree_names_every_room_with_a_sentence() -> None:
    assert set(tree()) == rooms() - aliases()
    assert [name for name, sentence in tree().items() if len(sentence.split()) < 3] == []


def test_the_names_that_stay_for_other_programs_are_said_too() -> None:
    assert [name for name in aliases() if f"`{name}`" not in CONTRIBUTING] == []


def test_the_picture_has_every_room() -> None:
    page = (TOP / "docs" / "internals" / "structure.md").read_text()
    (picture,) = re.findall(r"^```mermaid\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    drawn = re.findall(r"^ +(\w+)[\[(]+\"\1<br>", picture, re.MULTILINE)
    assert set(drawn) == {re.sub(r"/$|\.py$", "", name) for name in tree()}

# SPDX-License-Identifier: Apache-2.0
"""Every citation of a page leads somewhere: those of code and tests, and the links of the pages themselves.

Code cites a rule by page and anchor, `docs/spec/archive.md#block-rule`. Anchors are those of GitHub: the heading in
lower case, without punctuation, blanks as dashes; or an explicit `<a id="…">`.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
_FOLDERS = ("arv_docker", "tests", "bench", "bin", "docs", "findings", ".ci")
_SUFFIXES = (".py", ".md", ".sh", ".toml", "")

_CITATION = re.compile(r"(?<![\w/])docs/[\w/-]+(?:\.\w+)?(?:#[\w-]+)?")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")

#: Modules in a page: by their path in the package or the repository, and by their dotted name.
_MODULE = re.compile(r"`((?:\w+/)*\w+\.py)`")
_DOTTED = re.compile(r"(?<![\w.])arv_docker(?:\.\w+)+")
_OF_OTHERS = {"arvados/commands/keepdocker.py", "repo2docker_config.py"}

#: Citations of what is not in the repository, and numbers without a page: in pieces, so that this file has none.
_OLD = re.compile(
    "|".join(
        [
            "design " + "§",
            r"(?<!docs/)spec/[a-z-]+ " + "§",
            "seed " + "00",
            "arvados-" + "verified",
            r"[(][KWRGHS][0-9]+[,)]",
        ]
    )
)


def cited_files() -> list[Path]:
    """Every text file of the repository in which a page may be cited."""
    found = [path for folder in _FOLDERS for path in (TOP / folder).rglob("*") if path.suffix in _SUFFIXES]
    return sorted(path for path in [*found, *TOP.glob("*.md")] if path.is_file() and "__pycache__" not in path.parts)


def pages() -> list[Path]:
    """Every page of the documentation."""
    return [path for path in cited_files() if path.suffix == ".md"]


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page."""
    text = page.read_text()
    found = set(re.findall(r'<a id="([^"]+)"', text))
    seen: dict[str, int] = {}
    for heading in re.findall(r"^#+ +(.+?) *$", _FENCE.sub("", text), re.MULTILINE):
        slug = slug_of(heading)
        count = seen.get(slug, -1) + 1
        seen[slug] = count
        found.add(f"{slug}-{count}" if count else slug)
    return frozenset(found)


def slug_of(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "").lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def citations(text: str) -> Iterator[str]:
    """The pages, with their anchors, that a text cites."""
    yield from _CITATION.findall(text)


def links(page: Path) -> Iterator[str]:
    """The links of a page to files of the repository, as they are written."""
    text = _CODE.sub("", _FENCE.sub("", page.read_text()))
    yield from (target for target in _LINK.findall(text) if not re.match(r"[a-z]+:", target))


def problem_with(target: Path, anchor: str) -> str | None:
    """What is wrong with a citation of a file and an anchor in it; None if nothing is."""
    if not target.exists():
        return f"there is no {target.relative_to(TOP) if target.is_relative_to(TOP) else target}"
    if anchor and (target.suffix != ".md" or anchor not in anchors(target)):
        return f"{target.relative_to(TOP)} has no anchor {anchor}"
    return None


def said_of(path: Path, problem: str | None) -> list[str]:
    """The problem with the file that has it, or nothing."""
    return [f"{path.relative_to(TOP)}: {problem}"] if problem else []


def test_citations_lead_somewhere() -> None:
    problems = []
    for path in cited_files():
        for citation in citations(path.read_text()):
            page, _, anchor = citation.partition("#")
            problems += said_of(path, problem_with(TOP / page, anchor))
    assert problems == []


def test_links_between_pages_lead_somewhere() -> None:
    problems = []
    for page in pages():
        for link in links(page):
            name, _, anchor = link.partition("#")
            problems += said_of(page, problem_with((page.parent / name).resolve() if name else page, anchor))
    assert problems == []


def test_pages_name_modules_that_are_there() -> None:
    problems = []
    for page in pages():
        text = page.read_text()
        for name in _MODULE.findall(text):
            if name not in _OF_OTHERS and not any((folder / name).exists() for folder in (TOP, TOP / "arv_docker")):
                problems.append(f"{page.relative_to(TOP)}: {name}")
        problems += [f"{page.relative_to(TOP)}: {name}" for name in _DOTTED.findall(text) if not is_there(name)]
    assert problems == []


def is_there(name: str) -> bool:
    """Whether a dotted name is a module of the package, or something in one."""
    module, _, rest = name.rpartition(".")
    if (TOP / name.replace(".", "/")).is_dir() or (TOP / f"{name.replace('.', '/')}.py").is_file():
        return True
    try:
        return bool(module) and hasattr(pkgutil.resolve_name(module), rest)
    except (ImportError, AttributeError):
        return False


def test_nothing_is_cited_that_is_not_here() -> None:
    found = {str(path.relative_to(TOP)): _OLD.findall(path.read_text()) for path in cited_files()}
    assert {path: cited for path, cited in found.items() if cited} == {}


def test_the_checks_find_citations() -> None:
    """They would pass with no citations found, so here are some that are known, and some that are wrong."""
    spec = TOP / "docs" / "spec"
    assert {"block-rule", "layout-1"} <= anchors(spec / "archive.md")
    assert list(citations("(docs/spec/archive.md#block-rule), docs/names.md.")) == [
        "docs/spec/archive.md#block-rule",
        "docs/names.md",
    ]
    assert "archive.md" in links(spec / "README.md")
    assert problem_with(spec / "archive.md", "block-rule") is None
    assert problem_with(spec / "archive.md", "no-such-rule") is not None
    assert problem_with(spec / "no-such-page.md", "") is not None
    assert _OLD.search("as arv-keepdocker has it (" + "K7)")
    assert _OLD.search("of spec/field-notes " + "§5")
    assert _MODULE.findall("`archive/canonical.py`") == ["archive/canonical.py"]
    assert is_there("arv_docker.errors.KeepError")
    assert not is_there("arv_docker.no_such_module")
    assert not is_there("arv_docker.errors.NoSuchError")
    assert slug_of("Where it `differs`: what's left?") == "where-it-differs-whats-left"

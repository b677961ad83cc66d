# SPDX-License-Identifier: Apache-2.0
"""Links the first use of each word of `docs/glossary.md` to it, on every page: `python -m tests.glossary`.

Only prose counts: not headings, tables, code, the text of other links, or what is made by a program. A use inside a
longer word of the glossary is a use of that one: "manifest text" is no "manifest".
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.test_citations import slug_of

DOCS = Path(__file__).resolve().parents[1] / "docs"
GLOSSARY = DOCS / "glossary.md"

#: Pages that are made by a program, and the glossary itself.
_WITHOUT = {"conformance.md", "glossary.md"}

#: Words of the glossary that are verbs too: only behind one of these are they surely the word that is meant.
VERBS = frozenset(["Link", "Plan", "Pull", "Push", "Report"])
_BEFORE = ("a ", "the ", "no ", "each ", "every ", "this ", "its ", "another ")

_CODE = re.compile(r"`[^`\n]*`|<[^>\n]+>|https?://\S+")
_LINK = re.compile(r"\[[^]\n]*\]\([^)\n]*\)")


@dataclass(frozen=True, slots=True)
class Use:
    """A use of a word in a line of a page: where it stands, and whether it is linked to the glossary."""

    anchor: str
    line: int
    start: int
    end: int
    linked: bool


@cache
def words() -> Mapping[str, str]:
    """Every form of every word that pages link, in lower case, with its anchor."""
    forms: dict[str, str] = {}
    for heading in re.findall(r"^## (.+)$", GLOSSARY.read_text(), re.MULTILINE):
        for form in filter(None, re.split(r" \(|\)", heading)):
            forms[form.lower()] = slug_of(heading)
    return forms


@cache
def _pattern() -> re.Pattern[str]:
    behind = "".join(f"(?<=\\b{word})|" for word in _BEFORE).rstrip("|")
    longest_first = sorted(words(), key=len, reverse=True)
    forms = [
        f"(?:{behind})({form})" if form.capitalize() in VERBS else f"({re.escape(form)})" for form in longest_first
    ]
    return re.compile(rf"(?<![\w./-])(?:{'|'.join(forms)})(?:s|es)?(?![\w/-]|\.\w)", re.IGNORECASE)


def pages() -> list[Path]:
    """The pages whose words are linked."""
    return [path for path in sorted(DOCS.rglob("*.md")) if path.name not in _WITHOUT]


def unlinked(page: Path) -> list[Use]:
    """The first use of each word that is not linked, in the order of the page."""
    seen: set[str] = set()
    found = []
    for use in uses(page):
        if use.anchor not in seen and not use.linked:
            found.append(use)
        seen.add(use.anchor)
    return found


def uses(page: Path) -> Iterator[Use]:
    """Every use of a word in the prose of a page, in its order."""
    text = page.read_text().split("\n")
    for number in _prose(text):
        yield from sorted(_uses_in(text[number], number), key=lambda use: use.start)


def _uses_in(line: str, number: int) -> Iterator[Use]:
    bare = _CODE.sub(lambda match: " " * len(match[0]), line)
    for link in _LINK.finditer(bare):
        target = re.search(r"glossary\.md#([\w-]+)\)$", link[0])
        if target is not None:
            yield Use(target[1], number, link.start(), link.end(), linked=True)
    masked = _LINK.sub(lambda match: " " * len(match[0]), bare)
    for match in _pattern().finditer(masked):
        (form,) = filter(None, match.groups())
        yield Use(words()[form.lower()], number, match.start(), match.end(), linked=False)


def _prose(text: list[str]) -> Iterator[int]:
    """The numbers of the lines that are prose."""
    fenced, before = False, ""
    for number, line in enumerate(text):
        if line.startswith("```"):
            fenced = not fenced
        elif line.strip() and not fenced and not line.startswith(("#", "|")) and not _is_code(line, before):
            yield number
        before = line


def _is_code(line: str, before: str) -> bool:
    """Whether an indented line is code: the lines of a list's item are indented by two, or three behind a number."""
    return line.startswith("    ") and (not before.strip() or before.startswith("    "))


def with_links(page: Path) -> str:
    """The page with the first uses linked."""
    text = page.read_text().split("\n")
    glossary = os.path.relpath(GLOSSARY, page.parent)
    for use in reversed(unlinked(page)):
        line = text[use.line]
        text[use.line] = f"{line[: use.start]}[{line[use.start : use.end]}]({glossary}#{use.anchor}){line[use.end :]}"
    return "\n".join(text)


if __name__ == "__main__":
    for path in pages():
        linked = with_links(path)
        if linked != path.read_text():
            path.write_text(linked)
            sys.stdout.write(f"{path.relative_to(DOCS.parent)} written\n")

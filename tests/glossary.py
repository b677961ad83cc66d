# SPDX-License-Identifier: Apache-2.0
"""Links the first use of each word of `docs/glossary.md` to it, on every page: `python -m tests.glossary`.

Only prose counts: not headings, tables, code, the text of other links, or what is made by a program. A use inside a
longer word of the glossary is a use of that one: "manifest text" is no "manifest".
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
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

#: Code and links may go on in the next line, not in the next paragraph.
_CODE = re.compile(r"`(?:[^`\n]|\n(?!\n))*`|<[^>\n]+>|https?://\S+")
_LINK = re.compile(r"\[(?:[^]\n]|\n(?!\n))*\]\([^)\s]*\)")


@dataclass(frozen=True, slots=True)
class Use:
    """A use of a word on a page, from where to where it stands in the text; is it ``linked`` to the glossary?"""

    anchor: str
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
    """Every form, the longest first. The words of one may stand in two lines."""
    behind = "".join(f"(?<=\\b{word})|" for word in _BEFORE).rstrip("|")
    forms = []
    for form in sorted(words(), key=len, reverse=True):
        pattern = re.escape(form).replace("\\ ", r"\s+")
        forms.append(f"(?:{behind})({pattern})" if form.capitalize() in VERBS else f"({pattern})")
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


def uses(page: Path) -> list[Use]:
    """Every use of a word in the prose of a page, in its order."""
    prose = _CODE.sub(_blank, _prose(page.read_text()))
    found = []
    for link in _LINK.finditer(prose):
        target = re.search(r"glossary\.md#([\w-]+)\)$", link[0])
        if target is not None:
            found.append(Use(target[1], link.start(), link.end(), linked=True))
    for match in _pattern().finditer(_LINK.sub(_blank, prose)):
        (form,) = filter(None, match.groups())
        found.append(Use(words()[" ".join(form.lower().split())], match.start(), match.end(), linked=False))
    return sorted(found, key=lambda use: use.start)


def _prose(text: str) -> str:
    """The text with blanks in place of every line that is no prose."""
    fenced, before = False, ""
    lines = []
    for line in text.split("\n"):
        if line.startswith("```"):
            fenced = not fenced
        prose = not fenced and not line.startswith(("#", "|", "```")) and not _is_code(line, before)
        lines.append(line if prose else " " * len(line))
        before = line
    return "\n".join(lines)


def _is_code(line: str, before: str) -> bool:
    """Whether an indented line is code: the lines of a list's item are indented by two, or three behind a number."""
    return line.startswith("    ") and (not before.strip() or before.startswith("    "))


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match[0])


def with_links(page: Path) -> str:
    """The page with the first uses linked."""
    text = page.read_text()
    glossary = os.path.relpath(GLOSSARY, page.parent)
    for use in reversed(unlinked(page)):
        text = f"{text[: use.start]}[{text[use.start : use.end]}]({glossary}#{use.anchor}){text[use.end :]}"
    return text


if __name__ == "__main__":
    for path in pages():
        linked = with_links(path)
        if linked != path.read_text():
            path.write_text(linked)
            sys.stdout.write(f"{path.relative_to(DOCS.parent)} written\n")

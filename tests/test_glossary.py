# SPDX-License-Identifier: Apache-2.0
"""Each word of the glossary is explained once, and every page links its first use of a word to it."""

import re
from pathlib import Path

from tests import glossary
from tests.glossary import GLOSSARY


def entries() -> dict[str, str]:
    """The words of the glossary with their texts."""
    _, *parts = re.split(r"^## ", GLOSSARY.read_text(), flags=re.MULTILINE)
    return {heading: text.strip() for heading, _, text in (part.partition("\n") for part in parts)}


def test_words_are_in_order_each_once() -> None:
    words = list(entries())
    assert words == sorted(words, key=str.lower)
    assert len(set(words)) == len(words)


def test_each_word_is_explained_in_a_few_sentences() -> None:
    sentences = {word: len(re.findall(r"[.?](?:\s|$)", text)) for word, text in entries().items()}
    assert {word: count for word, count in sentences.items() if not 1 <= count <= 4} == {}


def test_words_that_are_verbs_too_are_in_the_glossary() -> None:
    assert set(entries()) >= glossary.VERBS


def test_every_page_links_its_first_use_of_a_word() -> None:
    found = {
        str(page.relative_to(glossary.DOCS)): [use.anchor for use in glossary.unlinked(page)]
        for page in glossary.pages()
    }
    assert {page: uses for page, uses in found.items() if uses} == {}, "run: python -m tests.glossary"


def test_first_uses_are_found(tmp_path: Path) -> None:
    """Prose alone counts, the longest word that fits, and a link only if it comes first."""
    page = tmp_path / "page.md"
    page.write_text(
        "# An image\n\n"
        "`image` and [an image](other.md), but two [images](glossary.md#image) and an image.\n\n"
        "    code of a layer\n\n"
        "| a table of tags |\n\n"
        "- a manifest\n"
        "  text, no other\n"
        "  of a block; later a [block](glossary.md#block)\n"
        "- who links and who pushes writes each link to `a\n"
        "  tag` of [a\n"
        "  layer](other.md)\n"
    )
    assert [use.anchor for use in glossary.unlinked(page)] == ["manifest-text", "block", "link"]
    assert "a [manifest\n  text](" in glossary.with_links(page)
    assert glossary.with_links(page).count("[block](") == 2

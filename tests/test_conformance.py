# SPDX-License-Identifier: Apache-2.0
"""`docs/conformance.md` says which test shows which statement, and none is forgotten."""

from .conformance import OPEN, PAGE, SECTIONS, known, page, shown_by


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.conformance"


def test_every_statement_is_shown_or_open() -> None:
    shown = shown_by()
    missing = [number for statements in SECTIONS.values() for number in statements if number not in shown]
    assert [number for number in missing if number not in OPEN] == []


def test_no_marker_names_what_is_no_statement() -> None:
    assert [number for number in [*shown_by(), *OPEN] if not known(number)] == []

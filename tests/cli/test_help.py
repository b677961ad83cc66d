# SPDX-License-Identifier: Apache-2.0
"""Help pages: each fits 80 columns, also on a wide terminal, and has an example."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest

from arv_docker.cli import arv_docker, arv_keepdocker


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A command and those below it."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from commands(child)


PAGES = {it.prog: it for top in (arv_docker.parser(), arv_keepdocker.parser()) for it in commands(top)}


@pytest.mark.parametrize("command", list(PAGES))
def test_a_help_page_fits_80_columns(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    long = [line for line in PAGES[command].format_help().splitlines() if len(line) > 80]
    assert long == []


def test_prose_is_filled_and_examples_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = PAGES["arv-docker inspect"].format_help().splitlines()
    assert "  arv-docker inspect --json oci:layout:latest" in lines
    prose = [line for line in lines if line and not line.startswith(" ")]
    assert max(map(len, prose)) <= 60
    monkeypatch.setenv("COLUMNS", "200")  # lines that long are no prose that is read
    prose = PAGES["arv-docker inspect"].format_help().partition("options:")[2].splitlines()
    assert max(len(line) for line in prose if not line.startswith(" ")) <= 80

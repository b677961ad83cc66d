# SPDX-License-Identifier: Apache-2.0
"""What the commands print with `--json`, held against the schemas in `docs/json/`, whichever test runs them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

from arv_docker.cli import arv_docker

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "json"


@cache
def commands() -> tuple[str, ...]:
    """The verbs, and the commands below them, that print JSON, as in `registry list`."""
    return tuple(_with_json(arv_docker.parser(), ()))


def _with_json(parser: argparse.ArgumentParser, words: tuple[str, ...]) -> Iterator[str]:
    if "--json" in parser._option_string_actions:
        yield " ".join(words)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from _with_json(child, (*words, name))


def command_of(arguments: Sequence[str]) -> str | None:
    """The command that these arguments run, if it prints JSON."""
    words = [argument for argument in arguments if not argument.startswith("-")]
    if words[:1] == ["stage"] and "--sif-cache" in arguments:  # another spelling
        return "sif fill"
    return next((it for it in (" ".join(words[:2]), " ".join(words[:1])) if it in commands()), None)


def schema_of(command: str) -> Any:
    return json.loads((FOLDER / f"{command.replace(' ', '-')}.json").read_text())


def check(arguments: Sequence[str], out: str) -> None:
    """Fail if `out`, which a command printed, is not what its schema says. Nothing is checked without `--json`."""
    if "--json" not in arguments or not out.strip() or (command := command_of(arguments)) is None:
        return
    errors = list(jsonschema.Draft202012Validator(schema_of(command)).iter_errors(json.loads(out)))
    if errors:
        worst = jsonschema.exceptions.best_match(errors)
        raise AssertionError(f"{command} --json is not as docs/json has it: {worst.json_path}: {worst.message}")

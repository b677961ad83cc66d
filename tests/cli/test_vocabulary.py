# SPDX-License-Identifier: Apache-2.0
"""One vocabulary: an option that several verbs have means the same, and takes the same, in each of them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest

from arv_docker.cli import ENGINES, arv_docker, arv_keepdocker

#: How the help begins of an option that each verb says more of; of all others it is equal, word by word.
BEGINNINGS = {
    "--all": "every image of ",
    "--dir": "the folder",
    "--dry-run": "say what ",
    "--platform": "the image for this platform, ",
    "--quick": "check less: ",
    "--wait": "return when ",
}
#: Options that say of each verb what they let it do; the word is that of the field.
BY_VERB = {"--force", "--project-uuid"}
#: `build` has the options of `docker build`, short ones too.
AS_DOCKER = {("arv-docker build", "-f"), ("arv-docker build", "-t")}

Use = tuple[str, argparse.Action]


def options(parser: argparse.ArgumentParser) -> Iterator[Use]:
    """The options of a command and those below it, each with the command that has it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from options(child)
        else:
            yield parser.prog, action


def uses() -> dict[str, list[Use]]:
    found: dict[str, list[Use]] = {}
    for parser in (arv_docker.parser(), arv_keepdocker.parser()):
        for command, action in options(parser):
            for option in action.option_strings:
                if (command, option) not in AS_DOCKER:
                    found.setdefault(option, []).append((command, action))
    return found


USES = uses()
SHARED = sorted(option for option, found in USES.items() if len(found) > 1)


@pytest.mark.parametrize("option", SHARED)
def test_an_option_means_the_same_in_every_verb(option: str) -> None:
    texts = {str(action.help): command for command, action in USES[option]}
    if option in BEGINNINGS:
        assert {text: command for text, command in texts.items() if not text.startswith(BEGINNINGS[option])} == {}
    elif not BY_VERB & {word for _, action in USES[option] for word in action.option_strings}:
        assert len(texts) == 1, texts


@pytest.mark.parametrize("option", SHARED)
def test_an_option_takes_the_same_in_every_verb(option: str) -> None:
    taken = {(action.metavar, action.nargs, type(action)) for _, action in USES[option]}
    assert len(taken) == 1, taken
    if option == "--engine":
        assert {tuple(action.choices or ())[: len(ENGINES)] for _, action in USES[option]} == {ENGINES}
    else:
        assert len({tuple(action.choices or ()) for _, action in USES[option]}) == 1


@pytest.mark.parametrize("name", sorted({*BEGINNINGS, *BY_VERB}))
def test_no_rule_is_left_over(name: str) -> None:
    assert len({str(action.help) for _, action in USES[name]}) > 1


def test_one_word_for_a_folder() -> None:
    words = {str(action.metavar) for _, action in options(arv_docker.parser())}
    assert "FOLDER" in words
    assert not words & {"D", "DIR", "DIRECTORY"}


def test_a_project_is_the_one_that_owns() -> None:
    """Other projects have names of their own: `copy --source-project`, `registry --service-project`."""
    assert "--project" not in USES
    assert {action.metavar for _, action in USES["--project-uuid"]} == {"UUID"}

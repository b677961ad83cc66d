# SPDX-License-Identifier: Apache-2.0
"""``arv-docker completion``: scripts by which shells complete the commands, made from the commands' parsers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

SHELLS = ("bash", "zsh", "fish")
COMMANDS = ("arv-docker", "arv-keepdocker")

#: What a word of the help stands for, where a shell can complete that.
_FILES = frozenset(("FILE", "PATH"))
_FOLDERS = frozenset(("FOLDER",))
#: For zsh, which otherwise says what is missing instead of completing an option there.
_NOTHING = {"zsh": "()"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.epilog = (
        "examples, for the shell that runs:\n"
        '  eval "$(arv-docker completion bash)"      # bash\n'
        '  eval "$(arv-docker completion zsh)"       # zsh, after compinit\n'
        "  arv-docker completion fish | source       # fish\n\n"
        "for every later one:\n"
        "  arv-docker completion bash > \\\n    ~/.local/share/bash-completion/completions/arv-docker\n"
        "  arv-docker completion zsh > FOLDER/_arv-docker      # a FOLDER of $fpath\n"
        "  arv-docker completion fish > ~/.config/fish/completions/arv-docker.fish\n"
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help="bash, zsh or fish")
    parser.add_argument("--command", choices=COMMANDS, default=COMMANDS[0], help="the command to complete (arv-docker)")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    print(script(args.command, args.shell), end="")
    return 0


def script(command: str, shell: str) -> str:
    """Return the completion script of a command for a shell, one of SHELLS."""
    import shtab

    from . import arv_docker, arv_keepdocker

    if command == "arv-docker":
        parser = arv_docker.parser()
        parser.add_argument("--local", help="use a site on this machine instead of a cluster")  # before a verb, too
    else:
        parser = arv_keepdocker.parser()
    for action in _actions(parser):
        if "--local" in action.option_strings:
            action.nargs = 0  # its folder stands behind a = alone, never in a word of its own
        elif action.metavar in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar in _FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif not action.option_strings and not action.choices:
            action.complete = _NOTHING  # type: ignore[attr-defined]
    text: str = shtab.complete(parser, shell)
    return text


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield each option and argument of a command and of the commands below it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from _actions(child)
        else:
            yield action

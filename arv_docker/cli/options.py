# SPDX-License-Identifier: Apache-2.0
"""Options that several verbs have, the form of help pages, and the options that are taken out before parsing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from ..model.image import Platform

#: The most columns that a help page takes, as argparse leaves two free.
_COLUMNS = 78


ENGINES = ("docker", "podman", "auto")

#: What runs images and holds none, for the verbs that can do with that.
APPTAINER = "apptainer"

#: Seconds that an image's being ready is waited for.
_TIMEOUT = 600.0


def _natural_number(text: str) -> int:
    """Return the number of times in ``text``; raises what argparse tells the user."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of times")
    return int(text)


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help in which paragraphs are filled to the width of the terminal, 80 columns at most; one with an indented line,
    as examples and tables have them, is left as it is written."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        import textwrap

        def fill(paragraph: str) -> str:
            if any(line.startswith(" ") for line in paragraph.splitlines()):
                return paragraph
            return textwrap.fill(
                paragraph, min(width, _COLUMNS), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
            )

        return "\n\n".join(map(fill, text.strip("\n").split("\n\n")))


class _WrittenShort(argparse.Action):
    """An action that refuses ``--loc``, which would go past ``without_local``, and the image to a cluster instead."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.error("write --local in full, with a folder as --local=FOLDER")


#: The options that say how much is told, by what is meant; they may stand before the verb too.
_TELLING = {"-q": "quiet", "--quiet": "quiet", "-v": "verbose", "--verbose": "verbose", "--debug": "debug"}


def add_telling_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--quiet``, ``--verbose`` and ``--debug`` to the help; ``without_telling`` takes them out before parsing."""
    group = parser.add_argument_group("verbosity, for every verb")
    for options, meaning in (
        (("-q", "--quiet"), "the result, warnings and errors alone"),
        (("-v", "--verbose"), "also the engines' commands, and decisions"),
        (("--debug",), "also each request (or ARV_DOCKER_LOG=debug)"),
    ):
        group.add_argument(*options, action="store_true", default=argparse.SUPPRESS, help=meaning)


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    epilog: str = "",
    more: str = "",
) -> argparse.ArgumentParser:
    """Add a command below another: ``summary`` is in the list of them, ``more`` stands behind it in the command's own
    help, and ``epilog`` below, both as they are written."""
    command = commands.add_parser(
        name,
        help=summary,
        description=summary + more,
        epilog=epilog,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    add_telling_options(command)
    return command


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--local`` and ``--retries``; ``without_local`` takes ``--local`` out, which stands here for ``--help``."""
    from ..arvados.api_requests import DEADLINE, RETRIES

    parser.add_argument(
        "--local",
        metavar="[=FOLDER]",
        action=_WrittenShort,
        default=argparse.SUPPRESS,
        help="use a site on this machine instead of a cluster: in FOLDER, or in $ARV_DOCKER_SITE, "
        "or in the user's data folder; verbs that put images there make it",
    )
    parser.add_argument(
        "--retries",
        type=_natural_number,
        default=RETRIES,
        metavar="N",
        help=f"try a failed request N times more ({RETRIES}), to the API for at most {DEADLINE:.0f} seconds",
    )


def add_trust_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--trust-readable``."""
    parser.add_argument(
        "--trust-readable",
        action="store_true",
        help="trust what links of any user say of a collection, as the original does; otherwise only yours, the "
        "system's, and those of the users in ARV_DOCKER_TRUSTED_WRITERS",
    )


def add_engine_option(parser: argparse.ArgumentParser, *others: str) -> None:
    """Add ``--engine``, with the choices ``others`` besides the usual ones."""
    parser.add_argument(
        "--engine",
        choices=(*ENGINES, *others),
        default=ENGINES[0],
        help="the container engine to use (docker); auto: the first that has the image, which a message names",
    )


def add_platform_option(parser: argparse.ArgumentParser, more: str) -> None:
    """Add ``--platform``; ``more`` says where it counts."""
    text = f"the image for this platform, {more}"
    parser.add_argument("--platform", metavar="OS/ARCH", type=_platform, help=text)


def add_source_options(parser: argparse.ArgumentParser, *creds: str) -> None:
    """Add ``--platform``, ``--insecure``, ``--authfile`` and ``--creds``, or what ``creds`` names in its place."""
    add_platform_option(parser, "of a source that has several")
    add_insecure_option(parser)
    add_login_options(parser, *creds)


def add_login_options(parser: argparse.ArgumentParser, *creds: str) -> None:
    """Add ``--authfile`` and ``--creds``, or what ``creds`` names in its place."""
    from . import registry_access

    registry_access.add_options(parser, *(creds or ("--creds",)))


def add_insecure_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--insecure``."""
    parser.add_argument("--insecure", action="store_true", help="talk to a registry on this machine without TLS")


def as_folder(text: str) -> Path:
    """A folder, as the type of an argument. An empty text, of an unset variable, is not the current one."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty; . is the current folder")
    from pathlib import Path

    return Path(text)


def _platform(text: str) -> Platform:
    from ..model.manifest import parse_platform

    try:
        return parse_platform(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(error.message) from None


def add_timeout_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--timeout``, for who waits until an image is ready."""
    parser.add_argument(
        "--timeout", type=_seconds, default=_TIMEOUT, metavar="SECONDS", help=f"how long to wait ({_TIMEOUT:g})"
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= 10**7:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def add_deletion_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--yes`` and ``--dry-run``, for verbs that may delete links of other users."""
    parser.add_argument("--yes", action="store_true", help="delete links of other users too, without asking")
    parser.add_argument("--dry-run", action="store_true", help="say what links would be deleted; write nothing")


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print the answer as JSON, for programs")


def add_wide_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--wide``."""
    parser.add_argument(
        "--wide",
        action="store_true",
        help="show all columns, and names, times and lines in full, also on a terminal",
    )


def without_local(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of ``--local`` ("" without a folder, None if it is not given), and the other arguments.

    Taken out before parsing, wherever it stands: ``--local IMAGE`` must not swallow the image.
    """
    rest: list[str] = []
    local: str | None = None
    for place, argument in enumerate(arguments):
        if argument == "--":
            return local, rest + list(arguments[place:])
        option, _, folder = argument.partition("=")
        if option == "--local":
            local = folder
        else:
            rest.append(argument)
    return local, rest


def without_telling(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Return how much is to be told ("", "quiet", "verbose" or "debug"), and the other arguments.

    Where several options say it, the one that has most told counts.
    """
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    given = {_TELLING[argument] for argument in arguments[:end] if argument in _TELLING}
    rest = [argument for argument in arguments[:end] if argument not in _TELLING]
    return next((it for it in ("debug", "verbose", "quiet") if it in given), ""), rest + list(arguments[end:])

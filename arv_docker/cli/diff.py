# SPDX-License-Identifier: Apache-2.0
"""``arv-docker diff``: the files in which two images differ."""

from __future__ import annotations

import argparse
import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import cli
from ..errors import one_line
from ..local.progress import size_text
from . import image_files

if TYPE_CHECKING:
    from ..archive.file_changes import Change

_LETTERS = {"added": "A", "changed": "C", "removed": "D"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.epilog = (
        f"{image_files.SOURCES}\n"
        "Prints a line for each file: A that only the second image has, D that only the first has, C that differs,\n"
        "and in what. Contents are compared by their SHA-256. Images without a difference give no line and code 0,\n"
        "as others do.\n\n"
        "examples:\n"
        "  arv-docker diff --local app:1 app:2\n"
        "  arv-docker diff docker-archive:app.tar docker://registry.example/team/app:2\n"
    )
    image_files.add_image_argument(parser, "first", "IMAGE")
    image_files.add_image_argument(parser, "second", "IMAGE")
    parser.add_argument("--times", action="store_true", help="also files that differ in their time alone")
    image_files.add_options(parser)
    cli.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Print the differences, by path, and say at the end how many there are."""
    from ..archive.file_changes import changes
    from ..images.files import open_files

    shown = cli.progress_for(args)
    read: list[int] = []
    first, second = (image_files.source_of(args, text, shown) for text in (args.first, args.second))
    with (
        open_files(first, shown, cli.user_cache(args), whole=args.verify) as before,
        open_files(second, shown, cli.user_cache(args), whole=args.verify) as after,
        shown.step("comparing", None) as advance,
    ):

        def note(count: int) -> None:
            read.append(count)
            advance(count)

        found = changes(before, after, note, times=args.times, whole=args.verify)
    shown.say(_summary(found, sum(read)))
    if args.json:
        cli.print_json([dataclasses.asdict(change) | {"path": f"/{change.path}"} for change in found])
        return 0
    for change in found:
        what = f"  ({', '.join(change.what)})" if change.what else ""
        print(one_line(f"{_LETTERS[change.kind]} /{change.path}{what}"))
    return 0


def _summary(differences: Sequence[Change], read: int) -> str:
    """The number of differences of each kind, and of the bytes that were read."""
    kinds: Counter[str] = Counter(change.kind for change in differences)
    counts = ", ".join(f"{kinds[kind]} {kind}" for kind in _LETTERS if kinds[kind])
    return f"{counts or 'no difference'}; {size_text(read)} of contents compared"

# SPDX-License-Identifier: Apache-2.0
"""Verbs for one image or several, which are handled one by one, in the order of the arguments."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from .. import cli
from ..errors import ArvDockerError, one_line

if TYPE_CHECKING:
    from ..local.progress import Progress

#: What help pages say of several images.
SEVERAL = (
    "Several images are handled one by one, in this order; if one fails, the others are still handled, and the exit\n"
    "code is the highest. --json is then a list, each object with what was asked for, or its error."
)


def add_images_argument(parser: argparse.ArgumentParser, metavar: str, text: str) -> None:
    """Add the argument for one image or several; ``run_each`` gives each of them as ``args.name``."""
    parser.add_argument("names", nargs="+", metavar=metavar, help=text)


def run_each(args: argparse.Namespace, run: Callable[[argparse.Namespace], int]) -> int:
    """Call ``run`` for each image and return the highest exit code.

    The cluster is opened once. A failure that is the cluster's, and not an image's, ends it; how many were not tried is
    said then.
    """
    names: list[str] = args.names
    if len(names) == 1:
        args.name = names[0]
        return run(args)
    shown = cli.progress_for(args)
    documents: list[dict[str, object]] = []
    codes = []
    with ExitStack() as kept:
        shared: dict[str, object] = {"kept": kept, "documents": documents}
        for place, name in enumerate(names, 1):
            try:
                codes.append(run(argparse.Namespace(**vars(args), name=name, shared=shared)))
            except ArvDockerError as error:
                codes.append(error.exit_code)
                documents.append({"asked": name, "error": error.message, "exit_code": error.exit_code})
                tell_failure(name, error, shown)
                if cli.is_of_the_cluster(error) and place < len(names):
                    shown.fail(f"{len(names) - place} of {len(names)} images were not tried: the cluster fails")
                    break
    if args.json:
        cli.print_json(documents)
    return max(codes)


def tell_failure(name: str, error: ArvDockerError, shown: Progress) -> None:
    """Tell that one of several images failed, the words of others in lines below."""
    shown.fail(one_line(f"{name}: {error.message}"))
    for line in error.detail.splitlines():
        shown.fail(one_line(f"  {line}"))


def print_document(args: argparse.Namespace, document: object) -> None:
    """Print an image's JSON; of several images keep each one, with its name, until the last."""
    shared = getattr(args, "shared", None)
    if shared is None:
        cli.print_json(document)
        return
    values = document if isinstance(document, dict) else {"files": document}
    shared["documents"].append({"asked": args.name, **values})

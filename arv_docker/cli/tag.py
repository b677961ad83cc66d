# SPDX-License-Identifier: Apache-2.0
"""``arv-docker tag``: gives a name to an image in Keep, taking it from another one if need be."""

from __future__ import annotations

import argparse

from . import link


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.epilog = (
        "The cluster prefers the newest build of a name, so the links that would win against this one are\n"
        "deleted, as far as you may. Ends with exit code 8 if one stays.\n\n"
        "example:\n  arv-docker tag app:1.0 app:stable"
    )
    parser.add_argument("image", metavar="NAME|UUID|PDH", help="the image: its name or ID, or a collection")
    link.add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Moves the name and prints the collection's UUID."""
    from ..images import tags

    return link.name(args, args.image, tags.move)

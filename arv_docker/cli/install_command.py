# SPDX-License-Identifier: Apache-2.0
"""``arv-docker install-command``: arv-keepdocker of this package in place of the SDK's."""

from __future__ import annotations

import argparse

from .. import cli
from ..local import installation


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.epilog = (
        "An upgrade of the SDK puts its own command back; run this again then. What --module does survives it.\n\n"
        "examples:\n"
        "  arv-docker install-command\n"
        "  arv-docker install-command --module --prefix /opt/arvados\n"
        "  arv-docker install-command --undo"
    )
    parser.add_argument(
        "--prefix", type=cli.as_folder, metavar="FOLDER", help="the Python environment (the one that runs this)"
    )
    parser.add_argument(
        "--module",
        action="store_true",
        help="also make import arvados.commands.keepdocker yield this package's, in every program of the environment",
    )
    parser.add_argument("--undo", action="store_true", help="put back what was there before")


def run(args: argparse.Namespace) -> int:
    """Install the command, or put back what was there before, and print what was done."""
    environment = installation.Environment.at(args.prefix)
    done = installation.undo(environment) if args.undo else installation.install(environment, module=args.module)
    print("\n".join(done) or "nothing to do")
    return 0

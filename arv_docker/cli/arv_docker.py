# SPDX-License-Identifier: Apache-2.0
"""The command ``arv-docker VERB …``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from .. import __version__
from . import EXIT_CODES, finished, without_local

VERBS = (
    "ingest",
    "images",
    "resolve",
    "inspect",
    "load",
    "verify",
    "link",
    "tag",
    "untag",
    "status",
    "folder",
    "doctor",
    "install-command",
    "site",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit code; ``arguments`` are those of the process unless given."""
    local, rest = without_local(sys.argv[1:] if arguments is None else arguments)
    args = _parser().parse_args(rest)
    args.local = local
    return finished(lambda: int(args.run(args)), "arv-docker")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="arv-docker",
        description="Container images in Arvados Keep: put in, found, checked, and got out again.",
        epilog=f"example:\n  arv-docker ingest --local busybox:latest\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name in VERBS:
        verb = importlib.import_module(f".{name.replace('-', '_')}", __package__)
        child = verbs.add_parser(
            name,
            help=verb.HELP,
            description=verb.HELP,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        child.set_defaults(run=verb.run)
        verb.configure(child)
    return parser


if __name__ == "__main__":
    sys.exit(main())

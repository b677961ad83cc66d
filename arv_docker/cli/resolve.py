# SPDX-License-Identifier: Apache-2.0
"""``arv-docker resolve``: which collection a name means."""

from __future__ import annotations

import argparse

from .. import cli, progress

HELP = "say which collection an image's name means to the cluster"


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.epilog = (
        "Prints the portable data hash alone, by the rule that the cluster itself follows for containers.\n\n"
        "example:\n  arv-docker resolve --local busybox:latest"
    )
    parser.add_argument("name", metavar="NAME", help="name, image ID, or the beginning of one")
    cli.add_cluster_options(parser)
    cli.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Resolves the name; warnings go to standard error."""
    from ..keep import catalogue

    with cli.cluster(args) as cluster:
        found = catalogue.resolve(cluster, args.name)
    shown = progress.on()
    for warning in found.warnings:
        shown.say(f"warning: {warning}")
    if args.json:
        link = found.link
        cli.print_json(
            {
                "pdh": found.collection.pdh,
                "uuid": found.collection.uuid,
                "link_uuid": link.uuid if link else None,
                "linked_by": link.modified_by if link else None,
                "warnings": found.warnings,
            }
        )
    else:
        print(found.collection.pdh)
    return 0

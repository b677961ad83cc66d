# SPDX-License-Identifier: Apache-2.0
"""``arv-docker status``: whether the cluster takes a name for what this user stored under it."""

from __future__ import annotations

import argparse

from .. import cli, progress
from ..reference import Reference


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.epilog = (
        "Prints ready, shadowed (the name means another image, exit code 8) or foreign (you stored none of\n"
        "that name, somebody else did), and the collection that the name means. Exit code 1 if there is none.\n\n"
        "example:\n  arv-docker status app:latest"
    )
    parser.add_argument("name", metavar="NAME[:TAG]", help="the name to ask for")
    cli.add_trust_option(parser)
    cli.add_cluster_options(parser)
    cli.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the state of the name."""
    from .. import naming

    shown = progress.on()
    with cli.cluster(args) as cluster:
        trust = cli.trust(args, cluster, shown)
        found = naming.status(cluster, Reference.parse(args.name), trust)
    for warning in found.warnings:
        shown.say(f"warning: {warning}")
    if args.json:
        cli.print_json(
            {
                "state": found.state,
                "name": found.name,
                "uuid": found.uuid,
                "pdh": found.pdh,
                "link_uuid": found.link.uuid,
                "linked_by": found.link.modified_by,
                "stored": found.stored,
                "warnings": found.warnings,
            }
        )
    else:
        print(f"{found.state}  {found.name}  {found.uuid}  {found.pdh}  linked by {found.link.modified_by}")
    return cli.SHADOWED if found.state == "shadowed" else 0

# SPDX-License-Identifier: Apache-2.0
"""``arv-docker untag``: takes a name from the images in Keep."""

from __future__ import annotations

import argparse

from .. import cli
from ..errors import one_line
from ..model.reference import Reference
from . import several


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.epilog = (
        "Links of other users, as far as you may delete them, are named and you are asked; with no terminal to ask\n"
        "at, --yes says so. Ends with exit code 8 if that is refused, or if links of others stay, so that the name\n"
        "still means something.\n\n"
        f"{several.SEVERAL}\n\n"
        "example:\n  arv-docker untag app:broken"
    )
    several.add_images_argument(parser, "NAME[:TAG]", "the name to remove")
    cli.add_deletion_options(parser)
    cli.add_cluster_options(parser)
    cli.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Take away the names, each by itself."""
    return several.run_each(args, _untag)


def _untag(args: argparse.Namespace) -> int:
    """Delete the links and print what each pointed to."""
    from ..images import tags

    name = Reference.parse(args.name)
    with cli.cluster(args) as cluster:
        links = tags.named_links(cluster, name)
        confirmed = cli.confirm_deletion(args, cluster, links, cli.progress_for(args))
        gone, stayed = ([], []) if args.dry_run and links else tags.remove(cluster, name, confirmed=confirmed)
    for link in stayed:
        cli.progress_for(args).warn(f"{link.uuid} to {link.head_uuid} stays: {link.modified_by} wrote it")
    if args.json:
        several.print_document(
            args, {"deleted": [link.uuid for link in gone], "stayed": [link.uuid for link in stayed]}
        )
    else:
        for link in gone:
            print(one_line(link.head_uuid))
    return cli.SHADOWED if stayed else 0

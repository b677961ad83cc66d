# SPDX-License-Identifier: Apache-2.0
"""``arv-docker tag``: gives a name to an image in Keep, taking it from another one if need be."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .. import cli
from . import link

if TYPE_CHECKING:
    from ..arvados.client import Cluster, CollectionRecord
    from ..arvados.trust import Trust
    from ..local.progress import Progress
    from ..model.reference import Reference


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.epilog = (
        "The cluster prefers the newest build of a name, so the links that would win against this one are\n"
        "deleted, as far as you may. Where some are other users', they are named and you are asked; with no terminal\n"
        "to ask at, --yes says so. Ends with exit code 8 if that is refused, or if one stays.\n\n"
        "example:\n  arv-docker tag app:1.0 app:stable"
    )
    parser.add_argument("image", metavar="NAME|UUID|PDH", help="the image: its name or ID, or a collection")
    cli.add_deletion_options(parser)
    link.add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Move the name and print the collection's UUID."""
    from ..images import tags

    def move(
        cluster: Cluster, collection: CollectionRecord, name: Reference, trust: Trust, shown: Progress
    ) -> tags.TagResult:
        links = tags.links_in_the_way(cluster, collection, name)
        confirmed = cli.confirm_deletion(args, cluster, links, shown)
        if args.dry_run:
            return tags.TagResult(collection.uuid, collection.pdh, name.link_name, 0, 0, None)
        return tags.move(cluster, collection, name, trust, shown, confirmed=confirmed)

    return link.name(args, args.image, move)

# SPDX-License-Identifier: Apache-2.0
"""``arv-docker link``: makes a collection that holds an image known by a name."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .. import cli
from ..model.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..images.tags import TagResult


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.epilog = (
        "The collection must hold one image and nothing else; its layers are read and hashed first,\n"
        "unless a link of a trusted user says that this was done.\n\n"
        "example:\n  arv-docker link zzzzz-4zz18-0123456789abcde busybox:latest"
    )
    parser.add_argument("collection", metavar="UUID|PDH", help="the collection that holds the image")
    add_options(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options that ``link`` and ``tag`` share."""
    parser.add_argument("name", metavar="NAME[:TAG]", help="the name to give it")
    cli.add_trust_option(parser)
    cli.add_cluster_options(parser)
    cli.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Write the links that are missing and print the collection's UUID."""
    from ..images import tags

    return name(args, args.collection, tags.link)


def name(args: argparse.Namespace, image: str, give: Callable[..., TagResult]) -> int:
    """Give an image in Keep the name, by ``tags.link`` or ``tags.move``, and print the collection's UUID.

    The exit code says whether the cluster takes the name for this image.
    """
    from ..arvados.catalog import resolver

    shown = cli.progress_for(args)
    with cli.cluster(args) as cluster:
        trust = cli.trust(args, cluster, shown)
        resolved = resolver.resolve(cluster, image, trust)
        resolver.check_trusted(image, resolved)
        collection = resolver.collection_with_uuid(cluster, resolved.collection)
        named = give(cluster, collection, Reference.parse(args.name), trust, shown)
    shown.say(f"{named.name}: {named.written} links written, {named.deleted} deleted")
    if named.shadowed_by is not None:
        shown.warn(
            f"to the cluster {named.name} still means {named.shadowed_by.head_uuid}, by the link "
            f"{named.shadowed_by.uuid} of {named.shadowed_by.modified_by}: its image was built later. "
            "arv-docker tag moves a name, as far as you may delete such links."
        )
    if args.json:
        cli.print_json(
            {
                "uuid": named.uuid,
                "pdh": named.pdh,
                "name": named.name,
                "links_written": named.written,
                "links_deleted": named.deleted,
                "shadowed_by": named.shadowed_by.uuid if named.shadowed_by else None,
            }
        )
    else:
        print(named.uuid)
    return cli.SHADOWED if named.shadowed_by else 0

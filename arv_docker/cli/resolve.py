# SPDX-License-Identifier: Apache-2.0
"""``arv-docker resolve``: the collection that a name means."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .. import cli
from ..errors import one_line
from . import several, tables

if TYPE_CHECKING:
    from ..arvados.catalog.resolver import Resolution
    from ..arvados.client import Link
    from ..arvados.trust import Trust


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.epilog = (
        "Prints the portable data hash alone, by the rule that the cluster itself follows for containers.\n\n"
        "With --platform, of several images by one name the first that is for it, in the order of that rule.\n\n"
        f"{several.SEVERAL}\n\n"
        "examples:\n"
        "  arv-docker resolve --local busybox:latest\n"
        "  arv-docker resolve --platform linux/arm64 debian:12"
    )
    several.add_images_argument(
        parser,
        "NAME",
        "name, name@digest, image ID or its beginning, or a digest by which an engine or a registry calls it",
    )
    cli.add_platform_option(parser, "where the name stands for several")
    parser.add_argument("--explain", action="store_true", help="show on standard error which links were compared")
    cli.add_trust_option(parser)
    cli.add_cluster_options(parser)
    cli.add_wide_option(parser)
    cli.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Resolve the names, each by itself."""
    return several.run_each(args, _resolve)


def _resolve(args: argparse.Namespace) -> int:
    """Resolve the name; warnings go to standard error."""
    from ..arvados.catalog import platforms, resolver

    shown = cli.progress_for(args)
    with cli.cluster(args) as cluster:
        with cli.asking(args, f"for {args.name}"):
            trust = cli.trust(args, cluster, shown)
            found = resolver.resolve(cluster, args.name, trust)
        if args.platform:
            found = platforms.choose_platform(cluster, found, args.platform, shown)
    for warning in found.warnings:
        shown.warn(warning)
    for warning in resolver.container_warnings(args.name, found):
        shown.warn(warning)
    if args.explain:
        for line in tables.fill_lines(_explanation(found, trust), tables.width_for(args, sys.stderr)):
            for part in line.splitlines():
                shown.say(part)
    if args.json:
        link = found.link
        several.print_document(
            args,
            {
                "pdh": found.collection.pdh,
                "uuid": found.collection.uuid,
                "link_uuid": link.uuid if link else None,
                "linked_by": link.modified_by if link else None,
                "trusted": found.untrusted_writer is None,
                "warnings": [*found.warnings, *resolver.container_warnings(args.name, found)],
                "ranked": [_candidate(it, trust) for it in found.ranked],
                "false_links": [_candidate(it, trust) for it in found.false_links],
            },
        )
    else:
        print(found.collection.pdh)
    return 0


def _explanation(resolution: Resolution, trust: Trust) -> Iterator[str]:
    """The links in the cluster's order: newest image_timestamp, then newest link; the first usable one decides."""
    from ..arvados.catalog.proof import describe_false_link

    for number, link in enumerate(resolution.ranked, 1):
        candidate = _candidate(link, trust)
        what = (
            "decides"
            if link == resolution.link
            else "not usable"
            if resolution.link in resolution.ranked[number:]
            else "outranked"
        )
        times = f"built {candidate['image_timestamp'] or 'at an unknown time'}, linked {link.created_at}"
        who = f"by {link.modified_by}{'' if candidate['trusted'] else ' (not trusted)'}"
        yield one_line(f"{number}. {link.head_uuid}  {times} {who}: {what}")
    for link in resolution.false_links:
        yield one_line(f"left out: {describe_false_link(link)}")
    if not resolution.ranked:
        yield f"{resolution.collection.uuid} was asked for itself; no link was compared"


def _candidate(link: Link, trust: Trust) -> dict[str, object]:
    return {
        "uuid": link.head_uuid,
        "link_uuid": link.uuid,
        "image_timestamp": link.properties.get("image_timestamp"),
        "created_at": link.created_at,
        "linked_by": link.modified_by,
        "trusted": trust.includes(link.modified_by),
    }

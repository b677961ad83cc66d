# SPDX-License-Identifier: Apache-2.0
"""``arv-docker images``: the images that a cluster has, the preferred first."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import cli
from ..errors import one_line

if TYPE_CHECKING:
    from ..arvados.catalog.listing import ListingRow
    from ..arvados.trust import Trust

_COLUMNS = ("REPOSITORY", "TAG", "IMAGE ID", "COLLECTION", "CREATED")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.epilog = "example:\n  arv-docker images --local busybox"
    parser.add_argument("name", nargs="?", metavar="NAME", help="only this repository, repository:tag or image ID")
    parser.add_argument("--project-uuid", metavar="UUID", help="only what this project owns")
    cli.add_trust_option(parser)
    cli.add_cluster_options(parser)
    cli.add_wide_option(parser)
    cli.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Print the listing; an empty one is a table without lines, but of a project that is not there an error."""
    from ..arvados.catalog.listing import list_images
    from ..arvados.catalog.proof import describe_false_link
    from ..arvados.catalog.resolver import listing_warnings

    shown = cli.progress_for(args)
    with cli.cluster(args) as cluster, cli.asking(args, "for the images"):
        trust = cli.trust(args, cluster, shown)
        found = list_images(cluster, trust, args.name, args.project_uuid)
        if args.project_uuid and not found.rows:
            cluster.check_readable(args.project_uuid)
    for link in found.false_links:
        shown.warn(describe_false_link(link))
    if args.name and found.rows:
        for warning in listing_warnings(args.name, {row.repository for row in found.rows}):
            shown.warn(warning)
    if args.json:
        cli.print_json([_as_json(row, trust) for row in found.rows])
        return 0
    if args.wide or not sys.stdout.isatty():
        print(table(found.rows, linked_by=True))
    else:
        print(narrow_table(found.rows, shutil.get_terminal_size().columns))
    for writer in sorted({row.link.modified_by for row in found.rows if not trust.includes(row.link.modified_by)}):
        shown.warn(f"links of {writer}, who is not trusted, are among these")
    return 0


def table(rows: Sequence[ListingRow], *, linked_by: bool = False) -> str:
    """The listing as text, in the columns of ``arv-keepdocker images``, and who wrote each link if asked for."""
    lines = [(*_COLUMNS, "LINKED BY"), *(tuple(map(one_line, (*_cells(row), row.link.modified_by))) for row in rows)]
    if not linked_by:
        lines = [line[:-1] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def narrow_table(rows: Sequence[ListingRow], width: int) -> str:
    """The listing in lines of at most ``width`` characters: dates, and the ends of names that are too long."""
    lines = [_COLUMNS, *(tuple(map(one_line, (*_cells(row)[:-1], f"{row.timestamp:%Y-%m-%d}"))) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    room = max(20, width - 2 * (len(widths) - 1) - sum(widths[2:]))  # for the name, half of it for a long tag
    widths[0] = min(widths[0], room - min(widths[1], room // 2))
    widths[1] = min(widths[1], room - widths[0])
    shortened = ((_end_of(line[0], widths[0]), _end_of(line[1], widths[1]), *line[2:]) for line in lines)
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in shortened)


def _end_of(text: str, width: int) -> str:
    return text if len(text) <= width else f"…{text[len(text) - width + 1 :]}"


def _cells(row: ListingRow) -> tuple[str, ...]:
    short = row.image_id.removeprefix("sha256:")[:12]
    return row.repository, row.tag, short, row.collection.uuid, f"{row.timestamp:%c}"


def _as_json(row: ListingRow, trust: Trust) -> dict[str, object]:
    return {
        "repository": row.repository,
        "tag": row.tag,
        "image_id": row.image_id,
        "uuid": row.collection.uuid,
        "pdh": row.collection.pdh,
        "timestamp": row.timestamp.isoformat(),
        "link_uuid": row.link.uuid,
        "linked_by": row.link.modified_by,
        "trusted": trust.attests(row.link, row.collection),
    }

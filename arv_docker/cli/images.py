# SPDX-License-Identifier: Apache-2.0
"""``arv-docker images``: the images that a cluster has, the preferred first."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import cli
from ..local.progress import size_text
from . import tables

if TYPE_CHECKING:
    from ..arvados.catalog.listing import ListingRow
    from ..arvados.trust import Trust

_COLUMNS = ("REPOSITORY", "TAG", "IMAGE ID", "COLLECTION", "CREATED")
#: The end of the system user's UUID, on every cluster.
_SYSTEM = "-tpzed-000000000000000"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.epilog = (
        "A terminal shows dates, sizes, the ends of names and writers that are too long, and the collections if there\n"
        "is room. By these image IDs inspect, load and the others find the images, too.\n\n"
        "example:\n  arv-docker images --local busybox"
    )
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
        user = cluster.user_if_known
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
    width = tables.width_for(args)
    print(table(found.rows, whole=True) if width is None else narrow_table(found.rows, width, user))
    for writer in sorted({row.link.modified_by for row in found.rows if not trust.includes(row.link.modified_by)}):
        shown.warn(f"links of {writer}, who is not trusted, are among these")
    return 0


def table(rows: Sequence[ListingRow], *, whole: bool = False) -> str:
    """The listing as text, in the columns of ``arv-keepdocker images``; if ``whole``, also sizes and writers."""
    lines = [_COLUMNS, *map(_cells, rows)]
    if whole:
        more = [("SIZE", "LINKED BY"), *((_size(row), row.link.modified_by) for row in rows)]
        lines = [(*line, *two) for line, two in zip(lines, more, strict=True)]
    return "\n".join(tables.lines_of(lines))


def narrow_table(rows: Sequence[ListingRow], width: int, user: str | None) -> str:
    """The listing in lines of at most ``width`` characters: dates, the ends of names that are too long, and short
    writers. Where names would be shortened, there is no column of collections: the image ID serves for their UUIDs."""
    lines: list[tuple[str, ...]] = [(*_COLUMNS, "SIZE", "BY")]
    for row in rows:
        repository, tag, image_id, collection, _ = _cells(row)
        made = f"{row.timestamp:%Y-%m-%d}"
        lines.append((repository, tag, image_id, collection, made, _size(row), _short_writer(row, user)))
    if tables.natural_width(lines) > width:
        lines = [line[:3] + line[4:] for line in lines]
    return "\n".join(tables.lines_of(lines, width, [0, 1]))


def _size(row: ListingRow) -> str:
    return "" if row.collection.size is None else size_text(row.collection.size)


def _short_writer(row: ListingRow, user: str | None) -> str:
    """The writer of a link in a few letters: ``me``, ``system``, or the end of a UUID."""
    writer = row.link.modified_by
    if writer == user:
        return "me"
    return "system" if writer.endswith(_SYSTEM) else f"…{writer[-5:]}"


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

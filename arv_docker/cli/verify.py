# SPDX-License-Identifier: Apache-2.0
"""``arv-docker verify``: whether Keep really has an image."""

from __future__ import annotations

import argparse
import dataclasses

from .. import cli, progress


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.epilog = (
        "Ends with exit code 5 for content that is not the image's, 4 for blocks that are lost or damaged.\n\n"
        "example:\n  arv-docker verify --local busybox:latest"
    )
    parser.add_argument("name", metavar="NAME|UUID|PDH", help="an image's name or ID, or a collection's UUID or PDH")
    parser.add_argument("--quick", action="store_true", help="only structure, and that every block is there")
    cli.add_cluster_options(parser)
    cli.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Verifies the image and prints what was found."""
    from .. import verify
    from ..keep import catalogue

    with cli.cluster(args) as cluster:
        collection = catalogue.resolve(cluster, args.name).collection
        report = verify.verify(cluster, collection, quick=args.quick, progress=progress.on())
    if args.json:
        digests = ("image_id", "config_digest", "manifest_digest")
        cli.print_json(dataclasses.asdict(report) | {key: str(getattr(report, key)) for key in digests})
        return 0
    how = "structure and blocks" if report.quick else f"{progress.size(report.bytes_read)} of layers"
    layout = "canonical archive" if report.canonical else "archive of another layout"
    print(f"verified {report.pdh}: {how}, {report.layers} layers, {report.blocks} blocks, {layout}")
    return 0

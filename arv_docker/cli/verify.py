# SPDX-License-Identifier: Apache-2.0
"""``arv-docker verify``: check an image in Keep, or a staged folder, byte by byte."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import cli
from ..errors import NoSuchImage, NotVerified, UsageError, one_line
from ..local import progress
from . import several

if TYPE_CHECKING:
    from ..staging.staged import Copy


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.epilog = (
        "Ends with exit code 5 for content that is not the image's, 4 for blocks that are lost or damaged.\n"
        "A folder is meant where staged images are in it; to verify an image in Keep that is called like such a\n"
        "folder, write its tag too.\n\n"
        f"{several.SEVERAL}\n\n"
        "examples:\n  arv-docker verify --local busybox:latest\n  arv-docker verify containers"
    )
    several.add_images_argument(
        parser,
        "NAME|UUID|PDH|FOLDER",
        "an image's name or ID, a collection's UUID or PDH, or a staged folder",
    )
    parser.add_argument(
        "--quick", action="store_true", help="check less: in Keep only the structure, and that every block is present"
    )
    cli.add_cluster_options(parser)
    cli.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Verify the images and folders, each by itself."""
    return several.run_each(args, _verify)


def _verify(args: argparse.Namespace) -> int:
    """Verify the image or the folder and print what was found."""
    folder = Path(args.name)
    if folder.is_dir():
        from .stage import present

        if copies := present(folder):
            return _verify_folder(args, copies)
        if "/" in args.name or args.name.startswith("."):
            raise NoSuchImage(f"{folder} holds no staged image.")
    return _verify_stored(args)


def _verify_folder(args: argparse.Namespace, copies: Sequence[Copy]) -> int:
    from ..staging import staged

    if args.quick:
        raise UsageError("--quick is for images in Keep; the images of a folder are read.")
    checked = list(staged.verify(copies, cli.progress_for(args)))
    if args.json:
        several.print_document(args, [dataclasses.asdict(it) | {"image_id": it.image_id} for it in checked])
    else:
        for it in checked:
            image_id = it.image_id.short_hex if it.image_id else "-" * 12
            state = "BAD" if it.problem else "ok " if it.sealed else "unsealed"
            print(one_line(f"{state}  {image_id}  {it.path}"))
    if bad := [it.problem for it in checked if it.problem]:
        raise NotVerified(f"{len(bad)} of {len(checked)} files in {args.name} are bad:", detail="\n".join(bad))
    return 0


def _verify_stored(args: argparse.Namespace) -> int:
    from ..arvados.catalog import resolver
    from ..arvados.trust import Trust
    from ..images import verify

    shown = cli.progress_for(args)
    with cli.cluster(args) as cluster:
        resolved = resolver.resolve(cluster, args.name, Trust.from_settings(cluster, cli.settings(args)))
        for warning in resolved.warnings:
            shown.warn(warning)
        report = verify.verify(cluster, resolved.collection, quick=args.quick, progress=shown)
    if args.json:
        digests = ("image_id", "config_digest", "manifest_digest")
        several.print_document(args, dataclasses.asdict(report) | {key: str(getattr(report, key)) for key in digests})
        return 0
    how = "structure and blocks" if report.quick else f"{progress.size_text(report.bytes_read)} of layers"
    layout = "canonical archive" if report.canonical else "archive of another layout"
    print(f"verified {report.pdh}: {how}, {report.layers} layers, {report.blocks} blocks, {layout}")
    return 0

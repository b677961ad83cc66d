# SPDX-License-Identifier: Apache-2.0
"""``arv-docker load``: an image out of Keep into an engine."""

from __future__ import annotations

import argparse
import dataclasses

from .. import cli
from ..local import progress
from ..model.reference import ImageId, Reference, parse_name
from . import several


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.epilog = (
        "Prints the image's ID in the engine. What fails its verification is not loaded. Layers that the engine\n"
        "has already are not read from Keep.\n\n"
        f"{several.SEVERAL}\n\n"
        "example:\n  arv-docker load --local busybox:latest"
    )
    several.add_images_argument(parser, "NAME|UUID|PDH", "an image's name or ID, or a collection's UUID or PDH")
    cli.add_engine_option(parser)
    cli.add_cluster_options(parser)
    cli.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Load the images, each by itself."""
    return several.run_each(args, _load)


def _load(args: argparse.Namespace) -> int:
    """Load the image; asked for by a name, it gets that name in the engine too."""
    from ..arvados.catalog import resolver
    from ..arvados.catalog.link_classes import REPO_TAG
    from ..arvados.trust import Trust
    from ..images import load

    shown = cli.progress_for(args)
    engine = cli.engine(args)
    with cli.cluster(args) as cluster:
        resolved = resolver.resolve(cluster, args.name, Trust.from_settings(cluster, cli.settings(args)))
        for warning in resolved.warnings:
            shown.warn(warning)
        name = _name(args.name) if resolved.link and resolved.link.link_class == REPO_TAG else None
        result = load.load(cluster, resolved.collection, engine, name, shown, cache=cli.user_cache(args))
    what = "already there" if result.already else "loaded"
    tagged = f", tagged {result.name}" if result.name else ""
    spared = f", {engine.name} had {progress.size_text(result.bytes_spared)}" if result.bytes_spared else ""
    shown.say(f"{args.name}: {what}{tagged}, {progress.size_text(result.bytes_read)} read from Keep{spared}")
    if args.json:
        digests = {"image_id": str(result.image_id), "engine_id": str(result.engine_id)}
        several.print_document(args, dataclasses.asdict(result) | digests)
    else:
        print(result.engine_id)
    return 0


def _name(text: str) -> Reference | None:
    name = parse_name(text)
    return None if isinstance(name, ImageId) else name

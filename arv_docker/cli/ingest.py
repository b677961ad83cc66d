# SPDX-License-Identifier: Apache-2.0
"""``arv-docker ingest``: an image from an engine or an archive into Keep."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from .. import cli, progress
from ..engine import Engine
from ..errors import EngineNotRunning, EnginePermissionDenied, NoEngine, NoSuchImage, UsageError
from ..reference import ImageId, Reference, parse_name

if TYPE_CHECKING:
    from ..ingest import Ingest, Ingested


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.epilog = (
        "Prints the UUID of the image's collection. An image that is there already is not stored again.\n\n"
        "examples:\n"
        "  arv-docker ingest busybox:latest\n"
        "  arv-docker ingest --local --from-archive busybox.tar busybox:latest\n"
    )
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="name or ID; with --from-archive the name to give it")
    add_options(parser)
    cli.add_engine_option(parser)
    cli.add_cluster_options(parser)
    cli.add_json_option(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that ``arv-keepdocker`` shares with this verb."""
    parser.add_argument("-f", "--force", action="store_true", help="store the image again, even if it is there")
    parser.add_argument("--project-uuid", metavar="UUID", help="the project to own the collection and its links")
    parser.add_argument("--name", help="the collection's name, instead of one made from the image's")
    parser.add_argument(
        "--from-archive",
        metavar="FILE",
        type=Path,
        help="read the image from a file that docker save, podman save or skopeo wrote; needs no engine",
    )
    parser.add_argument(
        "--image-id",
        choices=("config", "manifest"),
        help="what names the file in Keep: config (the default unless the settings say otherwise), or manifest for "
        "clusters whose nodes have Docker with the containerd store",
    )
    cli.add_trust_option(parser)
    parser.add_argument("--pull", action=argparse.BooleanOptionalAction, help="fetch the image from its registry first")
    parser.add_argument(
        "--cache",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep the saved tarball until the image is in Keep, so that a second try needs no second save (default)",
    )
    parser.add_argument("--keep-tarball", action="store_true", help="leave the saved tarball in the cache afterwards")
    parser.add_argument(
        "--image-properties",
        action="store_true",
        help="note ID and time of the image as properties docker-image-hash and docker-image-timestamp of a new "
        "collection; a cluster with a strict vocabulary may refuse them",
    )
    parser.add_argument(
        "--force-image-format",
        action="store_true",
        help="store the image even if the cluster does not say that it accepts version 2 images",
    )


def run(args: argparse.Namespace) -> int:
    """Ingests the image and prints the UUID of its collection."""
    if args.image is None and args.from_archive is None:
        raise UsageError("which image? Give its name or ID, or --from-archive FILE.")
    result = ingested(args, parse_name(args.image) if args.image else None, progress.on())
    if args.json:
        cli.print_json(dataclasses.asdict(result) | {"image_id": str(result.image_id)})
    else:
        print(result.uuid)
    return 0


def ingested(args: argparse.Namespace, name: Reference | ImageId | None, shown: progress.Progress) -> Ingested:
    """Does what the options ask for; a line on what happened goes to ``shown``."""
    from ..ingest import Ingest, Options
    from ..settings import settings

    options = Options(
        project=args.project_uuid,
        name=args.name,
        force=args.force,
        by_manifest=(args.image_id or settings().image_id) == "manifest",
        use_cache=args.cache,
        keep_tarball=args.keep_tarball,
        force_image_format=args.force_image_format,
        describe=args.image_properties,
    )
    with cli.cluster(args) as cluster:
        ingest = Ingest(cluster, options, shown, cli.trust(args, cluster, shown))
        if args.from_archive is not None:
            result = ingest.from_archive(args.from_archive, name)
        else:
            assert name is not None
            result = _from_engine_or_keep(args, ingest, name, shown)
    state = "already stored" if result.already else "stored"
    spared = f", {progress.size(result.bytes_spared)} were in Keep" if result.bytes_spared else ""
    shown.say(f"{result.name or result.image_id}: {state}, {progress.size(result.bytes_sent)} sent{spared}")
    return result


def _from_engine_or_keep(
    args: argparse.Namespace, ingest: Ingest, name: Reference | ImageId, shown: progress.Progress
) -> Ingested:
    """The image from the engine; where it has none, or there is no engine, one that Keep has already."""
    try:
        engine = cli.engine(args)
        if args.pull:
            _pull(engine, name, shown)
        image = engine.inspect(name)
    except (NoSuchImage, NoEngine, EngineNotRunning, EnginePermissionDenied) as error:
        # No other failure: one of an engine that has the image must not end in an older build of the name.
        if args.force or args.pull or (found := ingest.from_keep(name)) is None:
            raise
        shown.say(f"{error.message} Keep has it.")
        return found
    return ingest.from_engine(engine, name, image)


def _pull(engine: Engine, name: Reference | ImageId, shown: progress.Progress) -> None:
    if not isinstance(name, Reference):
        raise UsageError("--pull needs a name; an image ID says of no registry where the image is.")
    engine.pull(name, shown.say)

# SPDX-License-Identifier: Apache-2.0
"""``arv-docker stage``: images into a folder that a workflow carries along."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from .. import cli
from ..errors import ClusterError, UsageError, one_line
from ..local import progress

if TYPE_CHECKING:
    from ..staging import Container
    from ..staging.origins import Origin
    from ..staging.staged import Copy, Folder

LAYOUTS = ("plain", "wfexs")
FORMATS = ("archive", "sif")
ORIGINS = ("keep", "engine", "registry")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.epilog = (
        "Prints where each image is. An image is looked for in Keep, in the engine and in its registry, in that order\n"
        "(without a cluster in the last two); what the cache has of it is not read again. What is staged already\n"
        "stays as it is. If an image cannot be had anywhere, nothing is staged, and the error names them all.\n\n"
        "examples:\n"
        "  arv-docker stage quay.io/tools/bwa:0.7 busybox:latest --dir containers\n"
        "  arv-docker stage --offline busybox:latest --dir again\n"
        "  arv-docker stage --platform linux/arm64 debian:12 --dir for-arm64\n"
        "  arv-docker stage --layout wfexs --naming cwl quay.io/tools/bwa:0.7 \\\n    --dir wfexs-cache\n"
        "  arv-docker stage --format sif --naming nextflow quay.io/tools/bwa:0.7 \\\n    --dir singularity\n"
    )
    parser.add_argument("name", nargs="+", metavar="NAME", help="the name or whole ID of an image")
    parser.add_argument("--dir", type=cli.as_folder, metavar="FOLDER", help="the folder; made if it is not there")
    parser.add_argument(
        "--sif-cache",
        action="store_true",
        help="convert the images in Keep and put them where the cluster's nodes with Singularity look for what they "
        "converted before, for jobs of this user; prints the collections",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default=FORMATS[0],
        help="archive: as engines load them; sif: as Apptainer and Singularity run them, built by the one on PATH",
    )
    parser.add_argument(
        "--offline",
        action="store_true",
        help="ask no cluster, no engine and no network: what the cache has, or nothing",
    )
    parser.add_argument(
        "-f",
        "--force",
        action="store_true",
        help="fetch the images again and replace what is there; not with --offline",
    )
    parser.add_argument(
        "--naming",
        metavar="SCHEME",
        help="what the files are called: plain (the default), cwl, nextflow, folder, or a template with {registry}, "
        "{repository}, {tag}, {id}, {short_id}",
    )
    parser.add_argument(
        "--layout",
        choices=LAYOUTS,
        default=LAYOUTS[0],
        help="plain: files with their metadata beside them; wfexs: a cache folder of WfExS, for the workflow engine of "
        "--naming cwl or nextflow, or both",
    )
    parser.add_argument(
        "--from", dest="origin", choices=ORIGINS, help="look only there; an engine then pulls the image"
    )
    parser.add_argument(
        "--inject",
        action="append",
        default=[],
        type=cli.as_folder,
        metavar="FOLDER",
        help="take images of these names from the staged FOLDER, wherever else they are",
    )
    cli.add_platform_option(parser, "of a name that stands for several; a folder has one image of a name")
    cli.add_insecure_option(parser)
    cli.add_login_options(parser)
    cli.add_engine_option(parser)
    cli.add_cluster_options(parser)
    cli.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Stage the images and print their paths."""
    from ..staging import stage_images
    from ..staging.deployment import verify_containers

    shown = cli.progress_for(args)
    if args.sif_cache:
        from . import sif

        if args.dir or args.offline or args.origin or args.inject or args.naming:
            raise UsageError("--sif-cache is about images in Keep; of the other options --force and --platform fit.")
        return sif.run(args)
    if args.dir is None:
        raise UsageError("--dir FOLDER says where the images are put.")
    _check_names(args.name)
    folder = _folder(args, shown)
    injected = [it for path in args.inject for it in verify_containers(present(path), path, shown)]
    if args.offline and args.force:
        shown.say("offline, so nothing is overwritten")
    with ExitStack() as stack:
        origins = _origins(args, stack, shown)
        try:
            staged = stage_images(
                args.name,
                folder,
                origins,
                cli.cache_folder(args),
                offline=args.offline,
                force=args.force,
                injected=injected,
                platform=args.platform,
                progress=shown,
            )
        except ClusterError:
            shown.say("without the cluster: --from engine, --from registry, or --offline for what the cache has")
            raise
    if args.json:
        cli.print_json([document(it) for it in staged])
    else:
        for container in staged:
            print(one_line(str(container.paths[0])))
    return 0


def document(container: Container) -> dict[str, object]:
    """The document of a staged image, for programs."""
    flat = dataclasses.asdict(container) | dataclasses.asdict(container.platform)
    del flat["platform"]
    digests = {"image_id": container.image_id, "archive": container.archive, "digests": container.digests}
    return flat | digests | {"format": "sif" if container.is_sif else "archive"}


def present(path: Path) -> list[Copy]:
    """The staged images in a folder, in any form."""
    from ..integrations.wfexs import WfexsCache
    from ..staging.folder import PlainFolder

    return [*PlainFolder(path).copies(), *WfexsCache(path).copies()]


def _check_names(texts: Sequence[str]) -> None:
    """Refuse a place that is written as for ``ingest``: as a name it would be no image's."""
    from ..transports.names import split

    for text in texts:
        if split(text)[0] not in (None, "docker"):
            raise UsageError(
                f"{text!r} is a place, and images are staged by name: store the image first, arv-docker ingest. "
                "If that is its name, write it with its registry."
            )


def _folder(args: argparse.Namespace, shown: progress.Progress) -> Folder:
    from ..integrations.wfexs import WfexsCache
    from ..staging.folder import PlainFolder
    from ..store.filenames import naming

    if args.dir.exists() and not args.dir.is_dir():
        raise UsageError(f"{args.dir} is there and is no folder.")
    if args.format == "sif":
        from ..staging.sifs import SifFolder
        from ..store.filenames import SIF_SCHEMES

        if args.layout != LAYOUTS[0]:
            raise UsageError("what is written for WfExS are archives: --format sif goes with --layout plain.")
        return SifFolder(args.dir, naming(args.naming or "plain", SIF_SCHEMES), shown)
    if args.layout == "wfexs":
        return WfexsCache(args.dir, args.naming, shown)
    return PlainFolder(args.dir, naming(args.naming or "plain"), shown)


def _origins(args: argparse.Namespace, stack: ExitStack, shown: progress.Progress) -> list[Origin]:
    from ..staging.origins import FromEngine, FromKeep, FromRegistry

    every: dict[str, Origin] = {
        "keep": FromKeep(lambda: stack.enter_context(cli.cluster(args)), cli.settings(args), shown),
        "engine": FromEngine(lambda: cli.engine(args), shown, cli.user_cache(args), pull=args.origin == "engine"),
        "registry": FromRegistry(cli.choice(args, shown)),
    }
    return [every[args.origin]] if args.origin else list(every.values())

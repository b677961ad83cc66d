# SPDX-License-Identifier: Apache-2.0
"""``arv-docker sif``: images in Keep as SIF files, where the cluster's nodes look for them."""

from __future__ import annotations

import argparse

from .. import cli
from ..local.progress import size_text

_EPILOG = """\
example:
  arv-docker sif fill quay.io/tools/bwa:0.7
"""

_FILL_EPILOG = """\
Nodes that run containers by Singularity convert an image when a job first
needs it, and keep the file in Keep for the jobs of the same user. This does it
beforehand. What is there already is used as it is, and kept for two more weeks.
Prints the collections.

examples:
  arv-docker sif fill quay.io/tools/bwa:0.7
  arv-docker sif fill --force busybox:latest debian:12
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the commands below ``sif``."""
    parser.epilog = _EPILOG
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    command = cli.add_command(
        commands, "fill", "convert images in Keep into SIF files for jobs of this user", _FILL_EPILOG, "."
    )
    command.add_argument("name", nargs="+", metavar="NAME", help="the name or whole ID of an image in Keep")
    command.add_argument("-f", "--force", action="store_true", help="convert again what is there already")
    cli.add_platform_option(command, "of a name that stands for several")
    cli.add_cluster_options(command)
    cli.add_json_option(command)


def run(args: argparse.Namespace) -> int:
    """Convert the images for the cluster's nodes, and print the collections. Serves ``stage --sif-cache``, too."""
    from ..arvados.catalog import platforms, resolver
    from ..arvados.trust import Trust
    from ..engines.apptainer import Apptainer
    from ..staging.sif import fill_sif_cache

    settings, cache, shown = cli.settings(args), cli.cache_folder(args), cli.progress_for(args)
    apptainer = Apptainer(timeout=settings.engine_timeout)
    done = []
    with cli.cluster(args) as cluster:
        trust = Trust.from_settings(cluster, settings)
        for name in args.name:
            resolved = resolver.resolve(cluster, name, trust)
            if args.platform:
                resolved = platforms.choose_platform(cluster, resolved, args.platform, shown)
            for warning in resolved.warnings:
                shown.warn(warning)
            sif = fill_sif_cache(cluster, resolved.collection, apptainer, shown, trust, cache=cache, force=args.force)
            done.append(sif)
            how = "already there" if sif.already else f"converted, {size_text(sif.size)}"
            shown.say(f"{name}: {how}; kept until {sif.trash_at}")
            if not args.json:
                print(sif.uuid)
    if args.json:
        cli.print_json([cli.as_json(it) for it in done])
    return 0

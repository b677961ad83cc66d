# SPDX-License-Identifier: Apache-2.0
"""``arv-docker deploy``: the images of a staged folder into an engine."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .. import cli
from ..errors import one_line
from .stage import document, present

if TYPE_CHECKING:
    from ..model.image import Digest
    from ..staging import Container

NONE = "none"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.epilog = (
        "Everything in the folder is verified before anything is loaded; if something is not as it was staged, the\n"
        "exit code is 5 and the engine gets nothing. Prints each image's ID in the engine, whether it was loaded or\n"
        "was there, and its name. With --engine none the folder is verified and nothing is loaded. For Apptainer (or\n"
        "Singularity) a SIF file is built where there is only an archive, and what is printed first is its path.\n\n"
        "examples:\n  arv-docker deploy containers --engine podman\n  arv-docker deploy containers --engine apptainer"
    )
    parser.add_argument("dir", type=cli.as_folder, metavar="FOLDER", help="a folder that arv-docker stage wrote")
    cli.add_engine_option(parser, cli.APPTAINER, NONE)
    cli.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Load the images that the engine lacks, and print all of them."""
    from ..staging import deploy_images
    from ..staging.deployment import verify_containers

    shown = cli.progress_for(args)
    copies = present(args.dir)
    if args.engine == NONE:
        staged = verify_containers(copies, args.dir, shown)
        shown.say(f"{len(staged)} images are as they were staged; there is no engine, so nothing was loaded")
        done: list[tuple[Container, Digest | None, bool]] = [(it, None, False) for it in staged]
    else:
        deployed = deploy_images(
            args.dir, cli.engine_or_apptainer(args), cli.user_cache(args), copies=copies, progress=shown
        )
        done = [(it.container, it.engine_id, it.loaded) for it in deployed]
        loaded = sum(it.loaded for it in deployed)
        shown.say(f"{loaded} of {len(done)} images had to be loaded")
    if args.json:
        cli.print_json([document(it) | {"engine_id": engine_id, "loaded": new} for it, engine_id, new in done])
    else:
        for container, engine_id, new in done:
            called = container.paths[0] if container.is_sif else engine_id or container.image_id
            how = "loaded" if new else "there" if engine_id else "staged"
            print(one_line(f"{called} {how} {container.name}"))
    return 0

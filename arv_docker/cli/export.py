# SPDX-License-Identifier: Apache-2.0
"""``arv-docker export``: the files of an image as one tar."""

from __future__ import annotations

import argparse
import time

from .. import cli
from ..errors import UsageError
from ..local.progress import size_text
from . import image_files


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.epilog = (
        f"{image_files.SOURCES}\n"
        "The tar is what `docker export` gives of a container: all files once, without layers. Directories come\n"
        "first, so GNU tar needs --delay-directory-restore to keep their times. Every layer is checked; if one is\n"
        "not what the image says, the code is 5 and the tar has no end mark.\n\n"
        "examples:\n"
        "  arv-docker export --local busybox:latest > files.tar\n"
        "  arv-docker export docker-archive:busybox.tar |\n    tar -x --delay-directory-restore -C rootfs\n"
    )
    image_files.add_image_argument(parser)
    image_files.add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Write the tar to standard output, and say at the end how long it is."""
    from ..archive.flat_tar import flat_tar
    from ..images.files import open_files

    output = image_files.binary_output()
    if output.isatty():
        raise UsageError("the tar would go to the terminal. Write it to a file: arv-docker export IMAGE > FILE.")
    shown = cli.progress_for(args)
    begin, length = time.monotonic(), 0
    source = image_files.source_of(args, args.image, shown)
    with (
        open_files(source, shown, cli.user_cache(args), whole=args.verify) as files,
        shown.step("exporting", None) as advance,
    ):
        for piece in flat_tar(files, advance):
            output.write(piece)
            length += len(piece)
        output.flush()
    shown.say(f"{args.image}: exported, {size_text(length)} in {time.monotonic() - begin:.1f} s")
    return 0

# SPDX-License-Identifier: Apache-2.0
"""``arv-docker cat``: the content of files of an image."""

from __future__ import annotations

import argparse
import time

from .. import cli
from ..errors import NoSuchFile
from ..local.progress import size_text
from . import image_files

#: Seconds from which on the end of the work is told.
_LONG = 2


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.epilog = (
        f"{image_files.SOURCES}\n"
        "Prints the bytes as they are. Links are followed within the image, as in a container of it.\n\n"
        "examples:\n"
        "  arv-docker cat --local busybox:latest /etc/passwd\n"
        "  arv-docker cat docker://registry.example/team/app:1 /etc/os-release\n"
    )
    image_files.add_image_argument(parser)
    parser.add_argument("path", nargs="+", metavar="PATH", help="a file in the image; several are printed in turn")
    image_files.add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Write the files to standard output; nothing if any is missing."""
    from ..archive.file_tree import Directory, entry_of, find
    from ..images.files import open_files

    shown = cli.progress_for(args)
    begin = time.monotonic()
    source = image_files.source_of(args, args.image, shown)
    with open_files(source, shown, cli.user_cache(args), whole=args.verify) as files:
        entries = []
        for path in args.path:
            node = find(files.root, path)
            if isinstance(node, Directory) or (entry := entry_of(node)).kind != "file":
                raise NoSuchFile(f"{path!r} in the image is no regular file. arv-docker ls shows what it is.")
            entries.append(entry)
        output = image_files.binary_output()
        total = sum(entry.size for entry in entries)
        with shown.step("reading", total) as advance:
            for entry in entries:
                if entry.size:
                    for _, content in files.contents([entry], lambda _: None, whole=args.verify):
                        for piece in content:
                            output.write(piece)
                            advance(len(piece))
        output.flush()
    if (seconds := time.monotonic() - begin) > _LONG:
        shown.say(f"{args.image}: read, {size_text(total)} in {seconds:.1f} s")
    return 0

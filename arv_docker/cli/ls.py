# SPDX-License-Identifier: Apache-2.0
"""``arv-docker ls``: the files of an image."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .. import cli
from . import image_files

if TYPE_CHECKING:
    from ..archive.file_tree import Node
    from ..archive.image_files import ImageFiles


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.epilog = (
        f"{image_files.SOURCES}\n"
        "The files are those that a container of the image would have: what upper layers remove is not there. No\n"
        "layer is unpacked. Times are UTC. PATH is looked up within the image, and a link to a directory followed.\n\n"
        "examples:\n"
        "  arv-docker ls --local busybox:latest /bin\n"
        "  arv-docker ls -R docker-archive:busybox.tar\n"
        "  arv-docker ls --json docker://registry.example/team/app:1 /opt/app\n"
    )
    image_files.add_image_argument(parser)
    parser.add_argument("path", nargs="?", default="/", metavar="PATH", help="a file or directory in the image (/)")
    parser.add_argument("-R", "--recursive", action="store_true", help="also what is in the directories below")
    image_files.add_options(parser)
    cli.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """List the files, by path."""
    from ..archive.file_tree import entry_of
    from ..images.files import open_files

    shown = cli.progress_for(args)
    source = image_files.source_of(args, args.image, shown)
    with open_files(source, shown, cli.user_cache(args), contents=False, whole=args.verify) as files:
        listed = [(path, entry_of(node)) for path, node in _files_at(files, args.path, recursive=args.recursive)]
        layers = list(map(str, files.layers))
    if args.json:
        places = [layers[entry.layer] if entry.offset else None for _, entry in listed]
        cli.print_json(
            [image_files.document_of(path, entry, place) for (path, entry), place in zip(listed, places, strict=True)]
        )
        return 0
    width = max((len(str(entry.size)) for _, entry in listed), default=1)
    for path, entry in listed:
        print(image_files.line_of(path, entry, width))
    return 0


def _files_at(files: ImageFiles, path: str, *, recursive: bool) -> Iterator[tuple[str, Node]]:
    """The files to list for a path: the content of a directory, or the file alone."""
    from ..archive.file_tree import Directory, find, walk

    node = find(files.root, path)
    if not isinstance(node, Directory):
        yield f"/{path.lstrip('/')}", find(files.root, path, follow=False)
        return
    prefix = path.strip("/") + "/" if path.strip("/") else ""
    below = walk(node) if recursive else iter(sorted(node.children.items()))
    for name, child in below:
        yield f"/{prefix}{name}", child

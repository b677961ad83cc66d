# SPDX-License-Identifier: Apache-2.0
"""Options and texts that the verbs have in common that show the files of an image: ls, cat, diff, export."""

from __future__ import annotations

import argparse
import stat
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, BinaryIO

from .. import cli
from ..errors import UsageError, one_line

if TYPE_CHECKING:
    from ..archive.layer_tar import FileEntry
    from ..local.progress import Progress
    from ..transports import Source

_TYPE_BITS = {
    "file": stat.S_IFREG,
    "directory": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "character": stat.S_IFCHR,
    "block": stat.S_IFBLK,
    "fifo": stat.S_IFIFO,
}

SOURCES = (
    "IMAGE is the name, ID, UUID or PDH of an image in Keep, or a source: docker://NAME,\n"
    "docker-archive:FILE, oci:FOLDER, docker-daemon:NAME and the others of copy.\n"
)


def add_image_argument(parser: argparse.ArgumentParser, name: str = "image", metavar: str = "IMAGE") -> None:
    """Add an argument for an image at any source."""
    parser.add_argument(name, metavar=metavar, help="an image in Keep, or a source, as docker-archive:FILE[:NAME]")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for sources and for the cluster, and ``--verify``."""
    cli.add_source_options(parser)
    cli.add_cluster_options(parser)
    parser.add_argument(
        "--verify",
        action="store_true",
        help="read whole layers and check them against the image's ID first; otherwise only the parts that are needed "
        "are read of layers that are uncompressed in Keep or in a file",
    )


def source_of(args: argparse.Namespace, text: str, shown: Progress) -> Source:
    """The source that ``text`` names: a plain name is that of an image in Keep."""
    from ..transports import keep, names

    choice = cli.choice(args, shown, only_shown=True)
    return keep.source(text, choice) if names.split(text)[0] is None else names.source(text, choice)


def binary_output() -> BinaryIO:
    """Standard output, for bytes; raises UsageError where it is closed."""
    if sys.stdout is None:
        raise UsageError("standard output is closed, and that is where the bytes go.")
    return sys.stdout.buffer


def line_of(path: str, entry: FileEntry, width: int = 1) -> str:
    """A file as `ls -l` shows it, with the time in UTC; ``width`` is that of the column of sizes."""
    mode = stat.filemode(_TYPE_BITS[entry.kind] | entry.mode)
    size = ",".join(map(str, entry.device)) if entry.kind in ("character", "block") else str(entry.size)
    target = f" -> {entry.target}" if entry.kind == "symlink" else ""
    return one_line(f"{mode} {entry.uid}:{entry.gid} {size:>{width}} {_time_text(entry.mtime)} {path}{target}")


def document_of(path: str, entry: FileEntry, layer: str | None) -> dict[str, object]:
    """A file as JSON; ``layer`` is the diff_id of the layer that has it, None for a
    directory that none lists."""
    document: dict[str, object] = {
        "path": path,
        "kind": entry.kind,
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "mtime": entry.mtime,
        "layer": layer,
    }
    if entry.kind == "symlink":
        document["target"] = entry.target
    if entry.kind in ("character", "block"):
        document["device"] = list(entry.device)
    if entry.xattrs:
        document["xattrs"] = sorted(name for name, _ in entry.xattrs)
    return document


def _time_text(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):  # beyond the year 9999
        return str(seconds)

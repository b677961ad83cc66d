# SPDX-License-Identifier: Apache-2.0
"""An image's files as one tar, as `docker export` gives those of a container.

Directories come first, with links, devices and empty files, in the order of their paths; then the other files, as they
lie in the layers, so that each layer is read once. Every further name of a file follows it as a hard link.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator

from ..errors import BadArchive
from .file_tree import entry_of, walk
from .image_files import ImageFiles
from .layer_tar import DIRECTORY, FILE, FileEntry
from .tar import BLOCK

_TYPES = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "character": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE,
}
_END = bytes(2 * BLOCK)


def flat_tar(files: ImageFiles, advance: Callable[[int], None]) -> Iterator[bytes]:
    """Yield the tar of an image's files in pieces; every layer is read to its end and checked.

    Raises what reading the layers raises; then the end mark of the tar is missing.
    """
    first: dict[int, str] = {}
    further: dict[int, list[str]] = {}
    waiting: list[FileEntry] = []
    for path, node in walk(files.root):
        entry = entry_of(node)
        has_content = entry.kind == FILE and entry.size > 0
        if entry.kind == DIRECTORY:
            yield _header(path, entry)
        elif id(entry) not in first:
            first[id(entry)] = path
            if has_content:
                waiting.append(entry)
            else:
                yield _header(path, entry)
        elif has_content:
            further.setdefault(id(entry), []).append(path)
        else:
            yield _link(path, first[id(entry)], entry)
    for entry, content in files.contents(waiting, advance, whole=True):
        yield _header(first[id(entry)], entry)
        yield from content
        yield bytes(-entry.size % BLOCK)
        for path in further.get(id(entry), ()):
            yield _link(path, first[id(entry)], entry)
    yield _END


def _header(path: str, entry: FileEntry) -> bytes:
    info = tarfile.TarInfo(path)
    info.type = _TYPES[entry.kind]
    info.mode, info.uid, info.gid, info.mtime = entry.mode, entry.uid, entry.gid, entry.mtime
    info.size, info.linkname = entry.size, entry.target
    info.devmajor, info.devminor = entry.device
    for key, _ in entry.xattrs:
        if not _is_text(key):
            raise BadArchive(
                f"{path!r} in the image has the attribute {key!r}, whose name is not UTF-8. No tar has such."
            )
    info.pax_headers = {f"SCHILY.xattr.{key}": value.decode("utf-8", "surrogateescape") for key, value in entry.xattrs}
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _is_text(name: str) -> bool:
    """True for a name that was UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _link(path: str, first: str, entry: FileEntry) -> bytes:
    info = tarfile.TarInfo(path)
    info.type, info.linkname = tarfile.LNKTYPE, first
    info.mode, info.uid, info.gid, info.mtime = entry.mode, entry.uid, entry.gid, entry.mtime
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")

# SPDX-License-Identifier: Apache-2.0
"""The differences between the files of two images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from .file_tree import Directory, Node, entry_of
from .image_files import ImageFiles
from .layer_tar import FILE, FileEntry

#: How a file of the second image relates to the first one.
Kind = Literal["added", "changed", "removed"]


@dataclass(frozen=True, slots=True)
class Change:
    """A file of one image alone, or a file that differs in the attributes ``what``."""

    kind: Kind
    path: str
    what: tuple[str, ...] = ()


def changes(
    before: ImageFiles, after: ImageFiles, advance: Callable[[int], None], *, times: bool = False, whole: bool = False
) -> list[Change]:
    """The changes from one image to another, by path; ``times``: a different time of change is one, too.

    Contents are compared by their SHA-256, but those of a layer that both images have. Other arguments, and what is
    raised, are as for ``ImageFiles.contents``.
    """
    found: list[Change] = []
    alike: list[tuple[int, FileEntry, FileEntry]] = []
    for path, old, new in _pairs(before.root, after.root):
        if old is None or new is None:
            found.append(Change("added" if old is None else "removed", path))
            continue
        one, two = entry_of(old), entry_of(new)
        what = _attributes(one, two, times=times)
        same_place = before.layers[one.layer] == after.layers[two.layer] and one.offset == two.offset
        if one.kind == two.kind == FILE and one.size == two.size and one.size and not same_place:
            alike.append((len(found), one, two))
        found.append(Change("changed", path, what))
    digests = _digests(before, [one for _, one, _ in alike], advance, whole=whole)
    others = _digests(after, [two for *_, two in alike], advance, whole=whole)
    for place, one, two in alike:
        if digests[id(one)] != others[id(two)]:
            change = found[place]
            found[place] = Change(change.kind, change.path, ("content", *change.what))
    return [change for change in found if change.kind != "changed" or change.what]


def _attributes(one: FileEntry, two: FileEntry, *, times: bool) -> tuple[str, ...]:
    if one.kind != two.kind:
        return ("kind",)
    differences = {
        "content": one.size != two.size,
        "mode": one.mode != two.mode,
        "owner": (one.uid, one.gid) != (two.uid, two.gid),
        "target": one.target != two.target,
        "device": one.device != two.device,
        "attributes": sorted(one.xattrs) != sorted(two.xattrs),
        "time": times and one.mtime != two.mtime,
    }
    return tuple(name for name, differs in differences.items() if differs)


def _digests(
    files: ImageFiles, entries: list[FileEntry], advance: Callable[[int], None], *, whole: bool
) -> dict[int, bytes]:
    """The SHA-256 of the contents of regular files, by the identity of their entries."""
    digests = {}
    for entry, content in files.contents(entries, advance, whole=whole):
        digest = hashlib.sha256()
        for piece in content:
            digest.update(piece)
        digests[id(entry)] = digest.digest()
    return digests


def _pairs(before: Directory, after: Directory) -> Iterator[tuple[str, Node | None, Node | None]]:
    """Each path of two trees, with what each of them has there."""
    pending = [("", before, after, _names(before, after))]
    while pending:
        prefix, one, two, names = pending[-1]
        for name in names:
            old, new = one.children.get(name), two.children.get(name)
            yield f"{prefix}{name}", old, new
            if isinstance(old, Directory) or isinstance(new, Directory):
                below = _directory(old), _directory(new)
                pending.append((f"{prefix}{name}/", *below, _names(*below)))
                break
        else:
            pending.pop()


def _names(one: Directory, two: Directory) -> Iterator[str]:
    return iter(sorted(one.children.keys() | two.children.keys()))


def _directory(node: Node | None) -> Directory:
    return node if isinstance(node, Directory) else Directory()

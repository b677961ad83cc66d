# SPDX-License-Identifier: Apache-2.0
"""The files of an image: the layers' files put upon each other, as a container sees them. Nothing touches the disk.

A layer is first unpacked for itself, as engines unpack one into an empty folder, and then laid upon what is below, as
an overlay file system does: a directory upon a directory adds to it, anything else replaces what was there, and
whiteouts and opaque directories take away what lower layers have, never what their own layer has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..errors import BadArchive, NoSuchFile
from .layer_tar import DIRECTORY, MAX_PATH, SYMLINK, Budget, FileEntry, HardLink

_WHITEOUT, _META = ".wh.", ".wh..wh."
_OPAQUE = f"{_META}.opq"
#: Symbolic links that one path may lead through, as Linux has it.
_MAX_LINKS = 40

_IMPLIED = FileEntry(DIRECTORY, 0o755)


class Directory:
    """A directory and its content, by name. ``entry`` is None if no layer lists the directory, only files in it.

    In a layer by itself ``removed`` are the names that it takes from the layers below, and ``opaque`` says that it
    takes all of them.
    """

    __slots__ = ("children", "entry", "opaque", "removed")

    def __init__(self, entry: FileEntry | None = None) -> None:
        self.entry = entry
        self.children: dict[str, Node] = {}
        self.opaque = False
        self.removed: Sequence[str] = ()

    @property
    def attributes(self) -> FileEntry:
        """The directory's attributes; if no layer lists it, the attributes with which engines make directories."""
        return self.entry or _IMPLIED


class _LinkBelow:
    """A further name of a file that a lower layer has."""

    __slots__ = ("target",)

    def __init__(self, target: str) -> None:
        self.target = target


Node = FileEntry | Directory | _LinkBelow


def entry_of(node: Node) -> FileEntry:
    """The attributes of a file of an image, or of a directory."""
    assert not isinstance(node, _LinkBelow)
    return node.attributes if isinstance(node, Directory) else node


# -- putting layers upon each other ------------------------------------------------------


def layer_tree(files: Iterable[tuple[str, FileEntry | HardLink]], budget: Budget) -> Directory:
    """The files of a single layer. Raises BadArchive for a layer that no engine unpacks."""
    layer = Directory()
    for name, entry in files:
        _unpack(layer, name, entry, budget)
    return layer


def add_layer(root: Directory, layer: Directory, budget: Budget) -> None:
    """Lay the tree of a layer upon ``root``, the files below it; raises as ``layer_tree`` does."""
    links = []
    for _, node in walk(layer):
        budget.follow(1)  # a layer that an image has many times is walked as often
        if isinstance(node, _LinkBelow):
            links.append(node)
    below = {id(link): _below(root, link, budget) for link in links}
    _merge(root, layer, below)


def _unpack(layer: Directory, written: str, entry: FileEntry | HardLink, budget: Budget) -> None:
    """Put a file into the tree of its own layer."""
    parts = _parts(written)
    if not parts:
        if isinstance(entry, FileEntry) and entry.kind == DIRECTORY:
            layer.entry = entry
        return
    folder = _folder(layer, parts[:-1], written, budget)
    name = parts[-1]
    if name == _OPAQUE:
        folder.opaque = True
    elif name.startswith(_WHITEOUT) and not name.startswith(_META):
        removed = name[len(_WHITEOUT) :]
        if removed in ("", ".", ".."):
            raise BadArchive(
                f"the layer has the whiteout {written!r}, which removes no file. Such layers are not read."
            )
        if not isinstance(folder.removed, list):
            folder.removed = []
        folder.removed.append(removed)
    elif isinstance(entry, HardLink):
        folder.children[name] = _link_target(layer, entry.target, budget)
    elif entry.kind == DIRECTORY:
        present = folder.children.get(name)
        if isinstance(present, Directory):
            present.entry = entry
        else:
            folder.children[name] = Directory(entry)
    else:
        folder.children[name] = entry


def _folder(layer: Directory, parts: list[str], written: str, budget: Budget) -> Directory:
    """The directory of a layer's tree in which a file is unpacked; made where the layer does not list it."""
    folder = layer
    for place, part in enumerate(parts):
        child = folder.children.get(part)
        if child is None:
            budget.spend(0)
            child = folder.children[part] = Directory()
        if not isinstance(child, Directory):
            # Through a link of the same layer, as the engine's system call goes, within the image's root.
            budget.follow(place + 1)
            found = _look_up(layer, parts[: place + 1], follow=True, budget=budget)
            if not isinstance(found, Directory):
                raise BadArchive(
                    f"the layer has {written!r} below {'/'.join(parts[: place + 1])!r}, which is no directory there. "
                    "No engine unpacks such a layer."
                )
            child = found
        folder = child
    return folder


def _link_target(layer: Directory, target: str, budget: Budget) -> Node:
    """The target of a hard link: a file of the same layer that comes before the link, or of a lower layer."""
    found = _look_up(layer, _parts(target), follow=False, budget=budget)
    if isinstance(found, Directory):
        raise BadArchive(f"the layer has a hard link to the directory {target!r}. No engine unpacks such a layer.")
    return found or _LinkBelow(target)


def _below(root: Directory, link: _LinkBelow, budget: Budget) -> Node:
    found = _look_up(root, _parts(link.target), follow=False, budget=budget)
    if found is None or isinstance(found, Directory):
        raise BadArchive(
            f"the layer has a hard link to {link.target!r}, which is no file in this layer or below it. No engine "
            "unpacks such a layer."
        )
    return found


def _merge(root: Directory, layer: Directory, below: dict[int, Node]) -> None:
    """Lay a layer's tree upon ``root``; ``below`` has the targets of links to lower layers."""
    pending = [(root, layer)]
    while pending:
        lower, upper = pending.pop()
        if upper.entry is not None:
            lower.entry = upper.entry
        if upper.opaque:
            lower.children.clear()
        for name in upper.removed:
            lower.children.pop(name, None)
        for name, node in upper.children.items():
            if name.startswith(_META):  # what AUFS keeps for itself
                continue
            if not isinstance(node, Directory):
                lower.children[name] = below[id(node)] if isinstance(node, _LinkBelow) else node
                continue
            present = lower.children.get(name)
            if not isinstance(present, Directory):
                present = lower.children[name] = Directory()
            pending.append((present, node))


def _parts(written: str) -> list[str]:
    """The names in a layer's path, cleaned as engines do; raises BadArchive for a path out of the image."""
    parts: list[str] = []
    for part in written.split("/"):
        if part == "..":
            if not parts:
                raise BadArchive(f"the layer names {written!r}, which would leave the image. Such layers are not read.")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    if len(written) > MAX_PATH or "\0" in written:
        raise BadArchive(f"the layer has a name of {len(written)} characters, which no system takes.")
    return parts


# -- looking files up --------------------------------------------------------------------


def find(root: Directory, path: str, *, follow: bool = True) -> Node:
    """The file at ``path``, with links followed within the image; a link at the end only with ``follow``.

    Raises NoSuchFile where it leads to nothing, or through more links than a system follows.
    """
    parts = [part for part in path.split("/") if part]
    found = _look_up(root, parts, follow=follow or path.endswith("/"), budget=Budget())
    if found is None or (path.endswith("/") and not isinstance(found, Directory)):
        raise NoSuchFile(f"the image has no {'directory' if path.endswith('/') else 'file'} {path!r}.")
    return found


def _look_up(root: Directory, parts: list[str], *, follow: bool, budget: Budget) -> Node | None:
    """The node at a path below ``root``; None without a file."""
    above: list[Directory] = []
    node: Node = root
    left = list(reversed(parts))
    links = 0
    while left:
        part = left.pop()
        if part == ".":
            continue
        if not isinstance(node, Directory):
            return None
        if part == "..":
            node = above.pop() if above else root
            continue
        child = node.children.get(part)
        if child is None:
            return None
        if isinstance(child, FileEntry) and child.kind == SYMLINK and (left or follow):
            links += 1
            if links > _MAX_LINKS:
                return None
            if child.target.startswith("/"):
                above, node = [], root
            names = [name for name in child.target.split("/") if name]
            budget.follow(len(names) + 1)
            left.extend(reversed(names))
            continue
        above.append(node)
        node = child
    return node


def walk(root: Directory) -> Iterator[tuple[str, Node]]:
    """Each file below ``root`` with its path from there, directories before their content."""
    pending = [("", iter(sorted(root.children.items())))]
    while pending:
        prefix, children = pending[-1]
        for name, node in children:
            yield f"{prefix}{name}", node
            if isinstance(node, Directory):
                pending.append((f"{prefix}{name}/", iter(sorted(node.children.items()))))
                break
        else:
            pending.pop()

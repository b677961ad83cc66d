# SPDX-License-Identifier: Apache-2.0
"""The files of an image: layers upon each other, links, what is refused, and a second implementation that agrees."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arv_docker.archive import file_tree, layer_tar
from arv_docker.archive.file_changes import Change, changes
from arv_docker.archive.file_tree import Directory, entry_of, find, walk
from arv_docker.archive.flat_tar import flat_tar
from arv_docker.archive.image_files import ImageFiles, files_of
from arv_docker.archive.layer_tar import FileEntry
from arv_docker.archive.opened_image import OpenedImage
from arv_docker.archive.reader import ArchiveReader
from arv_docker.archive.stream import StreamedImage
from arv_docker.errors import BadArchive, DigestMismatch, NoSuchFile

from ..archives import Bytes, classic, containerd, hybrid, image, member, pax
from ..layers import device, file, folder, hard_link, layer_of_members, opaque, symlink, whiteout

Member = tuple[tarfile.TarInfo, bytes]


def ignore(_: int) -> None:
    pass


def opened(*layers: list[Member] | bytes, compressed: bool = False) -> OpenedImage:
    made = image(*(it if isinstance(it, bytes) else layer_of_members(it) for it in layers))
    return ArchiveReader(Bytes((containerd if compressed else classic)(made))).image()


def files(*layers: list[Member] | bytes, compressed: bool = False) -> ImageFiles:
    return files_of(opened(*layers, compressed=compressed), ignore)


def contents(found: ImageFiles) -> dict[str, bytes | str | None]:
    """Every file of an image: bytes, the target of a symbolic link, None for all others."""
    entries = {path: entry_of(node) for path, node in walk(found.root)}
    wanted = [entry for entry in entries.values() if entry.kind == "file"]
    read = {id(entry): b"".join(pieces) for entry, pieces in found.contents(wanted, ignore)}
    return {
        path: read[id(entry)] if entry.kind == "file" else entry.target if entry.kind == "symlink" else None
        for path, entry in entries.items()
    }


def unpacked(content: bytes) -> dict[str, bytes | str | None]:
    """The same of a flat tar, by the standard library."""
    result: dict[str, bytes | str | None] = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for info in archive:
            assert info.name not in result, "twice"
            if info.issym():
                result[info.name] = info.linkname
            elif info.islnk():
                result[info.name] = result[info.linkname]
            else:
                data = archive.extractfile(info)
                result[info.name] = data.read() if data else None
    return result


LOW = [
    folder("dir", mode=0o750, uid=7),
    file("dir/kept", b"kept"),
    file("dir/gone", b"gone"),
    file("replaced", b"old"),
    folder("hidden"),
    file("hidden/below", b"below"),
    file("one", b"linked"),
    hard_link("two", "one"),
    symlink("link", "dir"),
]


@pytest.mark.parametrize("compressed", [False, True])
def test_upper_layers_remove_and_replace(compressed: bool) -> None:
    upper = [
        whiteout("dir/gone"),
        folder("replaced"),
        file("replaced/new", b"new"),
        opaque("hidden"),
        file("hidden/above", b"above"),
        file("one", b"other"),
        file("link/inside", b"link"),
    ]
    found = files(LOW, upper, compressed=compressed)
    assert contents(found) == {
        "dir": None,
        "dir/kept": b"kept",
        "replaced": None,
        "replaced/new": b"new",
        "hidden": None,
        "hidden/above": b"above",
        "one": b"other",
        "two": b"linked",  # an upper layer's file is another one
        "link": None,  # a directory upon a link replaces it, as an overlay has it
        "link/inside": b"link",
    }
    assert unpacked(b"".join(flat_tar(found, ignore))) == contents(found)
    attributes = entry_of(find(found.root, "dir"))
    assert (attributes.mode, attributes.uid) == (0o750, 7)  # those of the layer that lists it


def test_a_whiteout_is_for_lower_layers_alone() -> None:
    """Whatever comes first in the tar, as the specification of images has it."""
    assert contents(files(LOW, [file("dir/gone", b"again"), whiteout("dir/gone")]))["dir/gone"] == b"again"
    found = contents(files(LOW, [file("hidden/above", b"1"), opaque("hidden")]))
    assert [path for path in found if path.startswith("hidden/")] == ["hidden/above"]


def test_a_whiteout_of_nothing_and_of_all() -> None:
    assert contents(files(LOW, [whiteout("absent"), opaque("")])) == {}


def test_hard_links() -> None:
    """To a file of the same layer, of a lower one, and to a link; each stays what it was when its layer was made."""
    found = files(LOW, [hard_link("three", "dir/kept")], [file("dir/kept", b"changed"), hard_link("four", "three")])
    read = contents(found)
    assert (read["three"], read["four"], read["dir/kept"]) == (b"kept", b"kept", b"changed")
    assert unpacked(b"".join(flat_tar(found, ignore))) == read
    with tarfile.open(fileobj=io.BytesIO(b"".join(flat_tar(found, ignore)))) as archive:
        links = {info.name: info.linkname for info in archive if info.islnk()}
    assert links == {"two": "one", "three": "four"}


def test_attributes_of_every_kind_are_exported() -> None:
    members = [
        file("a" * 120 + "/ü", b"x", mode=0o4755, uid=3_000_000, gid=5, mtime=-7),
        device("null", 1, 3),
        symlink("loop", "loop"),
        file("\udcff", b"not UTF-8"),
    ]
    capable = file("ping", b"y")
    capable[0].pax_headers = {"SCHILY.xattr.security.capability": "\x01\x00\udcff", "mtime": "12.75"}
    exported = b"".join(flat_tar(files([*members, capable]), ignore))
    with tarfile.open(fileobj=io.BytesIO(exported), errors="surrogateescape") as archive:
        infos = {info.name: info for info in archive}
    info = infos["a" * 120 + "/ü"]
    assert (info.mode, info.uid, info.gid, info.mtime, info.size) == (0o4755, 3_000_000, 5, -7, 1)
    assert (infos["null"].ischr(), infos["null"].devmajor, infos["null"].devminor) == (True, 1, 3)
    assert infos["loop"].linkname == "loop"
    assert "\udcff" in infos
    assert infos["ping"].pax_headers["SCHILY.xattr.security.capability"] == "\x01\x00\udcff"
    assert infos["ping"].mtime == 12
    assert infos["a" * 120].mode == 0o755  # which no layer lists


def test_links_are_followed_within_the_image_alone() -> None:
    found = files(
        [
            folder("usr/lib"),
            file("usr/lib/x", b"x"),
            symlink("lib", "usr/lib"),
            symlink("up", "../../../../usr/lib"),
            symlink("top", "/lib/x"),
            symlink("chain0", "top"),
            symlink("loop", "loop2"),
            symlink("loop2", "/loop"),
            symlink("out", "/etc/passwd"),
        ]
    )
    x = find(found.root, "/usr/lib/x")
    for path in ("lib/x", "/lib/x", "up/x", "/../../lib/./x", "top", "chain0", "usr/../lib/x"):
        assert find(found.root, path) is x, path
    assert isinstance(find(found.root, "/lib/"), Directory)
    assert entry_of(find(found.root, "lib", follow=False)).target == "usr/lib"
    for path in ("loop", "out", "usr/lib/x/y", "usr/lib/x/", "absent", "usr/lib/x/.."):
        with pytest.raises(NoSuchFile, match="the image has no"):
            find(found.root, path)


BAD: dict[str, tuple[list[Member] | bytes, str]] = {
    "climbs": ([file("../x")], "would leave the image"),
    "climbs later": ([file("a/../../x")], "would leave the image"),
    "link to a directory": ([folder("d"), hard_link("x", "d")], "hard link to the directory"),
    "link to nothing": ([hard_link("x", "y")], "no file in this layer or below"),
    "link out": ([hard_link("x", "../../etc/passwd")], "would leave the image"),
    "below a file": ([file("a"), file("a/b")], "no directory there"),
    "below a loop": ([symlink("a", "a"), file("a/b")], "no directory there"),
    "whiteout of nothing": ([file(".wh.")], "removes no file"),
    "whiteout of the folder above": ([file("a/.wh...")], "removes no file"),
    "long name": ([file("n" * 5000)], "no system takes"),
    "long target": ([symlink("a", "n" * 5000)], "no system takes"),
    "another type": (member(b"x", kind=b"M"), "no engine unpacks"),
    "sparse": (pax({"GNU.sparse.major": b"1"}) + member(), "sparse"),
    "no tar": (b"no tar at all" * 100, "not a tar"),
    "cut short": (member(b"x", b"content" * 1000)[:-1000], "cut short"),
    "cut short within a block": (member(b"x", b"content" * 100)[:-400], "cut short"),
    "cut header": (member()[:300], "cut short"),
    "negative size": (member(size=b"\xff" * 12), "negative"),
    "much metadata": (member(b"x", bytes(2 << 20), kind=b"x"), "metadata record"),
}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("what", list(BAD))
def test_what_no_engine_unpacks_is_refused(what: str, compressed: bool) -> None:
    layer, words = BAD[what]
    with pytest.raises(BadArchive, match=words):
        files(layer, compressed=compressed)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_last_member_may_lack_the_zeros_that_fill_its_block(compressed: bool) -> None:
    assert contents(files(member(b"x", b"content")[: 512 + 7], compressed=compressed)) == {"x": b"content"}


def test_headers_before_a_member_count_as_they_do_for_engines() -> None:
    """Of PAX headers the last counts, GNU's long names before it, and a global header ends what came before."""
    one, two = pax({"SCHILY.xattr.user.one": b"1", "path": b"p"}), pax({"SCHILY.xattr.user.two": b"2"})
    long_name = member(b"././@LongLink", b"long\0", kind=b"L")
    found = {path: entry_of(node) for path, node in walk(files(one + two + member(b"x")).root)}
    assert found["x"].xattrs == (("user.two", b"2"),)
    for before in (long_name + one, one + long_name):
        assert list(dict(walk(files(before + member(b"x")).root))) == ["long"]
    assert list(dict(walk(files(long_name + one + pax({"a": b"b"}, kind=b"g") + member(b"x")).root))) == ["x"]


def test_an_attribute_that_no_tar_can_name() -> None:
    found = files(pax({"SCHILY.xattr.user.?": b"1"}).replace(b"user.?", b"user.\xff") + member(b"x", b"content"))
    assert contents(found) == {"x": b"content"}
    with pytest.raises(
        BadArchive, match=r"'x' in the image has the attribute 'user\.\\udcff', whose name is not UTF-8"
    ):
        b"".join(flat_tar(found, ignore))


def test_the_number_of_files_and_their_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_tar, "MAX_FILES", 10)
    with pytest.raises(BadArchive, match="more than 10 files"):
        files([file(f"f{number}") for number in range(11)])
    with pytest.raises(BadArchive, match="more than 10 files"):  # folders that no layer lists count too
        files([file("/".join("abcdefghijkl"))])
    with pytest.raises(BadArchive, match="more than 10 files"):
        files(b"".join(pax({"comment": b"x"}) for _ in range(11)) + member())
    monkeypatch.setattr(layer_tar, "MAX_TEXT", 1000)
    with pytest.raises(BadArchive, match="more than 1000 characters"):
        files([file("x" * 300 + str(number)) for number in range(4)])
    with pytest.raises(BadArchive, match="more than 1000 characters"):  # written short, and long where links lead
        files([folder("d" * 200), symlink("s", "d" * 200), *(file(f"s/{number}") for number in range(5))])
    monkeypatch.setattr(layer_tar, "MAX_STEPS", 50)
    with pytest.raises(BadArchive, match="more than 50 names"):
        files([folder("d"), symlink("s", "/".join(["."] * 20 + ["d"])), *(file(f"s/{n}") for n in range(4))])


def test_a_layer_that_is_not_what_the_image_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read whole it is refused; by offset what lies elsewhere in it is not seen."""
    made = image(layer_of_members([file("a", b"good" * 200), file("b", b"right" * 200)]))
    altered = classic(made).replace(b"right" * 200, b"wrong" * 200)
    found = ArchiveReader(Bytes(altered)).image()
    assert contents(files_of(found, ignore))["a"] == b"good" * 200
    with pytest.raises(DigestMismatch):
        files_of(found, ignore, whole=True)
    with pytest.raises(DigestMismatch):
        b"".join(flat_tar(files_of(found, ignore), ignore))


def test_only_headers_and_the_file_that_is_wanted_are_read() -> None:
    source = Bytes(classic(image(layer_of_members([file("big", bytes(50 << 20)), file("small", b"s")]))))
    opened_image = ArchiveReader(source).image()
    read: list[int] = []
    read_at = source.read_at

    def counting(offset: int, length: int) -> bytes:
        read.append(len(content := read_at(offset, length)))
        return content

    source.read_at = counting  # type: ignore[method-assign]
    found = files_of(opened_image, ignore)
    (pair,) = found.contents([entry_of(find(found.root, "small"))], ignore)
    del pair
    assert sum(read) < 10_000


def test_a_stream_is_listed_while_it_is_read() -> None:
    made = image(layer_of_members(LOW), layer_of_members([whiteout("dir/gone")]))
    for form in (classic, hybrid, containerd):
        found = files_of(StreamedImage(io.BytesIO(form(made))), ignore)
        assert "dir/kept" in dict(walk(found.root))
        assert "dir/gone" not in dict(walk(found.root))


def test_changes_between_images() -> None:
    before = files(LOW)
    after = files(
        [
            folder("dir", mode=0o700, uid=7),
            file("dir/kept", b"kepT"),
            file("replaced", b"old", uid=5, mtime=9),
            folder("hidden"),
            file("hidden/below", b"below", mtime=3),
            symlink("one", "two"),
            file("two", b"linked"),
            symlink("link", "hidden"),
            file("new/x"),
        ]
    )
    expected = [
        Change("changed", "dir", ("mode",)),
        Change("removed", "dir/gone"),
        Change("changed", "dir/kept", ("content",)),
        Change("changed", "link", ("target",)),
        Change("added", "new"),
        Change("added", "new/x"),
        Change("changed", "one", ("kind",)),
        Change("changed", "replaced", ("owner",)),
    ]
    assert changes(before, after, ignore) == expected
    assert Change("changed", "hidden/below", ("time",)) in changes(before, after, ignore, times=True)
    assert changes(before, before, ignore) == []


# -- a second implementation -------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
STEPS = st.tuples(st.sampled_from(["file", "folder", "symlink", "link", "whiteout", "opaque"]), PATHS, PATHS)


def ancestors(path: str) -> Iterator[str]:
    parts = path.split("/")
    return ("/".join(parts[:count]) for count in range(1, len(parts)))


class Flat:
    """The files of an image as a plain table of paths; removes by looking through all of it."""

    def __init__(self) -> None:
        self.table: dict[str, bytes | str | None] = {}

    def remove(self, path: str) -> None:
        for name in [it for it in self.table if it == path or it.startswith(f"{path}/")]:
            del self.table[name]

    def add(self, path: str, value: bytes | str | None) -> None:
        for name in (*ancestors(path), *([path] if value is None else [])):
            if name in self.table and self.table[name] is not None:
                del self.table[name]
            self.table.setdefault(name, None)
        if value is not None:
            self.remove(path)
            self.table[path] = value


def applied(flat: Flat, steps: list[tuple[str, str, str]], number: int) -> list[Member]:
    """Make a layer of those of the steps that an engine unpacks, and apply it to the table."""
    below = dict(flat.table)
    layer = Flat()
    members: list[Member] = []
    removals: list[tuple[str, str]] = []
    for place, (kind, path, target) in enumerate(steps):
        if any(layer.table.get(it, None) is not None for it in ancestors(path)):
            continue
        if kind in ("whiteout", "opaque"):
            if kind == "opaque" and layer.table.get(path) is not None:
                continue
            removals.append((kind, path))
            members.append((whiteout if kind == "whiteout" else opaque)(path))
            for folder_name in (*ancestors(path), *([path] if kind == "opaque" else [])):
                layer.add(folder_name, None)
            continue
        value: bytes | str | None = f"{number}.{place}".encode()
        if kind == "folder":
            value = None
            members.append(folder(path))
        elif kind == "symlink":
            value = f"to {number}.{place}"
            members.append(symlink(path, value))
        elif kind == "link":
            if any(layer.table.get(it) is not None for it in ancestors(target)):
                continue
            value = layer.table[target] if target in layer.table else below.get(target)
            if value is None or target in (path, *ancestors(path)):
                continue
            members.append(hard_link(path, target))
        else:
            members.append(file(path, f"{number}.{place}".encode()))
        layer.add(path, value)
    for kind, path in removals:
        if kind == "whiteout":
            flat.remove(path)
        else:
            for name in [it for it in flat.table if it.startswith(f"{path}/")]:
                del flat.table[name]
    for path, value in layer.table.items():
        flat.add(path, value)
    return members


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(STEPS, max_size=8), min_size=1, max_size=4))
def test_a_plain_table_of_paths_says_the_same(layers: list[list[tuple[str, str, str]]]) -> None:
    flat = Flat()
    found = files(*[applied(flat, steps, number) for number, steps in enumerate(layers)])
    assert contents(found) == flat.table
    assert unpacked(b"".join(flat_tar(found, ignore))) == flat.table


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000), st.integers(0, 4000), st.integers(0, 255))
def test_damaged_layers_end_in_an_error_or_in_files(junk: bytes, place: int, value: int) -> None:
    layer = bytearray(layer_of_members(LOW))
    layer[place % len(layer)] = value
    for content in (bytes(layer), junk):
        try:
            found = files(content)
        except BadArchive:
            continue
        for path, node in walk(found.root):
            assert ".." not in path.split("/")
            assert isinstance(node, Directory | FileEntry)
        b"".join(flat_tar(found, ignore))


def test_names_become_no_paths() -> None:
    """Nothing of the two modules that deal with names touches the file system."""
    for module in (file_tree, layer_tar):
        assert not {"os", "pathlib", "shutil", "tempfile"} & vars(module).keys()

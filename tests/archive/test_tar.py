# SPDX-License-Identifier: Apache-2.0
"""The index of a tar: names, sizes and links in every dialect, and what hostile archives try."""

from __future__ import annotations

import io
import random
import tarfile
import time
import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arv_docker.archive import tar as tar_module
from arv_docker.archive.tar import Index, normal_name
from arv_docker.errors import BadArchive, ContentError

from ..archives import END, Bytes, member, pax, pax_record, tar

FORMS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
LONG = "folder/" + "x" * 300


def index(content: bytes) -> Index:
    return Index(Bytes(content))


def read(content: bytes, name: str) -> bytes:
    return index(content).read(name, limit=1 << 30)


# -- names ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "name"),
    [
        *((form, LONG) for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)),
        *((form, name) for form in FORMS for name in ("a", "a" * 100, "d" * 90 + "/" + "f" * 90)),
    ],
)
def test_names_of_any_length_in_every_dialect(form: int, name: str) -> None:
    content = tar({name: b"content", "after": b"more"}, form=form)
    assert read(content, name) == b"content"
    assert list(index(content).names()) == [name, "after"]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_link_targets_of_any_length(form: int) -> None:
    assert read(tar({LONG: b"content", "link": LONG}, form=form), "link") == b"content"


def test_a_pax_name_goes_before_the_header_s_and_binds_one_member() -> None:
    content = pax({"path": "näme".encode()}) + member(b"other", b"one") + member(b"after", b"two") + END
    assert list(index(content).names()) == ["näme", "after"]


def test_an_empty_pax_name_is_no_name() -> None:
    assert list(index(pax({"path": b""}) + member(b"file") + END).names()) == ["file"]


def test_global_pax_records_bind_nothing() -> None:
    assert list(index(pax({"path": b"x"}, kind=b"g") + member(b"file") + END).names()) == ["file"]


@pytest.mark.parametrize(
    "content",
    [
        member(b"a", b"evil", kind=b"Z") + member(b"a", b"good"),
        member(b"a/", b"x"),
        pax({"path": b"a"}) + member(b"@LongLink", b"b\0", kind=b"L") + member(b"c", b"x"),
        pax({"path": b"a"}) + pax({"path": b"b"}) + member(b"c", b"x"),
    ],
)
def test_what_readers_take_for_different_things(content: bytes) -> None:
    with pytest.raises(BadArchive):
        index(content + END)


def test_the_prefix_of_posix_headers() -> None:
    assert list(index(member(b"file", prefix=b"some/folder") + END).names()) == ["some/folder/file"]


@pytest.mark.parametrize(
    ("name", "normal"),
    [("./a", "a"), ("a//b", "a/b"), ("a/./b", "a/b"), ("a..b", "a..b"), ("/a/b", "a/b"), ("//a", "a"), ("", "")],
)
def test_normal_names(name: str, normal: str) -> None:
    assert normal_name(name) == normal
    assert read(member(name.encode() or b"\0", b"x") + END, name) == b"x"


@pytest.mark.parametrize("name", ["../x", "/../x", "a/../x", "a/..", ".."])
def test_names_that_leave_the_archive(name: str) -> None:
    for kind in (b"0", b"5"):
        with pytest.raises(BadArchive, match="leave it"):
            index(member(name.encode(), kind=kind) + END)
    with pytest.raises(BadArchive, match="leave it"):
        index(member() + END).file(name)


def test_nul_in_a_name() -> None:
    with pytest.raises(BadArchive, match="leave it"):
        index(pax({"path": b"file\0.json"}) + member() + END)
    assert list(index(member(b"file\0garbage") + END).names()) == ["file"]


def test_names_that_are_no_utf_8_harm_nobody() -> None:
    assert read(member(b"\xff\xfe", b"x") + member(b"file", b"y") + END, "file") == b"y"


def test_a_name_that_stands_twice() -> None:
    content = member(b"a", b"1") + member(b"./a", b"2") + member(b"b") + END
    with pytest.raises(BadArchive, match="more than once"):
        read(content, "a")
    assert read(content, "b") == b""


def test_a_missing_file() -> None:
    with pytest.raises(BadArchive, match="no file 'b'"):
        index(member(b"a") + END).file("b")


def test_folders_and_special_files_are_left_out() -> None:
    kinds = [b"3", b"4", b"5", b"6"]
    content = b"".join(member(b"x" + kind, kind=kind) for kind in kinds) + member(b"file") + END
    assert list(index(content).names()) == ["file"]


# -- links ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "target"),
    [
        (b"b/layer.tar", b"2", b"../a/layer.tar"),
        (b"link", b"2", b"a/layer.tar"),
        (b"link", b"2", b"./a//layer.tar"),
        (b"a/link", b"2", b"layer.tar"),
        (b"b/link", b"1", b"a/layer.tar"),
        (b"a/b/link", b"2", b"../../a/layer.tar"),
    ],
)
def test_one_link_is_followed(name: bytes, kind: bytes, target: bytes) -> None:
    content = member(b"a/layer.tar", b"content") + member(name, kind=kind, target=target) + END
    assert read(content, name.decode()) == b"content"


def test_links_to_links_are_followed() -> None:
    content = member(b"a", b"x") + member(b"b", kind=b"2", target=b"a") + member(b"c", kind=b"1", target=b"b") + END
    assert read(content, "c") == b"x"


def test_a_link_to_itself() -> None:
    with pytest.raises(BadArchive, match="other links"):
        index(member(b"a", kind=b"1", target=b"a") + END).file("a")


@pytest.mark.parametrize("kind", [b"1", b"2"])
@pytest.mark.parametrize("target", [b"/etc/passwd", b"../../etc/passwd", b"a/../../x", b"..", b"../.."])
def test_links_that_leave_the_archive(kind: bytes, target: bytes) -> None:
    """Whoever follows one is told; one that nobody follows is nobody's."""
    found = index(member(b"link", kind=kind, target=target) + END)
    with pytest.raises(BadArchive, match="leads out of the archive, to ") as refused:
        found.file("link")
    assert target.rpartition(b"/")[2].decode() in refused.value.message


def test_nul_in_a_link_s_target() -> None:
    with pytest.raises(BadArchive, match="is no name"):
        index(pax({"linkpath": b"a\0b"}) + member(b"link", kind=b"2") + END)


@pytest.mark.parametrize("target", [b"missing", b"", b"."])
def test_a_link_to_nothing(target: bytes) -> None:
    with pytest.raises(BadArchive, match="which the link 'link' leads to"):
        index(member(b"link", kind=b"2", target=target) + END).file("link")


def test_a_link_to_a_name_that_stands_twice() -> None:
    with pytest.raises(BadArchive, match="more than once"):
        index(member(b"a", b"x") + member(b"a", b"y") + member(b"link", kind=b"2", target=b"a") + END).file("link")
    assert read(member(b"a", b"x") * 3 + END, "a") == b"x"


# -- sizes ------------------------------------------------------------------------------


def test_sizes_in_base_256() -> None:
    content = member(b"a", b"content", size=b"\x80" + (7).to_bytes(11, "big")) + member(b"b", b"x") + END
    assert read(content, "a") == b"content"
    assert read(content, "b") == b"x"


@pytest.mark.parametrize("size", [8 << 30, 20 << 30, 1 << 60])
def test_a_size_beyond_the_archive(size: int) -> None:
    with pytest.raises(BadArchive, match=f"should have {size} bytes"):
        index(member(size=b"\x80" + size.to_bytes(11, "big")) + END)


@pytest.mark.parametrize(
    "size",
    [
        b"\xff" * 12,
        b"\xff" + (-512 & (1 << 88) - 1).to_bytes(11, "big"),
        b"\xc0".ljust(12, b"\0"),
        b"-0000001000\0",
        b"-1\0".ljust(12, b"\0"),
        b"+0000000001\0",
        b"0o000000001\0",
        b"1_0\0".ljust(12, b"\0"),
        b"1 1\0".ljust(12, b"\0"),
        b"0000000009\0 ",
        b"0x1\0".ljust(12, b"\0"),
        b"garbage\0    ",
    ],
)
def test_sizes_that_are_none(size: bytes) -> None:
    """A negative one would lead back to its own header, for ever."""
    started = time.process_time()
    with pytest.raises(BadArchive, match=r"negative size|no octal number"):
        index(member(b"a") + member(b"b", size=size) + END)
    assert time.process_time() - started < 20


@pytest.mark.parametrize("size", [b"\0" * 12, b" " * 12, b"          0 ", b"00000000000 "])
def test_empty_sizes(size: bytes) -> None:
    assert read(member(b"a", size=size) + member(b"b", b"x") + END, "b") == b"x"


def test_a_pax_size_goes_before_the_header_s() -> None:
    content = pax({"size": b"7"}) + member(b"a", b"content", size=b"%011o\0" % 0) + member(b"b", b"x") + END
    assert read(content, "a") == b"content"
    assert read(content, "b") == b"x"


@pytest.mark.parametrize("size", [b"-1", b"", b" 1", b"1.0", b"0x1", "١".encode(), b"9" * 20, b"1_0"])
def test_pax_sizes_that_are_none(size: bytes) -> None:
    with pytest.raises(BadArchive, match="malformed size"):
        index(pax({"size": size}) + member() + END)


def test_a_pax_size_is_not_that_of_a_long_name_which_follows() -> None:
    """Go and GNU tar count a long name by its own header; a reader that does not sees another archive."""
    content = pax({"size": b"7"}) + member(b"@", b"name\0", kind=b"L") + member(b"x", b"content", size=b"%011o\0" % 0)
    assert read(content + END, "name") == b"content"


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"5", b"6"])
def test_no_content_follows_what_is_no_file_whatever_its_size_says(kind: bytes) -> None:
    content = member(b"x", kind=kind, target=b"file", size=b"%011o\0" % 1024) + member(b"file", b"content") + END
    assert read(content, "file") == b"content"
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert archive.getnames() == ["x", "file"]


@pytest.mark.parametrize(
    "sparse", [member(kind=b"S"), *(pax({key: b"1"}) + member() for key in ("GNU.sparse.major", "GNU.sparse.map"))]
)
def test_sparse_members(sparse: bytes) -> None:
    with pytest.raises(BadArchive, match="sparse"):
        index(sparse + END)


# -- bounds -----------------------------------------------------------------------------


def test_no_more_members_than_images_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_module, "MAX_MEMBERS", 5)
    members = [member(b"%d" % number) for number in range(6)]
    assert len(list(index(b"".join(members[:5]) + END).names())) == 5
    with pytest.raises(BadArchive, match="more than 5 members"):
        index(b"".join(members) + END)


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g"])
def test_no_more_metadata_than_names_need(monkeypatch: pytest.MonkeyPatch, kind: bytes) -> None:
    monkeypatch.setattr(tar_module, "MAX_METADATA", 1000)
    with pytest.raises(BadArchive, match="1001 bytes"):
        index(member(b"@", b"x" * 1001, kind=kind) + member() + END)


def test_no_longer_names_than_images_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are all in memory, and each may be as long as its metadata record."""
    monkeypatch.setattr(tar_module, "MAX_NAMES", 500)
    members = [pax({"path": b"%d" % number * 100}) + member() for number in range(6)]
    assert len(list(index(b"".join(members[:5]) + END).names())) == 5
    with pytest.raises(BadArchive, match="more than 500"):
        index(b"".join(members) + END)
    with pytest.raises(BadArchive, match="more than 500"):
        index(pax({"linkpath": b"x" * 500}) + member(b"a", kind=b"1") + END)


def test_pax_records_of_no_use_are_not_kept() -> None:
    """Header may follow header, without a member between."""
    headers = (pax({f"{number}.{place}": b"" for place in range(500)}) for number in range(60))
    content = b"".join(headers) + member(b"a") + END
    tracemalloc.start()
    try:
        assert list(index(content).names()) == ["a"]
        assert tracemalloc.get_traced_memory()[1] < len(content) // 2
    finally:
        tracemalloc.stop()


def test_the_most_pax_records_that_fit_take_no_time() -> None:
    records = pax_record(b"a", b"") * (tar_module.MAX_METADATA // 5)
    started = time.process_time()
    index(member(b"@", records, kind=b"x") + member() + END)
    assert time.process_time() - started < 20


def test_a_read_has_a_limit() -> None:
    with pytest.raises(BadArchive, match="8 bytes; at most 7"):
        index(member(b"a", b"12345678") + END).read("a", limit=7)


def test_headers_alone_are_read() -> None:
    source = Bytes(b"".join(member(b"%d" % number, bytes(5000)) for number in range(10)) + END)
    Index(source)
    assert source.reads == 11


# -- damage -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "records",
    [
        b"garbage",
        b"5 a=b",
        b"99 path=x\n",
        b"0 path=x\n",
        b"-1 path=x\n",
        b"1 path=x\n",
        b"8 path=x\n",
        b"6 path\n",
        b"99999999 path=x\n",
        b" path=x\n",
        "٩ a=bcd\n".encode(),
    ],
)
def test_malformed_pax_records(records: bytes) -> None:
    with pytest.raises(BadArchive, match="malformed PAX"):
        index(member(b"@", records, kind=b"x") + member() + END)


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 511, b"x" * 512, b"x" * 5000, b"{}", b"\x7fELF".ljust(512)])
def test_what_is_no_tar(content: bytes) -> None:
    with pytest.raises(BadArchive):
        index(content)


@pytest.mark.parametrize("checksum", [b"000000\0 ", b"\0" * 8, b"zzzzzz\0 "])
def test_a_wrong_checksum(checksum: bytes) -> None:
    with pytest.raises(BadArchive, match=r"byte 512|no octal number"):
        index(member(b"a") + member(b"b", checksum=checksum) + END)


def test_what_follows_the_end_does_not_count() -> None:
    assert list(index(member(b"a") + END + member(b"b") + b"garbage").names()) == ["a"]


SMALL = (
    pax({"path": b"long/name"})
    + member(b"a", b"content" * 100)
    + member(b"@", b"other/name\0", kind=b"L")
    + member(b"b", b"x", size=b"\x80" + (1).to_bytes(11, "big"))
    + member(b"link", kind=b"2", target=b"long/name")
    + END
)
NAMES = ["long/name", "other/name", "link"]


def contents(content: bytes) -> dict[str, bytes]:
    found = index(content)
    return {name: found.read(name, limit=1 << 20) for name in found.names()}


def test_cut_at_every_byte() -> None:
    """A part of a tar raises our error, or reads as the members that are whole."""
    whole = contents(SMALL)
    assert list(whole) == NAMES
    for length in range(len(SMALL)):
        try:
            part = contents(SMALL[:length])
        except BadArchive:
            continue
        assert part.items() <= whole.items()
        if length < len(SMALL) - len(END) - 512:
            assert len(part) < len(whole)


@given(st.data())
def test_any_changed_bytes_raise_our_error_or_read(data: st.DataObject) -> None:
    content = bytearray(SMALL)
    for place in data.draw(st.lists(st.integers(0, len(SMALL) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):  # a forger fixes the checksums
        for start in (0, 1024, 2560, 3584, 4608):
            content[start + 148 : start + 156] = b" " * 8
            content[start + 148 : start + 156] = b"%06o\0 " % sum(content[start : start + 512])
    with suppress(ContentError):
        contents(bytes(content))


@given(st.binary(max_size=2000))
def test_any_bytes_raise_our_error_or_read(content: bytes) -> None:
    with suppress(ContentError):
        contents(content)


def test_random_headers_with_good_checksums() -> None:
    """Ten thousand forgeries of one header: never an error of Python's, never a hang."""
    dice = random.Random(7)
    for _ in range(10_000):
        header = bytearray(member(b"a", b"x" * 600))
        for _ in range(dice.randrange(1, 6)):
            header[dice.randrange(0, 512)] = dice.randrange(256)
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header[:512])
        with suppress(ContentError):
            contents(bytes(header) + END)


_names = st.text(st.sampled_from("abü/."), min_size=1, max_size=150).map(lambda text: text.strip("/."))
_safe = _names.filter(lambda name: name and ".." not in name.split("/") and normal_name(name) == name)


@given(
    st.dictionaries(_safe, st.binary(max_size=1500), max_size=5),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_whatever_the_standard_library_writes_reads_back(files: dict[str, bytes], form: int) -> None:
    content = tar(files, form=form)
    if not files:
        assert list(index(content).names()) == []
        return
    assert contents(content) == files

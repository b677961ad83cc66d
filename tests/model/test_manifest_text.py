# SPDX-License-Identifier: Apache-2.0
"""Manifest text: the grammar with the edges that a running server showed, PDHs, files and their bytes."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arv_docker.errors import BadManifestText
from arv_docker.model import manifest_text
from arv_docker.model.manifest_text import FileToken, Locator, Segment, Stream

A, B, C = ("a" * 32, "b" * 32, "c" * 32)


# -- grammar ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        f". {A}+3 0:3:f\n",
        f". {A} 0:0:f\n",
        f". {A.upper()}+3 0:3:f\n",  # upper case is valid grammar
        f". {A}+3+Zhint 0:3:f\n",
        f". {A}+3+A{'0' * 40}@12345678+K@zzzzz 0:3:f\n",
        f". {A}+3+A 0:3:f\n",
        f". {A}+3 {B}+4 0:3:f 3:4:g 0:7:h\n",
        f"./dir {A}+3 0:3:f\n",
        f"./a/b/c {A}+3 0:3:f\n",
        f". {A}+3 0:3:f\n./d {B}+1 0:1:g\n",
        f". {A}+3 0:3:a/b/c\n",
        f". {A}+3 0:3:sha256:{C}.tar\n",
        f". {A}+3 0:3:sha256\\072{C}.tar\n",
        f". {A}+3 0:0:.\n",
        f". {A}+3 0:0:\\056\n",
        f".\\057a {A}+3 0:3:f\n",  # an escaped first slash
        f"\\056/a {A}+3 0:3:f\n",
        f". {A}+3 0:3:x\x7fy\u00a0z\u2028w\n",  # DEL, NBSP and LINE SEPARATOR are allowed
        f". {A}+3 0:3:...\n",
        f". {A}+3 0:3:a\\040b\\134c\\012d\n",
        f". {A}+3 0:3:\\377\n",
        f". {A}+3 {2**63 - 1}:0:f\n",
    ],
)
def test_valid_text(text: str) -> None:
    assert isinstance(manifest_text.parse(text), tuple)


@pytest.mark.parametrize(
    "text",
    [
        "\n",
        " ",
        f". {A}+3 0:3:f",
        f". {A}+3 0:3:f\n\n",
        f". {A}+3 0:3:f\r\n",
        f"\n. {A}+3 0:3:f\n",
        f". {A}+3  0:3:f\n",
        f" . {A}+3 0:3:f\n",
        f". {A}+3 0:3:f \n",
        f".\t{A}+3 0:3:f\n",
        f". {A}+3\n",
        ". 0:0:f\n",
        ".\n",
        f"{A}+3 0:3:f\n",
        f". 0:3:f {A}+3\n",
        f". {A}+3 0:3:f {B}+3\n",
        f". {A[1:]}+3 0:3:f\n",
        f". {A}0+3 0:3:f\n",
        f". {'g' * 32}+3 0:3:f\n",
        f". {A}+ 0:3:f\n",
        f". {A}+3+ 0:3:f\n",
        f". {A}+3+a 0:3:f\n",
        f". {A}+-3 0:3:f\n",
        f". {A}+٣ 0:3:f\n",
        f". {A}+3+A! 0:3:f\n",
        f"dir {A}+3 0:3:f\n",
        f"/ {A}+3 0:3:f\n",
        f"./ {A}+3 0:3:f\n",
        f".// {A}+3 0:3:f\n",
        f"./a//b {A}+3 0:3:f\n",
        f"./a/ {A}+3 0:3:f\n",
        f"./. {A}+3 0:3:f\n",
        f"./.. {A}+3 0:3:f\n",
        f"./a/../b {A}+3 0:3:f\n",
        f".. {A}+3 0:3:f\n",
        f". {A}+3 0:3:\n",
        f". {A}+3 0:3\n",
        f". {A}+3 :3:f\n",
        f". {A}+3 -1:3:f\n",
        f". {A}+3 0:٣:f\n",
        f". {A}+3 0:3:/f\n",
        f". {A}+3 0:3:f/\n",
        f". {A}+3 0:3:a//b\n",
        f". {A}+3 0:3:..\n",
        f". {A}+3 0:3:a/../b\n",
        f". {A}+3 0:3:./f\n",
        f". {A}+3 0:1:.\n",
        f". {A}+3 1:0:.\n",
        f". {A}+3 0:0:..\n",
        f". {A}+3 0:0:\\056\\056\n",
        f". {A}+3 0:3:a\\\\b\n",  # a doubled backslash is no escape
        f". {A}+3 0:3:a\\b\n",
        f". {A}+3 0:3:a\\08\n",
        f". {A}+3 0:3:a\\400\n",  # beyond 8 bits
        f". {A}+3 0:3:a\\\n",
        f". {A}+3 0:3:a\tb\n",
        f". {A}+3 0:3:a\rb\n",
        f". {A}+3 0:3:a\0b\n",
        f". {A}+3 0:3:a\\057\n",  # an escaped slash at the end is an empty part
        f". {A}+3 {2**63}:0:f\n",  # beyond 63 bits
        f". {A}+{2**63} 0:0:f\n",
        f". {A}+3 0:{'9' * 5000}:f\n",
        f". {A}+3 0:3:\ud800\n",
        f". {A}+3 0:3:\ud800\\072\n",
    ],
)
def test_malformed_text(text: str) -> None:
    with pytest.raises(BadManifestText):
        manifest_text.parse(text)


def test_a_message_says_which_line() -> None:
    with pytest.raises(BadManifestText, match="line 2"):
        manifest_text.parse(f". {A}+3 0:3:f\n./d {A}+3 x\n")


def test_what_is_parsed() -> None:
    text = f"./d\\040x {A}+3+A1@2 {B} 0:3:sha256\\072x 1:1:g\n"
    assert manifest_text.parse(text) == (
        Stream(
            "./d x",
            (Locator(A, 3, "+A1@2"), Locator(B, None)),
            (FileToken(0, 3, "sha256:x"), FileToken(1, 1, "g")),
        ),
    )


def test_locators() -> None:
    locator = Locator.parse(f"{A}+3+Kx+A{'0' * 40}@12345678")
    assert (locator.without_hints, str(locator)) == (f"{A}+3", f"{A}+3+Kx+A{'0' * 40}@12345678")
    assert Locator.parse(A).without_hints == A
    with pytest.raises(BadManifestText):
        Locator.parse(f"{A}+3 ")
    text = f". {A}+3+A1 {B}+4 0:7:f\n./d {A}+3+A1 0:3:g\n"
    assert [found.without_hints for found in manifest_text.locators(manifest_text.parse(text))] == [
        f"{A}+3",
        f"{B}+4",
        f"{A}+3",
    ]


@given(st.text(max_size=80))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with suppress(BadManifestText):
        manifest_text.files(manifest_text.parse(text))
    with suppress(BadManifestText):
        manifest_text.pdh(text)


_tokens = st.one_of(
    st.text(st.sampled_from("./ab\\0567:\x00 \n\té\ud800"), max_size=12),
    st.sampled_from([".", "./a", f"{A}+3", f"{B}+5+Ax", "0:3:f", "0:0:.", "1:2:\\056", "3:9:f", f"0:{10**18}:f"]),
)


@given(st.lists(_tokens, max_size=8).map(lambda tokens: " ".join(tokens) + "\n"))
def test_any_line_of_tokens_is_parsed_or_refused(text: str) -> None:
    with suppress(BadManifestText):
        for path, segments in manifest_text.files(manifest_text.parse(text)).items():
            assert path
            assert all(0 < part.length <= (part.locator.size or 0) - part.offset for part in segments)


# -- portable data hashes ---------------------------------------------------------------


def test_pdh_of_the_empty_collection() -> None:
    assert manifest_text.pdh("") == "d41d8cd98f00b204e9800998ecf8427e+0"


def test_pdh_of_the_traced_example() -> None:
    """The text of an image of two blocks is 175 bytes long
    (docs/spec/arvados-collections.md#portable-data-hash)."""
    text = manifest_text.single_file(f"sha256:{C * 2}.tar", 73410560, [f"{A}+67108864", f"{B}+6301696"])
    assert manifest_text.pdh(text) == "a67b55cde3ca92aad775c5e4a35fcc3c+175"


def test_pdh_knows_no_hints() -> None:
    bare = f". {A}+3 {B} 0:3:f\n"
    signed = f". {A}+3+A{'0' * 40}@12345678+Kzzzzz {B}+Zx 0:3:f\n"
    assert manifest_text.without_hints(signed) == bare
    assert manifest_text.pdh(signed) == manifest_text.pdh(bare)


def test_pdh_leaves_file_tokens_and_names_alone() -> None:
    text = f"./{A}+3+Ax {A}+3 0:3:f+Ax\n"
    assert manifest_text.without_hints(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{A}+3", True),
        (f"{A}+0", True),
        (A, False),
        (f"{A.upper()}+3", False),
        (f"{A}+3+A1", False),
        (f"{A}+3\n", False),
        (f"{A}+٣", False),
        ("", False),
    ],
)
def test_is_pdh(text: str, expected: bool) -> None:
    assert manifest_text.is_pdh(text) is expected


# -- names ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("sha256:x.tar", "sha256\\072x.tar"),
        ("a b", "a\\040b"),
        ("a\\b", "a\\134b"),
        ("a\nb\tc\0", "a\\012b\\011c\\000"),
        ("é\u2028\x7f", "é\u2028\x7f"),
    ],
)
def test_escape(name: str, escaped: str) -> None:
    assert manifest_text.escape(name) == escaped
    assert manifest_text.unescape(escaped) == name


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_name_comes_back(name: str) -> None:
    escaped = manifest_text.escape(name)
    assert manifest_text.unescape(escaped) == name
    assert not set(escaped) & set(map(chr, range(33)))


_name = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/"), min_size=1)


@pytest.mark.conforms("K24")
@given(_name.filter(lambda name: name not in (".", "..")), st.integers(0, 2**62))
def test_a_single_file_is_read_back(name: str, size: int) -> None:
    found = manifest_text.files(manifest_text.parse(manifest_text.single_file(name, size, [f"{A}+{size}"])))
    assert {path: sum(part.length for part in parts) for path, parts in found.items()} == {name: size}


def test_a_single_file_without_blocks() -> None:
    assert manifest_text.single_file("f", 0, []) == ". d41d8cd98f00b204e9800998ecf8427e+0 0:0:f\n"


# -- files ------------------------------------------------------------------------------


def segments_of(text: str) -> dict[str, list[tuple[str, int, int]]]:
    return {
        path: [(part.locator.md5[0], part.offset, part.length) for part in parts]
        for path, parts in manifest_text.files(manifest_text.parse(text)).items()
    }


def test_files_and_their_bytes() -> None:
    text = f". {A}+10 {B}+20 {C}+30 0:10:whole 5:10:across 10:0:empty 9:22:three 59:1:last\n./d {A}+10 3:4:sub/f\n"
    assert segments_of(text) == {
        "whole": [("a", 0, 10)],
        "across": [("a", 5, 5), ("b", 0, 5)],
        "empty": [],
        "three": [("a", 9, 1), ("b", 0, 20), ("c", 0, 1)],
        "last": [("c", 29, 1)],
        "d/sub/f": [("a", 3, 4)],
    }


def test_repeated_names_are_one_file_in_order() -> None:
    text = f". {A}+10 5:5:f 0:5:f 0:0:f\n./d {B}+10 0:1:f\n. {B}+10 0:2:f\n"
    assert segments_of(text) == {"f": [("a", 5, 5), ("a", 0, 5), ("b", 0, 2)], "d/f": [("b", 0, 1)]}


def test_empty_folders_are_no_files() -> None:
    assert segments_of(f". {A}+10 0:0:. 0:10:f\n./d {manifest_text.EMPTY_BLOCK} 0:0:\\056\n") == {"f": [("a", 0, 10)]}


def test_empty_blocks_hold_nothing() -> None:
    assert segments_of(f". {manifest_text.EMPTY_BLOCK} {A}+1 {manifest_text.EMPTY_BLOCK} {B}+1 0:2:f\n") == {
        "f": [("a", 0, 1), ("b", 0, 1)]
    }


@pytest.mark.parametrize("token", ["0:11:f", "10:1:f", "11:0:f", f"{2**62}:1:f"])
def test_a_file_beyond_its_blocks(token: str) -> None:
    with pytest.raises(BadManifestText, match="reaches beyond"):
        segments_of(f". {A}+10 {token}\n")


def test_a_block_without_a_size_holds_nothing() -> None:
    with pytest.raises(BadManifestText, match="reaches beyond"):
        segments_of(f". {A} 0:1:f\n")


_blocks = st.lists(st.integers(0, 9), min_size=1, max_size=6)


@given(_blocks, st.data())
def test_segments_are_the_bytes_that_a_slice_gives(sizes: list[int], data: st.DataObject) -> None:
    contents = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
    whole = b"".join(contents)
    start = data.draw(st.integers(0, len(whole)))
    length = data.draw(st.integers(0, len(whole) - start))
    blocks = " ".join(f"{number:032x}+{size}" for number, size in enumerate(sizes))
    ((parts,),) = (manifest_text.files(manifest_text.parse(f". {blocks} {start}:{length}:f\n")).values(),)
    read = [contents[int(part.locator.md5, 16)][part.offset : part.offset + part.length] for part in parts]
    assert b"".join(read) == whole[start : start + length]
    assert all(isinstance(part, Segment) and part.length for part in parts)


def test_a_collection_of_many_files_and_blocks_is_read_in_time() -> None:
    blocks = " ".join(f"{number:032x}+10" for number in range(20_000))
    tokens = " ".join(f"{number * 10}:10:f{number}" for number in range(20_000))
    started = time.process_time()
    assert len(manifest_text.files(manifest_text.parse(f". {blocks} {tokens}\n"))) == 20_000
    assert time.process_time() - started < 30


def test_blocks_used_over_and_over_do_not_fill_the_memory() -> None:
    blocks = " ".join(f"{number:032x}+10" for number in range(20_000))
    text = f". {blocks} " + " ".join(["0:200000:f"] * 10_000) + "\n"
    started = time.process_time()
    with pytest.raises(BadManifestText, match="over and over"):
        manifest_text.files(manifest_text.parse(text))
    assert time.process_time() - started < 30

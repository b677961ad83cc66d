# SPDX-License-Identifier: Apache-2.0
"""The canonical archive, layout 1: its bytes as literals, and the block rule as properties."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arv_docker.archive import canonical
from arv_docker.archive.canonical import ALIGNED_SPAN, BLOCK_SIZE, Layout
from arv_docker.archive.layer import Layer
from arv_docker.archive.reader import ArchiveReader
from arv_docker.errors import BadArchive, DigestMismatch
from arv_docker.model import manifest_text
from arv_docker.model.image import Config, Digest

from ..archives import Bytes, canonical_archive, files_of, image, layer_of

ZEROS = bytes(1024)
VECTOR = (
    b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":'
    b'["sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"]}}'
)
EMPTY = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'

MIB = 1 << 20


def layout_of(raw: bytes, *sizes: int) -> Layout:
    config = Config.parse(raw)
    return canonical.layout(config, dict(zip(config.distinct_diff_ids, sizes, strict=True)))


def archive_of(layout: Layout) -> bytes:
    return b"".join(canonical.content(layout, lambda _: layer_of(ZEROS)))


def locators(layout: Layout) -> list[str]:
    content, start, found = archive_of(layout), 0, []
    for size in layout.block_sizes():
        found.append(f"{hashlib.md5(content[start : start + size]).hexdigest()}+{size}")
        start += size
    return found


# -- the test vectors -------------------------------------------------------------------


def test_vector_digests() -> None:
    layout = layout_of(VECTOR, 1024)
    assert layout.config.digest.hex == "83656ea199d8d74b56ef7fe4a0bef9dd10aa412ec632f8ccdf3e0c903471c0a2"
    assert layout.manifest_digest.hex == "2610400cbe43690060eb8b4d0cbea3941c77c51ffee5a11b9b4683499e74f649"


def test_vector_archive() -> None:
    layout = layout_of(VECTOR, 1024)
    content = archive_of(layout)
    assert hashlib.sha256(content).hexdigest() == "38e98b6cc5b8e4d503d8ef2c34118749a8a6f556ed3f2c71835ca50cbc63c7dd"
    assert len(content) == layout.size == 8704


def test_vector_blocks_and_portable_data_hashes() -> None:
    layout = layout_of(VECTOR, 1024)
    blocks = locators(layout)
    assert blocks == [
        "8e36095e9b456bba3da3b76d8510fc0d+6144",
        "d31ad9bea4f2994c0e95ff4ce0d63536+1536",
        "0f343b0931126a20f133d67c2b018a3b+1024",
    ]
    by_config = manifest_text.single_file(f"{layout.config.digest}.tar", layout.size, blocks)
    by_manifest = manifest_text.single_file(f"{layout.manifest_digest}.tar", layout.size, blocks)
    assert manifest_text.pdh(by_config) == "f986fd38ed501c5fe99db8da54c5a21b+202"
    assert manifest_text.pdh(by_manifest) == "3efe9f86df6c8c74670c3138da8df4c3+202"


def test_vector_of_the_empty_image() -> None:
    layout = layout_of(EMPTY)
    content = archive_of(layout)
    assert hashlib.sha256(content).hexdigest() == "1746443f527c3cb9e251f99997b1bdbe259d1ba1853d80136433d28214ee8018"
    text = manifest_text.single_file(f"{layout.config.digest}.tar", layout.size, locators(layout))
    assert manifest_text.pdh(text) == "1ddb0cb552d18a9c9eca0da19377ee39+164"


# -- the archive ------------------------------------------------------------------------

LOW, HIGH = files_of(b"low"), files_of(b"high")
APP = image(LOW, HIGH, LOW, os="linux")


def test_the_standard_library_reads_it() -> None:
    content = canonical_archive(APP)
    layout = canonical.layout(APP.parsed, APP.sizes)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = archive.getmembers()
        files = {entry.name: file.read() for entry in members if (file := archive.extractfile(entry))}
    assert [entry.name for entry in members] == [
        "blobs",
        "blobs/sha256",
        "oci-layout",
        "index.json",
        "manifest.json",
        f"blobs/sha256/{layout.manifest_digest.hex}",
        f"blobs/sha256/{APP.parsed.digest.hex}",
        f"blobs/sha256/{Digest.of(LOW).hex}",
        f"blobs/sha256/{Digest.of(HIGH).hex}",
    ]
    assert [entry.type for entry in members] == [tarfile.DIRTYPE] * 2 + [tarfile.REGTYPE] * 7
    assert {(entry.uid, entry.gid, entry.mtime, entry.uname, entry.gname) for entry in members} == {(0, 0, 0, "", "")}
    assert [entry.mode for entry in members] == [0o755] * 2 + [0o644] * 7
    for name, blob in files.items():
        if name.startswith("blobs/"):
            assert hashlib.sha256(blob).hexdigest() == name.removeprefix("blobs/sha256/")


def test_its_documents_name_each_other() -> None:
    content = canonical_archive(APP)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:

        def document(name: str) -> dict[str, object]:
            file = archive.extractfile(name)
            assert file is not None
            found = json.load(file)
            return dict(found[0] if isinstance(found, list) else found)

        index = document("index.json")
        (named,) = index["manifests"]  # type: ignore[misc]
        oci = document("blobs/sha256/" + named["digest"].removeprefix("sha256:"))  # type: ignore[has-type]
        docker = document("manifest.json")
    low, high = (str(Digest.of(layer)) for layer in (LOW, HIGH))
    assert [(layer["digest"], layer["size"]) for layer in oci["layers"]] == [  # type: ignore[attr-defined]
        (low, len(LOW)),
        (high, len(HIGH)),
        (low, len(LOW)),
    ]
    assert docker["Layers"] == [f"blobs/sha256/{name.removeprefix('sha256:')}" for name in (low, high, low)]
    assert docker["RepoTags"] is None


def test_it_is_a_docker_archive_to_ourselves_too() -> None:
    found = ArchiveReader(Bytes(canonical_archive(APP))).image()
    assert (found.config, found.sizes, found.tags) == (APP.parsed, APP.sizes, ())


def test_it_is_the_same_from_every_order_of_sizes() -> None:
    assert canonical.layout(APP.parsed, APP.sizes) == canonical.layout(
        APP.parsed, dict(reversed(list(APP.sizes.items())))
    )


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, (8 << 30) - 1])
def test_a_header_below_8_gib_is_the_one_of_the_standard_library(size: int) -> None:
    expected = tarfile.TarInfo(f"blobs/sha256/{'a' * 64}")
    expected.size, expected.mode = size, 0o644
    header = canonical.layer_header(Digest.sha256("a" * 64), size)
    theirs = expected.tobuf(tarfile.USTAR_FORMAT)
    # Two fields differ: device numbers, which we leave NUL and it writes as zeros, and the checksum over them.
    assert header[:148] + header[156:329] + header[345:] == theirs[:148] + theirs[156:329] + theirs[345:]
    assert header[124:136] == b"%011o\0" % size
    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == size


@pytest.mark.parametrize("size", [8 << 30, (8 << 30) + 1, 20 << 30, 1 << 60])
def test_a_header_from_8_gib_on_is_in_base_256(size: int) -> None:
    header = canonical.layer_header(Digest.sha256("a" * 64), size)
    assert header[124:136] == b"\x80" + size.to_bytes(11, "big")
    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == size


# -- no complete archive of a wrong image -----------------------------------------------


@pytest.mark.parametrize("length", [1, MIB - 1, MIB, MIB + 1, 3 * MIB])
def test_the_last_bytes_of_a_bad_layer_are_withheld(length: int) -> None:
    """Whatever is handed out, neither the bad layer's last bytes nor the end of the tar are among it."""
    good, bad = bytes(length), bytes(length - 1) + b"x"
    layout = canonical.layout(image(good).parsed, {Digest.of(good): length})
    chunks = canonical.content(layout, lambda _: layer_of(bad, claimed=Digest.of(good)))
    handed_out: list[bytes] = []
    with pytest.raises(DigestMismatch):
        handed_out.extend(chunks)
    before_the_end = max(0, length // MIB - 1) * MIB
    assert b"".join(handed_out) == layout.head + layout.spans[0].header + bad[:before_the_end]


def test_a_layer_that_is_cut_short_raises_before_its_last_bytes() -> None:
    good = b"x" * 5000
    layout = canonical.layout(image(good).parsed, {Digest.of(good): 5000})
    short = Layer(io.BytesIO(good[:-1]).read, claimed=Digest.of(good), size=5000)
    chunks = canonical.content(layout, lambda _: short)
    assert len(next(chunks) + next(chunks)) == len(layout.head) + 512
    with pytest.raises(BadArchive):
        next(chunks)


# -- the block rule ---------------------------------------------------------------------

_GIB = 1 << 30
_sizes = st.lists(
    st.one_of(
        st.integers(0, 40 * MIB),
        st.integers(0, 3 * _GIB),
        st.integers(ALIGNED_SPAN - 2000, ALIGNED_SPAN + 2000),
        st.integers(BLOCK_SIZE - 2000, BLOCK_SIZE + 2000),
        st.integers(2 * BLOCK_SIZE - 2000, 2 * BLOCK_SIZE + 2000),
    ),
    max_size=12,
)


def layout_with(sizes: list[int]) -> Layout:
    digests = [Digest.of(b"%d" % number) for number in range(len(sizes))]
    rootfs = {"type": "layers", "diff_ids": list(map(str, digests))}
    config = Config.parse(json.dumps({"rootfs": rootfs}).encode())
    return canonical.layout(config, dict(zip(digests, sizes, strict=True)))


@given(_sizes)
def test_blocks_add_up_and_fit(sizes: list[int]) -> None:
    layout = layout_with(sizes)
    blocks = layout.block_sizes()
    assert sum(blocks) == layout.size
    assert layout.size % 512 == 0
    assert all(0 < block <= BLOCK_SIZE for block in blocks)
    assert len(blocks) <= layout.size // BLOCK_SIZE + len(layout.aligned_spans) + 3


@given(_sizes)
def test_packed_layers_come_first_each_group_in_order_of_first_use(sizes: list[int]) -> None:
    layout = layout_with(sizes)
    assert layout.spans == layout.packed_spans + layout.aligned_spans
    order = list(layout.config.distinct_diff_ids)
    for group in (layout.packed_spans, layout.aligned_spans):
        assert [span.diff_id for span in group] == sorted((span.diff_id for span in group), key=order.index)
    assert all(span.length >= ALIGNED_SPAN for span in layout.aligned_spans)
    assert all(span.length < ALIGNED_SPAN for span in layout.packed_spans)
    place = len(layout.head)
    for span in layout.spans:
        assert span.offset == place
        place += span.length


@given(_sizes, st.integers(ALIGNED_SPAN, 3 * BLOCK_SIZE))
def test_an_aligned_layer_is_cut_alike_in_every_image(sizes: list[int], size: int) -> None:
    """Its blocks start with its header, and no other layer has a byte in them."""
    layout = layout_with([*sizes, size])
    starts, place = [], 0
    for block in layout.block_sizes():
        starts.append(place)
        place += block
    for span in layout.aligned_spans:
        own = [start - span.offset for start in starts if span.offset <= start < span.offset + span.length]
        assert own == list(range(0, span.length, BLOCK_SIZE))


@pytest.mark.parametrize(
    ("size", "aligned"),
    [
        (ALIGNED_SPAN - 1024, False),
        (ALIGNED_SPAN - 1023, True),
        (ALIGNED_SPAN - 512, True),
        (0, False),
    ],
)
def test_the_span_decides_what_is_aligned(size: int, aligned: bool) -> None:
    (span,) = layout_with([size]).spans
    assert span.is_aligned is aligned


def test_blocks_of_a_known_image() -> None:
    layout = layout_with([10 * MIB, 100 * MIB, 60 * MIB, 20 * MIB, 1024])
    head = len(layout.head)
    assert layout.block_sizes() == (
        head,
        10 * MIB + 512 + 1024 + 512,
        BLOCK_SIZE,
        36 * MIB + 512,
        60 * MIB + 512,
        20 * MIB + 512,
        1024,
    )


def test_many_packed_layers_are_cut_every_64_mib() -> None:
    layout = layout_with([15 * MIB] * 9)
    run = 9 * (15 * MIB + 512)
    assert layout.block_sizes()[1:-1] == (BLOCK_SIZE, BLOCK_SIZE, run - 2 * BLOCK_SIZE)


def test_layers_may_be_left_out() -> None:
    made = image(files_of(b"low"), files_of(b"high"))
    layout = canonical.layout(made.parsed, made.sizes)
    low, high = layout.spans
    whole = b"".join(canonical.content(layout, made.layer))
    without = b"".join(canonical.content(layout, made.layer, {low.diff_id}))
    assert without == whole[: low.offset] + whole[high.offset :]


def test_repeated_layers_are_there_once() -> None:
    layer = files_of(b"x")
    assert len(canonical.layout(image(layer, layer, layer).parsed, {Digest.of(layer): len(layer)}).spans) == 1


def test_an_empty_run_has_no_block() -> None:
    assert list(canonical.cut(0)) == []
    assert len(layout_with([]).block_sizes()) == 2
    assert len(layout_with([ALIGNED_SPAN]).block_sizes()) == 3

# SPDX-License-Identifier: Apache-2.0
"""An image as a collection holds it, in any layout, read from blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arv_docker.errors import BadManifestText, ContentError, DigestMismatch, NotAnImage
from arv_docker.image import Digest
from arv_docker.keep import manifest
from arv_docker.keep.client import CollectionRecord
from arv_docker.keep.manifest import Locator, Segment
from arv_docker.keep.stored import KeepFile, StoredImage, holds, image_file
from tests.archives import canonical_archive, classic, files_of, flat, hybrid, image

ID = "a" * 64
BLOCK = f"{'0' * 32}+10"
APP = image(files_of(b"low"), files_of(b"high" * 500), os="linux")


class Blocks:
    """A cluster that has nothing but blocks."""

    def __init__(self) -> None:
        self.blocks: dict[str, bytes] = {}

    def put(self, content: bytes, size: int = 1000) -> list[str]:
        pieces = [content[start : start + size] for start in range(0, len(content), size)]
        names = [f"{hashlib.md5(piece).hexdigest()}+{len(piece)}" for piece in pieces]
        self.blocks |= dict(zip(names, pieces, strict=True))
        return names

    def get_block(self, locator: str) -> bytes:
        return self.blocks[locator]


def collection(text: str) -> CollectionRecord:
    return CollectionRecord.of({"uuid": "u", "manifest_text": text})


def read_whole(found: StoredImage) -> list[bytes]:
    return [b"".join(iter(layer.read, b"")) for layer in found.archived.layers()]


def stored(content: bytes, image_id: Digest) -> StoredImage:
    cluster = Blocks()
    text = manifest.single_file(f"{image_id}.tar", len(content), cluster.put(content))
    return StoredImage(cluster, collection(text))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (f". {BLOCK} 0:10:sha256\\072{ID}.tar\n", 2),
        (f". {BLOCK} 0:10:sha256:{ID}.tar\n", 2),
        (f". {BLOCK} 0:10:{ID}.tar\n", 1),
        (f". {BLOCK} 0:10:sha256\\072{ID.upper()}.tar\n", 2),
        (f". {BLOCK} 0:5:sha256\\072{ID}.tar 5:5:sha256\\072{ID}.tar\n", 2),
        (f". {BLOCK} 0:10:sha256\\072{ID}.tar\n./d {BLOCK} 0:0:.\n", 2),
    ],
)
def test_the_one_file(text: str, version: int) -> None:
    found = image_file(collection(text))
    assert (found.image_id, found.version, found.size) == (Digest.sha256(ID), version, 10)


@pytest.mark.parametrize(
    "text",
    [
        "",
        f". {BLOCK} 0:10:notes.txt\n",
        f". {BLOCK} 0:10:sha256\\072{ID}.tar 0:0:extra\n",
        f"./d {BLOCK} 0:10:sha256\\072{ID}.tar\n",
        f". {BLOCK} 0:10:sha256\\072{ID[1:]}.tar\n",
        f". {BLOCK} 0:10:sha512\\072{ID}.tar\n",
        f". {BLOCK} 0:10:sha256\\072{ID}.tar.gz\n",
        f". {BLOCK} 0:10:sha256\\072{ID}.tar\\012\n",
        f". {BLOCK} 0:10:xsha256\\072{ID}.tar\n",
    ],
)
def test_what_is_no_image_s_file(text: str) -> None:
    with pytest.raises(NotAnImage):
        image_file(collection(text))
    assert not holds(collection(text), Digest.sha256(ID))


def test_malformed_text() -> None:
    with pytest.raises(BadManifestText):
        image_file(collection("garbage"))
    assert not holds(collection("garbage"), Digest.sha256(ID))


def test_holds() -> None:
    good = collection(f". {BLOCK} 0:10:sha256\\072{ID}.tar\n")
    assert holds(good, Digest.sha256(ID))
    assert not holds(good, Digest.sha256("b" * 64))
    assert not holds(collection(f". {BLOCK} 0:10:{ID}.tar\n"), Digest.sha256(ID))


@pytest.mark.parametrize(
    ("form", "canonical"), [(classic, False), (hybrid, False), (flat, False), (canonical_archive, True)]
)
def test_any_layout_is_read(form: Callable[..., bytes], canonical: bool) -> None:
    found = stored(form(APP), APP.parsed.digest)
    assert found.config == APP.parsed
    assert bool(found.canonical) is canonical
    assert sorted(read_whole(found)) == sorted(APP.layers)


def test_a_file_named_by_the_manifest_digest() -> None:
    by_manifest = stored(canonical_archive(APP), APP.parsed.digest).layout.manifest_digest
    assert stored(canonical_archive(APP), by_manifest).config == APP.parsed


def test_a_file_named_after_another_image() -> None:
    with pytest.raises(DigestMismatch, match="named after image"):
        stored(canonical_archive(APP), Digest.sha256(ID))


def test_a_block_that_was_changed() -> None:
    content = bytearray(canonical_archive(APP))
    content[content.index(b"highhigh")] ^= 1
    found = stored(bytes(content), APP.parsed.digest)
    with pytest.raises(DigestMismatch):
        read_whole(found)


def test_an_archive_with_a_changed_end_is_not_canonical() -> None:
    content = canonical_archive(APP) + bytes(512)
    assert not stored(content, APP.parsed.digest).canonical


# -- a file in blocks -------------------------------------------------------------------

_parts = st.lists(st.tuples(st.binary(min_size=1, max_size=20), st.integers(0, 19), st.integers(1, 20)), max_size=6)


@given(_parts, st.integers(0, 130), st.integers(-1, 130))
def test_a_file_reads_as_its_bytes_would(parts: list[tuple[bytes, int, int]], offset: int, length: int) -> None:
    blocks, segments, whole = Blocks(), [], b""
    for content, place, length_ in parts:
        start = place % len(content)
        size = min(length_, len(content) - start)
        (name,) = blocks.put(content)
        segments.append(Segment(Locator.parse(name), start, size))
        whole += content[start : start + size]
    file = KeepFile(segments, blocks.get_block)
    assert file.size == len(whole)
    assert file.read_at(offset, length) == whole[offset : offset + max(0, length)]


def test_a_block_that_is_shorter_than_its_name_says() -> None:
    """Its neighbour's bytes must not be read in its place."""
    segments = [Segment(Locator("0" * 32, 10), 0, 10), Segment(Locator("1" * 32, 3), 0, 3)]
    file = KeepFile(segments, lambda locator: b"abc")
    with pytest.raises(ContentError, match="3 bytes"):
        file.read_at(0, 13)

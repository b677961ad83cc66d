# SPDX-License-Identifier: Apache-2.0
"""Recognising a canonical archive by its head: what is one, what only looks like one, and how little is read."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arv_docker.archive import canonical
from arv_docker.archive.canonical_image import recognise
from arv_docker.archive.reader import ArchiveReader
from arv_docker.errors import DigestMismatch
from arv_docker.model.image import Digest

from ..archives import Bytes, Image, canonical_archive, classic, files_of, flat, hybrid, image

APP = image(files_of(b"low" * 1000), files_of(b"high")[:1000], b"", os="linux")
LAYOUT = canonical.layout(APP.parsed, APP.sizes)
WHOLE = canonical_archive(APP)


@pytest.mark.parametrize("made", [APP, image(), image(b""), image(b"x", b"x", b"y" * 513)])
def test_a_canonical_archive_is_recognised(made: Image) -> None:
    source = Bytes(canonical_archive(made))
    found = recognise(source)
    assert found is not None
    assert (found.config, found.sizes, found.layout) == (
        made.parsed,
        made.sizes,
        canonical.layout(made.parsed, made.sizes),
    )
    assert [b"".join(iter(layer.read, b"")) for layer in found.layers()] == [
        made.by_id[span.diff_id] for span in found.layout.spans
    ]
    assert found.is_framed()


def test_it_reads_as_any_docker_archive_does() -> None:
    found, other = recognise(Bytes(WHOLE)), ArchiveReader(Bytes(WHOLE)).image()
    assert found is not None
    assert (found.config, found.sizes) == (other.config, other.sizes)
    skip = {Digest.of(APP.layers[0])}
    assert [it.claimed for it in found.layers(skip)] == [it.claimed for it in other.layers(skip)]
    for diff_id, size in found.sizes.items():
        offset, _ = found.place(diff_id)
        assert found.place(diff_id) == other.place(diff_id) == (offset, size)
        assert WHOLE[offset : offset + size] == APP.by_id[diff_id]


def test_no_byte_behind_the_head_is_read() -> None:
    class Head(Bytes):
        def read_at(self, offset: int, length: int) -> bytes:
            assert offset + length <= len(LAYOUT.head)
            return super().read_at(offset, length)

    assert recognise(Head(WHOLE)) is not None


@pytest.mark.parametrize("form", [classic, hybrid, flat])
def test_other_archives_are_not(form: Callable[[Image], bytes]) -> None:
    assert recognise(Bytes(form(APP))) is None


@pytest.mark.parametrize(
    "content", [b"", b"x", b"x" * 5000, bytes(5000), WHOLE[:-512], WHOLE + bytes(512), WHOLE[512:]]
)
def test_nor_is_what_is_shorter_longer_or_nothing(content: bytes) -> None:
    assert recognise(Bytes(content)) is None


@given(st.integers(0, len(LAYOUT.head) - 1), st.integers(0, 255))
def test_nor_is_one_whose_head_differs_in_a_byte(place: int, value: int) -> None:
    changed = bytearray(WHOLE)
    changed[place] = value
    assert (recognise(Bytes(bytes(changed))) is not None) is (changed == WHOLE)


@given(st.integers(len(LAYOUT.head), len(WHOLE) - 1), st.integers(1, 255))
def test_a_byte_that_differs_later_is_found_in_the_frame_or_in_a_layer(place: int, flip: int) -> None:
    changed = bytearray(WHOLE)
    changed[place] ^= flip
    found = recognise(Bytes(bytes(changed)))
    assert found is not None

    def read() -> list[bytes]:
        return [b"".join(iter(layer.read, b"")) for layer in found.layers()]

    if found.is_framed():
        with pytest.raises(DigestMismatch):
            read()
    else:
        assert sorted(read()) == sorted(APP.layers)


@pytest.mark.parametrize("size", [-1, 0, 1 << 40, 10**40, 1.5, True, None, "7"])
@pytest.mark.parametrize("digest", [str(LAYOUT.spans[0].diff_id), "x", None, "sha512:" + "0" * 128, "\ud800"])
def test_a_manifest_of_nonsense(size: object, digest: object) -> None:
    """Of any length, for the head's length follows from it: not recognised, and no error of Python's."""
    manifest = json.dumps({"layers": [{"digest": digest, "size": size}, 7]}).encode()
    place = LAYOUT.head.index(b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest')
    length = LAYOUT.head.index(b"\0", place) - place
    if len(manifest) > length:
        return
    changed = WHOLE[:place] + manifest.ljust(length) + WHOLE[place + length :]
    assert recognise(Bytes(changed)) is None

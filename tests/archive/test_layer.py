# SPDX-License-Identifier: Apache-2.0
"""A layer while it is read: nothing passes unhashed, and what it claims is checked at its end."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arv_docker.archive.layer import Layer
from arv_docker.errors import BadArchive, DigestMismatch
from arv_docker.model.image import Digest

from ..archives import layer_of


@given(st.binary(max_size=100), st.integers(1, 40), st.booleans())
def test_a_layer_reads_whole_and_knows_its_name(content: bytes, length: int, known: bool) -> None:
    layer = layer_of(content, known=known)
    assert b"".join(iter(lambda: layer.read(length), b"")) == content
    assert layer.diff_id == Digest.of(content)
    assert layer.position == len(content)


@given(st.binary(max_size=100), st.integers(1, 40))
def test_other_bytes_than_claimed_raise_at_the_end(content: bytes, length: int) -> None:
    layer = layer_of(content, claimed=Digest.of(content + b"x"))
    for _ in range(len(content) // length):
        assert len(layer.read(length)) == length
    with pytest.raises(DigestMismatch):
        layer.read(length)


@pytest.mark.parametrize("size", [2, 4])
def test_another_size_than_claimed(size: int) -> None:
    layer = Layer(io.BytesIO(b"abc").read, claimed=None, size=size)
    with pytest.raises(BadArchive, match=f"3 of {size} bytes"):
        layer.read()


def test_the_last_full_chunk_is_not_yet_checked_and_the_end_is() -> None:
    layer = layer_of(b"ab", claimed=Digest.of(b"other"))
    assert layer.read(1) == b"a"
    assert layer.read(1) == b"b"
    with pytest.raises(DigestMismatch):
        layer.read(1)

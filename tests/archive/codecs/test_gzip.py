# SPDX-License-Identifier: Apache-2.0
"""Layers are compressed to the same bytes each time, and every reader gets them back."""

from __future__ import annotations

import gzip
import io
import os
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arv_docker.archive.codecs.decompression import DecompressedStream
from arv_docker.archive.codecs.gzip import gzip_chunks

from ...registry.scripted import sha256

MIB = 1 << 20


def gzipped(content: bytes) -> bytes:
    return b"".join(gzip_chunks(io.BytesIO(content).read))


@settings(max_examples=25)
@given(st.binary(max_size=5000), st.sampled_from([0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB]))
def test_what_is_compressed_comes_back(content: bytes, zeros: int) -> None:
    whole = content + bytes(zeros) + content
    packed = gzipped(whole)
    assert gzip.decompress(packed) == whole
    assert DecompressedStream(io.BytesIO(packed).read, "gzip", what="it").read(len(whole) + 1) == whole


def test_other_programs_read_it() -> None:
    content = os.urandom(3 * MIB) + bytes(2 * MIB)
    done = subprocess.run(["gzip", "-dc"], input=gzipped(content), capture_output=True)
    assert (done.returncode, done.stderr, done.stdout) == (0, b"", content)


def test_the_number_of_processors_is_not_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"".join(b"line %d of a text that repeats itself\n" % number for number in range(100_000))
    many = gzipped(content)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert sha256(gzipped(content)) == sha256(many)
    assert len(many) < 1.02 * len(gzip.compress(content, 4))


def test_a_failed_read_goes_through() -> None:
    def read(_: int) -> bytes:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        list(gzip_chunks(read))

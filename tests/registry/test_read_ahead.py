# SPDX-License-Identifier: Apache-2.0
"""Reading ahead: the same bytes, errors where they happened, little in memory, and threads that end."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from typing import cast

import pytest

from arv_docker.registry import read_ahead
from arv_docker.registry.blob import BlobReader
from arv_docker.registry.read_ahead import ReadAhead

MIB = 1 << 20


class Blob:
    """Bytes that can be read once, and an error behind them if there is one."""

    def __init__(self, content: bytes, error: Exception | None = None) -> None:
        self._content = io.BytesIO(content)
        self._error = error
        self.bytes_received = 0
        self.closed = threading.Event()

    def read(self, length: int) -> bytes:
        content = self._content.read(length)
        self.bytes_received += len(content)
        if len(content) < length and self._error is not None:
            raise self._error
        return content

    def close(self) -> None:
        self.closed.set()


def reader(blob: Blob) -> ReadAhead:
    return ReadAhead(cast(BlobReader, blob))


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("size", [0, 1, read_ahead._PIECE - 1, read_ahead._PIECE, read_ahead._PIECE + 1, 3 * MIB])
@pytest.mark.parametrize("length", [100_000, MIB])
def test_the_same_bytes_come(size: int, length: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    blob = Blob(content[:size])
    ours = reader(blob)
    pieces = [ours.read(length)]
    while len(pieces[-1]) == length:
        pieces.append(ours.read(length))
    assert b"".join(pieces) == content[:size]
    assert ours.read(1) == b""
    assert ours.bytes_received == size
    assert blob.closed.wait(10)


def test_an_error_comes_behind_what_came_before() -> None:
    blob = Blob(bytes(MIB), ValueError("no"))
    ours = reader(blob)
    assert ours.read(MIB) == bytes(MIB)
    with pytest.raises(ValueError, match="no"):
        ours.read(1)
    assert ours.read(1) == b""
    assert blob.closed.wait(10)


def test_little_waits_and_nothing_more_is_read_once_it_is_given_up() -> None:
    blob = Blob(bytes(64 * MIB))
    ours = reader(blob)
    eventually(lambda: blob.bytes_received >= 16 * MIB)
    time.sleep(0.05)
    assert blob.bytes_received <= 17 * MIB
    ours.close()
    assert blob.closed.wait(10)
    assert blob.bytes_received <= 18 * MIB

# SPDX-License-Identifier: Apache-2.0
"""The Keep protocol over HTTP."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from arv_docker.site.folder import existing_settings
from arv_docker.site.store.blocks import PIECE

from .conftest import Web


def head(web: Web) -> str:
    """The rest of a request line, and the headers of every request."""
    return f" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {web.token}\r\n"


HELLO = "5d41402abc4b2a76b9719d911017c592"
EMPTY = "d41d8cd98f00b204e9800998ecf8427e"


def md5(data: bytes) -> str:
    """The name of a block."""
    return hashlib.md5(data).hexdigest()


def leftovers(web: Web) -> list[str]:
    """Temporary files in the store."""
    return [path.name for path in (web.folder / "blocks").rglob("tmp-*")]


def test_put_then_get(web: Web) -> None:
    stored = web("PUT", f"/{HELLO}", b"hello")
    assert stored.status == 200
    assert stored.headers["x-keep-replicas-stored"] == "1"
    assert stored.headers["x-keep-storage-classes-confirmed"] == "default=1"
    locator = stored.body.decode()
    assert locator.startswith(f"{HELLO}+5+A")
    assert locator.endswith("\n")
    read = web("GET", f"/{locator.strip()}")
    assert (read.status, read.body) == (200, b"hello")
    assert (read.headers["content-length"], read.headers["vary"]) == ("5", "X-Keep-Signature")
    assert web("GET", f"//{locator.strip()}+K@zzzzz").body == b"hello"
    head = web("HEAD", f"/{locator.strip()}")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "5")
    assert web.block(b"hello").read_bytes() == b"hello"
    assert leftovers(web) == []


def test_every_answer_names_its_request_and_what_it_depends_on(web: Web) -> None:
    for path in (f"/{HELLO}+5", "/nonsense"):
        refused = web("GET", path, x_request_id="req-abc")
        assert (refused.headers["x-request-id"], refused.headers["vary"]) == ("req-abc", "X-Keep-Signature")
    assert web("PUT", f"/{HELLO}", b"hello").headers["x-request-id"].startswith("req-")


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 7, 64 << 20])
def test_every_size_up_to_64_mebibytes(web: Web, size: int) -> None:
    data = bytes(size)
    stored = web("PUT", f"/{md5(data)}", data)
    assert stored.status == 200
    assert web("GET", f"/{stored.body.decode().strip()}").body == data


def test_a_larger_block_is_413_whether_declared_or_not(web: Web) -> None:
    data = bytes((64 << 20) + 1)
    assert web("PUT", f"/{md5(data)}", data).status == 413
    with socket.create_connection(("127.0.0.1", web.port), timeout=20) as peer:
        peer.sendall(f"PUT /{md5(data)}{head(web)}Transfer-Encoding: chunked\r\n\r\n".encode())
        peer.sendall(b"%x\r\n" % len(data) + data + b"\r\n0\r\n\r\n")
        assert peer.recv(100).startswith(b"HTTP/1.1 413")
    assert leftovers(web) == []


@pytest.mark.parametrize("authorization", ["", "Bearer wrong", "Bearer v2/x/y"])
def test_nobody_fills_the_disk_without_a_token(authorization: str, web: Web) -> None:
    assert web("PUT", f"/{HELLO}", b"hello", authorization=authorization).status == 401
    assert not list((web.folder / "blocks").glob("*/*"))


def test_wrong_content_is_400_and_leaves_nothing(web: Web) -> None:
    refused = web("PUT", f"/{'0' * 32}", b"hello")
    assert refused.status == 400
    assert HELLO in refused.body.decode()
    assert not list((web.folder / "blocks").glob("*/*"))


def test_statuses_of_a_read(web: Web) -> None:
    settings = existing_settings(web.folder)
    assert settings
    locator = web("PUT", f"/{HELLO}", b"hello").body.decode().strip()
    past = settings.signer.sign(f"{HELLO}+5", web.token, int(time.time()) - 10)
    absent = settings.signer.sign(f"{'0' * 32}+5", web.token, int(time.time()) + 100)
    other = settings.signer.sign(f"{HELLO}+5", settings.token_secret, int(time.time()) + 100)
    statuses = {
        f"/{HELLO}+5": 400,
        f"/{HELLO}+5+A{'0' * 40}@7fffffff": 400,
        f"/{HELLO}+5+A{'0' * 40}@00000001": 401,
        f"/{past}": 401,
        f"/{other}": 400,
        f"/{absent}": 404,
        f"/{HELLO}": 405,
        f"/{EMPTY}+0": 400,
        f"/{locator.replace('+5', '+4')}": 400,
        f"/{locator.replace('+5', '+6')}": 400,
        f"/{locator.upper()}": 400,
        f"/{HELLO}++5": 400,
        f"/{HELLO}+5+6": 400,
        "/status.json": 400,
        "/": 400,
        "/index": 400,
    }
    assert {path: web("GET", path).status for path in statuses} == statuses
    assert web("GET", f"/{locator}", authorization="").status == 401
    assert web("GET", f"/{locator}", authorization="Bearer other").status == 400
    assert web("DELETE", f"/{locator}").status == 405


@pytest.mark.parametrize("damage", [b"", b"hellO", b"hello, longer"])
def test_a_damaged_block_is_502_until_a_put_repairs_it(web: Web, damage: bytes) -> None:
    locator = web("PUT", f"/{HELLO}", b"hello").body.decode().strip()
    web.block(b"hello").write_bytes(damage)
    assert web("GET", f"/{locator}").status == 502
    assert web("HEAD", f"/{locator}").status == 502
    assert web("PUT", f"/{HELLO}", b"hello").status == 200
    assert web("GET", f"/{locator}").body == b"hello"


def test_a_large_damaged_block_ends_short(web: Web) -> None:
    data = bytes(5 * PIECE)
    locator = web("PUT", f"/{md5(data)}", data).body.decode().strip()
    web.block(data).write_bytes(data[:-1] + b"x")
    with socket.create_connection(("127.0.0.1", web.port), timeout=20) as peer:
        peer.sendall(f"GET /{locator}{head(web)}\r\n".encode())
        answer = b""
        while piece := peer.recv(1 << 20):
            answer += piece
    body = answer.partition(b"\r\n\r\n")[2]
    assert len(body) == 4 * PIECE
    assert web("HEAD", f"/{locator}").status == 502


def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(web: Web) -> None:
    with socket.create_connection(("127.0.0.1", web.port)) as peer:
        peer.sendall(f"PUT /{HELLO}{head(web)}Content-Length: 9999999\r\n\r\n".encode() + bytes(5 * PIECE))
        deadline = time.monotonic() + 10
        while not leftovers(web) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert leftovers(web)
    while leftovers(web) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert leftovers(web) == []


def test_100_continue_is_answered_at_once(web: Web) -> None:
    with socket.create_connection(("127.0.0.1", web.port), timeout=5) as peer:
        peer.sendall(f"PUT /{HELLO}{head(web)}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n".encode())
        began = time.monotonic()
        assert peer.recv(100).startswith(b"HTTP/1.1 100 ")
        assert time.monotonic() - began < 4
        peer.sendall(b"hello")
        assert peer.recv(100).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("number", "status"), [(errno.ENOSPC, 507), (errno.EDQUOT, 507), (errno.EIO, 503), (errno.EROFS, 503)]
)
def test_a_full_disk_is_507_any_other_trouble_503(
    web: Web, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        if "tmp-" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    assert web("PUT", f"/{HELLO}", b"hello").status == status
    assert leftovers(web) == []
    assert not web.block(b"hello").exists()


def test_writers_of_one_block_do_not_meet(web: Web) -> None:
    data = bytes(2 * PIECE)

    def put(_number: int) -> Any:
        return web("PUT", f"/{md5(data)}", data).status

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(put, range(24))) == [200] * 24
    assert leftovers(web) == []
    assert web.block(data).read_bytes() == data


def test_memory_does_not_hold_whole_blocks(web: Web) -> None:
    data = bytes(64 << 20)
    name = md5(data)
    tracemalloc.start()
    try:
        with socket.create_connection(("127.0.0.1", web.port), timeout=20) as peer:
            peer.sendall(f"PUT /{name}{head(web)}Content-Length: {len(data)}\r\n\r\n".encode())
            peer.sendall(data)
            assert peer.recv(100).startswith(b"HTTP/1.1 200")
        assert tracemalloc.get_traced_memory()[1] < 8 * PIECE
    finally:
        tracemalloc.stop()

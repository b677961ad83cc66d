# SPDX-License-Identifier: Apache-2.0
"""The site under load: figures, which are printed, and what must hold at any speed."""

from __future__ import annotations

import hashlib
import http.client
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import arvados
import arvados.util
import pytest

from arv_docker.site import LocalSite

from .conftest import Web

BLOCK = 64 << 20
CLIENTS = 4
BLOCKS_EACH = 3

#: A server in a process of its own, plain HTTP: the figures are about the site, not about TLS.
SERVER = (
    "import pathlib, sys, time; from arv_docker.site.http.server import local; "
    "running = local(pathlib.Path(sys.argv[1])); running.start(); "
    "print(running.port, running.token, flush=True); time.sleep(3600)"
)


def block(seed: int) -> bytes:
    """64 MiB that differ from those of every other seed."""
    return seed.to_bytes(8, "big") + bytes(BLOCK - 8)


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def put_blocks(port: int, token: str, first: int, ready: Any) -> None:
    """One client: PUT some blocks over one connection, from a process of its own."""
    blocks = [(hashlib.md5(data).hexdigest(), data) for data in map(block, range(first, first + BLOCKS_EACH))]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    ready.wait()
    for md5, data in blocks:
        connection.request("PUT", f"/{md5}", data, {"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
    ready.wait()


def disk_rate(folder: Path) -> float:
    """Bytes a second that the disk takes from as many writers as there are clients, each file synced."""

    def write(number: int) -> None:
        with (folder / f"{number}").open("wb", buffering=0) as file:
            file.write(block(number))
            os.fsync(file.fileno())

    numbers = range(CLIENTS * BLOCKS_EACH)
    with ThreadPoolExecutor(CLIENTS) as pool:
        seconds = timed(lambda: list(pool.map(write, numbers)))
    return BLOCK * len(numbers) / seconds


@pytest.mark.long
def test_puts_of_whole_blocks_from_four_clients(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At least 0.7 of what MD5 on the cores that the clients leave, or the disk with fsync, would allow."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tmp_path / "site")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    port, token = process.stdout.readline().split()
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(CLIENTS + 1)
    workers = [
        context.Process(target=put_blocks, args=(int(port), token, 1000 + number * BLOCKS_EACH, ready))
        for number in range(CLIENTS)
    ]
    try:
        for worker in workers:
            worker.start()
        ready.wait()
        seconds = timed(ready.wait)
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0] * CLIENTS
    finally:
        process.terminate()
        process.communicate()
    put = BLOCK * CLIENTS * BLOCKS_EACH / seconds
    md5 = BLOCK / timed(lambda: hashlib.md5(block(0)).hexdigest()) * max(1, (os.cpu_count() or 1) - 1)
    disk = disk_rate(tmp_path)
    with capsys.disabled():
        sys.stdout.write(
            f"\n  PUT {put / 1e6:.0f} MB/s; MD5 on the cores left {md5 / 1e6:.0f}, disk with fsync {disk / 1e6:.0f}; "
            f"ratio {put / min(md5, disk):.2f}\n"
        )
    assert put >= 0.7 * min(md5, disk)


@pytest.mark.parametrize("amount", [500, pytest.param(10_000, marks=pytest.mark.long)])
def test_links_created_and_listed(local: LocalSite, capsys: pytest.CaptureFixture[str], amount: int) -> None:
    port = int(local.url.rpartition(":")[2])

    def create(numbers: range) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for number in numbers:
            body = json.dumps({"link_class": "docker_image_hash", "name": f"sha256:{number}"})
            headers = {"Authorization": f"Bearer {local.token}", "Content-Type": "application/json"}
            connection.request("POST", "/arvados/v1/links", body, headers)
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            answer.read()

    with ThreadPoolExecutor(4) as pool:
        created = timed(lambda: list(pool.map(create, [range(start, amount, 4) for start in range(4)])))
    api = arvados.api("v1", discoveryServiceUrl=local.discovery_url, token=local.token, num_retries=0)
    found: set[str] = set()
    listed = timed(lambda: found.update(item["name"] for item in arvados.util.keyset_list_all(api.links().list)))
    assert len(found) == amount
    with capsys.disabled():
        sys.stdout.write(f"\n  {amount} links: created in {created:.1f} s by 4 clients, listed in {listed:.1f} s\n")


def test_two_hundred_small_requests_at_once(web: Web) -> None:
    def ask(number: int) -> int:
        if number % 4 == 0:
            return web("POST", "/arvados/v1/links", b"{}", content_type="application/json").status
        return web("GET", "/arvados/v1/links?limit=10" if number % 2 else "/arvados/v1/users/current").status

    with ThreadPoolExecutor(200) as pool:
        assert set(pool.map(ask, range(200))) == {200}
    assert web("GET", "/arvados/v1/links?limit=0").json["items_available"] == 50

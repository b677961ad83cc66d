# SPDX-License-Identifier: Apache-2.0
"""What was answered is there afterwards: after kill -9 under load, on a full disk, with several processes at once."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from arv_docker.errors import DiskError
from arv_docker.site import LocalSite, upkeep
from arv_docker.site.folder import open_site

from .conftest import Web
from .test_clients import connected, run, start

#: Seconds after which a test of this module gives up: the usual one takes ten.
HANG = 300


@dataclass
class Acknowledged:
    """What a site has answered to be stored."""

    #: Signed locators with the bytes.
    blocks: dict[str, bytes] = field(default_factory=dict)
    collections: dict[str, str] = field(default_factory=dict)
    links: set[str] = field(default_factory=set)

    def check(self, folder: Path) -> None:
        """All of it is there, and nothing in the folder is half there."""
        with LocalSite(folder) as local:
            web = Web(int(local.url.rpartition(":")[2]), local.token, folder)
            for locator, data in self.blocks.items():
                assert web("GET", f"/{locator}").body == data
        site = open_site(folder)
        with site.database.reading() as connection:
            stored = dict(connection.execute("SELECT uuid, portable_data_hash FROM collections").fetchall())
            links = {row[0] for row in connection.execute("SELECT uuid FROM links")}
        assert self.collections.items() <= stored.items()
        assert self.links <= links
        assert list(upkeep.problems(site, quick=False)) == []
        site.close()


def write(folder: Path, acknowledged: Acknowledged, stop: threading.Event) -> bool:
    """PUT blocks, create collections of them and links, and note what is acknowledged; whether the server died."""
    end = time.monotonic() + HANG
    try:
        connection, headers = connected(folder)
    except (OSError, http.client.HTTPException):
        return True
    try:
        while not stop.is_set() and time.monotonic() < end:
            data = os.urandom(random.choice([10, 100_000, 2_000_000]))
            connection.request("PUT", f"/{hashlib.md5(data).hexdigest()}", data, headers)
            locator = _body(connection).decode().strip()
            acknowledged.blocks[locator] = data
            text = json.dumps({"manifest_text": f". {locator} 0:{len(data)}:x\n"})
            connection.request("POST", "/arvados/v1/collections", text, headers)
            made = json.loads(_body(connection))
            acknowledged.collections[made["uuid"]] = made["portable_data_hash"]
            connection.request("POST", "/arvados/v1/links", json.dumps({"head_uuid": made["uuid"]}), headers)
            acknowledged.links.add(json.loads(_body(connection))["uuid"])
    except (OSError, http.client.HTTPException):
        return True  # killed, as it should be
    finally:
        connection.close()
    return False


def _body(connection: http.client.HTTPConnection) -> bytes:
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, body
    return body


@pytest.mark.parametrize("turns", [3, pytest.param(20, marks=pytest.mark.long)])
def test_what_was_answered_survives_kill_9_under_four_writers(tmp_path: Path, turns: int) -> None:
    folder = tmp_path / "site"
    acknowledged = Acknowledged()
    for _ in range(turns):
        served = start(folder)
        enough = len(acknowledged.links) + random.randint(4, 60)
        with ThreadPoolExecutor(5) as pool:
            writers = [pool.submit(write, folder, acknowledged, threading.Event()) for _ in range(4)]
            while len(acknowledged.links) < enough and not any(writer.done() for writer in writers):
                time.sleep(random.uniform(0, 0.01))
            served.process.kill()
            ended = [writer.result() for writer in writers]
        served.process.communicate()
        assert all(ended), "the server was not killed"
        acknowledged.check(folder)
    assert len(acknowledged.links) >= 4 * turns


# -- a full disk ------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", disk], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def fill(path: Path, leave: int) -> None:
    """Use up the file system but for so many bytes."""
    free = os.statvfs(path.parent)
    path.write_bytes(bytes(free.f_bavail * free.f_frsize - leave))


def test_a_full_disk_refuses_and_recovers(small_disk: Path) -> None:
    folder = small_disk / "site"
    data = os.urandom(1 << 20)
    text = "".join(f". d41d8cd98f00b204e9800998ecf8427e+0 0:0:{number}\n" for number in range(20_000))
    body = json.dumps({"manifest_text": text}).encode()
    with LocalSite(folder) as local:
        web = Web(int(local.url.rpartition(":")[2]), local.token, folder)
        create = ("POST", "/arvados/v1/collections", body)
        assert web(*create, content_type="application/json").status == 200
        fill(small_disk / "other", leave=600_000)
        for _ in range(3):
            put = web("PUT", f"/{hashlib.md5(data).hexdigest()}", data)
            assert (put.status, put.body) == (507, b"the disk of the site is full\n")
        assert [path for path in (folder / "blocks").rglob("*") if path.is_file()] == []
        answers: dict[int, bytes] = {}
        created = 1
        while 507 not in answers:  # until the rest of the disk is used up
            reply = web(*create, content_type="application/json")
            answers[reply.status] = reply.body
            created += reply.status == 200
            assert set(answers) <= {200, 507}, answers
        assert b"the site's database cannot be used: database or disk is full" in answers[507]
        count = web("GET", "/arvados/v1/collections?limit=0").json["items_available"]
        assert count == created
        (small_disk / "other").unlink()
        assert web("PUT", f"/{hashlib.md5(data).hexdigest()}", data).status == 200
        assert web(*create, content_type="application/json").status == 200
        assert web("GET", "/arvados/v1/collections?limit=0").json["items_available"] == count + 1
    site = open_site(folder)
    assert list(upkeep.problems(site, quick=False)) == []
    site.close()


@pytest.mark.parametrize("leave", [0, 4096, 20_000, 60_000, 120_000])
def test_a_site_that_finds_no_room_to_begin_begins_later(small_disk: Path, leave: int) -> None:
    fill(small_disk / "other", leave)
    with contextlib.suppress(DiskError), LocalSite(small_disk / "site"):
        pass
    (small_disk / "other").unlink()
    with LocalSite(small_disk / "site") as local:
        web = Web(int(local.url.rpartition(":")[2]), local.token, local.folder)
        assert web("POST", "/arvados/v1/links", b"{}", content_type="application/json").status == 200


# -- several processes ------------------------------------------------------------------


def test_two_servers_and_local_commands_use_one_folder(tmp_path: Path) -> None:
    """Two `serve`s, and beside them sites in this process, garbage collection and checks: all write, all see all."""
    folder = tmp_path / "site"
    acknowledged = Acknowledged()
    servers = [start(folder), start(folder)]
    stop = threading.Event()

    def local_commands() -> int:
        rounds = 0
        end = time.monotonic() + HANG
        try:
            while time.monotonic() < end and (rounds < 2 or len(acknowledged.collections) <= 10):
                with LocalSite(folder) as local:
                    web = Web(int(local.url.rpartition(":")[2]), local.token, folder)
                    data = os.urandom(1000)
                    acknowledged.blocks[web("PUT", f"/{hashlib.md5(data).hexdigest()}", data).body.decode().strip()] = (
                        data
                    )
                    reply = web("POST", "/arvados/v1/links", b"{}", content_type="application/json")
                    acknowledged.links.add(reply.json["uuid"])
                assert run("gc", "--dir", str(folder)).returncode == 0
                rounds += 1
        finally:
            stop.set()
        return rounds

    try:
        with ThreadPoolExecutor(4) as pool:
            addresses = []
            writers = []
            for served in servers:
                address = served.first_line.partition("https://")[2].partition("/")[0]
                addresses.append(address)
                # Each writer reads the address file once, when it begins.
                (folder / "address").write_text(f"{address}\n{served.process.pid}\n")
                assert connected(folder)[0].port == int(address.partition(":")[2])
                writers.append(pool.submit(write, folder, acknowledged, stop))
                time.sleep(0.5)
            local = pool.submit(local_commands)
            assert local.result() > 1
            assert [writer.result() for writer in writers] == [False, False]
        assert len(set(addresses)) == 2
    finally:
        for served in servers:
            served.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                served.process.communicate(timeout=300)
    acknowledged.check(folder)
    assert len(acknowledged.collections) > 10

# SPDX-License-Identifier: Apache-2.0
"""A site inside this process, and what its folder looks like from outside."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from arv_docker import site
from arv_docker.errors import BadSettings, DiskError
from arv_docker.site import LocalSite
from arv_docker.site import http as site_http
from arv_docker.site.folder import existing_settings, open_site
from arv_docker.site.store.database import SCHEMA_VERSION

from .conftest import Web


def test_importing_the_site_does_not_import_the_web_framework() -> None:
    program = "import sys, arv_docker.site, arv_docker.cli.site; print([m for m in sys.modules if m in %r])"
    heavy = ["starlette", "uvicorn", "cryptography", "arvados", "sqlite3"]
    found = subprocess.run([sys.executable, "-c", program % heavy], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_without_its_packages_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "arv_docker.site.http.server", raising=False)
    monkeypatch.delattr(site_http, "server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(BadSettings, match=r"arv-docker\[site\]"), LocalSite(tmp_path / "site"):
        pass


def test_a_site_is_ready_when_entered_and_gone_when_left(tmp_path: Path) -> None:
    with LocalSite(tmp_path / "site") as local:
        web = Web(int(local.url.rpartition(":")[2]), local.token, local.folder)
        assert web("GET", "/arvados/v1/users/current").status == 200
        idle = http.client.HTTPConnection("127.0.0.1", web.port)
        idle.request("GET", "/arvados/v1/config")
        idle.getresponse().read()
        began = time.monotonic()
    assert time.monotonic() - began < 10
    idle.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", web.port))


def test_leaving_does_not_wait_for_a_request_that_never_ends(tmp_path: Path) -> None:
    with LocalSite(tmp_path / "site") as local:
        port = int(local.url.rpartition(":")[2])
        peer = socket.create_connection(("127.0.0.1", port))
        peer.sendall(f"PUT /{'0' * 32} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe".encode())
        time.sleep(0.1)
        began = time.monotonic()
    assert time.monotonic() - began < 10
    peer.close()
    assert not list((tmp_path / "site" / "blocks").rglob("tmp-*"))


def test_only_this_machine_reaches_it(local: LocalSite) -> None:
    port = int(local.url.rpartition(":")[2])
    listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    addresses = {line.split()[1] for line in listening.splitlines() if f":{port:04X} " in line and " 0A " in line}
    assert addresses == {f"0100007F:{port:04X}"}


def test_a_site_stays_what_it_was(tmp_path: Path) -> None:
    with LocalSite(tmp_path / "site") as first:
        web = Web(int(first.url.rpartition(":")[2]), first.token, first.folder)
        made = web("POST", "/arvados/v1/links", b'{"name":"x"}', content_type="application/json").json
    with LocalSite(tmp_path / "site") as second:
        web = Web(int(second.url.rpartition(":")[2]), second.token, second.folder)
        assert web("GET", f"/arvados/v1/links/{made['uuid']}").json == made
    assert first.token == second.token


def test_the_folder_is_private(local: LocalSite) -> None:
    web = Web(int(local.url.rpartition(":")[2]), local.token, local.folder)
    web("PUT", "/5d41402abc4b2a76b9719d911017c592", b"hello")
    assert stat.S_IMODE(local.folder.stat().st_mode) == 0o700
    for path in local.folder.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or "blocks" in path.parts, path


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(BadSettings, match=r"thesis\.tex"):
        open_site(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_site_without_its_settings_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    open_site(tmp_path / "site").close()
    (tmp_path / "site" / "settings.json").unlink()
    with pytest.raises(BadSettings, match=r"settings\.json"):
        open_site(tmp_path / "site")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cluster_id": 1}'])
def test_unreadable_settings_are_an_error(tmp_path: Path, text: str) -> None:
    open_site(tmp_path / "site").close()
    (tmp_path / "site" / "settings.json").write_text(text)
    with pytest.raises(BadSettings, match=r"settings\.json"):
        open_site(tmp_path / "site")


def test_a_site_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    open_site(tmp_path / "site").close()
    database = sqlite3.connect(tmp_path / "site" / "site.db")
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    database.close()
    with pytest.raises(BadSettings, match="newer"):
        open_site(tmp_path / "site")


def test_a_folder_that_cannot_be_made_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError), LocalSite(tmp_path / "file" / "site"):
        pass


def test_a_commit_is_on_disk_before_it_is_answered(tmp_path: Path) -> None:
    """SQLite's words for it: in WAL mode, FULL syncs the log at each commit."""
    found = open_site(tmp_path / "site")
    for transaction in (found.database.reading, found.database.writing):
        with transaction() as connection:
            assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2
            assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    found.close()


def test_a_failed_change_leaves_nothing(tmp_path: Path) -> None:
    found = open_site(tmp_path / "site")

    def fail() -> None:
        with found.database.writing() as connection:
            connection.execute("DELETE FROM users")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    with found.database.reading() as connection:
        assert connection.execute("SELECT count(*) FROM users").fetchone()[0] == 2
    found.close()


def test_a_broken_database_is_a_disk_error(tmp_path: Path) -> None:
    open_site(tmp_path / "site").close()
    (tmp_path / "site" / "site.db").write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(DiskError):
        open_site(tmp_path / "site")


def _open_and_write(folder: Path, start: threading.Event, number: int) -> None:
    start.wait()
    with LocalSite(folder) as local:
        web = Web(int(local.url.rpartition(":")[2]), local.token, local.folder)
        for turn in range(5):
            body = json.dumps({"name": f"{number}-{turn}"}).encode()
            assert web("POST", "/arvados/v1/links", body, content_type="application/json").status == 200
            assert web("PUT", "/5d41402abc4b2a76b9719d911017c592", b"hello").status == 200


def test_several_processes_create_and_use_one_folder_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Event()
    folder = tmp_path / "site"
    workers = [context.Process(target=_open_and_write, args=(folder, start, number)) for number in range(4)]
    for worker in workers:
        worker.start()
    start.set()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    with LocalSite(folder) as local:
        web = Web(int(local.url.rpartition(":")[2]), local.token, local.folder)
        names = {item["name"] for item in web("GET", "/arvados/v1/links").json["items"]}
    assert names == {f"{number}-{turn}" for number in range(4) for turn in range(5)}


def _create_sites(folders: list[Path], together: Barrier, identities: Queue[list[str]]) -> None:
    found = []
    for folder in folders:
        together.wait(30)
        site_there = open_site(folder)
        found.append(site_there.settings.token)
        site_there.close()
    identities.put(found)


def test_creation_is_a_race_that_everybody_wins(tmp_path: Path) -> None:
    """Four processes create ten sites, each at the same moment: all of them see one identity per site."""
    context = multiprocessing.get_context("spawn")
    folders = [tmp_path / str(number) / "site" for number in range(10)]
    together, identities = context.Barrier(4), context.Queue()
    workers = [context.Process(target=_create_sites, args=(folders, together, identities)) for _ in range(4)]
    for worker in workers:
        worker.start()
    seen = [identities.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert seen[0] == seen[1] == seen[2] == seen[3]
    assert len(set(seen[0])) == 10


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, home: Path, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert site.default_folder() == home / ".local/share/arv-docker/site"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert site.default_folder() == home / ".local/share/arv-docker/site"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert site.default_folder() == tmp_path / "arv-docker/site"
    monkeypatch.setenv("ARV_DOCKER_SITE", "~/mine")
    assert site.default_folder() == home / "mine"


def test_discovery_follows_the_address_that_the_client_used(web: Web) -> None:
    found = web("GET", "/discovery/v1/apis/arvados/v1/rest", authorization="", host="proxy.example:8443")
    assert found.json["rootUrl"] == "http://proxy.example:8443/"
    assert found.headers["cache-control"] == "no-store"
    forwarded = web("GET", "/discovery/v1/apis/arvados/v1/rest", host="proxy.example", x_forwarded_proto="https")
    assert forwarded.json["rootUrl"] == "https://proxy.example:443/"
    settings = existing_settings(web.folder)
    assert settings
    assert found.json["uuidPrefix"] == settings.cluster_id
    assert found.json["schemas"]["Collection"]["uuidPrefix"] == "4zz18"
    assert found.json["defaultCollectionReplication"] == 1
    assert found.json["dockerImageFormats"] == ["v2"]


def test_head_is_get_without_the_body(web: Web) -> None:
    for path in ("/arvados/v1/users/current", "/discovery/v1/apis/arvados/v1/rest"):
        found = web("HEAD", path)
        assert (found.status, found.body) == (200, b"")
        assert int(found.headers["content-length"]) == len(web("GET", path).body)


def test_too_large_a_body_is_400_for_json_413_for_a_form(web: Web) -> None:
    path = "/arvados/v1/collections"
    with socket.create_connection(("127.0.0.1", web.port), timeout=20) as peer:
        peer.sendall(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {web.token}\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {(128 << 20) + 1}\r\n\r\n".encode()
        )
        assert peer.recv(100).startswith(b"HTTP/1.1 400")
    with socket.create_connection(("127.0.0.1", web.port), timeout=20) as peer:
        peer.sendall(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {web.token}\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {(128 << 20) + 1}\r\n\r\n".encode()
        )
        assert peer.recv(100).startswith(b"HTTP/1.1 413")


def test_requests_answer_while_another_process_holds_the_database(web: Web) -> None:
    """A writer of another process is waited for, not failed on."""
    database = sqlite3.connect(web.folder / "site.db", isolation_level=None, check_same_thread=False)
    database.execute("BEGIN IMMEDIATE")
    assert web("GET", "/arvados/v1/links").status == 200
    threading.Timer(0.5, lambda: database.execute("COMMIT")).start()
    began = time.monotonic()
    assert web("POST", "/arvados/v1/links", b"{}", content_type="application/json").status == 200
    assert time.monotonic() - began >= 0.4
    database.close()

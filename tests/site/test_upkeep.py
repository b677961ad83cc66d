# SPDX-License-Identifier: Apache-2.0
"""Garbage collection, the check of a site, migrations, and the commands for users."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from arv_docker.cli import site as command
from arv_docker.errors import BadSettings, ContentError, UsageError
from arv_docker.site import LocalSite, upkeep
from arv_docker.site.folder import Site, open_site
from arv_docker.site.store import database
from arv_docker.site.store.blocks import Incoming
from arv_docker.site.store.database import MIGRATIONS, SCHEMA_VERSION, Database
from arv_docker.site.store.resources import SERVED, TOKENS

from .conftest import Direct
from .test_clients import arguments

WEEKS = 15 * 24 * 3600


def stored(site: Site, data: bytes, age: float = WEEKS) -> str:
    """A stored block, last touched so many seconds ago; its MD5."""
    md5 = hashlib.md5(data).hexdigest()
    incoming = site.blocks.receive(md5)
    incoming.write(data)
    incoming.commit()
    then = time.time() - age
    os.utime(site.blocks.path(md5), (then, then))
    return md5


def named(api: Direct, data: bytes, **attributes: Any) -> Any:
    """A collection with one file of one block."""
    text = f". {api.signed(data)} 0:{len(data)}:x\n"
    return api.ok("POST", "collections", {"manifest_text": text} | attributes)


def there(site: Site, *blocks: str) -> list[bool]:
    """Which of the blocks are stored."""
    return [site.blocks.size(md5) is not None for md5 in blocks]


def test_garbage_is_what_nothing_names_and_no_signature_covers(api: Direct) -> None:
    site = api.site
    young, old = stored(site, b"young", 3600), stored(site, b"old")
    used, trashed = stored(site, b"used"), stored(site, b"trashed")
    named(api, b"used")
    api.ok("DELETE", f"collections/{named(api, b'trashed')['uuid']}")
    counted = upkeep.collect_garbage(site, dry_run=True)
    assert (counted.blocks, counted.bytes) == (1, 3)
    assert there(site, old) == [True]
    assert upkeep.collect_garbage(site, dry_run=False) == counted
    assert there(site, young, old, used, trashed) == [True, False, True, True]
    assert list(upkeep.problems(site, quick=False)) == []


def test_a_block_stays_while_somebody_may_hold_a_signature_from_the_old_text(api: Direct) -> None:
    site = api.site
    block = stored(site, b"was here")
    path = f"collections/{named(api, b'was here')['uuid']}"
    api.ok("PUT", path, {"manifest_text": ""})
    upkeep.collect_garbage(site, dry_run=False)
    assert there(site, block) == [True]
    with site.database.writing() as connection:
        connection.execute("UPDATE released SET at = '2000'")
    upkeep.collect_garbage(site, dry_run=False)
    assert there(site, block) == [False]
    with site.database.reading() as connection:
        assert connection.execute("SELECT count(*) FROM released").fetchone()[0] == 0


def test_a_put_of_an_old_block_and_its_removal_take_turns(api: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PUT that has found the block stored is answered with a block that is there."""
    site = api.site
    md5 = stored(site, b"data")
    limit = time.time() - WEEKS + 60
    compare = Incoming._already_stored
    removed: list[int | None] = []
    remover = threading.Thread(target=lambda: removed.append(site.blocks.remove(md5, limit, dry_run=False)))

    def compared(self: Incoming) -> bool:
        found = compare(self)
        remover.start()
        time.sleep(0.2)  # it waits for the lock meanwhile
        return found

    monkeypatch.setattr(Incoming, "_already_stored", compared)
    stored(site, b"data", 0)
    remover.join()
    assert (removed, there(site, md5)) == ([None], [True])


def test_the_check_finds_damage_and_loss(api: Direct) -> None:
    site = api.site
    missing, short = named(api, b"missing"), named(api, b"short")
    damaged = stored(site, b"damaged")
    site.blocks.path(damaged).write_bytes(b"DAMAGED")
    stored(site, b"short")
    site.blocks.path(hashlib.md5(b"short").hexdigest()).write_bytes(b"sh")
    wrong = named(api, b"")
    with site.database.writing() as connection:
        connection.execute("UPDATE collections SET portable_data_hash = 'x' WHERE uuid = ?", (wrong["uuid"],))
    found = "\n".join(upkeep.problems(site, quick=True))
    for part in (f"{missing['uuid']}: block", f"{short['uuid']}: block", f"{wrong['uuid']}: its", f"block {damaged}:"):
        assert part in found
    assert len(found.splitlines()) == 5


def of_version(folder: Path, version: int, patch: pytest.MonkeyPatch) -> None:
    """A site's folder whose database has the schema of an older version, and a row in each of its tables."""
    open_site(folder).close()
    for part in folder.glob("site.db*"):
        part.unlink()
    with patch.context() as older:
        older.setattr(database, "MIGRATIONS", MIGRATIONS[:version])
        older.setattr(database, "SCHEMA_VERSION", version)
        Database(folder / "site.db").migrate()
    old = sqlite3.connect(folder / "site.db")
    for table in tables(old):
        columns = old.execute(f"PRAGMA table_info({table})").fetchall()
        values = {row[1]: 0 if row[2] in ("INTEGER", "REAL") else "{}" for row in columns}
        values |= {"at": "9999"} if table == "released" else {"uuid": f"u-{table}"}
        names, marks = ", ".join(values), ", ".join("?" for _ in values)
        old.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(values.values()))
    old.commit()
    old.close()


def tables(connection: sqlite3.Connection) -> list[str]:
    """The tables of a database."""
    return [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]


def schema(folder: Path) -> list[tuple[str, str]]:
    """All that the schema of a site's database defines."""
    connection = sqlite3.connect(folder / "site.db")
    found = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
    connection.close()
    return found


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_a_site_of_any_older_version_is_brought_up_to_date(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schema is that of a new site, every row is kept, and both answer to every list."""
    folder = tmp_path / "site"
    of_version(folder, version, monkeypatch)
    old = sqlite3.connect(folder / "site.db")
    kept = {name: old.execute(f"SELECT * FROM {name}").fetchall() for name in tables(old)}
    old.close()
    site = open_site(folder)
    open_site(tmp_path / "new").close()
    assert schema(folder) == schema(tmp_path / "new")
    with site.database.reading() as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION
        for table, rows in kept.items():
            assert set(rows) <= {tuple(row) for row in connection.execute(f"SELECT * FROM {table}")}, table
    with site.database.writing() as connection:
        for table in kept.keys() - {"released"}:  # they are no records that answers could show
            connection.execute(f"DELETE FROM {table} WHERE uuid LIKE 'u-%'")
    api = Direct(site)
    for resource in ("collections", "links", "groups", "users", "containers", "container_requests", "workflows"):
        api.ok("GET", resource)
    api.ok("POST", "workflows", {"name": "new", "definition": "{}"})
    site.close()


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_two_processes_that_open_an_old_site_at_once_migrate_it_once(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "site"
    of_version(folder, version, monkeypatch)
    program = (
        "import sys; from pathlib import Path; from arv_docker.site.folder import open_site; "
        "open_site(Path(sys.argv[1])).close()"
    )
    both = [subprocess.Popen([sys.executable, "-c", program, str(folder)]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    open_site(tmp_path / "new").close()
    assert schema(folder) == schema(tmp_path / "new")


def test_every_column_of_a_record_is_in_the_database(api: Direct) -> None:
    with api.site.database.reading() as connection:
        for resource in (*SERVED.values(), TOKENS):
            if resource.name in tables(connection):
                stored = {row[1] for row in connection.execute(f"PRAGMA table_info({resource.name})")}
                assert stored == set(resource.columns), resource.name


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site"
    open_site(folder).close()
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", (*MIGRATIONS, "CREATE TABLE extra (x); CREATE TABLE links (x);"))
        with pytest.raises(Exception, match="cannot be opened"):
            open_site(folder)
    site = open_site(folder)
    with site.database.reading() as connection:
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    assert "extra" not in names
    site.close()


# -- commands ---------------------------------------------------------------------------


def test_users_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--dir", str(tmp_path / "site")]
    with pytest.raises(BadSettings):
        command.run(arguments("user", "create", "an.other", *where))
    open_site(tmp_path / "site").close()
    assert command.run(arguments("user", "create", "an.other", *where)) == 0
    uuid = capsys.readouterr().out.strip()
    with pytest.raises(UsageError, match="already"):
        command.run(arguments("user", "create", "an.other", *where))
    assert command.run(arguments("user", "token", "an.other", "--days", "3", *where)) == 0
    token = capsys.readouterr().out.strip()
    with LocalSite(tmp_path / "site") as site:
        assert site.token != token
    api = Direct(open_site(tmp_path / "site"))
    assert api.ok("GET", "users/current", token=token)["uuid"] == uuid
    assert api.ok("GET", "api_client_authorizations/current", token=token)["expires_at"]
    assert command.run(arguments("user", "list", *where)) == 0
    assert f"{'an.other':18}1 tokens" in capsys.readouterr().out
    assert command.run(arguments("user", "list", "--json", *where)) == 0
    assert [user["username"] for user in json.loads(capsys.readouterr().out)][-1] == "an.other"
    api.site.close()


def test_gc_and_check_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = open_site(tmp_path / "site")
    where = ["--dir", str(tmp_path / "site")]
    block = stored(site, b"data")
    assert command.run(arguments("gc", "--dry-run", *where)) == 0
    assert capsys.readouterr().out == "would remove 1 blocks (4 bytes)\n"
    assert command.run(arguments("status", "--check", *where)) == 0
    assert "none found" in capsys.readouterr().out
    with pytest.raises(UsageError):
        command.run(arguments("status", "--quick", *where))
    site.blocks.path(block).write_bytes(b"DATA")
    with pytest.raises(ContentError) as raised:
        command.run(arguments("status", "--check", "--json", *where))
    assert raised.value.exit_code == 5
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 1
    os.utime(site.blocks.path(block), (0, 0))
    assert command.run(arguments("gc", *where)) == 0
    assert capsys.readouterr().out == "removed 1 blocks (4 bytes)\n"
    site.close()

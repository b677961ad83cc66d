# SPDX-License-Identifier: Apache-2.0
"""The site's SQLite database: its schema by version, and connections that read or write.

A write is on disk before it is answered (``synchronous=FULL`` in WAL mode syncs the log at
each commit), and several processes may use one file: they wait for each other.
"""

from __future__ import annotations

import json
import math
import queue
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import BadSettings, DiskError
from ..refusal import Record
from . import patterns, properties
from .resources import Resource

#: Seconds that a writer waits for another process's transaction before it gives up with 503.
BUSY_SECONDS = 30

#: Steps of SQLite's machine between two looks at the clock: a few milliseconds.
_STEPS = 100_000

#: Each entry brings the schema from its index to the next version; entries are never edited once released.
MIGRATIONS = (
    """
    CREATE TABLE users (
        uuid TEXT PRIMARY KEY, owner_uuid TEXT NOT NULL, created_at TEXT NOT NULL, modified_at TEXT NOT NULL,
        modified_by_user_uuid TEXT, email TEXT, username TEXT UNIQUE, first_name TEXT, last_name TEXT,
        identity_url TEXT, is_active INTEGER NOT NULL, is_admin INTEGER NOT NULL, is_invited INTEGER NOT NULL,
        prefs TEXT NOT NULL
    );
    CREATE TABLE api_client_authorizations (
        uuid TEXT PRIMARY KEY, owner_uuid TEXT NOT NULL, created_at TEXT, modified_at TEXT,
        modified_by_user_uuid TEXT, api_token TEXT NOT NULL UNIQUE, created_by_ip_address TEXT,
        last_used_by_ip_address TEXT, last_used_at TEXT, expires_at TEXT, scopes TEXT NOT NULL
    );
    CREATE TABLE groups (
        uuid TEXT PRIMARY KEY, owner_uuid TEXT NOT NULL, created_at TEXT NOT NULL, modified_at TEXT NOT NULL,
        modified_by_user_uuid TEXT, name TEXT, group_class TEXT NOT NULL, description TEXT,
        properties TEXT NOT NULL, trash_at TEXT, delete_at TEXT, is_trashed INTEGER NOT NULL, frozen_by_uuid TEXT
    );
    CREATE UNIQUE INDEX groups_owner_name ON groups (owner_uuid, name) WHERE is_trashed = 0;
    CREATE INDEX groups_trash ON groups (trash_at) WHERE trash_at IS NOT NULL;
    CREATE TABLE collections (
        uuid TEXT PRIMARY KEY, owner_uuid TEXT NOT NULL, created_at TEXT NOT NULL, modified_at TEXT NOT NULL,
        modified_by_user_uuid TEXT, name TEXT, description TEXT, properties TEXT NOT NULL,
        portable_data_hash TEXT NOT NULL, replication_desired INTEGER, replication_confirmed INTEGER,
        replication_confirmed_at TEXT, storage_classes_desired TEXT NOT NULL,
        storage_classes_confirmed TEXT NOT NULL, storage_classes_confirmed_at TEXT,
        trash_at TEXT, delete_at TEXT, is_trashed INTEGER NOT NULL, version INTEGER NOT NULL,
        current_version_uuid TEXT NOT NULL, preserve_version INTEGER NOT NULL,
        file_count INTEGER NOT NULL, file_size_total INTEGER NOT NULL,
        file_names TEXT NOT NULL, manifest_text TEXT NOT NULL
    );
    CREATE UNIQUE INDEX collections_owner_name ON collections (owner_uuid, name) WHERE is_trashed = 0;
    CREATE INDEX collections_trash ON collections (trash_at) WHERE trash_at IS NOT NULL;
    CREATE INDEX collections_pdh ON collections (portable_data_hash);
    CREATE INDEX collections_created ON collections (created_at, uuid);
    CREATE INDEX collections_modified ON collections (modified_at, uuid);
    CREATE TABLE links (
        uuid TEXT PRIMARY KEY, owner_uuid TEXT NOT NULL, created_at TEXT NOT NULL, modified_at TEXT NOT NULL,
        modified_by_user_uuid TEXT, link_class TEXT, name TEXT, head_uuid TEXT, tail_uuid TEXT,
        properties TEXT NOT NULL
    );
    CREATE INDEX links_class_name ON links (link_class, name);
    CREATE INDEX links_head ON links (head_uuid);
    CREATE INDEX links_tail ON links (tail_uuid);
    CREATE INDEX links_owner ON links (owner_uuid);
    CREATE INDEX links_created ON links (created_at, uuid);
    CREATE INDEX links_modified ON links (modified_at, uuid);
    """,
    """
    CREATE INDEX groups_owner ON groups (owner_uuid);
    CREATE INDEX tokens_owner ON api_client_authorizations (owner_uuid);
    CREATE TABLE released (at TEXT NOT NULL, locators TEXT NOT NULL);
    CREATE INDEX released_at ON released (at);
    """,
    """
    CREATE TABLE containers (
        uuid TEXT PRIMARY KEY, owner_uuid TEXT NOT NULL, created_at TEXT NOT NULL, modified_at TEXT NOT NULL,
        modified_by_user_uuid TEXT, state TEXT NOT NULL, started_at TEXT, finished_at TEXT, log TEXT,
        environment TEXT NOT NULL, cwd TEXT, command TEXT NOT NULL, output_path TEXT, mounts TEXT NOT NULL,
        runtime_constraints TEXT NOT NULL, output TEXT, container_image TEXT NOT NULL, progress REAL,
        priority INTEGER NOT NULL, exit_code INTEGER, auth_uuid TEXT, locked_by_uuid TEXT,
        scheduling_parameters TEXT NOT NULL, runtime_status TEXT, runtime_user_uuid TEXT, runtime_auth_scopes TEXT,
        lock_count INTEGER, gateway_address TEXT, interactive_session_started INTEGER, output_storage_classes TEXT,
        output_properties TEXT, cost REAL, subrequests_cost REAL, output_glob TEXT, service INTEGER,
        published_ports TEXT
    );
    CREATE INDEX containers_image ON containers (container_image);
    CREATE TABLE container_requests (
        uuid TEXT PRIMARY KEY, owner_uuid TEXT NOT NULL, created_at TEXT NOT NULL, modified_at TEXT NOT NULL,
        modified_by_user_uuid TEXT, name TEXT, description TEXT, properties TEXT NOT NULL, state TEXT NOT NULL,
        requesting_container_uuid TEXT, container_uuid TEXT, container_count_max INTEGER, mounts TEXT NOT NULL,
        runtime_constraints TEXT NOT NULL, container_image TEXT NOT NULL, environment TEXT NOT NULL, cwd TEXT,
        command TEXT NOT NULL, output_path TEXT NOT NULL, priority INTEGER NOT NULL, expires_at TEXT, filters TEXT,
        container_count INTEGER NOT NULL, use_existing INTEGER NOT NULL, scheduling_parameters TEXT NOT NULL,
        output_uuid TEXT, log_uuid TEXT, output_name TEXT, output_ttl INTEGER, output_storage_classes TEXT,
        output_properties TEXT, cumulative_cost REAL, output_glob TEXT, service INTEGER, published_ports TEXT
    );
    CREATE INDEX container_requests_owner ON container_requests (owner_uuid);
    CREATE INDEX container_requests_container ON container_requests (container_uuid);
    CREATE INDEX container_requests_image ON container_requests (container_image);
    CREATE TABLE workflows (
        uuid TEXT PRIMARY KEY, owner_uuid TEXT NOT NULL, created_at TEXT NOT NULL, modified_at TEXT NOT NULL,
        modified_by_user_uuid TEXT, name TEXT, description TEXT, definition TEXT, collection_uuid TEXT
    );
    CREATE INDEX workflows_owner ON workflows (owner_uuid);
    """,
)

SCHEMA_VERSION = len(MIGRATIONS)


class Database:
    """A pool of connections to one database file. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._idle: queue.LifoQueue[_Connection] = queue.LifoQueue()
        self._busy: set[_Connection] = set()
        # Writers of one process queue here: SQLite has them ask again and again, with pauses of up to 100 ms.
        self._turn = threading.Lock()

    def migrate(self) -> None:
        """Create the schema, or bring an older one up to date. The caller holds the folder's lock."""
        try:
            with self._connection() as connection:
                version = schema_version(connection)
                if version > SCHEMA_VERSION:
                    raise BadSettings(
                        f"{self.path} has schema version {version}, this program knows {SCHEMA_VERSION}. "
                        "It was written by a newer version of arv-docker: use that one."
                    )
                for number, script in enumerate(MIGRATIONS[version:], version + 1):
                    # One transaction for script and version number: a crash leaves the old schema.
                    connection.executescript(f"BEGIN IMMEDIATE;{script};PRAGMA user_version = {number};COMMIT;")
        except sqlite3.Error as error:
            raise DiskError(f"The site's database {self.path} cannot be opened.", detail=str(error)) from error

    @contextmanager
    def reading(self, seconds: float = math.inf) -> Iterator[sqlite3.Connection]:
        """A connection whose statements all see one state of the database.

        ``seconds`` bounds the block: then the statement that runs is given up, and TookTooLong is raised.
        """
        with self._transaction("BEGIN", seconds) as connection:
            yield connection

    @contextmanager
    def writing(self, seconds: float = math.inf) -> Iterator[sqlite3.Connection]:
        """A connection in a transaction that nobody else writes in; durable when the block ends without an error.

        ``seconds`` is as in ``reading``; nothing is written then.
        """
        with self._turn, self._transaction("BEGIN IMMEDIATE", seconds) as connection:
            yield connection

    def interrupt(self) -> None:
        """Give up every statement that runs, as after its time: for a server that is to end."""
        for connection in tuple(self._busy):
            connection.until = -math.inf

    def close(self) -> None:
        """Close every idle connection. A later use opens new ones."""
        while True:
            try:
                self._idle.get_nowait().close()
            except queue.Empty:
                return

    @contextmanager
    def _transaction(self, begin: str, seconds: float) -> Iterator[sqlite3.Connection]:
        with self._connection() as connection:
            connection.is_late = False
            connection.until = time.monotonic() + seconds
            try:
                connection.execute(begin)
                yield connection
            except BaseException as error:
                # A failed statement may have ended the transaction already (disk full does).
                if connection.in_transaction:
                    connection.until = math.inf
                    connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError) and connection.is_late:
                    raise TookTooLong from error
                raise
            connection.until = math.inf
            connection.execute("COMMIT")

    @contextmanager
    def _connection(self) -> Iterator[_Connection]:
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            connection = _connect(self.path)
        self._busy.add(connection)
        try:
            yield connection
        finally:
            self._busy.discard(connection)
            if connection.in_transaction:
                connection.close()  # its COMMIT failed: what it would do next is anybody's guess
            else:
                self._idle.put(connection)


class TookTooLong(Exception):
    """A statement that was given up because its time had passed."""


class _Connection(sqlite3.Connection):
    """A connection whose statements are given up at the moment ``until``, of the monotonic clock."""

    until = math.inf
    is_late = False

    def check(self) -> None:
        """Raise TookTooLong where the time has passed."""
        if time.monotonic() > self.until:
            self.is_late = True
            raise TookTooLong

    def progress(self) -> bool:
        """Say if the statement is to be given up; SQLite asks every _STEPS steps of its machine."""
        self.is_late = time.monotonic() > self.until
        return self.is_late


def schema_version(connection: sqlite3.Connection) -> int:
    """The version of the schema that the database has; 0 for an empty file."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _connect(path: Path) -> _Connection:
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, factory=_Connection
    )
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    # By a weak reference: a connection that held itself would stay open until garbage is collected.
    clock = weakref.proxy(connection)

    def check() -> None:
        clock.check()

    def progress() -> bool:
        return bool(clock.progress())

    def like(text: str | None, pattern: str, ignore_case: int) -> bool:
        return text is not None and patterns.compile_pattern(pattern, bool(ignore_case)).matches(text, check)

    def test(column: str | None, key: str, op: str, operand: str) -> bool:
        return properties.test(column, key, op, operand, check)

    connection.set_progress_handler(progress, _STEPS)
    connection.create_function("like_pattern", 3, like, deterministic=True)
    connection.create_function("property_test", 4, test, deterministic=True)
    connection.create_function("has_keys", 2, properties.has_keys, deterministic=True)
    connection.create_function("same_json", 2, properties.same_json, deterministic=True)
    return connection


def insertion(resource: Resource, record: Record, verb: str = "INSERT") -> tuple[str, list[object]]:
    """The statement for a new record, with values."""
    marks = ", ".join("?" for _ in record)
    statement = f"{verb} INTO {resource.name} ({', '.join(record)}) VALUES ({marks})"
    return statement, [encode_value(value) for value in record.values()]


def encode_value(value: object) -> object:
    """``value`` as a column stores it: JSON for objects and arrays, 0 or 1 for booleans."""
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if isinstance(value, bool):
        return int(value)
    return value

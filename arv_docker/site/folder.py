# SPDX-License-Identifier: Apache-2.0
"""The folder of a site: the places of its parts, its creation, and the writing of files.

```
settings.json   who the site is, with its secrets (0600)
vocabulary.json optional: the vocabulary of property keys
site.db         records (SQLite)
blocks/         Keep blocks, in folders of their first three digits
tls/            the site's own CA and server certificate
ca-bundle.pem   the machine's CAs and the site's, for clients
address         where it is served right now
lock            held while the folder is created or its schema changes
```

Several processes may use one folder; whoever comes first creates it, under the lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import math
import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadSettings, DiskError
from ..local.disk import lock_descriptor
from .api import users
from .refusal import Json
from .store import clock
from .store.blocks import BlockStore
from .store.database import Database
from .store.files import write_private
from .store.settings import Settings, new_settings, parse_settings
from .store.vocabulary import Vocabulary


class SiteFolder:
    """The paths inside one site folder, as above."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings = root / "settings.json"
        self.vocabulary = root / "vocabulary.json"
        self.database = root / "site.db"
        self.blocks = root / "blocks"
        self.tls = root / "tls"
        self.bundle = root / "ca-bundle.pem"
        self.address = root / "address"
        self.lock = root / "lock"


@dataclass(frozen=True, slots=True)
class Site:
    """An opened site."""

    folder: SiteFolder
    settings: Settings
    vocabulary: Vocabulary
    database: Database
    blocks: BlockStore

    def close(self) -> None:
        """Let go of the database's files."""
        self.database.close()


def open_site(root: Path) -> Site:
    """The site in ``root``, created there if nothing is; raises DiskError and BadSettings."""
    folder = SiteFolder(root.absolute())
    try:
        folder.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with hold_folder_lock(folder):
            settings = _settings(folder)
            database = Database(folder.database)
            _private(folder.database)
            database.migrate()
            users.seed(database, settings)
            blocks = BlockStore(folder.blocks)
            blocks.prepare()
    except (OSError, sqlite3.Error) as error:
        raise DiskError(
            f"The site folder {folder.root} cannot be used. Choose another one: --local=FOLDER, site --dir FOLDER, or "
            "the variable ARV_DOCKER_SITE.",
            detail=str(error),
        ) from error
    return Site(folder, settings, _vocabulary(folder), database, blocks)


def existing_settings(root: Path) -> Settings | None:
    """The settings of the site in ``root``, None where there is no site; raises DiskError and BadSettings."""
    path = SiteFolder(root.absolute()).settings
    try:
        return parse_settings(path.read_text(), str(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DiskError(f"The site settings {path} cannot be read.", detail=str(error)) from error


@contextlib.contextmanager
def hold_folder_lock(folder: SiteFolder, seconds: float = math.inf) -> Iterator[None]:
    """Hold the folder's lock; the kernel drops it with the process, so it cannot be left behind.

    Raises TimeoutError where somebody else holds it for more than ``seconds``.
    """
    descriptor = os.open(folder.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if seconds == math.inf:
            lock_descriptor(descriptor, folder.lock, fcntl.LOCK_EX)
        else:
            _lock_within(descriptor, folder.lock, seconds)
        yield
    finally:
        os.close(descriptor)


def _lock_within(descriptor: int, path: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            lock_descriptor(descriptor, path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise TimeoutError from None
            time.sleep(0.05)
        else:
            return


def _settings(folder: SiteFolder) -> Settings:
    found = existing_settings(folder.root)
    if found:
        return found
    if folder.database.exists() or folder.blocks.exists():
        # A fresh identity here would orphan what is stored: its records belong to another user.
        raise BadSettings(
            f"{folder.root} holds a site's data but no {folder.settings.name}. "
            "Put that file back, or choose another folder."
        )
    _refuse_foreign(folder)
    settings = new_settings(clock.text_of(clock.current_time()), _username())
    write_private(folder.settings, settings.to_json().encode())
    return settings


def _refuse_foreign(folder: SiteFolder) -> None:
    """Refuse a folder with other things in it: it is a mistyped path, not a new site."""
    strangers = [item.name for item in folder.root.iterdir() if item != folder.lock and not item.name.startswith(".")]
    strangers = [name for name in strangers if name != folder.vocabulary.name]
    if strangers:
        folder.lock.unlink(missing_ok=True)
        raise BadSettings(
            f"{folder.root} is not empty and is no site (it holds {sorted(strangers)[0]!r}, for one). "
            "Give a site a folder of its own."
        )


def _username() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no such user, as in some containers
        return "user"


def _private(path: Path) -> None:
    """Create an empty file readable for the owner alone: SQLite gives log files the same mode."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _vocabulary(folder: SiteFolder) -> Vocabulary:
    try:
        document: Json = json.loads(folder.vocabulary.read_text())
    except FileNotFoundError:
        return Vocabulary()
    except (OSError, ValueError) as error:
        raise BadSettings(f"The vocabulary {folder.vocabulary} cannot be read.", detail=str(error)) from error
    tags = document.get("tags") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(tags, dict):
        raise BadSettings(f"The vocabulary {folder.vocabulary} is not an object with 'tags'.")
    return Vocabulary(document.get("strict_tags") is True, tags)

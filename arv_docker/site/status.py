# SPDX-License-Identifier: Apache-2.0
"""The state of a site: its records and blocks, and the address where it is served. Reads only."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shlex
import shutil
import sqlite3
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadSettings, DiskError, NoCluster
from .folder import Site, SiteFolder, existing_settings, open_site
from .http.addresses import addresses
from .store.blocks import BlockStore
from .store.database import Database, schema_version
from .store.resources import COLLECTIONS, GROUPS, LINKS, Resource
from .store.settings import Settings

#: Seconds within which a running site answers on loopback.
ANSWER_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Status:
    """A site at a glance; sizes in bytes."""

    folder: Path
    cluster_id: str
    schema_version: int
    collections: int
    links: int
    projects: int
    blocks: int
    bytes: int
    free_bytes: int
    #: ``host:port``, None where nobody serves the site over HTTPS.
    address: str | None


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """The settings that a client's environment needs to reach a running site."""

    api_host: str
    api_token: str
    ca_bundle: Path


def check_exists(root: Path) -> None:
    """Raise BadSettings where there is no site in ``root``."""
    _existing(SiteFolder(root.absolute()))


def status(root: Path) -> Status:
    """The status of the site in ``root``; raises BadSettings where there is none, DiskError where it cannot be read."""
    folder = SiteFolder(root.absolute())
    settings = _existing(folder)
    database = Database(folder.database)
    try:
        with database.reading() as connection:
            version = schema_version(connection)
            counts = {
                resource.name: _count(connection, resource, settings.system_user_uuid)
                for resource in (COLLECTIONS, LINKS, GROUPS)
            }
        totals = BlockStore(folder.blocks).totals()
        free = shutil.disk_usage(folder.root).free
    except (OSError, sqlite3.Error) as error:
        raise DiskError(f"The site in {folder.root} cannot be read.", detail=str(error)) from error
    finally:
        database.close()
    return Status(
        folder.root,
        settings.cluster_id,
        version,
        counts["collections"],
        counts["links"],
        counts["groups"],
        totals.blocks,
        totals.bytes,
        free,
        _running_address(folder, settings),
    )


@contextlib.contextmanager
def existing(root: Path) -> Iterator[Site]:
    """Open the site in ``root`` for a command; raises BadSettings where there is none, else as ``open_site``."""
    _existing(SiteFolder(root.absolute()))
    site = open_site(root)
    try:
        yield site
    except (OSError, sqlite3.Error) as error:
        raise DiskError(f"The site in {root} cannot be used.", detail=str(error)) from error
    finally:
        site.close()


def client_settings(root: Path) -> ClientSettings:
    """The settings to reach the site in ``root``; raises NoCluster where no server is running."""
    folder = SiteFolder(root.absolute())
    settings = _existing(folder)
    address = _running_address(folder, settings)
    if address is None:
        raise NoCluster(
            f"No server is running for the site in {folder.root}. "
            f"Start one, and leave it running: {_serve_command(folder)}"
        )
    return ClientSettings(address, settings.token, folder.bundle)


def _existing(folder: SiteFolder) -> Settings:
    settings = existing_settings(folder.root)
    if settings is None:
        raise BadSettings(f"There is no site in {folder.root}. It is created on first use: {_serve_command(folder)}")
    return settings


def _serve_command(folder: SiteFolder) -> str:
    return f"arv-docker site serve --dir {shlex.quote(str(folder.root))}"


def _count(connection: sqlite3.Connection, resource: Resource, system: str) -> int:
    """The number of records, but for the groups that every site has."""
    found = connection.execute(
        f"SELECT count(*) FROM {resource.name} WHERE ? OR owner_uuid != ?",  # noqa: S608
        (resource is not GROUPS, system),
    )
    return int(found.fetchone()[0])


def _running_address(folder: SiteFolder, settings: Settings) -> str | None:
    """The newest address in the folder at which this site answers.

    A killed server leaves its address behind, and the port may belong to another program by
    now; so the certificate and the cluster id must be the site's.
    """
    for address in addresses(folder):
        host, _, port = address.rpartition(":")
        if port.isdigit() and _cluster_at(host, int(port), folder.bundle) == settings.cluster_id:
            return address
    return None


def _cluster_at(host: str, port: int, bundle: Path) -> str | None:
    """The cluster id of the site at an address, or None."""
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        context = ssl.create_default_context(cafile=os.fspath(bundle))
        connection = http.client.HTTPSConnection(host.strip("[]"), port, context=context, timeout=ANSWER_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", "/arvados/v1/config")
            document = json.loads(connection.getresponse().read())
            if isinstance(document, dict):
                return str(document.get("ClusterID"))
    return None

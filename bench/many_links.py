#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The listing of a cluster with very many links: this package's and the original's, timed in one run.

usage: bench/many_links.py [LINKS]      (100,000 unless given: half of them names, half of them IDs)

Requests, bytes sent and received (uncompressed), and seconds of both are printed.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import arvados
import arvados.commands.keepdocker as upstream
import httplib2

from arv_docker.arvados.catalog.link_classes import HASH, REPO_TAG
from arv_docker.compat import keepdocker
from arv_docker.site import LocalSite


@dataclass
class Traffic:
    """What went over HTTP."""

    requests: int = 0
    collections: int = 0
    sent: int = 0
    received: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.requests:5} requests ({self.collections} of collections), {self.sent:12,} bytes sent, "
            f"{self.received:12,} received, {self.seconds:6.1f} s"
        )


def fill(folder: Path, links: int) -> None:
    """Makes a site with so many links to half as many collections, by writing into the database of a stopped one."""
    with LocalSite(folder) as site:
        api = arvados.api("v1", discoveryServiceUrl=site.discovery_url, token=site.token)
        head = api.collections().create(body={"name": "template"}).execute()
        api.links().create(body={"link_class": REPO_TAG, "name": "template", "head_uuid": head["uuid"]}).execute()
    database = sqlite3.connect(folder / "site.db")
    database.row_factory = sqlite3.Row
    with database:
        for table, rows in (("collections", _collections), ("links", _links)):
            template = dict(database.execute(f"SELECT * FROM {table}").fetchone())
            prefix = template["uuid"][:12]
            made = (template | row for row in rows(prefix, links // 2))
            names, places = ", ".join(template), ", ".join(f":{name}" for name in template)
            database.executemany(f"INSERT INTO {table} ({names}) VALUES ({places})", made)
    database.close()


def _collections(prefix: str, count: int) -> Iterator[dict[str, object]]:
    for number in range(count):
        uuid = f"{prefix}{number:015d}"
        yield {"uuid": uuid, "current_version_uuid": uuid, "name": f"image {number}", "created_at": _time(number)}


def _links(prefix: str, count: int) -> Iterator[dict[str, object]]:
    for number in range(count):
        head = f"{prefix[:5]}-4zz18-{number:015d}"
        properties = f'{{"image_timestamp":"{_time(number)}"}}'
        for kind, (link_class, name) in enumerate(
            ((HASH, f"sha256:{number:016x}{'0' * 48}"), (REPO_TAG, f"app:{number}"))
        ):
            yield {
                "uuid": f"{prefix}{2 * number + kind:015d}",
                "link_class": link_class,
                "name": name,
                "head_uuid": head,
                "properties": properties,
                "created_at": _time(2 * number + kind),
            }


def _time(number: int) -> str:
    """Times a millisecond apart, as upstream needs them to page."""
    seconds, thousandth = divmod(number, 1000)
    return f"2024-01-01T{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{thousandth:03}000000Z"


@contextmanager
def counted() -> Iterator[list[Traffic]]:
    """Counts what the SDK's HTTP client does in this process, in the last of the list."""
    counts, request = [Traffic()], httplib2.Http.request

    def spied(self: httplib2.Http, uri: str, method: str = "GET", body: Any = None, **options: Any) -> Any:
        response, content = request(self, uri, method=method, body=body, **options)
        counts[-1].requests += 1
        counts[-1].collections += "/collections" in uri
        counts[-1].sent += len(uri) + len(body or "")
        counts[-1].received += len(content)
        return response, content

    httplib2.Http.request = spied
    try:
        yield counts
    finally:
        httplib2.Http.request = request


def both(folder: Path) -> tuple[Traffic, Traffic]:
    """The traffic of this package's listing and of the original's, which must agree."""
    with LocalSite(folder) as site, counted() as counts:
        api = arvados.api("v1", discoveryServiceUrl=site.discovery_url, token=site.token)
        ours, here = _listed(keepdocker.list_images_in_arv, api, counts)
        theirs, there = _listed(upstream.list_images_in_arv, api, counts)
    assert here == there, "the two listings differ"
    return ours, theirs


def _listed(
    listing: Callable[[Any, int], list[tuple[str, dict[str, Any]]]], api: Any, counts: list[Traffic]
) -> tuple[Traffic, object]:
    counts.append(Traffic())
    began = time.monotonic()
    found = listing(api, 3)
    counts[-1].seconds = time.monotonic() - began
    return counts[-1], [(uuid, it["repo"], it["tag"], it["dockerhash"], it["timestamp"]) for uuid, it in found]


def main() -> None:
    """Fills a site, lists it twice, and prints both."""
    links = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as scratch:
        began = time.monotonic()
        fill(Path(scratch) / "site", links)
        print(f"{links:,} links made in {time.monotonic() - began:.1f} s")
        ours, theirs = both(Path(scratch) / "site")
    print(f"this package  {ours}\nthe original  {theirs}")
    print(
        f"{ours.sent / theirs.sent:.2%} of the original's bytes sent, {ours.seconds / theirs.seconds:.0%} of its time"
    )


if __name__ == "__main__":
    main()

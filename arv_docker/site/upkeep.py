# SPDX-License-Identifier: Apache-2.0
"""Upkeep of a site, run by hand: removal of blocks that nobody needs, and a check of all that is stored."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta

from ..model import manifest_text
from .folder import Site
from .store import clock
from .store.blocks import DamagedBlock, Totals
from .store.released import BLOCK, blocks_in_use, forget_released

#: How many blocks a quick check reads.
SAMPLE = 100

#: Seconds that a block stays beyond the end of its signatures: requests that began before may still be under way.
SLACK_SECONDS = 60

_EMPTY = manifest_text.EMPTY_BLOCK[:32]


def collect_garbage(site: Site, *, dry_run: bool) -> Totals:
    """Remove unused blocks, or only count them; return the number and the bytes.

    A block stays as long as a collection names it, in the trash too, and as long as a signature may be about
    that lets somebody name it anew: for the lifetime of signatures after it was last stored, and after it
    was last named by a collection that has changed or been deleted since.
    """
    before = clock.current_time() - timedelta(seconds=site.settings.blob_signature_ttl + SLACK_SECONDS)
    with site.database.reading() as connection:
        needed = {bytes.fromhex(md5) for md5 in blocks_in_use(connection, clock.text_of(before))}
    blocks = size = 0
    for md5 in site.blocks.names():
        if bytes.fromhex(md5) not in needed:
            removed = site.blocks.remove(md5, before.timestamp(), dry_run=dry_run)
            blocks += removed is not None
            size += removed or 0
    if not dry_run:
        with site.database.writing() as connection:
            forget_released(connection, clock.text_of(before))
    return Totals(blocks, size)


def problems(site: Site, *, quick: bool) -> Iterator[str]:
    """The problems in what is stored, a line each: records against blocks, blocks against their names.

    All blocks are read; ``quick`` reads SAMPLE of them, chosen at random.
    """
    with site.database.reading() as connection:
        yield from _database_problems(connection, quick=quick)
        rows = connection.execute("SELECT uuid, portable_data_hash, manifest_text FROM collections")
        for uuid, pdh, text in rows:
            if manifest_text.pdh(text) != pdh:
                yield f"collection {uuid}: its portable data hash is {pdh}, that of its text {manifest_text.pdh(text)}"
            for md5, size in sorted(set(BLOCK.findall(text))):
                stored = site.blocks.size(md5)
                if md5 != _EMPTY and (stored is None or (size and stored != int(size))):
                    yield f"collection {uuid}: block {md5} is {'missing' if stored is None else 'of another size'}"
    names = list(site.blocks.names())
    for md5 in random.sample(names, min(SAMPLE, len(names))) if quick else names:
        with suppress(FileNotFoundError):  # collected meanwhile
            try:
                site.blocks.verify(md5)
            except DamagedBlock:
                yield f"block {md5}: its bytes have another MD5; storing the same content again repairs it"


def _database_problems(connection: sqlite3.Connection, *, quick: bool) -> Iterator[str]:
    for (found,) in connection.execute(f"PRAGMA {'quick' if quick else 'integrity'}_check"):
        if found != "ok":
            yield f"database: {found}"

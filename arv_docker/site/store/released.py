# SPDX-License-Identifier: Apache-2.0
"""Blocks that collections named until lately: whoever has read the old text may name them for as long as signatures
live, so garbage collection leaves them alone until then."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator

#: MD5 and size of a block that manifest text names.
BLOCK = re.compile(r" ([0-9a-f]{32})(?:\+(\d+))?(?=[+ \n])", re.ASCII)


def release_dropped(connection: sqlite3.Connection, stamp: str, old: str, new: str) -> None:
    """Note the blocks of the manifest text ``old`` that ``new``, which takes its place, does not name."""
    dropped = set(BLOCK.findall(old)) - set(BLOCK.findall(new))
    if dropped:
        named = "".join(f" {md5}" for md5, _size in sorted(dropped)) + "\n"
        connection.execute("INSERT INTO released VALUES (?, ?)", (stamp, named))


def release_collections(connection: sqlite3.Connection, stamp: str, condition: str) -> None:
    """Note the blocks of the collections that match a SQL condition, which are about to be deleted."""
    connection.execute(
        f"INSERT INTO released SELECT ?, manifest_text FROM collections WHERE manifest_text != '' AND ({condition})",  # noqa: S608
        (stamp,),
    )


def blocks_in_use(connection: sqlite3.Connection, since: str) -> Iterator[str]:
    """The MD5 of each block that a collection names, or was released from after ``since``; repeats included."""
    for statement, values in (
        ("SELECT manifest_text FROM collections", ()),
        ("SELECT locators FROM released WHERE at > ?", (since,)),
    ):
        for (text,) in connection.execute(statement, values):
            yield from (match[0] for match in BLOCK.findall(text.lower()))


def forget_released(connection: sqlite3.Connection, before: str) -> None:
    """Forget the blocks released until ``before``: every signature from then has ended."""
    connection.execute("DELETE FROM released WHERE at <= ?", (before,))

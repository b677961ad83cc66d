# SPDX-License-Identifier: Apache-2.0
"""The image that a container request means: a real server's own rule (docs/spec/arvados-images.md#resolution).

Step 4 of that rule takes ``sha256:ID`` for the beginning of a name and so finds every image; this site does as the
server does, because what clients are told must hold on both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..refusal import Record, invalid
from ..store import clock
from ..store.resources import COLLECTIONS, LINKS
from .filters import Clause, all_of
from .listing import record_of
from .permissions import readable
from .records import Context

_LOCATOR = re.compile(r"([0-9a-f]{32}\+\d+)(?:\+\S+)*", re.ASCII)

#: Name of the one file of an image, in the format v2.
_FILE = re.compile(r"sha256:[0-9A-Fa-f]{64}\.tar", re.ASCII)


def image_hash(context: Context, image: str) -> str:
    """The portable data hash of the image that ``image`` means; raises Refusal 422 where there is none."""
    if match := _LOCATOR.fullmatch(image):
        pdh = _is_usable(context, match[1])
        if pdh is None:
            raise _not_found(image)
        return pdh
    candidates = list(_candidates(context, image))
    for candidate in candidates:
        if pdh := _is_usable(context, str(candidate["portable_data_hash"])):
            return pdh
    if candidates:
        raise invalid("Matching Docker image is incompatible with 'docker_image_formats' configuration.")
    raise _not_found(image)


def _not_found(image: str) -> Exception:
    return invalid(f'docker image "{image}" not found')


def _candidates(context: Context, image: str) -> Iterator[Record]:
    """The collections that an image's name or the beginning of its ID names, the preferred first."""
    name, colon, tag = image.partition(":")
    tagged = Clause("links.link_class = 'docker_image_repo+tag' AND links.name = ?", (f"{name}:{tag or 'latest'}",))
    if colon and not tag:
        tagged = Clause("0")
    by_id = Clause("links.link_class = 'docker_image_hash' AND like_pattern(links.name, ?, 0)", (f"{name}%",))
    found = _linked_heads(context, tagged) or _linked_heads(context, by_id)
    keys: dict[str, tuple[int, int]] = {}
    collections: dict[str, Record] = {}
    for link, collection in found:  # the oldest first
        uuid = str(collection["uuid"])
        collections[uuid] = collection
        keys.setdefault(uuid, (-_build_time(link), -int(clock.moment_of(str(link["created_at"])).timestamp())))
    return (collections[uuid] for uuid in sorted(keys, key=keys.__getitem__))


def _linked_heads(context: Context, condition: Clause) -> list[tuple[Record, Record]]:
    """Readable links with their readable heads, the oldest link first."""
    links = all_of([condition, readable(LINKS, context.caller)])
    heads = readable(COLLECTIONS, context.caller)
    rows = context.connection.execute(
        f"SELECT * FROM links WHERE {links.sql} ORDER BY created_at, uuid",  # noqa: S608
        links.values,
    ).fetchall()
    found: list[tuple[Record, Record]] = []
    for row in rows:
        head = context.connection.execute(
            f"SELECT uuid, portable_data_hash FROM collections WHERE uuid = ? AND ({heads.sql})",  # noqa: S608
            (row["head_uuid"], *heads.values),
        ).fetchone()
        if head is not None:
            found.append((record_of(LINKS, row), record_of(COLLECTIONS, head)))
    return found


def _build_time(link: Record) -> int:
    """Seconds of the link's ``image_timestamp``; 0 where there is none that can be read."""
    properties = link["properties"]
    text = properties.get("image_timestamp") if isinstance(properties, dict) else None
    try:
        return int(clock.moment_of(text).timestamp()) if isinstance(text, str) else 0
    except ValueError:
        return 0


def _is_usable(context: Context, pdh: str) -> str | None:
    """The hash of the image in a collection, or in its migrated copy; None without an image."""
    names = _file_names(context, pdh)
    if names is None:
        return None
    if _is_image(names):
        return pdh
    row = context.connection.execute(
        "SELECT head_uuid FROM links WHERE link_class = 'docker_image_migration' AND owner_uuid = ? AND tail_uuid = ? "
        "ORDER BY created_at DESC LIMIT 1",
        (context.settings.system_user_uuid, pdh),
    ).fetchone()
    migrated = _file_names(context, str(row["head_uuid"])) if row is not None else None
    return str(row["head_uuid"]) if migrated is not None and _is_image(migrated) else None


def _file_names(context: Context, pdh: str) -> str | None:
    """The paths of the files in a readable collection with that hash, a line each."""
    allowed = all_of([Clause("portable_data_hash = ?", (pdh,)), readable(COLLECTIONS, context.caller)])
    row = context.connection.execute(
        f"SELECT file_names FROM collections WHERE {allowed.sql} LIMIT 1",  # noqa: S608
        allowed.values,
    ).fetchone()
    return None if row is None else str(row[0])


def _is_image(names: str) -> bool:
    """Say if the files of a collection are exactly one, by the name of an image."""
    return _FILE.fullmatch(names.rpartition("/")[2]) is not None and "\n" not in names

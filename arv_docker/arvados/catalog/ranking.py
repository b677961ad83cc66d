# SPDX-License-Identifier: Apache-2.0
"""Ranking of links: which of several links to images is preferred, by the rule of the clients, and by that of the
server. Never raises, whatever is in a link.

Clients rank by ``sort_key`` (docs/spec/catalogue.md#ranking-by-clients); the server's rule is
docs/spec/arvados-images.md#resolution.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from ...model.image import parsed_time
from ..client import Link

#: The property of a link that says when its image was made.
TIMESTAMP = "image_timestamp"

#: The earliest time that there is.
NEVER = datetime.datetime(1, 1, 1, tzinfo=datetime.timezone.utc)
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def sort_key(link: Link) -> tuple[datetime.datetime, datetime.datetime]:
    """The clients' rank of a link; the greatest is preferred.

    Newest ``image_timestamp``, then newest ``created_at``; offsets count, and an absent
    or unreadable time ranks lowest.
    """
    return _time(link.properties.get(TIMESTAMP)), _time(link.created_at)


def server_key(link: Link) -> tuple[int, int]:
    """The server's rank of a link; the smallest is preferred. Whole seconds; an image made before 1970 ranks last."""
    return -_epoch(link.properties.get(TIMESTAMP)), -_epoch(link.created_at)


def server_order(links: Iterable[Link]) -> list[Link]:
    """Links, one for each collection, the preferred first, as the server ranks them.

    Several links to one collection count as its oldest (step 5 of its rule).
    """
    oldest = {link.head_uuid: link for link in newest_first(links)}
    return sorted(oldest.values(), key=server_key)


def newest_first(links: Iterable[Link]) -> list[Link]:
    """Links by when they were made, the newest first; of equal times by UUID."""
    return sorted(links, key=lambda link: (-_time(link.created_at).timestamp(), link.uuid))


def _time(text: object) -> datetime.datetime:
    """Time in ``text``, the earliest possible if there is none; an offset may make it earlier still."""
    return max(parsed_time(text) or NEVER, NEVER)


def _epoch(text: object) -> int:
    time = parsed_time(text)
    return (time - _EPOCH) // datetime.timedelta(seconds=1) if time else 0  # rounded down, as Ruby's Time#to_i

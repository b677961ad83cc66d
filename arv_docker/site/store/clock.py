# SPDX-License-Identifier: Apache-2.0
"""Times as the API writes them: RFC 3339 in UTC with nine digits, stored to the microsecond.

The text form sorts as the times do, so it is also what the database holds
(docs/spec/arvados-api.md#times).
"""

from __future__ import annotations

from datetime import datetime, timezone

import ciso8601


def current_time() -> datetime:
    """The present moment, in UTC."""
    return datetime.now(timezone.utc)


def text_of(moment: datetime) -> str:
    """``moment`` in the form of the wire and of the database."""
    # strftime("%Y") does not pad years below 1000 on every platform; isoformat does.
    return moment.astimezone(timezone.utc).replace(tzinfo=None).isoformat(timespec="microseconds") + "000Z"


def moment_of(text: str) -> datetime:
    """The time that ``text`` names, cut to microseconds; without a zone it is UTC. Raises ValueError."""
    try:
        parsed = ciso8601.parse_datetime(text.strip())
        if parsed.tzinfo is None:
            return parsed.replace(tzinfo=timezone.utc)
        return parsed.astimezone(timezone.utc)
    except OverflowError as error:
        raise ValueError(f"{text!r} is out of range") from error


def canonical(text: str) -> str:
    """``text``, any form of a time, in the form of the wire. Raises ValueError."""
    return text_of(moment_of(text))

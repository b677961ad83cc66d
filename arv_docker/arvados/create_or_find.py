# SPDX-License-Identifier: Apache-2.0
"""Creating a record once, although a request that failed may have created it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from ..errors import ClusterError

Created = TypeVar("Created")

_TRIES = 5
#: Statuses that the server gives for good; anything else may pass (docs/spec/arvados-api.md#permanent-errors).
_FINAL = frozenset((400, 401, 403, 404, 413, 422))


def create_or_find(create: Callable[[], Created], look: Callable[[], Created | None]) -> Created:
    """What ``create`` gives. Where it fails in a way that may pass, what ``look`` finds, else another try.

    An answer may be lost on its way, or be a proxy's, after the record was made; so it
    looks before each retry. Raises ClusterError: at once what the server refuses, the
    last one after five tries in eight seconds.
    """
    for attempt in range(_TRIES):
        try:
            return create()
        except ClusterError as error:
            if error.status in _FINAL:
                raise
            failed = error
        time.sleep(2**attempt / 4)
        if (found := look()) is not None:
            return found
    raise failed

# SPDX-License-Identifier: Apache-2.0
"""Creating a record once, although a request that failed may have created it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from ..errors import ClusterError
from ..local.retry import Backoff

log = logging.getLogger(__name__)

Created = TypeVar("Created")

_BACKOFF = Backoff(tries=5, first=0.25, longest=4)
#: Statuses that the server gives for good; anything else may pass (docs/spec/arvados-api.md#permanent-errors).
_FINAL = frozenset((400, 401, 403, 404, 413, 422))


def create_or_find(create: Callable[[], Created], look: Callable[[], Created | None]) -> Created:
    """Create a record by ``create``; after a transient failure return the result of ``look``, or try again.

    An answer may be lost on its way, or be a proxy's, after the record was made; so it
    looks before each retry. Raises ClusterError: at once what the server refuses, the
    last one after five tries in eight seconds.
    """
    for pause in (*_BACKOFF.pauses(), _BACKOFF.longest):
        try:
            return create()
        except ClusterError as error:
            if error.status in _FINAL:
                raise
            failed = error
        log.debug("not created yet, looking again in %.1f s: %s", pause, failed.message)
        time.sleep(pause)
        if (found := look()) is not None:
            return found
    raise failed

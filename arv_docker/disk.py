# SPDX-License-Identifier: Apache-2.0
"""This machine's disk: what its refusals become for the user."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import DiskError
from .progress import size


@contextmanager
def writing(folder: Path, needed: int = 0) -> Iterator[None]:
    """Turns the errors of a folder that cannot be written into DiskError.

    ``needed`` is the number of bytes that were to be written, if known: a full disk is then
    told with what was needed and what is free.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskError(_full(folder, needed)) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise DiskError(f"{folder} cannot be written: {error.strerror}.") from error
        raise


def _full(folder: Path, needed: int) -> str:
    free = shutil.disk_usage(folder).free
    wanted = f"about {size(needed)} ({needed} bytes) are needed, " if needed else ""
    return (
        f"no room in {folder}: {wanted}{size(free)} ({free} bytes) are free. "
        "Make room, or set XDG_CACHE_HOME to a folder on a larger disk."
    )

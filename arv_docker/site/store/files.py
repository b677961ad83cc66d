# SPDX-License-Identifier: Apache-2.0
"""Writes of files that are whole, private and on disk."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ...local.disk import sync_folder


def write_private(path: Path, data: bytes) -> None:
    """Put ``data`` into ``path``, mode 0600, whole or not at all, and on disk on return."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)

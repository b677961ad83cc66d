# SPDX-License-Identifier: Apache-2.0
"""Record of the blocks of an interrupted run, so that the next run does not send them again.

A file of signed locators, a line each, written as soon as Keep has a block. It belongs to
one image, cluster and user, is found by the next run of them whatever ended this one, and
goes when the image is in Keep. Only what is read and hashes to a block's name spares its PUT.

Keep may collect a block that no collection names when its signature has ended. A locator
without one, of a cluster that signs nothing, does not say how old it is, and is not used.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from ..local.ownership import open_ours
from ..model.image import Digest
from .client import Cluster
from .dedup import usable_blocks

_SUFFIX = ".blocks"


class SentBlocks:
    """The blocks of some images that this user sent to a cluster. ``blocks`` are locators by ``md5+size``."""

    def __init__(self, folder: Path, cluster: Cluster, *image_ids: Digest) -> None:
        self._paths = [folder / f"{image_id}.{cluster.user_uuid}{_SUFFIX}" for image_id in image_ids]
        self._lock = threading.Lock()

    @property
    def blocks(self) -> dict[str, str]:
        """Locators that are on record and may still be used; a line that was cut by a kill is not."""
        found: dict[str, str] = {}
        for path in self._paths:
            with suppress(OSError):
                with open_ours(path) as file:
                    lines = file.read().decode(errors="replace").split("\n")[:-1]
                for line in lines:
                    found.update(usable_blocks(f". {line} 0:0:x\n", time.time()))
        return {name: locator for name, locator in found.items() if "+A" in locator}

    def note(self, locator: str) -> None:
        """Record a block that Keep has taken, if that can be done. Called from any thread."""
        with self._lock, suppress(OSError):
            for path in self._paths:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
                descriptor = os.open(path, flags, 0o600)
                try:
                    os.write(descriptor, f"{locator}\n".encode())
                finally:
                    os.close(descriptor)

    def discard(self) -> None:
        """Forget the blocks that were sent: the images are in Keep."""
        for path in self._paths:
            with suppress(OSError):
                path.unlink(missing_ok=True)

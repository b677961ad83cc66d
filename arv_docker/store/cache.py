# SPDX-License-Identifier: Apache-2.0
"""The place of the cache on this machine, as the code below the command line gets it: passed on, never looked up.

Which folder it is the environment says, and ``tarballs.cache_folder`` reads that, where a command or a program begins.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import DiskError
from ..local.disk import disk_errors
from ..local.ownership import check_private
from .layer_index import KnownBlobs, LayerTable


@dataclass(frozen=True, slots=True)
class CacheFolder:
    """The folder for what spares later runs work. Made when it is first needed; without ``make`` there is none.

    Then nothing is remembered of layers, and what needs disk for a while lies in a folder of this user's among the
    system's temporary files.
    """

    make: Callable[[], Path] | None = None

    @classmethod
    def at(cls, folder: Path) -> CacheFolder:
        """Name a folder that is there already."""
        return cls(lambda: folder)

    @property
    def path(self) -> Path:
        """The folder, to write to; raises DiskError where it cannot be made, or somebody else may write to it."""
        return _temporary_folder() if self.make is None else self.make()

    def layer_table(self) -> LayerTable:
        """Read the table of layers that earlier runs learned; an empty one where there can be no cache."""
        try:
            return LayerTable(None if self.make is None else self.make())
        except DiskError:
            return LayerTable()

    def known_blobs(self) -> KnownBlobs:
        """The layers that were compressed here; raises DiskError as ``path`` does."""
        return KnownBlobs(None if self.make is None else self.make())


def _temporary_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"arv-docker-{os.getuid()}"
    with disk_errors(folder, advice="set TMPDIR to a folder of your own"):
        folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink():  # everybody may put one there, to a folder of this user's too
        raise DiskError(f"{folder} is a link, and not used. Remove it, or set TMPDIR to a folder of your own.")
    check_private(folder, "TMPDIR")
    return folder


#: No cache: nothing is remembered.
NO_CACHE = CacheFolder()

# SPDX-License-Identifier: Apache-2.0
"""A newer Docker, with the containerd store, in the tree of a newer Debian. No fixtures: see `conftest.py`."""

from pathlib import Path

from . import trees
from .engines import Docker


class ContainerdDocker(Docker):
    """A private daemon that keeps images in containerd, and calls them by their manifests."""

    CONFIGURATION = '{"features": {"containerd-snapshotter": true}}'

    def __init__(self, folder: Path, root: Path) -> None:
        """Start it within the tree `root`; its own folder is at the same path there."""
        self._root = root
        super().__init__(folder)

    def _inside(self) -> list[str]:
        return trees.inside(self._root, self.folder)

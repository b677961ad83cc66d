# SPDX-License-Identifier: Apache-2.0
"""A newer Docker, with the containerd store, in the tree of a newer Debian. No fixtures: see `conftest.py`."""

import os
import subprocess
from pathlib import Path

from tests.real.engines import Docker, EngineFailed

#: A tree that was made before, so that it is not made anew in every run: as `debootstrap` below makes it.
READY = "TEST_TRIXIE_ROOT"

# Not chroot: containers of an engine in one cannot mount "/" again. All mounts end with the daemon.
_INSIDE = """
set -e
root=$1 folder=$2
shift 2
mount --rbind "$root" "$root"
for each in proc sys dev; do mount --rbind "/$each" "$root/$each"; done
mkdir -p "$root$folder" "$root/.outside"
mount --rbind "$folder" "$root$folder"
cd "$root"
pivot_root . .outside
cd /
umount -l /.outside
exec "$@"
"""


def tree(folder: Path) -> Path:
    """The tree, made in `folder` unless there is one. Raises EngineFailed with what debootstrap says where it fails."""
    if ready := os.environ.get(READY):
        return Path(ready)
    command = [
        "debootstrap",
        "--variant=minbase",
        "--include=docker.io,iptables,ca-certificates",
        "trixie",
        str(folder),
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise EngineFailed(
            f"containerd: debootstrap failed with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}"
        )
    return folder


class ContainerdDocker(Docker):
    """A private daemon that keeps images in containerd, and calls them by their manifests."""

    CONFIGURATION = '{"features": {"containerd-snapshotter": true}}'

    def __init__(self, folder: Path, root: Path) -> None:
        """Start it within the tree `root`; its own folder is at the same path there."""
        self._root = root
        super().__init__(folder)

    def _inside(self) -> list[str]:
        way = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _INSIDE, "sh"]
        return [*way, str(self._root), str(self.folder)]

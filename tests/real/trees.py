# SPDX-License-Identifier: Apache-2.0
"""Trees of newer Debians, whose engines run on this machine beside its own. No fixtures: see `conftest.py`."""

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .engines import EngineFailed, Podman, Program

#: Trees that were made before, so that they are not made anew in every run: as `made` below makes them.
TRIXIE, SID = "TEST_TRIXIE_ROOT", "TEST_SID_ROOT"

_USUAL = ("docker.io", "podman", "iptables", "ca-certificates")
_PACKAGES = {"trixie": _USUAL, "sid": (*_USUAL, "apptainer")}

# Not chroot: containers of an engine in one cannot mount "/" again. All mounts end with the command.
_INSIDE = """
set -e
root=$1 folder=$2 here=$PWD
shift 2
mount --rbind "$root" "$root"
for each in proc sys dev; do mount --rbind "/$each" "$root/$each"; done
mkdir -p "$root$folder" "$root/.outside"
mount --rbind "$folder" "$root$folder"
cd "$root"
pivot_root . .outside
cd /
umount -l /.outside
PATH=/usr/sbin:/usr/bin:/sbin:/bin
unset XDG_RUNTIME_DIR
cd "$here" 2>/dev/null || cd /
exec "$@"
"""

#: Some user who is not root and whom every Debian has, in place of one who would have to be added.
USER = 33


def made(suite: str, folder: Path) -> Path:
    """The tree of a suite, made in `folder`. Raises EngineFailed with what debootstrap says where it fails."""
    packages = ",".join(_PACKAGES[suite])
    command = ["debootstrap", "--variant=minbase", f"--include={packages}", suite, str(folder)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        words = (done.stdout + done.stderr)[-2000:]
        raise EngineFailed(f"{suite}: debootstrap failed with {done.returncode}: {words}")
    return folder


def inside(root: Path, folder: Path) -> list[str]:
    """What is written in front of a command to run it within a tree, where `folder` is at the same path."""
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", _INSIDE, "sh", str(root), str(folder)]


def stand_in(root: Path, folder: Path, name: str, command: Sequence[str] = ()) -> str:
    """A command of that name, in a folder for PATH, which runs the one of the tree (`command` unless it is that)."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    line = shlex.join([*inside(root, folder), *(command or [name])])
    (programs / name).write_text(f'#!/bin/sh\nexec {line} "$@"\n')
    (programs / name).chmod(0o755)
    return f"{programs}:{os.environ['PATH']}"


class TreePodman(Podman):
    """The Podman of a tree, with a store of its own."""

    def __init__(self, folder: Path, root: Path) -> None:
        super().__init__(folder)
        if not (root / "usr/bin/podman").exists():
            raise EngineFailed(f"{root} has no podman")
        (folder / "tmp").mkdir()
        command = ["podman", "--runtime=runc"]  # crun refuses machines that have cgroups of both versions
        self._variables |= {"PATH": stand_in(root, folder, "podman", command), "TMPDIR": f"{folder}/tmp"}


class Apptainer(Program):
    """The Apptainer of a tree, as an ordinary user. What it reads and writes is below its folder.

    A build gets the folder in which it is started.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        if not (root / "usr/bin/apptainer").exists():
            raise EngineFailed(f"{root} has no apptainer")
        folder.mkdir()
        self.folder = folder
        home = folder / "home"
        home.mkdir()
        os.chown(home, USER, USER)
        user = shlex.join(["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "apptainer"])
        script = f'[ "$1" != build ] || chown -R {USER}:{USER} .\nexport HOME={home}\nexec {user} "$@"\n'
        found = stand_in(root, folder, "apptainer", ["sh", "-c", script, "apptainer"])
        super().__init__("apptainer", variables={"PATH": found, "TMPDIR": str(home)})

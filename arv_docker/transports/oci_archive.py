# SPDX-License-Identifier: Apache-2.0
"""``oci-archive:``, an OCI layout in a tar. What is written is the canonical archive, which is one, and is called by
whatever name the layout is to have for it; what is read is any, by the names of its index."""

from __future__ import annotations

from pathlib import Path

from .docker_archive import ArchiveDestination, ArchiveFile
from .names import Choice
from .oci import names_of, split


def source(rest: str, choice: Choice) -> ArchiveFile:
    """The source ``PATH[:NAME]``; the path ends as ``split_path`` has it."""
    path, name = split(rest, "oci-archive")
    return ArchiveFile(Path(path), name, choice, by_index=True)


def destination(rest: str, choice: Choice) -> ArchiveDestination:  # noqa: ARG001 -- there is nothing to choose
    """The destination ``PATH[:NAME]``."""
    path, name = split(rest, "oci-archive")
    return ArchiveDestination(Path(path), names_of(name))

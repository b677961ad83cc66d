# SPDX-License-Identifier: Apache-2.0
"""Requests to put images into Keep, as a command line or a program makes them: a value."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..model.reference import Reference
from ..transports.names import Choice


@dataclass(frozen=True, slots=True)
class IngestRequest:
    """Images that are to be put into Keep, and from where.

    ``images`` are names or IDs of an engine's images, or sources (``docker://…``); with ``from_archive`` the name of
    the image in that file, or an empty text for the only one. ``name`` links the image instead of its own name.
    ``choice`` is what is said of sources: the platform that is meant, and so on.
    ``every`` takes every image of an archive by its own names, ``all_platforms`` the image for each platform.
    ``unique`` gives each one more name, which can never mean another image. ``pull`` has the engine fetch an image
    from its registry first; ``prefer_keep`` takes an image that Keep has, without asking the engine.
    With ``follow_cluster`` a name that Keep has means what the cluster takes it for, also by an untrusted user's word.
    ``dry_run`` plans, and writes nothing.
    """

    images: tuple[str, ...]
    from_archive: Path | None = None
    name: Reference | None = None
    choice: Choice = field(default_factory=Choice)
    every: bool = False
    all_platforms: bool = False
    unique: bool = False
    pull: bool = False
    prefer_keep: bool = False
    follow_cluster: bool = False
    dry_run: bool = False

    @property
    def for_several(self) -> bool:
        """True if there may be several images of one source."""
        return self.every or self.all_platforms

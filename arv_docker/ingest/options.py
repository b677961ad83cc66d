# SPDX-License-Identifier: Apache-2.0
"""Options of putting images into Keep: a value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..local.settings import CONFIG, MANIFEST, Settings
from ..model.image import Platform
from ..model.manifest import machine_platform


@dataclass(frozen=True, slots=True)
class Options:
    """Options of how images are put into Keep.

    ``cache`` is the folder for what an interrupted run leaves: saved tarballs, and records of the blocks it sent.
    ``project`` owns what is written (None: the user's home). ``name`` replaces the
    collection's usual name. ``force`` stores the image again although Keep has it.
    ``by_manifest`` says that the cluster's nodes use the containerd store: the collection whose file is
    named by the manifest digest gets the names, else the one named by the config digest. ``image_ids`` are the digests
    (CONFIG, MANIFEST) that name files, a collection for each; none: the one that the nodes know.
    ``use_cache`` keeps the saved tarball until the end, so that a second
    try needs no second save; ``keep_tarball`` keeps it for good. ``describe`` notes ID and
    time of the image on a new collection, as properties that a strict vocabulary may refuse. ``platform`` is the
    nodes'; an image for another one is stored with a warning. With ``pdh`` only a collection of that content counts as
    the image: between clusters content is copied, which workflows pin, and not merely an image.
    """

    cache: Path
    project: str | None = None
    name: str | None = None
    force: bool = False
    by_manifest: bool = False
    image_ids: tuple[str, ...] = ()
    use_cache: bool = True
    keep_tarball: bool = False
    force_image_format: bool = False
    describe: bool = False
    platform: Platform | None = None
    pdh: str | None = None

    @classmethod
    def from_settings(
        cls, settings: Settings, cache: Path, project: str | None = None, image_id: str | None = None
    ) -> Options:
        """The usual options, with what the settings say of the digests that name files.

        ``image_id`` is what the user says of them instead: CONFIG, MANIFEST or ``both``.
        """
        return cls(
            cache,
            project,
            by_manifest=settings.by_manifest,
            image_ids=settings.image_ids(image_id),
            platform=settings.platform or machine_platform(),
        )

    @property
    def named_kind(self) -> str:
        """The kind of digest (CONFIG, MANIFEST) that names the file of the collection which gets the image's names."""
        return MANIFEST if self.by_manifest else CONFIG

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of digests in the names of the collections' files; the first one gets the names."""
        return tuple(sorted(self.image_ids or (self.named_kind,), key=lambda kind: kind != self.named_kind))

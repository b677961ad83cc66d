# SPDX-License-Identifier: Apache-2.0
"""How images are to be put into Keep, and what became of each: values."""

from __future__ import annotations

from dataclasses import dataclass

from ..local.settings import CONFIG, MANIFEST, settings
from ..model.image import Digest


@dataclass(frozen=True, slots=True)
class Options:
    """How images are put into Keep.

    ``project`` owns what is written (None: the user's home). ``name`` replaces the
    collection's usual name. ``force`` stores the image again though it is there.
    ``by_manifest`` says that the cluster's nodes use the containerd store: the collection whose file is
    named by the manifest digest gets the names, else the one named by the config digest. ``image_ids`` are the digests
    (CONFIG, MANIFEST) that name files, a collection for each; none: the one that the nodes know.
    ``use_cache`` keeps the saved tarball until the end, so that a second
    try needs no second save; ``keep_tarball`` keeps it for good. ``describe`` notes ID and
    time of the image on a new collection, as properties that a strict vocabulary may refuse.
    """

    project: str | None = None
    name: str | None = None
    force: bool = False
    by_manifest: bool = False
    image_ids: tuple[str, ...] = ()
    use_cache: bool = True
    keep_tarball: bool = False
    force_image_format: bool = False
    describe: bool = False

    @classmethod
    def configured(cls, project: str | None, image_id: str | None = None) -> Options:
        """The usual options, with what the settings say of the digests that name files.

        ``image_id`` is what the user says of them instead: CONFIG, MANIFEST or ``both``.
        """
        found = settings()
        return cls(project=project, by_manifest=found.by_manifest, image_ids=found.image_ids(image_id))

    @property
    def named(self) -> str:
        """What names the file of the collection that gets the image's names."""
        return MANIFEST if self.by_manifest else CONFIG

    @property
    def kinds(self) -> tuple[str, ...]:
        """What names the files of the collections, first the one that gets the names."""
        return tuple(sorted(self.image_ids or (self.named,), key=lambda kind: kind != self.named))


@dataclass(frozen=True, slots=True)
class Beside:
    """The collection of the same blocks whose file is named by the image's other digest.

    In a plan ``uuid`` is None for one that is still to be made, ``image_id`` where that digest is not known yet.
    """

    uuid: str | None
    pdh: str | None
    image_id: Digest | None
    already: bool


@dataclass(frozen=True, slots=True)
class Ingested:
    """An image that is in Keep now. ``already`` says that it was before.

    ``bytes_sent`` counts what went to Keep, ``bytes_spared`` what was read and was there. ``name`` is None where
    it was linked by no name; ``unique`` is the name that can never mean another image, where one was asked for.
    """

    uuid: str
    pdh: str
    image_id: Digest
    name: str | None
    already: bool
    bytes_sent: int
    bytes_spared: int
    links_written: int
    unique: str | None = None
    beside: Beside | None = None

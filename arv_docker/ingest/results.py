# SPDX-License-Identifier: Apache-2.0
"""Results of putting images into Keep: values."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..model.image import Digest


@dataclass(frozen=True, slots=True)
class TwinCollection:
    """The collection of the same blocks whose file is named by the image's other digest.

    In a plan ``uuid`` is None for one that is still to be made, ``image_id`` where that digest is not known yet.
    """

    uuid: str | None
    pdh: str | None
    image_id: Digest | None
    already: bool


@dataclass(frozen=True, slots=True)
class IngestResult:
    """An image in Keep. ``already``: it was there before.

    ``bytes_sent`` counts the bytes that went to Keep, ``bytes_skipped`` those that were read and that Keep had.
    ``name`` is None where the image was linked by no name; ``unique`` is the name that can never mean another image,
    where one was asked for. ``twin`` is the collection under the other digest, where that was wanted too.
    ``shadowed_by`` is the collection that the name means to the cluster instead, such as one of a newer build; None
    where it means this one.

    In the commands' JSON, ``bytes_skipped`` is called ``bytes_spared`` and ``twin`` ``beside``.
    """

    uuid: str
    pdh: str
    image_id: Digest
    name: str | None
    already: bool
    bytes_sent: int
    bytes_skipped: int = field(metadata={"json": "bytes_spared"})
    links_written: int
    unique: str | None = None
    twin: TwinCollection | None = field(default=None, metadata={"json": "beside"})
    shadowed_by: str | None = None

    @property
    def state(self) -> str:
        """State of the image in words, which bytes that were sent of one that Keep had do not contradict."""
        if not self.already:
            return "stored"
        return "read, and then found to be stored already" if self.bytes_sent else "already stored"

# SPDX-License-Identifier: Apache-2.0
"""What became of layers that were compressed here, and which repositories have them: a layer is not compressed again
to find out that a registry has it. A small file for each layer, in a folder of the user's cache."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..archive.gzipped import FORM
from ..disk import locked, replacing
from ..errors import BadConfig, BadReference, DiskError
from ..image import Descriptor, Digest, json_object

#: Repositories that are remembered for a layer.
_MOST = 8


@dataclass(frozen=True, slots=True)
class Known:
    """A layer as it was compressed, and the repositories that got it, as ``host/repository``, the last first."""

    descriptor: Descriptor
    places: tuple[str, ...]


class KnownBlobs:
    """The folder of what is known."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "layers"

    def of(self, diff_id: Digest) -> Known | None:
        """What is known of a layer; None if that is nothing."""
        try:
            found = json_object(self._file(diff_id).read_bytes(), what="what is known of a layer")
            descriptor = Descriptor(found["mediaType"], Digest.parse(found["digest"]), int(found["size"]))
            return Known(descriptor, tuple(map(str, found["places"])))
        except (OSError, BadConfig, BadReference, KeyError, TypeError, ValueError):
            return None

    def note(self, diff_id: Digest, descriptor: Descriptor, place: str) -> None:
        """Remembers that a repository has a layer in that form; on a disk that takes nothing it is forgotten."""
        before = self.of(diff_id)
        places = before.places if before is not None and before.descriptor == descriptor else ()
        if places[:1] == (place,):
            return
        kept = [place, *(it for it in places if it != place)][:_MOST]
        path = self._file(diff_id)
        with suppress(DiskError, OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            with locked(path.with_suffix(".lock")), replacing(path) as file:
                file.write(json.dumps({**descriptor.as_json(), "places": kept}).encode())

    def _file(self, diff_id: Digest) -> Path:
        return self._folder / f"{diff_id.hex}.{FORM}.json"

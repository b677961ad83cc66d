# SPDX-License-Identifier: Apache-2.0
"""The layer index, in a folder of the user's cache: what layers became when they were compressed here, and which
repositories have that; and the names and the size of each that was read from a registry or went into an engine.

So a layer is not compressed again to find out that a registry has it, nor fetched because an archive says its size.
All of it only saves work: whatever is sent is read, and hashed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..archive.codecs.gzip import FORM
from ..errors import BadConfig, BadReference, DiskError
from ..local.disk import hold_lock, replace_file
from ..local.ownership import check_private, is_ours, open_ours
from ..model.image import Descriptor, Digest, json_object

#: Repositories that are remembered for a layer.
_MOST = 8

#: A table of more bytes begins anew; so many are 6,500 layers.
_MOST_BYTES = 1 << 20
#: Uncompressed bytes, diff_id, and a compressed digest if there is one. The digests come last: a line that was cut is
#: none.
_LINE = re.compile(r"(\d{1,18}) (sha256:[0-9a-f]{64}) (sha256:[0-9a-f]{64}|-)", re.ASCII)


@dataclass(frozen=True, slots=True)
class KnownLayer:
    """A layer as it was compressed, and the repositories that got it, as ``host/repository``, the last first."""

    descriptor: Descriptor
    places: tuple[str, ...]


class KnownBlobs:
    """The layers that were compressed here, each with its repositories, in a folder."""

    def __init__(self, folder: Path | None = None) -> None:
        """``folder`` is None where nothing is known, nor will be remembered."""
        self._folder = folder / "layers" if folder else None

    def of(self, diff_id: Digest) -> KnownLayer | None:
        """The known compressed form and repositories of a layer, or None."""
        if self._folder is None:
            return None
        try:
            with open_ours(self._file(self._folder, diff_id)) as file:
                found = json_object(file.read(_MOST_BYTES), what="what is known of a layer")
            descriptor = Descriptor(found["mediaType"], Digest.parse(found["digest"]), int(found["size"]))
            return KnownLayer(descriptor, tuple(map(str, found["places"])))
        except (OSError, BadConfig, BadReference, KeyError, TypeError, ValueError):
            return None

    def note(self, diff_id: Digest, descriptor: Descriptor, place: str) -> None:
        """Remember that a repository has a layer in that form; nothing is written to a full disk."""
        before = self.of(diff_id)
        places = before.places if before is not None and before.descriptor == descriptor else ()
        if places[:1] == (place,) or self._folder is None:
            return
        kept = [place, *(it for it in places if it != place)][:_MOST]
        path = self._file(self._folder, diff_id)
        with suppress(DiskError, OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with hold_lock(path.with_suffix(".lock")), replace_file(path) as file:
                file.write(json.dumps({**descriptor.as_json(), "places": kept}).encode())

    @staticmethod
    def _file(folder: Path, diff_id: Digest) -> Path:
        return folder / f"{diff_id.hex}.{FORM}.json"


class LayerTable:
    """The names of layers: which compressed digests belong to which diff_id, and how many bytes that layer has.

    A file with a line for each pair, which every process of the user adds to; lines that are damaged do not count, and
    of two that disagree the last one does. Each was written when a layer had been read and had hashed to its names.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """``folder`` is None where nothing was learned, nor will be remembered."""
        self._path = folder / "layers" / "table" if folder else None
        self._diff_ids: dict[Digest, Digest] = {}
        self._sizes: dict[Digest, int] = {}
        for line in self._lines():
            if match := _LINE.fullmatch(line):
                self._learn(int(match[1]), Digest.parse(match[2]), None if match[3] == "-" else Digest.parse(match[3]))

    def diff_id(self, name: Digest) -> Digest:
        """The diff_id of the layer with that compressed digest; ``name`` if the digest is unknown."""
        return self._diff_ids.get(name, name)

    def size(self, diff_id: Digest) -> int | None:
        """The uncompressed bytes of a layer; None if they are not known."""
        return self._sizes.get(diff_id)

    def note(self, diff_id: Digest, size: int, compressed: Digest | None = None) -> None:
        """Remember a layer that was read and checked; nothing is written to a full disk."""
        if not self._learn(size, diff_id, compressed) or self._path is None:
            return
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._path.exists() and not is_ours(self._path):
                self._path.unlink()  # somebody else's, or a link that leads elsewhere
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            with os.fdopen(os.open(self._path, flags, 0o600), "ab") as file:
                if file.tell() > _MOST_BYTES:
                    file.truncate(0)
                file.write(f"\n{size} {diff_id} {compressed or '-'}\n".encode())  # what was cut before it ends there

    def _learn(self, size: int, diff_id: Digest, compressed: Digest | None) -> bool:
        """Add a layer to the table, and say if that is new."""
        new = self._sizes.get(diff_id) != size or (compressed and self._diff_ids.get(compressed) != diff_id)
        self._sizes[diff_id] = size
        if compressed:
            self._diff_ids[compressed] = diff_id
        return bool(new)

    def _lines(self) -> Iterator[str]:
        if self._path is None:
            return
        with suppress(OSError, DiskError):
            check_private(self._path.parent)
            with open_ours(self._path) as file:
                yield from file.read(2 * _MOST_BYTES).decode("ascii", errors="replace").splitlines()

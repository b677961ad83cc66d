# SPDX-License-Identifier: Apache-2.0
"""Recognising a canonical archive by its first entries, so that no header of a layer has to be read.

In Keep each header of an aligned layer is in another block of 64 MiB; to index an archive
by its headers would fetch most of an image just to say what it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator, Mapping
from typing import Any

from ..errors import BadReference, ContentError
from ..model.image import MAX_JSON_SIZE, Config, Digest, oci_object
from . import canonical
from .blob import Blob, RandomAccess, section
from .canonical import Layout
from .layer import Layer
from .opened_image import SeekableImage
from .tar import Member, members

#: oci-layout, index.json, manifest.json, the OCI manifest, the config: what comes before the layers.
_HEAD_FILES = 5


class CanonicalImage(SeekableImage):
    """The image of a canonical archive. Its layers are where ``layout`` has them, readable in any order."""

    is_local = True

    def __init__(self, source: RandomAccess, layout: Layout) -> None:
        self._source = source
        self.layout = layout
        self._spans = {span.diff_id: span for span in layout.spans}

    @property
    def config(self) -> Config:
        """The image's config."""
        return self.layout.config

    @property
    def sizes(self) -> Mapping[Digest, int]:
        """The uncompressed size of each distinct layer, in bytes."""
        return {span.diff_id: span.size for span in self.layout.spans}

    @property
    def known_sizes(self) -> Mapping[Digest, int]:
        """The uncompressed size of each distinct layer, in bytes: the archive's head states all of them."""
        return self.sizes

    def layers(self, skip: Container[Digest] = ()) -> Iterator[Layer]:
        """Each distinct layer that is not in ``skip``, in the order in which the layers lie in the archive."""
        return (self.layer(span.diff_id) for span in self.layout.spans if span.diff_id not in skip)

    def layer(self, diff_id: Digest) -> Layer:
        """The layer called ``diff_id``, from its front."""
        offset, size = self.place(diff_id)
        return Layer(section(self._source, offset, size), claimed=diff_id, size=size)

    def plain_blob(self, diff_id: Digest) -> Blob:
        """The layer's bytes, where they lie in the archive."""
        return Blob(self._source, *self.place(diff_id))

    def place(self, diff_id: Digest) -> tuple[int, int]:
        """The place of a layer's bytes in the archive: offset and size."""
        span = self._spans[diff_id]
        return span.offset + len(span.header), span.size

    def is_framed(self) -> bool:
        """True if the bytes between the layers' contents are those of the canonical archive too."""
        return all(self.is_headed(it) and self.is_padded(it) for it in self._spans) and self.is_closed()

    def is_headed(self, diff_id: Digest) -> bool:
        """True if the bytes before a layer are those of the canonical archive."""
        span = self._spans[diff_id]
        return self._source.read_at(span.offset, len(span.header)) == span.header

    def is_padded(self, diff_id: Digest) -> bool:
        """True if the bytes behind a layer are those of the canonical archive."""
        offset, size = self.place(diff_id)
        return self._source.read_at(offset + size, -size % 512) == canonical.padding(size)

    def is_closed(self) -> bool:
        """True if the bytes at the archive's end are those of the canonical archive."""
        return self._source.read_at(self.layout.size - len(canonical.END), len(canonical.END)) == canonical.END


def recognise(source: RandomAccess) -> CanonicalImage | None:
    """Return the image of ``source`` if that begins as the image's canonical archive does and is as long; else None."""
    try:
        layout = _layout(source, list(itertools.islice(members(source), _HEAD_FILES)))
    except (ContentError, BadReference):
        return None  # whatever it is, it is not ours; reading it as any other archive says what is wrong
    if layout is None or layout.size != source.size or source.read_at(0, len(layout.head)) != layout.head:
        return None
    return CanonicalImage(source, layout)


def _layout(source: RandomAccess, files: list[Member]) -> Layout | None:
    if len(files) < _HEAD_FILES or any(file.size > MAX_JSON_SIZE or file.target for file in files):
        return None
    manifest, config = (source.read_at(file.offset, file.size) for file in files[3:])
    parsed = Config.parse(config)
    sizes = _sizes(oci_object(manifest, what="the image's manifest"))
    if any(diff_id not in sizes for diff_id in parsed.diff_ids):
        return None
    return canonical.layout(parsed, sizes)


def _sizes(manifest: Mapping[str, Any]) -> dict[Digest, int]:
    """The layers' sizes by the manifest, which are checked when the head is compared."""
    layers = manifest.get("layers")
    sizes = {}
    for layer in layers if isinstance(layers, list) else []:
        if isinstance(layer, dict) and isinstance(layer.get("digest"), str) and type(layer.get("size")) is int:
            sizes[Digest.parse(layer["digest"])] = max(0, layer["size"])
    return sizes

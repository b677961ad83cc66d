# SPDX-License-Identifier: Apache-2.0
"""An image of an archive or layout: the config, and the layers as they are stored there, compressed or not."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import DigestMismatch
from ..local.progress import Progress, SilentProgress
from ..model.image import Config, Descriptor, Digest
from .blob import Blob, CheckedReader
from .codecs.decompression import MAGIC_LENGTH, DecompressedStream, kind_of
from .layer import CHUNK, Layer
from .opened_image import SeekableImage


@dataclass(frozen=True, slots=True)
class ArchiveLayer:
    """A layer as it is stored: ``named`` is the digest by which its file is called, None for one called otherwise;
    ``compression`` what it is compressed with, None if it is not."""

    diff_id: Digest
    blob: Blob
    named: Digest | None
    compression: str | None

    @classmethod
    def of(cls, diff_id: Digest, blob: Blob, named: Digest | None) -> ArchiveLayer:
        """Return the layer in ``blob``; its first bytes are read, unless the file is called by the diff_id."""
        return cls(diff_id, blob, named, None if named == diff_id else kind_of(blob.start(MAGIC_LENGTH)))

    def open(self, size: int | None) -> Layer:
        """Open the layer at the front; ``size`` counts the uncompressed bytes, where known."""
        if self.compression is None:
            return Layer(self.blob.reader(), claimed=self.diff_id, size=self.blob.size)
        what = f"layer {self.diff_id}"
        stored = CheckedReader(self.blob.reader(), self.blob.size, self.named, what=what)
        stream = DecompressedStream(stored.read, self.compression, what=what, compressed_size=self.blob.size, size=size)
        return Layer(stream.read, claimed=self.diff_id, size=size, readinto=stream.readinto)


class ArchivedImage(SeekableImage):
    """One image of an archive or layout, its layers readable in any order.

    ``config`` is parsed and hashes to what its path claims; ``tags`` are the names that the
    archive gives the image, ``digests`` those of the OCI manifest and the indexes that it has
    for it.
    """

    is_local = True

    def __init__(
        self,
        config: Config,
        layers: Sequence[ArchiveLayer],
        *,
        tags: tuple[str, ...] = (),
        digests: tuple[Digest, ...] = (),
        read_manifest: Callable[[], bytes | None] | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Take ``layers`` in the image's order, repeats kept; ``progress`` is told of those that are read only
        to be counted. ``read_manifest`` gives the image's own manifest, if the archive has one."""
        self._config = config
        self.tags = tags
        self.digests = digests
        self._read_manifest = read_manifest
        self._progress = progress or SilentProgress()
        self._all = tuple(layers)
        self._layers: dict[Digest, ArchiveLayer] = {}
        for layer in layers:
            self._layers.setdefault(layer.diff_id, layer)  # the first of its places counts
        self._sizes = {it.diff_id: it.blob.size for it in self._layers.values() if it.compression is None}

    @property
    def config(self) -> Config:
        """The image's config."""
        return self._config

    def read_manifest(self) -> bytes | None:
        """The image's own manifest, as the archive has it."""
        return self._read_manifest() if self._read_manifest else None

    def check_layout(self) -> None:
        """Raise DigestMismatch if a layer stands at two places: a reader could take another image from the archive,
        each byte being right."""
        for layer in self._all:
            if layer.blob != self._layers[layer.diff_id].blob:
                raise DigestMismatch(
                    f"layer {layer.diff_id} stands at two places in the archive. Readers may take either."
                )

    @property
    def compressed_layers(self) -> Mapping[Digest, Descriptor]:
        """The compressed layers that the archive has a digest for, by diff_id; their descriptors have no media type."""
        return {
            it.diff_id: Descriptor("", it.named, it.blob.size)
            for it in self._layers.values()
            if it.named is not None and it.compression is not None
        }

    @property
    def known_sizes(self) -> Mapping[Digest, int]:
        """The uncompressed bytes of those layers that are stored uncompressed, or were read."""
        return self._sizes

    @property
    def sizes(self) -> Mapping[Digest, int]:
        """The uncompressed size of each distinct layer, in bytes.

        Compressed layers are read for it, once, and checked; raises what ``Layer.read`` raises.
        """
        unknown = [diff_id for diff_id in self._in_order() if diff_id not in self._sizes]
        if unknown:
            total = sum(self._layers[diff_id].blob.size for diff_id in unknown)
            with self._progress.step("reading compressed layers", total) as advance:
                for diff_id in unknown:
                    layer = self.layer(diff_id)
                    while layer.read(CHUNK):
                        pass
                    advance(self._layers[diff_id].blob.size)
                    self._sizes[diff_id] = layer.position
        return {diff_id: self._sizes[diff_id] for diff_id in self._layers}

    def layers(self, skip: Container[Digest] = ()) -> Iterator[Layer]:
        """Each distinct layer that is not in ``skip``, in the order in which the layers lie in the archive."""
        return (self.layer(diff_id) for diff_id in self._in_order() if diff_id not in skip)

    def layer(self, diff_id: Digest) -> Layer:
        """The layer called ``diff_id``, from the front. The ``size`` of a compressed layer is None until read."""
        return self._layers[diff_id].open(self._sizes.get(diff_id))

    def plain_blob(self, diff_id: Digest) -> Blob | None:
        """The layer's stored bytes; None for a compressed layer."""
        layer = self._layers[diff_id]
        return layer.blob if layer.compression is None else None

    def place(self, diff_id: Digest) -> tuple[int, int]:
        """The place of a layer's stored bytes in the archive: offset and size."""
        blob = self._layers[diff_id].blob
        return blob.offset, blob.size

    def _in_order(self) -> list[Digest]:
        return sorted(self._layers, key=lambda diff_id: self._layers[diff_id].blob.offset)

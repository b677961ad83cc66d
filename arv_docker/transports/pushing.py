# SPDX-License-Identifier: Apache-2.0
"""One image on its way into one repository: layers first, several at once, then the config, the name last."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from functools import partial
from typing import IO

from .. import cache
from ..archive import canonical
from ..archive.gzipped import compressed
from ..archive.layer import CHUNK, Layer
from ..disk import writing
from ..errors import BadArchive, UsageError
from ..image import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, Digest
from ..progress import Advance
from ..reference import Reference
from ..registry.client import Client
from ..registry.known import KnownBlobs
from ..registry.mirrors import repository_of
from ..registry.upload import Blob, Uploads
from . import OpenedImage, can_seek

#: A compressed layer beyond this many bytes waits on disk, in a file without a name.
_IN_MEMORY = 32 << 20


@dataclass(frozen=True, slots=True)
class Pushed:
    """An image that a registry has now, under a name and by a digest. ``bytes_sent`` counts what it was sent."""

    reference: Reference
    image_id: Digest
    digest: Digest
    bytes_sent: int


def push(
    client: Client, reference: Reference, image: OpenedImage, advance: Advance, *, compress: bool = True
) -> Pushed:
    """Pushes an image to a name in the client's registry, as ``RegistryDestination.write`` does."""
    if reference.tag is None:
        raise UsageError(f"{reference}: an image is pushed to a tag. Write NAME:TAG.")
    return _Push(client, repository_of(reference), advance, compress=compress).run(image, reference, reference.tag)


class _Push:
    """One image on its way into one repository."""

    def __init__(self, client: Client, repository: str, advance: Advance, *, compress: bool) -> None:
        self._client = client
        self._repository = repository
        self._advance = advance
        self._compress = compress
        self._folder = cache.cache_folder()
        self._known = KnownBlobs(self._folder)
        self._uploads = Uploads()
        self._layers: dict[Digest, Descriptor] = {}

    def run(self, image: OpenedImage, reference: Reference, tag: str) -> Pushed:
        sizes = image.sizes if can_seek(image) else {}
        for diff_id in _ahead(image):
            if (there := self._there(diff_id, sizes.get(diff_id))) is not None:
                self._layers[diff_id] = there
                self._advance(sizes.get(diff_id, 0))
        for layer in image.layers(skip=frozenset(self._layers)):
            self._send(layer)
        config = image.config
        for diff_id in config.diff_ids:
            if diff_id not in self._layers:
                raise BadArchive(f"layer {diff_id} is missing. Save the image again.")
        described = Descriptor(OCI_CONFIG, config.digest, len(config.raw))
        manifest = canonical.oci_manifest(described, [self._layers[diff_id] for diff_id in config.diff_ids])
        blob = Blob.of(config.raw, OCI_CONFIG)
        self._uploads.begin(partial(self._client.push, self._repository, blob))
        sent = self._uploads.finish()
        digest = self._client.put_manifest(self._repository, tag, manifest, OCI_MANIFEST)
        for diff_id in config.distinct_diff_ids:
            self._note(diff_id)
        return Pushed(reference, config.digest, digest, sent)

    def _there(self, diff_id: Digest, size: int | None) -> Descriptor | None:
        """The layer as the repository has it, or gets it from another one of the registry; None if it must be sent.

        ``size`` are its uncompressed bytes, if they are known.
        """
        if not self._compress:
            there = size is not None and self._client.has(self._repository, diff_id)
            return Descriptor(OCI_LAYER, diff_id, size or 0) if there else None
        known = self._known.of(diff_id)
        if known is None:
            return None
        if self._client.has(self._repository, known.descriptor.digest):
            return known.descriptor
        for place in known.places:
            host, _, origin = place.partition("/")
            mountable = host == self._client.host and origin != self._repository
            if mountable and self._client.mount(self._repository, known.descriptor.digest, origin):
                return known.descriptor
        return None

    def _send(self, layer: Layer) -> None:
        """Reads a layer to its end, checks it, and begins to send it."""
        spool: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(self._folder))  # noqa: SIM115
        named = hashlib.sha256()

        def read(length: int) -> bytes:
            content = layer.read(length)
            self._advance(len(content))
            return content

        for chunk in compressed(read) if self._compress else iter(partial(read, CHUNK), b""):
            named.update(chunk)
            with writing(self._folder):
                spool.write(chunk)
        media_type = f"{OCI_LAYER}+gzip" if self._compress else OCI_LAYER
        descriptor = Descriptor(media_type, Digest.sha256(named.hexdigest()), spool.tell())
        self._layers.setdefault(layer.diff_id, descriptor)

        def read_at(offset: int, length: int) -> bytes:
            spool.seek(offset)
            return spool.read(length)

        def send() -> int:
            with spool:
                sent = self._client.push(self._repository, Blob(descriptor, read_at))
            self._note(layer.diff_id)  # also where another layer fails, and the next push has only that to read
            return sent

        self._uploads.begin(send)

    def _note(self, diff_id: Digest) -> None:
        """Remembers that the repository has a layer, as it was compressed."""
        if self._compress:
            self._known.note(diff_id, self._layers[diff_id], f"{self._client.host}/{self._repository}")


def _ahead(image: OpenedImage) -> tuple[Digest, ...]:
    """The image's layers, where they are known before they are read; none for a stream."""
    try:
        return image.config.distinct_diff_ids
    except BadArchive:
        return ()

# SPDX-License-Identifier: Apache-2.0
"""One image on its way into one repository: layers first, several at once, then the config, the name last."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO

from ..archive import canonical
from ..archive.codecs.gzip import gzip_chunks
from ..archive.layer import CHUNK, Layer
from ..errors import BadArchive, RegistryError, UsageError
from ..local.disk import disk_errors
from ..local.progress import Advance
from ..model.image import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, Digest
from ..model.reference import Reference
from ..registry.client import DOCKER_MANIFEST, Client
from ..registry.mirrors import repository_of
from ..registry.upload import Blob, Uploads
from ..store.cache import NO_CACHE, CacheFolder
from . import OpenedImage, can_seek, known_layers
from .local import names_present

log = logging.getLogger(__name__)

#: How registries refuse a manifest of a form that they do not know: Quay, Nexus, Artifactory and Amazon's once.
_NO_OCI = (400, 404, 405, 406, 415, 422)
_DOCKER_TYPES = {
    OCI_CONFIG: "application/vnd.docker.container.image.v1+json",
    OCI_LAYER: "application/vnd.docker.image.rootfs.diff.tar",
    f"{OCI_LAYER}+gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip",
}

#: A compressed layer beyond this many bytes waits on disk, in a file without a name.
_IN_MEMORY = 32 << 20


@dataclass(frozen=True, slots=True)
class PushResult:
    """A pushed image, with name and digest. ``bytes_sent`` counts the bytes for the registry."""

    reference: Reference
    image_id: Digest
    digest: Digest
    bytes_sent: int


def push(
    client: Client,
    reference: Reference,
    image: OpenedImage,
    advance: Advance,
    *,
    compress: bool = True,
    cache: CacheFolder = NO_CACHE,
) -> PushResult:
    """Push an image to a name in the client's registry, as ``RegistryDestination.write`` does."""
    if reference.tag is None or reference.digest is not None:
        raise UsageError(f"{reference}: an image is pushed to a tag, not to a digest. Write NAME:TAG.")
    return _Push(Repository(client, reference, compress=compress, cache=cache), advance).run(
        image, reference, reference.tag
    )


class Repository:
    """A repository of a registry, as a place for layers, which are compressed unless ``compress`` is False.

    ``cache`` is where it is remembered what layers became then, and which repositories have that.
    """

    def __init__(self, client: Client, reference: Reference, *, compress: bool, cache: CacheFolder) -> None:
        self.client = client
        self.cache = cache
        self.name = repository_of(reference)
        self.compress = compress
        self._known_blobs = cache.known_blobs()

    def present(self, layers: Sequence[Digest]) -> frozenset[Digest]:
        """The layers, of some, that the repository has.

        It is asked for what each became when it was compressed here: of another compressed form, which the registry
        may have, nobody can say whose it is before it was read. Raises RegistryError.
        """
        return names_present(
            layers, lambda diff_ids: [it for it in diff_ids if self._has_layer(it)], self.cache.layer_table()
        )

    def descriptor(self, diff_id: Digest, size: int | None) -> Descriptor | None:
        """The descriptor of a layer without reading it; None if it must be read. ``size`` is uncompressed."""
        if not self.compress:
            return None if size is None else Descriptor(OCI_LAYER, diff_id, size)
        known = self._known_blobs.of(diff_id)
        return known.descriptor if known else None

    def mount(self, diff_id: Digest) -> bool:
        """Mount the layer from another repository of the registry; say if the registry could, and did."""
        known = self._known_blobs.of(diff_id) if self.compress else None
        if known is None:
            return False
        places = (place.partition("/") for place in known.places)
        origins = [origin for host, _, origin in places if host == self.client.host and origin != self.name]
        return any(self.client.mount(self.name, known.descriptor.digest, origin) for origin in origins)

    def note(self, diff_id: Digest, descriptor: Descriptor) -> None:
        """Remember that the repository has a layer, as it was compressed."""
        if self.compress:
            self._known_blobs.note(diff_id, descriptor, f"{self.client.host}/{self.name}")

    def _has_layer(self, diff_id: Digest) -> bool:
        found = self.descriptor(diff_id, 0)  # whatever its size
        return found is not None and self.client.has_blob(self.name, found.digest)


def docker_manifest(oci: bytes) -> bytes:
    """An OCI manifest in Docker's form, schema 2: the same config and layers by Docker's names for their types."""
    document = json.loads(oci)
    described = (document["config"], *document["layers"])
    for descriptor in described:
        descriptor["mediaType"] = _DOCKER_TYPES[descriptor["mediaType"]]
    document["mediaType"] = DOCKER_MANIFEST
    return json.dumps(document, separators=(",", ":")).encode()


class _Push:
    """An image on its way into a repository."""

    def __init__(self, repository: Repository, advance: Advance) -> None:
        self._repository = repository
        self._client = repository.client
        self._advance = advance
        self._folder = repository.cache.path
        self._table = repository.cache.layer_table()
        self._uploads = Uploads()
        self._layers: dict[Digest, Descriptor] = {}

    def run(self, image: OpenedImage, reference: Reference, tag: str) -> PushResult:
        self._find_layers(known_layers(image), image.sizes if can_seek(image) else {})
        for layer in image.layers(skip=frozenset(self._layers)):
            self._send_layer(layer)
        config = image.config
        for diff_id in config.diff_ids:
            if diff_id not in self._layers:
                raise BadArchive(f"layer {diff_id} is missing. Save the image again.")
        described = Descriptor(OCI_CONFIG, config.digest, len(config.raw))
        manifest = canonical.oci_manifest(described, [self._layers[diff_id] for diff_id in config.diff_ids])
        blob = Blob.of(config.raw, OCI_CONFIG)
        self._uploads.begin(partial(self._client.push, self._repository.name, blob))
        sent = self._uploads.finish()
        digest = self._put_manifest(tag, manifest)
        for diff_id in config.distinct_diff_ids:
            self._repository.note(diff_id, self._layers[diff_id])
        return PushResult(reference, config.digest, digest, sent)

    def _put_manifest(self, tag: str, manifest: bytes) -> Digest:
        """Give the image its name; in Docker's form in a registry that knows no other."""
        try:
            return self._client.put_manifest(self._repository.name, tag, manifest, OCI_MANIFEST)
        except RegistryError as error:
            if error.status not in _NO_OCI:
                raise
            refused = error
        log.debug("%s", refused.message)
        try:
            digest = self._client.put_manifest(self._repository.name, tag, docker_manifest(manifest), DOCKER_MANIFEST)
        except RegistryError as error:
            raise refused if error.status in _NO_OCI else error from None
        log.warning(
            "%s refuses OCI manifests (status %s): %s:%s has one of Docker's form there (schema 2), %s.",
            self._client.host,
            refused.status,
            self._repository.name,
            tag,
            digest,
        )
        return digest

    def _find_layers(self, diff_ids: Sequence[Digest], sizes: Mapping[Digest, int]) -> None:
        """Find the layers that the repository has, or gets from another one of the registry."""
        wanted = list(dict.fromkeys(diff_ids))
        there = self._repository.present(wanted)
        for diff_id in wanted:
            size = sizes.get(diff_id, self._table.size(diff_id))
            found = self._repository.descriptor(diff_id, size)
            if found is not None and (diff_id in there or self._repository.mount(diff_id)):
                self._layers[diff_id] = found
                self._advance(size or 0)

    def _send_layer(self, layer: Layer) -> None:
        """Read a layer to the end, check it, and begin the upload."""
        spool: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(self._folder))  # noqa: SIM115
        digest = hashlib.sha256()

        def read(length: int) -> bytes:
            content = layer.read(length)
            self._advance(len(content))
            return content

        compress = self._repository.compress
        for chunk in gzip_chunks(read) if compress else iter(partial(read, CHUNK), b""):
            digest.update(chunk)
            with disk_errors(self._folder):
                spool.write(chunk)
        media_type = f"{OCI_LAYER}+gzip" if compress else OCI_LAYER
        descriptor = Descriptor(media_type, Digest.sha256(digest.hexdigest()), spool.tell())
        self._layers.setdefault(layer.diff_id, descriptor)
        self._table.note(layer.diff_id, layer.position, descriptor.digest if compress else None)

        def read_at(offset: int, length: int) -> bytes:
            spool.seek(offset)
            return spool.read(length)

        def send() -> int:
            with spool:
                sent = self._client.push(self._repository.name, Blob(descriptor, read_at))
            # Also where another layer fails, and the next push has only that to read.
            self._repository.note(layer.diff_id, self._layers[layer.diff_id])
            return sent

        self._uploads.begin(send)

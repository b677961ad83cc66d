# SPDX-License-Identifier: Apache-2.0
"""``docker://``, an image in a registry: read and written with no engine."""

from __future__ import annotations

import hashlib
import tempfile
from collections import deque
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import IO

from .. import cache
from ..archive import canonical
from ..archive.compression import MAGIC_LENGTH, Decompressed, kind_of
from ..archive.gzipped import compressed
from ..archive.layer import CHUNK, Layer
from ..disk import writing
from ..errors import BadArchive, LayerCountMismatch, NoSuchImage, NotAnImage, RegistryError, UsageError
from ..image import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Config, Descriptor, Digest, Platform
from ..manifest import Index, Listed, Manifest, chosen, images_of, parse
from ..progress import Advance, Progress, Silent
from ..reference import Reference
from ..registry.ahead import ReadAhead
from ..registry.client import Client, Document
from ..registry.credentials import Provider, configured
from ..registry.http import Patience, host_name, is_local
from ..registry.known import KnownBlobs
from ..registry.mirrors import Place, places, repository_of
from ..registry.upload import Blob, Uploads
from ..settings import settings
from . import OpenedImage, SeekableImage
from .names import Choice

#: Layers that are fetched at the same time, of which the first is handed out. Each may have 16 MiB waiting.
_AT_ONCE = 3
#: A compressed layer beyond this many bytes waits on disk, in a file without a name.
_IN_MEMORY = 32 << 20


def source(rest: str, choice: Choice) -> RegistrySource:
    """``//NAME[:TAG][@DIGEST]``."""
    reference = Reference.parse(f"docker:{rest}")
    return RegistrySource(reference, choice.platform, insecure=choice.insecure, progress=choice.progress)


def destination(rest: str, choice: Choice) -> RegistryDestination:
    """``//NAME[:TAG]``."""
    return RegistryDestination(Reference.parse(f"docker:{rest}"), insecure=choice.insecure)


class RegistryImage:
    """An image of a registry. Its config is known at once; of its layers only those that are asked for are fetched.

    ``digests`` are what the registry calls the image: its manifest, and the index in which that was
    found. ``compressed`` are the layers as the registry has them, by diff_id. ``received`` counts the bytes
    of layers that came over the network.
    """

    def __init__(self, client: Client, repository: str, manifest: Manifest, digests: tuple[Digest, ...]) -> None:
        """Reads the config; raises RegistryError, LayerCountMismatch, and what ``Config.parse`` refuses."""
        self._client = client
        self._repository = repository
        self.digests = digests
        self.config = Config.parse(client.document(repository, manifest.config))
        if len(manifest.layers) != len(self.config.diff_ids):
            raise LayerCountMismatch(
                f"the manifest lists {len(manifest.layers)} layers and the image's config "
                f"{len(self.config.diff_ids)}. Push the image again."
            )
        pairs = zip(self.config.diff_ids, manifest.layers, strict=True)
        self.compressed: dict[Digest, Descriptor] = {}
        for diff_id, descriptor in pairs:
            self.compressed.setdefault(diff_id, descriptor)
        self.received = 0

    def layers(self, skip: Container[Digest] = ()) -> Iterator[Layer]:
        """Each distinct layer that is not in ``skip`` once, uncompressed while it comes.

        The layer that is read to its end has been checked by both its names, the registry's and its diff_id.
        """
        wanted = iter([it for it in self.compressed.items() if it[0] not in skip])
        ahead: deque[tuple[Digest, Descriptor, ReadAhead]] = deque()
        try:
            while True:
                for diff_id, descriptor in islice(wanted, _AT_ONCE - len(ahead)):
                    blob = self._client.blob(self._repository, descriptor)
                    ahead.append((diff_id, descriptor, ReadAhead(blob)))
                if not ahead:
                    return
                diff_id, descriptor, reader = ahead[0]
                yield _layer(reader, diff_id, descriptor)
                self.received += reader.received
                ahead.popleft()
        finally:
            for *_, reader in ahead:
                reader.close()


@dataclass(frozen=True, slots=True)
class RegistrySource:
    """An image of a registry by its name. ``platform`` says which of several, None: this machine's.

    ``provider`` gives credentials for the registry itself; those of Docker's and Podman's configuration unless given,
    which the mirrors have in any case. ``mirrors`` are those of the settings unless given. ``progress`` is told of
    a registry that takes long to answer.
    """

    reference: Reference
    platform: Platform | None = None
    insecure: bool = field(default=False, kw_only=True)
    provider: Provider | None = field(default=None, kw_only=True, repr=False)
    mirrors: Mapping[str, Sequence[str]] | None = field(default=None, kw_only=True)
    patience: Patience | None = field(default=None, kw_only=True, repr=False)
    progress: Progress = field(default_factory=Silent, kw_only=True, repr=False)

    @contextmanager
    def open(self) -> Iterator[RegistryImage]:
        """The image.

        Raises NoSuchImage, AmbiguousImage with the list of platforms, NotAnImage, DigestMismatch, RegistryError.
        """
        with ExitStack() as stack:
            with self.progress.step(f"asking {self.reference.registry}", None):
                image = stack.enter_context(self._opened())
            yield image

    @contextmanager
    def _opened(self) -> Iterator[RegistryImage]:
        with self._found() as (client, repository, document):
            what = f"{client.host}/{repository}"
            parsed = parse(document.raw, what=what)
            digests: tuple[Digest, ...] = (document.digest,)
            if isinstance(parsed, Index):
                listed = chosen(_images(client, repository, parsed), self.platform, what=str(self.reference))
                parsed = _manifest(client, repository, listed.descriptor)
                digests = (listed.descriptor.digest, document.digest)
            image = RegistryImage(client, repository, parsed, digests)
            if len(digests) == 1 and self.platform not in (None, image.config.platform):
                raise NoSuchImage(f"{self.reference} is an image for {image.config.platform}, not {self.platform}.")
            yield image

    def images(self) -> list[Listed]:
        """Every image that the name stands for, one a platform; raises what ``open`` does."""
        with self._found() as (client, repository, document):
            parsed = parse(document.raw, what=f"{client.host}/{repository}")
            if isinstance(parsed, Index):
                return list(_images(client, repository, parsed))
            image = RegistryImage(client, repository, parsed, (document.digest,))
            descriptor = Descriptor(document.media_type, document.digest, len(document.raw))
            return [Listed(descriptor, image.config.platform)]

    @contextmanager
    def _found(self) -> Iterator[tuple[Client, str, Document]]:
        """The first place that has the name. A mirror that has it not, or cannot be asked, is passed over."""
        mirrors = settings().mirrors if self.mirrors is None else self.mirrors
        *others, last = places(self.reference, mirrors)
        for place in others:
            with closing(self._client(place, configured(place.host, place.repository))) as client:
                try:
                    document = self._document(client, place)
                except (NoSuchImage, RegistryError):
                    continue
                yield client, place.repository, document
                return
        provider = self.provider or configured(last.host, last.repository)
        with closing(self._client(last, provider)) as client:
            yield client, last.repository, self._document(client, last)

    def _client(self, place: Place, provider: Provider) -> Client:
        """``insecure`` is for the places on this machine; a registry elsewhere refuses it, a mirror does without."""
        mirror = place.host != self.reference.registry
        insecure = self.insecure and not (mirror and not is_local(host_name(place.host)))
        return Client(place.host, provider, insecure=insecure, patience=self.patience)

    def _document(self, client: Client, place: Place) -> Document:
        name = self.reference.digest or self.reference.tag
        assert name is not None
        return client.manifest(place.repository, name)


@dataclass(frozen=True, slots=True)
class Pushed:
    """An image that a registry has now, under a name and by a digest. ``bytes_sent`` counts what it was sent."""

    reference: Reference
    image_id: Digest
    digest: Digest
    bytes_sent: int


@dataclass(frozen=True, slots=True)
class RegistryDestination:
    """A name in a registry. What is there already is not sent; the name is given last, when all is there.

    Layers are compressed, always to the same bytes, unless ``compress`` is False. Other arguments as for a source.
    """

    reference: Reference
    insecure: bool = field(default=False, kw_only=True)
    provider: Provider | None = field(default=None, kw_only=True, repr=False)
    patience: Patience | None = field(default=None, kw_only=True, repr=False)
    compress: bool = field(default=True, kw_only=True)

    def write(self, image: OpenedImage, advance: Advance) -> Pushed:
        """Pushes the image. Raises UsageError for a name without a tag, what the layers raise, and RegistryError."""
        host = self.reference.registry
        provider = self.provider or configured(host, repository_of(self.reference))
        client = Client(host, provider, insecure=self.insecure, patience=self.patience)
        with closing(client):
            return push(client, self.reference, image, advance, compress=self.compress)


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
        for diff_id in _ahead(image):
            if (there := self._there(diff_id)) is not None:
                self._layers[diff_id] = there
                self._advance(image.sizes[diff_id] if isinstance(image, SeekableImage) else 0)
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
        if self._compress:
            for diff_id in config.distinct_diff_ids:
                self._known.note(diff_id, self._layers[diff_id], f"{self._client.host}/{self._repository}")
        return Pushed(reference, config.digest, digest, sent)

    def _there(self, diff_id: Digest) -> Descriptor | None:
        """The layer as the repository has it, or gets it from another one of the registry; None if it must be sent."""
        known = self._known.of(diff_id) if self._compress else None
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
                return self._client.push(self._repository, Blob(descriptor, read_at))

        self._uploads.begin(send)


def _ahead(image: OpenedImage) -> tuple[Digest, ...]:
    """The image's layers, where they are known before they are read; none for a stream."""
    try:
        return image.config.distinct_diff_ids
    except BadArchive:
        return ()


def _images(client: Client, repository: str, index: Index) -> Iterator[Listed]:
    """Every image of an index, those of indexes within it too."""

    def fetch(descriptor: Descriptor) -> Index | Manifest:
        return parse(client.manifest(repository, descriptor.digest).raw, what=f"the index {descriptor.digest}")

    return images_of(index, fetch, what=f"{client.host}/{repository}")


def _manifest(client: Client, repository: str, descriptor: Descriptor) -> Manifest:
    parsed = parse(client.manifest(repository, descriptor.digest).raw, what=f"the manifest {descriptor.digest}")
    if isinstance(parsed, Index):
        raise NotAnImage(f"{client.host}/{repository} calls {descriptor.digest} an image, and it is an index.")
    return parsed


def _layer(blob: ReadAhead, diff_id: Digest, descriptor: Descriptor) -> Layer:
    """The layer in a blob. Told apart by its first bytes whether it is compressed, for media types are often wrong."""
    if descriptor.digest == diff_id:
        return Layer(blob.read, claimed=diff_id, size=descriptor.size)
    start = blob.read(MAGIC_LENGTH)
    pieces = [start]

    def read(length: int) -> bytes:
        if not pieces:
            return blob.read(length)
        ahead, rest = pieces[0][:length], pieces.pop()[length:]
        if rest:
            pieces.append(rest)
        return ahead + blob.read(length - len(ahead)) if len(ahead) < length else ahead

    kind = kind_of(start)
    if kind is None:
        return Layer(read, claimed=diff_id, size=None)
    content = Decompressed(read, kind, what=f"layer {descriptor.digest}")
    return Layer(content.read, claimed=diff_id, size=None, readinto=content.readinto)

# SPDX-License-Identifier: Apache-2.0
"""``docker://``, an image in a registry: read and written with no engine."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from ..archive.compression import MAGIC_LENGTH, Decompressed, kind_of
from ..archive.layer import Layer
from ..errors import LayerCountMismatch, NoSuchImage, NotAnImage, RegistryError
from ..image import Config, Descriptor, Digest, Platform
from ..manifest import Index, Listed, Manifest, chosen, images_of, parse
from ..reference import Reference
from ..registry.blob import BlobReader
from ..registry.client import Client, Document
from ..registry.credentials import Provider
from ..registry.http import Patience, host_name, is_local
from ..registry.mirrors import Place, places
from ..settings import settings
from .names import Choice


def source(rest: str, choice: Choice) -> RegistrySource:
    """``//NAME[:TAG][@DIGEST]``."""
    return RegistrySource(Reference.parse(f"docker:{rest}"), choice.platform, insecure=choice.insecure)


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
        for diff_id, descriptor in self.compressed.items():
            if diff_id in skip:
                continue
            with closing(self._client.blob(self._repository, descriptor)) as blob:
                yield _layer(blob, diff_id, descriptor)
                self.received += blob.received


@dataclass(frozen=True, slots=True)
class RegistrySource:
    """An image of a registry by its name. ``platform`` says which of several, None: this machine's.

    ``provider`` gives credentials for the registry itself; those of Docker's and Podman's configuration unless given,
    which the mirrors have in any case. ``mirrors`` are those of the settings unless given.
    """

    reference: Reference
    platform: Platform | None = None
    insecure: bool = field(default=False, kw_only=True)
    provider: Provider | None = field(default=None, kw_only=True, repr=False)
    mirrors: Mapping[str, Sequence[str]] | None = field(default=None, kw_only=True)
    patience: Patience | None = field(default=None, kw_only=True, repr=False)

    @contextmanager
    def open(self) -> Iterator[RegistryImage]:
        """The image.

        Raises NoSuchImage, AmbiguousImage with the list of platforms, NotAnImage, DigestMismatch, RegistryError.
        """
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
            client = Client(
                place.host, insecure=self.insecure and is_local(host_name(place.host)), patience=self.patience
            )
            with closing(client):
                try:
                    document = self._document(client, place)
                except (NoSuchImage, RegistryError):
                    continue
                yield client, place.repository, document
                return
        with closing(Client(last.host, self.provider, insecure=self.insecure, patience=self.patience)) as client:
            yield client, last.repository, self._document(client, last)

    def _document(self, client: Client, place: Place) -> Document:
        name = self.reference.digest or self.reference.tag
        assert name is not None
        return client.manifest(place.repository, name)


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


def _layer(blob: BlobReader, diff_id: Digest, descriptor: Descriptor) -> Layer:
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

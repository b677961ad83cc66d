# SPDX-License-Identifier: Apache-2.0
"""``docker://``, an image in a registry: read and written with no engine."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from ..archive.codecs.decompression import MAGIC_LENGTH, Decompressed, kind_of
from ..archive.layer import Layer
from ..archive.opened_image import OpenedImage
from ..errors import LayerCountMismatch, NoSuchImage, NotAnImage, RegistryError
from ..local.progress import Advance, Progress, Silent, size_text
from ..local.settings import settings
from ..model.image import Config, Descriptor, Digest, Platform
from ..model.manifest import Index, Listed, Manifest, chosen, images_of, parse, suits
from ..model.reference import Reference
from ..registry.client import Client, Document
from ..registry.credentials import Provider, configured_provider
from ..registry.http import Patience, host_name, is_local
from ..registry.mirrors import Place, places, repository_of
from ..registry.read_ahead import ReadAhead
from . import Destination, Openable, Source
from .local import learned
from .names import Choice
from .pushing import PushResult, Repository, push

#: Layers that are fetched at the same time, of which the first is handed out. Each may have 16 MiB waiting.
_AT_ONCE = 3


def source(rest: str, choice: Choice) -> RegistrySource:
    """``//NAME[:TAG][@DIGEST]``."""
    reference = Reference.parse(f"docker:{rest}")
    return RegistrySource(reference, choice.platform, insecure=choice.insecure, progress=choice.progress)


def destination(rest: str, choice: Choice) -> RegistryDestination:
    """``//NAME[:TAG]``."""
    return RegistryDestination(Reference.parse(f"docker:{rest}"), insecure=choice.insecure)


class RegistryImage(OpenedImage):
    """An image of a registry. Its config is known at once; of its layers only those that are asked for are fetched.

    ``host`` is the registry, or the mirror that has the image. ``digests`` are what it calls the image: its
    manifest, and the index in which that was found. ``compressed`` are the layers as the registry has them, by
    diff_id. ``bytes_received`` counts the bytes of layers that came over the network.
    """

    def __init__(self, client: Client, repository: str, manifest: Manifest, digests: tuple[Digest, ...]) -> None:
        """Reads the config; raises RegistryError, LayerCountMismatch, and what ``Config.parse`` refuses."""
        self._client = client
        self._repository = repository
        self.host = client.host
        self.digests = digests
        self._config = Config.parse(client.read_document(repository, manifest.config))
        if len(manifest.layers) != len(self.config.diff_ids):
            raise LayerCountMismatch(
                f"the manifest lists {len(manifest.layers)} layers and the image's config "
                f"{len(self.config.diff_ids)}. Push the image again."
            )
        pairs = zip(self.config.diff_ids, manifest.layers, strict=True)
        self._stored: dict[Digest, Descriptor] = {}
        for diff_id, descriptor in pairs:
            self._stored.setdefault(diff_id, descriptor)
        self.bytes_received = 0

    @property
    def config(self) -> Config:
        """The image's config."""
        return self._config

    @property
    def compressed(self) -> Mapping[Digest, Descriptor]:
        """The layers as the registry has them, by diff_id."""
        return self._stored

    def layers(self, skip: Container[Digest] = ()) -> Iterator[Layer]:
        """Each distinct layer that is not in ``skip`` once, uncompressed while it comes.

        The layer that is read to its end has been checked by both its names, the registry's and its diff_id. That they
        belong together is remembered.
        """
        table = learned()
        wanted = iter([it for it in self._stored.items() if it[0] not in skip])
        ahead: deque[tuple[Digest, Descriptor, ReadAhead]] = deque()
        try:
            while True:
                for diff_id, descriptor in islice(wanted, _AT_ONCE - len(ahead)):
                    blob = self._client.blob(self._repository, descriptor)
                    ahead.append((diff_id, descriptor, ReadAhead(blob)))
                if not ahead:
                    return
                diff_id, descriptor, reader = ahead[0]
                layer = _layer(reader, diff_id, descriptor)
                yield layer
                self.bytes_received += reader.bytes_received
                if layer.diff_id == diff_id:  # read to its end
                    table.note(diff_id, layer.position, None if descriptor.digest == diff_id else descriptor.digest)
                ahead.popleft()
        finally:
            for *_, reader in ahead:
                reader.close()


@dataclass(frozen=True, slots=True)
class RegistrySource(Source):
    """An image of a registry by its name. ``platform`` says which of several, None: this machine's.

    ``provider`` gives credentials for the registry itself; those of Docker's and Podman's configuration unless given,
    which the mirrors have in any case. ``mirrors`` are those of the settings unless given. ``progress`` is told of
    a registry that takes long to answer, and of how many bytes of layers came from it.
    """

    reference: Reference
    platform: Platform | None = None
    insecure: bool = field(default=False, kw_only=True)
    provider: Provider | None = field(default=None, kw_only=True, repr=False)
    mirrors: Mapping[str, Sequence[str]] | None = field(default=None, kw_only=True)
    patience: Patience | None = field(default=None, kw_only=True, repr=False)
    progress: Progress = field(default_factory=Silent, kw_only=True, repr=False)

    @property
    def called(self) -> Reference:
        """The image's name there."""
        return self.reference

    @contextmanager
    def open(self) -> Iterator[RegistryImage]:
        """The image.

        Raises NoSuchImage, AmbiguousImage with the list of platforms, NotAnImage, DigestMismatch, RegistryError.
        """
        with ExitStack() as stack:
            with self.progress.step(f"asking {self.reference.registry}", None):
                image = stack.enter_context(self._open_image())
            yield image
            if image.bytes_received:
                self.progress.say(f"{image.host}: {size_text(image.bytes_received)} of layers fetched")

    @contextmanager
    def _open_image(self) -> Iterator[RegistryImage]:
        with self._open_name() as (client, repository, document):
            what = f"{client.host}/{repository}"
            parsed = parse(document.raw, what=what)
            digests: tuple[Digest, ...] = (document.digest,)
            if isinstance(parsed, Index):
                listed = chosen(_images(client, repository, parsed), self.platform, what=str(self.reference))
                parsed = _manifest(client, repository, listed.descriptor)
                digests = (listed.descriptor.digest, document.digest)
            image = RegistryImage(client, repository, parsed, digests)
            if len(digests) == 1 and self.platform is not None and not suits(image.config.platform, self.platform):
                raise NoSuchImage(f"{self.reference} is an image for {image.config.platform}, not {self.platform}.")
            yield image

    @contextmanager
    def platforms(self) -> Iterator[Iterator[Openable]]:
        """The image for each of its platforms; raises what ``open`` does."""
        with self._open_name() as (client, repository, document):
            parsed = parse(document.raw, what=f"{client.host}/{repository}")

            def opened(listed: Listed) -> RegistryImage:
                manifest = _manifest(client, repository, listed.descriptor)
                return RegistryImage(client, repository, manifest, (listed.descriptor.digest, document.digest))

            if isinstance(parsed, Index):
                listed = list(_images(client, repository, parsed))
                yield (
                    (f"{self.reference} ({it.platform or 'unknown platform'})", partial(opened, it)) for it in listed
                )
            else:
                only = partial(RegistryImage, client, repository, parsed, (document.digest,))
                yield iter([(str(self.reference), only)])

    def images(self) -> list[Listed]:
        """Every image that the name stands for, one a platform; raises what ``open`` does."""
        with self._open_name() as (client, repository, document):
            parsed = parse(document.raw, what=f"{client.host}/{repository}")
            if isinstance(parsed, Index):
                return list(_images(client, repository, parsed))
            image = RegistryImage(client, repository, parsed, (document.digest,))
            descriptor = Descriptor(document.media_type, document.digest, len(document.raw))
            return [Listed(descriptor, image.config.platform)]

    @contextmanager
    def _open_name(self) -> Iterator[tuple[Client, str, Document]]:
        """The first place that has the name. A mirror that has it not, or cannot be asked, is passed over."""
        mirrors = settings().mirrors if self.mirrors is None else self.mirrors
        *others, last = places(self.reference, mirrors)
        for place in others:
            with closing(self._client(place, configured_provider(place.host, place.repository))) as client:
                try:
                    document = self._document(client, place)
                except (NoSuchImage, RegistryError):
                    continue
                yield client, place.repository, document
                return
        provider = self.provider or configured_provider(last.host, last.repository)
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
class RegistryDestination(Destination[PushResult]):
    """A name in a registry. What is there already is not sent; the name is given last, when all is there.

    Layers are compressed, always to the same bytes, unless ``compress`` is False. Other arguments as for a source.
    """

    reference: Reference
    insecure: bool = field(default=False, kw_only=True)
    provider: Provider | None = field(default=None, kw_only=True, repr=False)
    patience: Patience | None = field(default=None, kw_only=True, repr=False)
    compress: bool = field(default=True, kw_only=True)

    def present(self, layers: Sequence[Digest]) -> frozenset[Digest]:
        """As ``Repository`` has it. Raises RegistryError."""
        with self._client() as client:
            return Repository(client, self.reference, compress=self.compress).present(layers)

    def write(self, image: OpenedImage, advance: Advance) -> PushResult:
        """Pushes the image. Raises UsageError for a name without a tag, what the layers raise, and RegistryError."""
        with self._client() as client:
            return push(client, self.reference, image, advance, compress=self.compress)

    @contextmanager
    def _client(self) -> Iterator[Client]:
        host = self.reference.registry
        provider = self.provider or configured_provider(host, repository_of(self.reference))
        with closing(Client(host, provider, insecure=self.insecure, patience=self.patience)) as client:
            yield client


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

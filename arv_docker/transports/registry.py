# SPDX-License-Identifier: Apache-2.0
"""``docker://``, an image in a registry: read and written with no engine."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TypeVar

from ..archive.codecs.decompression import MAGIC_LENGTH, DecompressedStream, kind_of
from ..archive.layer import Layer
from ..archive.opened_image import OpenedImage
from ..errors import ContentError, LayerCountMismatch, NoSuchImage, NotAnImage
from ..local.progress import Advance, Progress, SilentProgress, size_text
from ..model.image import Config, Descriptor, Digest, Platform
from ..model.manifest import Index, IndexEntry, Manifest, check_image, choose_entry, images_of, suits
from ..model.reference import Reference
from ..registry.access import Access
from ..registry.client import Client, Document
from ..registry.credentials import Provider, configured_provider
from ..registry.http import host_name, is_local
from ..registry.mirrors import Place, places, repository_of
from ..registry.patience import Patience
from ..registry.pulling import RepositoryReader
from ..registry.read_ahead import ReadAhead
from ..store.cache import NO_CACHE, CacheFolder
from . import Destination, Openable, Source
from .names import Choice
from .pushing import PushResult, Repository, push

Value = TypeVar("Value")

#: Layers that are fetched at the same time, of which the first is handed out. Each may have 16 MiB waiting.
_AT_ONCE = 3


def source(rest: str, choice: Choice) -> RegistrySource:
    """The source ``//NAME[:TAG][@DIGEST]``."""
    return source_of(Reference.parse(f"docker:{rest}"), choice)


def source_of(reference: Reference, choice: Choice) -> RegistrySource:
    """The source of an image by its name in a registry."""
    return RegistrySource(
        reference,
        choice.platform,
        insecure=choice.insecure,
        provider=choice.credentials,
        access=choice.access or Access(),
        mirrors=choice.settings.mirrors,
        progress=choice.progress,
        cache=choice.cache,
    )


def destination(rest: str, choice: Choice) -> RegistryDestination:
    """The destination ``//NAME[:TAG]``."""
    return RegistryDestination(
        Reference.parse(f"docker:{rest}"),
        insecure=choice.insecure,
        provider=choice.credentials,
        access=choice.access or Access(),
        cache=choice.cache,
    )


class RegistryImage(OpenedImage):
    """An image of a registry. The config is known at once; layers are fetched when they are asked for.

    ``digests`` are what the registry calls the image: its manifest, and the index in which that was found.
    ``compressed_layers`` are the layers as the registry has them, by diff_id. ``bytes_received`` counts the bytes of
    layers that came over the network.
    """

    def __init__(
        self, reader: RepositoryReader, manifest: Manifest, digests: tuple[Digest, ...], cache: CacheFolder
    ) -> None:
        """Read the config; ``cache`` learns whose the layers are.

        Raises RegistryError, LayerCountMismatch, and what ``Config.parse`` refuses.
        """
        self._reader = reader
        self._cache = cache
        self.digests = digests
        check_image(manifest, what=f"the image at {reader.host}")
        self._config = Config.parse(reader.read_document(manifest.config))
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
    def host(self) -> str:
        """The registry, or the mirror that has the image."""
        return self._reader.host

    @property
    def config(self) -> Config:
        """The image's config."""
        return self._config

    @property
    def compressed_layers(self) -> Mapping[Digest, Descriptor]:
        """The layers as the registry has them, by diff_id."""
        return self._stored

    def read_manifest(self) -> bytes:
        """The image's manifest, byte for byte; the registry is asked for it once more."""
        return self._reader.manifest(self.digests[0])[0].raw

    def layers(self, skip: Container[Digest] = ()) -> Iterator[Layer]:
        """Each distinct layer that is not in ``skip`` once, uncompressed while it comes.

        The layer that is read to its end has been checked by both its names, the registry's and its diff_id. That they
        belong together is remembered.
        """
        table = self._cache.layer_table()
        wanted = iter([pair for pair in self.compressed_layers.items() if pair[0] not in skip])
        waiting: deque[tuple[Digest, Descriptor, ReadAhead]] = deque()
        try:
            while True:
                for diff_id, descriptor in islice(wanted, _AT_ONCE - len(waiting)):
                    waiting.append((diff_id, descriptor, ReadAhead(self._reader.blob(descriptor))))
                if not waiting:
                    return
                diff_id, descriptor, ahead = waiting[0]
                layer = _layer(ahead, diff_id, descriptor, table.size(diff_id))
                yield layer
                self.bytes_received += ahead.bytes_received
                if layer.diff_id == diff_id:  # read to its end
                    table.note(diff_id, layer.position, None if descriptor.digest == diff_id else descriptor.digest)
                waiting.popleft()
        finally:
            for *_, ahead in waiting:
                ahead.close()


@dataclass(frozen=True, slots=True)
class RegistrySource(Source):
    """An image of a registry by name. ``platform`` chooses among several, None: this machine's.

    ``provider`` gives credentials for the registry itself; those of ``access`` unless given, which the mirrors have in
    any case. ``access`` says how the user gets to registries, and ``mirrors`` which are asked first. ``progress`` is
    told of a registry that takes long to answer, and of how many bytes of layers came from it. ``cache`` learns those.
    """

    reference: Reference
    platform: Platform | None = None
    insecure: bool = field(default=False, kw_only=True)
    provider: Provider | None = field(default=None, kw_only=True, repr=False)
    access: Access = field(default_factory=Access, kw_only=True, repr=False)
    mirrors: Mapping[str, Sequence[str]] = field(default_factory=dict, kw_only=True)
    patience: Patience | None = field(default=None, kw_only=True, repr=False)
    progress: Progress = field(default_factory=SilentProgress, kw_only=True, repr=False)
    cache: CacheFolder = field(default=NO_CACHE, kw_only=True, repr=False)

    @property
    def catalog_name(self) -> Reference:
        """The image's name in the registry."""
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
        with self._open_reader(self._image_of) as image:
            yield image

    def _image_of(self, reader: RepositoryReader, document: Document, parsed: Manifest | Index) -> RegistryImage:
        """The image that is meant by a name."""
        if isinstance(parsed, Index):
            listed = choose_entry(
                self._entries_of(reader, parsed),
                self.platform,
                what=str(self.reference),
                look=partial(self._with_platform, reader),
            )
            return self._listed_image(reader, document, listed)
        image = RegistryImage(reader, parsed, (document.digest,), self.cache)
        if self.platform and not suits(image.config.platform, self.platform):
            raise NoSuchImage(f"{self.reference} is an image for {image.config.platform}, not {self.platform}.")
        return image

    def _listed_image(self, reader: RepositoryReader, document: Document, listed: IndexEntry) -> RegistryImage:
        """An image that the index in ``document`` lists."""
        manifest = self._listed_manifest(reader, listed.descriptor)
        return RegistryImage(reader, manifest, (listed.descriptor.digest, document.digest), self.cache)

    @contextmanager
    def platforms(self) -> Iterator[Iterator[Openable]]:
        """The image for each of its platforms; raises what ``open`` does."""
        with self._open_reader(self._openables_of) as openables:
            yield iter(openables)

    def _openables_of(
        self, reader: RepositoryReader, document: Document, parsed: Manifest | Index
    ) -> Sequence[Openable]:
        if isinstance(parsed, Index):
            return [
                (
                    f"{self.reference} ({entry.platform or 'unknown platform'})",
                    partial(self._listed_image, reader, document, entry),
                )
                for entry in self._images_in(reader, parsed)
            ]
        image = RegistryImage(reader, parsed, (document.digest,), self.cache)
        return [(str(self.reference), lambda: image)]

    def images(self) -> list[IndexEntry]:
        """Every image of the name, for each platform; raises as ``open`` does."""
        with self._open_reader(self._entries_with_platform) as entries:
            return entries

    def _entries_with_platform(
        self, reader: RepositoryReader, document: Document, parsed: Manifest | Index
    ) -> list[IndexEntry]:
        if isinstance(parsed, Index):
            return list(self._images_in(reader, parsed))
        image = RegistryImage(reader, parsed, (document.digest,), self.cache)
        descriptor = Descriptor(document.media_type, document.digest, len(document.raw))
        return [IndexEntry(descriptor, image.config.platform)]

    @contextmanager
    def _open_reader(self, use: Callable[[RepositoryReader, Document, Manifest | Index], Value]) -> Iterator[Value]:
        """The value that ``use`` gives of the repository, and of the manifest or index that the name has there.

        A mirror whose manifest is none of the image that is meant (another platform, an artifact) is passed over.
        """
        name = self.reference.digest or self.reference.tag
        assert name is not None
        with closing(self._reader()) as reader:
            while True:
                document, parsed = reader.manifest(name)
                host = reader.host
                try:
                    value = use(reader, document, parsed)
                    break
                except (NoSuchImage, ContentError) as error:
                    if not reader.pass_over(host, error):
                        raise
            yield value

    def _reader(self) -> RepositoryReader:
        """The repository, in the mirrors and in the registry."""
        *others, last = places(self.reference, self.mirrors)
        return RepositoryReader(
            [(place, self._mirror_client(place)) for place in others],
            last,
            lambda: self._registry_client(last),
            lambda: self.cache.path,
        )

    def _registry_client(self, place: Place) -> Client:
        return Client(
            place.host,
            self.provider or configured_provider(place.host, place.repository, self.access.logins),
            insecure=self.insecure,
            patience=self.patience,
            access=self.access,
        )

    def _mirror_client(self, place: Place) -> Client:
        """The client for a mirror; ``insecure`` is for those on this machine, any other does without."""
        return Client(
            place.host,
            configured_provider(place.host, place.repository, self.access.logins),
            insecure=self.insecure and is_local(host_name(place.host)),
            patience=(self.patience or Patience()).for_mirror(),
            access=self.access,
            role="mirror",
        )

    def _images_in(self, reader: RepositoryReader, index: Index) -> Iterator[IndexEntry]:
        """Every image of an index, each with its platform; artifacts are left out."""
        for entry in self._entries_of(reader, index):
            if (image := entry if entry.platform else self._with_platform(reader, entry)) is not None:
                yield image

    def _with_platform(self, reader: RepositoryReader, entry: IndexEntry) -> IndexEntry | None:
        """An entry of an index, completed by the config's platform; None for an artifact."""
        manifest = self._listed_manifest(reader, entry.descriptor)
        if not manifest.is_image:
            return None
        return replace(entry, platform=Config.parse(reader.read_document(manifest.config)).platform)

    def _entries_of(self, reader: RepositoryReader, index: Index) -> Iterator[IndexEntry]:
        """The images in an index, and in indexes within it."""

        def fetch(descriptor: Descriptor) -> Index | Manifest:
            return self._listed_document(reader, descriptor)

        return images_of(index, fetch, what=f"{reader.host}/{reader.repository}")

    def _listed_manifest(self, reader: RepositoryReader, descriptor: Descriptor) -> Manifest:
        parsed = self._listed_document(reader, descriptor)
        if isinstance(parsed, Index):
            raise NotAnImage(
                f"{reader.host}/{reader.repository} calls {descriptor.digest} an image, and it is an index."
            )
        return parsed

    def _listed_document(self, reader: RepositoryReader, descriptor: Descriptor) -> Manifest | Index:
        """A document in an index; raises NoSuchImage, with the index's name, for a missing document."""
        try:
            return reader.manifest(descriptor.digest)[1]
        except NoSuchImage as error:
            raise NoSuchImage(
                f"{self.reference} is an index that lists {descriptor.digest}, and the registry has lost that image. "
                "Push the image again, or choose another platform.",
                detail=error.detail,
            ) from None


@dataclass(frozen=True, slots=True)
class RegistryDestination(Destination[PushResult]):
    """A name in a registry. What is there already is not sent; the name is given last, when all is there.

    Layers are compressed, always to the same bytes, unless ``compress`` is False. Other arguments as for a source.
    """

    reference: Reference
    insecure: bool = field(default=False, kw_only=True)
    provider: Provider | None = field(default=None, kw_only=True, repr=False)
    access: Access = field(default_factory=Access, kw_only=True, repr=False)
    patience: Patience | None = field(default=None, kw_only=True, repr=False)
    compress: bool = field(default=True, kw_only=True)
    cache: CacheFolder = field(default=NO_CACHE, kw_only=True, repr=False)

    def present(self, layers: Sequence[Digest]) -> frozenset[Digest]:
        """The layers that the repository has, as ``Repository`` says. Raises RegistryError."""
        with self._client() as client:
            return Repository(client, self.reference, compress=self.compress, cache=self.cache).present(layers)

    def write(self, image: OpenedImage, advance: Advance) -> PushResult:
        """Push the image. Raises UsageError for a name without a tag, what the layers raise, and RegistryError."""
        with self._client() as client:
            return push(client, self.reference, image, advance, compress=self.compress, cache=self.cache)

    @contextmanager
    def _client(self) -> Iterator[Client]:
        host, access = self.reference.registry, self.access
        provider = self.provider or configured_provider(host, repository_of(self.reference), access.logins)
        client = Client(host, provider, insecure=self.insecure, patience=self.patience, access=access)
        with closing(client):
            yield client


def _layer(blob: ReadAhead, diff_id: Digest, descriptor: Descriptor, size: int | None) -> Layer:
    """The layer in a blob. Told apart by its first bytes whether it is compressed, for media types are often wrong.

    ``size`` are the uncompressed bytes that a layer of that diff_id had when it was read before, None if it was not:
    it never has more, and may then grow as it likes.
    """
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
    what = f"layer {descriptor.digest}"
    content = DecompressedStream(read, kind, what=what, compressed_size=descriptor.size, size=size)
    return Layer(content.read, claimed=diff_id, size=None, readinto=content.readinto)

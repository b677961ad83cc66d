# SPDX-License-Identifier: Apache-2.0
"""Images published in a registry, under names that can never mean an older image, and when one can be used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from ..errors import BadReference, NoSuchImage, RegistryDenied, UsageError
from ..local.polling import wait_until_ready
from ..local.progress import Advance
from ..model.image import Digest
from ..model.reference import NAMELESS, ImageId, Reference, references_in
from ..registry.access import Access
from ..registry.client import Client
from ..registry.credentials import Credentials, Provider, configured_provider
from ..registry.mirrors import repository_of
from ..registry.patience import Patience
from ..registry.services import PlainService, Service, State
from ..store.cache import NO_CACHE, CacheFolder
from ..transports import OpenedImage
from ..transports.pushing import PushResult, push


class Registry:
    """A registry, or a folder of one, as a place to publish images. To be closed after use.

    Names are ``repository:tag``, without the registry; the service is asked by them.
    """

    def __init__(
        self,
        url: str,
        credentials: Provider | None = None,
        *,
        service: Callable[[Client, str], Service] = PlainService,
        insecure: bool = False,
        patience: Patience | None = None,
        access: Access | None = None,
        cache: CacheFolder = NO_CACHE,
    ) -> None:
        """Name the registry by ``url``, which is ``HOST[:PORT][/FOLDER]``, with or without ``https://``.

        ``credentials`` are those of ``access`` unless given, which says how the user gets to registries; ``cache``
        remembers what layers became. ``service`` makes what surrounds the registry, of a client and the folder.
        ``insecure`` is HTTP without TLS, on this machine alone.
        Raises BadReference for what is no registry.
        """
        self.host, self._folder = parse_registry(url)
        self._named = self._folder
        self._access = access or Access()
        self._cache = cache
        self._client = Client(
            self.host,
            credentials or self._configured_credentials,
            insecure=insecure,
            patience=patience,
            access=self._access,
        )
        self._service = service(self._client, self._folder)
        self._sleep = self._client.http.patience.sleep

    def name_of(self, image_id: Digest, called: Reference | ImageId | None, tags: tuple[str, ...] = ()) -> str:
        """The unique name for an image: ``repository:tag-<10 digits of its ID>``.

        ``called`` is the image's name elsewhere, whose registry does not count. For an ID, or nothing,
        it is the first of ``tags``; without any, the repository is ``image``.
        """
        if not isinstance(called, Reference):
            called = next(iter(references_in(tags)), Reference.parse(NAMELESS))
        unique = called.unique_for(image_id)
        return f"{unique.repository}:{unique.tag}"

    def push(self, image: OpenedImage, name: str, advance: Advance, *, compress: bool = True) -> PushResult:
        """Publish an image under exactly that name; the repository is created first if necessary.

        Raises BadReference, what the layers raise, and RegistryError, which names the step.
        """
        reference = self._reference_of(name)
        self._service.create(self._name_with_tag(name).rpartition(":")[0])
        return push(self._client, reference, image, advance, compress=compress, cache=self._cache)

    def images(self) -> Iterator[str]:
        """The names of all images, over as many pages as it takes."""
        return self._service.images()

    def repositories(self) -> Iterator[str]:
        """The names of all repositories."""
        return self._service.repositories()

    def tags(self, repository: str) -> Iterator[str]:
        """The tags of a repository; raises NoSuchImage for a missing or empty repository."""
        self._reference_of(f"{repository}:latest")
        tags = self._service.tags(repository)
        first = next(tags, None)
        if first is None:
            raise NoSuchImage(f"{self.host} has no image in {repository}.")
        yield first
        yield from tags

    def create(self, repository: str) -> bool:
        """Create a repository; False if it is there already, or comes with the first push."""
        self._reference_of(f"{repository}:latest")
        return self._service.create(repository)

    def status(self, name: str) -> State:
        """The state of an image, by whether it can be used under that name: ``ready``, ``pending``, or ``absent``."""
        return self._service.status(self._name_with_tag(name))

    def wait(self, name: str, seconds: float) -> None:
        """Wait until the image is ready. Raises NotReady when it is not after so many seconds."""
        wait_until_ready(lambda: self.status(name), str, what=name, seconds=seconds, sleep=self._sleep)

    def delete(self, name: str) -> bool:
        """Delete an image; False if there was none. Raises UnsupportedByRegistry where that is not allowed."""
        return self._service.delete(self._name_with_tag(name))

    def token(self) -> str:
        """The secret of this user for the registry; raises RegistryDenied without one."""
        credentials = self._client.wallet.credentials()
        if credentials is None:
            raise RegistryDenied(f"{self.host}: there are no credentials. Log in with docker login, or name a source.")
        return credentials.secret

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _configured_credentials(self) -> Credentials | None:
        """The configured credentials for the last named repository, which may differ from the registry's."""
        return configured_provider(self.host, self._named, self._access.logins)()

    def _reference_of(self, name: str) -> Reference:
        beginning = f"{self._folder}/" if self._folder else ""
        reference = Reference.parse(f"{self.host}/{beginning}{name}")
        if reference.registry != self.host or reference.digest is not None:
            raise UsageError(f"{name!r} is not REPOSITORY:TAG, without the registry.")
        self._named = repository_of(reference)
        return reference

    def _name_with_tag(self, name: str) -> str:
        """The name of an image with its tag, if it is a name."""
        reference = self._reference_of(name)
        return name if name.endswith(f":{reference.tag}") else f"{name}:{reference.tag}"


def parse_registry(url: str) -> tuple[str, str]:
    """Host and folder of a registry's URL; raises BadReference for what is none."""
    parts = urlsplit(url if "//" in url else f"//{url}")
    if "@" in url:
        raise BadReference(
            "the registry has a name or a password in its address: give those by --username and the like."
        )
    folder = parts.path.strip("/")
    try:
        if parts.scheme not in ("", "https", "http", "docker") or parts.query:
            raise BadReference("it is no address.")
        parsed = Reference.parse(f"{parts.netloc}/{f'{folder}/' if folder else ''}x")
    except BadReference as error:
        raise BadReference(f"{url!r} is no registry, which is HOST[:PORT][/FOLDER]: {error.message}") from None
    if parsed.registry != parts.netloc:
        raise BadReference(f"{url!r} is no registry: write its host with a dot or a port, as in localhost:5000.")
    return parsed.registry, folder

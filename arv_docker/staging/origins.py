# SPDX-License-Identifier: Apache-2.0
"""Origins of images that are to be staged: Keep, an engine, a registry, asked in that order.

An origin says which image a name means there, and how it is read; nothing of its layers is
read before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from ..arvados.catalog import platforms, resolver
from ..arvados.client import Cluster, CollectionRecord
from ..arvados.stored import StoredImage, image_file
from ..arvados.trust import Trust
from ..engines import Engine, EngineImage
from ..engines.auto import Auto
from ..engines.docker import Docker
from ..engines.podman import Podman
from ..errors import EngineError, NoSuchImage, RegistryError
from ..local.progress import Progress
from ..local.settings import Settings
from ..model.image import Digest, Platform
from ..model.reference import ImageId, Reference
from ..store.cache import CacheFolder
from ..transports import OpenedImage
from ..transports.names import Choice
from ..transports.registry import RegistrySource, source_of
from ..transports.saved import SavedSource
from .staged import WantedImage


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image that an origin has. ``digest`` is its name there: the image ID, or the digest of its manifest.

    ``digests`` are others that it has there; ``repo_digests`` the names by digest under which registries have it, as
    far as the origin knows. ``platform`` is what it is for, where the digest may be that of several.
    """

    origin: str
    digest: Digest
    open: Callable[[], AbstractContextManager[OpenedImage]]
    repo_digests: tuple[str, ...] = ()
    digests: tuple[Digest, ...] = ()
    platform: Platform | None = None


class Origin(Protocol):
    """A place that images come from."""

    def find(self, wanted: WantedImage, *, force: bool) -> FoundImage:
        """Find the image that the name means there now. ``force``: fetch it anew where an older one is there.

        Raises NoSuchImage, also where there is none for the platform that is wanted, and what asking fails with.
        """


class FromKeep:
    """A cluster as an origin, by the rule by which it starts containers."""

    def __init__(self, cluster: Callable[[], Cluster], settings: Settings, progress: Progress) -> None:
        """``cluster`` is called when an image is asked for, once; ``settings`` say whom to trust there."""
        self._make = cluster
        self._settings = settings
        self._cluster: Cluster | None = None
        self._progress = progress

    def find(self, wanted: WantedImage, *, force: bool) -> FoundImage:  # noqa: ARG002 -- what Keep has cannot be any newer
        """Find the image. Its digests in registries are taken from trusted users alone: its bytes do not show those."""
        if self._cluster is None:
            self._cluster = self._make()
        cluster = self._cluster
        trust = Trust.from_settings(cluster, self._settings)
        resolved = _resolve(cluster, wanted, trust, self._progress)
        for warning in resolved.warnings:
            self._progress.warn(warning)
        image_id = image_file(resolved.collection).image_id
        return FoundImage("keep", image_id, lambda: _open_stored(cluster, resolved.collection))


class FromEngine:
    """An engine as an origin; what is not there is fetched into it first, if ``pull``."""

    def __init__(
        self, engine: Callable[[], Engine], progress: Progress, cache: CacheFolder, *, pull: bool = False
    ) -> None:
        """``engine`` is called for each image, which is saved into the ``cache`` first."""
        self._engine = engine
        self._progress = progress
        self._cache = cache
        self._pull = pull

    def find(self, wanted: WantedImage, *, force: bool) -> FoundImage:
        """Find the image. With ``pull`` and ``force`` it is fetched anew; if that fails, the one there counts."""
        engine = self._engine()
        image = None
        if not (self._pull and force and isinstance(wanted.name, Reference)):
            image = self._image_in(engine, wanted)
        if image is None:
            image = self._pull_image(engine, wanted)
        if not wanted.fits(image.platform):
            raise NoSuchImage(
                f"{engine.name} has {wanted} for {image.platform}, and not for {wanted.platform}: "
                "an engine has one image of a name. A cluster or a registry may have others."
            )
        source = SavedSource(engine, image, self._progress, self._cache)
        return FoundImage("engine", image.id, source.open, image.digests, platform=image.platform)

    def _image_in(self, engine: Engine, wanted: WantedImage) -> EngineImage | None:
        try:
            return engine.inspect(wanted.name)
        except NoSuchImage:
            if not self._pull or isinstance(wanted.name, ImageId):
                raise
        return None

    def _pull_image(self, engine: Engine, wanted: WantedImage) -> EngineImage:
        name = wanted.name
        assert isinstance(name, Reference)
        if wanted.platform is not None and not wanted.fits(native := engine.platform()):
            self._progress.say(f"{engine.name} fetches images for {native}; none is fetched for {wanted.platform}")
            return engine.inspect(name)
        if wanted.known is not None:
            try:
                engine.pull(wanted.known, self._progress.say)
                image = engine.inspect(wanted.known)
                engine.tag(image.id, name)
                return image
            except (EngineError, NoSuchImage) as error:
                self._progress.warn(_by_tag(wanted, wanted.known, error.message))
        try:
            engine.pull(name, self._progress.say)
        except EngineError as error:
            if type(error) is not EngineError:  # it is not there, or shut to us
                raise
            try:
                image = engine.inspect(name)
            except NoSuchImage:
                raise NoSuchImage(f"{engine.name} has no {wanted}, and cannot fetch it.", detail=str(error)) from None
            self._progress.warn(f"{wanted} cannot be fetched, what {engine.name} has is taken: {error.in_one_line}")
            return image
        return engine.inspect(name)


class FromRegistry:
    """The image's registry as an origin, with no engine."""

    def __init__(
        self,
        choice: Choice,
    ) -> None:
        """``choice`` has all that the source of a registry needs, but for the platform."""
        self._choice = choice
        self._progress = choice.progress

    def find(self, wanted: WantedImage, *, force: bool) -> FoundImage:  # noqa: ARG002 -- a registry is asked in any case
        """Find the image by a known digest, else by name."""
        if isinstance(wanted.name, ImageId):
            raise NoSuchImage(f"{wanted} is an image ID; registries know images by name.")
        if wanted.known is not None:
            try:
                return self._look_up(wanted.known, wanted.platform or wanted.known_platform)
            except (NoSuchImage, RegistryError) as error:
                self._progress.warn(_by_tag(wanted, wanted.known, error.message))
        return self._look_up(wanted.name, wanted.platform)

    def _look_up(self, name: Reference, platform: Platform | None) -> FoundImage:
        with self._source(name, platform).open() as image:
            image_id, digests = image.config.digest, image.digests
        exact = replace(name, tag=None, digest=digests[-1], written="")  # its tag may move before the layers are read
        return FoundImage("registry", image_id, self._source(exact, platform).open, (exact.canonical,), digests)

    def _source(self, name: Reference, platform: Platform | None) -> RegistrySource:
        return source_of(name, replace(self._choice, platform=platform))


def usual_origins(choice: Choice) -> Sequence[Origin]:
    """The configured cluster, whichever engine has the image, and the image's registry."""
    timeout = choice.settings.engine_timeout
    engines: list[Callable[[], Engine]] = [partial(Docker, timeout=timeout), partial(Podman, timeout=timeout)]
    return (
        FromKeep(Cluster.from_settings, choice.settings, choice.progress),
        FromEngine(lambda: Auto(engines, choice.progress.say), choice.progress, choice.cache),
        FromRegistry(choice),
    )


def _resolve(cluster: Cluster, wanted: WantedImage, trust: Trust, progress: Progress) -> resolver.Resolution:
    """Look up the digest in Keep, or each spelling until one is known there: links have names as they were written."""
    if wanted.digest is not None:
        return _for_platform(cluster, wanted, resolver.resolve(cluster, str(wanted.digest), trust), progress)
    assert isinstance(wanted.name, Reference)
    missing = []
    for text in dict.fromkeys((*wanted.spellings, wanted.name.familiar_name, wanted.canonical)):
        try:
            return _for_platform(cluster, wanted, resolver.resolve(cluster, text, trust), progress)
        except NoSuchImage as error:
            missing.append(error)
    raise max(missing, key=lambda error: bool(error.detail))  # one that lists the images for other platforms says more


def _for_platform(
    cluster: Cluster, wanted: WantedImage, resolved: resolver.Resolution, progress: Progress
) -> resolver.Resolution:
    return platforms.choose_platform(cluster, resolved, wanted.platform, progress) if wanted.platform else resolved


@contextmanager
def _open_stored(cluster: Cluster, collection: CollectionRecord) -> Iterator[StoredImage]:
    yield StoredImage(cluster, collection)


def _by_tag(wanted: WantedImage, known: Reference, why: str) -> str:
    return f"{wanted} cannot be had as {known.canonical}, what the name means now is taken: {why}"

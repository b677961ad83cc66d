# SPDX-License-Identifier: Apache-2.0
"""Staging: putting images into a folder, from whatever has them: the folder, the cache, Keep, an engine, a registry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..archive import canonical
from ..errors import (
    ArvDockerError,
    BadSettings,
    DigestMismatch,
    DiskError,
    EngineNotRunning,
    EnginePermissionDenied,
    NoCluster,
    NoEngine,
    NoSuchImage,
    NotAnImage,
    OtherImage,
    RegistryDenied,
    RegistryError,
    lines_of,
)
from ..local.progress import Progress, SilentProgress
from ..model.image import Digest, Platform
from ..model.manifest import machine_platform
from ..store.content_store import Entries, Entry, entries_in
from ..store.metadata import Metadata, record_of
from ..transports.local import archive_of, seekable
from .origins import FoundImage, Origin
from .staged import (
    Container,
    Copy,
    Folder,
    WantedImage,
    ambiguous_names,
    check_bytes,
    container_of,
    containers,
    wanted_images,
)

#: Why the next origin is asked. Any other failure may be of the one that has the image.
_NEXT = (NoSuchImage, NotAnImage, NoCluster, NoEngine, EngineNotRunning, EnginePermissionDenied, RegistryError)

_ANY = Digest.of(b"")


def stage_images(
    references: Iterable[str | Container],
    folder: Folder,
    origins: Sequence[Origin],
    cache: Path,
    *,
    offline: bool = False,
    force: bool = False,
    injected: Sequence[Container] = (),
    platform: Platform | str | None = None,
    progress: Progress | None = None,
) -> tuple[Container, ...]:
    """Put images into a folder, as ``api.materialize`` does; ``cache`` is the folder of the images of earlier times."""
    stager = _Stager(
        folder,
        () if offline else origins,
        injected,
        progress or SilentProgress(),
        cache,
        force=force and not offline,
    )
    return stager.stage(wanted_images(references, platform))


class _Stager:
    """The work of one ``stage_images``."""

    def __init__(
        self,
        folder: Folder,
        origins: Sequence[Origin],
        injected: Sequence[Container],
        progress: Progress,
        cache: Path,
        *,
        force: bool,
    ) -> None:
        self._cache = cache
        self._folder = folder
        self._origins = origins
        self._injected = sorted(
            injected, key=lambda image: not image.is_sif
        )  # archives last: images can be read from those
        self._progress = progress
        self._force = force
        self._entries = entries_in(cache, progress)  # for what needs no name

    def stage(self, images: Sequence[WantedImage]) -> tuple[Container, ...]:
        for wanted in images:
            self._folder.paths(wanted, _ANY)  # raises for what cannot be a file's name, before anything is fetched
        with suppress(DiskError, OSError):  # of a folder that is only read all that is wanted may be there
            self._folder.tidy()
        self._copies = [copy for copy in self._folder.copies() if copy.path.exists()]
        missing: dict[WantedImage, list[ArvDockerError]] = {}
        ways = [way for wanted in images if (way := self._way_of(wanted, missing))]
        if missing:
            raise self._error_of(missing)
        staged = []
        for wanted, way in zip(images, ways, strict=True):
            staged.append(way())
            self._progress.say(f"{wanted}: {_origin_words(staged[-1])}")
        return tuple(staged)

    # -- where an image comes from ---------------------------------------------------------

    def _way_of(
        self, wanted: WantedImage, missing: dict[WantedImage, list[ArvDockerError]]
    ) -> Callable[[], Container] | None:
        """A function that puts the image into the folder; None, with reasons in ``missing``, without any origin."""
        if not self._force and (staged := self._staged_copy(wanted)) is not None:
            return partial(self._keep, wanted, staged)
        if (injected := self._injected_copy(wanted)) is not None:
            return partial(self._take, wanted, injected, "injected")
        reasons: list[ArvDockerError] = []
        if (image := self._ask_origins(wanted, reasons)) is not None:
            return partial(self._fetch, wanted, image)
        if (entry := self._cache_entry(wanted)) is not None:
            for reason in reasons:
                self._progress.say(f"{wanted}: {reason.message}")
            return partial(self._reuse, wanted, entry)
        missing[wanted] = reasons
        return None

    def _staged_copy(self, wanted: WantedImage) -> Container | None:
        """The copy of the image in the folder: in the form that is asked for, or else an archive to read it from."""
        copies = containers(copy for copy in self._copies if _is_copy_of(copy, wanted))
        for problem in ambiguous_names(copies):
            raise OtherImage(problem)
        for container in copies:
            if not wanted.fits(container.platform):
                raise OtherImage(
                    f"{container.paths[0]} is {wanted} for {container.platform}, not for {wanted.platform}; "
                    "a folder has one image of a name. Use another --dir, or --force to replace it."
                )
        ready = [container for container in copies if self._is_ready(wanted, container)]
        return next(iter(ready or [container for container in copies if not container.is_sif]), None)

    def _is_ready(self, wanted: WantedImage, container: Container) -> bool:
        """Say if a copy has the form that is asked for, and all its file names."""
        paths = self._folder.paths(wanted, container.image_id)
        return container.is_sif == self._folder.sif and set(paths) <= set(container.paths)

    def _injected_copy(self, wanted: WantedImage) -> Container | None:
        """The injected copy of the image; raises OtherImage where the only one is for another platform."""
        copies = [container for container in self._injected if container.name == wanted.canonical]
        fitting = [container for container in copies if wanted.fits(container.platform)]
        if copies and not fitting:
            raise OtherImage(f"{copies[0].paths[0]} is {wanted} for {copies[0].platform}, not for {wanted.platform}.")
        return fitting[-1] if fitting else None

    def _ask_origins(self, wanted: WantedImage, reasons: list[ArvDockerError]) -> FoundImage | None:
        passed_over = _NEXT if len(self._origins) > 1 else (NoSuchImage, RegistryDenied)
        for origin in self._origins:
            try:
                return origin.find(wanted, force=self._force)
            except BadSettings:
                raise
            except passed_over as error:
                reasons.append(error)
        return None

    def _entries_for(self, wanted: WantedImage) -> Entries:
        """The cache, by the names of images for the platform that is asked for."""
        return entries_in(self._cache, self._progress, wanted.platform)

    def _cache_entry(self, wanted: WantedImage) -> Entry | None:
        entries = (entry for entry in self._candidates(wanted) if entry is not None)
        return next((entry for entry in entries if wanted.fits(entry.metadata.platform)), None)

    def _candidates(self, wanted: WantedImage) -> Iterator[Entry | None]:
        yield self._entries_for(wanted).query(wanted.canonical)
        yield self._entries.query(wanted.canonical)
        if wanted.digest is not None:
            yield self._entries.by_image(wanted.digest, wanted.platform or machine_platform())
            yield self._entries.by_image(wanted.digest, wanted.platform)

    def _error_of(self, missing: dict[WantedImage, list[ArvDockerError]]) -> NoSuchImage:
        names = ", ".join(map(str, missing))
        if not self._origins:
            others = {wanted: self._entries_for(wanted).others(wanted.canonical) for wanted in missing}
            present = [
                f"{wanted} for {entry.metadata.platform} is there" for wanted in missing for entry in others[wanted]
            ]
            return NoSuchImage(
                f"not in the cache: {names}. Offline nothing else is asked; stage once without --offline.",
                detail=lines_of(present),
            )
        lines = [f"{wanted}: {reason}" for wanted, reasons in missing.items() for reason in reasons]
        return NoSuchImage(f"nowhere to be had: {names}. Nothing was staged.", detail="\n".join(lines))

    # -- how it gets into the folder -------------------------------------------------------

    def _keep(self, wanted: WantedImage, container: Container) -> Container:
        """Return the staged copy where it has the right form; else stage it in that form too."""
        if self._is_ready(wanted, container):
            check_bytes(container, self._progress)
            return container
        return self._take(wanted, container, "staged")

    def _take(self, wanted: WantedImage, container: Container, origin: str) -> Container:
        """Stage an image out of an archive of any form, which lies somewhere."""
        check_bytes(container, self._progress)
        digests = (container.repo_digest,) if container.repo_digest else ()
        return self._fetch(wanted, FoundImage(origin, container.image_id, container.open, digests))

    def _reuse(self, wanted: WantedImage, entry: Entry) -> Container:
        """Stage an entry of the cache, with what is known of the image by now."""
        return self._put(wanted, self._entries_for(wanted).adopt(wanted.canonical, entry), "cache")

    def _fetch(self, wanted: WantedImage, image: FoundImage) -> Container:
        entry = None if self._force else self._entries.by_image(image.digest, image.platform)
        if entry is not None:
            try:
                return self._reuse(wanted, _with_knowledge(entry, image))
            except (DigestMismatch, NoSuchImage) as error:  # the latter if the cache is cleared meanwhile
                self._progress.say(f"{wanted} is fetched again: {error.message}")
        with self._entries.fetching(image.digest):
            ready = None if self._force else self._sound_entry(image, entry)
            if ready is None:
                return self._put(wanted, self._read(wanted, image), image.origin)
        return self._reuse(wanted, _with_knowledge(ready, image))

    def _sound_entry(self, image: FoundImage, damaged: Entry | None) -> Entry | None:
        """The entry that another process has fetched meanwhile, if any; a damaged one goes, if it still is damaged."""
        entry = self._entries.by_image(image.digest, image.platform)
        if entry is not None and entry == damaged:
            try:
                self._entries.check(entry)
            except DigestMismatch:
                self._entries.discard(entry.path)
                return None
        return entry

    def _read(self, wanted: WantedImage, source: FoundImage) -> Entry:
        """Read the image into the cache, checking every layer."""
        with source.open() as opened, seekable(opened, self._entries.root) as image:
            layout = canonical.layout(image.config, image.sizes)
            record = record_of(image.config, sum(image.sizes.values()))

            def metadata_of(archive: Digest) -> Metadata:
                metadata = Metadata(image.config.digest, archive, record)
                return metadata.knowing(
                    (layout.manifest_digest, source.digest, *source.digests, *opened.digests), source.repo_digests
                )

            with self._progress.step(f"reading {wanted} from {source.origin}", layout.size) as advance:
                chunks = archive_of(image, layout, advance)
                return self._entries_for(wanted).update(
                    wanted.canonical, chunks, layout.size, source.digest, metadata_of
                )

    def _put(self, wanted: WantedImage, entry: Entry, origin: str) -> Container:
        if not wanted.fits(entry.metadata.platform):
            raise OtherImage(
                f"{wanted} is called an image for {wanted.platform} there, and says of itself that it is for "
                f"{entry.metadata.platform}. Stage it without --platform, by its digest if need be."
            )
        (container, *_) = containers(self._folder.put(wanted, entry, self._entries_for(wanted), force=self._force))
        return replace(container, name=wanted.canonical, origin=origin)


def _with_knowledge(entry: Entry, image: FoundImage) -> Entry:
    """The entry of an image, with what an origin knows of the image."""
    return replace(entry, metadata=entry.metadata.knowing((image.digest, *image.digests), image.repo_digests))


def _is_copy_of(copy: Copy, wanted: WantedImage) -> bool:
    return copy.metadata is not None and container_of(copy.metadata, copy.path, "").name == wanted.canonical


def _origin_words(container: Container) -> str:
    words = {"staged": "already there", "cache": "from the cache", "keep": "from Keep", "injected": "as it was given"}
    return words.get(container.origin, f"from the {container.origin}")

# SPDX-License-Identifier: Apache-2.0
"""Putting images into a folder: from the folder itself, the cache, Keep, an engine, a registry, whichever has them."""

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
)
from ..local.progress import Progress, Silent
from ..model.image import Digest, Platform
from ..model.manifest import machine_platform
from ..store.content_store import Entries, Entry, user_entries
from ..store.metadata import Metadata, record_of
from ..transports.local import archive_of, seekable
from .folder import PlainFolder
from .origins import Found, Origin, usual
from .staged import Container, Copy, Folder, Wanted, ambiguous, check_bytes, container_of, containers, wanted

#: Why the next origin is asked. Any other failure may be of the one that has the image.
_NEXT = (NoSuchImage, NotAnImage, NoCluster, NoEngine, EngineNotRunning, EnginePermissionDenied, RegistryError)

_ANY = Digest.of(b"")


def materialize(
    references: Iterable[str | Container],
    directory: Path | str,
    offline: bool = False,
    force: bool = False,
    injected: Sequence[Container] = (),
    *,
    platform: Platform | str | None = None,
    origins: Sequence[Origin] | None = None,
    folder: Folder | None = None,
    progress: Progress | None = None,
) -> tuple[Container, ...]:
    """Puts the images into ``directory``, each once, with their metadata; gives what is there now, in their order.

    An image is asked for by name or ID, or as a ``Container`` of an earlier time, whose
    digest in its registry is then asked for first. What is staged there already stays,
    unless ``force`` fetches it anew; ``offline`` asks nothing but the cache, and overwrites
    nothing. ``injected`` are images that are taken as they are in place of fetching those of
    their names. ``platform`` (``linux/arm64``) says which of several images of a name is meant;
    a folder has one of them. ``origins`` are asked in their order (the configured cluster, Docker or
    Podman, the registry); ``folder`` is the form in which the directory is kept.

    Raises NoSuchImage, which names all that cannot be had, and OtherImage where the directory has
    one for another platform, before anything is changed; and what reading and writing raise,
    after which the next call completes the work.

    >>> import arv_docker  # doctest: +SKIP
    >>> staged = arv_docker.materialize(["busybox:latest"], "containers")  # doctest: +SKIP
    >>> staged[0].image_id, staged[0].paths  # doctest: +SKIP
    """
    progress = progress or Silent()
    chosen = () if offline else usual(progress) if origins is None else origins
    staging = _Staging(
        folder or PlainFolder(Path(directory), progress=progress),
        chosen,
        injected,
        progress,
        force=force and not offline,
    )
    return staging.run(wanted(references, platform))


class _Staging:
    def __init__(
        self,
        folder: Folder,
        origins: Sequence[Origin],
        injected: Sequence[Container],
        progress: Progress,
        *,
        force: bool,
    ) -> None:
        self._folder = folder
        self._origins = origins
        self._injected = sorted(injected, key=lambda it: not it.is_sif)  # archives last: images can be read from those
        self._progress = progress
        self._force = force
        self._entries = user_entries(progress)  # for what needs no name

    def run(self, images: Sequence[Wanted]) -> tuple[Container, ...]:
        for it in images:
            self._folder.paths(it, _ANY)  # raises for what cannot be a file's name, before anything is fetched
        with suppress(DiskError, OSError):  # of a folder that is only read all that is wanted may be there
            self._folder.tidy()
        self._there = [copy for copy in self._folder.copies() if copy.path.exists()]
        missing: dict[Wanted, list[ArvDockerError]] = {}
        ways = [way for it in images if (way := self._way(it, missing))]
        if missing:
            raise self._nowhere(missing)
        staged = []
        for it, way in zip(images, ways, strict=True):
            staged.append(way())
            self._progress.say(f"{it}: {_told(staged[-1])}")
        return tuple(staged)

    # -- where an image comes from ---------------------------------------------------------

    def _way(self, it: Wanted, missing: dict[Wanted, list[ArvDockerError]]) -> Callable[[], Container] | None:
        """How the image gets into the folder; where there is no way, the reasons go into ``missing``."""
        if not self._force and (there := self._staged(it)) is not None:
            return partial(self._keep, it, there)
        if (given := self._given(it)) is not None:
            return partial(self._take, it, given, "injected")
        reasons: list[ArvDockerError] = []
        if (found := self._find(it, reasons)) is not None:
            return partial(self._fetch, it, found)
        if (entry := self._cached(it)) is not None:
            for reason in reasons:
                self._progress.say(f"{it}: {reason.message}")
            return partial(self._reuse, it, entry)
        missing[it] = reasons
        return None

    def _staged(self, it: Wanted) -> Container | None:
        """What is there of the image: what it is to be, or else an archive, which it can be read from."""
        found = containers(copy for copy in self._there if _is(copy, it))
        for problem in ambiguous(found):
            raise OtherImage(problem)
        for container in found:
            if not it.fits(container.platform):
                raise OtherImage(
                    f"{container.paths[0]} is {it} for {container.platform}, not for {it.platform}; a folder has one "
                    "image of a name. Use another --dir, or --force to replace it."
                )
        ready = [container for container in found if self._is_ready(it, container)]
        return next(iter(ready or [container for container in found if not container.is_sif]), None)

    def _is_ready(self, it: Wanted, container: Container) -> bool:
        """Whether it is of the form that is asked for, and has all its file names."""
        paths = self._folder.paths(it, container.image_id)
        return container.is_sif == self._folder.sif and set(paths) <= set(container.paths)

    def _given(self, it: Wanted) -> Container | None:
        """The image among those that are taken in place of fetching it; raises OtherImage if it is for another
        platform."""
        found = [container for container in self._injected if container.name == it.canonical]
        fitting = [container for container in found if it.fits(container.platform)]
        if found and not fitting:
            raise OtherImage(f"{found[0].paths[0]} is {it} for {found[0].platform}, not for {it.platform}.")
        return fitting[-1] if fitting else None

    def _find(self, it: Wanted, reasons: list[ArvDockerError]) -> Found | None:
        passed_over = _NEXT if len(self._origins) > 1 else (NoSuchImage, RegistryDenied)
        for origin in self._origins:
            try:
                return origin.find(it, force=self._force)
            except BadSettings:
                raise
            except passed_over as error:
                reasons.append(error)
        return None

    def _named(self, it: Wanted) -> Entries:
        """The cache by the names under which that image is looked for."""
        return user_entries(self._progress, it.platform)

    def _cached(self, it: Wanted) -> Entry | None:
        found = (entry for entry in self._candidates(it) if entry is not None)
        return next((entry for entry in found if it.fits(entry.metadata.platform)), None)

    def _candidates(self, it: Wanted) -> Iterator[Entry | None]:
        yield self._named(it).query(it.canonical)
        yield self._entries.query(it.canonical)
        if it.digest is not None:
            yield self._entries.by_image(it.digest, it.platform or machine_platform())
            yield self._entries.by_image(it.digest, it.platform)

    def _nowhere(self, missing: dict[Wanted, list[ArvDockerError]]) -> NoSuchImage:
        names = ", ".join(map(str, missing))
        if not self._origins:
            others = {it: self._named(it).others(it.canonical) for it in missing}
            there = [f"{it} for {entry.metadata.platform} is there" for it in missing for entry in others[it]]
            return NoSuchImage(
                f"not in the cache: {names}. Offline nothing else is asked; stage once without --offline.",
                detail="\n".join(there),
            )
        lines = [f"{it}: {reason}" for it, reasons in missing.items() for reason in reasons]
        return NoSuchImage(f"nowhere to be had: {names}. Nothing was staged.", detail="\n".join(lines))

    # -- how it gets into the folder -------------------------------------------------------

    def _keep(self, it: Wanted, container: Container) -> Container:
        """What is staged already, if that is what it is to be; else it becomes that too."""
        if self._is_ready(it, container):
            check_bytes(container, self._progress)
            return container
        return self._take(it, container, "staged")

    def _take(self, it: Wanted, given: Container, origin: str) -> Container:
        """An image that lies somewhere, whatever the form of its archive."""
        check_bytes(given, self._progress)
        digests = (given.repo_digest,) if given.repo_digest else ()
        return self._fetch(it, Found(origin, given.image_id, given.open, digests))

    def _reuse(self, it: Wanted, entry: Entry) -> Container:
        """An image that the cache has, with what is known of it by now."""
        return self._put(it, self._named(it).adopt(it.canonical, entry), "cache")

    def _fetch(self, it: Wanted, found: Found) -> Container:
        entry = None if self._force else self._entries.by_image(found.digest, found.platform)
        if entry is not None:
            try:
                return self._reuse(it, _with(entry, found))
            except (DigestMismatch, NoSuchImage) as error:  # the latter if the cache is cleared meanwhile
                self._progress.say(f"{it} is fetched again: {error.message}")
        with self._entries.fetching(found.digest):
            there = None if self._force else self._sound(found, entry)
            if there is None:
                return self._put(it, self._read(it, found), found.origin)
        return self._reuse(it, _with(there, found))

    def _sound(self, found: Found, damaged: Entry | None) -> Entry | None:
        """What another process has fetched meanwhile; what was found damaged goes, if it still is."""
        entry = self._entries.by_image(found.digest, found.platform)
        if entry is not None and entry == damaged:
            try:
                self._entries.check(entry)
            except DigestMismatch:
                self._entries.discard(entry.path)
                return None
        return entry

    def _read(self, it: Wanted, found: Found) -> Entry:
        """Reads the image into the cache, every layer checked."""
        with found.open() as opened, seekable(opened, self._entries.root) as image:
            layout = canonical.layout(image.config, image.sizes)
            record = record_of(image.config, sum(image.sizes.values()))

            def described(archive: Digest) -> Metadata:
                metadata = Metadata(image.config.digest, archive, record)
                return metadata.knowing(
                    (layout.manifest_digest, found.digest, *found.digests, *opened.digests), found.repo_digests
                )

            with self._progress.step(f"reading {it} from {found.origin}", layout.size) as advance:
                chunks = archive_of(image, layout, advance)
                return self._named(it).update(it.canonical, chunks, layout.size, found.digest, described)

    def _put(self, it: Wanted, entry: Entry, origin: str) -> Container:
        if not it.fits(entry.metadata.platform):
            raise OtherImage(
                f"{it} is called an image for {it.platform} there, and says of itself that it is for "
                f"{entry.metadata.platform}. Stage it without --platform, by its digest if need be."
            )
        (container, *_) = containers(self._folder.put(it, entry, self._named(it), force=self._force))
        return replace(container, name=it.canonical, origin=origin)


def _with(entry: Entry, found: Found) -> Entry:
    """The entry of an image with what an origin knows of that."""
    return replace(entry, metadata=entry.metadata.knowing((found.digest, *found.digests), found.repo_digests))


def _is(copy: Copy, it: Wanted) -> bool:
    return copy.metadata is not None and container_of(copy.metadata, copy.path, "").name == it.canonical


def _told(container: Container) -> str:
    said = {"staged": "already there", "cache": "from the cache", "keep": "from Keep", "injected": "as it was given"}
    return said.get(container.origin, f"from the {container.origin}")

# SPDX-License-Identifier: Apache-2.0
"""A folder of image archives, kept in line with an engine (docs/spec/archive-folder.md#updating).

One archive for each image and version, named by what it holds. A version that was
released keeps its archive; what is built anew under the same version (see ``version``)
is archived anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ..archive import canonical
from ..archive.layer import CHUNK
from ..engines import Engine
from ..errors import BadArchive, ContentError, NotVerified
from ..local.disk import announce_wait, hash_of
from ..local.progress import Progress, SilentProgress
from ..model.archive_name import PLAIN, ZIP
from ..model.build_version import tag_of
from ..model.image import Digest
from ..model.reference import Reference
from ..store.cache import NO_CACHE, CacheFolder
from ..transports import SeekableImage
from ..transports.folder import FolderArchive, FolderDestination, archives, check_unreleased, rank, working_on
from ..transports.saved import SavedSource


@dataclass(frozen=True, slots=True)
class FolderUpdate:
    """The result of ``update``: the current archive, if it was saved or compressed, and the removed files."""

    archive: FolderArchive
    image_id: Digest
    saved: bool
    compressed: bool
    removed: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class ArchiveCheck:
    """An archive after it was read; ``problem`` is empty for a good archive."""

    archive: FolderArchive
    problem: str


@dataclass(frozen=True, slots=True)
class PublishedArchive:
    """An archive as others may fetch it. ``sha256`` and ``size``, in bytes, are those of the file."""

    name: str
    version: str
    image_id: str
    format: str
    url: str
    size: int
    sha256: str


class ArchiveFolder:
    """A folder of image archives."""

    def __init__(self, path: Path, progress: Progress | None = None, cache: CacheFolder = NO_CACHE) -> None:
        """Use the folder ``path``. An engine's image is saved into the ``cache`` first."""
        self.path = path
        self._progress = progress or SilentProgress()
        self._cache = cache

    def images(self) -> list[FolderArchive]:
        """The archives in the folder, by file name; other files are left out. Raises UsageError if there is none."""
        return archives(self.path)

    def latest_archives(self) -> dict[str, FolderArchive]:
        """The latest archive of each image: of the last build, by the config's time.

        Of equal times a released version comes before a dirty one, then the file written last.
        """
        found: dict[str, FolderArchive] = {}
        for archive in sorted(self.images(), key=rank):
            found[archive.name.image] = archive
        return dict(sorted(found.items()))

    def update(
        self,
        engine: Engine,
        image: str,
        version: str = "latest",
        *,
        clean: bool = False,
        compress: bool = False,
        force: bool = False,
    ) -> FolderUpdate:
        """See to it that the folder has the archive of the image that the engine calls ``image:tag_of(version)``.

        Nothing is saved if it is there. ``clean`` removes the image's archives of other
        versions and IDs once the new one is complete; ``compress`` leaves it as a ZIP file alone.
        A released version that was archived with another image is refused unless ``force``.

        Raises NoSuchImage, OtherImage, BadArchive for an archive of the image in another
        format, and what saving and writing raise; then nothing in the folder has changed.
        """
        reference = Reference.parse(f"{image}:{tag_of(version)}")
        name = Reference.parse(image).familiar_name.removesuffix(":latest")
        FolderDestination(self.path, name, version)  # a version that no file name can hold
        found = engine.inspect(reference)
        wanted = ZIP if compress else PLAIN
        with working_on(self.path, name, announce_wait(self._progress.say, f"updates {name}")):
            ours = [archive for archive in self.images() if archive.name.image == name]
            _check_formats(ours)
            current = self._current_archive(ours, version, found.id, wanted)
            saved = current is None
            compressed = compress and (current is None or current.name.format == PLAIN)
            if current is None:
                if not force:
                    check_unreleased(ours, version, found.id)
                destination = FolderDestination(self.path, name, version, wanted)
                with SavedSource(engine, found, self._progress, self._cache).open() as image_read:
                    current = self._write(destination, image_read)
            elif compressed:
                with current.open() as image_read:
                    current = self._write(FolderDestination(self.path, name, version, ZIP), image_read)
            removed = _obsolete_archives(ours, current, clean=clean, twins=compress or saved)
            for path in removed:
                path.unlink(missing_ok=True)
        return FolderUpdate(current, found.id, saved, compressed, removed)

    def verify(self) -> Iterator[ArchiveCheck]:
        """Read the archives one after the other, and compare each with its name and digests."""
        for archive in self.images():
            problem = ""
            try:
                self._read(archive)
            except ContentError as error:
                if not archive.path.exists():
                    continue  # an update with ``clean`` removed it meanwhile
                problem = _problem_of(archive, error)
            yield ArchiveCheck(archive, problem)

    def config(self, base_url: str) -> list[PublishedArchive]:
        """The archives that a server of the folder at ``base_url`` offers, by file name.

        Every archive is read; raises ContentError for one that is not what its name says.
        """
        published = (self._describe(archive, base_url) for archive in self.images())
        return [it for it in published if it is not None]

    def _current_archive(
        self, ours: list[FolderArchive], version: str, image_id: Digest, wanted: str
    ) -> FolderArchive | None:
        """The archive of that very image and version, in the format ``wanted`` if there are both; damaged ones do not
        count."""
        found = [it for it in ours if (it.name.version, it.name.short_id) == (version, image_id.short_hex)]
        for archive in sorted(found, key=lambda archive: archive.name.format != wanted):
            try:
                with archive.open(self._progress) as image:
                    if image.config.digest == image_id:
                        return archive
            except ContentError as error:
                self._progress.say(f"saving the image again: {_problem_of(archive, error)}")
        return None

    def _write(self, destination: FolderDestination, image: SeekableImage) -> FolderArchive:
        size = canonical.layout(image.config, image.sizes).size
        with self._progress.step(f"writing to {self.path}", size) as advance:
            return destination.write_locked(image, advance)

    def _read(self, archive: FolderArchive) -> Digest:
        """Read all of an archive; return its image, or raise ContentError."""
        with archive.open(self._progress) as image:
            title = f"verifying {archive.path.name}"
            with self._progress.step(title, sum(image.sizes.values())) as advance:
                for layer in image.layers():
                    while content := layer.read(CHUNK):
                        advance(len(content))
            return image.config.digest

    def _describe(self, archive: FolderArchive, base_url: str) -> PublishedArchive | None:
        """Describe an archive for download; None for a file that was removed meanwhile."""
        name, path = archive.name, archive.path
        try:
            image_id = str(self._read(archive))
            size = path.stat().st_size
        except FileNotFoundError:
            return None
        except ContentError as error:
            if path.exists():
                raise NotVerified(_problem_of(archive, error), detail=error.detail) from error
            return None
        with self._progress.step(f"reading {path.name}", size) as advance:
            digest = hash_of(path, advance)
        url = f"{base_url.rstrip('/')}/{quote(path.name, safe='')}"
        return (
            PublishedArchive(name.image, name.version, image_id, name.format, url, size, str(digest))
            if digest
            else None
        )


def _problem_of(archive: FolderArchive, error: ContentError) -> str:
    """The problem with an archive, with the archive's name."""
    return error.message if str(archive.path) in error.message else f"{archive.path}: {error.message}"


def _check_formats(ours: list[FolderArchive]) -> None:
    for archive in ours:
        if archive.name.format not in (PLAIN, ZIP):
            raise BadArchive(
                f"{archive.path} has the name of an archive of this image, but is of format {archive.name.format!r}, "
                f"which is neither {PLAIN!r} nor {ZIP!r}. Move it away; nothing was changed."
            )


def _obsolete_archives(
    ours: list[FolderArchive], current: FolderArchive, *, clean: bool, twins: bool
) -> tuple[Path, ...]:
    """The archives to remove: with ``clean`` the image's archives of other versions and IDs; with ``twins`` the other
    one of the same version and ID."""
    said = (current.name.version, current.name.short_id)
    others = [it for it in ours if it.path != current.path]
    return tuple(it.path for it in others if (twins if (it.name.version, it.name.short_id) == said else clean))

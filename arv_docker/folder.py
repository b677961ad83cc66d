# SPDX-License-Identifier: Apache-2.0
"""Keeping a folder of image archives in line with an engine (seed 002).

One archive for each image and version, named by what it holds. A version that was
released keeps its archive; what is built anew under the same version (see ``version``)
is archived anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from .archive import canonical
from .archive.layer import CHUNK
from .engine import Engine
from .errors import BadArchive, ContentError, OtherImage, UsageError
from .image import Digest
from .progress import Progress, Silent
from .reference import Reference
from .settings import FOLDER, settings
from .transports import SeekableImage
from .transports.folder import PLAIN, ZIP, FolderArchive, FolderDestination, archives, rank, working_on
from .transports.saved import SavedSource
from .version import is_dirty, tag_of


@dataclass(frozen=True, slots=True)
class Updated:
    """What ``update`` found or did: the archive that is current now, whether it was written, and what was removed."""

    archive: FolderArchive
    image_id: Digest
    saved: bool
    compressed: bool
    removed: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """An archive after it was read; ``problem`` is empty if it is what its name says."""

    archive: FolderArchive
    problem: str


@dataclass(frozen=True, slots=True)
class Published:
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

    def __init__(self, path: Path | None = None, progress: Progress | None = None) -> None:
        """``path`` is the folder of the setting ARV_DOCKER_FOLDER unless given; raises UsageError without either."""
        path = path or settings().folder
        if path is None:
            raise UsageError(f"which folder? Give --dir DIR, or set {FOLDER}.")
        self.path = path
        self._progress = progress or Silent()

    def images(self) -> list[FolderArchive]:
        """The archives in the folder, by file name; other files are left out."""
        return archives(self.path)

    def latest(self) -> dict[str, FolderArchive]:
        """The latest archive of each image: the one whose image was built last, by its config.

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
    ) -> Updated:
        """Sees to it that the folder has the archive of the image that the engine calls ``image:tag_of(version)``.

        Nothing is saved if it is there. ``clean`` removes the image's archives of other
        versions and IDs once the new one is complete; ``compress`` leaves it as a ZIP file.
        A released version that was archived with another image is refused unless ``force``.

        Raises NoSuchImage, OtherImage, BadArchive for an archive of the image in another
        format, and what saving and writing raise; then nothing in the folder has changed.
        """
        reference = Reference.parse(f"{image}:{tag_of(version)}")
        name = Reference.parse(image).familiar.removesuffix(":latest")
        FolderDestination(self.path, name, version)  # a version that no file name can hold
        found = engine.inspect(reference)
        with working_on(self.path, name, self._waiting(name)):
            ours = [archive for archive in self.images() if archive.name.image == name]
            _check_formats(ours)
            current = self._current(ours, version, found.id, ZIP if compress else PLAIN)
            saved = current is None
            compressed = compress and (current is None or current.name.format == PLAIN)
            if current is None:
                if not force:
                    _check_unreleased(ours, version, found.id)
                destination = FolderDestination(self.path, name, version, ZIP if compress else PLAIN)
                with SavedSource(engine, found, self._progress).open() as image_read:
                    current = self._written(destination, image_read)
            elif compressed:
                with current.open() as image_read:
                    current = self._written(FolderDestination(self.path, name, version, ZIP), image_read)
            removed = _obsolete(ours, current, clean=clean, compress=compress)
            for path in removed:
                path.unlink(missing_ok=True)
        return Updated(current, found.id, saved, compressed, removed)

    def verify(self) -> Iterator[Checked]:
        """Reads every archive and compares it with its name and its own digests, one after the other."""
        for archive in self.images():
            problem = ""
            try:
                with archive.open() as image:
                    title = f"verifying {archive.path.name}"
                    with self._progress.step(title, sum(image.sizes.values())) as advance:
                        for layer in image.layers():
                            while content := layer.read(CHUNK):
                                advance(len(content))
            except ContentError as error:
                problem = error.message
            yield Checked(archive, problem)

    def config(self, base_url: str) -> list[Published]:
        """What a server that serves the folder at ``base_url`` offers, by file name."""
        return [self._published(archive, base_url) for archive in self.images()]

    def _current(self, ours: list[FolderArchive], version: str, image_id: Digest, wanted: str) -> FolderArchive | None:
        """The archive of that very image and version, in the format ``wanted`` if there are both; damaged ones do not
        count."""
        found = [it for it in ours if (it.name.version, it.name.short_id) == (version, image_id.short)]
        for archive in sorted(found, key=lambda it: it.name.format != wanted):
            try:
                with archive.open() as image:
                    if image.config.digest == image_id:
                        return archive
            except ContentError as error:
                self._progress.say(f"saving the image again: {error.message}")
        return None

    def _written(self, destination: FolderDestination, image: SeekableImage) -> FolderArchive:
        size = canonical.layout(image.config, image.sizes).size
        with self._progress.step(f"writing to {self.path}", size) as advance:
            return destination.write_locked(image, advance)

    def _published(self, archive: FolderArchive, base_url: str) -> Published:
        name, path = archive.name, archive.path
        with archive.open() as image:
            image_id = str(image.config.digest)
        digest, size = hashlib.sha256(), path.stat().st_size
        with path.open("rb") as file, self._progress.step(f"reading {path.name}", size) as advance:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                advance(len(chunk))
        url = f"{base_url.rstrip('/')}/{quote(path.name, safe='')}"
        return Published(name.image, name.version, image_id, name.format, url, size, f"sha256:{digest.hexdigest()}")

    def _waiting(self, image: str) -> Iterator[None]:
        self._progress.say(f"another process updates {image}; waiting for it")
        yield


def _check_formats(ours: list[FolderArchive]) -> None:
    for archive in ours:
        if archive.name.format not in (PLAIN, ZIP):
            raise BadArchive(
                f"{archive.path} has the name of an archive of this image, but is of format {archive.name.format!r}, "
                f"which is neither {PLAIN!r} nor {ZIP!r}. Move it away; nothing was changed."
            )


def _check_unreleased(ours: list[FolderArchive], version: str, image_id: Digest) -> None:
    """A released version means one image for ever; that the engine has another one is somebody's mistake."""
    others = [it for it in ours if it.name.version == version and it.name.short_id != image_id.short]
    if others and not is_dirty(version):
        raise OtherImage(
            f"version {version} of {others[0].name.image} was released as image {others[0].name.short_id}, and the "
            f"engine has {image_id.short} under that name. Give the new image a version of its own, or use --force."
        )


def _obsolete(ours: list[FolderArchive], current: FolderArchive, *, clean: bool, compress: bool) -> tuple[Path, ...]:
    """With ``clean`` every other archive of the image; with ``compress`` at least the uncompressed twin."""
    said = (current.name.version, current.name.short_id)
    others = [it for it in ours if it.path != current.path]
    return tuple(it.path for it in others if clean or (compress and (it.name.version, it.name.short_id) == said))

# SPDX-License-Identifier: Apache-2.0
"""``folder:``, a flat folder of image archives whose file names say what they hold
(docs/spec/archive-folder.md#file-names).

``<image>_<version>_<first 12 digits of the image ID>.<format>``, the format being ``docker``,
a tar, or ``zip``, the same in a ZIP file. The name is only a claim: an archive is opened
with the ID of its config compared, and its layers hashed as they are read. What is written
here is the canonical archive.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote

from ..archive import canonical
from ..archive.archived_image import ArchivedImage
from ..archive.blob import RandomAccess
from ..archive.canonical import Layout
from ..archive.canonical_image import CanonicalImage, recognise
from ..archive.codecs import zip_file
from ..archive.reader import ArchiveReader
from ..errors import BadArchive, ContentError, DigestMismatch, NoSuchImage, OtherImage, UsageError
from ..local.disk import disk_errors, hold_lock, replace_file, target_of_partial, try_lock
from ..local.progress import Advance, Progress, SilentProgress
from ..model.archive_name import PLAIN, ZIP, ArchiveName
from ..model.build_version import is_dirty
from ..model.image import Digest, parsed_time
from . import Destination, OpenedImage, SeekableImage, Source
from .local import LocalFile, archive_of, seekable, split_path
from .names import Choice

_NEVER = datetime(1, 1, 1, tzinfo=timezone.utc)


def source(rest: str, choice: Choice) -> FolderSource:
    """The source ``PATH:IMAGE[:VERSION]``; the path ends at the first colon, the version begins after the last one."""
    folder, image, version = _split(rest)
    return FolderSource(folder, image, version, choice.progress)


def destination(rest: str, choice: Choice) -> FolderDestination:  # noqa: ARG001 -- an archive is of one image
    """The destination ``PATH:IMAGE[:VERSION]``, the version being ``latest`` where none is written."""
    folder, image, version = _split(rest)
    return FolderDestination(folder, image, version or "latest")


@dataclass(frozen=True, slots=True)
class FolderArchive:
    """An image archive in a folder: the parsed file name, and the path."""

    name: ArchiveName
    path: Path

    @contextmanager
    def open(self, progress: Progress | None = None) -> Iterator[ArchivedImage | CanonicalImage]:
        """The image; all of a ZIP file is read for it, which ``progress`` is told of.

        Raises BadArchive, what ``archive.docker`` refuses, and DigestMismatch for a file that is not
        as it was written or holds another image than its name says.
        """
        with self._bytes() as content:
            if isinstance(content, zip_file.ZippedMember):
                with (progress or SilentProgress()).step(
                    f"checking {self.path.name}", content.compressed_size
                ) as advance:
                    content.check_seal(advance)
            image = recognise(content)
            if image is not None and not image.is_framed():
                raise self._is_altered()
            opened = image or ArchiveReader(content).image()
            if opened.config.digest.short_hex != self.name.short_id:
                raise DigestMismatch(
                    f"{self.path} should hold image {self.name.short_id} by its name, and holds "
                    f"{opened.config.digest}. It was renamed or altered; nothing of it is used."
                )
            if image is None and _was_canonical(content, canonical.layout(opened.config, opened.sizes)):
                raise self._is_altered()
            yield opened

    @property
    def created_at(self) -> datetime:
        """The time when the image was built, by its config; year 1 where that says nothing, or the file cannot be read.

        The rest of the file is not looked at.
        """
        with suppress(ContentError), self._bytes() as content:
            config = (recognise(content) or ArchiveReader(content).image()).config
            if config.digest.short_hex == self.name.short_id:
                return parsed_time(config.created) or _NEVER
        return _NEVER

    @property
    def modified_at(self) -> float:
        """The time when the file was written; 0 if it is gone."""
        try:
            return self.path.stat().st_mtime
        except OSError:
            return 0.0

    @contextmanager
    def _bytes(self) -> Iterator[RandomAccess]:
        if self.name.format not in (PLAIN, ZIP):
            raise BadArchive(f"{self.path}: a file of format {self.name.format!r} is no image archive.")
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
            file = os.fdopen(os.open(self.path, flags), "rb")
        except OSError as error:
            raise BadArchive(f"{self.path} cannot be read: {error.strerror}.") from None
        with file:
            yield LocalFile(file.fileno()) if self.name.format == PLAIN else zip_file.ZippedMember(file)

    def _is_altered(self) -> DigestMismatch:
        return DigestMismatch(f"{self.path} is not as it was written; nothing of it is used. Save the image again.")


class FolderSource(Source):
    """An image of a folder: of the given version, else the latest one."""

    def __init__(self, folder: Path, image: str, version: str | None = None, progress: Progress | None = None) -> None:
        self._folder = folder
        self._image = image
        self._version = version
        self._progress = progress

    @contextmanager
    def open(self) -> Iterator[ArchivedImage | CanonicalImage]:
        """The image; raises NoSuchImage, and what ``FolderArchive.open`` raises."""
        found = [it for it in archives(self._folder) if it.name.image == self._image]
        found = [it for it in found if self._version in (None, it.name.version)]
        if not found:
            version = f" of version {self._version}" if self._version else ""
            raise NoSuchImage(f"{self._folder} has no archive of image {self._image!r}{version}.")
        with max(found, key=rank).open(self._progress) as image:
            yield image


class FolderDestination(Destination[FolderArchive]):
    """A folder that an image is written to, as the canonical archive."""

    def __init__(self, folder: Path, image: str, version: str, form: str = PLAIN) -> None:
        self._folder = folder
        self._name = ArchiveName(image, version, "0" * 12, form)
        _ = self._name.file_name  # raises before anything is read

    def present(self, layers: Sequence[Digest]) -> frozenset[Digest]:  # noqa: ARG002 -- what it was does not matter
        """No layers: the archive is written anew, with all its layers."""
        return frozenset()

    def write(self, image: OpenedImage, advance: Advance) -> FolderArchive:
        """Write the archive, every layer checked, in the place of one of the same name.

        Raises what the layers raise, OtherImage for a version that was released as another image, and DiskError.
        """
        with working_on(self._folder, self._name.image), seekable(image, self._folder) as found:
            ours = [archive for archive in archives(self._folder) if archive.name.image == self._name.image]
            check_unreleased(ours, self._name.version, found.config.digest)
            return self.write_locked(found, advance)

    def write_locked(self, image: SeekableImage, advance: Advance) -> FolderArchive:
        """Write the archive for a caller who is ``working_on`` the image, whatever was released."""
        name = replace(self._name, short_id=image.config.digest.short_hex)
        written = FolderArchive(name, self._folder / name.file_name)
        layout = canonical.layout(image.config, image.sizes)
        content = archive_of(image, layout, advance)
        with replace_file(written.path, layout.size) as file:
            if name.format == ZIP:
                zip_file.write(file, replace(name, format=PLAIN).file_name, layout.size, content)
            else:
                for chunk in content:
                    file.write(chunk)
        return written


def archives(folder: Path) -> list[FolderArchive]:
    """The files of a folder whose names have the form, by name; a link is none.

    Raises UsageError for what is no folder.
    """
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False))
    except OSError as error:
        raise UsageError(f"{folder} is no folder that can be read: {error.strerror}.") from None
    return [FolderArchive(name, folder / text) for text in names if (name := ArchiveName.parse(text)) is not None]


def rank(archive: FolderArchive) -> tuple[datetime, bool, float, str]:
    """The rank of an archive, greatest for the latest: the newest by its config; of equals a released version before a
    dirty one, then the one written last."""
    return archive.created_at, not is_dirty(archive.name.version), archive.modified_at, archive.name.short_id


def check_unreleased(ours: Iterable[FolderArchive], version: str, image_id: Digest) -> None:
    """Refuse another image for a version that was released, which means one image for ever; raises OtherImage if one of
    an image's archives says that it is another one."""
    if is_dirty(version):
        return
    for archive in ours:
        if archive.name.version == version and not _may_hold(archive, image_id):
            raise OtherImage(
                f"version {version} of {archive.name.image} was released as image {archive.name.short_id}, and this is "
                f"{image_id}. Give it a version of its own, or replace it: arv-docker folder update --force."
            )


def _may_hold(archive: FolderArchive, image_id: Digest) -> bool:
    """Say if the archive is one of that image, or a damaged one of it; of two images with the same first digits the
    config decides."""
    if archive.name.short_id != image_id.short_hex:
        return False
    with suppress(ContentError), archive.open() as image:
        return image.config.digest == image_id
    return True


@contextmanager
def working_on(folder: Path, image: str, waiting: Iterable[None] = ()) -> Iterator[None]:
    """Keep other processes from writing archives of that image to the folder; what killed ones left half done goes.

    The folder is made if it is not there. Raises DiskError.
    """
    with disk_errors(folder, advice="choose another folder"):
        folder.mkdir(parents=True, exist_ok=True)
    with hold_lock(_lock_of(folder, image), waiting):
        for path in folder.glob(".*.partial"):
            whole = target_of_partial(path)
            name = ArchiveName.parse(whole.name) if whole else None
            if name is not None and name.image == image:
                path.unlink(missing_ok=True)
            elif name is not None:
                with try_lock(_lock_of(folder, name.image)) as free:
                    if free:
                        path.unlink(missing_ok=True)
        yield


def _lock_of(folder: Path, image: str) -> Path:
    return folder / f".{quote(image, safe='')}.lock"


def _was_canonical(content: RandomAccess, layout: Layout) -> bool:
    """Say if an archive, not canonical though a good one for other readers, was canonical before it was altered."""
    return content.size == layout.size or content.read_at(0, len(layout.head)) == layout.head


def _split(rest: str) -> tuple[Path, str, str | None]:
    folder, name = split_path(rest)
    if not folder or not name:
        raise UsageError(f"folder:{rest} names no image in a folder. Write folder:PATH:IMAGE[:VERSION].")
    image, colon, version = name.rpartition(":")
    if not colon or "/" in version:
        return Path(folder), name, None
    return Path(folder), image, version

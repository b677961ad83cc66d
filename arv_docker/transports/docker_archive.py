# SPDX-License-Identifier: Apache-2.0
"""``docker-archive:``, a file that ``docker save`` or its like wrote, whole or compressed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..archive import canonical, oci
from ..archive.archived_image import ArchivedImage
from ..archive.canonical import Layout, Names
from ..archive.codecs.whole_archive import unwrapped_stream
from ..archive.layer import Stream
from ..archive.listing import Name
from ..archive.reader import ArchiveReader, Openable
from ..archive.stream import StreamedArchive, StreamedImage
from ..errors import BadArchive, DiskError, NoSuchImage, UsageError
from ..local.disk import hold_lock, replace_file
from ..local.pipes import StandardInput
from ..local.progress import Advance
from ..model.image import Digest
from ..model.reference import Reference, parse_name
from . import Destination, OpenedImage, Source
from .local import LocalFile, archive_of, folder_advice, seekable, split_path
from .names import Choice


def source(rest: str, choice: Choice) -> ArchiveFile | PipedArchive:
    """The source ``PATH[:REFERENCE]``, ``-`` being standard input; the path ends as ``split_path`` has it."""
    path, text = split_path(rest)
    if not path:
        raise UsageError(f"docker-archive:{rest} names no file.")
    name = parse_name(text) if text else None
    return PipedArchive(name, choice) if path == "-" else ArchiveFile(Path(path), name, choice)


def destination(rest: str, choice: Choice) -> ArchiveDestination:  # noqa: ARG001 -- there is nothing to choose
    """The destination ``PATH[:REFERENCE]``."""
    path, name = split_path(rest)
    if not path:
        raise UsageError(f"docker-archive:{rest} names no file.")
    return ArchiveDestination(Path(path), _names(name))


def _names(text: str) -> Names:
    """The image's names in the archive: as Docker writes it, for readers of ``manifest.json`` and of the OCI index."""
    if not text:
        return Names()
    name = Reference.parse(text)
    if name.tag is None or name.digest is not None:
        raise UsageError(f"{text!r}: an archive gives an image a name and a tag; write NAME:TAG.")
    return Names((name.familiar_name,), {oci.FULL_NAME: name.canonical, oci.REF_NAME: name.tag})


class ArchiveFile(Source):
    """An archive in a file, and the name of one of its images (None: the only image)."""

    def __init__(
        self,
        path: Path,
        name: Name | None = None,
        choice: Choice | None = None,
        *,
        by_index: bool = False,
        any_name: bool = False,
        follow_links: bool = True,
    ) -> None:
        """Name an archive in a file. ``by_index``: names are those of the OCI index, where the archive has one.
        ``any_name``: of an archive with one image the name need not be its own. Without ``follow_links`` a link in
        the file's place cannot be read."""
        self._flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
        self._any_name = any_name
        self._path = path
        self._by_index = by_index
        self._name = name
        self._choice = choice or Choice()

    @contextmanager
    def open(self) -> Iterator[ArchivedImage]:
        """The image; raises BadArchive for a file that cannot be read, and what ``archive.docker`` refuses."""
        with self._open_reader() as archive:
            yield archive.image(self._name, self._choice.platform)

    @contextmanager
    def every(self) -> Iterator[Iterator[Openable]]:
        """Every image of that name, or all images; for all platforms. Raises as ``open`` does."""
        with self._open_reader() as archive:
            yield archive.every(self._name)

    @contextmanager
    def platforms(self) -> Iterator[Iterator[Openable]]:
        """The image that ``open`` gives for one platform, for each platform. Raises as ``open`` does."""
        with self._open_reader() as archive:
            yield archive.platforms(self._name)

    @contextmanager
    def _open_reader(self) -> Iterator[ArchiveReader]:
        try:
            descriptor = os.open(self._path, self._flags)
        except OSError as error:
            raise BadArchive(f"{self._path} cannot be read: {error.strerror}.") from None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BadArchive(
                    f"{self._path} is no regular file; an archive is read at any place. Save it to one."
                    f"{folder_advice(self._path)}"
                )
            yield ArchiveReader(
                LocalFile(descriptor),
                by_index=self._by_index,
                any_name=self._any_name,
                progress=self._choice.progress,
            )
        finally:
            os.close(descriptor)


class PipedArchive(Source):
    """An archive on standard input, read once; which of its images is meant as for a file."""

    def __init__(self, name: Name | None = None, choice: Choice | None = None) -> None:
        self._name = name
        self._choice = choice or Choice()

    @contextmanager
    def open(self) -> Iterator[StreamedImage]:
        """The image; raises BadArchive for a ZIP file, and as its layers are read."""
        yield StreamedImage(self._stream(), name=self._name, platform=self._choice.platform)

    def piped_archive(self) -> StreamedArchive:
        """The archive that is piped in; raises as ``open`` does, and UsageError where one image of it is named."""
        if self._name is not None:
            raise UsageError(f"{str(self._name)!r} is one image of what is piped in, and all are asked for.")
        return StreamedArchive(self._stream())

    def _stream(self) -> Stream:
        return unwrapped_stream(StandardInput())


class ArchiveDestination(Destination[Layout]):
    """A file that gets the canonical archive, or the same with names in it; an existing file is replaced."""

    def __init__(self, path: Path, names: Names | None = None) -> None:
        """Name the file to write; raises UsageError for ``-``: standard output is for the image's ID."""
        if str(path) == "-":
            raise UsageError("'-' is standard input; an archive is written to a file: name one.")
        self._path = path
        self._names = names or Names()

    def present(self, layers: Sequence[Digest]) -> frozenset[Digest]:  # noqa: ARG002 -- what it was does not matter
        """No layers: the archive is written anew, with all its layers."""
        return frozenset()

    def write(self, image: OpenedImage, advance: Advance) -> Layout:
        """Write the archive, every layer checked, and return what it is. Until it is whole and on disk it has another
        name.

        Raises what the layers raise, DiskError, and UsageError where something is there that is no file.
        """
        if self._path.exists() and not self._path.is_file():
            raise UsageError(f"{self._path} is there and is no file; an archive is not written in its place.")
        if not self._path.parent.is_dir():
            raise DiskError(f"{self._path} cannot be written: there is no folder {self._path.parent}.")
        with (
            hold_lock(self._path.with_name(f".{self._path.name}.lock")),
            seekable(image, self._path.parent) as found,
        ):
            layout = canonical.layout(found.config, found.sizes, self._names)
            with replace_file(self._path, layout.size) as file:
                for chunk in archive_of(found, layout, advance):
                    file.write(chunk)
        return layout


def image_in_file(descriptor: int, name: Name | None = None) -> ArchivedImage:
    """The image in the archive that is open as ``descriptor``; also by the digest that a containerd store calls it."""
    try:
        return ArchiveReader(LocalFile(descriptor)).image(name)
    except NoSuchImage:
        return ArchiveReader(LocalFile(descriptor), by_index=True).image(name)

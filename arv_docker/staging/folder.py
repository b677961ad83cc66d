# SPDX-License-Identifier: Apache-2.0
"""The usual folder of staged images: archives called as a naming says, each with its metadata beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..errors import ContentError, DiskError, NoSuchImage, OtherImage
from ..local.disk import hash_of, hold_lock, partial_of, read_file, try_lock, write_file
from ..local.progress import Progress, Silent
from ..model.image import MAX_JSON_SIZE, Digest
from ..store.content_store import Entries, Entry, inside, metadata_path
from ..store.filenames import METADATA_SUFFIX, Naming, naming
from ..store.metadata import Metadata, Sealed
from .staged import Copy, Wanted

#: How metadata is written in such a folder.
FORM = Sealed()


class PlainFolder:
    """Canonical archives, as they are in Keep; where it can be hard links to the cache."""

    sif = False

    def __init__(self, path: Path, names: Naming | None = None, progress: Progress | None = None) -> None:
        """``names`` are percent-encoded ones unless given. The folder is made when something is put there."""
        self.path = path
        self._names = names or naming("plain")
        self._progress = progress or Silent()

    def copies(self) -> list[Copy]:
        """What is there, by file name."""
        found = (it for it in inside(self.path) if it.name.endswith(METADATA_SUFFIX) and it.name != METADATA_SUFFIX)
        return [self._copy(path) for path in sorted(found) if path.name[0] != "."]

    def tidy(self) -> None:
        """Removes unfinished files beside whole ones; of others whoever stages that image again."""
        leftovers = [partial_of(it) for copy in self.copies() for it in (copy.path, metadata_path(copy.path))]
        lock = self.path / ".lock"
        if any(it.exists() for it in (lock, *leftovers)):
            with try_lock(lock) as free:
                for leftover in leftovers if free else ():
                    leftover.unlink(missing_ok=True)

    def paths(self, wanted: Wanted, image_id: Digest) -> tuple[Path, ...]:
        """One for each spelling, those that come out as one once; raises UsageError for what cannot be a file's
        name."""
        names = dict.fromkeys(self._names(text, image_id) for text in wanted.spellings)
        return tuple(self.path / name for name in names)

    def put(self, wanted: Wanted, entry: Entry, entries: Entries, *, force: bool) -> list[Copy]:
        """The archive first and its metadata last, so that what has metadata is whole."""
        paths = self.paths(wanted, entry.metadata.image_id)
        metadata = replace(entry.metadata, name=wanted.canonical)

        @contextmanager
        def around(path: Path) -> Iterator[None]:
            self._check_names([path], metadata, force=force)
            there = path.exists()
            if there and not force:
                self._check_there(path, entry, metadata)
            yield
            if self._copy(metadata_path(path)).metadata != metadata:
                try:
                    write_file(metadata_path(path), FORM.dump(metadata))
                except DiskError:
                    if not there:
                        path.unlink()
                    raise

        names = [it.name for it in paths]
        if entries.transfer(wanted.canonical, self.path, names=names, force=force, around=around) is None:
            raise NoSuchImage(f"{wanted} was removed from the cache meanwhile. Stage it again.")
        if force:
            with hold_lock(self.path / ".lock"):
                self._remove_others(metadata)
        return [Copy(path, metadata) for path in paths]

    def _copy(self, metadata: Path) -> Copy:
        path = metadata.with_name(metadata.name.removesuffix(METADATA_SUFFIX))
        try:
            return Copy(path, FORM.load(read_file(metadata, MAX_JSON_SIZE)))
        except (OSError, ContentError) as error:
            return Copy(path, None, f"{metadata} cannot be used: {error}")

    def _check_names(self, paths: Sequence[Path], metadata: Metadata, *, force: bool) -> None:
        """Two images under one file name would each be taken for the other, and two of one name in an engine."""
        for copy in () if force else self.copies():  # another process may have staged it since we looked
            other = copy.metadata if copy.path.exists() else None
            if other is not None and other.name == metadata.name and other.image_id != metadata.image_id:
                raise OtherImage(
                    f"{copy.path} is {metadata.name} too, and another image. Use --force to replace it, or another "
                    "--dir."
                )
        for path in paths:
            there = self._copy(metadata_path(path)).metadata
            if there is not None and there.name != metadata.name:
                raise OtherImage(
                    f"{path} is {there.name}, and {metadata.name} would have the same file name. "
                    "Use another --naming, or another --dir."
                )

    def _check_there(self, path: Path, entry: Entry, metadata: Metadata) -> None:
        """Refuses to take a file for a copy of the image that is none."""
        if path.samefile(entry.path):
            return
        with self._progress.step(f"verifying {path.name}", path.stat().st_size) as advance:
            if hash_of(path, advance) != metadata.archive:
                raise OtherImage(
                    f"{path} is there and is not image {metadata.image_id.short}, which {metadata.name} is. "
                    "Use --force to replace it, or another --dir or --naming."
                )

    def _remove_others(self, metadata: Metadata) -> None:
        """What the name meant here before; two images of one name would both be loaded."""
        for copy in self.copies():
            old = copy.metadata
            if old is not None and old.name == metadata.name and old.image_id != metadata.image_id:
                metadata_path(copy.path).unlink(missing_ok=True)
                copy.path.unlink(missing_ok=True)

# SPDX-License-Identifier: Apache-2.0
"""The usual folder of staged images: archives called as a naming says, each with its metadata beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from ..errors import ContentError, DiskError, NoSuchImage, OtherImage
from ..local.disk import hash_of, hold_lock, partial_of, read_file, try_lock, write_file
from ..local.progress import Progress, SilentProgress
from ..model.image import MAX_JSON_SIZE, Digest
from ..store.content_store import Entries, Entry, inside, metadata_path
from ..store.filenames import METADATA_SUFFIX, Naming, naming
from ..store.metadata import Metadata, SealedForm, load_unsealed
from .staged import Copy, WantedImage

#: How metadata is written in such a folder.
FORM = SealedForm()


class PlainFolder:
    """A folder of canonical archives, as they are in Keep; where it can be hard links to the cache."""

    sif = False

    def __init__(self, path: Path, names: Naming | None = None, progress: Progress | None = None) -> None:
        """``names`` are percent-encoded file names unless given. The folder is made when something is put there."""
        self.path = path
        self._names = names or naming("plain")
        self._progress = progress or SilentProgress()

    def copies(self) -> list[Copy]:
        """The copies that are in the folder, by file name."""
        paths = (path for path in inside(self.path) if path.name.endswith(METADATA_SUFFIX))
        return [self._copy(path) for path in sorted(paths) if path.name[0] != "." and path.name != METADATA_SUFFIX]

    def tidy(self) -> None:
        """Remove unfinished files beside whole ones; other leftovers go with the next staging of the image."""
        leftovers = [partial_of(path) for copy in self.copies() for path in (copy.path, metadata_path(copy.path))]
        lock = self.path / ".lock"
        if any(path.exists() for path in (lock, *leftovers)):
            with try_lock(lock) as free:
                for leftover in leftovers if free else ():
                    leftover.unlink(missing_ok=True)

    def paths(self, wanted: WantedImage, image_id: Digest) -> tuple[Path, ...]:
        """The file for each spelling of the name; raises UsageError for a name that no file can have."""
        names = dict.fromkeys(self._names(text, image_id) for text in wanted.spellings)
        return tuple(self.path / name for name in names)

    def put(self, wanted: WantedImage, entry: Entry, entries: Entries, *, force: bool) -> list[Copy]:
        """Write an entry's files: the archive first, the metadata last, so that an image with metadata is whole."""
        paths = self.paths(wanted, entry.metadata.image_id)
        metadata = replace(entry.metadata, name=wanted.canonical)

        @contextmanager
        def placing(path: Path) -> Iterator[None]:
            self._check_names([path], metadata, force=force)
            was_there = path.exists()
            if was_there and not force:
                self._check_there(path, entry, metadata)
            yield
            if self._copy(metadata_path(path)).metadata != metadata:
                try:
                    write_file(metadata_path(path), FORM.dump(metadata))
                except DiskError:
                    if not was_there:
                        path.unlink()
                    raise

        names = [path.name for path in paths]
        if entries.transfer(wanted.canonical, self.path, names=names, force=force, around=placing) is None:
            raise NoSuchImage(f"{wanted} was removed from the cache meanwhile. Stage it again.")
        if force:
            with hold_lock(self.path / ".lock"):
                self._remove_others(metadata)
        return [Copy(path, metadata) for path in paths]

    def _copy(self, metadata: Path) -> Copy:
        path = metadata.with_name(metadata.name.removesuffix(METADATA_SUFFIX))
        try:
            raw = read_file(metadata, MAX_JSON_SIZE)
            try:
                return Copy(path, FORM.load(raw))
            except ContentError as error:
                with suppress(ContentError):
                    return Copy(path, load_unsealed(raw), sealed=False)
                raise error from None
        except (OSError, ContentError) as error:
            return Copy(path, None, f"{metadata} cannot be used: {error}")

    def _check_names(self, paths: Sequence[Path], metadata: Metadata, *, force: bool) -> None:
        """Refuse two images under one file name, and two of one name: each would be taken for the other."""
        for copy in () if force else self.copies():  # another process may have staged it since we looked
            other = copy.metadata if copy.path.exists() else None
            if other is not None and other.name == metadata.name and other.image_id != metadata.image_id:
                raise OtherImage(
                    f"{copy.path} is {metadata.name} too, and another image. Use --force to replace it, or another "
                    "--dir."
                )
        for path in paths:
            other = self._copy(metadata_path(path)).metadata
            if other is not None and other.name != metadata.name:
                raise OtherImage(
                    f"{path} is {other.name}, and {metadata.name} would have the same file name. "
                    "Use another --naming, or another --dir."
                )

    def _check_there(self, path: Path, entry: Entry, metadata: Metadata) -> None:
        """Refuse to take another file for a copy of the image."""
        if path.samefile(entry.path):
            return
        with self._progress.step(f"verifying {path.name}", path.stat().st_size) as advance:
            if hash_of(path, advance) != metadata.archive:
                raise OtherImage(
                    f"{path} is there and is not image {metadata.image_id.short_hex}, which {metadata.name} is. "
                    "Use --force to replace it, or another --dir or --naming."
                )

    def _remove_others(self, metadata: Metadata) -> None:
        """Remove the images that the name meant here before: two images of one name would both be loaded."""
        for copy in self.copies():
            old = copy.metadata
            if old is not None and old.name == metadata.name and old.image_id != metadata.image_id:
                metadata_path(copy.path).unlink(missing_ok=True)
                copy.path.unlink(missing_ok=True)

# SPDX-License-Identifier: Apache-2.0
"""Care of the user's cache: listing, verification, removal.

The cache holds two kinds of archives: images by content (``entries``), and tarballs
that an engine saved for an ingest that has not come to its end (``cache``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .archive.layer import CHUNK
from .errors import BadReference, ContentError, NoSuchImage
from .local.disk import try_lock
from .local.progress import Progress
from .model.image import Digest, Platform
from .model.reference import ImageId
from .staging import sif
from .store import tarballs
from .store.content_store import Entries, entries_in, metadata_path
from .store.filenames import METADATA_SUFFIX
from .transports.docker_archive import ArchiveFile

IMAGE, TARBALL = "image", "tarball"


@dataclass(frozen=True, slots=True)
class CacheItem:
    """An archive in the cache.

    ``kind`` is ``image`` or ``tarball``; ``names`` are the file names that lead to it; ``image_id`` is None where
    it cannot be said, and so is ``platform``, what the image is for; ``size`` is in bytes, ``age`` in seconds since it
    was used last. ``usable`` says whether it can serve again, by all that can be said without reading it.
    """

    kind: str
    path: Path
    names: tuple[str, ...]
    image_id: Digest | None
    platform: Platform | None
    size: int
    age: float
    usable: bool


class Cache:
    """The cache in a folder: images and saved tarballs."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self._progress = progress
        self._folder = folder
        self._entries: Entries = entries_in(folder, progress)

    def list(self) -> tuple[CacheItem, ...]:
        """The archives in the cache, the one that was used last first."""
        return tuple(sorted([*self._images(), *self._tarballs()], key=lambda item: (item.age, item.path.name)))

    def verify(self) -> Iterator[tuple[CacheItem, str]]:
        """Read every archive, and yield each with what is wrong with it, or an empty text."""
        for kept in self.list():
            yield kept, self._problem(kept)

    def gc(self, older_than: float | None = None) -> int:
        """Remove archives that cannot serve again, and what killed processes left; return the number of bytes.

        ``older_than``: also what was not used for so many seconds. What another process works
        on stays.
        """
        before = self._size()
        self._remove_leftovers()
        for kept in self.list():
            # What is no good image has gone; one that is not there in full now is just being made.
            bad = kept.kind == TARBALL and (not kept.usable or tarballs.is_passing(kept.path))
            if bad or (older_than is not None and kept.usable and kept.age > older_than):
                self._remove(kept)
        if older_than is not None:
            for path in self._folder.glob("*.blocks"):  # what an interrupted run sent, of which the next would profit
                if _age(path) > older_than:
                    self._remove_if_free(path, path.name.partition(".")[0])
            for path in self._index_files():
                if _age(path) > older_than:
                    path.unlink(missing_ok=True)
        return before - self._size() + sif.clear_leftovers(self._folder)

    def clear(self) -> int:
        """Remove every file that no other process works on, and return the number of bytes."""
        return self.gc(older_than=-float("inf"))

    # -- images ----------------------------------------------------------------------------

    def _images(self) -> Iterator[CacheItem]:
        names = self._names()
        for path in self._entries.contents():
            entry = self._entries.entry(path)
            known = tuple(dict.fromkeys(link.name for link in names.get(path.name, ())))
            yield CacheItem(
                IMAGE,
                path,
                known,
                entry.metadata.image_id if entry else None,
                entry.metadata.platform if entry else None,
                _size(path),
                _age(metadata_path(path) if entry else path),
                usable=entry is not None and known != (),
            )

    def _names(self) -> dict[str, tuple[Path, ...]]:
        """The links to each archive, by the archive's file name; beside each lies a link to the metadata."""
        links = dict(self._entries.links())
        names: dict[str, tuple[Path, ...]] = {}
        for link, target in links.items():
            if links.get(metadata_path(link)) == f"{target}{METADATA_SUFFIX}":
                names[target] = (*names.get(target, ()), link)
        return names

    def _problem(self, kept: CacheItem) -> str:
        if not kept.usable:
            return f"{kept.path} cannot serve again: arv-docker cache gc removes it."
        try:
            if kept.kind == TARBALL:
                self._read(kept)
            elif (entry := self._entries.entry(kept.path)) is not None:
                self._entries.check(entry)
        except (ContentError, NoSuchImage) as error:
            return error.message
        return ""

    # -- tarballs --------------------------------------------------------------------------

    def _tarballs(self) -> Iterator[CacheItem]:
        for path in sorted(self._folder.glob("*.tar")):
            try:
                image_id = Digest.parse(path.stem)
            except BadReference:
                continue
            file, missing = tarballs.prep_image_file(path)
            if file is not None:
                file.close()
            yield CacheItem(TARBALL, path, (), image_id, None, _size(path), _age(path), usable=not missing)

    def _read(self, kept: CacheItem) -> None:
        """Read a saved tarball; raises an error for a bad one."""
        assert kept.image_id is not None
        with self._progress.step(f"reading {kept.path.name}", kept.size) as advance:
            tarballs.check(kept.path, advance)
        with (
            ArchiveFile(kept.path, ImageId(kept.image_id.hex)).open() as image,
            self._progress.step(f"verifying {kept.image_id.short_hex}", sum(image.sizes.values())) as advance,
        ):
            for layer in image.layers():
                while content := layer.read(CHUNK):
                    advance(len(content))

    # -- what goes -------------------------------------------------------------------------

    def _remove(self, kept: CacheItem) -> None:
        if kept.kind == TARBALL:
            self._remove_if_free(kept.path, kept.path.stem)
            return
        assert kept.image_id is not None
        with try_lock(self._entries.lock_of(kept.image_id)) as free:
            if free:
                self._entries.discard(kept.path)

    def _remove_if_free(self, path: Path, image_id: str) -> None:
        """Remove a file about the tarball of that image, a tarball with its record, if no process works on it."""
        with try_lock(self._folder / f"{image_id}.tar.lock") as free:
            if free and path.suffix == ".tar":
                tarballs.discard(path)
            elif free:
                path.unlink(missing_ok=True)

    def _remove_leftovers(self) -> None:
        self._entries.tidy()
        if self._entries.root.is_dir():
            with self._entries.changing():
                self._prune()
        for path in self._folder.glob("*.tar.partial"):
            self._remove_if_free(path, path.name.removesuffix(".tar.partial"))
        for path in [*self._folder.glob("*.tar.stat"), *self._folder.glob("*.tar.stat.partial")]:
            of = path.name.partition(".")[0]
            if path.suffix == ".partial" or not (self._folder / f"{of}.tar").exists():
                self._remove_if_free(path, of)
        for lock in self._folder.glob("*.tar.lock"):
            with try_lock(lock):
                pass

    def _prune(self) -> None:
        """Remove names that lead to no entry, and files without a name. No other process changes anything meanwhile."""
        entries, root = self._entries, self._entries.root
        contents = entries.contents()
        names = self._names()
        good = {link for path in contents if entries.entry(path) for link in names.get(path.name, ())}
        good |= set(map(metadata_path, good))
        entries.unlink(link for link, _ in entries.links() if link not in good)
        entries.drop_unnamed((*contents, *root.glob(f"*{METADATA_SUFFIX}")))

    def _index_files(self) -> Iterator[Path]:
        """The files of the layer index, which are made by the first write."""
        for pattern in ("table", "*.json"):
            yield from (self._folder / "layers").glob(pattern)

    def _size(self) -> int:
        files = [it for pattern in ("*.tar*", "*.blocks") for it in self._folder.glob(pattern)]
        files += [*self._index_files(), *self._entries.root.glob("*"), *self._entries.root.glob(".*")]
        return sum(map(_size, (it for it in files if it.is_file())))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _age(path: Path) -> float:
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except FileNotFoundError:
        return 0.0

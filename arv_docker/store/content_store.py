# SPDX-License-Identifier: Apache-2.0
"""The cache of images by content: archives named by SHA-256, metadata, and links by image name.

The layout is that of WfExS' container cache (docs/spec/wfexs.md#cache-layout), so that one can be
written for it:

    sha256~<base64>~                   an archive
    sha256~<base64>~_meta.json         its metadata
    <group>/<file name>                -> ../sha256~<base64>~
    <group>/<file name>_meta.json      -> ../sha256~<base64>~_meta.json

Content stays as long as a link leads to it. A link is believed only as far as everything
about it agrees; the bytes are hashed before they are handed out.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ..errors import ContentError, DigestMismatch, DiskError, NotAnImage
from ..local.disk import (
    announce_wait,
    disk_errors,
    hash_of,
    hold_lock,
    link_or_copy,
    partial_of,
    read_file,
    replace_file,
    sync_folder,
    try_lock,
    write_file,
)
from ..local.ownership import check_private, is_ours
from ..local.progress import Progress, SilentProgress
from ..model.image import MAX_JSON_SIZE, Digest, Platform
from ..model.manifest import suits, without_usual_variant
from .filenames import METADATA_SUFFIX, plain
from .metadata import Form, Metadata, SealedForm, digest_of, signature_of

#: How signatures are written in file names: some file systems dislike these characters.
_TO_FILE = str.maketrans("=/+", "~-_")
_FROM_FILE = str.maketrans("~-_", "=/+")
_NEW = ".new"


@dataclass(frozen=True, slots=True)
class Entry:
    """An archive in the cache, as its name and metadata say."""

    path: Path
    metadata: Metadata


class Entries:
    """A cache of archives in one folder, reached through one group of names."""

    def __init__(
        self,
        root: Path,
        group: str,
        names: Callable[[str], Sequence[str]],
        *,
        form: Form | None = None,
        progress: Progress | None = None,
        shared: bool = False,
    ) -> None:
        """``names`` gives the file names of an image's name; ``form`` is that of the metadata, ours unless given.

        ``shared``: others may write to the cache, so that its entries are only read, verified, and copied.
        """
        self.root = root
        self._group = root / group
        self._names = names
        self._form = form or SealedForm()
        self._progress = progress or SilentProgress()
        self._shared = shared

    # -- what is there ---------------------------------------------------------------------

    def query(self, name: str) -> Entry | None:
        """The entry of that name, if links, names and metadata all agree; its bytes are not read. Else None."""
        found = {self._target(link) for it in self._names(name) for link in (self._group / it,)}
        path = found.pop() if len(found) == 1 else None
        beside = {self._target(metadata_path(self._group / it)) for it in self._names(name)}
        if path is None or beside != {metadata_path(path)}:
            return None
        return self.entry(path)

    def others(self, name: str) -> tuple[Entry, ...]:
        """The entries of other groups under that name."""
        names = set(self._names(name))
        found = {target for link, target in self.links() if link.name in names and link.parent != self._group}
        return tuple(filter(None, (self.entry(self.root / it) for it in sorted(found))))

    def by_image(self, digest: Digest, platform: Platform | None = None) -> Entry | None:
        """An entry of the image with that ID, or called so by an engine or a registry, under whatever name.

        A digest that is not the ID may be that of several images: ``platform`` says which.
        """
        entries = [it for it in map(self.entry, self.contents()) if it is not None]
        exact = [it for it in entries if it.metadata.image_id == digest]
        called = [it for it in entries if digest in it.metadata.digests]
        fitting = [it for it in called if platform is None or suits(it.metadata.platform, platform)]
        return next(iter((*exact, *fitting)), None)

    def entry(self, path: Path) -> Entry | None:
        """The entry of an archive in the cache; None if its metadata is missing, damaged, or of another archive, and,
        in a cache that is the user's alone, if somebody else may write to one of the two."""
        if not self._shared and not (is_ours(path) and is_ours(metadata_path(path))):
            return None
        try:
            metadata = self._form.load(read_file(metadata_path(path), MAX_JSON_SIZE))
        except (OSError, ContentError):
            return None
        return Entry(path, metadata) if metadata.archive == _digest_in(path.name) else None

    def contents(self) -> tuple[Path, ...]:
        """The archives in the cache, under any group of names."""
        return tuple(sorted(it for it in inside(self.root) if _digest_in(it.name) and not it.is_symlink()))

    def links(self) -> tuple[tuple[Path, str], ...]:
        """Every link of every group, those to metadata too, with the name of the file that it leads to."""
        folders = [it for it in inside(self.root) if it.is_dir() and not it.is_symlink()]
        found = [link for folder in folders for link in inside(folder) if link.is_symlink()]
        return tuple((link, link.readlink().name) for link in sorted(found))

    def check(self, entry: Entry) -> None:
        """Read the archive; raises DigestMismatch if it is not as it was written, or gone."""
        size = entry.path.stat().st_size if entry.path.exists() else 0
        with self._progress.step(f"verifying {entry.metadata.image_id.short_hex}", size) as advance:
            if hash_of(entry.path, advance) != entry.metadata.archive:
                raise DigestMismatch(f"{entry.path} is not as it was written; nothing of it is used.")

    # -- what changes it -------------------------------------------------------------------

    @contextmanager
    def fetching(self, image_id: Digest) -> Iterator[None]:
        """Hold the lock of an image's fetching: no other process fetches that image into the cache. Who waits looks
        again afterwards."""
        self._make()
        with hold_lock(
            self.lock_of(image_id), announce_wait(self._progress.say, f"fetches image {image_id.short_hex}")
        ):
            for leftover in (self._unnamed_path(image_id), partial_of(self._unnamed_path(image_id))):
                leftover.unlink(missing_ok=True)
            yield

    def update(
        self, name: str, chunks: Iterable[bytes], size: int, image_id: Digest, describe: Callable[[Digest], Metadata]
    ) -> Entry:
        """Make ``chunks``, about ``size`` bytes in all, the content of the name; what it had before goes if nothing
        else names it.

        The caller is ``fetching`` the image. ``describe`` gives the metadata of an archive of that SHA-256.
        What ``chunks`` raises leaves everything as it was. Raises NotAnImage for metadata that could not be read
        again, before anything else, and DiskError.
        """
        self._check_size(describe)
        new, digest = self._unnamed_path(image_id), hashlib.sha256()
        with replace_file(new, size) as file:
            for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)
        new.chmod(0o444)  # what is staged may be hard links to it
        metadata = describe(Digest("sha256", digest.hexdigest()))
        path = self.root / signature_of(metadata.archive).translate(_TO_FILE)
        with self.changing(), self._naming(path):
            new.rename(path)
            write_file(metadata_path(path), self._form.dump(metadata))
            self._link(name, path)
        return Entry(path, metadata)

    def adopt(self, name: str, entry: Entry) -> Entry:
        """Make an archive of another cache, or one that has another name here, known by this name too, with these
        metadata."""
        path = self.root / entry.path.name
        self._make()
        with self.changing(), self._naming(path):
            if path != entry.path:
                link_or_copy(entry.path, path, entry.metadata.archive)
            if self.entry(path) != Entry(path, entry.metadata):
                write_file(metadata_path(path), self._form.dump(entry.metadata))
            self._link(name, path)
        return Entry(path, entry.metadata)

    def invalidate(self, name: str) -> bool:
        """Take the name away, and the content with it if no other name leads there; say if there was one."""
        with self.changing():
            mine = {link for it in self._names(name) for link in self._pair(it)}
            return bool(self.unlink(link for link, _ in self.links() if link in mine))

    def discard(self, path: Path) -> None:
        """Take away an archive of the cache, and every name that leads to it."""
        names = (path.name, metadata_path(path).name)
        with self.changing():
            self.unlink(link for link, target in self.links() if target in names)
            self.drop_unnamed((path, metadata_path(path)))

    def transfer(
        self,
        name: str,
        directory: Path,
        *,
        names: Sequence[str] | None = None,
        force: bool = False,
        around: Callable[[Path], AbstractContextManager[object]] = nullcontext,
    ) -> tuple[Path, ...] | None:
        """Put the archive into ``directory`` under each of ``names`` (the cache's own unless given), and return its
        paths; None if there is no such entry.

        A hard link where the file system has them, else a copy. A file that is there stays
        unless ``force``. ``around`` is what is done with each path, before and after, while no
        other process works on the directory. Raises DigestMismatch for content that is not as it was written,
        before anything is put anywhere, and DiskError.
        """
        entry = self.query(name)
        if entry is None:
            return None
        self.check(entry)
        with suppress(OSError):
            os.utime(metadata_path(entry.path))  # when it was used last; the archive's own times are its copies' too
        with disk_errors(directory, advice="choose another folder"):
            directory.mkdir(parents=True, exist_ok=True)
        paths = tuple(directory / it for it in (self._names(name) if names is None else names))
        with hold_lock(directory / ".lock"):
            for path in paths:
                partial_of(path).unlink(missing_ok=True)  # of a process that was killed
                with around(path):
                    if force or not path.exists():
                        link_or_copy(entry.path, path, entry.metadata.archive)
        return paths

    def tidy(self) -> None:
        """Remove files that killed processes left half written, and their locks."""
        if not self.root.is_dir():
            return
        for path in inside(self.root):
            if (image_id := _image_of_leftover(path)) is not None:
                with try_lock(self.lock_of(image_id)) as free:
                    if free:
                        path.unlink(missing_ok=True)
        with self.changing():
            for path in (*self.root.glob(".*.partial"), *self.root.glob("*/.*.partial")):
                if _image_of_leftover(path) is None:
                    path.unlink(missing_ok=True)
        for lock in self.root.glob(".*lock"):
            with try_lock(lock):
                pass

    def lock_of(self, image_id: Digest) -> Path:
        """The lock file of a process that is ``fetching`` that image."""
        return self.root / f".{image_id.hex}.lock"

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock of the cache: no other process changes names and contents. Held for moments only."""
        self._make()
        with hold_lock(self.root / ".lock"):
            yield

    def unlink(self, links: Iterable[Path]) -> tuple[Path, ...]:
        """Remove links, and what then has no name; return the links. For who is ``changing``."""
        gone = tuple(links)
        targets = [self.root / link.readlink().name for link in gone]
        for link in gone:
            link.unlink(missing_ok=True)
        self.drop_unnamed(targets)
        return gone

    def drop_unnamed(self, paths: Iterable[Path]) -> None:
        """Remove the files of ``paths`` that no link leads to. For who is ``changing``."""
        named = {target for _, target in self.links()}
        for path in paths:
            if path.name not in named:
                path.unlink(missing_ok=True)

    # -- files -----------------------------------------------------------------------------

    @contextmanager
    def _naming(self, path: Path) -> Iterator[None]:
        """Remove content that does not come to its name, as on a disk that is full now."""
        try:
            yield
        except BaseException:
            self.drop_unnamed((path, metadata_path(path)))
            raise

    def _check_size(self, describe: Callable[[Digest], Metadata]) -> None:
        try:
            size = len(self._form.dump(describe(Digest.of(b""))))
        except RecursionError:
            size = MAX_JSON_SIZE
        if size > MAX_JSON_SIZE // 2:  # names and digests are added later
            raise NotAnImage("the image's config is too large, or nested too deep, to be kept beside an archive.")

    def _make(self) -> None:
        with disk_errors(self.root):
            if not self._shared:
                self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._group.mkdir(mode=0o777 if self._shared else 0o700, parents=True, exist_ok=True)

    def _unnamed_path(self, image_id: Digest) -> Path:
        """The path of an archive between being whole and having its name."""
        return self.root / f"{image_id.hex}{_NEW}"

    def _pair(self, name: str) -> tuple[Path, Path]:
        return self._group / name, metadata_path(self._group / name)

    def _target(self, link: Path) -> Path | None:
        """The target of a link, if the file is in this cache under that name."""
        try:
            text = str(link.readlink())
        except OSError:
            return None
        path = self.root / Path(text).name
        ours = _digest_in(path.name.removesuffix(METADATA_SUFFIX)) and text == f"../{path.name}"
        return path if ours and path.is_file() and not path.is_symlink() else None

    def _link(self, name: str, path: Path) -> None:
        """Make the links of the name lead to ``path`` and its metadata."""
        before = dict(self.links())
        for it in self._names(name):
            for link, target in zip(self._pair(it), (path, metadata_path(path)), strict=True):
                temporary = partial_of(link)
                temporary.unlink(missing_ok=True)
                with self._linking():
                    temporary.symlink_to(f"../{target.name}")
                temporary.rename(link)
        sync_folder(self._group)
        mine = [link for it in self._names(name) for link in self._pair(it)]
        self.drop_unnamed(self.root / before[link] for link in mine if link in before)

    @contextmanager
    def _linking(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            raise DiskError(
                f"the file system of {self.root} has no symbolic links, which images have their names by there. "
                "Choose a folder on another one; for the cache, by XDG_CACHE_HOME."
            ) from error


def entries_in(cache: Path, progress: Progress | None = None, platform: Platform | None = None) -> Entries:
    """The images in a cache folder, beside the saved tarballs: plain canonical archives, by the names of their images.

    What a name means for ``platform``, where one was asked for, is a group of its own. Raises DiskError where others
    may write to it.
    """
    group = f"images~{quote(str(without_usual_variant(platform)), safe='')}" if platform else "images"
    root = cache / "entries"
    for folder in (root, root / group):
        with suppress(FileNotFoundError):
            check_private(folder)
    return Entries(root, group, lambda name: (plain(name),), progress=progress)


def content_path(path: Path) -> Path:
    """The file that a name of this layout leads to: the archive or metadata beside its folder; any other path itself,
    also a link that leads elsewhere."""
    with suppress(OSError):
        target = path.readlink()
        if target.parent == Path("..") and _digest_in(target.name.removesuffix(METADATA_SUFFIX)):
            return path.parent.parent / target.name
    return path


def metadata_path(path: Path) -> Path:
    """The file of an archive's metadata."""
    return path.with_name(path.name + METADATA_SUFFIX)


def _image_of_leftover(path: Path) -> Digest | None:
    """The image of a leftover of fetching; None for other files."""
    name = path.name.removeprefix(".").removesuffix(".partial")
    return Digest("sha256", name.removesuffix(_NEW)) if name.endswith(_NEW) else None


def inside(folder: Path) -> list[Path]:
    """The paths in a folder; empty where there is none."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _digest_in(name: str) -> Digest | None:
    """The digest that a content's file name spells, None for other files."""
    try:
        return digest_of(name.translate(_FROM_FILE))
    except ValueError:
        return None

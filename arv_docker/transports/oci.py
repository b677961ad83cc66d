# SPDX-License-Identifier: Apache-2.0
"""``oci:``, an OCI layout in a folder: what skopeo, umoci and BuildKit write and read.

Written with layers as they are in the canonical archive, so that the manifest, and the image's
ID in a containerd store, are the same. A layout may hold many images; one is put beside the
others, and of two with one name the last stays.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..archive import canonical, oci
from ..archive.archived_image import ArchivedImage
from ..archive.blob import Blob
from ..archive.canonical import Layout, Names
from ..archive.layer import CHUNK, Layer
from ..archive.listing import Name, digest_in
from ..archive.reader import Images, Openable
from ..errors import BadArchive, BadReference, UsageError
from ..local.disk import disk_errors, hold_lock, replace_file, sync_folder
from ..local.progress import Advance
from ..model.image import MAX_JSON_SIZE, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, Digest, oci_object
from ..model.reference import Reference
from ..store.cache import NO_CACHE, CacheFolder
from . import Destination, OpenedImage, Source, known_layers
from .local import LocalFile, folder_advice, names_present, split_path
from .names import Choice

_DOCUMENTS = ("index.json", "oci-layout")
_BLOBS = "blobs/sha256"
_PARTIAL = ".*.partial"
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


def source(rest: str, choice: Choice) -> LayoutSource:
    """The source ``FOLDER[:NAME]``; the folder ends as ``split_path`` has it."""
    folder, name = split(rest, "oci")
    return LayoutSource(Path(folder), name, choice)


def destination(rest: str, choice: Choice) -> LayoutDestination:
    """The destination ``FOLDER[:NAME]``."""
    folder, name = split(rest, "oci")
    return LayoutDestination(Path(folder), name, choice.cache)


def split(rest: str, transport: str) -> tuple[str, str | None]:
    """Path and name in ``PATH[:NAME]``; raises UsageError for a text that has no path, or no name of a layout."""
    path, name = split_path(rest)
    if not path:
        raise UsageError(f"{transport}:{rest} names no place. Write {transport}:PATH[:NAME].")
    if not name.isprintable():
        raise UsageError(f"{name!r} is no name of an image in an OCI layout.")
    return path, name or None


class LayoutSource(Source):
    """An image of an OCI layout in a folder, by name, or the only image."""

    def __init__(self, folder: Path, name: Name | None = None, choice: Choice | None = None) -> None:
        self._folder = folder
        self._name = name
        self._choice = choice or Choice()

    @contextmanager
    def open(self) -> Iterator[ArchivedImage]:
        """The image; raises BadArchive for a folder that cannot be read, and what ``archive.docker`` refuses."""
        yield self._images().image(self._name, self._choice.platform)

    @contextmanager
    def every(self) -> Iterator[Iterator[Openable]]:
        """Every image of that name, or all images; for all platforms. Raises as ``open`` does."""
        yield self._images().every(self._name)

    @contextmanager
    def platforms(self) -> Iterator[Iterator[Openable]]:
        """The image that ``open`` gives for one platform, for each platform. Raises as ``open`` does."""
        yield self._images().platforms(self._name)

    def _images(self) -> Images:
        files = Folder(self._folder)
        if "index.json" not in files:
            raise BadArchive(f"{self._folder} is no OCI layout: it has no index.json.{folder_advice(self._folder)}")
        return Images(files, by_index=True, progress=self._choice.progress)


class LayoutDestination(Destination[Layout]):
    """An OCI layout in a folder, which is made, that an image is written to, under a name or without one."""

    def __init__(self, folder: Path, name: str | None = None, cache: CacheFolder = NO_CACHE) -> None:
        self._folder = folder
        self._names = names_of(name)
        self._cache = cache
        self._blobs = _Blobs(folder)

    def present(self, layers: Sequence[Digest]) -> frozenset[Digest]:
        """The layers that lie there as they are written, uncompressed; each is read, and hashed."""
        return names_present(layers, lambda _: self._blobs, self._cache.layer_table())

    def write(self, image: OpenedImage, advance: Advance) -> Layout:
        """Write the image, every layer checked, and return the layout. Good blobs that are there are not read.

        The index names the image when all of it is on disk. Raises what the layers raise, DiskError,
        and UsageError for a folder with other things in it.
        """
        with self._hold_layout():
            blobs = self._blobs = _Blobs(self._folder)
            try:
                for layer in image.layers(skip=self.present(known_layers(image))):
                    blobs.store(layer, advance)
                config = image.config
                layout = canonical.layout(config, {diff_id: blobs.size(diff_id) for diff_id in config.diff_ids})
                layers = [Descriptor(OCI_LAYER, diff_id, blobs.size(diff_id)) for diff_id in config.diff_ids]
                raw = canonical.oci_manifest(Descriptor(OCI_CONFIG, config.digest, len(config.raw)), layers)
                blobs.write(config.digest, config.raw)
                blobs.write(layout.manifest_digest, raw)
                self._list(Descriptor(OCI_MANIFEST, layout.manifest_digest, len(raw)))
            except BaseException:
                blobs.keep_only(set())
                raise
            blobs.keep_only({config.digest, layout.manifest_digest, *config.diff_ids})
        return layout

    @contextmanager
    def _hold_layout(self) -> Iterator[None]:
        """Hold the layout, made if it is not there, while no other process writes to it."""
        if self._folder.exists() and not self._folder.is_dir():
            raise UsageError(f"{self._folder} is no folder; an OCI layout is one.")
        is_new = not self._folder.exists()
        with disk_errors(self._folder, advice="choose another folder"):
            self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with self._hold_lock():
                yield
        except BaseException:
            if is_new:
                with suppress(OSError):
                    self._folder.rmdir()
            raise

    @contextmanager
    def _hold_lock(self) -> Iterator[None]:
        """Hold the folder, with the frame of a layout in it; what was made of that goes again after an error."""
        with hold_lock(self._folder / ".lock"):
            mark = self._folder / "oci-layout"
            is_new = not mark.exists()
            if is_new:
                if any(not entry.name.startswith(".") for entry in self._folder.iterdir()):
                    raise UsageError(f"{self._folder} has other things in it, and is no OCI layout. Choose another.")
                with replace_file(mark) as file:
                    file.write(_LAYOUT)
            try:
                with disk_errors(self._folder, advice="choose another folder"):
                    blobs = self._folder / _BLOBS
                    blobs.mkdir(parents=True, exist_ok=True)
                    for leftover in (*self._folder.glob(_PARTIAL), *blobs.glob(_PARTIAL)):
                        leftover.unlink()  # of a run that was killed
                yield
            except BaseException:
                if is_new and not (self._folder / "index.json").exists():
                    self._remove_frame(mark)
                raise

    def _remove_frame(self, mark: Path) -> None:
        """Remove an empty layout's folders and mark."""
        with suppress(OSError):
            blobs = self._folder / _BLOBS
            blobs.rmdir()
            blobs.parent.rmdir()
            mark.unlink()

    def _list(self, manifest: Descriptor) -> None:
        """Add the image to the index. Another one of its name loses its entry, as does the image without a name."""
        entry = canonical.entry(manifest, self._names)
        entries = [it for it in self._entries() if not self._replace_entry(it, manifest)]
        with replace_file(self._folder / "index.json") as file:
            file.write(canonical.index([*entries, entry]))

    def _entries(self) -> list[dict[str, Any]]:
        files = Folder(self._folder)
        if "index.json" not in files:
            return []
        document = oci_object(files.read("index.json", limit=MAX_JSON_SIZE), what=f"{self._folder}/index.json")
        entries = document.get("manifests") or []
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise BadArchive(f"{self._folder}/index.json is no OCI index. Choose another folder.")
        return entries

    def _replace_entry(self, entry: dict[str, Any], manifest: Descriptor) -> bool:
        notes = entry.get("annotations")
        name = notes.get(oci.REF_NAME) if isinstance(notes, dict) else None
        if name is None:
            return entry.get("digest") == str(manifest.digest)
        return bool(name == self._names.notes.get(oci.REF_NAME))


def names_of(name: str | None) -> Names:
    """Names for an image in a layout: ``name`` as skopeo writes it, and where it has a tag also as Docker reads it.

    A classic Docker takes the tags of ``manifest.json``. One with the containerd store would take a short name such
    as ``team/app:1`` for the full one, and then not find it, unless another annotation has the name in full.
    """
    if not name:
        return Names()
    notes = {oci.REF_NAME: name}
    with suppress(BadReference):
        reference = Reference.parse(name)
        if ":" in name and reference.tag and not reference.digest:
            return Names((reference.familiar_name,), {oci.FULL_NAME: reference.canonical, **notes})
    return Names(notes=notes)


class Folder:
    """The files of an OCI layout in a folder. Names are those that a layout has, and none other becomes a path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __contains__(self, name: str) -> bool:
        return (name in _DOCUMENTS or digest_in(name) is not None) and (self._folder / name).is_file()

    def names(self) -> Iterator[str]:
        """The names of the documents, in which the names of blobs are found."""
        return (name for name in _DOCUMENTS if name in self)

    def blob(self, name: str) -> Blob:
        """The file of that name; raises BadArchive for a missing or unreadable file."""
        if name not in self:
            raise BadArchive(f"{self._folder} has no file {name!r}. Copy the layout again.")
        file = _File(self._folder / name)
        return Blob(file, 0, file.size)

    def read(self, name: str, *, limit: int) -> bytes:
        """A file's content; raises BadArchive where it is larger than ``limit`` bytes, or as ``blob`` does."""
        blob = self.blob(name)
        if blob.size > limit:
            raise BadArchive(f"{self._folder}/{name} is {blob.size} bytes; at most {limit} are read.")
        return blob.start(blob.size)


@dataclass(frozen=True, slots=True)
class _File:
    """A file that is open only while it is read: a layout may have thousands."""

    path: Path

    @property
    def size(self) -> int:
        with self._open_file() as descriptor:
            return os.fstat(descriptor).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        with self._open_file() as descriptor:
            return LocalFile(descriptor).read_at(offset, length)

    @contextmanager
    def _open_file(self) -> Iterator[int]:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise BadArchive(f"{self.path} cannot be read: {error.strerror}.") from None
        try:
            yield descriptor
        finally:
            os.close(descriptor)


class _Blobs:
    """The blobs of a layout that is written to. Contains the digests of good blobs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / _BLOBS
        self._sizes: dict[Digest, int] = {}
        self._new: set[Digest] = set()

    def __contains__(self, digest: object) -> bool:
        return isinstance(digest, Digest) and (digest in self._sizes or self._has_blob(digest))

    def size(self, digest: Digest) -> int:
        """The bytes of a blob; raises BadArchive if it is not there."""
        if digest not in self:
            raise BadArchive(f"layer {digest} is missing. Save the image again.")
        return self._sizes[digest]

    def store(self, layer: Layer, advance: Advance) -> None:
        """Write a layer, whose digest is known at the end. Raises the layer's errors, and DiskError."""
        written = self._folder / ".layer"
        with replace_file(written, layer.size or 0) as file:
            while content := layer.read(CHUNK):
                file.write(content)
                advance(len(content))
        if layer.diff_id not in self:
            self._new.add(layer.diff_id)
        written.replace(self._folder / layer.diff_id.hex)
        sync_folder(self._folder)
        self._sizes[layer.diff_id] = layer.position

    def write(self, digest: Digest, content: bytes) -> None:
        """Write a document, unless it is there. Raises DiskError."""
        if digest not in self:
            with replace_file(self._folder / digest.hex) as file:
                file.write(content)
            self._new.add(digest)
            self._sizes[digest] = len(content)

    def keep_only(self, wanted: Set[Digest]) -> None:
        """Remove blobs that were written and are not wanted: a stream has other images' layers too."""
        for digest in self._new - wanted:
            (self._folder / digest.hex).unlink(missing_ok=True)

    def _has_blob(self, digest: Digest) -> bool:
        """Say if a blob of that name is there and hashes to it."""
        path = self._folder / digest.hex
        if not path.is_file():
            return False
        found = hashlib.sha256()
        with path.open("rb") as file:
            while content := file.read(CHUNK):
                found.update(content)
            self._sizes[digest] = file.tell()
        if found.hexdigest() != digest.hex:
            del self._sizes[digest]
            return False
        return True

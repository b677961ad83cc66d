# SPDX-License-Identifier: Apache-2.0
"""A folder of staged images as SIF files, which Apptainer and Singularity run as they are.

Building one twice gives two files of different bytes. So the metadata, which hold the hash of
the file that was built, are on disk before it gets its name, and get theirs after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..engines.apptainer import Apptainer, is_sif
from ..errors import DigestMismatch, OtherImage
from ..local.disk import disk_errors, hash_of, hold_lock, link_or_copy, sync_folder, write_file
from ..local.progress import Progress
from ..model.image import Digest
from ..store.content_store import Entries, Entry, metadata_path
from ..store.filenames import SIF_SCHEMES, Naming, naming
from ..store.metadata import Metadata
from ..transports.docker_archive import ArchiveFile
from . import sif
from .folder import FORM, PlainFolder
from .staged import Copy, Wanted


class SifFolder(PlainFolder):
    """SIF files, each with its metadata beside it; archives may be there too."""

    sif = True

    def __init__(
        self,
        path: Path,
        names: Naming | None = None,
        progress: Progress | None = None,
        apptainer: Apptainer | None = None,
    ) -> None:
        """``names`` are percent-encoded ones unless given. Raises NoEngine where there is no Apptainer."""
        super().__init__(path, names or naming("plain", SIF_SCHEMES), progress)
        self._apptainer = apptainer or Apptainer()

    def tidy(self) -> None:
        """Removes also what builds left that were killed."""
        super().tidy()
        sif.clear_leftovers(self.path)

    def put(self, wanted: Wanted, entry: Entry, entries: Entries, *, force: bool) -> list[Copy]:  # noqa: ARG002
        """Builds the file out of the archive, verified, or takes another name of it that is there.

        Raises DigestMismatch for an archive that is not as it was written, before Apptainer is started.
        """
        paths = self.paths(wanted, entry.metadata.image_id)
        metadata = replace(entry.metadata, name=wanted.canonical)
        self._check_names(paths, metadata, force=force)
        with disk_errors(self.path, advice="choose another folder"):
            self.path.mkdir(parents=True, exist_ok=True)
        with sif.building(paths[0], self._progress) as folder:
            before = None if force else self._made_before(paths, metadata)
            made = before or self._built(entry, folder, paths[0].name)
            metadata = replace(metadata, archive=self._hash(made))
            with hold_lock(self.path / ".lock"):
                for path in paths:
                    if force or not path.exists():
                        write_file(_waiting(path), FORM.dump(metadata))
                        link_or_copy(made, path, metadata.archive)
                        _name_metadata(path)
                if force:
                    self._remove_others(metadata)
        return [self._copy(metadata_path(path)) for path in paths]

    def _made_before(self, paths: Sequence[Path], wanted: Metadata) -> Path | None:
        """One of the files, if it is there and is the image; raises OtherImage if another file has its name."""
        found = None
        for path in filter(Path.exists, paths):
            if not metadata_path(path).exists():
                _name_metadata(path)  # which a killed process did not come to
            there = self._copy(metadata_path(path)).metadata
            right = there is not None and there.image_id == wanted.image_id and is_sif(path)
            if there is None or not right or self._hash(path) != there.archive:
                raise OtherImage(
                    f"{path} is there and is no SIF file of image {wanted.image_id.short}, which {wanted.name} is. "
                    "Use --force to replace it, or another --dir or --naming."
                )
            found = path
        return found

    def _built(self, entry: Entry, folder: Path, name: str) -> Path:
        with ArchiveFile(entry.path).open() as image:
            if image.config.digest != entry.metadata.image_id:
                raise DigestMismatch(
                    f"{entry.path} should hold image {entry.metadata.image_id}, and holds {image.config.digest}. "
                    "Nothing of it is used."
                )
            return sif.converted(image, folder, name, self._apptainer, self._progress)

    def _hash(self, path: Path) -> Digest:
        with self._progress.step(f"hashing {path.name}", path.stat().st_size) as advance:
            found = hash_of(path, advance)
        if found is None:
            raise DigestMismatch(f"{path} cannot be read.")
        return found


def _waiting(path: Path) -> Path:
    """Where the metadata of a file are until it has its name."""
    return path.with_name(f".{path.name}.new")


def _name_metadata(path: Path) -> None:
    with suppress(FileNotFoundError):
        _waiting(path).rename(metadata_path(path))
    sync_folder(path.parent)

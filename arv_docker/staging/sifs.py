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
from .staged import Copy, WantedImage


class SifFolder(PlainFolder):
    """A folder of SIF files, each with its metadata beside it; archives may be there too."""

    sif = True

    def __init__(
        self,
        path: Path,
        names: Naming | None = None,
        progress: Progress | None = None,
        apptainer: Apptainer | None = None,
    ) -> None:
        """``names`` are percent-encoded file names unless given. Raises NoEngine where there is no Apptainer."""
        super().__init__(path, names or naming("plain", SIF_SCHEMES), progress)
        self._apptainer = apptainer or Apptainer()

    def tidy(self) -> None:
        """Remove leftovers as ``PlainFolder`` does, and what killed builds left."""
        super().tidy()
        sif.clear_leftovers(self.path)

    def put(self, wanted: WantedImage, entry: Entry, entries: Entries, *, force: bool) -> list[Copy]:  # noqa: ARG002
        """Build the file out of the verified archive, or take another name of it that is there.

        Raises DigestMismatch for an archive that is not as it was written, before Apptainer is started.
        """
        paths = self.paths(wanted, entry.metadata.image_id)
        metadata = replace(entry.metadata, name=wanted.canonical)
        self._check_names(paths, metadata, force=force)
        with disk_errors(self.path, advice="choose another folder"):
            self.path.mkdir(parents=True, exist_ok=True)
        with sif.build_folder(paths[0], self._progress) as folder:
            earlier = None if force else self._earlier_file(paths, metadata)
            file = earlier or self._build(entry, folder, paths[0].name)
            metadata = replace(metadata, archive=self._hash(file))
            with hold_lock(self.path / ".lock"):
                for path in paths:
                    if force or not path.exists():
                        write_file(_metadata_in_waiting(path), FORM.dump(metadata))
                        link_or_copy(file, path, metadata.archive)
                        _name_metadata(path)
                if force:
                    self._remove_others(metadata)
        return [self._copy(metadata_path(path)) for path in paths]

    def _earlier_file(self, paths: Sequence[Path], wanted: Metadata) -> Path | None:
        """A file of the image that is there already; raises OtherImage where another file has its name."""
        earlier = None
        for path in filter(Path.exists, paths):
            if not metadata_path(path).exists():
                _name_metadata(path)  # which a killed process did not come to
            present = self._copy(metadata_path(path)).metadata
            right = present is not None and present.image_id == wanted.image_id and is_sif(path)
            if present is None or not right or self._hash(path) != present.archive:
                raise OtherImage(
                    f"{path} is there and is no SIF file of image {wanted.image_id.short_hex}, which {wanted.name} is. "
                    "Use --force to replace it, or another --dir or --naming."
                )
            earlier = path
        return earlier

    def _build(self, entry: Entry, folder: Path, name: str) -> Path:
        with ArchiveFile(entry.path).open() as image:
            if image.config.digest != entry.metadata.image_id:
                raise DigestMismatch(
                    f"{entry.path} should hold image {entry.metadata.image_id}, and holds {image.config.digest}. "
                    "Nothing of it is used."
                )
            return sif.build_sif(image, folder, name, self._apptainer, self._progress)

    def _hash(self, path: Path) -> Digest:
        with self._progress.step(f"hashing {path.name}", path.stat().st_size) as advance:
            digest = hash_of(path, advance)
        if digest is None:
            raise DigestMismatch(f"{path} cannot be read.")
        return digest


def _metadata_in_waiting(path: Path) -> Path:
    """The file of the metadata of ``path`` until that has its name."""
    return path.with_name(f".{path.name}.new")


def _name_metadata(path: Path) -> None:
    with suppress(FileNotFoundError):
        _metadata_in_waiting(path).rename(metadata_path(path))
    sync_folder(path.parent)

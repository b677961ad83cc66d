# SPDX-License-Identifier: Apache-2.0
"""SIF files, which Apptainer and Singularity run: built from the canonical archive, every layer verified first.

And the cluster's own cache of them: crunch-run on nodes with Singularity looks there before it
converts an image itself, so whoever fills it spares every first job that time.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..archive import canonical
from ..arvados.client import Cluster, CollectionRecord
from ..arvados.converted import ConvertedImages
from ..arvados.stored import StoredImage
from ..arvados.trust import Trust
from ..engines.apptainer import ARCHIVE, Apptainer
from ..errors import EngineError
from ..local.disk import announce_wait, disk_errors, hold_lock, try_lock
from ..local.progress import Progress
from ..model.image import Digest
from ..transports import SeekableImage
from ..transports.docker_archive import ArchiveDestination

_BUILDING = ".building"


@dataclass(frozen=True, slots=True)
class CachedSif:
    """An image that the cluster's cache has now. ``already`` says that it had it before; ``size`` is the file's in
    bytes, 0 then. ``trash_at`` is when the cluster forgets it, unless it is used."""

    image_id: Digest
    uuid: str
    pdh: str
    name: str
    trash_at: str
    already: bool
    size: int


def fill_sif_cache(
    cluster: Cluster,
    collection: CollectionRecord,
    apptainer: Apptainer,
    progress: Progress,
    trust: Trust,
    *,
    cache: Path,
    force: bool = False,
) -> CachedSif:
    """Have the image of a collection in the cluster's cache of SIF files, for this user.

    It is built in a folder in ``cache``. A file that is there stays for another while; one that somebody else wrote
    last, who is not trusted, is replaced. Raises what reading and checking the image raises, EngineError,
    ClusterError and DiskError.
    """
    stored = StoredImage(cluster, collection)
    images = ConvertedImages(cluster)
    image_id = stored.config.digest
    with build_folder(cache / f"{stored.file.image_id.hex}.sif", progress) as folder:
        earlier = images.find(stored.file)
        if earlier is not None and not trust.includes(earlier.modified_by):
            progress.warn(f"{earlier.uuid} was last written by {earlier.modified_by}, who is not trusted; replaced")
        elif earlier is not None and not force:
            renewed = images.keep(earlier)
            return CachedSif(image_id, renewed.uuid, renewed.pdh, renewed.name, renewed.trash_at, already=True, size=0)
        sif = build_sif(stored, folder, f"{image_id.short_hex}.sif", apptainer, progress)
        size = sif.stat().st_size
        with sif.open("rb") as file, progress.store_step("storing in Keep", size) as advance:
            new = images.store(stored.file, file, earlier, advance)
    return CachedSif(image_id, new.uuid, new.pdh, new.name, new.trash_at, already=False, size=size)


def build_sif(image: SeekableImage, folder: Path, name: str, apptainer: Apptainer, progress: Progress) -> Path:
    """Build the SIF file of the image, in a ``folder`` of ``building``; ``name`` is what it is called meanwhile.

    Raises what the layers raise, before Apptainer is started; EngineError and DiskError.
    """
    layout = canonical.layout(image.config, image.sizes)
    with progress.step(f"verifying {name}", layout.size) as advance:
        ArchiveDestination(folder / ARCHIVE).write(image, advance)
    # The program unpacks the layers beside the archive, and writes the file beside both.
    with _room(folder, 2 * layout.size), progress.step(f"{apptainer.name} builds {name}", None):
        return apptainer.build(folder)


@contextmanager
def build_folder(destination: Path, progress: Progress) -> Iterator[Path]:
    """An empty folder beside ``destination`` to build it in, while no other process does; removed after the block."""
    with hold_lock(_lock_of(destination), announce_wait(progress.say, f"builds {destination.name}")):
        for leftover in destination.parent.glob(f".*{_BUILDING}"):
            if _destination_of(leftover) == destination:
                _remove(leftover)
        with disk_errors(destination.parent, advice="choose another folder"):
            folder = Path(tempfile.mkdtemp(_BUILDING, f".{destination.name}.", destination.parent))
        try:
            yield folder
        finally:
            _remove(folder)


def clear_leftovers(folder: Path) -> int:
    """Remove what killed builds left in ``folder``, and return the number of bytes."""
    removed = 0
    for leftover in folder.glob(f".*{_BUILDING}"):
        with try_lock(_lock_of(_destination_of(leftover))) as free:
            removed += _remove(leftover) if free else 0
    return removed


def _destination_of(workplace: Path) -> Path:
    """The file that was built in a folder of ``build_folder``: ``.NAME.RANDOM.building``."""
    return workplace.with_name(workplace.name.removesuffix(_BUILDING).rpartition(".")[0].removeprefix("."))


def _lock_of(destination: Path) -> Path:
    return destination.with_name(f".{destination.name}.lock")


@contextmanager
def _room(folder: Path, needed: int) -> Iterator[None]:
    """Raise DiskError for a program that failed since the disk of ``folder`` is full."""
    with disk_errors(folder, needed, advice="choose a folder on a larger disk, or set APPTAINER_TMPDIR to one"):
        try:
            yield
        except EngineError as error:
            if "no space left on device" in error.detail.lower() and shutil.disk_usage(folder).free < needed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise


def _remove(folder: Path) -> int:
    """Remove a folder, also where a program unpacked folders without write permission there; return its bytes."""
    size = 0
    for parent, names, files in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            if not path.is_symlink():
                path.chmod(0o700)
        size += sum(Path(parent, name).lstat().st_size for name in files)
    shutil.rmtree(folder, ignore_errors=True)
    return size

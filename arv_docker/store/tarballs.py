# SPDX-License-Identifier: Apache-2.0
"""The stat-keyed cache: tarballs that an engine saved, kept so that a second try needs no second save.

The folder, the names and the ``.stat`` files are those of arv-keepdocker (docs/spec/keepdocker.md#cache-folder), so
that each program can use what the other left. A ``.stat`` is a JSON list of the ten
numbers of ``os.fstat``; ours has an eleventh element, an object with what those cannot
tell. The cache only saves time: what is read from it is verified like everything else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..archive.layer import CHUNK, Stream
from ..engines import Engine
from ..errors import ClusterError, DigestMismatch, DiskError
from ..local import disk
from ..local.disk import disk_errors, hash_of
from ..local.ownership import check_private, open_ours
from ..local.progress import UNHEARD_STEP, Advance, SilentProgress
from ..local.settings import user_folder
from ..model.image import Digest

#: The form of our element of a ``.stat`` file.
STAT_VERSION = 1

_SILENT = SilentProgress()
_LONGEST_RECORD = 1 << 16
_SIZE, _INODE, _DEVICE, _MTIME = 6, 1, 2, 8  # places in the list of os.fstat


def cache_folder() -> Path:
    """Upstream's cache folder for images, made with mode 0700: ``arvados/docker`` in the user's cache.

    ``$CACHE_DIRECTORY`` (systemd) comes before ``$XDG_CACHE_HOME``, as in the Arvados SDK.
    Raises DiskError if it cannot be made, or somebody else may write to it.
    """
    for entry in os.environ.get("CACHE_DIRECTORY", "").split(":"):
        if entry.startswith("/"):
            return _make_folder(Path(entry) / "docker")
    return _make_folder(user_folder("XDG_CACHE_HOME", ".cache") / "arvados" / "docker")


def stat_cache_name(image_file: Path) -> Path:
    """The path of the ``os.fstat`` record of a saved tarball: beside it, with ``.stat`` behind its name."""
    return image_file.with_name(image_file.name + ".stat")


def prep_image_file(image_file: Path) -> tuple[IO[bytes] | None, bool]:
    """The saved tarball, open for reading, and whether it must be saved first (then the file is None).

    It serves again if it is the same file, unchanged since its save was complete: size,
    mtime, inode and device are those on record. A link, and what others may write to, never serves.
    """
    try:
        file = open_ours(image_file)
    except OSError:
        return None, True
    if _is_unchanged(os.fstat(file.fileno()), _record(image_file)):
        return file, False
    file.close()
    return None, True


@contextmanager
def saving(
    engine: Engine, image_id: Digest, image_file: Path, expected: int, *, passing: bool = False
) -> Iterator[Stream]:
    """Stream of a running save, which is also written to ``image_file``, with the ``.stat`` file at the end.

    The block gets a stream, and reads it to the end. Under another name first,
    renamed when complete. ``expected`` is the image's size in bytes as the engine counts it,
    for the message of a full disk. If the block ends with a ClusterError, the save is
    completed before that goes on: the next try then needs none. After any other error
    nothing is left. ``passing`` as for ``write_record``. Raises DiskError, and what the engine raises.
    """
    partial = _partial(image_file)
    failed: ClusterError | None = None
    try:
        with disk_errors(partial.parent, expected), _new_file(partial) as file:
            with engine.save([str(image_id)]) as output:
                both = _Tee(output, file)
                try:
                    yield both
                except ClusterError as error:
                    failed = error
                    while both.read(CHUNK):
                        pass
            file.flush()
            stat = os.fstat(file.fileno())
            partial.rename(image_file)
            write_record(image_file, stat, engine.name, passing=passing)
    finally:
        partial.unlink(missing_ok=True)
    if failed is not None:
        keep(image_file, engine.name)
        raise failed


class _Tee:
    """A stream that is copied to a file while it is read."""

    def __init__(self, stream: Stream, file: IO[bytes]) -> None:
        self._stream = stream
        self._file = file

    def read(self, length: int) -> bytes:
        content = self._stream.read(length)
        self._file.write(content)
        return content

    def readinto(self, buffer: memoryview) -> int:
        count = self._stream.readinto(buffer)
        self._file.write(buffer[:count])
        return count


def write_record(
    image_file: Path, stat: os.stat_result, engine: str, *, passing: bool = False, digest: Digest | None = None
) -> None:
    """Note that ``engine`` completely saved the tarball, with the result of ``os.fstat``.

    ``passing``: it serves what is done now, and is not kept when that was interrupted; ``digest`` is its SHA-256.
    """
    ours: dict[str, object] = {
        "version": STAT_VERSION,
        "mtime_ns": stat.st_mtime_ns,
        "device": stat.st_dev,
        "engine": engine,
        "complete": True,
        "passing": passing,
    }
    if digest is not None:
        ours["sha256"] = digest.hex
    partial = _partial(stat_cache_name(image_file))
    with _new_file(partial) as file:
        file.write(_seal_stat([*stat, ours]).encode())
    partial.rename(stat_cache_name(image_file))


def keep(image_file: Path, engine: str) -> None:
    """Note the hash of a tarball that stays; do nothing without a usable tarball."""
    file, missing = prep_image_file(image_file)
    if file is None or missing:
        return
    with file, disk_errors(image_file.parent):
        if "sha256" not in _ours(image_file):
            write_record(image_file, os.fstat(file.fileno()), engine, digest=hash_of(image_file, UNHEARD_STEP))


def check(image_file: Path, advance: Advance) -> None:
    """Read a kept tarball and its record; raises DigestMismatch if either has changed."""
    record, ours = _record(image_file), _ours(image_file)
    if ours and _record_text(image_file) != _seal_stat([*record[:10], ours]).encode():
        raise DigestMismatch(f"{stat_cache_name(image_file)} is not as it was written: save the image again.")
    digest = ours.get("sha256")
    if digest is not None and hash_of(image_file, advance) != Digest("sha256", str(digest)):
        raise DigestMismatch(f"{image_file} is not as it was saved: arv-docker cache clear removes it.")


def is_passing(image_file: Path) -> bool:
    """Say if the tarball is of work that was interrupted, and of no use but to do that again."""
    return _ours(image_file).get("passing") is True


@contextmanager
def hold_image_lock(folder: Path, image_id: Digest, say: Callable[[str], None] = _SILENT.say) -> Iterator[Path]:
    """The place of the tarball of ``image_id``, while no other process works on that image.

    The lock is the one of arv-keepdocker, ``<id>.tar.lock``; its file goes with the lock.
    ``say`` is told if another process has the lock. Raises DiskError for a folder that others may write to.
    """
    image_file = folder / f"{image_id}.tar"
    check_private(folder)
    with disk.hold_lock(
        folder / f"{image_id}.tar.lock", disk.announce_wait(say, f"works on image {image_id.short_hex}")
    ):
        for leftover in (_partial(image_file), _partial(stat_cache_name(image_file))):
            leftover.unlink(missing_ok=True)  # of a process that was killed
        yield image_file


def settle(image_file: Path, engine: str, *, keeping: bool) -> None:
    """Keep or discard the tarball of an image that is in Keep now."""
    if keeping:
        keep(image_file, engine)
    else:
        discard(image_file)


def discard(image_file: Path) -> None:
    """Remove a tarball and its record."""
    stat_cache_name(image_file).unlink(missing_ok=True)
    image_file.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _new_file(path: Path) -> IO[bytes]:
    """Open a new file in the place of whatever is at ``path``, also of a planted link."""
    path.unlink(missing_ok=True)
    return path.open("xb")


def _record_text(image_file: Path) -> bytes:
    with open_ours(stat_cache_name(image_file)) as file:
        return file.read(_LONGEST_RECORD + 1)


def _record(image_file: Path) -> list[Any]:
    try:
        record = json.loads(_record_text(image_file))
    except (OSError, ValueError, RecursionError):
        return []
    return record if isinstance(record, list) else []


def _seal_stat(record: Sequence[Any]) -> str:
    """A record of ours as text, with the SHA-256 of everything else in it."""
    *numbers, ours = record
    rest = [*numbers, {key: value for key, value in ours.items() if key != "seal"}]
    return json.dumps([*numbers, {**rest[-1], "seal": Digest.of(json.dumps(rest).encode()).hex}])


def _ours(image_file: Path) -> dict[str, Any]:
    """Our part of a tarball's record, empty where there is none."""
    record = _record(image_file)
    return record[10] if len(record) > 10 and isinstance(record[10], dict) else {}


def _is_unchanged(stat: os.stat_result, record: list[Any]) -> bool:
    if len(record) < 10 or [record[place] for place in (_SIZE, _INODE, _DEVICE, _MTIME)] != [
        stat.st_size,
        stat.st_ino,
        stat.st_dev,
        int(stat.st_mtime),
    ]:
        return False
    if len(record) == 10:
        return True  # upstream's: written when its save was complete
    ours = record[10]
    return isinstance(ours, dict) and ours.get("complete") is True and ours.get("mtime_ns") == stat.st_mtime_ns


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(
            f"the cache folder {folder} cannot be made: {error.strerror}. Set XDG_CACHE_HOME to another one."
        ) from error
    if not os.access(folder, os.R_OK | os.X_OK):
        raise DiskError(f"the cache folder {folder} is not this user's to read. Set XDG_CACHE_HOME to another one.")
    check_private(folder)
    return folder

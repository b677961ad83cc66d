# SPDX-License-Identifier: Apache-2.0
"""Looking after the cache: both kinds of archives, and everything that killed processes leave."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from arv_docker.local.disk import hold_lock
from arv_docker.local.progress import SilentProgress
from arv_docker.maintenance import IMAGE, TARBALL, Cache
from arv_docker.model.image import OCI_LAYER, Descriptor, Digest
from arv_docker.store import tarballs
from arv_docker.store.content_store import entries_in, metadata_path
from arv_docker.store.layer_index import KnownBlobs, LayerTable
from arv_docker.store.tarballs import cache_folder

from .archives import Image, classic, files_of, image
from .store.test_content_store import APP, OTHER, add

SAVED = image(files_of(b"saved"))


def tarball(made: Image = SAVED) -> Path:
    path = tarballs.cache_folder() / f"{made.parsed.digest}.tar"
    path.write_bytes(classic(made))
    tarballs.write_record(path, path.stat(), "docker")
    return path


def left() -> list[str]:
    folder = tarballs.cache_folder()
    return sorted(str(it.relative_to(folder)) for it in folder.rglob("*") if not it.is_dir())


def problems() -> dict[str, str]:
    return {str(it.image_id): problem for it, problem in Cache(cache_folder(), SilentProgress()).verify()}


def test_both_kinds_are_listed_the_last_used_first() -> None:
    entry, path = add(entries_in(cache_folder()), "app:1"), tarball()
    os.utime(path, (time.time() - 1000,) * 2)
    tarballs.write_record(path, path.stat(), "docker")
    first, second = Cache(cache_folder(), SilentProgress()).list()
    assert (first.kind, first.image_id, first.names, first.usable) == (IMAGE, APP.parsed.digest, ("app%3A1.tar",), True)
    assert first.size == entry.path.stat().st_size
    assert (second.kind, second.image_id, second.usable) == (TARBALL, SAVED.parsed.digest, True)
    assert 999 < second.age < 1100
    assert first.age < 100


def test_being_staged_counts_as_use(tmp_path: Path) -> None:
    entry = add(entries_in(cache_folder()), "app:1")
    os.utime(metadata_path(entry.path), (1, 1))
    entries_in(cache_folder()).transfer("app:1", tmp_path / "staged")
    assert Cache(cache_folder(), SilentProgress()).list()[0].age < 100


@pytest.mark.conforms("W7")
def test_verify_finds_flipped_bytes_and_bad_tarballs() -> None:
    add(entries_in(cache_folder()), "good:1")
    entry, path = add(entries_in(cache_folder()), "bad:1", OTHER), tarball()
    assert list(problems().values()) == ["", "", ""]
    entry.path.chmod(0o644)
    for file, marker in ((entry.path, b"other"), (path, b"saved")):
        content, stat = bytearray(file.read_bytes()), file.stat()
        content[content.index(marker)] ^= 1
        file.write_bytes(content)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    found = problems()
    assert found[str(APP.parsed.digest)] == ""
    assert "not as it was written" in found[str(OTHER.parsed.digest)]
    assert "holds other bytes" in found[str(SAVED.parsed.digest)]


def test_gc_leaves_what_is_good() -> None:
    add(entries_in(cache_folder()), "app:1")
    tarball()
    before = left()
    assert Cache(cache_folder(), SilentProgress()).gc() == 0
    assert left() == before


def test_gc_removes_what_cannot_serve_and_what_was_left() -> None:
    entries, folder = entries_in(cache_folder()), tarballs.cache_folder()
    add(entries, "app:1")
    good = left()
    gone = add(entries, "other:1", OTHER)
    metadata_path(gone.path).write_text("{}")
    unnamed = add(entries, "third:1", image(files_of(b"third")))
    for link in (entries.root / "images").glob("third*"):
        link.unlink()
    (entries.root / "images" / "nowhere.tar").symlink_to("../nowhere")
    (entries.root / "images" / ".x.partial").symlink_to("../nowhere")
    (entries.root / ".x_meta.json.partial").touch()
    for name in (".lock", f".{'a' * 64}.lock", f"{'a' * 64}.new", f".{'b' * 64}.new.partial"):
        (entries.root / name).write_bytes(b"half")
    touched = tarball()
    touched.write_bytes(b"changed")
    for name in (f"sha256:{'c' * 64}.tar.partial", f"sha256:{'c' * 64}.tar.lock", f"sha256:{'d' * 64}.tar.stat"):
        (folder / name).write_bytes(b"half")
    assert Cache(cache_folder(), SilentProgress()).gc() > unnamed.metadata.record["Size"]
    assert left() == good


def test_what_another_process_works_on_stays() -> None:
    entries, folder = entries_in(cache_folder()), tarballs.cache_folder()
    path = tarball()
    (folder / f"{path.name}.partial").touch()
    with entries.fetching(APP.parsed.digest), hold_lock(folder / f"{path.name}.lock"):
        busy = entries.root / f".{APP.parsed.digest.hex}.new.partial"
        busy.touch()
        Cache(cache_folder(), SilentProgress()).clear()
        assert busy.exists()
        assert path.exists()
        assert (folder / f"{path.name}.partial").exists()
    Cache(cache_folder(), SilentProgress()).clear()
    assert left() == []


def test_what_was_not_used_for_long() -> None:
    add(entries_in(cache_folder()), "new:1")
    old, path = add(entries_in(cache_folder()), "old:1", OTHER), tarball()
    os.utime(metadata_path(old.path), (time.time() - 500,) * 2)
    os.utime(path, (time.time() - 500,) * 2)
    tarballs.write_record(path, path.stat(), "docker")
    Cache(cache_folder(), SilentProgress()).gc(older_than=1000)
    assert len(Cache(cache_folder(), SilentProgress()).list()) == 3
    Cache(cache_folder(), SilentProgress()).gc(older_than=400)
    assert [it.names for it in Cache(cache_folder(), SilentProgress()).list()] == [("new%3A1.tar",)]


def test_a_kept_tarball_has_no_byte_that_nobody_checks() -> None:
    """In the tar's padding, say, which no layer's digest covers."""
    path = tarball()
    tarballs.keep(path, "docker")
    assert list(problems().values()) == [""]
    content, stat = bytearray(path.read_bytes()), path.stat()
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (problem,) = problems().values()
    assert "not as it was saved" in problem
    assert Cache(cache_folder(), SilentProgress()).gc() == 0


def test_a_flipped_byte_of_a_record_is_found() -> None:
    path = tarball()
    tarballs.keep(path, "docker")
    record = tarballs.stat_cache_name(path)
    whole = record.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        record.write_bytes(damaged)
        assert list(problems().values()) != [""], whole[:place]
    record.write_bytes(whole)
    assert list(problems().values()) == [""]


def test_gc_takes_the_tarball_of_interrupted_work() -> None:
    path = tarball()
    tarballs.write_record(path, path.stat(), "docker", passing=True)
    assert tarballs.is_passing(path)
    with hold_lock(path.with_name(f"{path.name}.lock")):
        Cache(cache_folder(), SilentProgress()).gc()
        assert path.exists()
    tarballs.keep(path, "docker")
    Cache(cache_folder(), SilentProgress()).gc()
    assert path.exists()
    tarballs.write_record(path, path.stat(), "docker", passing=True)
    Cache(cache_folder(), SilentProgress()).gc()
    assert left() == []


def test_clear_removes_everything() -> None:
    add(entries_in(cache_folder()), "app:1")
    tarball()
    size = sum(it.stat().st_size for it in tarballs.cache_folder().rglob("*") if it.is_file() and not it.is_symlink())
    assert Cache(cache_folder(), SilentProgress()).clear() == size
    assert left() == []
    assert Cache(cache_folder(), SilentProgress()).list() == ()


def test_a_name_that_is_half_there_is_no_name() -> None:
    """Its process was killed between the link to the archive and that to the metadata."""
    entries = entries_in(cache_folder())
    add(entries, "app:1")
    (entries.root / "images" / "app%3A1.tar_meta.json").unlink()
    assert [(it.names, it.usable) for it in Cache(cache_folder(), SilentProgress()).list()] == [((), False)]
    Cache(cache_folder(), SilentProgress()).gc()
    assert left() == []


def test_gc_leaves_what_is_added_meanwhile() -> None:
    """What was seen without a name may have got one since."""
    entries = entries_in(cache_folder())
    seen = Cache(cache_folder(), SilentProgress())
    for link in add(entries, "app:1").path.parent.glob("images/*"):
        link.unlink()
    kept = seen.list()
    seen.list = lambda: kept  # type: ignore[method-assign]
    add(entries, "app:1")
    seen.gc()
    assert entries.query("app:1") is not None


def test_an_image_that_is_being_staged_stays() -> None:
    entries = entries_in(cache_folder())
    add(entries, "app:1")
    with entries.fetching(APP.parsed.digest):
        Cache(cache_folder(), SilentProgress()).clear()
    assert entries.query("app:1") is not None


def test_what_an_interrupted_run_sent_is_forgotten_when_it_is_old() -> None:
    path = tarballs.cache_folder() / f"{SAVED.parsed.digest}.zzzzz-tpzed-000000000000000.blocks"
    path.write_text("a line\n")
    Cache(cache_folder(), SilentProgress()).gc()
    Cache(cache_folder(), SilentProgress()).gc(older_than=1000)
    assert path.exists()
    assert Cache(cache_folder(), SilentProgress()).clear() == len("a line\n")
    assert left() == []


def test_what_was_learned_of_layers_is_forgotten_when_it_is_old() -> None:
    layer, there = Digest.of(b"layer"), "registry.example/app"
    LayerTable(tarballs.cache_folder()).note(layer, 5)
    KnownBlobs(tarballs.cache_folder()).note(layer, Descriptor(OCI_LAYER, layer, 5), there)
    Cache(cache_folder(), SilentProgress()).gc()
    Cache(cache_folder(), SilentProgress()).gc(older_than=1000)
    assert LayerTable(tarballs.cache_folder()).size(layer) == 5
    assert KnownBlobs(tarballs.cache_folder()).of(layer) is not None
    assert Cache(cache_folder(), SilentProgress()).clear() > 200
    assert left() == []

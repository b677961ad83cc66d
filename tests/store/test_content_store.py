# SPDX-License-Identifier: Apache-2.0
"""The cache by content: what is trusted, what is handed out, and what goes when."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from arv_docker.errors import DigestMismatch, DiskError
from arv_docker.local import disk
from arv_docker.model.image import Digest
from arv_docker.store.content_store import Entries, Entry, metadata_path
from arv_docker.store.filenames import cwl, nextflow
from arv_docker.store.metadata import Metadata, record_of, signature_of

from ..archives import Image, canonical_archive, files_of, image

APP = image(files_of(b"app"), os="linux", architecture="amd64")
OTHER = image(files_of(b"other"), os="linux", architecture="amd64")


def both(name: str) -> list[str]:
    return [cwl(name), nextflow(name)]


@pytest.fixture
def entries(tmp_path: Path) -> Entries:
    return Entries(tmp_path / "cache", "names", both)


def add(entries: Entries, name: str, made: Image = APP) -> Entry:
    def describe(archive: Digest) -> Metadata:
        return Metadata(made.parsed.digest, archive, record_of(made.parsed, 1))

    content = canonical_archive(made)
    with entries.fetching(made.parsed.digest):
        return entries.update(name, iter([content[:700], content[700:]]), len(content), made.parsed.digest, describe)


def files(entries: Entries) -> list[str]:
    return sorted(it.name for it in entries.root.iterdir() if not it.is_dir())


def content_name(made: Image) -> str:
    return signature_of(Digest.of(canonical_archive(made))).replace("=", "~").replace("/", "-").replace("+", "_")


@pytest.mark.conforms("W3", "W4")
def test_a_new_entry(entries: Entries) -> None:
    entry = add(entries, "docker://quay.io/a/b:1")
    name = content_name(APP)
    assert files(entries) == [name, f"{name}_meta.json"]
    assert (entries.root / name).read_bytes() == canonical_archive(APP)
    links = {it.name: str(it.readlink()) for it in (entries.root / "names").iterdir()}
    assert links == {
        f"{it}{more}": f"../{name}{more}"
        for it in ("docker:__quay.io_a_b:1.img", "quay.io-a-b-1.img")
        for more in ("", "_meta.json")
    }
    assert entries.query("docker://quay.io/a/b:1") == entry
    assert entries.by_image(APP.parsed.digest) == entry
    assert entries.query("b:2") is None
    assert entries.by_image(OTHER.parsed.digest) is None


@pytest.mark.conforms("W6")
@pytest.mark.parametrize(
    "spoil",
    [
        lambda root, link, meta: link.unlink(),
        lambda root, link, meta: (link.parent / f"{link.name}_meta.json").unlink(),
        lambda root, link, meta: (root / "names" / "b-1.img").unlink(),
        lambda root, link, meta: meta.unlink(),
        lambda root, link, meta: meta.write_text("{"),
        lambda root, link, meta: meta.write_bytes(b"\xff"),
        lambda root, link, meta: meta.write_text("[" * 100_000),
        lambda root, link, meta: meta.write_text(json.dumps(json.loads(meta.read_text()))),
        lambda root, link, meta: (link.unlink(), link.write_bytes(canonical_archive(APP))),
        lambda root, link, meta: (link.unlink(), link.symlink_to(root.parent / "outside")),
        lambda root, link, meta: (link.unlink(), link.symlink_to("../../outside")),
        lambda root, link, meta: (link.unlink(), link.symlink_to(link.name)),
        lambda root, link, meta: (root / content_name(APP)).unlink(),
        lambda root, link, meta: (root / content_name(APP)).rename(root / content_name(OTHER)),
        lambda root, link, meta: shutil.rmtree(root),
    ],
)
def test_what_does_not_agree_is_not_trusted(entries: Entries, spoil: object) -> None:
    add(entries, "b:1")
    (entries.root.parent / "outside").write_bytes(canonical_archive(APP))
    assert callable(spoil)
    spoil(entries.root, entries.root / "names" / "b:1.img", entries.root / f"{content_name(APP)}_meta.json")
    assert entries.query("b:1") is None


@pytest.mark.conforms("W6")
def test_metadata_of_another_archive_is_not_trusted(entries: Entries) -> None:
    one, two = add(entries, "b:1"), add(entries, "c:1", OTHER)
    shutil.copy(metadata_path(two.path), metadata_path(one.path))
    assert entries.query("b:1") is None
    assert entries.query("c:1") == two


@pytest.mark.conforms("W7")
def test_a_flipped_byte_is_never_handed_out(entries: Entries, tmp_path: Path) -> None:
    entry = add(entries, "b:1")
    whole, chance = entry.path.read_bytes(), random.Random(1)
    for _ in range(50):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] ^= chance.randrange(1, 256)
        entry.path.chmod(0o644)
        entry.path.write_bytes(damaged)
        with pytest.raises(DigestMismatch):
            entries.check(entry)
        with pytest.raises(DigestMismatch):
            entries.transfer("b:1", tmp_path / "staged")
    assert not (tmp_path / "staged").exists()


@pytest.mark.conforms("W8")
def test_a_transfer_is_a_hard_link(entries: Entries, tmp_path: Path) -> None:
    entry = add(entries, "b:1")
    paths = entries.transfer("b:1", tmp_path / "staged")
    assert paths == (tmp_path / "staged" / "b:1.img", tmp_path / "staged" / "b-1.img")
    assert {it.stat().st_ino for it in paths} == {entry.path.stat().st_ino}
    assert entries.transfer("b:2", tmp_path / "staged") is None


@pytest.mark.conforms("W8")
def test_without_hard_links_it_is_a_copy(entries: Entries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    entry = add(entries, "b:1")
    monkeypatch.setattr(os, "link", link)
    (path,) = entries.transfer("b:1", tmp_path / "staged", names=["x"]) or ()
    assert path.read_bytes() == canonical_archive(APP)
    assert path.stat().st_ino != entry.path.stat().st_ino
    assert [it.name for it in path.parent.iterdir()] == ["x"]


def test_without_symbolic_links_there_is_no_cache(entries: Entries, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(Path, "symlink_to", refused)
    with pytest.raises(DiskError, match="no symbolic links"):
        add(entries, "app:1")
    assert [it.name for it in entries.root.iterdir() if it.is_file()] == []


def test_a_disk_that_is_full_when_only_metadata_are_missing(
    entries: Entries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "second").mkdir()
    entry = add(Entries(tmp_path / "second", "names", both), "app:1")

    def full(*_: object) -> None:
        raise DiskError("no room")

    monkeypatch.setattr("arv_docker.store.content_store.write_file", full)
    with pytest.raises(DiskError):
        add(entries, "app:1")
    with pytest.raises(DiskError):
        entries.adopt("app:1", entry)
    assert [it.name for it in entries.root.iterdir() if it.is_file()] == []


def test_a_copy_that_changes_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", link)
    (tmp_path / "source").write_bytes(b"changed")
    (tmp_path / "target").write_bytes(b"before")
    with pytest.raises(DigestMismatch):
        disk.link_or_copy(tmp_path / "source", tmp_path / "target", Digest.of(b"expected"))
    assert sorted(it.name for it in tmp_path.iterdir()) == ["source", "target"]
    assert (tmp_path / "target").read_bytes() == b"before"


@pytest.mark.conforms("W8")
def test_what_is_there_stays_unless_forced(entries: Entries, tmp_path: Path) -> None:
    add(entries, "b:1")
    (tmp_path / "x").write_bytes(b"mine")
    entries.transfer("b:1", tmp_path, names=["x"])
    assert (tmp_path / "x").read_bytes() == b"mine"
    for _ in range(2):
        entries.transfer("b:1", tmp_path, names=["x"], force=True)
        assert (tmp_path / "x").read_bytes() == canonical_archive(APP)
    assert sorted(it.name for it in tmp_path.iterdir()) == ["cache", "x"]


@pytest.mark.conforms("W9")
def test_content_goes_with_its_last_name(entries: Entries) -> None:
    add(entries, "a:1")
    entry = add(entries, "b:1")
    assert len(files(entries)) == 2
    assert entries.invalidate("b:1")
    assert entries.query("a:1") == entry
    assert entries.query("b:1") is None
    assert not entries.invalidate("b:1")
    assert entries.invalidate("a:1")
    assert files(entries) == []


@pytest.mark.conforms("W9")
def test_another_group_counts_too(entries: Entries) -> None:
    entry = add(entries, "a:1")
    others = Entries(entries.root, "others", lambda name: [name])
    others.adopt("a:1", entry)
    assert entries.invalidate("a:1")
    assert others.query("a:1") == entry


@pytest.mark.conforms("W10")
def test_a_name_with_new_content(entries: Entries) -> None:
    add(entries, "b:1")
    new = add(entries, "b:1", OTHER)
    assert files(entries) == [new.path.name, f"{new.path.name}_meta.json"]
    assert entries.query("b:1") == new


def test_an_archive_of_another_cache(entries: Entries, tmp_path: Path) -> None:
    entry = add(entries, "b:1")
    other = Entries(tmp_path / "second", "names", both)
    adopted = other.adopt("b:1", entry)
    assert other.query("b:1") == adopted
    assert adopted.path.stat().st_ino == entry.path.stat().st_ino


def test_what_fails_halfway_leaves_everything_as_it_was(entries: Entries) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt

    entry = add(entries, "b:1")
    image_id = OTHER.parsed.digest
    with pytest.raises(KeyboardInterrupt), entries.fetching(image_id):
        entries.update("b:1", chunks(), 10, image_id, lambda archive: entry.metadata)
    assert entries.query("b:1") == entry
    assert len(files(entries)) == 2


@pytest.mark.conforms("W25")
def test_many_change_it_at_once(entries: Entries) -> None:
    def work(number: int) -> None:
        mine = Entries(entries.root, "names", both)
        for turn in range(5):
            add(mine, f"b:{(number + turn) % 3}", (APP, OTHER)[turn % 2])
            mine.invalidate(f"b:{number % 3}")

    threads = [threading.Thread(target=work, args=(it,)) for it in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(3):
        if (entry := entries.query(f"b:{number}")) is not None:
            entries.check(entry)
        entries.invalidate(f"b:{number}")
    assert files(entries) == []
    assert list((entries.root / "names").iterdir()) == []

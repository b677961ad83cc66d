# SPDX-License-Identifier: Apache-2.0
"""Blocks as files."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arv_docker.site.store.blocks import PIECE, STALE_SECONDS, BlockStore, Collision, DamagedBlock, Totals, WrongContent

#: Two blocks of one MD5 (Wang and others, 2004): they differ in the highest bit of six bytes.
ONE_TWIN = bytes.fromhex(
    "d131dd02c5e6eec4693d9a0698aff95c2fcab58712467eab4004583eb8fb7f89"
    "55ad340609f4b30283e488832571415a085125e8f7cdc99fd91dbdf280373c5b"
    "d8823e3156348f5bae6dacd436c919c6dd53e2b487da03fd02396306d248cda0"
    "e99f33420f577ee8ce54b67080a80d1ec69821bcb6a8839396f9652b6ff72a70"
)
OTHER_TWIN = bytes(byte ^ 0x80 if place in (19, 45, 59, 83, 109, 123) else byte for place, byte in enumerate(ONE_TWIN))


@pytest.fixture
def store(tmp_path: Path) -> BlockStore:
    """An empty store."""
    found = BlockStore(tmp_path / "blocks")
    found.prepare()
    return found


def put(store: BlockStore, data: bytes, name: str | None = None) -> str:
    """Store ``data`` under its MD5, or under another name."""
    md5 = name or hashlib.md5(data).hexdigest()
    incoming = store.receive(md5)
    incoming.write(data)
    incoming.commit()
    return md5


def files(store: BlockStore) -> list[str]:
    """Every file in the store."""
    return sorted(path.name for path in store.root.rglob("*") if path.is_file())


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 3))
def test_what_goes_in_comes_out(tmp_path_factory: pytest.TempPathFactory, seed: bytes, mebibytes: int) -> None:
    store = BlockStore(tmp_path_factory.mktemp("site") / "blocks")
    store.prepare()
    data = seed + bytes(mebibytes * PIECE)
    md5 = put(store, data)
    assert b"".join(store.pieces(md5)) == data
    assert store.size(md5) == len(data)
    assert store.totals() == Totals(1, len(data))
    assert files(store) == [md5]


def test_wrong_content_leaves_nothing(store: BlockStore) -> None:
    with pytest.raises(WrongContent):
        put(store, b"hello", "0" * 32)
    assert files(store) == []


def test_a_discarded_block_leaves_nothing(store: BlockStore) -> None:
    incoming = store.receive("0" * 32)
    incoming.write(b"x")
    incoming.discard()
    assert files(store) == []


def test_a_second_put_touches_and_does_not_rewrite(store: BlockStore) -> None:
    md5 = put(store, b"hello")
    place = store.path(md5)
    inode = place.stat().st_ino
    os.utime(place, (1, 1))
    put(store, b"hello")
    assert place.stat().st_ino == inode
    assert time.time() - place.stat().st_mtime < 60
    assert files(store) == [md5]


@pytest.mark.parametrize("damage", [b"", b"hell", b"hellO", b"hello!"])
def test_a_damaged_block_is_not_served_and_a_good_put_repairs_it(store: BlockStore, damage: bytes) -> None:
    md5 = put(store, b"hello")
    store.path(md5).write_bytes(damage)
    with pytest.raises(DamagedBlock):
        store.verify(md5)
    with pytest.raises(DamagedBlock):
        list(store.pieces(md5))
    put(store, b"hello")
    assert b"".join(store.pieces(md5)) == b"hello"


def test_of_a_damaged_large_block_the_last_piece_never_comes(store: BlockStore) -> None:
    data = bytes(3 * PIECE)
    md5 = put(store, data)
    store.path(md5).write_bytes(b"x" + data[1:])
    pieces = store.pieces(md5)
    assert next(pieces) + next(pieces) == b"x" + data[1 : 2 * PIECE]
    with pytest.raises(DamagedBlock):
        next(pieces)


def test_an_md5_twin_does_not_replace_a_good_block(store: BlockStore) -> None:
    md5 = put(store, ONE_TWIN)
    assert hashlib.md5(OTHER_TWIN).hexdigest() == md5
    with pytest.raises(Collision):
        put(store, OTHER_TWIN)
    assert b"".join(store.pieces(md5)) == ONE_TWIN
    assert files(store) == [md5]


def test_only_old_temporary_files_are_cleaned_away(store: BlockStore) -> None:
    md5 = put(store, b"hello")
    old, young = (store.path(md5).with_name(f"tmp-{md5}-{name}") for name in ("old", "young"))
    old.write_bytes(b"x")
    young.write_bytes(b"x")
    os.utime(old, (time.time() - STALE_SECONDS - 10,) * 2)
    os.utime(store.path(md5), (1, 1))
    BlockStore(store.root).prepare()
    assert files(store) == sorted([md5, young.name])


def test_a_block_is_synced_before_its_name_appears(store: BlockStore, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def watched_fsync(descriptor: int) -> None:
        kind = "folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file"  # noqa: PTH112
        events.append(f"sync {kind}")
        fsync(descriptor)

    def watched_replace(self: Path, target: Path) -> Path:
        events.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    put(store, b"hello")
    assert events == ["sync folder", "sync file", "rename", "sync folder"]
    del events[:]
    put(store, b"hello")
    assert events == ["sync file", "sync folder"]

# SPDX-License-Identifier: Apache-2.0
"""The cache as it is passed on: made when it is needed, and none where nobody names one."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from arv_docker.errors import DiskError
from arv_docker.model.image import Descriptor, Digest
from arv_docker.store.cache import NO_CACHE, CacheFolder

LAYER = Digest.of(b"layer")
BLOB = Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", Digest.of(b"compressed"), 10)


def test_the_folder_is_made_when_it_is_needed(tmp_path: Path) -> None:
    def make() -> Path:
        (tmp_path / "cache").mkdir()
        return tmp_path / "cache"

    cache = CacheFolder(make)
    assert not (tmp_path / "cache").exists()
    assert cache.path == tmp_path / "cache"


def test_what_is_noted_is_there_for_the_next_run(tmp_path: Path) -> None:
    CacheFolder.at(tmp_path).layer_table().note(LAYER, 5, BLOB.digest)
    CacheFolder.at(tmp_path).known_blobs().note(LAYER, BLOB, "host/app")
    again = CacheFolder.at(tmp_path)
    assert (again.layer_table().size(LAYER), again.layer_table().diff_id(BLOB.digest)) == (5, LAYER)
    known = again.known_blobs().of(LAYER)
    assert known is not None
    assert (known.descriptor, known.places) == (BLOB, ("host/app",))


def test_without_a_cache_nothing_is_remembered_and_what_needs_room_is_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    NO_CACHE.layer_table().note(LAYER, 5)
    NO_CACHE.known_blobs().note(LAYER, BLOB, "host/app")
    assert NO_CACHE.layer_table().size(LAYER) is None
    assert NO_CACHE.known_blobs().of(LAYER) is None
    assert list(tmp_path.iterdir()) == []
    assert NO_CACHE.path.parent == tmp_path
    assert NO_CACHE.path.stat().st_mode & 0o777 == 0o700
    folder = NO_CACHE.path
    folder.chmod(0o777)
    with pytest.raises(DiskError, match="set TMPDIR to a folder of your own"):
        _ = NO_CACHE.path
    folder.rename(tmp_path / "elsewhere").chmod(0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DiskError, match=r"is a link, and not used\. Remove it, or set TMPDIR"):
        _ = NO_CACHE.path


def test_a_cache_that_cannot_be_made_gives_an_empty_table_and_says_so_where_room_is_needed() -> None:
    def refuse() -> Path:
        raise DiskError("no room")

    cache = CacheFolder(refuse)
    assert cache.layer_table().size(LAYER) is None
    with pytest.raises(DiskError, match="no room"):
        _ = cache.path

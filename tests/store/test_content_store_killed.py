# SPDX-License-Identifier: Apache-2.0
"""The cache by content, when a process that changes it is killed at any moment."""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from arv_docker.local.progress import SilentProgress
from arv_docker.maintenance import Cache
from arv_docker.model.image import Digest
from arv_docker.store.content_store import entries_in
from arv_docker.store.metadata import Metadata, record_of
from arv_docker.store.tarballs import cache_folder

from ..archives import Image, canonical_archive, files_of, image
from ..real import dying

OLD = image(files_of(b"common"), files_of(b"old"), os="linux")
NEW = image(files_of(b"common"), files_of(b"new"), os="linux")
_PIECE = 700


def update(name: str, made: Image) -> int:
    """Makes the image's archive the content of the name, which comes in pieces."""
    entries, content, image_id = entries_in(cache_folder()), canonical_archive(made), made.parsed.digest

    def described(archive: Digest) -> Metadata:
        return Metadata(image_id, archive, record_of(made.parsed, 1))

    with entries.fetching(image_id):
        pieces = [content[start : start + _PIECE] for start in range(0, len(content), _PIECE)]
        entries.update(name, pieces, len(content), image_id, described)
    return 0


def named(name: str) -> Digest | None:
    """The image that the name means, its archive read and found to be right."""
    entries = entries_in(cache_folder())
    entry = entries.query(name)
    if entry is not None:
        entries.check(entry)
    return entry.metadata.image_id if entry else None


def files() -> list[str]:
    folder = cache_folder()
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def collected() -> None:
    """After `gc` everything serves, under each of its names."""
    cache = Cache(cache_folder(), SilentProgress())
    cache.gc()
    assert [problem for _, problem in cache.verify() if problem] == []
    for kept in cache.list():
        assert {named(unquote(name.removesuffix(".tar"))) for name in kept.names} == {kept.image_id}


@pytest.mark.parametrize("times", [10, pytest.param(50, marks=pytest.mark.long)])
def test_a_name_that_gets_other_content(times: int) -> None:
    """The old content is another name's, too."""
    old, new = OLD.parsed.digest, NEW.parsed.digest

    def begin() -> None:
        Cache(cache_folder(), SilentProgress()).clear()
        assert files() == []
        update("app:1", OLD)
        update("other:1", OLD)

    def work() -> int:
        return update("app:1", NEW)

    begin()
    moments = dying.moments(work, times)
    expected = files()
    assert [name for name in expected if "lock" in name or "partial" in name or ".new" in name] == []
    left = set()
    for number in moments:
        begin()
        assert dying.killed(work, number)
        left.add(named("app:1"))
        assert named("app:1") in (old, new, None), f"killed at {number}"
        assert named("other:1") == old, f"killed at {number}"
        if number % 2:  # else the next run meets all that was left
            collected()
            assert named("other:1") == old, f"killed at {number}"
        assert dying.ended(work)[0] == 0
        assert (named("app:1"), named("other:1")) == (new, old)
        collected()
        assert files() == expected, f"killed at {number}"
    assert {old, new} <= left

# SPDX-License-Identifier: Apache-2.0
"""`arv-docker cache`: what is printed, and exit codes."""

from __future__ import annotations

import json

from arv_docker.store.content_store import entries_in
from arv_docker.store.tarballs import cache_folder

from ..store.test_content_store import APP, OTHER, add
from ..test_maintenance import tarball
from .conftest import Run


def test_an_empty_cache(run: Run) -> None:
    assert run("cache", "list").out.splitlines()[-1] == "0 in all, 0 bytes"
    assert json.loads(run("cache", "list", "--json").out) == []
    for command in ("verify", "gc", "clear"):
        assert run("cache", command).code == 0


def test_the_listing(run: Run) -> None:
    add(entries_in(cache_folder()), "quay.io/a/b:1")
    tarball()
    out = run("cache", "list").out
    assert APP.parsed.digest.short_hex in out
    assert "quay.io/a/b:1" in out
    assert "just now" in out
    assert "2 in all" in out
    found = {it["kind"]: it for it in json.loads(run("cache", "list", "--json").out)}
    assert found["image"]["names"] == ["quay.io/a/b:1"]
    assert found["image"]["image_id"] == str(APP.parsed.digest)
    assert found["tarball"]["usable"] is True


def test_verify_and_gc(run: Run) -> None:
    entry = add(entries_in(cache_folder()), "app:1")
    add(entries_in(cache_folder()), "other:1", OTHER)
    assert run("cache", "verify").code == 0
    entry.path.chmod(0o644)
    entry.path.write_bytes(b"changed")
    bad = run("cache", "verify")
    assert bad.code == 5
    assert sorted(line.split()[0] for line in bad.out.splitlines()) == ["BAD", "ok"]
    assert "1 of 2 archives" in bad.err
    assert {it["problem"] == "" for it in json.loads(run("cache", "verify", "--json").out)} == {True, False}
    assert "removed" in run("cache", "gc", "--older-than", "0").out
    assert json.loads(run("cache", "clear", "--json").out) == {"removed_bytes": 0}


def test_bad_numbers_of_days(run: Run) -> None:
    assert run("cache", "gc", "--older-than", "-1").code == 2

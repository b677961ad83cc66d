# SPDX-License-Identifier: Apache-2.0
"""Every verb that prints a table, on a terminal of 80 columns, where only a word that is longer makes a longer line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from arv_docker.cli import tables
from arv_docker.store.content_store import entries_in
from arv_docker.store.tarballs import cache_folder

from ..archives import classic, files_of, image
from ..arvados.fake_api import OTHER, FakeApi
from ..registry.conftest import registry
from ..registry.scripted import Registry
from ..store.test_content_store import add
from ..transports.fake_engine import FakeEngine
from .conftest import Run

__all__ = ["registry"]

LONG = "registry.example/a/very/long/path/of/a/repository:with-a-long-tag-of-its-own-too"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes what commands print go to a terminal of 80 columns."""

    def begin() -> None:
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        monkeypatch.setenv("TERM", "dumb")

    return begin


@pytest.fixture
def stocked(
    api: FakeApi, engine: FakeEngine, run: Run, tmp_path: Path, terminal: Callable[[], None]
) -> Callable[..., list[str]]:
    """Runs a verb where there is an image of a long name; returns the lines of both streams."""
    made = image(files_of(b"a"), files_of(b"b" * 2_000_000), os="linux", created="2024-01-02T03:04:05Z")
    (tmp_path / "x.tar").write_bytes(classic(made))
    assert run("ingest", "app:1", "--as", LONG).code == 0
    for collection in api.records["collections"].values():
        collection["file_size_total"] = 150_000_000
        api.link(collection, "docker_image_repo+tag", LONG, modified_by_user_uuid=OTHER)
    add(entries_in(cache_folder()), LONG)
    folder = tmp_path / "folder"
    assert run("folder", "update", "--dir", str(folder), "app", "1").code == 0
    (archive,) = folder.iterdir()
    archive.rename(folder / archive.name.replace("app_1", f"{'web-' * 30}_{'1.' * 30}0"))

    def lines(*arguments: str) -> list[str]:
        terminal()
        done = run(*(text.format(folder=folder, archive=tmp_path / "x.tar") for text in arguments))
        assert done.code == 0, done.err
        return [*done.out.splitlines(), *done.err.splitlines()]

    return lines


@pytest.mark.parametrize(
    "arguments",
    [
        ["images"],
        ["cache", "list"],
        ["folder", "list", "--dir", "{folder}"],
        ["folder", "latest", "--dir", "{folder}"],
        ["resolve", "--explain", LONG],
        ["inspect", LONG],
        ["inspect", "docker-archive:{archive}"],
        ["status", LONG],
    ],
    ids=" ".join,
)
def test_a_table_fits_80_columns(stocked: Callable[..., list[str]], arguments: list[str]) -> None:
    lines = [line for line in stocked(*arguments) if not line.startswith("warning: ")]  # which is prose
    assert len(lines) > 1
    assert [line for line in lines if len(line) > 80 and len(line.split()) > 1] == []
    assert not any(line.split()[0] in ("MB", "kB", "bytes") for line in lines if line), "a size is broken"
    wide = [] if arguments[0] == "inspect" and "archive" in arguments[-1] else ["--wide"]
    assert not wide or max(map(len, stocked(*arguments, *wide))) > 80


def test_images_show_sizes_and_short_writers(stocked: Callable[..., list[str]]) -> None:
    head, *rows = stocked("images")[:2]
    assert head.split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE", "BY"]
    assert rows[0].endswith(("150.0 MB  me", f"150.0 MB  …{OTHER[-5:]}"))
    assert "…" in rows[0]


def test_lists_of_a_registry_are_a_name_a_line(run: Run, registry: Registry, terminal: Callable[[], None]) -> None:
    registry.put_manifest("app", LONG.rpartition(":")[2], b"{}")
    terminal()
    for arguments in (["images", registry.host], ["repos", registry.host], ["tags", registry.host, "app"]):
        done = run("registry", arguments[0], "--insecure", *arguments[1:])
        assert (done.code, bool(done.out)) == (0, True), done.err
        assert all(len(line.split()) == 1 for line in done.out.splitlines()), done.out


def test_a_size_is_not_broken() -> None:
    line = f"{'x' * 60}  {'y' * 12} 150.0 MB"
    assert list(tables.fill_lines([line], 80)) == [f"{'x' * 60}  {'y' * 12}\n    150.0 MB"]
    assert list(tables.fill_lines(["w" * 100], 80)) == ["w" * 100]
    assert list(tables.fill_lines([line], None)) == [line]

# SPDX-License-Identifier: Apache-2.0
"""`arv-docker ingest` of archives and layouts of every form: one image is one collection, whatever it came in."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import zstandard

from ..archives import (
    canonical_archive,
    classic,
    containerd,
    files_of,
    flat,
    hybrid,
    image,
    layout,
    layout_files,
    several,
)
from ..arvados.fake_api import FakeApi
from .conftest import Run

APP = image(files_of(b"low" * 10_000), files_of(b"high"), files_of(b"low" * 10_000), os="linux", architecture="amd64")
OTHER = image(files_of(b"other"), os="linux", architecture="amd64")
ZSTD: Callable[[bytes], bytes] = zstandard.ZstdCompressor().compress


def zipped(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("app.tar", content)
    return stream.getvalue()


FORMS: dict[str, bytes] = {
    "Docker 20": classic(APP),
    "Docker 25": hybrid(APP),
    "containerd store, gzip": containerd(APP),
    "containerd store, zstd": containerd(APP, compress=ZSTD),
    "podman": flat(APP),
    "oci-archive": layout(APP),
    "canonical": canonical_archive(APP),
    "in gzip": gzip.compress(classic(APP)),
    "in xz": lzma.compress(classic(APP)),
    "in bzip2": bz2.compress(containerd(APP)),
    "in zstd": ZSTD(containerd(APP)),
    "in zip": zipped(containerd(APP)),
}


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Puts bytes on standard input."""
    return lambda content: monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))


@pytest.mark.conforms("K19", "K20", "W20")
@pytest.mark.parametrize("command", ["ingest", "arv-keepdocker"])
def test_every_form_is_one_collection(run: Run, api: FakeApi, tmp_path: Path, command: str) -> None:
    found = set()
    for number, content in enumerate(FORMS.values()):
        (tmp_path / f"{number}.tar").write_bytes(content)
        outcome = run(command, "--force", "--from-archive", str(tmp_path / f"{number}.tar"), "app:1")
        assert outcome.code == 0, outcome.err
        found.add(outcome.out)
    assert len(found) == 1


@pytest.mark.parametrize("form", [name for name in FORMS if name != "in zip"])
def test_from_a_pipe(run: Run, api: FakeApi, tmp_path: Path, pipe: Callable[[bytes], None], form: str) -> None:
    (tmp_path / "app.tar").write_bytes(classic(APP))
    pipe(FORMS[form])
    first = run("ingest", "docker-archive:-", "--as", "app:1")
    assert first.code == 0, first.err
    again = run("ingest", "--from-archive", str(tmp_path / "app.tar"), "app:1")
    assert again.out == first.out
    assert "already stored" in again.err
    pipe(FORMS[form])
    third = run("ingest", "docker-archive:-", "--as", "other:2")
    assert third.out == first.out
    assert "already stored" in third.err


def test_a_piped_image_has_the_name_that_its_archive_gives_it(
    run: Run, api: FakeApi, pipe: Callable[[bytes], None]
) -> None:
    pipe(gzip.compress(several((APP, ["app:1"]), (OTHER, ["other:2"]))))
    assert run("ingest", "docker-archive:-:other:2").code == 0
    assert run("resolve", "other:2").code == 0
    assert run("resolve", "app:1").code == 1
    pipe(several((APP, ["app:1"]), (OTHER, ["other:2"])))
    refused = run("ingest", "docker-archive:-")
    assert refused.code == 5
    assert "app:1" in refused.err


def test_a_broken_pipe_leaves_no_collection(run: Run, api: FakeApi, pipe: Callable[[bytes], None]) -> None:
    for content in (
        classic(APP)[:20_000],
        gzip.compress(classic(APP))[:-5],
        gzip.compress(classic(APP)) + b"x",
        zipped(b""),
    ):
        pipe(content)
        assert run("ingest", "docker-archive:-", "--as", "app:1").code == 5
    assert run("resolve", "app:1").code == 1


def test_a_plan_needs_a_file(run: Run, api: FakeApi, pipe: Callable[[bytes], None]) -> None:
    pipe(classic(APP))
    refused = run("ingest", "--dry-run", "docker-archive:-")
    assert refused.code == 2
    assert "save it to a file" in refused.err


def test_layouts_in_folders(run: Run, api: FakeApi, tmp_path: Path) -> None:
    for name, compress in (("plain", None), ("gzip", gzip.compress), ("zstd", ZSTD)):
        for path, content in layout_files(APP, "app:1", compress).items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_bytes(content)
    found = {run("ingest", "--force", f"oci:{tmp_path}/{name}:app:1").out for name in ("plain", "gzip", "zstd")}
    assert len(found) == 1
    assert run("resolve", "app:1").code == 0


@pytest.mark.conforms("K19")
def test_two_images_are_named_and_one_can_be_chosen(run: Run, api: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "two.tar").write_bytes(several((APP, ["app:1"]), (OTHER, ["other:2"])))
    refused = run("ingest", "--from-archive", str(tmp_path / "two.tar"))
    assert refused.code == 5
    assert "app:1" in refused.err
    assert "other:2" in refused.err
    assert run("ingest", f"docker-archive:{tmp_path}/two.tar:other:2").code == 0
    assert run("resolve", "other:2").code == 0

# SPDX-License-Identifier: Apache-2.0
"""`docker-archive:`: files that can be read, and what else may stand where a file should."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from arv_docker.errors import BadArchive, ContentError
from arv_docker.reference import parse_name
from arv_docker.transports import SeekableImage
from arv_docker.transports.docker_archive import ArchiveFile, LocalFile
from tests.archives import classic, files_of, image, several

APP, OTHER = image(files_of(b"app"), os="linux"), image(files_of(b"other"))


def test_an_archive_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "app.tar").write_bytes(classic(APP))
    with ArchiveFile(tmp_path / "app.tar").open() as found:
        assert isinstance(found, SeekableImage)
        assert found.config == APP.parsed
        (layer,) = found.layers()
        assert layer.read() == APP.layers[0]


def test_one_of_several_images(tmp_path: Path) -> None:
    (tmp_path / "two.tar").write_bytes(several((APP, ["app:1"]), (OTHER, ["other:1"])))
    with ArchiveFile(tmp_path / "two.tar", parse_name("other:1")).open() as found:
        assert found.config == OTHER.parsed


def _folder(path: Path) -> None:
    path.mkdir()


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/null")


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _nothing(path: Path) -> None:
    pass


@pytest.mark.parametrize("make", [_folder, _fifo, _device, _dangling, _nothing, Path.touch])
def test_what_is_no_file_with_an_archive(tmp_path: Path, make: object) -> None:
    path = tmp_path / "app.tar"
    assert callable(make)
    make(path)
    with pytest.raises(ContentError), ArchiveFile(path).open():
        pass


def test_a_pipe_says_what_to_do(tmp_path: Path) -> None:
    _fifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: os.close(os.open(tmp_path / "pipe", os.O_RDWR)))
    writer.start()
    with pytest.raises(BadArchive, match="no regular file"), ArchiveFile(tmp_path / "pipe").open():
        pass
    writer.join(10)


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(b"x" * 1000)
    (tmp_path / "good.tar").write_bytes(classic(APP))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name in ("bad.tar", "good.tar"):
        try:
            with ArchiveFile(tmp_path / name).open():
                pass
        except BadArchive:
            assert name == "bad.tar"
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_reads_are_whole_though_the_system_gives_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux reads at most 2 GiB at once."""
    (tmp_path / "file").write_bytes(bytes(range(100)))
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, length, offset: pread(descriptor, min(length, 7), offset))
    with (tmp_path / "file").open("rb") as opened:
        file = LocalFile(opened.fileno())
        assert file.size == 100
        assert file.read_at(10, 50) == bytes(range(10, 60))
        assert file.read_at(90, 50) == bytes(range(90, 100))
        assert file.read_at(100, 50) == b""

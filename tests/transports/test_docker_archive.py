# SPDX-License-Identifier: Apache-2.0
"""`docker-archive:`: files that can be read, and what else may stand where a file should."""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from arv_docker.archive.codecs.whole_archive import unwrapped_stream
from arv_docker.archive.layer import Layer
from arv_docker.errors import BadArchive, ContentError, DigestMismatch, DiskError, UsageError
from arv_docker.model.image import Digest
from arv_docker.model.reference import parse_name
from arv_docker.transports import Destination, SeekableImage, Source, names
from arv_docker.transports.docker_archive import ArchiveFile
from arv_docker.transports.local import LocalFile

from ..archives import END, canonical_archive, classic, files_of, image, member, pax, several
from .contract import Contract, opened


class TestFile(Contract):
    remembers = False

    def places(self, tmp_path: Path) -> tuple[Destination[Any], Source]:
        return names.destination(f"docker-archive:{tmp_path}/x.tar"), names.source(f"docker-archive:{tmp_path}/x.tar")


NINE_GIGABYTES = 9 << 30

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


def test_lz4_is_told_as_that(tmp_path: Path) -> None:
    """In a file and piped in; no engine reads it either."""
    content = bytes.fromhex("04224d18607073") + classic(APP)
    (tmp_path / "app.tar").write_bytes(content)
    with pytest.raises(BadArchive, match=r"compressed with lz4.*lz4 -d"), ArchiveFile(tmp_path / "app.tar").open():
        pass
    with pytest.raises(BadArchive, match=r"compressed with lz4.*lz4 -d"):
        unwrapped_stream(io.BytesIO(content))


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


# -- written ----------------------------------------------------------------------------


def written(tmp_path: Path, rest: str = "app.tar") -> Any:
    return names.destination(f"docker-archive:{tmp_path}/{rest}").write(opened(APP), lambda _: None)


def test_the_canonical_archive_is_written(tmp_path: Path) -> None:
    layout = written(tmp_path)
    assert (tmp_path / "app.tar").read_bytes() == canonical_archive(APP)
    assert (layout.config, layout.size) == (APP.parsed, len(canonical_archive(APP)))
    assert [path.name for path in tmp_path.iterdir()] == ["app.tar"]


def test_an_image_from_far_away_is_told_what_is_read_next(tmp_path: Path) -> None:
    told: list[Sequence[Digest]] = []

    class Far(SeekableImage):
        config, sizes = APP.parsed, APP.sizes

        def layers(self, skip: object = ()) -> Iterator[Layer]:
            return map(APP.layer, APP.by_id)

        def layer(self, diff_id: Digest) -> Layer:
            assert told
            return APP.layer(diff_id)

        def read_ahead(self, diff_ids: Sequence[Digest]) -> None:
            told.append(diff_ids)

    names.destination(f"docker-archive:{tmp_path}/app.tar").write(Far(), lambda _: None)
    assert told == [list(APP.parsed.diff_ids)]
    assert (tmp_path / "app.tar").read_bytes() == canonical_archive(APP)


def test_what_was_there_is_replaced_or_stays_whole(tmp_path: Path) -> None:
    (tmp_path / "app.tar").write_bytes(classic(OTHER))
    wrong = classic(APP).replace(b"app", b"ppa", 1)
    (tmp_path / "wrong.tar").write_bytes(wrong)
    with names.source(f"docker-archive:{tmp_path}/wrong.tar").open() as found, pytest.raises(DigestMismatch):
        names.destination(f"docker-archive:{tmp_path}/app.tar").write(found, lambda _: None)
    assert (tmp_path / "app.tar").read_bytes() == classic(OTHER)
    written(tmp_path)
    assert (tmp_path / "app.tar").read_bytes() == canonical_archive(APP)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["app.tar", "wrong.tar"]


def test_what_a_killed_run_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / ".app.tar.partial").write_bytes(b"x" * 1_000_000)
    written(tmp_path)
    assert (tmp_path / "app.tar").read_bytes() == canonical_archive(APP)
    assert [path.name for path in tmp_path.iterdir()] == ["app.tar"]


@pytest.mark.parametrize("make", [_folder, _fifo, _device])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, make: object) -> None:
    assert callable(make)
    make(tmp_path / "app.tar")
    with pytest.raises(UsageError, match="is no file"):
        written(tmp_path)


@pytest.mark.parametrize("text", ["docker-archive:-", "docker-archive:-:app:1", "oci-archive:-"])
def test_standard_input_is_no_destination(text: str) -> None:
    with pytest.raises(UsageError, match="name one"):
        names.destination(text)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DiskError):
        written(tmp_path, "none/app.tar")


@pytest.mark.parametrize("rest", ["app.tar:A:B", "app.tar:app@sha256:" + "0" * 64, ":app:1"])
def test_names_that_an_archive_cannot_have(tmp_path: Path, rest: str) -> None:
    with pytest.raises(UsageError):
        names.destination(f"docker-archive:{rest}")


@pytest.mark.long
@pytest.mark.parametrize(
    "header",
    [
        pax({"size": b"%d" % NINE_GIGABYTES}) + member(b"layer.tar", size=b"00000000000\0"),
        member(b"layer.tar", size=b"\x80" + NINE_GIGABYTES.to_bytes(11, "big")),
    ],
    ids=["PAX", "base 256"],
)
def test_a_layer_of_nine_gigabytes(tmp_path: Path, header: bytes) -> None:
    """A sparse file, which takes no room."""
    found = hashlib.sha256()
    for _ in range(NINE_GIGABYTES >> 20):
        found.update(bytes(1 << 20))
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [f"sha256:{found.hexdigest()}"]}}).encode()
    manifest = json.dumps([{"Config": "config.json", "Layers": ["layer.tar"]}]).encode()
    with (tmp_path / "large.tar").open("wb") as file:
        file.write(member(b"config.json", config) + member(b"manifest.json", manifest) + header)
        file.seek(NINE_GIGABYTES, os.SEEK_CUR)
        file.write(END)
    with names.source(f"docker-archive:{tmp_path}/large.tar").open() as image:
        (layer,) = image.layers()
        while layer.read():
            pass
    assert (layer.position, layer.diff_id.hex) == (NINE_GIGABYTES, found.hexdigest())

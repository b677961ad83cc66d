# SPDX-License-Identifier: Apache-2.0
"""`folder:`: what file names say, and reading and writing the archives that they name."""

from __future__ import annotations

import os
import random
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arv_docker.archive.reader import ArchiveReader
from arv_docker.errors import BadArchive, ContentError, DigestMismatch, NoSuchImage, OtherImage, UsageError
from arv_docker.model.archive_name import PLAIN, ZIP, ArchiveName
from arv_docker.transports import SeekableImage
from arv_docker.transports import names as transports
from arv_docker.transports.folder import FolderArchive, FolderDestination, FolderSource, archives, rank, working_on

from ..archives import Bytes, Image, canonical_archive, classic, files_of, image
from .contract import Contract


class TestPlain(Contract):
    remembers = False

    def places(self, tmp_path: Path) -> tuple[FolderDestination, FolderSource]:
        return FolderDestination(tmp_path, "web", "1.dirty"), FolderSource(tmp_path, "web", "1.dirty")


class TestZip(Contract):
    remembers = False

    def places(self, tmp_path: Path) -> tuple[FolderDestination, FolderSource]:
        return FolderDestination(tmp_path, "web", "1.dirty", ZIP), FolderSource(tmp_path, "web")


APP = image(files_of(b"low" * 9000), files_of(b"high"), os="linux", created="2024-01-02T03:04:05Z")
SHORT = APP.parsed.digest.short_hex
ID12 = "0123456789ab"


def opened(made: Image) -> SeekableImage:
    return ArchiveReader(Bytes(canonical_archive(made))).image()


def written(folder: Path, made: Image = APP, version: str = "1", form: str = PLAIN) -> FolderArchive:
    return FolderDestination(folder, "web", version, form).write(opened(made), lambda _: None)


def read_whole(archive: FolderArchive) -> None:
    with archive.open() as found:
        for layer in found.layers():
            while layer.read():
                pass


# -- names ------------------------------------------------------------------------------


@pytest.mark.conforms("G1")
@given(
    st.from_regex(r"[a-z0-9.-]+(_[a-z0-9]+){0,3}", fullmatch=True).filter(lambda it: not it.startswith(".")),
    st.from_regex(r"[A-Za-z0-9.+~-]+", fullmatch=True),
    st.from_regex(r"[0-9a-f]{12}", fullmatch=True),
    st.sampled_from(["docker", "zip", "tar", "gz"]),
)
def test_a_name_is_read_as_it_was_written(name: str, version: str, short_id: str, form: str) -> None:
    whole = ArchiveName(name, version, short_id, form)
    assert whole.file_name == f"{name}_{version}_{short_id}.{form}"
    assert ArchiveName.parse(whole.file_name) == whole


@pytest.mark.conforms("G1")
@pytest.mark.parametrize(
    "text",
    [
        "web_1_0123456789ab.docker.zip",
        "web_1_0123456789AB.docker",
        "web_1_0123456789a.docker",
        "web_1_0123456789abc.docker",
        "web_1_0123456789ab.docker\n",
        "web_1_0123456789ab",
        "web_1_0123456789ab.",
        "web__0123456789ab.docker",
        "_1_0123456789ab.docker",
        "1_0123456789ab.docker",
        ".web_1_0123456789ab.docker",
        ".web_1_0123456789ab.docker.partial",
        "web%ff_1_0123456789ab.docker",
        "",
    ],
)
def test_names_of_other_files(text: str) -> None:
    assert ArchiveName.parse(text) is None


@pytest.mark.conforms("G2")
@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20), st.sampled_from(["1.2", "1+b", "a b"])
)
def test_any_image_name_is_one_component_of_a_path(name: str, version: str) -> None:
    whole = ArchiveName(name, version, ID12)
    assert "/" not in whole.file_name
    assert "\0" not in whole.file_name
    assert ":" not in whole.file_name
    assert not whole.file_name.startswith(".")
    assert ArchiveName.parse(whole.file_name) == whole


@pytest.mark.conforms("G2")
def test_an_image_with_a_registry() -> None:
    whole = ArchiveName("localhost:5000/tools/bwa_mem", "0.7", ID12)
    assert whole.file_name == f"localhost%3A5000%2Ftools%2Fbwa_mem_0.7_{ID12}.docker"
    assert ArchiveName.parse(whole.file_name) == whole


@pytest.mark.conforms("G2")
@pytest.mark.parametrize("version", ["1_2", "_", ""])
def test_a_version_that_no_name_can_hold(tmp_path: Path, version: str) -> None:
    with pytest.raises(UsageError, match="cannot be the version"):
        FolderDestination(tmp_path, "web", version)


def test_a_name_that_no_file_can_have() -> None:
    with pytest.raises(UsageError, match="longer than 246"):
        _ = ArchiveName("a" * 230, "1", ID12).file_name


@pytest.mark.conforms("G5")
def test_only_archives_are_listed_and_in_order(tmp_path: Path) -> None:
    for name in (f"web_2_{ID12}.docker", f"a_1_{ID12}.zip", f"web_1_{ID12}.tar", "notes.txt", f".web_1_{ID12}.docker"):
        (tmp_path / name).touch()
    (tmp_path / f"web_3_{ID12}.docker").mkdir()
    assert [it.path.name for it in archives(tmp_path)] == [
        f"a_1_{ID12}.zip",
        f"web_1_{ID12}.tar",
        f"web_2_{ID12}.docker",
    ]
    for none in ("nowhere", "notes.txt"):
        with pytest.raises(UsageError, match="no folder"):
            archives(tmp_path / none)


# -- archives ---------------------------------------------------------------------------


@pytest.mark.parametrize("form", [PLAIN, ZIP])
def test_an_archive_is_the_canonical_one(tmp_path: Path, form: str) -> None:
    told: list[int] = []
    archive = FolderDestination(tmp_path / "new", "web", "1.2", form).write(opened(APP), told.append)
    assert [it.name for it in (tmp_path / "new").iterdir()] == [f"web_1.2_{SHORT}.{form}"]
    assert sum(told) == len(canonical_archive(APP))
    if form == PLAIN:
        assert archive.path.read_bytes() == canonical_archive(APP)
    else:
        with zipfile.ZipFile(archive.path) as file:
            assert file.namelist() == [f"web_1.2_{SHORT}.docker"]
            assert file.read(file.namelist()[0]) == canonical_archive(APP)
    with archive.open() as found:
        assert found.config == APP.parsed
        assert [layer.read() for layer in found.layers()] == list(APP.layers)


@pytest.mark.conforms("W11")
@pytest.mark.parametrize("form", [PLAIN, ZIP])
def test_the_same_image_gives_the_same_file(tmp_path: Path, form: str) -> None:
    one, two = written(tmp_path / "a", form=form), written(tmp_path / "b", form=form)
    assert one.path.read_bytes() == two.path.read_bytes()


def test_an_archive_that_an_engine_saved_itself(tmp_path: Path) -> None:
    path = tmp_path / f"web_1_{SHORT}.docker"
    path.write_bytes(classic(APP))
    (archive,) = archives(tmp_path)
    with archive.open() as found:
        assert found.config == APP.parsed


@pytest.mark.conforms("G17")
@pytest.mark.parametrize("form", [PLAIN, ZIP])
def test_a_renamed_archive_is_refused(tmp_path: Path, form: str) -> None:
    written(tmp_path, form=form).path.rename(tmp_path / f"web_1_{ID12}.{form}")
    (archive,) = archives(tmp_path)
    with pytest.raises(DigestMismatch, match=f"should hold image {ID12}"):
        read_whole(archive)


@pytest.mark.parametrize("form", [PLAIN, ZIP])
def test_a_flipped_byte_anywhere_is_found(tmp_path: Path, form: str) -> None:
    """In headers, padding and the end too, which no layer's digest covers."""
    archive = written(tmp_path, form=form)
    whole = archive.path.read_bytes()
    chance = random.Random(form)
    places = {chance.randrange(len(whole)) for _ in range(100)} | set(range(0, 6000, 61)) | {len(whole) - 1}
    for place in (it for it in places if it < len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= chance.randrange(1, 256)
        archive.path.write_bytes(damaged)
        with pytest.raises(ContentError):
            read_whole(archive)


@pytest.mark.conforms("G13")
def test_a_file_of_another_format_is_not_read(tmp_path: Path) -> None:
    (tmp_path / f"web_1_{SHORT}.rar").write_bytes(canonical_archive(APP))
    (archive,) = archives(tmp_path)
    with pytest.raises(BadArchive, match="'rar'"):
        read_whole(archive)


@pytest.mark.conforms("G6")
def test_the_latest_archive(tmp_path: Path) -> None:
    def made(created: str | None, version: str, seconds: int) -> FolderArchive:
        keys = {"created": created} if created else {}
        archive = written(tmp_path, image(files_of(version.encode()), **keys), version)
        os.utime(archive.path, (seconds, seconds))
        return archive

    newest = made("2024-06-01T00:00:00+02:00", "1.0", 10)
    same_dirty = made("2024-05-31T22:00:00Z", "latest", 20)
    older = made("2024-01-01T00:00:00Z", "9.9", 99)
    undated, undated_later = made(None, "a", 1), made(None, "b", 2)
    assert sorted(archives(tmp_path), key=rank, reverse=True) == [newest, same_dirty, older, undated_later, undated]


def test_nothing_is_left_of_killed_ones(tmp_path: Path) -> None:
    left = [f".web_1_{ID12}.docker.partial", f".web_ui_1_{ID12}.docker.partial", ".notes.partial"]
    for name in left:
        (tmp_path / name).touch()
    with working_on(tmp_path, "web_ui"):  # who works on one image leaves those of others that work
        with working_on(tmp_path, "web"):
            assert [it.name for it in tmp_path.iterdir() if it.name in left] == [".notes.partial"]
        (tmp_path / left[1]).touch()
        with working_on(tmp_path, "web"):
            assert (tmp_path / left[1]).exists()
    with working_on(tmp_path, "other"):
        pass
    assert [it.name for it in tmp_path.iterdir()] == [".notes.partial"]


# -- the transport ----------------------------------------------------------------------


def test_a_folder_as_source(tmp_path: Path) -> None:
    other = image(files_of(b"other"), created="2020-01-01T00:00:00Z")
    written(tmp_path, other, "0.9")
    written(tmp_path, APP, "1.0")
    for text, expected in [("web", APP), ("web:1.0", APP), ("web:0.9", other)]:
        with transports.source(f"folder:{tmp_path}:{text}").open() as found:
            list(found.layers())
            assert found.config == expected.parsed
    for text in ("nothing", "web:2"):
        with pytest.raises(NoSuchImage, match=str(tmp_path)), transports.source(f"folder:{tmp_path}:{text}").open():
            pass


def test_a_folder_as_destination(tmp_path: Path) -> None:
    transports.destination(f"folder:{tmp_path}:localhost:5000/web:1.0").write(opened(APP), lambda _: None)
    transports.destination(f"folder:{tmp_path}:localhost:5000/web").write(opened(APP), lambda _: None)
    assert [(it.name.image, it.name.version) for it in archives(tmp_path)] == [
        ("localhost:5000/web", "1.0"),
        ("localhost:5000/web", "latest"),
    ]


@pytest.mark.conforms("G20")
def test_a_released_version_is_given_to_no_other_image(tmp_path: Path) -> None:
    other = image(files_of(b"other"))
    destination = transports.destination(f"folder:{tmp_path}:web:1.0")
    destination.write(opened(APP), lambda _: None)
    destination.write(opened(APP), lambda _: None)
    with pytest.raises(OtherImage, match=f"released as image {SHORT}"):
        destination.write(opened(other), lambda _: None)
    assert [it.name for it in tmp_path.iterdir()] == [f"web_1.0_{SHORT}.docker"]
    for made in (APP, other):
        transports.destination(f"folder:{tmp_path}:web:dev").write(opened(made), lambda _: None)
    assert len(archives(tmp_path)) == 3


@pytest.mark.parametrize("text", ["folder:", "folder:here", "folder::web", "folder:here:"])
def test_a_folder_without_an_image(text: str) -> None:
    with pytest.raises(UsageError, match="IMAGE"):
        transports.source(text)


def test_a_wrong_layer_leaves_no_file(tmp_path: Path) -> None:
    content = bytearray(canonical_archive(APP))
    content[content.index(b"lowlow")] ^= 1
    with pytest.raises(DigestMismatch):
        FolderDestination(tmp_path, "web", "1").write(ArchiveReader(Bytes(bytes(content))).image(), lambda _: None)
    assert list(tmp_path.iterdir()) == []

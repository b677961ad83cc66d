# SPDX-License-Identifier: Apache-2.0
"""Keeping a folder of archives in line with an engine: what is saved, left alone, removed and refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from arv_docker.archive.reader import ArchiveReader
from arv_docker.errors import BadArchive, ContentError, EngineError, NoSuchImage, OtherImage
from arv_docker.publishing.folder import ArchiveFolder, FolderUpdate
from arv_docker.store.tarballs import cache_folder
from arv_docker.transports.folder import FolderArchive

from ..archives import Bytes, Image, canonical_archive, classic, files_of, image
from ..transports.fake_engine import FakeEngine, Pipe

ONE = image(files_of(b"one" * 9000), files_of(b"common"), os="linux", created="2024-01-02T03:04:05Z")
TWO = image(files_of(b"two"), files_of(b"common"), os="linux", created="2024-02-02T03:04:05Z")
ID1, ID2 = ONE.parsed.digest.short_hex, TWO.parsed.digest.short_hex


def engine_with(made: Image, *names: str) -> FakeEngine:
    engine = FakeEngine(made)
    engine.tags[made.parsed.digest] = list(names)
    return engine


def update(
    folder: Path, made: Image = ONE, image: str = "web", version: str = "latest", **options: Any
) -> FolderUpdate:
    tag = version.replace("+", ".")
    return ArchiveFolder(folder).update(engine_with(made, f"{image}:{tag}"), image, version, **options)


def names(folder: Path) -> list[str]:
    return sorted(it.name for it in folder.iterdir())


@pytest.mark.conforms("G7")
@pytest.mark.parametrize(("image", "version"), [("web", "latest"), ("web_ui", "1.2.3+dirty"), ("quay.io/a/b", "1")])
def test_a_new_archive(tmp_path: Path, image: str, version: str) -> None:
    done = update(tmp_path, image=image, version=version)
    assert done.saved
    assert not done.compressed
    assert done.removed == ()
    assert names(tmp_path) == [f"{image.replace('/', '%2F')}_{version}_{ID1}.docker"]
    assert done.archive.path.read_bytes() == canonical_archive(ONE)
    with done.archive.open() as found:
        assert found.config.digest.hex.startswith(ID1)
    assert list(cache_folder().iterdir()) == []


@pytest.mark.conforms("G8")
@pytest.mark.parametrize("compress", [False, True])
def test_nothing_is_done_twice(tmp_path: Path, compress: bool) -> None:
    first = update(tmp_path, compress=compress)
    before = first.archive.path.stat()
    engine = engine_with(ONE, "web:latest")
    again = ArchiveFolder(tmp_path).update(engine, "web", compress=compress)
    assert (again.saved, again.compressed, again.removed) == (False, False, ())
    assert engine.calls == []
    assert (again.archive.path.stat().st_mtime_ns, again.archive.path.stat().st_ino) == (
        before.st_mtime_ns,
        before.st_ino,
    )


@pytest.mark.conforms("G9", "G20")
def test_a_new_build_of_an_unreleased_version(tmp_path: Path) -> None:
    update(tmp_path)
    done = update(tmp_path, TWO)
    assert done.saved
    assert names(tmp_path) == sorted([f"web_latest_{ID1}.docker", f"web_latest_{ID2}.docker"])
    done = update(tmp_path, TWO, clean=True)
    assert not done.saved
    assert [path.name for path in done.removed] == [f"web_latest_{ID1}.docker"]
    assert names(tmp_path) == [f"web_latest_{ID2}.docker"]


@pytest.mark.conforms("G9")
def test_the_old_archive_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    update(tmp_path)
    engine = engine_with(TWO, "web:latest")
    engine.images[TWO.parsed.digest] = classic(TWO)[:-5000]
    with pytest.raises(BadArchive):
        ArchiveFolder(tmp_path).update(engine, "web", clean=True)
    assert names(tmp_path) == [f"web_latest_{ID1}.docker"]


@pytest.mark.conforms("G10")
def test_clean_leaves_other_images_alone(tmp_path: Path) -> None:
    update(tmp_path, image="web_ui", version="1")
    update(tmp_path, image="web", version="1")
    (tmp_path / "notes.txt").touch()
    update(tmp_path, TWO, image="web", version="2", clean=True)
    assert names(tmp_path) == ["notes.txt", f"web_2_{ID2}.docker", f"web_ui_1_{ID1}.docker"]


@pytest.mark.conforms("G11")
def test_an_archive_is_compressed_without_saving_again(tmp_path: Path) -> None:
    update(tmp_path)
    engine = engine_with(ONE, "web:latest")
    done = ArchiveFolder(tmp_path).update(engine, "web", compress=True)
    assert engine.calls == []
    assert (done.saved, done.compressed) == (False, True)
    assert names(tmp_path) == [f"web_latest_{ID1}.zip"]
    update(tmp_path / "other", compress=True)
    assert done.archive.path.read_bytes() == (tmp_path / "other" / f"web_latest_{ID1}.zip").read_bytes()


@pytest.mark.conforms("G11")
def test_of_both_forms_the_zip_file_stays(tmp_path: Path) -> None:
    update(tmp_path, compress=True)
    (tmp_path / f"web_latest_{ID1}.docker").write_bytes(canonical_archive(ONE))
    done = update(tmp_path, compress=True)
    assert (done.saved, done.compressed, len(done.removed)) == (False, False, 1)
    assert names(tmp_path) == [f"web_latest_{ID1}.zip"]


@pytest.mark.conforms("G10")
def test_clean_takes_other_versions_and_ids_alone(tmp_path: Path) -> None:
    """The same version and ID in the other form is no outdated archive (docs/spec/archive-folder.md#updating)."""
    update(tmp_path, compress=True)
    update(tmp_path, TWO, version="1")
    (tmp_path / f"web_latest_{ID1}.docker").write_bytes(canonical_archive(ONE))
    done = update(tmp_path, clean=True)
    assert [path.name for path in done.removed] == [f"web_1_{ID2}.docker"]
    assert names(tmp_path) == [f"web_latest_{ID1}.docker", f"web_latest_{ID1}.zip"]


@pytest.mark.conforms("G13")
@pytest.mark.parametrize("options", [{}, {"clean": True, "compress": True, "force": True}])
def test_a_file_of_another_format_stops_it(tmp_path: Path, options: dict[str, Any]) -> None:
    stranger = tmp_path / f"web_0.1_{ID2}.rar"
    stranger.write_bytes(b"stranger")
    with pytest.raises(BadArchive, match=r"'rar'.*nothing was changed"):
        update(tmp_path, **options)
    assert names(tmp_path) == [stranger.name]
    update(tmp_path, image="web_ui")


@pytest.mark.conforms("G14")
def test_an_image_that_the_engine_has_not(tmp_path: Path) -> None:
    update(tmp_path)
    with pytest.raises(NoSuchImage):
        ArchiveFolder(tmp_path).update(engine_with(ONE, "other:1"), "web", clean=True)
    assert names(tmp_path) == [f"web_latest_{ID1}.docker"]
    assert not (tmp_path / "sub").exists()


@pytest.mark.conforms("G15")
@pytest.mark.parametrize("error", [EngineError("it died"), KeyboardInterrupt()])
def test_a_save_that_is_interrupted(tmp_path: Path, error: BaseException) -> None:
    engine = engine_with(ONE, "web:latest")

    class Dying(Pipe):
        def read(self, length: int) -> bytes:
            raise error

        def readinto(self, buffer: memoryview) -> int:
            raise error

    @contextmanager
    def save(images: Any) -> Iterator[Any]:
        yield Dying(b"")

    good, engine.save = engine.save, save  # type: ignore[method-assign]
    with pytest.raises(type(error)):
        ArchiveFolder(tmp_path).update(engine, "web")
    assert names(tmp_path) == []
    engine.save = good  # type: ignore[method-assign]
    ArchiveFolder(tmp_path).update(engine, "web")
    assert names(tmp_path) == [f"web_latest_{ID1}.docker"]


@pytest.mark.conforms("G16")
def test_what_a_server_of_the_folder_offers(tmp_path: Path) -> None:
    folder = ArchiveFolder(tmp_path)
    assert folder.config("https://example.org/images/") == []
    update(tmp_path, image="quay.io/a/b", version="1+2", compress=True)
    path = tmp_path / f"quay.io%2Fa%2Fb_1+2_{ID1}.zip"
    (found,) = folder.config("https://example.org/images/")
    assert (found.name, found.version, found.format) == ("quay.io/a/b", "1+2", "zip")
    assert found.image_id == str(ONE.parsed.digest)
    assert found.url == f"https://example.org/images/quay.io%252Fa%252Fb_1%2B2_{ID1}.zip"
    assert found.size == path.stat().st_size
    assert found.sha256 == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


@pytest.mark.conforms("G17")
def test_verify_finds_what_is_not_what_its_name_says(tmp_path: Path) -> None:
    update(tmp_path, image="good")
    update(tmp_path, image="renamed").archive.path.rename(tmp_path / "renamed_latest_0123456789ab.docker")
    flipped = update(tmp_path, image="flipped").archive.path
    content = bytearray(flipped.read_bytes())
    content[content.index(b"oneone")] ^= 1
    flipped.write_bytes(content)
    found = {it.archive.name.image: it.problem for it in ArchiveFolder(tmp_path).verify()}
    assert found["good"] == ""
    assert "should hold image 0123456789ab" in found["renamed"]
    assert "holds other bytes" in found["flipped"]
    assert str(flipped) in found["flipped"]


@pytest.mark.conforms("G20")
def test_a_released_version_keeps_its_image(tmp_path: Path) -> None:
    update(tmp_path, version="1.2.3")
    with pytest.raises(OtherImage, match=f"released as image {ID1}.*{ID2}.*--force"):
        update(tmp_path, TWO, version="1.2.3", clean=True)
    assert names(tmp_path) == [f"web_1.2.3_{ID1}.docker"]
    update(tmp_path, TWO, version="1.2.4")
    update(tmp_path, TWO, version="1.2.3", force=True, clean=True)
    assert names(tmp_path) == [f"web_1.2.3_{ID2}.docker"]


def test_a_damaged_archive_is_saved_again(tmp_path: Path) -> None:
    path = update(tmp_path, version="1.2.3").archive.path
    path.write_bytes(path.read_bytes()[:-10])
    assert update(tmp_path, version="1.2.3").saved
    assert path.read_bytes() == canonical_archive(ONE)


def test_a_damaged_archive_does_not_stay_beside_the_good_one(tmp_path: Path) -> None:
    path = update(tmp_path, version="1.2.3", compress=True).archive.path
    path.write_bytes(path.read_bytes()[:-10])
    done = update(tmp_path, version="1.2.3")
    assert (done.saved, done.removed) == (True, (path,))
    assert names(tmp_path) == [f"web_1.2.3_{ID1}.docker"]


@pytest.mark.conforms("G20")
def test_another_image_with_the_same_first_digits(tmp_path: Path) -> None:
    """Nobody can be made to find one; so the name is given to one that is there."""
    path = tmp_path / f"web_1.2.3_{ID1}.docker"

    def holds_two(archive: FolderArchive) -> Any:
        return contextmanager(lambda *_: iter([ArchiveReader(Bytes(canonical_archive(TWO))).image()]))()

    path.write_bytes(canonical_archive(TWO))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FolderArchive, "open", lambda self, progress=None: holds_two(self))
        with pytest.raises(OtherImage, match="--force"):
            update(tmp_path, version="1.2.3")
    assert path.read_bytes() == canonical_archive(TWO)


def test_an_archive_that_goes_while_all_are_read(tmp_path: Path) -> None:
    """By an update with `--clean` of another process."""
    update(tmp_path, image="a")
    gone = update(tmp_path, image="b").archive.path
    folder = ArchiveFolder(tmp_path)
    images = folder.images()
    gone.unlink()
    folder.images = lambda: images  # type: ignore[method-assign]
    assert [(it.archive.name.image, it.problem) for it in folder.verify()] == [("a", "")]
    assert [it.name for it in folder.config("https://example.org/")] == ["a"]


@pytest.mark.conforms("G16")
@pytest.mark.parametrize("compress", [False, True])
def test_what_is_damaged_is_not_offered(tmp_path: Path, compress: bool) -> None:
    path = update(tmp_path, compress=compress).archive.path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ContentError, match=path.name):
        ArchiveFolder(tmp_path).config("https://example.org/")
    path.write_bytes(b"")
    with pytest.raises(ContentError, match=path.name):
        ArchiveFolder(tmp_path).config("https://example.org/")


@pytest.mark.conforms("G6")
def test_the_latest_of_each_image(tmp_path: Path) -> None:
    update(tmp_path, TWO, version="1")
    update(tmp_path, ONE, version="2")
    update(tmp_path, ONE, image="ui", version="2")
    found = ArchiveFolder(tmp_path).latest_archives()
    assert {name: it.name.version for name, it in found.items()} == {"ui": "2", "web": "1"}


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """They are somebody else's, whatever form they have."""
    for name in (f"\udcffweb_1_{ID1}.docker", f".\udcffweb_1_{ID1}.docker.partial", f"%ffweb_1_{ID1}.docker"):
        (tmp_path / name).write_bytes(b"mine")
    update(tmp_path)
    assert [it.name.image for it in ArchiveFolder(tmp_path).images()] == ["web"]
    assert len(names(tmp_path)) == 4

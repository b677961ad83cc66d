# SPDX-License-Identifier: Apache-2.0
"""`oci:` and `oci-archive:`: OCI layouts as folders and tars, read and written, alone and beside other images."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from arv_docker.archive import canonical
from arv_docker.archive.layer import Layer
from arv_docker.archive.tar import Index
from arv_docker.errors import BadArchive, ContentError, DigestMismatch, NoSuchImage, SeveralImages, UsageError
from arv_docker.model.image import OCI_INDEX, Digest
from arv_docker.transports import Destination, Source, names
from arv_docker.transports.docker_archive import ArchiveFile
from arv_docker.transports.oci import Folder, LayoutDestination, LayoutSource

from ..archives import Bytes, canonical_archive, descriptor, files_of, image, layout_files, oci_index, several
from .contract import Contract, Far, check, opened

APP = image(files_of(b"base" * 10_000), files_of(b"app"), os="linux", architecture="amd64")
NEXT = image(files_of(b"base" * 10_000), files_of(b"next"), os="linux", architecture="amd64")


class TestFolder(Contract):
    def places(self, tmp_path: Path) -> tuple[Destination[Any], Source]:
        choice = self.choice(tmp_path)
        return names.destination(f"oci:{tmp_path}/layout:app", choice), names.source(
            f"oci:{tmp_path}/layout:app", choice
        )


class TestFolderWithoutAName(Contract):
    replaces = False

    def places(self, tmp_path: Path) -> tuple[Destination[Any], Source]:
        choice = self.choice(tmp_path)
        return names.destination(f"oci:{tmp_path}/layout", choice), names.source(f"oci:{tmp_path}/layout", choice)


class TestArchive(Contract):
    remembers = False

    def places(self, tmp_path: Path) -> tuple[Destination[Any], Source]:
        choice = self.choice(tmp_path)
        return names.destination(f"oci-archive:{tmp_path}/a.tar:v1", choice), names.source(
            f"oci-archive:{tmp_path}/a.tar:v1", choice
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "layout"


def write(folder: Path, made: Any, name: str | None = None) -> Digest:
    """Writes the image, and gives its manifest's digest."""
    return LayoutDestination(folder, name).write(opened(made), lambda _: None).manifest_digest


def read(folder: Path, name: str | None = None) -> Any:
    with LayoutSource(folder, name).open() as found:
        return found.config


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def unpacked(folder: Path, content: dict[str, bytes]) -> Path:
    for name, blob in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(blob)
    return folder


def test_a_layout_is_the_canonical_archive_unpacked(folder: Path) -> None:
    manifest = write(folder, APP)
    assert manifest == canonical.layout(APP.parsed, APP.sizes).manifest_digest
    found = Index(Bytes(canonical_archive(APP)))
    expected = {name: found.read(name, limit=1 << 30) for name in found.names() if name != "manifest.json"}
    assert {name: (folder / name).read_bytes() for name in files(folder)} == expected


def test_images_beside_each_other_share_layers(folder: Path) -> None:
    write(folder, APP, "app")
    before = (folder / "blobs/sha256" / Digest.of(APP.layers[0]).hex).stat()
    write(folder, NEXT, "next")
    assert (folder / "blobs/sha256" / Digest.of(APP.layers[0]).hex).stat().st_mtime_ns == before.st_mtime_ns
    assert (read(folder, "app"), read(folder, "next")) == (APP.parsed, NEXT.parsed)
    with pytest.raises(SeveralImages):
        read(folder)
    with pytest.raises(NoSuchImage):
        read(folder, "other")


def test_the_last_image_of_a_name_stays(folder: Path) -> None:
    write(folder, APP, "app")
    write(folder, NEXT, "app")
    write(folder, NEXT, "app")
    assert read(folder, "app") == read(folder) == NEXT.parsed
    assert len(json.loads((folder / "index.json").read_text())["manifests"]) == 1


def test_entries_of_others_stay_as_they_are(folder: Path) -> None:
    unpacked(folder, layout_files(APP, "theirs", platform={"os": "linux", "architecture": "amd64"}))
    theirs = json.loads((folder / "index.json").read_text())["manifests"][0]
    write(folder, NEXT, "ours")
    assert json.loads((folder / "index.json").read_text())["manifests"][0] == theirs


def test_a_blob_that_is_there_and_wrong_is_written_again(folder: Path) -> None:
    write(folder, APP)
    blob = folder / "blobs/sha256" / Digest.of(APP.layers[0]).hex
    blob.write_bytes(b"torn")
    with pytest.raises(ContentError), LayoutSource(folder).open() as found:
        check(found, APP)
    write(folder, APP)
    assert blob.read_bytes() == APP.layers[0]


def test_a_failed_write_leaves_the_layout_as_it_was(folder: Path) -> None:
    write(folder, APP, "app")
    before = files(folder), (folder / "index.json").read_bytes()

    class Broken(Far):
        def layers(self, skip: Any = ()) -> Any:
            yield NEXT.layer(NEXT.parsed.diff_ids[1])
            yield Layer(lambda _: b"", claimed=NEXT.parsed.diff_ids[0], size=None)

    with pytest.raises(DigestMismatch):
        LayoutDestination(folder, "next").write(Broken(NEXT), lambda _: None)
    assert (files(folder), (folder / "index.json").read_bytes()) == before


def test_a_layer_that_never_came(folder: Path) -> None:
    class Short(Far):
        def layers(self, skip: Any = ()) -> Any:
            yield APP.layer(APP.parsed.diff_ids[0])

    with pytest.raises(BadArchive, match="is missing"):
        LayoutDestination(folder).write(Short(APP), lambda _: None)
    assert not folder.exists()


def test_what_a_killed_run_left_is_used_or_goes(folder: Path) -> None:
    write(folder, APP)
    whole = files(folder)
    (folder / "index.json").unlink()
    (folder / "blobs/sha256" / Digest.of(APP.layers[0]).hex).unlink()
    (folder / "blobs/sha256/..layer.partial").write_bytes(b"begun")
    write(folder, APP)
    assert files(folder) == whole


def test_folders_that_are_no_layout(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").touch()
    (tmp_path / "file").touch()
    for name in ("full", "file"):
        with pytest.raises(UsageError):
            write(tmp_path / name, APP)
    for name in ("full", "file", "none"):
        with pytest.raises(BadArchive, match="is no OCI layout"):
            read(tmp_path / name)
    assert files(tmp_path / "full") == {"thesis.txt"}


@pytest.mark.parametrize("index", [b"", b"[]", b'{"manifests":7}', b'{"manifests":[7]}'])
def test_an_index_of_nonsense_stays(folder: Path, index: bytes) -> None:
    unpacked(folder, {**layout_files(APP), "index.json": index})
    with pytest.raises(ContentError):
        write(folder, NEXT)
    assert (folder / "index.json").read_bytes() == index


def test_names_never_become_paths(folder: Path, tmp_path: Path) -> None:
    secret = image(files_of(b"secret"))
    unpacked(tmp_path / "other", layout_files(secret))
    (tmp_path / "other/layer.tar").write_bytes(b"x")
    content = layout_files(APP)
    content["manifest.json"] = json.dumps(
        [{"Config": "../other/index.json", "Layers": ["../other/layer.tar"]}]
    ).encode()
    unpacked(folder, content)
    assert read(folder) == APP.parsed  # manifest.json is no part of a layout
    for name in ("../other/layer.tar", "layer.tar", "blobs/sha256/..", "blobs/md5/" + "0" * 32, "/etc/passwd"):
        assert name not in Folder(folder)


def test_what_is_no_file_is_no_blob(folder: Path) -> None:
    write(folder, APP)
    blob = folder / "blobs/sha256" / APP.parsed.digest.hex
    blob.unlink()
    os.mkfifo(blob)
    with pytest.raises(BadArchive, match="has no file"):
        read(folder)


def test_an_archive_with_names(tmp_path: Path) -> None:
    (tmp_path / "two.tar").write_bytes(several((APP, ["app:1"]), (NEXT, ["app:2"])))
    with names.source(f"docker-archive:{tmp_path}/two.tar:app:2").open() as found:
        names.destination(f"docker-archive:{tmp_path}/one.tar:app:2").write(found, lambda _: None)
        names.destination(f"oci-archive:{tmp_path}/oci.tar:v2").write(found, lambda _: None)
        names.destination(f"oci-archive:{tmp_path}/plain.tar").write(found, lambda _: None)
    assert (tmp_path / "plain.tar").read_bytes() == canonical_archive(NEXT)
    for text in ("docker-archive:one.tar:app:2", "oci-archive:one.tar:2", "oci-archive:oci.tar:v2"):
        transport, _, rest = text.partition(":")
        with names.source(f"{transport}:{tmp_path}/{rest}").open() as found:
            check(found, NEXT)
    with names.source(f"docker-archive:{tmp_path}/one.tar").open() as found:
        assert getattr(found, "tags", None) == ("app:2",)
    with tarfile.open(tmp_path / "one.tar") as archive:
        assert json.load(archive.extractfile("manifest.json"))[0]["RepoTags"] == ["app:2"]  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["oci:", "oci-archive:", "oci::name", "oci:folder:a\nb", "oci-archive:x:\x1b[2J"])
def test_texts_that_name_no_place(text: str) -> None:
    with pytest.raises(UsageError):
        names.source(text)
    with pytest.raises(UsageError):
        names.destination(text)


def test_full_names_are_tags(folder: Path) -> None:
    unpacked(folder, layout_files(APP, "app:1"))
    with LayoutSource(folder, "app:1").open() as found:
        check(found, APP)
        assert found.tags == ("app:1",)


# -- every image ------------------------------------------------------------------------


def every(text: str) -> list[tuple[Digest, tuple[str, ...]]]:
    source = names.source(text)
    assert isinstance(source, LayoutSource | ArchiveFile)
    with source.every() as found:
        return [(image.config.digest, image.tags) for image in (opened() for _, opened in found)]


def test_every_image_of_a_layout(folder: Path) -> None:
    write(folder, APP, "app:1")
    write(folder, APP, "app:2")
    write(folder, NEXT, "next")
    both = [(APP.parsed.digest, ("app:1", "app:2")), (NEXT.parsed.digest, ())]
    assert every(f"oci:{folder}") == both
    assert every(f"oci:{folder}:next") == both[1:]
    with pytest.raises(NoSuchImage):
        every(f"oci:{folder}:other")


def test_every_platform_of_an_image(folder: Path) -> None:
    write(folder, APP)
    write(folder, NEXT)
    entries = json.loads((folder / "index.json").read_text())["manifests"]
    for entry, architecture in zip(entries, ("amd64", "s390x"), strict=True):
        entry["platform"] = {"os": "linux", "architecture": architecture}
    inner = oci_index(*entries)
    (folder / "blobs/sha256" / Digest.of(inner).hex).write_bytes(inner)
    (folder / "index.json").write_bytes(oci_index(descriptor(inner, OCI_INDEX)))
    assert [digest for digest, _ in every(f"oci:{folder}")] == [APP.parsed.digest, NEXT.parsed.digest]


def test_every_image_of_an_archive(tmp_path: Path) -> None:
    (tmp_path / "two.tar").write_bytes(several((APP, ["app:1"]), (NEXT, ["next:1"]), (APP, ["app:2"])))
    both = [(APP.parsed.digest, ("app:1", "app:2")), (NEXT.parsed.digest, ("next:1",))]
    assert every(f"docker-archive:{tmp_path}/two.tar") == both
    assert every(f"docker-archive:{tmp_path}/two.tar:app:2") == [(APP.parsed.digest, ("app:2",))]

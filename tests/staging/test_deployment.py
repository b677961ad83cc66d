# SPDX-License-Identifier: Apache-2.0
"""Loading staged images: what an engine gets, and what it never gets."""

from __future__ import annotations

import gzip
import lzma
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import arv_docker
from arv_docker.errors import DigestMismatch, NoSuchImage, NotVerified
from arv_docker.local.progress import SilentProgress
from arv_docker.model.image import Digest
from arv_docker.staging.folder import PlainFolder
from arv_docker.staging.staged import verify
from arv_docker.store.metadata import Metadata, SealedForm, record_of, record_signature, seal, unseal

from ..archives import Image, canonical_archive, classic, hybrid
from ..transports.fake_engine import FakeEngine
from .conftest import APP, OTHER, Place, Recorder

ID = APP.parsed.digest


def staged(place: Place) -> Path:
    """A folder with two images, out of an engine that is not the one that they are loaded into."""
    place.engine = Recorder(APP, OTHER)
    place.engine.tags[OTHER.parsed.digest] = ["other:2"]
    place.stage("app:1", "other:2", origins=place.origins("engine"))
    return place.folder / "staged"


def written(folder: Path, content: bytes, made: Image = APP, image_id: Digest | None = None) -> None:
    """Puts an archive there by hand, with metadata as they would be."""
    folder.mkdir()
    (folder / "x.tar").write_bytes(content)
    metadata = Metadata(
        image_id or made.parsed.digest, Digest.of(content), record_of(made.parsed, 1), name="docker.io/library/x:1"
    )
    (folder / "x.tar_meta.json").write_bytes(SealedForm().dump(metadata))


@pytest.mark.conforms("W18")
def test_what_is_absent_is_loaded_once(place: Place) -> None:
    folder, engine = staged(place), FakeEngine()
    first = arv_docker.deploy(folder, engine)
    assert [(it.container.name, it.engine_id, it.loaded) for it in first] == [
        ("docker.io/library/app:1", ID, True),
        ("docker.io/library/other:2", OTHER.parsed.digest, True),
    ]
    assert engine.tags == {ID: ["app:1"], OTHER.parsed.digest: ["other:2"]}
    assert engine.images[ID] == canonical_archive(APP)
    engine.calls.clear()
    second = arv_docker.deploy(folder, engine)
    assert [it.loaded for it in second] == [False, False]
    assert "load" not in engine.calls


@pytest.mark.conforms("W18")
def test_of_several_only_those_that_are_absent(place: Place) -> None:
    folder, engine = staged(place), FakeEngine(OTHER)
    assert [it.loaded for it in arv_docker.deploy(folder, engine)] == [True, False]
    assert engine.calls.count("load") == 1


@pytest.mark.conforms("W19")
@pytest.mark.parametrize("which", ["archive", "metadata"])
def test_a_flipped_byte_anywhere_and_nothing_is_loaded(place: Place, which: str) -> None:
    folder, engine, chance = staged(place), FakeEngine(), random.Random(3)
    path = folder / ("other%3A2.tar" if which == "archive" else "other%3A2.tar_meta.json")
    whole = path.read_bytes()
    path.unlink()
    for _ in range(40):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(NotVerified, match="nothing is loaded") as raised:
            arv_docker.deploy(folder, engine)
        assert "other%3A2.tar" in raised.value.detail
        problems = {it.path.name: it.problem for it in verify(PlainFolder(folder).copies(), SilentProgress())}
        assert problems["app%3A1.tar"] == ""
        assert problems["other%3A2.tar"] != ""
    assert engine.calls == []


def test_a_file_that_is_gone(place: Place) -> None:
    folder, engine = staged(place), FakeEngine()
    (folder / "app%3A1.tar").unlink()
    with pytest.raises(NotVerified, match="nothing is loaded"):
        arv_docker.deploy(folder, engine)
    (checked, _) = verify(PlainFolder(folder).copies(), SilentProgress())
    assert "Stage the image again" in checked.problem
    assert engine.calls == []


def test_a_folder_without_images(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(NoSuchImage, match="holds no staged image"):
            arv_docker.deploy(folder, FakeEngine())


@pytest.mark.conforms("W20")
@pytest.mark.parametrize("size", [1, 511, 512, 513, 1_048_576, 1_049_087])
@pytest.mark.parametrize("form", ["plain", "gzip", "xz", "zip"])
def test_an_archive_of_any_form_gives_exactly_the_right_bytes(tmp_path: Path, form: str, size: int) -> None:
    from ..archives import image

    made = image(random.Random(size).randbytes(size), os="linux")
    forms: dict[str, Callable[[bytes], bytes]] = {
        "plain": bytes,
        "gzip": gzip.compress,
        "xz": lzma.compress,
        "zip": lambda content: zipped(tmp_path / "x.zip", content),
    }
    written(tmp_path / "staged", forms[form](classic(made)), made)
    engine = FakeEngine()
    (done,) = arv_docker.deploy(tmp_path / "staged", engine)
    assert (done.engine_id, done.loaded) == (made.parsed.digest, True)
    assert b"".join(engine.fed) == canonical_archive(made)


def zipped(path: Path, content: bytes) -> bytes:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.tar", content)
    return path.read_bytes()


def test_metadata_that_are_sealed_and_wrong(tmp_path: Path) -> None:
    """Whoever writes both files can seal them; what is loaded is still only the image that is named."""
    written(tmp_path / "other image", canonical_archive(OTHER), APP)
    with pytest.raises(DigestMismatch, match="and holds"):
        arv_docker.deploy(tmp_path / "other image", engine := FakeEngine())
    written(tmp_path / "wrong layer", hybrid(APP).replace(b"app" * 10, b"aqp" * 10))
    with pytest.raises(DigestMismatch):
        arv_docker.deploy(tmp_path / "wrong layer", engine)
    for folder in ("other image", "wrong layer"):
        ((checked),) = verify(PlainFolder(tmp_path / folder).copies(), SilentProgress())
        assert checked.problem != ""
    assert engine.images == {}


@pytest.mark.parametrize("name", [7, "UPPER", "a b", ["x"]])
def test_a_sealed_name_that_is_none(place: Place, name: object) -> None:
    folder = staged(place)
    path = folder / "app%3A1.tar_meta.json"
    document = unseal(path.read_bytes())
    path.write_bytes(seal({**document, "name": name}))
    with pytest.raises(NotVerified, match="nothing is loaded"):
        arv_docker.deploy(folder, FakeEngine())
    place.stage("app:1", origins=place.origins("engine"))  # which writes them anew
    assert path.read_bytes() == seal(document)


def test_odd_records_are_no_reason_to_fail(place: Place) -> None:
    folder = staged(place)
    path = folder / "app%3A1.tar_meta.json"
    document = unseal(path.read_bytes())
    records = [{**document["manifests"][0], "RepoDigests": [1, "x y", None], "RepoTags": 3, "Os": 7, "Variant": []}]
    path.write_bytes(seal({**document, "manifests": records, "manifests_signature": record_signature(records)}))
    (done, _) = arv_docker.deploy(folder, FakeEngine())
    assert (done.container.repo_digest, done.container.platform.os) == (None, "7")


def test_what_is_no_file_is_not_waited_for(place: Place) -> None:
    folder = staged(place)
    (folder / "app%3A1.tar").unlink()
    os.mkfifo(folder / "app%3A1.tar")
    (folder / "other%3A2.tar_meta.json").unlink()
    os.mkfifo(folder / "other%3A2.tar_meta.json")
    with pytest.raises(NotVerified) as raised:
        arv_docker.deploy(folder, FakeEngine())
    assert raised.value.detail.count("is no file") == 1
    assert raised.value.detail.count("no regular file") == 1
    (folder / "other%3A2.tar_meta.json").unlink()
    (folder / "other%3A2.tar_meta.json").write_bytes(b" " * (5 << 20))
    with pytest.raises(NotVerified, match="nothing is loaded"):
        arv_docker.deploy(folder, FakeEngine())


def test_into_a_containerd_store(place: Place) -> None:
    folder, engine = staged(place), FakeEngine(containerd=True)
    first = arv_docker.deploy(folder, engine)
    assert all(it.loaded for it in first)
    assert first[0].engine_id in first[0].container.digests
    assert not any(it.loaded for it in arv_docker.deploy(folder, engine))


def test_what_was_staged_by_id_gets_no_name(place: Place) -> None:
    place.engine = Recorder(APP)
    place.stage(str(ID), origins=place.origins("engine"))
    engine = FakeEngine()
    (done,) = arv_docker.deploy(place.folder / "staged", engine)
    assert (done.container.name, done.container.engine_name) == (str(ID), None)
    assert engine.tags == {}


def test_other_files_in_the_folder_do_no_harm(place: Place) -> None:
    folder = staged(place)
    (folder / "README").write_text("what is in here")
    (folder / ".hidden_meta.json").write_text("{}")
    assert len(arv_docker.deploy(folder, FakeEngine())) == 2

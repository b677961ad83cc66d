# SPDX-License-Identifier: Apache-2.0
"""Folders that somebody else prepared: links, pipes and folders in place of files, and metadata meant to harm."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import arv_docker
from arv_docker.errors import ArvDockerError, ContentError, DiskError, NotAnImage, NotVerified, OtherImage
from arv_docker.local import disk
from arv_docker.local.progress import SilentProgress
from arv_docker.maintenance import Cache
from arv_docker.model.image import Digest
from arv_docker.staging.folder import PlainFolder
from arv_docker.staging.staged import verify, wanted_images
from arv_docker.store.content_store import entries_in
from arv_docker.store.filenames import naming
from arv_docker.store.metadata import SealedForm, record_signature, seal, unseal
from arv_docker.store.tarballs import cache_folder

from ..archives import canonical_archive, files_of, image
from ..transports.fake_engine import FakeEngine
from .conftest import APP, OTHER, Place, Recorder, Said

ID = APP.parsed.digest
ARCHIVE, METADATA = "app%3A1.tar", "app%3A1.tar_meta.json"


@pytest.fixture
def folder(place: Place) -> Path:
    """Where images are staged; the engine has APP."""
    place.engine = Recorder(APP)
    path = place.folder / "staged"
    path.mkdir()
    return path


# -- what is no file -----------------------------------------------------------------------


@pytest.mark.parametrize("name", [f".{METADATA}.partial", f".{ARCHIVE}.partial", METADATA, ARCHIVE, ".lock"])
@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_never_written_through(place: Place, folder: Path, name: str, there: bool) -> None:
    victim = place.folder / "victim"
    if there:
        victim.write_text("mine")
    (folder / name).symlink_to(victim)
    for force in (False, True):
        try:
            place.stage("app:1", force=force)
        except (ArvDockerError, OSError):
            continue
        assert not any(path.is_symlink() for path in folder.iterdir())
        assert arv_docker.deploy(folder, FakeEngine())
    assert victim.exists() == there
    assert not there or victim.read_text() == "mine"


@pytest.mark.parametrize("name", [ARCHIVE, METADATA])
@pytest.mark.parametrize("staged", [True, False])
def test_a_pipe_is_not_waited_for(place: Place, folder: Path, name: str, staged: bool) -> None:
    if staged:
        place.stage("app:1")
        (folder / name).unlink()
    os.mkfifo(folder / name)
    code = (
        "import sys; from pathlib import Path; import arv_docker\n"
        "from arv_docker.errors import ArvDockerError\n"
        "try: arv_docker.materialize(['app:1'], sys.argv[1], offline=True)\n"
        "except ArvDockerError as error: print(error)\n"
    )
    place.stage("app:1", into="elsewhere")  # into the cache
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    if name == ARCHIVE:
        assert "--force" in done.stdout
    place.stage("app:1", force=True)
    assert arv_docker.deploy(folder, FakeEngine())


def test_a_folder_in_place_of_an_archive(place: Place, folder: Path) -> None:
    (folder / ARCHIVE).mkdir()
    for force in (False, True):
        with pytest.raises((OtherImage, OSError)):
            place.stage("app:1", force=force)
    assert sorted(it.name for it in folder.iterdir()) == [ARCHIVE]


def test_a_file_that_is_called_like_metadata_of_nothing(place: Place, folder: Path) -> None:
    (folder / "_meta.json").write_text("{}")
    place.stage("app:1")
    assert len(arv_docker.deploy(folder, FakeEngine())) == 1


# -- who may read and write ----------------------------------------------------------------


def test_a_folder_that_is_only_read(place: Place, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what a killed process left."""
    (first,) = place.stage("app:1")
    (folder / ".lock").touch()

    def refused(path: Path) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(disk, "_lock_file", refused)
    (again,) = place.stage("app:1")
    assert (again.paths, again.origin) == (first.paths, "staged")
    with pytest.raises(DiskError, match="cannot be written"):
        place.stage("app:1", force=True)


def test_a_disk_that_is_full_when_only_metadata_are_missing(
    place: Place, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise DiskError("no room")

    with monkeypatch.context() as patch:
        patch.setattr("arv_docker.staging.folder.write_file", full)
        with pytest.raises(DiskError):
            place.stage("app:1")
    assert list(folder.iterdir()) == []
    place.stage("app:1")
    (folder / METADATA).unlink()
    with monkeypatch.context() as patch:
        patch.setattr("arv_docker.staging.folder.write_file", full)
        with pytest.raises(DiskError):
            place.stage("app:1")
    assert place.files() == [ARCHIVE]  # it was there before


def test_an_archive_of_another_user_is_not_called_damaged(
    place: Place, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.stage("app:1")
    monkeypatch.setattr("arv_docker.staging.staged.hash_of", lambda *_: None)
    with pytest.raises(NotVerified) as raised:
        arv_docker.deploy(folder, FakeEngine())
    assert "not this user's to read" in raised.value.detail


# -- metadata ------------------------------------------------------------------------------


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize("depth", [500, 980, 2_500, 100_000])
def test_metadata_nested_as_deep_as_can_be_read(place: Place, folder: Path, depth: int) -> None:
    place.stage("app:1")
    text = (folder / METADATA).read_text().replace('"name"', f'"more": {nested(depth)},\n "name"')
    (folder / METADATA).write_text(text)
    with pytest.raises(NotVerified, match="nothing is loaded"):
        arv_docker.deploy(folder, FakeEngine())
    assert [bool(it.problem) for it in verify(PlainFolder(folder).copies(), SilentProgress())] == [True]
    (entry,) = entries_in(cache_folder()).contents()
    (entry.with_name(f"{entry.name}_meta.json")).write_text(text)
    assert [bool(problem) for _, problem in Cache(cache_folder(), Said()).verify()] == [True]


HOSTILE: list[dict[str, Any]] = [
    {"name": "../../etc/passwd"},
    {"name": "/etc/passwd"},
    {"name": "docker.io/library/" + "x" * 100_000 + ":1"},
    {"name": ["app"]},
    {"name": None},
    {"digests": "sha256"},
    {"digests": {"sha256:" + "0" * 64: 1}},
    {"digests": ["sha256:zz"]},
    {"digests": [1e400, -0.0]},
    {"image_id": "../../x"},
    {"image_id": 7},
    {"image_signature": "sha256=" + "A" * 10},
    {"image_signature": None},
    {"manifests": []},
    {"manifests": [{}, {}]},
    {"manifests": [[]]},
    {"manifests": "x"},
    {"manifests": {"x": 1}},
    {"manifests": [{"Id": "sha256:" + "é" * 64}]},
    {"manifests_signature": 10**4000},
]


@pytest.mark.parametrize("change", HOSTILE, ids=lambda it: str(it)[:40])
def test_sealed_metadata_of_whatever_content(place: Place, folder: Path, change: dict[str, Any]) -> None:
    place.stage("app:1")
    document = unseal((folder / METADATA).read_bytes()) | change
    (folder / METADATA).write_bytes(seal(document))
    engine = FakeEngine()
    with pytest.raises(NotVerified, match="nothing is loaded"):
        arv_docker.deploy(folder, engine)
    assert engine.calls == []
    (again,) = place.stage("app:1")
    assert again.image_id == ID
    assert arv_docker.deploy(folder, engine)


@pytest.mark.parametrize(
    "change",
    [
        {"Os": {"x": 1}, "Architecture": ["y"], "Variant": 10**400},
        {"RepoDigests": [f"../x@{ID}", f"app@{ID}\n", "\x1b[31m@sha256:" + "0" * 64]},
        {"RepoTags": {"a": 1}, "RootFS": None, "Config": "x", "Size": -(10**30)},
    ],
    ids="-".join,
)
def test_records_of_whatever_content(place: Place, folder: Path, change: dict[str, Any]) -> None:
    """A record is what somebody says; the image is what its bytes say."""
    place.stage("app:1")
    document = unseal((folder / METADATA).read_bytes())
    records = [{**document["manifests"][0], **change}]
    changed = {**document, "manifests": records, "manifests_signature": record_signature(records)}
    (folder / METADATA).write_bytes(seal(changed))
    (done,) = arv_docker.deploy(folder, FakeEngine())
    assert (done.engine_id, done.container.repo_digest) == (ID, None)
    json.dumps(str(done.container))


def test_two_images_of_one_name_at_the_same_time(place: Place, folder: Path) -> None:
    """Each looks before the other has put its image there; the files have different names."""
    names = PlainFolder(folder, naming("folder"))
    entries = entries_in(cache_folder())
    for made in (APP, OTHER):
        place.engine = Recorder(made)
        place.stage(str(made.parsed.digest), into=made.parsed.digest.short_hex)
    first, second = (entries.by_image(made.parsed.digest) for made in (APP, OTHER))
    assert first is not None
    assert second is not None
    names.put(wanted_images(["app:1"])[0], entries.adopt("app:1", first), entries, force=False)
    with pytest.raises(OtherImage, match="and another image"):
        names.put(wanted_images(["app:1"])[0], entries.adopt("app:1", second), entries, force=False)
    assert arv_docker.deploy(folder, FakeEngine())


def test_one_name_for_two_images(place: Place, folder: Path) -> None:
    """As a killed `--force` may leave them: an engine would have whichever comes last."""
    names = PlainFolder(folder, naming("folder"))
    place.stage("app:1", folder=names)
    place.engine.tags = {OTHER.parsed.digest: ["app:1"]}
    place.engine.images[OTHER.parsed.digest] = canonical_archive(OTHER)
    place.stage("app:1", folder=PlainFolder(place.folder / "second", naming("folder")))
    for path in (place.folder / "second").iterdir():
        path.rename(folder / path.name)
    engine = FakeEngine()
    with pytest.raises(NotVerified) as raised:
        arv_docker.deploy(folder, engine)
    assert "docker.io/library/app:1 is 2 images here" in raised.value.detail
    assert engine.calls == []
    with pytest.raises(OtherImage, match="2 images here"):
        place.stage("app:1", folder=names)
    place.stage("app:1", folder=names, force=True)
    assert [it.container.image_id for it in arv_docker.deploy(folder, engine)] == [OTHER.parsed.digest]


# -- images --------------------------------------------------------------------------------


def test_a_config_of_megabytes(place: Place, folder: Path) -> None:
    config = image(files_of(b"large"), os="linux", config={"Labels": {"letters": "here"}})
    large = replace(config, config=config.config.replace(b"here", "ж".encode() * 1_900_000))
    place.engine = Recorder(large)
    (found,) = place.stage("app:1")
    assert found.image_id == large.parsed.digest
    assert [it.problem for it in verify(PlainFolder(folder).copies(), SilentProgress())] == [""]
    assert place.stage("app:1", into="second", offline=True)[0].image_id == large.parsed.digest
    assert len(SealedForm().load(found.metadata_paths[0].read_bytes()).record["RootFS"]["Layers"]) == 1


@pytest.mark.parametrize("depth", [500, 980, 2_500])
def test_a_config_that_is_nested_as_deep_as_can_be_read(place: Place, folder: Path, depth: int) -> None:
    """What the parser of one Python takes, its printer may not."""
    config = image(files_of(b"deep"), os="linux", config={"Labels": "here"})
    made = replace(config, config=config.config.replace(b'"here"', nested(depth).encode()))
    place.registry.add("deep:1", made)
    try:
        place.stage(f"{place.registry.host}/deep:1", origins=place.origins("registry"))
    except ContentError:
        assert list(folder.iterdir()) == []
        assert Cache(cache_folder(), Said()).list() == ()
    else:
        assert [it.problem for it in verify(PlainFolder(folder).copies(), SilentProgress())] == [""]


def test_metadata_that_could_not_be_read_again_are_not_written(place: Place, folder: Path) -> None:
    place.stage("app:1", into="elsewhere")
    (path,) = entries_in(cache_folder()).contents()
    entry = entries_in(cache_folder()).entry(path)
    assert entry is not None
    large = replace(entry.metadata, record={**entry.metadata.record, "Labels": "x" * (3 << 20)})
    with entries_in(cache_folder()).fetching(ID), pytest.raises(NotAnImage, match="too large"):
        entries_in(cache_folder()).update("large:1", [b"never written"], 13, ID, lambda _: large)
    assert entries_in(cache_folder()).contents() == (path,)


def test_metadata_in_the_cache_that_lie(place: Place, folder: Path) -> None:
    """Whoever can write there can seal; what is loaded is the image that is named, or none."""
    place.stage("app:1", into="elsewhere")
    (path,) = entries_in(cache_folder()).contents()
    beside = path.with_name(f"{path.name}_meta.json")
    metadata = SealedForm().load(beside.read_bytes())
    document = unseal(beside.read_bytes())
    record = {**document["manifests"][0], "Id": str(OTHER.parsed.digest)}
    lying = {**document, "image_id": str(OTHER.parsed.digest), "manifests": [record]}
    beside.write_bytes(seal({**lying, "manifests_signature": record_signature([record])}))
    assert metadata.image_id == ID
    engine = FakeEngine()
    (found,) = place.stage("app:1", offline=True)
    assert found.image_id == OTHER.parsed.digest
    with pytest.raises(ContentError):
        arv_docker.deploy(folder, engine)
    assert engine.images == {}
    assert Digest.of((folder / ARCHIVE).read_bytes()) == metadata.archive

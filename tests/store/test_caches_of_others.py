# SPDX-License-Identifier: Apache-2.0
"""Caches that somebody else may write to: refused, or verified and copied (docs/spec/trust.md#caches-of-others)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import arv_docker
from arv_docker.arvados.client import Cluster
from arv_docker.arvados.resume import SentBlocks
from arv_docker.compat.keepdocker import prep_image_file
from arv_docker.errors import DiskError, NotVerified
from arv_docker.integrations.wfexs import WfexsCache
from arv_docker.local.ownership import check_private, is_ours
from arv_docker.local.progress import SilentProgress
from arv_docker.model.image import Descriptor, Digest
from arv_docker.publishing.folder import ArchiveFolder
from arv_docker.staging.staged import verify
from arv_docker.store import tarballs
from arv_docker.store.content_store import Entries, entries_in, metadata_path
from arv_docker.store.layer_index import KnownBlobs, LayerTable
from arv_docker.store.metadata import Metadata, record_of
from arv_docker.store.tarballs import cache_folder

from ..archives import Image, canonical_archive
from ..arvados.fake_api import FakeApi
from ..arvados.test_dedup import MD5, signed
from ..cli.conftest import Run, run
from ..staging.conftest import APP, OTHER, Place, Recorder, place, registry
from ..transports.fake_engine import FakeEngine

__all__ = ["place", "registry", "run"]

ID = APP.parsed.digest
#: Nobody has this number here.
STRANGER = 54321

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")

Danger = Callable[[Path], object]


def _give_group(folder: Path) -> None:
    os.chown(folder, -1, STRANGER)
    folder.chmod(0o770)


#: What makes a folder one that somebody else may put files into.
SHARED: dict[str, Danger] = {
    "everybody may write": lambda folder: folder.chmod(0o777),
    "a group may write": _give_group,
    "another user's": lambda folder: os.chown(folder, STRANGER, -1),
}
#: What makes a file one that somebody else made, may change, or lets lead elsewhere. All keep its bytes.
FOREIGN: dict[str, Danger] = {
    "another user's": lambda file: os.chown(file, STRANGER, -1),
    "everybody may write": lambda file: file.chmod(0o666),
    "a link": lambda file: file.symlink_to(file.rename(file.with_name(f"{file.name}.elsewhere"))),
}


def dangers(every: dict[str, Danger]) -> pytest.MarkDecorator:
    marked = [
        pytest.param(it, id=name, marks=as_root if "user" in name or "group" in name else ())
        for name, it in every.items()
    ]
    return pytest.mark.parametrize("danger", marked)


# -- folders -------------------------------------------------------------------------------


@dangers(SHARED)
@pytest.mark.parametrize("which", [".", "entries", "entries/images"])
def test_a_cache_that_others_may_write_to_is_refused(run: Run, which: str, danger: Danger) -> None:
    folder = tarballs.cache_folder() / which
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    danger(folder)
    for words in (("cache", "list"), ("cache", "gc"), ("stage", "--offline", "--dir", "staged", "app:1")):
        outcome = run(*words)
        assert outcome.code == 7, words
        assert str(folder) in outcome.err
        assert "XDG_CACHE_HOME" in outcome.err, words
    assert any(line.startswith("cache    BAD") for line in run("doctor").out.splitlines())


@dangers(SHARED)
def test_no_image_is_taken_from_such_a_cache_nor_put_there(place: Place, danger: Danger) -> None:
    place.engine = Recorder(APP)
    place.stage("app:1")
    before = sorted(tarballs.cache_folder().rglob("*"))
    danger(tarballs.cache_folder())
    with pytest.raises(DiskError, match="could put any image there"):
        place.stage("app:1", into="second")
    with pytest.raises(DiskError), tarballs.hold_image_lock(Path(os.environ["XDG_CACHE_HOME"], "arvados/docker"), ID):
        pass
    assert sorted(Path(os.environ["XDG_CACHE_HOME"], "arvados/docker").rglob("*")) == before
    assert not (place.folder / "second").exists()


@dangers(SHARED)
def test_a_layer_index_that_others_may_write_to_knows_nothing(tmp_path: Path, danger: Danger) -> None:
    LayerTable(tmp_path).note(Digest.of(b"low"), 5)
    danger(tmp_path / "layers")
    assert LayerTable(tmp_path).size(Digest.of(b"low")) is None


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o1777])
def test_a_cache_that_others_may_read_or_only_add_to_serves(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    check_private(tmp_path)


@as_root
def test_the_group_of_a_user_alone_is_nobody_else(tmp_path: Path) -> None:
    tmp_path.chmod(0o770)  # the group root, of root alone
    check_private(tmp_path)
    file = tmp_path / "file"
    file.touch(0o660)
    assert is_ours(file)


# -- files, in a folder where others may add some ------------------------------------------


@pytest.fixture
def sticky() -> Path:
    folder = tarballs.cache_folder()
    folder.chmod(0o1777)
    return folder


@dangers(FOREIGN)
def test_a_tarball_or_a_record_of_somebody_else_is_saved_anew(sticky: Path, danger: Danger) -> None:
    for name in (f"{ID}.tar", f"{ID}.tar.stat"):
        engine = FakeEngine(APP)
        victim = sticky / f"{ID}.tar.elsewhere"
        with tarballs.hold_image_lock(sticky, ID) as tarball, tarballs.saving(engine, ID, tarball, 1) as stream:
            content = stream.read(1 << 20)
        assert tarballs.prep_image_file(tarball)[1] is False
        danger(sticky / name)
        assert tarballs.prep_image_file(tarball) == (None, True)
        kept = victim.read_bytes() if victim.exists() else b""
        with tarballs.hold_image_lock(sticky, ID), tarballs.saving(engine, ID, tarball, 1) as stream:
            assert stream.read(1 << 20) == content
        assert tarballs.prep_image_file(tarball)[1] is False
        assert is_ours(sticky / name)
        if victim.exists():
            assert victim.read_bytes() == kept
            victim.unlink()


def test_a_save_is_not_written_through_a_link(sticky: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for name in (f"{ID}.tar.partial", f"{ID}.tar.stat.partial", f"{ID}.tar", f"{ID}.tar.stat"):
        (sticky / name).symlink_to(victim)
    with tarballs.saving(FakeEngine(APP), ID, sticky / f"{ID}.tar", 1) as stream:
        stream.read(1 << 20)
    (sticky / "other.tar").symlink_to(victim)
    prep_image_file("other.tar")[0].close()
    assert victim.read_text() == "mine"


def stored(entries: Entries, made: Image = APP) -> Path:
    content = canonical_archive(made)
    with entries.fetching(made.parsed.digest):
        entry = entries.update(
            "app:1",
            [content],
            len(content),
            made.parsed.digest,
            lambda archive: Metadata(made.parsed.digest, archive, record_of(made.parsed, 1)),
        )
    return entry.path


@dangers(FOREIGN)
def test_an_archive_or_metadata_of_somebody_else_is_no_entry(sticky: Path, danger: Danger) -> None:
    for which in (lambda path: path, metadata_path):
        path = stored(entries_in(cache_folder()))
        for folder in (path.parent, sticky):
            folder.chmod(0o1777)
        assert entries_in(cache_folder()).query("app:1") is not None
        danger(which(path))
        assert entries_in(cache_folder()).query("app:1") is None
        assert entries_in(cache_folder()).by_image(ID) is None
        for left in path.parent.glob("sha256*"):
            left.unlink()


@dangers(FOREIGN)
def test_what_others_noted_of_layers_and_blocks_is_not_read(sticky: Path, danger: Danger) -> None:
    layer = Digest.of(b"layer")
    LayerTable(sticky).note(layer, 5)
    KnownBlobs(sticky).note(layer, Descriptor("application/x", layer, 3), "host/app")
    SentBlocks(sticky, Cluster(FakeApi()), ID).note(signed(7200))
    (sticky / "layers").chmod(0o1777)

    def known() -> tuple[int | None, bool, list[str]]:
        blocks = list(SentBlocks(sticky, Cluster(FakeApi()), ID).blocks)
        return LayerTable(sticky).size(layer), KnownBlobs(sticky).of(layer) is not None, blocks

    assert known() == (5, True, [f"{MD5}+5"])
    files = [*(sticky / "layers").iterdir(), *sticky.glob("*.blocks")]
    assert len(files) == 3
    for file in files:
        danger(file)
    assert known() == (None, False, [])
    LayerTable(sticky).note(layer, 6)
    assert LayerTable(sticky).size(layer) == 6
    assert all(it.read_text().count("\n") == 2 for it in (sticky / "layers").glob("table.elsewhere"))


# -- folders that are shared on purpose ----------------------------------------------------


@dangers({name: danger for name, danger in FOREIGN.items() if name != "a link"})
def test_what_others_may_change_is_copied_and_never_linked(tmp_path: Path, danger: Danger) -> None:
    entries = Entries(tmp_path / "cache", "names", lambda name: (name,), shared=True)
    path = stored(entries)
    assert entries.transfer("app:1", tmp_path / "ours") is not None
    assert (tmp_path / "ours" / "app:1").samefile(path)
    danger(path)
    (copy,) = entries.transfer("app:1", tmp_path / "theirs") or ()
    assert copy.read_bytes() == canonical_archive(APP)
    assert not copy.samefile(path)
    assert is_ours(copy)
    other = Entries(tmp_path / "second", "names", lambda name: (name,), shared=True)
    entry = entries.query("app:1")
    assert entry is not None
    assert not other.adopt("app:1", entry).path.samefile(path)


def test_a_staged_link_is_not_followed(place: Place) -> None:
    place.engine = Recorder(APP)
    (image,) = place.stage("app:1")
    (path,), (metadata,) = image.paths, image.metadata_paths
    elsewhere = path.rename(place.folder / "elsewhere.tar")
    path.symlink_to(elsewhere)
    engine = FakeEngine()
    with pytest.raises(NotVerified) as raised:
        arv_docker.deploy(place.folder / "staged", engine)
    assert f"{path} is a link, which is not followed" in raised.value.detail
    assert engine.calls == []
    path.unlink()
    elsewhere.rename(path)
    metadata.symlink_to(metadata.rename(place.folder / "elsewhere.json"))
    with pytest.raises(NotVerified):
        arv_docker.deploy(place.folder / "staged", engine)


def test_a_link_of_wfexs_leads_into_its_cache_or_nowhere(place: Place) -> None:
    place.engine = Recorder(APP)
    cache = WfexsCache(place.folder / "wfexs", "cwl")
    place.stage("app:1", folder=cache)
    assert [it.problem for it in verify(cache.copies(), SilentProgress())] == ["", ""]
    for link in (place.folder / "wfexs" / "containers").glob("*/CWLWorkflowEngine/app:1.img"):
        target = link.resolve().rename(place.folder / "elsewhere.tar")
        link.unlink()
        link.symlink_to(target)
    checked = [it.problem for it in verify(cache.copies(), SilentProgress())]
    assert len(checked) == 2
    assert all("is a link, which is not followed" in it for it in checked)


def test_a_link_in_a_folder_of_archives_is_no_archive(tmp_path: Path) -> None:
    folder = tmp_path / "archives"
    folder.mkdir()
    engine = FakeEngine(APP, OTHER)
    engine.tags = {ID: ["app:1"]}
    path = ArchiveFolder(folder).update(engine, "app", "1").archive.path
    assert len(ArchiveFolder(folder).images()) == 1
    path.symlink_to(path.rename(tmp_path / "elsewhere"))
    assert ArchiveFolder(folder).images() == []

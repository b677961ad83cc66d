# SPDX-License-Identifier: Apache-2.0
"""A cache for WfExS: every field that its handler reads (docs/spec/wfexs.md#exchange), judged apart from the code.

`trusted` is what the handler's own `query` does, written down from what was seen of it.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

import arv_docker
from arv_docker.errors import DigestMismatch, NotVerified, OtherImage, UsageError
from arv_docker.integrations.wfexs import WfexsCache
from arv_docker.local.progress import SilentProgress
from arv_docker.model.image import Digest
from arv_docker.staging.staged import verify
from arv_docker.store.content_store import metadata_path
from arv_docker.store.tarballs import cache_folder

from ..archives import Bytes, canonical_archive
from ..cli.conftest import Run, run
from ..staging.conftest import APP, OTHER, Place, Recorder, place, registry
from ..transports.fake_engine import FakeEngine

__all__ = ["place", "registry", "run"]

ID = APP.parsed.digest
NAME = "docker.io/library/app:1"
FILES = {
    "CWLWorkflowEngine": {"app:1": "app:1.img", "docker://quay.io/a/b:1": "docker:__quay.io_a_b:1.img"},
    "NextflowWorkflowEngine": {"app:1": "app-1.img", "docker://quay.io/a/b:1": "quay.io-a-b-1.img"},
}
VOLATILE = {"Docker": {"RepoDigests"}, "Podman": {"Digest", "RepoDigests", "Size", "VirtualSize"}}


def trusted(root: Path, engine: str, names: Sequence[str]) -> tuple[bool, str | None]:
    """Whether the handler, made for `root` and `engine`, trusts an image of these file names; and its fingerprint."""
    prints = set()
    for name in names:
        link, metadata = root / engine / name, root / engine / f"{name}_meta.json"
        if not link.is_symlink() or not metadata.exists():
            return False, None
        target = link.readlink()
        if target.parent != Path("..") or not (root / target.name).is_file():
            return False, None
        text = target.name.replace("~", "=").replace("-", "/").replace("_", "+")
        if json.loads(metadata.read_text())["image_signature"] != text:
            return False, None
        prints.add(text)
    return len(prints) == 1, prints.pop()


def fingerprint(content: bytes) -> str:
    return "sha256=" + base64.b64encode(hashlib.sha256(content).digest()).decode()


def signature(records: Sequence[Mapping[str, Any]], volatile: set[str]) -> str:
    lasting = [{key: value for key, value in it.items() if key not in volatile} for it in records]
    return fingerprint(json.dumps(lasting, sort_keys=True).encode())


def stage(place: Place, *names: str, **options: Any) -> tuple[arv_docker.Container, ...]:
    options.setdefault("folder", WfexsCache(place.folder / "staged", progress=place.said))
    return place.stage(*names, **options)


def root(place: Place, factory: str) -> Path:
    return place.folder / "staged" / "containers" / f"{factory}ContainerFactory"


@pytest.fixture
def filled(place: Place) -> Place:
    place.engine = Recorder(APP)
    place.engine.digests[ID] = ["app@sha256:" + "2" * 64]
    place.engine.tags[ID].append("quay.io/a/b:1")
    stage(place, "app:1", "docker://quay.io/a/b:1")
    return place


@pytest.mark.conforms("W3", "W4", "W5")
@pytest.mark.parametrize("factory", ["Docker", "Podman"])
def test_every_field_that_the_handler_reads(filled: Place, factory: str) -> None:
    cache = root(filled, factory)
    contents = [it for it in cache.iterdir() if it.is_file() and not it.name.endswith("_meta.json")]
    assert sorted(it.name for it in cache.iterdir() if it.is_dir()) == sorted(FILES)
    for name, called in (("app:1", NAME), ("docker://quay.io/a/b:1", "quay.io/a/b:1")):
        found = set()
        for engine, files in FILES.items():
            good, text = trusted(cache, engine, [files[name]])
            assert good
            found.add((cache / engine / files[name]).resolve())
            link, meta = cache / engine / files[name], cache / engine / f"{files[name]}_meta.json"
            assert str(link.readlink()) == f"../{link.resolve().name}"
            assert str(meta.readlink()) == f"../{link.resolve().name}_meta.json"
        (content,) = found
        assert content in contents
        raw = content.read_bytes()
        assert text == fingerprint(raw)
        assert content.name == text.replace("=", "~").replace("/", "-").replace("+", "_")
        document = json.loads(content.with_name(f"{content.name}_meta.json").read_text())
        assert sorted(document) == ["image_id", "image_signature", "manifests", "manifests_signature"]
        (record,) = document["manifests"]
        assert document["image_id"] == record["Id"] == (str(ID) if factory == "Docker" else ID.hex)
        assert document["image_signature"] == text
        assert document["manifests_signature"] == signature([record], VOLATILE[factory])
        assert record["RepoDigests"] == ["app@sha256:" + "2" * 64]
        assert record["RepoTags"] == [called]
        assert (record["Os"], record["Architecture"], record["Variant"]) == ("linux", "arm64", "v8")
        assert raw[:3] == b"\x1f\x8b\x08"
        assert raw[4:8] == bytes(4)  # no time
        with tarfile.open(fileobj=BytesIO(gzip.decompress(raw))) as archive:
            (listed,) = json.load(archive.extractfile("manifest.json") or BytesIO())
            config = archive.extractfile(listed["Config"])
        assert listed["RepoTags"] == [called]
        assert config is not None
        assert config.read() == APP.config
    assert len(contents) == 2  # one a name: archives here name their image
    assert len([it for it in cache.rglob("*") if it.is_file() and not it.is_symlink()]) == 4


def test_the_factories_share_the_file(filled: Place) -> None:
    inodes = [
        {it.stat().st_ino for it in root(filled, factory).iterdir() if it.is_file() and "_meta" not in it.name}
        for factory in ("Docker", "Podman")
    ]
    assert inodes[0] == inodes[1]
    assert len(inodes[0]) == 2


def test_one_container_has_all_its_paths(filled: Place) -> None:
    (found, _) = stage(filled, "app:1", "docker://quay.io/a/b:1", offline=True)
    places = {(it.parent.parent.name, it.parent.name, it.name) for it in found.paths}
    assert places == {
        (f"{factory}ContainerFactory", engine, files["app:1"])
        for factory in VOLATILE
        for engine, files in FILES.items()
    }
    assert (found.name, found.image_id, found.origin) == (NAME, ID, "staged")
    assert found.archive == Digest.of(found.paths[0].read_bytes())


@pytest.mark.parametrize(("scheme", "engine"), [("cwl", "CWLWorkflowEngine"), ("nextflow", "NextflowWorkflowEngine")])
def test_for_one_workflow_engine(place: Place, scheme: str, engine: str) -> None:
    place.engine = Recorder(APP)
    folder = WfexsCache(place.folder / "staged", scheme)
    (found,) = stage(place, "app:1", folder=folder)
    assert {it.parent.name for it in found.paths} == {engine}
    assert len(found.paths) == 2
    (more,) = stage(place, "app:1")
    assert len(more.paths) == 4
    assert more.archive == found.archive


def test_again_gives_the_same_bytes(filled: Place) -> None:
    before = {it.name for it in root(filled, "Docker").iterdir()}
    filled.engine.calls.clear()
    stage(filled, "app:1", "docker://quay.io/a/b:1", force=True)
    assert {it.name for it in root(filled, "Docker").iterdir()} == before
    assert filled.engine.calls.count("save") == 2


def test_what_killed_processes_left_goes(filled: Place) -> None:
    cache = root(filled, "Docker")
    before = sorted(it.name for it in cache.iterdir())
    for name in (".lock", f".{'a' * 64}.lock", f"{'a' * 64}.new", f".{'b' * 64}.new.partial"):
        (cache / name).write_bytes(b"half")
    (cache / ".sha256~a~.partial").write_bytes(b"a second name of an archive")
    (cache / "CWLWorkflowEngine" / ".app:1.img.partial").symlink_to("../nowhere")
    stage(filled, "app:1")
    assert not (cache / "CWLWorkflowEngine" / ".app:1.img.partial").is_symlink()
    assert sorted(it.name for it in cache.iterdir()) == before


def test_no_other_naming(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cwl and nextflow"):
        WfexsCache(tmp_path, "folder")


def test_a_flipped_byte_is_found_and_never_loaded(filled: Place) -> None:
    folder, engine = WfexsCache(filled.folder / "staged"), FakeEngine()
    link = root(filled, "Podman") / "CWLWorkflowEngine" / "app:1.img"
    content = bytearray(link.read_bytes())
    content[len(content) // 2] ^= 1
    link.resolve().chmod(0o644)
    link.resolve().write_bytes(content)
    with pytest.raises(NotVerified):
        arv_docker.deploy(filled.folder / "staged", engine, copies=folder.copies())
    assert engine.calls == []
    bad = {it.path for it in verify(folder.copies(), SilentProgress()) if it.problem}
    assert link in bad
    with pytest.raises(DigestMismatch):
        stage(filled, "app:1")
    stage(filled, "app:1", force=True)
    assert not any(it.problem for it in verify(folder.copies(), SilentProgress()))


def test_metadata_that_do_not_agree(filled: Place) -> None:
    link = root(filled, "Docker") / "CWLWorkflowEngine" / "app:1.img_meta.json"
    document = json.loads(link.read_text())
    document["manifests"][0]["Architecture"] = "other"
    link.resolve().write_text(json.dumps(document))
    with pytest.raises(NotVerified, match="nothing is loaded"):
        arv_docker.deploy(filled.folder / "staged", FakeEngine(), copies=WfexsCache(filled.folder / "staged").copies())


def test_every_byte_of_the_metadata_is_compared(filled: Place) -> None:
    """Of what the handler's signatures leave out, such as the names by digest, the other factory's copy tells."""
    folder = WfexsCache(filled.folder / "staged")
    for factory in ("Docker", "Podman"):
        path = (root(filled, factory) / "CWLWorkflowEngine" / "app:1.img_meta.json").resolve()
        whole = path.read_bytes()
        path.chmod(0o644)
        for number in range(len(whole)):
            damaged = bytearray(whole)
            damaged[number] ^= 1
            path.write_bytes(damaged)
            seen = any(it.problem for it in folder.copies())
            assert seen or any(it.problem for it in verify(folder.copies(), SilentProgress())), whole[:number]
        path.write_bytes(whole)
    assert not any(it.problem for it in folder.copies())


def test_it_is_loaded_once_whatever_the_factories(filled: Place) -> None:
    engine = FakeEngine()
    done = arv_docker.deploy(filled.folder / "staged", engine, copies=WfexsCache(filled.folder / "staged").copies())
    assert [(it.container.name, it.loaded) for it in done] == [(NAME, True), ("quay.io/a/b:1", False)]
    assert engine.images[ID] == canonical_archive(APP)


def test_what_wfexs_wrote_is_not_replaced_unless_forced(place: Place) -> None:
    """Its record has a name as Docker writes it, which is not ours."""
    place.engine = Recorder(OTHER)
    stage(place, "app:1")
    for link in (place.folder / "staged").rglob("app*_meta.json"):
        document = json.loads(link.read_text())
        document["manifests"][0]["RepoTags"] = []
        volatile = VOLATILE["Docker" if "Docker" in str(link) else "Podman"]
        document["manifests_signature"] = signature(document["manifests"], volatile)
        link.resolve().write_text(json.dumps(document))
    place.engine.images.clear()
    place.engine.images[ID] = canonical_archive(APP)
    place.engine.tags = {ID: ["app:1"]}
    with pytest.raises(OtherImage, match="Use --force"):
        stage(place, "app:1")
    (found,) = stage(place, "app:1", force=True)
    assert found.image_id == ID


@pytest.mark.parametrize("name", ["app:1.img", "app:1.img_meta.json"])
@pytest.mark.parametrize("kind", ["file", "link"])
def test_somebody_s_file_in_place_of_a_link_stays_unless_forced(place: Place, name: str, kind: str) -> None:
    place.engine = Recorder(APP)
    path = root(place, "Docker") / "CWLWorkflowEngine" / name
    path.parent.mkdir(parents=True)
    if kind == "file":
        path.write_text("mine")
    else:
        path.symlink_to("../../../elsewhere")
    with pytest.raises(OtherImage, match="no link into this cache"):
        stage(place, "app:1")
    assert [it.name for it in path.parent.iterdir()] == [name]
    assert path.is_symlink() or path.read_text() == "mine"
    stage(place, "app:1", force=True)
    assert trusted(root(place, "Docker"), "CWLWorkflowEngine", ["app:1.img"])[0]


def test_the_archive_is_readable_by_others(filled: Place) -> None:
    from arv_docker.archive.reader import ArchiveReader

    link = root(filled, "Docker") / "CWLWorkflowEngine" / "app:1.img"
    image = ArchiveReader(Bytes(link.read_bytes())).image()
    assert (image.config.digest, image.tags) == (ID, (NAME,))


def test_force_for_one_workflow_engine_leaves_the_other_s_entry_whole(place: Place) -> None:
    """Each of WfExS' engines looks for its own file names, and has the image that was staged for it."""
    place.engine = Recorder(APP)
    stage(place, "app:1")
    place.engine = Recorder(OTHER)
    cwl = WfexsCache(place.folder / "staged", "cwl", progress=place.said)
    (found,) = stage(place, "app:1", force=True, folder=cwl)
    assert found.image_id == OTHER.parsed.digest
    for factory in ("Docker", "Podman"):
        cache = root(place, factory)
        prints = {}
        for engine, names in FILES.items():
            good, prints[engine] = trusted(cache, engine, [names["app:1"]])
            assert good, (factory, engine)
            content = gzip.decompress((cache / engine / names["app:1"]).read_bytes())
            made = OTHER if engine == "CWLWorkflowEngine" else APP
            assert made.config in content
        assert len(set(prints.values())) == 2
    both = WfexsCache(place.folder / "staged")
    assert [it.problem for it in verify(both.copies(), SilentProgress())] == [""] * 4
    (again,) = stage(place, "app:1", folder=cwl)
    assert again.image_id == OTHER.parsed.digest
    nextflow = WfexsCache(place.folder / "staged", "nextflow", progress=place.said)
    (old,) = stage(place, "app:1", folder=nextflow)
    assert old.image_id == ID


# -- a working directory of WfExS ----------------------------------------------------------


def working_directory(filled: Place, engine: str) -> Path:
    """The images of a cache as WfExS' handler transfers them into `stagedContainersDir`: both files, no seal."""
    folder = filled.folder / "containers-of-a-run"
    folder.mkdir()
    names = ["app:1.img", "docker:__quay.io_a_b:1.img"]
    for name in [*names, *(f"{it}_meta.json" for it in names)]:
        shutil.copy(root(filled, engine) / "CWLWorkflowEngine" / name, folder / name)
    return folder


@pytest.mark.parametrize("engine", ["Docker", "Podman"])
def test_whole_files_without_our_seal_are_unsealed_and_not_damaged(filled: Place, run: Run, engine: str) -> None:
    folder = working_directory(filled, engine)
    outcome = run("verify", str(folder))
    assert (outcome.code, outcome.out.count(f"unsealed  {ID.short_hex}")) == (0, 2), outcome
    assert [it["sealed"] for it in json.loads(run("verify", "--json", str(folder)).out)] == [False, False]
    loaded = FakeEngine()
    deployed = arv_docker.deploy(folder, loaded, progress=filled.said)
    assert [(it.engine_id, it.loaded) for it in deployed] == [(ID, True), (ID, False)]
    assert "2 of 2 files" in filled.said.text
    shutil.rmtree(cache_folder() / "entries")
    injected = [it.container for it in deployed]
    (again,) = filled.stage("app:1", into="fresh", injected=injected, origins=())
    assert (again.origin, again.image_id) == ("injected", ID)
    shutil.rmtree(cache_folder() / "entries")
    done = run("stage", "--inject", str(folder), "--from", "engine", "--dir", str(filled.folder / "cli"), "app:1")
    assert done.code == 0, done
    assert "as it was given" in done.err


@pytest.mark.parametrize(
    ("spoil", "state"),
    [
        (lambda path, meta: path.write_bytes(path.read_bytes()[:-1] + b"x"), "is not as it was staged"),
        (lambda path, meta: path.unlink(), "cannot be read"),
        (lambda path, meta: meta.write_text(meta.read_text()[:-1]), "cannot be used"),
        (
            lambda path, meta: meta.write_text(meta.read_text().replace(ID.hex, "0" * 64)),
            "cannot be used",
        ),
        (lambda path, meta: meta.write_bytes(b'{"seal": "x", ' + meta.read_bytes()[1:]), "cannot be used"),
    ],
)
def test_files_of_wfexs_that_are_not_whole_are_damaged(filled: Place, spoil: Any, state: str, run: Run) -> None:
    folder = working_directory(filled, "Docker")
    path = folder / "app:1.img"
    spoil(path, metadata_path(path))
    outcome = run("verify", str(folder))
    assert outcome.code == 5
    assert "BAD" in outcome.out
    assert state in outcome.err
    with pytest.raises(NotVerified):
        arv_docker.deploy(folder, FakeEngine())


def sif_entry(cache: Path, name: str, content: bytes, **more: str) -> None:
    """An entry as WfExS' handler for Singularity has it."""
    text = fingerprint(content).replace("=", "~").replace("/", "-").replace("+", "_")
    links = cache / "CWLWorkflowEngine"
    links.mkdir(parents=True)
    metadata = {"image_signature": fingerprint(content), "registryServer": "docker.io", "registryType": "docker"}
    metadata |= {"repo": "library/app", "alias": "1", "dcd": str(ID), "manifest": "{}", **more}
    (cache / text).write_bytes(content)
    (cache / f"{text}_meta.json").write_text(json.dumps(metadata))
    for suffix in ("", "_meta.json"):
        (links / f"{name}{suffix}").symlink_to(f"../{text}{suffix}")


def test_singularity_s_entries_of_a_cache_are_listed(place: Place, run: Run) -> None:
    content = bytes(32) + b"SIF_MAGIC" + bytes(100)
    cache = place.folder / "wfexs" / "containers" / "SingularityContainerFactory"
    sif_entry(cache, "app:1.img", content)
    (copy,) = WfexsCache(place.folder / "wfexs").copies()
    assert copy.metadata is not None
    assert (copy.metadata.name, copy.metadata.archive) == ("docker.io/library/app:1", Digest.of(content))
    outcome = run("verify", str(place.folder / "wfexs"))
    assert outcome.code == 0, outcome
    assert "CWLWorkflowEngine/app:1.img" in outcome.out
    next(cache.glob("sha256*~")).write_bytes(content + b"x")
    assert run("verify", str(place.folder / "wfexs")).code == 5

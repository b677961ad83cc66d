# SPDX-License-Identifier: Apache-2.0
"""Images staged as SIF files: built of verified archives, kept with their hash, and deployed to who runs them."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from arv_docker.api import deploy
from arv_docker.engines.apptainer import Apptainer
from arv_docker.errors import DigestMismatch, EngineError, NoSuchImage, NotAnImage, NotVerified, OtherImage
from arv_docker.local.progress import SilentProgress
from arv_docker.staging import Container
from arv_docker.staging.deployment import accepts
from arv_docker.staging.folder import PlainFolder
from arv_docker.staging.sifs import SifFolder
from arv_docker.staging.staged import verify, wanted_images
from arv_docker.store.content_store import entries_in
from arv_docker.store.filenames import SIF_SCHEMES, naming
from arv_docker.store.tarballs import cache_folder

from ..archives import canonical_archive
from ..engines.apptainer import Scripted, sif_of
from .conftest import APP, OTHER, Place

ID = APP.parsed.digest
NAME = "docker.io/library/app:1"
MADE = sif_of(canonical_archive(APP))


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scripted:
    return Scripted(tmp_path / "bin", monkeypatch)


@pytest.fixture
def stored(place: Place, program: Scripted) -> Place:
    """The image is in Keep."""
    place.store(APP, "app:1")
    return place


def staged(place: Place, *names: str, scheme: str = "plain", force: bool = False) -> tuple[Container, ...]:
    folder = SifFolder(place.folder / "staged", naming(scheme, SIF_SCHEMES))
    return place.stage(*(names or ["app:1"]), folder=folder, force=force)


# -- what is staged ------------------------------------------------------------------------


def test_it_is_built_of_the_image(stored: Place, program: Scripted) -> None:
    (found,) = staged(stored)
    (path,) = found.paths
    assert path.name == "app%3A1.sif"
    assert path.read_bytes() == MADE
    assert (found.name, found.image_id, found.origin, found.is_sif) == (NAME, ID, "keep", True)
    assert stored.files() == ["app%3A1.sif", "app%3A1.sif_meta.json"]
    assert [it.problem for it in verify(SifFolder(path.parent).copies(), SilentProgress())] == [""]


def test_what_is_there_is_not_built_again(stored: Place, program: Scripted) -> None:
    (first,) = staged(stored)
    (again,) = staged(stored)
    assert (again.archive, again.origin) == (first.archive, "staged")
    assert len(program.builds) == 1
    (named,) = staged(stored, scheme="cwl")
    assert [it.name for it in named.paths] == ["app:1.sif"]
    assert len(program.builds) == 2


def test_another_spelling_is_the_same_file(stored: Place, program: Scripted) -> None:
    (first,) = staged(stored, scheme="nextflow")
    (both,) = staged(stored, "app:1", "library/app:1", scheme="nextflow")
    assert [it.name for it in both.paths] == ["app-1.img", "library-app-1.img"]
    assert both.paths[0].samefile(both.paths[1])
    assert both.archive == first.archive
    assert len(program.builds) == 1


def test_force_builds_it_again(stored: Place, program: Scripted) -> None:
    (first,) = staged(stored)
    first.paths[0].write_bytes(b"damaged")
    with pytest.raises(DigestMismatch, match="not as it was staged"):
        staged(stored)
    (again,) = staged(stored, force=True)
    assert again.paths[0].read_bytes() == MADE
    assert len(program.builds) == 2


def test_force_replaces_what_the_name_was_before(stored: Place, program: Scripted) -> None:
    staged(stored, scheme="folder")
    stored.stage("app:1")
    stored.engine.images.clear()
    stored.store(OTHER, "app:1")
    (kept,) = staged(stored, scheme="folder")
    assert kept.image_id == ID
    (found,) = staged(stored, scheme="folder", force=True)
    name = f"app_1_{OTHER.parsed.digest.short_hex}.sif"
    assert found.image_id == OTHER.parsed.digest
    assert stored.files() == [name, f"{name}_meta.json"]


def test_somebody_s_file_of_that_name_stays(stored: Place, program: Scripted) -> None:
    path = stored.folder / "staged" / "app%3A1.sif"
    path.parent.mkdir()
    path.write_bytes(MADE)  # of the same image or not: nothing says so
    with pytest.raises(OtherImage, match="--force"):
        staged(stored)
    assert program.builds == []
    assert stored.files() == ["app%3A1.sif"]
    staged(stored, force=True)
    assert len(stored.files()) == 2


def test_two_images_are_not_put_under_one_name(stored: Place, program: Scripted) -> None:
    stored.store(OTHER, "other:1")
    staged(stored, scheme="{tag}.sif")
    with pytest.raises(OtherImage, match="same file name"):
        staged(stored, "other:1", scheme="{tag}.sif")
    assert len(program.builds) == 1


# -- beside archives -----------------------------------------------------------------------


def test_it_is_built_of_the_archive_that_is_staged(stored: Place, program: Scripted) -> None:
    """The name means another image by now; the workflow gets what it got."""
    stored.stage("app:1")
    stored.store(OTHER, "app:1")
    (found,) = staged(stored)
    assert found.image_id == ID
    assert found.paths[0].read_bytes() == MADE
    assert len(stored.files()) == 4


def test_an_archive_is_not_read_out_of_it(stored: Place, program: Scripted) -> None:
    (sif,) = staged(stored)
    (archive,) = stored.stage("app:1")
    assert not archive.is_sif
    assert archive.paths[0].read_bytes() == canonical_archive(APP)
    with pytest.raises(NotAnImage, match="SIF file"), sif.open():
        pass
    again = [stored.stage("app:1"), staged(stored)]
    assert [it.origin for (it,) in again] == ["staged", "staged"]


@pytest.mark.conforms("W21")
def test_of_what_is_given_in_both_forms_the_archive_is_taken(stored: Place, program: Scripted) -> None:
    both = [*stored.stage("app:1", into="archives"), *staged(stored)]
    shutil.rmtree(entries_in(cache_folder()).root)
    for given in (both, both[::-1]):
        (found,) = stored.stage("app:1", into=f"from{len(stored.said.lines)}", injected=given, origins=())
        assert found.paths[0].read_bytes() == canonical_archive(APP)
        shutil.rmtree(entries_in(cache_folder()).root)
    with pytest.raises(NotAnImage, match="SIF file"):
        stored.stage("app:1", into="last", injected=both[1:], origins=())


# -- what is not trusted, and what goes wrong ----------------------------------------------


def test_an_altered_archive_does_not_reach_apptainer(stored: Place, program: Scripted) -> None:
    """What is staged, or in the cache, is read and compared first: Apptainer would run it."""
    (archive,) = stored.stage("app:1")
    content = archive.paths[0].read_bytes().replace(b"appapp", b"ppappa", 1)
    archive.paths[0].chmod(0o644)
    archive.paths[0].write_bytes(content)  # a hard link: the cache's too
    with pytest.raises(DigestMismatch):
        staged(stored)
    with pytest.raises(NotVerified):
        deploy(stored.folder / "staged", Apptainer())
    assert program.builds == []
    fetched = staged(stored, force=True)
    assert fetched[0].paths[0].read_bytes() == MADE


def test_the_archive_of_the_cache_is_altered(stored: Place, program: Scripted) -> None:
    stored.stage("app:1", into="elsewhere")
    (path,) = entries_in(cache_folder()).contents()
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"appapp", b"ppappa", 1))
    (found,) = staged(stored)
    assert found.paths[0].read_bytes() == MADE
    assert "fetched again" in stored.said.text
    assert [bytes.fromhex(it["archive"]) for it in program.builds] == [canonical_archive(APP)]


def test_an_archive_of_another_image(stored: Place, program: Scripted) -> None:
    """Its layers are right and its image is not the one that its metadata name."""
    (archive,) = stored.stage("app:1")
    folder = SifFolder(archive.paths[0].parent / "other")
    (entry,) = (entries_in(cache_folder()).entry(it) for it in entries_in(cache_folder()).contents())
    assert entry is not None
    wrong = replace(entry, metadata=replace(entry.metadata, image_id=OTHER.parsed.digest))
    with pytest.raises(DigestMismatch, match="should hold image"):
        folder.put(wanted_images(["app:1"])[0], wrong, entries_in(cache_folder()), force=False)
    assert program.builds == []


@pytest.mark.parametrize("how", ["fail", "nothing"])
def test_a_build_that_fails_leaves_what_was_there(how: str, stored: Place, program: Scripted) -> None:
    staged(stored)
    before = {name: (stored.folder / "staged" / name).read_bytes() for name in stored.files()}
    program.answer(how)
    with pytest.raises(EngineError):
        staged(stored, force=True)
    assert {name: (stored.folder / "staged" / name).read_bytes() for name in stored.files()} == before


_STAGE = """
from pathlib import Path
import os, signal, sys
from arv_docker.store import content_store, tarballs
from arv_docker.staging import sifs
from arv_docker.staging.staged import wanted_images
when = sys.argv[2]
if when != "building":
    real = getattr(sifs, when)
    def die(*words):
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(sifs, when, die)
cache = content_store.entries_in(tarballs.cache_folder())
(entry,) = (cache.entry(it) for it in cache.contents())
sifs.SifFolder(Path(sys.argv[1])).put(wanted_images(["app:1"])[0], entry, cache, force=False)
"""


@pytest.mark.parametrize("when", ["write_file", "link_or_copy", "_name_metadata"])
def test_killed_while_it_is_deployed_the_next_run_completes(when: str, stored: Place, program: Scripted) -> None:
    """Before the metadata, between them and the file, and between the file and their name."""
    stored.stage("app:1")
    folder = stored.folder / "staged"
    killed = subprocess.run([sys.executable, "-c", _STAGE, str(folder), when])
    assert killed.returncode == -9
    assert [it.problem for it in verify(PlainFolder(folder).copies(), SilentProgress())] == [""]
    (done,) = deploy(folder, Apptainer())
    assert done.container.paths[0].read_bytes() == MADE
    assert len(program.builds) == (1 if when == "_name_metadata" else 2)
    assert stored.files() == [f"app%3A1.{it}" for it in ("sif", "sif_meta.json", "tar", "tar_meta.json")]


@pytest.mark.parametrize("when", ["building", "hash_of", "write_file", "link_or_copy"])
def test_killed_in_the_middle_the_next_run_completes(when: str, stored: Place, program: Scripted) -> None:
    """In the build, after it, before the metadata, between them and the file."""
    stored.stage("app:1", into="elsewhere")
    path = stored.folder / "staged" / "app%3A1.sif"
    program.answer("killed" if when == "building" else "well")
    killed = subprocess.run([sys.executable, "-c", _STAGE, str(path.parent), when])
    assert killed.returncode == -9
    assert not path.exists()
    assert len(list(path.parent.glob(".*.building"))) == 1
    program.answer("well")
    (archive,) = stored.stage("app:1")  # does not mind
    archive.paths[0].unlink()
    archive.metadata_paths[0].unlink()
    (found,) = staged(stored)
    assert found.paths[0].read_bytes() == MADE
    assert stored.files() == ["app%3A1.sif", "app%3A1.sif_meta.json"]
    assert [it.problem for it in verify(PlainFolder(path.parent).copies(), SilentProgress())] == [""]


def test_interrupted_in_the_middle_nothing_is_left(stored: Place, program: Scripted) -> None:
    """By Ctrl-C: what was started ends too."""
    stored.stage("app:1", into="elsewhere")
    program.answer("slow")
    folder = stored.folder / "staged"
    words = ["stage", "--offline", "--format=sif", "app:1", f"--dir={folder}"]
    process = subprocess.Popen([sys.executable, "-m", "arv_docker.cli.arv_docker", *words], stderr=subprocess.PIPE)
    while not program.builds:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"interrupted" in said
    assert list(folder.iterdir()) == []
    assert not Path(f"/proc/{program.builds[0]['process']}").exists()


def test_several_at_once_build_it_once(stored: Place, program: Scripted) -> None:
    stored.stage("app:1", into="elsewhere")
    with ThreadPoolExecutor(4) as pool:
        found = [it.result() for it in [pool.submit(staged, stored) for _ in range(4)]]
    assert len({it.archive for (it,) in found}) == 1
    assert len(program.builds) == 1
    assert stored.files() == ["app%3A1.sif", "app%3A1.sif_meta.json"]


# -- deploying -----------------------------------------------------------------------------


def test_deployed_to_apptainer_a_file_is_built_once(stored: Place, program: Scripted) -> None:
    stored.stage("app:1")
    folder = stored.folder / "staged"
    (first,) = deploy(folder, Apptainer())
    (second,) = deploy(folder, Apptainer())
    assert (first.loaded, second.loaded) == (True, False)
    assert first.engine_id == second.engine_id == ID
    assert first.container.paths == second.container.paths == (folder / "app%3A1.sif",)
    assert len(program.builds) == 1


def test_an_altered_file_is_refused(stored: Place, program: Scripted) -> None:
    (found,) = staged(stored)
    content = bytearray(MADE)
    content[-1] ^= 1
    found.paths[0].write_bytes(content)
    with pytest.raises(NotVerified):
        deploy(stored.folder / "staged", Apptainer())
    (bad,) = verify(PlainFolder(stored.folder / "staged").copies(), SilentProgress())
    assert "not as it was staged" in bad.problem


@pytest.mark.conforms("W22")
def test_which_engines_take_which_images() -> None:
    docker, sif = {"docker", "udocker", "podman"}, {"singularity"}
    kinds = docker | sif | {"conda", "none"}
    takes = {engine: {kind for kind in kinds if accepts(engine, [kind])} for engine in ("docker", "podman", "none")}
    assert takes == {"docker": docker, "podman": docker, "none": {"none"}}
    for engine in ("apptainer", "singularity"):
        assert {kind for kind in kinds if accepts(engine, [kind])} == docker | sif
    assert accepts("docker", ["singularity", "podman"])  # any that overlaps
    assert not accepts("none", kinds - {"none"})


@pytest.mark.conforms("W22")
def test_docker_gets_no_sif_file(stored: Place, program: Scripted) -> None:
    staged(stored)
    stored.engine.images.clear()
    with pytest.raises(NoSuchImage, match="nothing that docker takes"):
        deploy(stored.folder / "staged", stored.engine, progress=stored.said)
    assert "app%3A1.sif is left out: docker takes no SIF files" in stored.said.text
    stored.said.lines.clear()
    stored.stage("app:1")
    (done,) = deploy(stored.folder / "staged", stored.engine, progress=stored.said)
    assert (done.loaded, done.container.is_sif) == (True, False)
    assert "left out" not in stored.said.text

# SPDX-License-Identifier: Apache-2.0
"""Staged images and the cache when things go wrong: many at once, kill -9 at any moment, flipped bytes, a full disk."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from arv_docker import api, maintenance
from arv_docker.engines.docker import Docker as Command
from arv_docker.errors import ArvDockerError, ContentError
from arv_docker.integrations.wfexs import WfexsCache
from arv_docker.local.disk import hash_of
from arv_docker.local.progress import SilentProgress
from arv_docker.staging.folder import PlainFolder
from arv_docker.staging.staged import verify
from arv_docker.store.content_store import entries_in
from arv_docker.store.tarballs import cache_folder

from . import dying
from .disks import assert_full, enlarge, files_in, small_disk
from .engines import Docker, Engine, Image, Podman
from .sites import Done, cached, command, finished, show, started
from .test_altered import flip
from .test_drop_in_upstream import Saves
from .test_folder_faults import digests, flipped
from .watching import watching

VariantOf = Callable[[Image, str], Image]
Run = Callable[..., Done]

pytestmark = pytest.mark.engine("docker", "busybox")

ENTRIES = "arvados/docker/entries"


@pytest.fixture
def three(docker: Docker, small_image: Image, variant_of: VariantOf) -> list[Image]:
    """Three images with two layers in common."""
    return [small_image, variant_of(small_image, "arvtest/web:2"), variant_of(small_image, "arvtest/web_ui:1")]


@pytest.fixture
def run(docker: Docker) -> Run:
    """Runs `arv-docker WORD…`."""

    def run(*words: str | Path, engine: Engine = docker, **variables: str) -> Done:
        return finished(started(command(*words), engine.environment | variables))

    return run


def home_of(folder: Path) -> dict[str, str]:
    return {"HOME": str(folder), "XDG_CACHE_HOME": f"{folder}/.cache"}


def stage(folder: Path, *names: str) -> list[str]:
    return ["stage", "--from=engine", "--dir", str(folder), *names]


@pytest.mark.conforms("W25")
def test_many_at_once_save_once(
    docker: Docker, three: list[Image], run: Run, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [image.reference for image in three]
    assert run(*stage(tmp_path / "expected", *names), **home_of(tmp_path / "home")).status == 0
    expected = digests(tmp_path / "expected")
    assert len(expected) == 6
    contents = digests(tmp_path / "home/.cache" / ENTRIES)
    folder, entries = tmp_path / "images", home / ".cache" / ENTRIES
    folder.mkdir()
    entries.mkdir(parents=True)
    saves = Saves(docker)
    with watching(expected | contents, folder, entries) as watched:
        processes = [started(command(*stage(folder, *names)), docker.environment) for _ in range(20)]
        done = [finished(process) for process in processes]
    assert [one.status for one in done] == [0] * 20, [one.told for one in done if one.status]
    assert watched.wrong == []
    assert set(watched.appeared) == set(expected | contents)
    assert saves.count == 3
    assert digests(folder) == expected
    assert digests(entries) == contents
    assert run("verify", folder).status == 0
    assert run("cache", "verify").status == 0
    waited = sum("waiting for it" in one.err for one in done)
    show(capsys, f"20 at once: {saves.count} saves, {waited} waited, {len(watched.appeared)} files appeared whole")


def test_gc_meanwhile_takes_nothing_that_is_needed(
    docker: Docker, three: list[Image], run: Run, tmp_path: Path, home: Path
) -> None:
    names = [image.reference for image in three]
    words = [["cache", "gc"] if number % 2 else stage(tmp_path / f"{number}", *names) for number in range(6)]
    done = [finished(it) for it in [started(command(*line), docker.environment) for line in words]]
    assert [one.status for one in done] == [0] * 6, [one.told for one in done if one.status]
    for number in range(0, 6, 2):
        assert run("verify", tmp_path / f"{number}").status == 0
    assert run("cache", "verify").status == 0
    assert len(entries_in(cache_folder()).contents()) == 3
    assert [it for it in cached(home) if it.endswith((".lock", ".partial", ".new"))] == []


@pytest.mark.parametrize(
    ("layout", "times"),
    [("plain", 8), *(pytest.param(layout, 50, marks=pytest.mark.long) for layout in ("plain", "wfexs"))],
)
def test_killed_at_any_moment(
    layout: str, times: int, docker: Docker, three: list[Image], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [image.reference for image in three[:2]]

    def case(number: int) -> tuple[Callable[[], int], Path, Path]:
        folder, home = tmp_path / f"images-{number}", tmp_path / f"home-{number}"
        words = stage(folder, f"--layout={layout}", *names)
        return dying.command(*words, environment=docker.environment | home_of(home)), folder, home

    whole, folder, home = case(0)
    moments = dying.moments(whole, times)
    expected, kept = everything(folder), cached(home)
    assert expected == visible(folder)
    states, kills = set(), 0
    for number in moments:
        work, folder, home = case(number)
        kills += dying.killed(work, number)
        there = visible(folder)
        states.add((*files_in(folder), *cached(home)))
        assert {name: expected.get(name) for name in there} == there, f"killed at {number}"
        if number % 2:  # else the next run meets all that was left
            assert set(collected(home)) <= set(kept), f"killed at {number}"
        assert dying.ended(work)[0] == 0
        assert everything(folder) == expected, f"killed at {number}"
        assert problems(folder, layout) == []
        assert collected(home) == kept, f"killed at {number}"
        shutil.rmtree(folder)
        shutil.rmtree(home)
    assert kills >= len(moments) - 2
    show(capsys, f"{layout}: killed at {kills} moments of {moments[-1]}, {len(states)} states: nothing wrong in any")


def problems(folder: Path, layout: str = "plain") -> list[str]:
    """The staged archives that are not as they were staged."""
    form = WfexsCache(folder) if layout == "wfexs" else PlainFolder(folder)
    return [it.path.name for it in verify(form.copies(), SilentProgress()) if it.problem]


def everything(folder: Path) -> dict[str, object]:
    """The files below a folder and what links there lead to, with their SHA-256; None for a link to nothing."""
    found = [path for path in folder.rglob("*") if not path.is_dir()]
    return {str(path.relative_to(folder)): hash_of(path, lambda _: None) for path in found}


def visible(folder: Path) -> dict[str, object]:
    """Those that have their final names."""
    paths = everything(folder).items()
    return {path: it for path, it in paths if not Path(path).name.startswith(".") and not path.endswith(".new")}


def collected(home: Path) -> list[str]:
    """What `cache gc` leaves; all of it serves."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in home_of(home).items():
            patch.setenv(name, value)
        found = maintenance.Cache(cache_folder(), SilentProgress())
        found.gc()
        assert [problem for _, problem in found.verify() if problem] == []
    return cached(home)


@pytest.mark.conforms("W7", "W19")
@pytest.mark.parametrize("flips", [20, pytest.param(200, marks=pytest.mark.long)])
def test_a_flipped_byte_is_found_and_goes_nowhere(
    flips: int,
    three: list[Image],
    second_docker: Docker,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In the cache, and in a folder that was staged on another disk, so that it has copies of its own."""
    folder = tmp_path / "images"
    names = [image.reference for image in three]
    assert run(*stage(folder, *names)).status == 0
    unlinked(folder)
    for name, value in second_docker.environment.items():
        monkeypatch.setenv(name, value)
    entries = entries_in(cache_folder())
    in_cache = [path for path in entries.root.iterdir() if path.is_file()]
    staged = list(folder.iterdir())
    assert (len(in_cache), len(staged)) == (6, 6)
    chance = random.Random(flips)
    for number in range(flips):
        # Metadata are a thousandth of the bytes; so each kind has its share.
        path = chance.choice((in_cache, staged)[number % 2])
        place, bit = chance.randrange(path.stat().st_size), 1 << chance.randrange(8)
        what = f"byte {place} of {path.name}, bit {bit}"
        with flipped(path, place, bit):
            if path in staged:
                assert problems(folder) == [path.name.removesuffix("_meta.json")], what
                with pytest.raises(ContentError):
                    api.deploy(folder, Command())
            else:
                found = [
                    (kept.path.name, problem)
                    for kept, problem in maintenance.Cache(cache_folder(), SilentProgress()).verify()
                ]
                assert [it for it, problem in found if problem] == [path.name.removesuffix("_meta.json")], what
                offline = tmp_path / f"offline-{number}"
                with pytest.raises(ArvDockerError):
                    api.materialize(names, offline, offline=True)
                altered = [it for it in visible(offline) if it.removesuffix("_meta.json") == path.name]
                assert altered == [], what
                assert problems(offline) == []
    assert second_docker.image_ids() == set()
    assert {it.container.image_id.hex for it in api.deploy(folder, Command())} == {
        image.id.removeprefix("sha256:") for image in three
    }
    show(capsys, f"{flips} flips in the cache and in a staged folder: all found, none staged or loaded")


def unlinked(folder: Path) -> None:
    """The files of a folder are no longer those of the cache, as on another disk."""
    for path in list(folder.iterdir()):
        copy = path.with_name(f"{path.name}.copy")
        shutil.copyfile(path, copy)
        copy.rename(path)


def test_a_damaged_entry_is_fetched_again(docker: Docker, small_image: Image, run: Run, tmp_path: Path) -> None:
    assert run(*stage(tmp_path / "one", small_image.reference)).status == 0
    (path,) = entries_in(cache_folder()).contents()
    flip(path, path.stat().st_size // 2)
    done = run(*stage(tmp_path / "two", small_image.reference))
    assert done.status == 0, done.told
    assert "fetched again" in done.err
    assert run("verify", tmp_path / "two").status == 0
    assert run("cache", "verify").status == 0


@pytest.mark.conforms("W11")
@pytest.mark.engine("podman")
def test_one_image_is_one_entry_whoever_saves_it(
    docker: Docker, podman: Podman, small_image: Image, run: Run, tmp_path: Path
) -> None:
    podman.run("load", stdin=docker.run("save", small_image.id).stdout)
    for name in ("arvtest/other:1", small_image.reference):
        podman.run("tag", small_image.id, name)
    assert run(*stage(tmp_path / "one", small_image.reference)).status == 0
    assert run(*stage(tmp_path / "two", "--engine=podman", "--force", "arvtest/other:1"), engine=podman).status == 0
    assert len(entries_in(cache_folder()).contents()) == 1
    (one,) = (digest for name, digest in digests(tmp_path / "one").items() if name.endswith(".tar"))
    (two,) = (digest for name, digest in digests(tmp_path / "two").items() if name.endswith(".tar"))
    assert one == two
    for name, options in (("a", ()), ("b", ("--engine=podman",))):
        engine: Engine = podman if options else docker
        for form in ((), ("--compress",)):
            words = ("folder", "update", "--dir", tmp_path / name, *options, *form, small_image.reference)
            for _ in range(2):
                assert run(*words, engine=engine).status == 0
            assert len(files_in(tmp_path / name)) == 1
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


@pytest.mark.engine("mount")
def test_a_full_disk(docker: Docker, small_image: Image, run: Run, tmp_path: Path, home: Path) -> None:
    """That of the cache, and that of the folder: nothing is half there, and with room it goes on."""
    name = small_image.reference
    with small_disk(tmp_path / "cache", 1 << 20) as disk:
        assert_full(run(*stage(tmp_path / "images", name), XDG_CACHE_HOME=str(disk)), disk)
        assert files_in(disk) == files_in(tmp_path / "images") == []
        enlarge(disk, 3 << 20)  # enough for what the engine saves, and not for the archive beside it
        assert_full(run(*stage(tmp_path / "images", name), XDG_CACHE_HOME=str(disk)), disk)
        assert {Path(it).suffix for it in files_in(disk)} <= {".tar", ".stat"}
        assert files_in(tmp_path / "images") == []
        enlarge(disk, 64 << 20)
        assert run(*stage(tmp_path / "images", name), XDG_CACHE_HOME=str(disk)).status == 0
    with small_disk(tmp_path / "folder", 1 << 20) as disk:
        assert_full(run(*stage(disk, name)), disk)
        assert files_in(disk) == []
        enlarge(disk, 64 << 20)
        assert run(*stage(disk, name)).status == 0
        assert run("verify", disk).status == 0
    assert len(entries_in(cache_folder()).contents()) == 1
    assert [it for it in cached(home) if ".partial" in it or ".lock" in it or it.endswith(".new")] == []


@pytest.mark.engine("mount", "podman")
def test_no_room_to_deploy_into_podman(
    podman: Podman, docker: Docker, small_image: Image, run: Run, tmp_path: Path
) -> None:
    """Podman writes what it is given to a file first."""
    assert run(*stage(tmp_path / "images", small_image.reference)).status == 0
    words = ("deploy", "--engine=podman", tmp_path / "images")
    with small_disk(tmp_path / "small", 1 << 20) as disk:
        assert_full(run(*words, engine=podman, TMPDIR=str(disk)), disk, "podman has no room for image")
        assert files_in(disk) == []
        assert podman.image_ids() == set()
        enlarge(disk, 64 << 20)
        assert run(*words, engine=podman, TMPDIR=str(disk)).status == 0
    assert podman.image_ids() == {small_image.id}


@pytest.mark.long
@pytest.mark.engine("mount")
def test_no_room_to_deploy_into_docker(
    engine_scratch: Path, docker: Docker, base_image: Image, run: Run, tmp_path: Path
) -> None:
    assert run(*stage(tmp_path / "images", base_image.reference)).status == 0
    words = ("deploy", tmp_path / "images")
    with small_disk(engine_scratch / "small", 48 << 20) as disk:
        full = Docker(disk)
        try:
            assert_full(run(*words, engine=full), disk, "docker has no room for image")
            assert full.image_ids() == set()
            enlarge(disk, 512 << 20)
            assert run(*words, engine=full).status == 0
            assert full.image_ids() == {base_image.id}
        finally:
            full.close()

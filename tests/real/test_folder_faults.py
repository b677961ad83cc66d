# SPDX-License-Identifier: Apache-2.0
"""A folder of archives when things go wrong: many at once, kill -9 at any moment, flipped bytes, a full disk."""

import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from arv_docker.arvados.client import Cluster
from arv_docker.engines.docker import Docker as Command
from arv_docker.errors import ContentError
from arv_docker.ingest.service import Ingest, Options
from arv_docker.local.disk import hash_of
from arv_docker.local.progress import SilentProgress
from arv_docker.model.image import Digest
from arv_docker.model.reference import Reference
from arv_docker.publishing.folder import ArchiveFolder
from arv_docker.site import LocalSite
from arv_docker.store.cache import CacheFolder
from arv_docker.store.tarballs import cache_folder
from arv_docker.transports import names
from arv_docker.transports.docker_daemon import NamedDestination

from . import dying
from .disks import assert_full, enlarge, files_in, small_disk
from .engines import Docker, Image
from .sites import Done, Site, cached, command, finished, show, started
from .test_altered import flip
from .test_drop_in_upstream import Saves
from .watching import watching

#: The cache of the test's user.
CACHE = CacheFolder(cache_folder)

TERMINATED = 143

VariantOf = Callable[[Image, str], Image]

pytestmark = pytest.mark.engine("docker", "busybox")


@pytest.fixture
def three(docker: Docker, small_image: Image, variant_of: VariantOf) -> list[Image]:
    """Three images with two layers in common."""
    return [small_image, variant_of(small_image, "arvtest/web:2"), variant_of(small_image, "arvtest/web_ui:1")]


@pytest.fixture
def run(docker: Docker) -> Callable[..., Done]:
    """Runs `arv-docker folder COMMAND --dir FOLDER …`."""

    def run(word: str, folder: Path, *words: str, **variables: str) -> Done:
        return finished(started(command("folder", word, "--dir", folder, *words), docker.environment | variables))

    return run


def digests(folder: Path) -> dict[str, Digest]:
    """The SHA-256 of each file in the folder."""
    found = {path.name: hash_of(path, lambda _: None) for path in folder.iterdir()}
    return {name: digest for name, digest in found.items() if digest is not None}


def test_many_updates_at_once_save_once(
    docker: Docker, three: list[Image], run: Callable[..., Done], tmp_path: Path, home: Path
) -> None:
    folder, options = tmp_path / "images", ("--compress", "--clean")
    folder.mkdir()
    for image in three:
        assert run("update", tmp_path / "expected", image.reference, *options).status == 0
    expected = digests(tmp_path / "expected")
    assert len(expected) == 3
    saves = Saves(docker)
    words = ("folder", "update", "--dir", str(folder))
    with watching(expected, folder) as watched:
        processes = [started(command(*words, *options, it.reference), docker.environment) for it in three * 4]
        done = [finished(process) for process in processes]
    assert [one.status for one in done] == [0] * 12, [one.told for one in done]
    assert watched.wrong == []
    assert sorted(watched.appeared) == sorted(expected)
    assert saves.count == 3
    assert digests(folder) == expected
    assert cached(home) == []


@pytest.mark.conforms("G15")
@pytest.mark.parametrize("times", [6, pytest.param(50, marks=pytest.mark.long)])
def test_killed_at_any_moment(
    times: int,
    docker: Docker,
    three: list[Image],
    run: Callable[..., Done],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In the place of an older build, with `--clean` and `--compress`: one of both is whole, all the time."""
    older, newer, _ = three
    docker.run("tag", older.id, "arvtest/killed:dev")
    assert run("update", tmp_path / "before", "arvtest/killed:dev").status == 0
    docker.run("tag", newer.id, "arvtest/killed:dev")

    def case(number: int) -> tuple[Callable[[], int], Path, Path]:
        folder, home = tmp_path / f"images-{number}", tmp_path / f"home-{number}"
        shutil.copytree(tmp_path / "before", folder)
        variables = {"HOME": str(home), "XDG_CACHE_HOME": f"{home}/.cache"}
        words = ("folder", "update", "--dir", folder, "--clean", "--compress", "arvtest/killed:dev")
        return dying.command(*words, environment=docker.environment | variables), folder, home

    whole, folder, _ = case(0)
    moments = dying.moments(whole, times)
    expected = digests(folder)
    assert len(expected) == 1
    states, kills = set(), 0
    for number in moments:
        work, folder, home = case(number)
        kills += dying.killed(work, number)
        states.add((*files_in(folder), *cached(home)))
        checked = list(ArchiveFolder(folder).verify())
        assert checked, f"killed at {number}: nothing is there any more"
        assert [it.problem for it in checked if it.problem] == [], f"killed at {number}"
        if number % 2:  # else the next run meets all that was left
            assert collected(docker, home) == []
        assert dying.ended(work)[0] == 0
        assert digests(folder) == expected
        assert collected(docker, home) == []
    docker.run("rmi", "arvtest/killed:dev")
    assert kills >= len(moments) - 2
    show(
        capsys,
        f"killed at {kills} moments of {moments[-1]}, {len(states)} states: each time one build was whole",
    )


def collected(docker: Docker, home: Path) -> list[str]:
    """What `arv-docker cache gc` leaves in the cache."""
    variables = {"HOME": str(home), "XDG_CACHE_HOME": f"{home}/.cache"}
    status, _ = dying.ended(dying.command("cache", "gc", environment=docker.environment | variables))
    assert status == 0
    return cached(home)


@pytest.mark.parametrize("flips", [20, pytest.param(200, marks=pytest.mark.long)])
def test_a_flipped_byte_is_found_and_goes_nowhere(
    flips: int,
    three: list[Image],
    second_docker: Docker,
    run: Callable[..., Done],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "images"
    for image, options in zip(three, ([], ["--compress"], []), strict=True):
        assert run("update", folder, image.reference, *options).status == 0
    for name, value in second_docker.environment.items():
        monkeypatch.setenv(name, value)
    archives = ArchiveFolder(folder).images()
    chance = random.Random(flips)
    with LocalSite(tmp_path / "site") as running:
        cluster = Cluster.at_url(running.url, running.token)
        ingest = Ingest(cluster, Options(cache_folder()), SilentProgress())
        for _ in range(flips):
            archive = chance.choice(archives)
            place, bit = chance.randrange(archive.path.stat().st_size), 1 << chance.randrange(8)
            what = f"byte {place} of {archive.path.name}, bit {bit}"
            with flipped(archive.path, place, bit):
                bad = [it.archive.path for it in ArchiveFolder(folder).verify() if it.problem]
                assert bad == [archive.path], what
                text = f"folder:{folder}:{archive.name.image}:{archive.name.version}"
                with pytest.raises(ContentError):
                    ingest.from_source(names.source(text), Reference.parse("flipped:1"))
                for destination in (
                    names.destination(f"docker-archive:{tmp_path}/copied.tar"),
                    names.destination(f"folder:{tmp_path}/copied:web:1"),
                    NamedDestination(Command, Reference.parse("flipped:1"), SilentProgress(), CACHE),
                ):
                    with pytest.raises(ContentError), names.source(text).open() as found:
                        destination.write(found, lambda _: None)
                with pytest.raises(ContentError):
                    ArchiveFolder(folder).config("https://host.example/")
        assert list(cluster.collections([])) == []
        assert list(cluster.links([])) == []
    assert second_docker.image_ids() == set()
    assert files_in(tmp_path / "copied") == []
    assert not (tmp_path / "copied.tar").exists()
    assert [it.problem for it in ArchiveFolder(folder).verify() if it.problem] == []
    show(capsys, f"{flips} flips in {len(archives)} archives: all found, none stored, copied or loaded")


@contextmanager
def flipped(path: Path, place: int, bit: int) -> Iterator[None]:
    """One byte of a file is another one while the block lasts."""
    flip(path, place, bit)
    try:
        yield
    finally:
        flip(path, place, bit)


@pytest.mark.conforms("G15")
def test_told_to_stop_while_it_saves(
    docker: Docker, base_image: Image, run: Callable[..., Done], tmp_path: Path, home: Path
) -> None:
    folder = tmp_path / "images"
    process = started(command("folder", "update", "--dir", folder, base_image.reference), docker.environment)
    while not any(path.stat().st_size > 10 << 20 for path in home.rglob("*.partial") if path.exists()):
        assert process.poll() is None, finished(process).told
        time.sleep(0.002)
    process.terminate()
    done = finished(process)
    assert (done.status, done.out) == (TERMINATED, ""), done.told
    assert files_in(folder) == cached(home) == []
    assert run("update", folder, base_image.reference).status == 0
    assert len(files_in(folder)) == 1
    assert cached(home) == []


@pytest.mark.engine("mount")
def test_a_full_disk(docker: Docker, small_image: Image, run: Callable[..., Done], tmp_path: Path, home: Path) -> None:
    """While it saves, while it writes the archive, and while it compresses one: nothing is half there, and with room
    it goes on."""
    name = small_image.reference
    with small_disk(tmp_path / "cache", 1 << 20) as disk:
        variables: Mapping[str, str] = {"XDG_CACHE_HOME": str(disk)}
        assert_full(run("update", tmp_path / "images", name, **variables), disk)
        assert files_in(disk) == files_in(tmp_path / "images") == []
    with small_disk(tmp_path / "folder", 1 << 20) as disk:
        assert_full(run("update", disk, name), disk)
        assert files_in(disk) == []
        enlarge(disk, 64 << 20)
        assert run("update", disk, name).status == 0
        (archive,) = disk.iterdir()
        enlarge(disk, archive.stat().st_size + (256 << 10))
        assert_full(run("update", disk, name, "--compress"), disk)
        assert files_in(disk) == [archive.name]
        assert run("verify", disk).status == 0
        enlarge(disk, 64 << 20)
        assert run("update", disk, name, "--compress").status == 0
        assert files_in(disk) == [f"{archive.stem}.zip"]
    assert cached(home) == []


@pytest.mark.engine("mount")
def test_a_disk_that_is_full_while_an_image_is_copied_or_stored(
    docker: Docker, small_image: Image, tmp_path: Path
) -> None:
    site = Site(tmp_path / "site", docker)
    for words in (
        ("copy", f"docker-daemon:{small_image.reference}", "folder:{}/images:web:1"),
        ("copy", f"docker-daemon:{small_image.reference}", "docker-archive:{}/app.tar"),
    ):
        with small_disk(tmp_path / "disk", 1 << 20) as disk:
            assert_full(site.run(*(word.format(disk) for word in words)), disk)
            assert files_in(disk) == []
        (tmp_path / "disk").rmdir()
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        done = site.run("ingest", small_image.reference, XDG_CACHE_HOME=str(disk))
        assert_full(done, disk)
        assert [name for name in files_in(disk) if not name.endswith(".blocks")] == []
        assert site.records() == ([], [])
        enlarge(disk, 64 << 20)
        assert site.run("ingest", small_image.reference, XDG_CACHE_HOME=str(disk)).status == 0
        assert files_in(disk) == []

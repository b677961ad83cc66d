# SPDX-License-Identifier: Apache-2.0
"""Beside the original: what it left is used or ignored, what we leave does not stop it, arv-copy takes our images."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from .engines import Docker, Image
from .sites import Site, cached, finished, served, show, started
from .test_at_once import the_only_collection

#: The original's command, whoever has the script of that name.
UPSTREAM = [sys.executable, "-c", "from arvados.commands.keepdocker import main; main()"]


class Saves:
    """What the daemon notes of images that were saved, by whatever client."""

    def __init__(self, docker: Docker) -> None:
        self._docker = docker
        self._start = time.time()

    @property
    def count(self) -> int:
        """How often an image was saved so far."""
        span = ("--since", f"{self._start:.3f}", "--until", f"{time.time():.3f}")
        return len(self._docker.text("events", *span, "--filter", "event=save", "--format", "{{.ID}}").split())


@pytest.fixture
def site(docker: Docker, tmp_path: Path) -> Site:
    return Site(tmp_path / "site", docker)


@pytest.fixture
def saves(docker: Docker) -> Saves:
    return Saves(docker)


@pytest.fixture
def clients(site: Site, docker: Docker) -> Iterator[Mapping[str, str]]:
    """The environment of a program that uses the served site and the scratch Docker."""
    with served(site.folder) as variables:
        yield docker.environment | variables


def killed(line: list[str], environment: Mapping[str, str], when: Callable[[], bool]) -> None:
    """Starts a command, and kills it with all its children as soon as `when` holds."""
    process = subprocess.Popen(
        line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not when():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.conforms("K13", "K14", "S16")
@pytest.mark.engine("docker", "busybox")
@pytest.mark.parametrize("interrupted", ["while it saves", "after it saved"])
def test_what_the_original_left_is_used_or_ignored(
    interrupted: str,
    site: Site,
    saves: Saves,
    clients: Mapping[str, str],
    base_image: Image,
    home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tarball = home / ".cache/arvados/docker" / f"{base_image.id}.tar"
    saved = tarball.with_name(f"{tarball.name}.stat")

    def when() -> bool:
        return saved.exists() if interrupted == "after it saved" else tarball.exists() and tarball.stat().st_size > 0

    killed([*UPSTREAM, base_image.reference], clients, when)
    left = cached(home)
    before = saves.count
    done = finished(started([sys.executable, "-m", "arv_docker.cli.arv_keepdocker", base_image.reference], clients))
    assert done.status == 0, done.told
    assert saves.count - before == (0 if interrupted == "after it saved" else 1)
    with site.opened() as records:
        assert the_only_collection(records, base_image) == done.out.strip()
    assert cached(home) == []
    show(capsys, f"killed {interrupted}: left {', '.join(left)}; saved {saves.count - before} times more")


@pytest.mark.conforms("K13")
@pytest.mark.engine("docker", "busybox")
@pytest.mark.parametrize("record", ["[1, 2", "null", '{"a": 1}', "[]", '["a"]', "\0"])
def test_a_record_that_cannot_be_read_is_ignored(
    record: str, site: Site, small_image: Image, home: Path, tmp_path: Path
) -> None:
    folder = home / ".cache/arvados/docker"
    folder.mkdir(parents=True)
    (folder / f"{small_image.id}.tar").write_bytes(b"half an image")
    (folder / f"{small_image.id}.tar.stat").write_text(record)
    (folder / f"{small_image.id}.tar.lock").touch()
    site.printed("ingest", small_image.reference)
    with site.opened() as records:
        the_only_collection(records, small_image)
    assert cached(home) == []


@pytest.mark.engine("docker", "busybox")
def test_the_original_after_a_killed_run_of_ours(
    site: Site, saves: Saves, clients: Mapping[str, str], base_image: Image, home: Path
) -> None:
    folder = home / ".cache/arvados/docker"
    ours = [sys.executable, "-m", "arv_docker.cli.arv_keepdocker", base_image.reference]
    killed(ours, clients, lambda: any(it.stat().st_size > 0 for it in folder.glob("*.partial")))
    assert cached(home)
    done = finished(started([*UPSTREAM, base_image.reference], clients))
    assert done.status == 0, done.told
    with site.opened() as records:
        assert the_only_collection(records, base_image) == done.out.strip()
    # What it does not remove, the next run of ours does.
    assert finished(started(ours, clients)).status == 0
    assert cached(home) == []


@pytest.mark.engine("docker", "busybox")
def test_the_original_uses_a_tarball_of_ours(
    site: Site, saves: Saves, clients: Mapping[str, str], small_image: Image, home: Path
) -> None:
    ours = [sys.executable, "-m", "arv_docker.cli.arv_keepdocker", "--keep-tarball", small_image.reference]
    assert finished(started(ours, clients)).status == 0
    assert f"{small_image.id}.tar.stat" in {Path(it).name for it in (home / ".cache/arvados/docker").iterdir()}
    before = saves.count
    done = finished(started([*UPSTREAM, "--force", small_image.reference], clients))
    assert done.status == 0, done.told
    assert saves.count == before
    assert [it for it in cached(home) if not it.endswith(".lock")] == []


@pytest.mark.engine("docker", "busybox")
def test_each_finds_what_the_other_stored(site: Site, clients: Mapping[str, str], small_image: Image) -> None:
    """No second collection, in either order: it would become the preferred one, and jobs would not be reused."""
    theirs = finished(started([*UPSTREAM, small_image.reference], clients))
    assert theirs.status == 0, theirs.told
    ours = site.run(small_image.reference, program="arv_keepdocker")
    assert (ours.status, ours.out) == (0, theirs.out), ours.told
    assert finished(started([*UPSTREAM, small_image.reference], clients)).out == theirs.out
    assert len(site.records()[0]) == 1


#: What arvados-cwl-runner asks: the images of a name, the preferred first, and of an ID.
_ASK = """
import arvados, sys
from arvados.commands.keepdocker import list_images_in_arv
for name in sys.argv[1:]:
    repository, _, tag = name.rpartition(":") if not name.startswith("sha256:") else (name, "", None)
    print(*(uuid for uuid, _ in list_images_in_arv(arvados.api("v1"), 3, repository, tag)), sep=",")
"""


@pytest.mark.engine("docker", "busybox")
def test_the_original_takes_the_collection_that_has_the_name(
    site: Site, clients: Mapping[str, str], small_image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of an image under both its digests: by name one, by either digest its own."""
    done = json.loads(site.printed("ingest", "--image-id=both", "--json", small_image.reference))
    ask = [sys.executable, "-c", _ASK, small_image.reference, small_image.id, done["beside"]["image_id"]]
    asked = finished(started(ask, clients))
    assert asked.status == 0, asked.told
    assert asked.out.split() == [done["uuid"], done["uuid"], done["beside"]["uuid"]]
    again = finished(started([*UPSTREAM, *small_image.reference.split(":")], clients))
    assert (again.status, again.out.strip()) == (0, done["uuid"]), again.told
    listed = finished(started(UPSTREAM, clients))
    assert listed.status == 0, listed.told
    assert {done["uuid"], done["beside"]["uuid"]} <= set(listed.out.split())
    assert site.printed("resolve", small_image.reference) == done["pdh"]
    show(capsys, *listed.out.splitlines())


@pytest.mark.engine("docker", "busybox")
def test_arv_copy_takes_an_image_from_site_to_site(
    site: Site, docker: Docker, small_image: Image, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uuid = site.printed("ingest", small_image.reference)
    listed = site.printed("images", "--json")
    pdh = site.printed("resolve", small_image.reference)
    other = Site(tmp_path / "other", docker)
    settings = home / ".config/arvados"
    settings.mkdir(parents=True)
    with ExitStack() as stack:
        for name, folder in (("src", site.folder), ("dst", other.folder)):
            variables = stack.enter_context(served(folder))
            lines = [f"{key}={variables[key]}\n" for key in ("ARVADOS_API_HOST", "ARVADOS_API_TOKEN")]
            (settings / f"{name}.conf").write_text("".join([*lines, "ARVADOS_API_HOST_INSECURE=1\n"]))
        program = str(Path(sys.executable).with_name("arv-copy"))
        copied = finished(started([program, "--src", "src", "--dst", "dst", uuid]))
        assert copied.status == 0, copied.told
    assert other.printed("resolve", small_image.reference) == pdh
    assert other.printed("resolve", small_image.id) == pdh
    assert small_image.reference.split(":")[0] in other.printed("images", program="arv_keepdocker")
    assert f'"image_id": "{small_image.id}"' in other.printed("images", "--json")
    assert listed.count(pdh) == other.printed("images", "--json").count(pdh)
    other.printed("verify", small_image.reference)
    again = other.run("ingest", small_image.reference)
    assert "already stored, 0 bytes sent" in again.err, again.told
    assert len(other.records()[0]) == 1
    show(capsys, f"{small_image.reference} is {pdh} on both sites")

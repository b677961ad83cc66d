# SPDX-License-Identifier: Apache-2.0
"""The real Arvados clients, unmodified and in an environment of their own, with an embedded site over HTTPS."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .engines import Docker, Image, unavailable
from .sites import Done, command, finished, served, started

SDK = "arvados-python-client==3.2.1"
FUSE = "arvados_fuse==3.2.1"


@dataclass(frozen=True)
class Clients:
    """A virtual environment with upstream's programs and nothing of this package."""

    folder: Path

    def start(self, *words: str | Path, **variables: str) -> subprocess.Popen[str]:
        """One of its programs, which runs now."""
        program, *rest = map(str, words)
        return started([str(self.folder / "bin" / program), *rest], os.environ | variables)

    def run(self, *words: str | Path, **variables: str) -> Done:
        """One of its programs, run to its end, which must be good."""
        done = finished(self.start(*words, **variables))
        assert done.status == 0, done.told
        return done


def installed(folder: Path, requirement: str) -> Clients:
    """An environment with one package of upstream's; where it cannot be had, the test is skipped."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip: list[str | Path] = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--no-compile", requirement]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode != 0:
        unavailable(f"pip install {requirement}: {done.stderr[-1000:]}")
    return Clients(folder)


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Clients:
    return installed(tmp_path_factory.mktemp("clients") / "venv", SDK)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The variables of a served, empty site."""
    with served(tmp_path / "site") as variables:
        yield variables


def noise(mebibytes: int) -> bytes:
    """Bytes of which no two mebibytes are alike."""
    piece = os.urandom((1 << 20) - 8)
    return b"".join(number.to_bytes(8, "big") + piece for number in range(mebibytes))


SCRIPT = """
import arvados, sys
from arvados.collection import Collection, CollectionReader
api = arvados.api("v1")
made = Collection(api_client=api)
with made.open("folder/text", "w") as file:
    file.write("hello")
with made.open("big", "wb") as file:
    file.write(bytes(70 << 20))
made.save_new("made by the SDK")
with made.open("more", "w") as file:
    file.write("more")
made.rename("folder/text", "text")
made.save()
copy = Collection(api_client=api)
copy.copy("big", "copied", source_collection=made)
copy.save_new("copy")
for name in (made.manifest_locator(), made.portable_data_hash()):
    read = CollectionReader(name, api_client=api)
    assert sorted(read) == ["big", "folder", "more", "text"], sorted(read)
    assert read.open("text").read() == "hello"
    assert read.open("big", "rb").read() == bytes(70 << 20)
assert CollectionReader(copy.manifest_locator(), api_client=api).open("copied", "rb").read() == bytes(70 << 20)
print(made.manifest_locator())
"""


def test_the_sdk_writes_reads_copies_and_saves(clients: Clients, site: dict[str, str]) -> None:
    done = clients.run("python", "-c", SCRIPT, **site)
    assert "-4zz18-" in done.out


def test_arv_put_and_get_of_folders(clients: Clients, site: dict[str, str], tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    files = {"a/b/deep": b"deep", "a/with space": b"space", "top": noise(65), "empty": b""}
    for name, data in files.items():
        (tree / name).write_bytes(data)
    uuid = clients.run("arv-put", "--no-progress", f"{tree}/", **site).out.strip()
    listed = clients.run("arv-ls", uuid, **site).out.splitlines()
    assert sorted(listed) == sorted(f"./{name}" for name in files)
    (tmp_path / "back").mkdir()
    clients.run("arv-get", "-r", "--no-progress", f"{uuid}/", f"{tmp_path}/back/", **site)
    assert {name: (tmp_path / "back" / name).read_bytes() for name in files} == files
    more = tmp_path / "more"
    more.write_bytes(b"more")
    same = clients.run("arv-put", "--no-progress", "--update-collection", uuid, str(more), **site).out.strip()
    assert same == uuid
    assert "more" in clients.run("arv-ls", uuid, **site).out


@pytest.mark.long
def test_arv_put_resumes_after_kill_9(clients: Clients, site: dict[str, str], tmp_path: Path, home: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(8):
        (tree / f"{number}").write_bytes(noise(64))
    put = clients.start("arv-put", "--no-progress", f"{tree}/", **site)
    deadline = time.monotonic() + 60
    while not any(b"+A" in path.read_bytes() for path in (home / ".cache/arvados/arv-put").glob("?" * 32)):
        assert time.monotonic() < deadline
        assert put.poll() is None, finished(put).told
        time.sleep(0.05)
    put.kill()
    assert finished(put).status == -signal.SIGKILL
    began = time.time()
    done = clients.run("arv-put", "--no-progress", f"{tree}/", **site)
    assert "Resuming upload from cache file" in done.err, done.told
    # A block that is sent again is touched: some were not.
    blocks = list((tmp_path / "site/blocks").glob("*/[0-9a-f]*"))
    assert any(path.stat().st_mtime < began for path in blocks)
    (tmp_path / "back").mkdir()
    clients.run("arv-get", "-r", "--no-progress", f"{done.out.strip()}/", f"{tmp_path}/back/", **site)
    for path in tree.iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


def test_arv_copy_from_site_to_site(clients: Clients, site: dict[str, str], tmp_path: Path, home: Path) -> None:
    (tmp_path / "data").write_bytes(noise(65))
    uuid = clients.run("arv-put", "--no-progress", tmp_path / "data", **site).out.strip()
    with served(tmp_path / "other") as other:
        (home / ".config/arvados").mkdir(parents=True)
        for name, variables in (("src", site), ("dst", other)):
            lines = [f"{key}={value}\n" for key, value in variables.items() if key.startswith("ARVADOS_")]
            (home / f".config/arvados/{name}.conf").write_text("".join(lines))
        bundle = tmp_path / "both.pem"
        bundle.write_bytes(b"".join(Path(it["SSL_CERT_FILE"]).read_bytes() for it in (site, other)))
        copied = clients.run("arv-copy", "--src", "src", "--dst", "dst", uuid, SSL_CERT_FILE=str(bundle)).out.strip()
        assert copied[:5] != uuid[:5]
        clients.run("arv-get", "--no-progress", f"{copied}/data", tmp_path / "back", **other)
    assert (tmp_path / "back").read_bytes() == (tmp_path / "data").read_bytes()


# -- arv-mount --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fuse(tmp_path_factory: pytest.TempPathFactory) -> Clients:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK) or not shutil.which("fusermount"):
        unavailable("arv-mount: no /dev/fuse, or no fusermount in PATH")
    return installed(tmp_path_factory.mktemp("fuse") / "venv", FUSE)


@contextlib.contextmanager
def mounted(fuse: Clients, folder: Path, site: dict[str, str]) -> Iterator[None]:
    """arv-mount in the foreground of a process of its own."""
    folder.mkdir()
    options = ("--foreground", "--all", "--disable-event-listening", "--ram-cache")
    process = fuse.start("arv-mount", *options, folder, **site)
    try:
        deadline = time.monotonic() + 30
        while not folder.is_mount():
            assert process.poll() is None, finished(process).told
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield
    finally:
        subprocess.run(["fusermount", "-u", "-z", folder], check=False)
        process.terminate()
        finished(process)


def names(folder: Path) -> set[str]:
    """What lies in a folder."""
    return {path.name for path in folder.iterdir()}


@pytest.mark.long
def test_arv_mount_reads_by_uuid_and_by_hash(fuse: Clients, site: dict[str, str], tmp_path: Path) -> None:
    data = noise(70)
    (tmp_path / "data").write_bytes(data)
    uuid = fuse.run("arv-put", "--no-progress", "--name", "named", tmp_path / "data", **site).out.strip()
    pdh = fuse.run("arv-put", "--no-progress", "--portable-data-hash", tmp_path / "data", **site).out.strip()
    (project,) = finished(fuse.start("python", "-c", PROJECT, **site)).out.split()
    with mounted(fuse, tmp_path / "mount", site):
        for name in (uuid, pdh):
            assert (tmp_path / "mount/by_id" / name / "data").read_bytes() == data
        assert "named" in names(tmp_path / "mount/home")
        assert "inside" in names(tmp_path / "mount/home/project")
        assert "inside" in names(tmp_path / "mount/by_id" / project)
        assert (tmp_path / "mount/home/named/data").read_bytes() == data
        names(tmp_path / "mount/shared")
        names(tmp_path / "mount/by_tag")


PROJECT = """
import arvados
api = arvados.api("v1")
project = api.groups().create(body={"group": {"group_class": "project", "name": "project"}}).execute()["uuid"]
api.collections().create(body={"collection": {"owner_uuid": project, "name": "inside"}}).execute()
print(project)
"""


# -- arv-keepdocker ---------------------------------------------------------------------


PDH = "import arvados; print(arvados.api('v1').collections().get(uuid='{}').execute()['portable_data_hash'])"


def ours(docker: Docker, site: dict[str, str], *words: str, program: str = "arv_docker") -> str:
    """What a command of this package prints."""
    done = finished(started(command(*words, program=program), docker.environment | site))
    assert done.status == 0, done.told
    return done.out.strip()


@pytest.mark.engine("docker", "busybox")
def test_upstreams_images_are_ours_and_ours_are_upstreams(
    clients: Clients, site: dict[str, str], docker: Docker, small_image: Image, home: Path, tmp_path: Path
) -> None:
    variables = docker.environment | site
    name = small_image.reference
    repository, _, tag = name.rpartition(":")
    upstream = clients.run("arv-keepdocker", repository, tag, **variables).out.split()[-1]
    (collection,) = [word for word in (upstream,) if "-4zz18-" in word]
    assert small_image.id[:12] in clients.run("arv-keepdocker", "images", **variables).out
    assert collection in ours(docker, site, "images")
    pdh = ours(docker, site, "resolve", name)
    script = PDH.format(collection)
    assert clients.run("python", "-c", script, **variables).out.strip() == pdh

    with served(tmp_path / "reverse") as reverse:
        stored = ours(docker, reverse, "ingest", name).split()[-1]
        assert stored
        listed = clients.run("arv-keepdocker", "images", **docker.environment | reverse).out
        assert repository in listed
        assert tag in listed
        assert small_image.id[:12] in listed
        again = clients.run("arv-keepdocker", repository, tag, **docker.environment | reverse).out.split()[-1]
        resolved = ours(docker, reverse, "resolve", name)
        assert clients.run("python", "-c", PDH.format(again), **docker.environment | reverse).out.strip() == resolved

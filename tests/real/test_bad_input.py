# SPDX-License-Identifier: Apache-2.0
"""What cannot be ingested: a message that names it and says what to do, its exit code, and nothing written."""

import contextlib
import gzip
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from arv_docker.arvados.client import Cluster
from arv_docker.cli import EXIT_CODES
from arv_docker.errors import ContentError
from arv_docker.ingest.service import Ingest, Options
from arv_docker.local.progress import SilentProgress
from arv_docker.site import LocalSite
from arv_docker.store.tarballs import cache_folder

from . import engines
from .archives import config_of, digest, image_archive, link, members_of, with_sparse_member, write
from .engines import Docker, Image, Program
from .sites import Done, Site, cached, command, finished, started

IMAGE, USAGE, ENGINE, CLUSTER, CONTENT, SETTINGS, DISK = range(1, 8)
LAYERS = [b"first layer".ljust(2048, b"\0"), b"second layer".ljust(1024, b"\0")]


def assert_refused(done: Done, code: int, *told: str) -> None:
    """The documented exit code, and a message in which each of the texts stands."""
    assert re.search(rf"^  {code}  ", EXIT_CODES, re.MULTILINE)
    assert done.status == code, done.told
    assert done.out == ""
    # A slow machine may have told of its progress before, in lines of their own.
    assert re.search(r"^arv-docker: ", done.err, re.MULTILINE), done.told
    assert "Traceback" not in done.err, done.told
    for text in told:
        assert re.search(text, done.err), f"no {text!r} in it: {done.told}"


def assert_nothing_written(site: Site, *, blocks: bool = False) -> None:
    """No collection, not even in the trash, no link, and no block unless the fault shows only while blocks are sent."""
    assert site.records() == ([], [])
    if not blocks:
        assert site.blocks() == []


def assert_archive_refused(path: Path, *told: str, code: int = CONTENT, blocks: bool = False) -> None:
    site = Site(path.with_name(f"{path.name}-site"))
    assert_refused(site.run("ingest", "--from-archive", path), code, *told)
    assert_nothing_written(site, blocks=blocks)
    assert cached(Path(os.environ["HOME"])) == []


# Engines


@pytest.mark.conforms("S20", "K26")
@pytest.mark.engine("docker", "busybox")
@pytest.mark.parametrize("name", ["arvtest/nosuch:1", "nosuch", "abcdef", f"sha256:{'0' * 64}", "sha256:00000000"])
def test_no_such_image(name: str, docker: Docker, tmp_path: Path, home: Path) -> None:
    site = Site(tmp_path / "site", docker)
    assert_refused(site.run("ingest", name), IMAGE, re.escape(name), "docker pull")
    assert_nothing_written(site)
    assert cached(home) == []


@pytest.mark.engine("docker", "busybox")
def test_the_beginning_of_several_ids(docker: Docker, small_image: Image, tmp_path: Path) -> None:
    built = 0
    while not (shared := _shared_digit(docker.text("image", "ls", "--quiet", "--no-trunc").split())):
        docker.build(f"FROM {small_image.id}\nLABEL number={built}\n", {}, f"arvtest/many:{built}")
        built += 1
    site = Site(tmp_path / "site", docker)
    done = site.run("ingest", f"sha256:{shared}")
    for number in range(built):
        docker.run("rmi", f"arvtest/many:{number}")
    assert_refused(done, IMAGE, f"sha256:{shared} is the beginning of", "more digits")
    assert_nothing_written(site)


def _shared_digit(ids: list[str]) -> str | None:
    firsts = [identity.removeprefix("sha256:")[0] for identity in set(ids)]
    return next((digit for digit in firsts if firsts.count(digit) > 1), None)


@pytest.mark.conforms("K9", "S20", "K26")
@pytest.mark.engine("docker")
def test_the_daemon_is_down(docker: Docker, tmp_path: Path) -> None:
    site = Site(tmp_path / "site", docker)
    done = site.run("ingest", "some/image:1", DOCKER_HOST=f"unix://{tmp_path}/nobody.sock")
    assert_refused(done, ENGINE, "daemon does not answer", "Start it, or set DOCKER_HOST", "nobody.sock")
    assert_nothing_written(site)


@pytest.mark.conforms("S20")
@pytest.mark.engine("docker")
def test_an_ordinary_user_may_not_open_the_socket(docker: Docker, tmp_path: Path) -> None:
    if not shutil.which("setpriv"):
        engines.unavailable("setpriv: not in PATH")
    nobody = 65534
    # May read the checkout wherever it is; opening a socket takes the right to write.
    ordinary = (
        *("setpriv", f"--reuid={nobody}", f"--regid={nobody}", "--clear-groups"),
        *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
    )
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, nobody, nobody)
        site = Site(Path(folder) / "site", docker)
        line = command("ingest", "some/image:1", f"--local={site.folder}", prefix=ordinary)
        variables = {"HOME": folder, "XDG_CACHE_HOME": f"{folder}/.cache", "DOCKER_CONFIG": folder}
        done = finished(started(line, site.environment(**variables)))
        assert_refused(done, ENGINE, "this user may not talk to the Docker daemon", "group docker", "permission denied")
        assert_nothing_written(site)


@pytest.mark.conforms("S20")
def test_no_engine_is_installed(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    done = site.run("ingest", "some/image:1", PATH=str(tmp_path))
    assert_refused(done, ENGINE, "no Docker command is on PATH", "Install Docker", "--from-archive FILE")
    assert_nothing_written(site)


# Settings


@pytest.mark.engine("docker", "busybox")
@pytest.mark.parametrize("source", ["engine", "archive"])
def test_no_cluster_and_no_local(source: str, docker: Docker, small_image: Image, tmp_path: Path, home: Path) -> None:
    words = [small_image.reference]
    if source == "archive":
        words = ["--from-archive", str(image_archive(tmp_path / "image.tar", LAYERS))]
    done = finished(started(command("ingest", *words), docker.environment))
    assert_refused(done, SETTINGS, "ARVADOS_API_HOST and ARVADOS_API_TOKEN not set", "give --local")
    assert not (home / ".local/share/arv-docker").exists()
    assert cached(home) == []


@pytest.mark.parametrize("name", ["upper/CASE", "bad:tag!", "sha256:xyz"])
def test_what_is_no_name(name: str, tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    assert_refused(site.run("ingest", name), USAGE, re.escape(repr(name)), "not an image")
    assert_nothing_written(site)


# Archives that are damaged


@pytest.mark.engine("docker", "busybox")
def test_a_truncated_archive_at_many_places(docker: Docker, small_image: Image, tmp_path: Path) -> None:
    docker.run("save", "--output", tmp_path / "whole.tar", small_image.reference)
    whole = (tmp_path / "whole.tar").read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as tar:
        bounds = {offset for member in tar for offset in (member.offset, member.offset_data)}
        # The file `repositories` ends an archive of Docker 20.10; no image is made of it.
        needed = max(member.offset_data + member.size for member in tar if member.name != "repositories")
        end = max(member.offset_data + member.size for member in tar)
    places = {bound + more for bound in bounds for more in (-513, -1, 0, 1, 100, 511, 512, 513)}
    places |= set(range(0, end, end // 40))
    cuts = sorted(place for place in places if 0 <= place < end)
    assert len(cuts) > 100
    site = Site(tmp_path / "site")
    with LocalSite(site.folder) as running:
        cluster = Cluster.at_url(running.url, running.token)
        for cut in (cut for cut in cuts if cut < needed):
            (tmp_path / "cut.tar").write_bytes(whole[:cut])
            with pytest.raises(ContentError) as refused:
                Ingest(cluster, Options(cache_folder()), SilentProgress()).from_archive(tmp_path / "cut.tar", None)
            assert refused.value.exit_code == CONTENT
            assert re.search("cut short|empty|no manifest.json|once", refused.value.message), (cut, refused.value)
    assert_nothing_written(site)
    (tmp_path / "cut.tar").write_bytes(whole[: end // 2])
    assert_archive_refused(tmp_path / "cut.tar", "cut short", "Save or copy it again")
    (tmp_path / "cut.tar").write_bytes(whole[:needed])  # without its end mark, but every digest is right
    done = site.run("ingest", "--json", "--from-archive", tmp_path / "cut.tar")
    assert (done.status, small_image.id in done.out) == (0, True), done.told


@pytest.mark.parametrize("name", ["../{}", "a/../../{}"])
def test_a_name_that_leaves_the_archive(name: str, tmp_path: Path) -> None:
    members = members_of(LAYERS)
    evil = members[0][0]
    path = write(tmp_path / "a.tar", members, names=lambda it: name.format(it) if it == evil else it)
    assert_archive_refused(path, "would leave it", re.escape(name.format(evil)))


def test_an_absolute_name_counts_from_the_top_of_the_archive(tmp_path: Path) -> None:
    """As engines have it, which unpack archives below a folder."""
    members = members_of(LAYERS)
    first = members[0][0]
    path = write(tmp_path / "a.tar", members, names=lambda name: f"/{name}" if name == first else name)
    assert Site(tmp_path / "site").run("ingest", "--from-archive", path).status == 0
    path = write(tmp_path / "b.tar", members, names=lambda name: f"/etc/{name}" if name == first else name)
    assert_archive_refused(path, "has no file", re.escape(first))


@pytest.mark.parametrize("target", ["../../etc/passwd", "/etc/passwd"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE], ids=["symbolic", "hard"])
def test_a_link_that_leaves_the_archive(kind: bytes, target: str, tmp_path: Path) -> None:
    (layer, _), *others = members_of(LAYERS)
    path = write(tmp_path / "a.tar", others, also=[link(layer, target, kind)])
    assert_archive_refused(path, "leads out of the archive|leads nowhere|has no file", layer)


@pytest.mark.conforms("K22")
@pytest.mark.parametrize("size", [2048, (16 << 20) + 512, 70 << 20], ids=["packed", "aligned", "two blocks"])
def test_a_layer_with_other_bytes(size: int, tmp_path: Path) -> None:
    good = bytes(size)
    members = members_of([LAYERS[0], good])
    altered = [(name, b"x" + good[1:] if content is good else content) for name, content in members]
    assert_archive_refused(write(tmp_path / "a.tar", altered), digest(good), "holds other bytes", blocks=size > 1 << 20)


@pytest.mark.parametrize(
    "config", [b"", b"no JSON", b'{"rootfs":', b"\xff\xfe", b"[" * 100_000, b"[]", b'{"a":1,"a":2}']
)
def test_a_config_that_is_no_json_object(config: bytes, tmp_path: Path) -> None:
    path = image_archive(tmp_path / "a.tar", [])
    members = members_of(LAYERS, config=config)
    assert_archive_refused(write(path, members), "config", "JSON|nested too deeply")


def test_a_config_that_is_no_image(tmp_path: Path) -> None:
    members = members_of(LAYERS, config=b'{"architecture":"amd64"}')
    assert_archive_refused(write(tmp_path / "a.tar", members), "not a container image", "rootfs.diff_ids")


def test_a_config_of_a_gibibyte(tmp_path: Path) -> None:
    manifest = json.dumps([{"Config": f"{'0' * 64}.json", "RepoTags": None, "Layers": []}]).encode()
    path = with_sparse_member(tmp_path / "a.tar", f"{'0' * 64}.json", 1 << 30, [("manifest.json", manifest)])
    assert_archive_refused(path, f"config is {1 << 30} bytes")


@pytest.mark.conforms("K22")
def test_a_config_whose_digest_is_another(tmp_path: Path) -> None:
    config = config_of(LAYERS)
    members = [(name, content + b" " if content == config else content) for name, content in members_of(LAYERS)]
    assert_archive_refused(
        write(tmp_path / "a.tar", members), digest(config), digest(config + b" "), "altered or damaged"
    )


def test_another_number_of_layers_than_the_config_says(tmp_path: Path) -> None:
    members = members_of(LAYERS, config=config_of(LAYERS[:1]))
    assert_archive_refused(write(tmp_path / "a.tar", members), "lists 2 layers", "config 1", "Save the image again")


def test_a_layer_that_is_missing(tmp_path: Path) -> None:
    (layer, _), *others = members_of(LAYERS)
    assert_archive_refused(write(tmp_path / "a.tar", others), layer)


# Archives of other kinds


def test_an_archive_of_a_docker_before_1_10(tmp_path: Path) -> None:
    folder = "0" * 64
    members = [
        (f"{folder}/VERSION", b"1.0"),
        (f"{folder}/json", b'{"id":"%s"}' % folder.encode()),
        (f"{folder}/layer.tar", LAYERS[0]),
        ("repositories", json.dumps({"old/image": {"1": folder}}).encode()),
    ]
    assert_archive_refused(write(tmp_path / "a.tar", members), "older than 1.10", "save it again")


@pytest.mark.engine("docker", "busybox", "skopeo")
def test_an_oci_archive_that_is_cut(docker: Docker, small_image: Image, skopeo: Program, tmp_path: Path) -> None:
    source = ("--src-daemon-host", docker.host, f"docker-daemon:{small_image.reference}")
    skopeo.run("copy", *source, f"oci-archive:{tmp_path}/whole.tar")
    content = (tmp_path / "whole.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content[: len(content) // 2])
    assert_archive_refused(tmp_path / "a.tar", "cut short")


def test_a_compressed_archive_that_is_cut(tmp_path: Path) -> None:
    path = image_archive(tmp_path / "plain.tar", LAYERS)
    content = gzip.compress(path.read_bytes())
    (tmp_path / "a.tar.gz").write_bytes(content[: len(content) // 2])
    assert_archive_refused(tmp_path / "a.tar.gz", "cut short|ends early|ends in the middle|incomplete")


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100, bytes(10240)], ids=["empty", "text", "zeros"])
def test_a_file_that_is_no_archive(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    assert_archive_refused(tmp_path / "a.tar", "archive")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert_archive_refused(tmp_path / "nowhere.tar", "nowhere.tar", "No such file")


@pytest.mark.conforms("K19", "S6")
@pytest.mark.engine("docker", "busybox")
def test_two_images_in_one_archive(
    docker: Docker, small_image: Image, variant_of: Callable[[Image, str], Image], tmp_path: Path
) -> None:
    other = variant_of(small_image, "arvtest/other:1")
    docker.run("save", "--output", tmp_path / "two.tar", small_image.reference, other.reference)
    assert_archive_refused(tmp_path / "two.tar", "2 images", small_image.reference, other.reference, "which one")
    site = Site(tmp_path / "site")
    uuid = site.printed("ingest", "--from-archive", tmp_path / "two.tar", other.reference)
    assert json.loads(site.printed("inspect", "--json", uuid))["image_id"] == other.id
    by_id = site.printed("ingest", "--from-archive", tmp_path / "two.tar", small_image.id)
    assert json.loads(site.printed("inspect", "--json", by_id))["image_id"] == small_image.id
    missing = site.run("ingest", "--from-archive", tmp_path / "two.tar", "arvtest/third:1")
    assert_refused(missing, IMAGE, "arvtest/third:1", small_image.reference, other.reference)


# Disks that are full


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of that size."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "arvtest", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        engines.unavailable("tmpfs: needs the right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.engine("docker", "busybox")
def test_no_room_for_the_saved_tarball(docker: Docker, small_image: Image, tmp_path: Path) -> None:
    site = Site(tmp_path / "site", docker)
    with small_disk(tmp_path / "disk", "1m") as disk:
        done = site.run("ingest", small_image.reference, XDG_CACHE_HOME=str(disk))
        assert_refused(done, DISK, f"no room in {disk}", r"\d+ bytes", "XDG_CACHE_HOME to a folder on a larger disk")
        assert [path.name for path in disk.rglob("*") if path.is_file()] == []
        assert site.records() == ([], [])
        done = site.run("ingest", "--no-cache", small_image.reference, XDG_CACHE_HOME=str(disk))
        assert done.status == 0, done.told  # it needs no room


@pytest.mark.engine("docker", "busybox")
def test_no_room_in_the_sites_folder(docker: Docker, base_image: Image, tmp_path: Path, home: Path) -> None:
    with small_disk(tmp_path / "disk", "20m") as disk:
        site = Site(disk / "site", docker)
        done = site.run("ingest", base_image.reference)
        assert_refused(done, CLUSTER, "Keep did not store a block", "full|507")
        assert_nothing_written(site, blocks=True)
        assert not [path for path in site.blocks() if path.name.startswith("tmp-")]


def test_no_room_for_the_sites_records(tmp_path: Path) -> None:
    path = image_archive(tmp_path / "image.tar", LAYERS)
    with small_disk(tmp_path / "disk", "16k") as disk:
        done = Site(disk / "site").run("ingest", "--from-archive", path)
        assert_refused(done, DISK, f"{disk}/site")

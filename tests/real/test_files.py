# SPDX-License-Identifier: Apache-2.0
"""The files of an image without an engine, beside what Docker's containers show: export, ls, cat and diff."""

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import engines, registries
from .engines import Docker, Program, busybox_layer
from .registries import Distribution
from .sites import Site, command

#: What Docker puts into every container, whatever its image has, and the folders whose time that changes.
DOCKERS = ("dev", "etc", "proc", "sys", ".dockerenv")

DOCKERFILE = """\
FROM scratch
ADD bin.tar /
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV PATH=/bin
RUN mkdir -p /d/e /opaque/deep /was-folder/x /ro && echo kept >/d/kept && echo gone >/d/gone \\
 && echo old >/opaque/old && echo deep >/opaque/deep/f && echo 1 >/one && ln /one /two && ln /one /d/three \\
 && ln -s d /link && ln -s /d/kept /abs && mkfifo /fifo && echo f >/was-file && echo x >/was-folder/x/y \\
 && chmod 4755 /d/kept && chown 12:34 /d/e && : >/empty && ln /empty /empty2 && chmod 555 /ro
RUN rm /d/gone && rm -r /opaque && mkdir /opaque && echo new >/opaque/new && echo 2 >/one \\
 && rm -r /was-folder && echo now >/was-folder && rm /was-file && mkdir /was-file && echo in >/was-file/in
RUN rm /link && mkdir /link && echo l >/link/own && ln /d/kept /kept2 && chmod 700 /d/e && echo late >/ro/late
"""


REFERENCE = "arvtest/files:1"


@pytest.fixture(scope="module")
def changed_image(docker: Docker) -> Iterator[str]:
    """Busybox and layers that remove, replace and link what lower ones have; gives the image's name."""
    engines.require("busybox")
    docker.build(DOCKERFILE, {"bin.tar": busybox_layer()}, REFERENCE)
    yield REFERENCE
    docker.run("rmi", "--force", REFERENCE)


def facts(content: bytes) -> dict[str, tuple[object, ...]]:
    """What a tar has at each path: kind, attributes, content; hard links by the group of names that they are."""
    found: dict[str, tuple[object, ...]] = {}
    groups: dict[str, list[str]] = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for info in archive:
            name = info.name.removeprefix("./").rstrip("/")
            if name.split("/")[0] in DOCKERS:
                continue
            if info.islnk():
                groups.setdefault(info.linkname, [info.linkname]).append(name)
                continue
            data = archive.extractfile(info) if info.isreg() else None
            digest = hashlib.sha256(data.read()).hexdigest() if data else ""
            kind = b"0" if info.isreg() else info.type
            found[name] = (kind, info.mode & 0o7777, info.uid, info.gid, info.mtime, info.size, info.linkname, digest)
    for first, names in groups.items():
        for name in names:
            found[name] = (*found[first][:8], tuple(sorted(names)))
    return found


def exported_by_docker(docker: Docker, image: str) -> bytes:
    container = docker.text("create", image, "/bin/true")
    try:
        return docker.run("export", container).stdout
    finally:
        docker.run("rm", container)


def exported(site: Site, *source: str) -> bytes:
    """What `export` writes, on a site."""
    line = command("export", *source, f"--local={site.folder}")
    done = subprocess.run(line, env=site.environment(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def registry(engine_scratch: Path, tmp_path: Path) -> Iterator[Distribution]:
    with registries.registry(tmp_path / "registry", "open") as server:
        yield server


@pytest.mark.engine("docker", "busybox", "skopeo", "registry")
def test_the_files_of_an_image_are_those_of_its_container(
    docker: Docker, skopeo: Program, registry: Distribution, changed_image: str, tmp_path: Path
) -> None:
    """From every kind of source: an engine, archives whole and compressed, a layout, a registry, and Keep."""
    site = Site(tmp_path / "site", docker)
    saved = tmp_path / "saved.tar"
    docker.run("save", "-o", str(saved), changed_image)
    skopeo.run("copy", f"docker-archive:{saved}", f"oci:{tmp_path}/layout:app", "--dest-compress")
    name = f"{registry.host}/tools/files:1"
    docker.run("tag", changed_image, name)
    docker.run("push", name)
    docker.run("rmi", name)
    site.printed("ingest", changed_image)
    sources = [
        ("docker-daemon:" + changed_image,),
        (f"docker-archive:{saved}",),
        (f"oci:{tmp_path}/layout:app",),
        ("--insecure", f"docker://{name}"),
        (changed_image,),
    ]
    wanted = facts(exported_by_docker(docker, changed_image))
    assert wanted["one"][7] != wanted["two"][7]
    assert wanted["two"][8] == ("d/three", "two")
    assert "opaque/old" not in wanted
    inside = docker.text("run", "--rm", changed_image, "/bin/busybox", "cat", "/link/own", "/abs", "/two")
    listed = docker.text("run", "--rm", changed_image, "/bin/busybox", "find", "/d", "/opaque", "/was-file")
    for source in sources:
        assert facts(exported(site, *source)) == wanted, source
        assert site.printed("cat", *source, "/link/own", "/abs", "two") == inside
        names = [
            entry["path"]
            for folder in ("/d", "/opaque", "/was-file")
            for entry in [{"path": folder}, *json.loads(site.printed("ls", "--json", "-R", *source, folder))]
        ]
        assert sorted(names) == sorted(listed.split())
        assert site.printed("diff", *source, changed_image) == ""


@pytest.mark.engine("docker", "busybox")
def test_docker_imports_what_is_exported(docker: Docker, changed_image: str, tmp_path: Path) -> None:
    """A container of the flat image has the same files as one of the image with its layers."""
    site = Site(tmp_path / "site", docker)
    site.make()
    docker.run("import", "-", "arvtest/flat:1", stdin=exported(site, f"docker-daemon:{changed_image}"))
    try:
        assert facts(exported_by_docker(docker, "arvtest/flat:1")) == facts(exported_by_docker(docker, changed_image))
    finally:
        docker.run("rmi", "--force", "arvtest/flat:1")

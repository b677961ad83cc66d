# SPDX-License-Identifier: Apache-2.0
"""Images built by real engines, out of folders and tars, and put into Keep; what fails, hangs or is interrupted."""

import io
import json
import os
import re
import signal
import subprocess
import tarfile
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from . import engines
from .engines import Docker, Engine, Podman, tar_of
from .shells import Shell
from .sites import TOP, Site, command, finished

pytestmark = pytest.mark.engine("docker", "podman", "busybox")

ENGINE, BUILD = 3, 11

DOCKERFILE = """\
FROM scratch
ADD busybox.tar /
ENV PATH=/bin
COPY . /srv/
ARG WHO=nobody
RUN echo "made for $WHO" && cat /srv/greeting && echo "$WHO" >/srv/who
CMD ["cat", "/srv/greeting", "/srv/who"]
"""


@dataclass(frozen=True)
class Builder:
    """An engine, and how `arv-docker` is told to use it."""

    name: str
    engine: Engine
    variables: dict[str, str]


def own_client(folder: Path) -> dict[str, str]:
    """Puts Docker's own client of Debian first on PATH: it has BuildKit without a plug-in."""
    client = Path("/usr/bin/docker")
    if not client.exists():
        engines.unavailable("docker: the client of Debian is not there, which has BuildKit")
    folder.mkdir()
    (folder / "docker").symlink_to(client)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "DOCKER_BUILDKIT": "1"}


@pytest.fixture(
    params=[
        "docker",
        "podman",
        pytest.param("buildkit", marks=pytest.mark.long),
        pytest.param("containerd", marks=[pytest.mark.long, pytest.mark.engine("debootstrap")]),
    ]
)
def builder(request: pytest.FixtureRequest, second_docker: Docker, podman: Podman, tmp_path: Path) -> Iterator[Builder]:
    if request.param == "podman":
        yield Builder("podman", podman, {})
    elif request.param == "containerd":
        yield Builder("docker", request.getfixturevalue("containerd_docker"), {})
    elif request.param == "docker":
        yield Builder("docker", second_docker, {})
    else:
        yield Builder("docker", second_docker, own_client(tmp_path / "client"))
    second_docker.run("builder", "prune", "--all", "--force", check=False)


@pytest.fixture
def site(builder: Builder, tmp_path: Path) -> Site:
    return Site(tmp_path / "site", builder.engine)


def files(dockerfile: str = DOCKERFILE) -> dict[str, bytes]:
    return {
        "Dockerfile": dockerfile.encode(),
        "busybox.tar": engines.busybox_layer(),
        "greeting": b"hello from here\n",
        "ignored": b"not for the image\n",
        ".dockerignore": b"ignored\n",
    }


def folder_of(contents: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def built(site: Site, builder: Builder, *words: str | Path, **variables: str) -> str:
    options = (f"--engine={builder.name}", "--network=none")
    return site.printed("build", *options, *words, **builder.variables, **variables)


@pytest.mark.conforms("G18", "R11")
def test_a_folder(site: Site, builder: Builder, tmp_path: Path) -> None:
    context = folder_of(files(), tmp_path / "context")
    words = ("-t", "made/app:1", "--build-arg", "WHO=ann", "--label", "org.example=a b", context)
    image_id = built(site, builder, *words)
    assert builder.engine.text("image", "inspect", "--format", "{{.Id}}", "made/app:1") == (
        image_id.removeprefix("sha256:") if builder.name == "podman" else image_id
    )
    assert (
        builder.engine.text("image", "inspect", "--format", '{{index .Config.Labels "org.example"}}', "made/app:1")
        == "a b"
    )
    run = ("run", "--rm", "--network", "none", "made/app:1")
    assert builder.engine.text(*run) == "hello from here\nann"
    assert builder.engine.text(*run, "ls", "/srv").split() == ["Dockerfile", "busybox.tar", "greeting", "who"]
    # The same again is no work, also within limits and with an argument of the environment, and goes into Keep.
    limits = ("--memory=1g", "--memory-swap=2g", "--cpu-shares=512", "--cpuset-cpus=0", "--cache-from=made/app:1")
    system = "{{.Server.OsArch}}" if builder.name == "podman" else "{{.Server.Os}}/{{.Server.Arch}}"
    platform = f"--platform={builder.engine.text('version', '--format', system)}"
    inherited = [word.removesuffix("=ann") if isinstance(word, str) else word for word in words]
    document = json.loads(built(site, builder, "--ingest", "--json", *limits, platform, *inherited, WHO="ann"))
    assert (document["engine_id"], document["already"]) == (image_id, False)
    with site.opened() as records:
        (collection,) = records.collections()
        assert records.verified(collection) == document["image_id"]
    assert site.printed("resolve", "made/app:1") == collection.pdh


@pytest.mark.conforms("G18", "R11")
def test_a_tar_and_one_that_is_piped_in(site: Site, builder: Builder, tmp_path: Path) -> None:
    contents = {f"in/{name}" if name == "Dockerfile" else name: (content, 0o644) for name, content in files().items()}
    tar = tar_of(contents)
    (tmp_path / "context.tar").write_bytes(tar)
    # What lies here has nothing to do with it.
    folder_of({"Dockerfile": b"FROM nowhere.invalid/none\n"}, tmp_path / "in")
    words = ("-f", "in/Dockerfile", "-t", "made/tar:1")
    built(site, builder, *words, tmp_path / "context.tar")
    line = command("build", f"--engine={builder.name}", "--network=none", *words, "-")
    environment = site.environment(**builder.variables, PYTHONPATH=str(TOP))
    piped = subprocess.run(
        line, input=tar, env=environment, cwd=tmp_path, capture_output=True, timeout=120, check=False
    )
    assert piped.returncode == 0, piped.stderr.decode()
    assert builder.engine.text("run", "--rm", "--network", "none", "made/tar:1") == "hello from here\nnobody"
    assert builder.engine.text("image", "inspect", "--format", "{{.Id}}", "made/tar:1") in piped.stdout.decode()


@pytest.mark.conforms("R11")
def test_a_tar_that_would_leave_its_folder(site: Site, builder: Builder, tmp_path: Path) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        link = tarfile.TarInfo("out")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        tar.addfile(link)
        for name in ("Dockerfile", f"../../../../../../../..{tmp_path}/one", f"{tmp_path}/two", "out/three"):
            entry = tarfile.TarInfo(name)
            entry.size = len(b"FROM scratch\nADD Dockerfile /\n")
            tar.addfile(entry, io.BytesIO(b"FROM scratch\nADD Dockerfile /\n"))
    (tmp_path / "context.tar").write_bytes(content.getvalue())
    before = sorted(path.name for path in tmp_path.iterdir())
    done = site.run("build", f"--engine={builder.name}", str(tmp_path / "context.tar"), **builder.variables)
    assert done.status in (0, BUILD), done.told  # refused, or kept in
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "site") == before


@pytest.mark.conforms("G18", "R8")
def test_a_build_that_fails(site: Site, builder: Builder, tmp_path: Path) -> None:
    failing = DOCKERFILE.replace("cat /srv/greeting", "echo 'no such thing: permission denied' >&2 && exit 7")
    context = folder_of(files(failing), tmp_path / "context")
    options = (f"--engine={builder.name}", "--network=none", "--ingest", "-t", "made/bad:1")
    done = site.run("build", *options, str(context), **builder.variables)
    assert (done.status, done.out) == (BUILD, ""), done.told
    assert "could not build made/bad:1; its last words:" in done.err
    tail = done.err.partition("its last words:")[2]
    assert "no such thing: permission denied" in tail
    assert "\x1b" not in done.err
    assert site.records() == ([], [])
    missing = site.run("build", *options, "-f", str(tmp_path / "none"), str(context), **builder.variables)
    assert missing.status == BUILD, missing.told
    assert "none" in missing.err
    assert builder.engine.run("image", "inspect", "made/bad:1", check=False).returncode != 0
    assert containers(builder) == ""


@pytest.mark.long
@pytest.mark.parametrize("dockerfile", ["FROM nowhere.invalid/none:1\n", "FRON scratch\n", "FROM scratch\nCOPY no /\n"])
def test_a_dockerfile_that_is_wrong(site: Site, builder: Builder, tmp_path: Path, dockerfile: str) -> None:
    context = folder_of(files(dockerfile), tmp_path / "context")
    done = site.run("build", f"--engine={builder.name}", "--ingest", str(context), **builder.variables)
    assert (done.status, done.out) == (BUILD, ""), done.told
    assert site.records() == ([], [])


@pytest.mark.conforms("R13")
def test_what_is_said_is_said_at_once(site: Site, builder: Builder, tmp_path: Path) -> None:
    slow = DOCKERFILE.replace("cat /srv/greeting", "printf '10 %%\\r20 %%\\r' && sleep 600")
    context = folder_of(files(slow), tmp_path / "context")
    options = (f"--engine={builder.name}", "--network=none", "-t", "made/slow:1")
    process = site.start("build", *options, str(context), **builder.variables)
    assert process.stderr is not None
    while "made for nobody" not in (line := process.stderr.readline()) or "RUN" in line:
        assert line, finished(process).told
    process.send_signal(signal.SIGINT)
    done = finished(process)
    assert done.status == 130, done.told
    # Nothing is left: no image of that name, no container, no file of ours.
    assert builder.engine.run("image", "inspect", "made/slow:1", check=False).returncode != 0
    deadline = time.monotonic() + 30
    while left := containers(builder):
        assert time.monotonic() < deadline, left
        time.sleep(0.5)


def containers(builder: Builder) -> str:
    """All containers, those of builds too."""
    external = ["--external"] if builder.name == "podman" else []
    return builder.engine.text("ps", "--all", *external)[1:].partition("\n")[2]


@pytest.mark.engine("git")
def test_every_example_of_the_page(second_docker: Docker, podman: Podman, tmp_path: Path) -> None:
    page = (TOP / "docs/building.md").read_text()
    lines = re.findall(r"^    (.*arv-docker build .*)$", page, re.MULTILINE)
    (snippet,) = re.findall(r"(?:^    from .*\n)(?:^(?:    .*)?\n)+", page, re.MULTILINE)
    here = folder_of({"Dockerfile": b"FROM scratch\nARG WHO\nCOPY Dockerfile /\nLABEL who=$WHO\n"}, tmp_path / "here")
    commands = ("init -q", "add Dockerfile", "-c user.name=a -c user.email=a@b commit -q -m Begin")
    for words in (*commands, "archive -o context.tar HEAD"):
        subprocess.run(["git", *words.split()], cwd=here, check=True)
    shell = Shell(here, tmp_path / "site", podman, second_docker)
    for line in lines:
        shell.printed(line)
    assert len(lines) == 5
    assert shell.program(textwrap.dedent(snippet)).splitlines()[-1] in second_docker.image_ids()


@pytest.mark.conforms("G19")
def test_a_daemon_that_hangs(second_docker: Docker, docker: Docker, small_image: engines.Image, tmp_path: Path) -> None:
    """Stopped as a whole, it still takes connections."""
    second_docker.run("load", stdin=docker.run("save", small_image.reference).stdout)
    site = Site(tmp_path / "site", second_docker)
    context = folder_of({"Dockerfile": b"FROM scratch\nLABEL a=b\n"}, tmp_path / "context")
    Site(site.folder, docker).printed("ingest", small_image.reference)
    began = time.monotonic()
    second_docker.pause()
    try:
        for words in (("ingest", small_image.reference), ("build", str(context)), ("load", small_image.reference)):
            done = site.run(*words, ARV_DOCKER_ENGINE_TIMEOUT="1")
            assert done.status == ENGINE, done.told
            assert "silent for 1 seconds" in done.err, done.told
    finally:
        second_docker.go_on()
    assert time.monotonic() - began < 60
    assert site.printed("build", str(context)).startswith("sha256:")

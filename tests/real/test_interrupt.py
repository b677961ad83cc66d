# SPDX-License-Identifier: Apache-2.0
"""An ingest that is told to stop does so with a word, and the next one completes it."""

import contextlib
import fcntl
import os
import pty
import random
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from arv_docker.cli import arv_docker

from ..layers import file, layer_of_members
from .archives import image_archive
from .engines import Docker, Image
from .screen import screen_of
from .sites import TOP, Site, assert_stored_once, cached, finished, show

INTERRUPTED, TERMINATED = 130, 143


def saving(site: Site, home: Path) -> bool:
    """Whether some of the image is saved."""
    return any(path.stat().st_size > 20 << 20 for path in home.rglob("*.partial"))


def storing(site: Site, home: Path) -> bool:
    """Whether a block is on its way."""
    return any(path.name.startswith("tmp-") and path.exists() for path in site.blocks())


@pytest.mark.engine("docker", "busybox")
@pytest.mark.parametrize("moment", [saving, storing])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, TERMINATED)])
def test_an_ingest_stops_when_told(
    number: signal.Signals,
    code: int,
    moment: Callable[[Site, Path], bool],
    docker: Docker,
    base_image: Image,
    tmp_path: Path,
    home: Path,
) -> None:
    created = docker.text("image", "inspect", "--format", "{{.Created}}", base_image.id)
    site = Site(tmp_path / "site", docker)
    process = site.start("ingest", base_image.reference)
    deadline = time.monotonic() + 60
    while not _true(moment, site, home):
        assert process.poll() is None, finished(process).told
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(number)
    done = finished(process, timeout=20)
    assert (done.status, done.out) == (code, ""), done.told
    assert "Traceback" not in done.err
    # A complete tarball may stay for the next run; nothing that is half of something.
    assert [name for name in cached(home) if name.endswith((".partial", ".lock"))] == []
    assert [path.name for path in site.blocks() if path.name.startswith("tmp-")] == []
    assert site.records() == ([], [])

    again = site.run("ingest", base_image.reference)
    assert again.status == 0, again.told
    with site.opened() as records:
        assert again.out == f"{assert_stored_once(records, base_image, created).uuid}\n"
    assert cached(home) == []
    assert [line for line in done.err.splitlines() if line.startswith("arv-docker: ")], "it stopped without a word"


def _true(moment: Callable[[Site, Path], bool], site: Site, home: Path) -> bool:
    try:
        return moment(site, home)
    except FileNotFoundError:  # renamed while we looked
        return False


#: A command line of each verb that does something, on a site with an image and an archive of it.
COMMANDS: dict[str, list[str]] = {
    "ingest": ["ingest", "docker-archive:app.tar", "--as", "other:1"],
    "images": ["images"],
    "resolve": ["resolve", "app:1"],
    "inspect": ["inspect", "app:1"],
    "ls": ["ls", "-R", "app:1"],
    "cat": ["cat", "docker-archive:app.tar", "/etc/motd"],
    "diff": ["diff", "app:1", "docker-archive:app.tar"],
    "export": ["export", "app:1"],
    "copy": ["copy", "app:1", "docker-archive:copy.tar"],
    "load": ["load", "app:1"],
    "sif": ["sif", "fill", "app:1"],
    "stage": ["stage", "app:1", "--dir", "staged"],
    "deploy": ["deploy", "carried"],
    "verify": ["verify", "app:1"],
    "link": ["link", "app:1", "second:1"],
    "tag": ["tag", "app:1", "third:1"],
    "untag": ["untag", "absent:1"],
    "status": ["status", "app:1"],
    "folder": ["folder", "update", "--dir", "folder", "app"],
    "registry": ["registry", "list", "localhost:1"],
    "cache": ["cache", "verify"],
    "doctor": ["doctor"],
    "completion": ["completion", "bash"],
    "install-command": ["install-command", "--help"],
    "site": ["site", "status", "--check", "--dir", "site"],
    "build": ["build", "--engine", "docker", "context"],
}


def test_every_verb_is_interrupted() -> None:
    assert COMMANDS.keys() == arv_docker.VERBS.keys()


@pytest.fixture(scope="module")
def workplace(docker: Docker, small_image: Image, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Site]:
    """A folder with a site that has an image, an archive of it, a staged copy and something to build."""
    folder = tmp_path_factory.mktemp("workplace")
    site = Site(folder / "site", docker)
    site.printed("ingest", small_image.reference, "--as", "app:1")
    site.printed("copy", "keep:app:1", f"docker-archive:{folder}/app.tar")
    site.printed("stage", "app:1", "--dir", folder / "carried")
    (folder / "context").mkdir()
    (folder / "context" / "Dockerfile").write_text(f"FROM {small_image.reference}\nRUN /bin/busybox true\n")
    program = folder / "arv-docker"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nimport arv_docker\nprint('up', file=sys.stderr, flush=True)\n"
        "from arv_docker.cli.arv_docker import main\nsys.exit(main())\n"
    )
    program.chmod(0o755)
    return folder, site


def begun(line: list[str], environment: dict[str, str], folder: Path) -> subprocess.Popen[str]:
    """A command that runs now; what it prints, of which some is no text, is dropped."""
    null = subprocess.DEVNULL
    return subprocess.Popen(
        line, cwd=folder, env=environment, stdin=null, stdout=null, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.engine("docker", "busybox")
@pytest.mark.parametrize("verb", list(COMMANDS))
def test_every_verb_ends_with_a_word_at_any_moment(
    verb: str, workplace: tuple[Path, Site], request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Moments are spread over the time that the verb takes, at random; with --long 40 of them."""
    folder, site = workplace
    local = [] if verb in ("site", "completion", "install-command") else [f"--local={site.folder}"]
    line = [str(folder / "arv-docker"), *COMMANDS[verb], *local]
    environment = site.environment(PYTHONPATH=str(TOP))
    started_at = time.monotonic()
    own_code = finished(begun(line, environment, folder)).status
    takes = time.monotonic() - started_at
    moments = random.Random(verb)
    codes = []
    for _ in range(40 if request.config.getoption("--long") else 2):
        process = begun(line, environment, folder)
        assert process.stderr is not None
        assert process.stderr.readline() == "up\n"
        time.sleep(takes * moments.random())
        process.send_signal(signal.SIGINT)
        done = finished(process, timeout=120)
        assert done.status in (INTERRUPTED, own_code), (verb, done.told)
        assert "Traceback" not in done.err, done.err
        assert "Fatal" not in done.err, done.err
        if done.status == INTERRUPTED:
            assert done.err.splitlines()[-1] == "arv-docker: interrupted", done.err
        codes.append(done.status)
    show(capsys, f"{verb}: interrupted {codes.count(INTERRUPTED)} times of {len(codes)}, in {takes:.1f} s")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_no_bar_stays_on_the_terminal(number: signal.Signals, tmp_path: Path) -> None:
    """A copy waits for the second half of an archive, and shows a bar meanwhile."""
    content = image_archive(
        tmp_path / "image.tar", [layer_of_members([file("file", b"content" * 500_000)])]
    ).read_bytes()
    program = tmp_path / "arv-docker"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nfrom arv_docker.cli.arv_docker import main\nsys.exit(main())\n"
    )
    program.chmod(0o755)
    terminal, its_end = pty.openpty()
    fcntl.ioctl(its_end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [program, "copy", "docker-archive:-", "docker-archive:copy.tar"],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(TOP), TERM="xterm"),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=its_end,
    )
    os.close(its_end)
    assert process.stdin is not None
    process.stdin.write(content[: len(content) // 2])
    process.stdin.flush()
    written = ""
    while "copying to" not in written:  # the first frame: half of the archive is still being read
        assert select.select([terminal], [], [], 120)[0], screen_of(written)
        written += os.read(terminal, 65536).decode(errors="replace")  # which fails when the command has ended
    process.send_signal(number)
    with contextlib.suppress(OSError):
        while select.select([terminal], [], [], 20)[0] and (more := os.read(terminal, 65536)):
            written += more.decode(errors="replace")
    assert process.wait(timeout=120) == 128 + number
    process.stdin.close()
    os.close(terminal)
    word = "interrupted" if number == signal.SIGINT else "terminated"
    assert [line for line in screen_of(written) if line] == [f"arv-docker: {word}"]
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l"), "the cursor stays hidden"

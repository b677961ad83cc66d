# SPDX-License-Identifier: Apache-2.0
"""Commands where a machine gives little: a home that cannot be written, little memory, an end in the middle."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ..layers import file, layer_of_members
from . import engines
from .archives import image_archive
from .sites import TOP, Done, Site, finished

LAYERS = [layer_of_members([file("file", b"content" * 100_000)])]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The command as it is installed, of this checkout."""
    program = tmp_path / "arv-docker"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nfrom arv_docker.cli.arv_docker import main\nsys.exit(main())\n"
    )
    program.chmod(0o755)
    return program


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return image_archive(tmp_path / "image.tar", LAYERS)


def run(line: list[str], site: Site, shell: str, *before: str, **variables: str) -> Done:
    """What a command does, started by a shell with other words before it."""
    words = [*before, "sh", "-c", f'{shell}exec "$@"', "sh", *line, f"--local={site.folder}"]
    environment = site.environment(PYTHONPATH=str(TOP), **variables)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    with subprocess.Popen(words, env=environment, text=True, **pipes) as process:  # type: ignore[call-overload]
        return finished(process)


def test_a_home_that_cannot_be_written(program: Path, archive: Path, tmp_path: Path) -> None:
    """Reading and copying work; what needs the cache says which folder, and how to choose another one."""
    if not shutil.which("unshare"):
        engines.unavailable("unshare: not in PATH")
    home = tmp_path / "home"
    home.mkdir()
    site = Site(tmp_path / "site")
    site.printed("ingest", f"docker-archive:{archive}", "--as", "app:1")
    mount = f'mount --bind "{home}" "{home}" && mount -o remount,bind,ro "{home}" && unset XDG_CACHE_HOME && '

    def at_home(*words: str) -> Done:
        done = run([str(program), *words], site, mount, "unshare", "--mount", HOME=str(home))
        assert "Traceback" not in done.err, done.told
        return done

    for words in (
        ["images"],
        ["inspect", "app:1"],
        ["ls", "app:1"],
        ["verify", "app:1"],
        ["copy", "keep:app:1", f"docker-archive:{tmp_path}/copy.tar"],
    ):
        done = at_home(*words)
        assert done.status == 0, done.told
    for words in (
        ["ingest", f"docker-archive:{archive}", "--as", "app:2"],
        ["stage", "app:1", "--dir", f"{tmp_path}/staged"],
        ["cache", "list"],
    ):
        done = at_home(*words)
        assert (done.status, done.out) == (7, ""), done.told
        assert f"{home}/.cache/arvados/docker cannot be made: Read-only file system" in done.err
        assert "Set XDG_CACHE_HOME" in done.err
    assert list(home.iterdir()) == []


@pytest.mark.long  # the site of the same process may answer nothing then, and its client waits for minutes
def test_little_memory(program: Path, archive: Path, tmp_path: Path) -> None:
    """Each command works or says in a line that memory is short; with a gigabyte they work."""
    site = Site(tmp_path / "site")
    site.printed("ingest", f"docker-archive:{archive}", "--as", "app:1")
    short = 0
    for megabytes in (50, 80, 110, 150, 250, 1000):
        for words in (["images"], ["ingest", f"docker-archive:{archive}", "--as", "app:2"], ["export", "app:1"]):
            line = [*map(str, [program, *words])]
            done = run(["sh", "-c", '"$@" > /dev/null', "sh", *line], site, f"ulimit -v {megabytes * 1000}; ")
            assert "Traceback" not in done.err, done.told
            assert done.status == 0 or "\narv-docker: " in f"\n{done.err}", done.told
            assert done.status == 0 or megabytes < 1000, done.told
            short += "not enough memory" in done.err
    assert short


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("destination", ["oci:{folder}/layout:app", "docker-archive:{folder}/app.tar"])
def test_no_leftovers_of_a_copy_that_was_ended(
    destination: str, number: signal.Signals, program: Path, archive: Path, tmp_path: Path
) -> None:
    """It waits for the second half of an archive: whatever it has made by then goes."""
    folder = tmp_path / "out"
    folder.mkdir()
    site = Site(tmp_path / "site")
    line = [str(program), "copy", "docker-archive:-", destination.format(folder=folder)]
    environment = site.environment(PYTHONPATH=str(TOP))
    pipe = subprocess.PIPE
    process = subprocess.Popen(line, env=environment, text=False, stdin=pipe, stdout=pipe, stderr=pipe)
    assert process.stdin is not None
    content = archive.read_bytes()
    process.stdin.write(content[: len(content) // 2])
    process.stdin.flush()
    deadline = time.monotonic() + 120
    while not any(folder.iterdir()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number, err
    assert b"Traceback" not in err
    assert list(folder.iterdir()) == []

# SPDX-License-Identifier: Apache-2.0
"""`arv-docker ls`, `cat`, `diff` and `export`: the files of images in archives, in pipes and in Keep."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from arv_docker.cli import arv_docker
from arv_docker.local.progress import size_text

from ..archives import classic, image
from ..arvados.fake_api import FakeApi
from ..layers import device, file, folder, layer_of_members, symlink, whiteout
from .conftest import Run

LOW = layer_of_members(
    [
        folder("etc", mtime=0),
        file("etc/motd", b"hello\n", mode=0o644, mtime=86_400),
        file("etc/gone", b"gone"),
        symlink("m", "/etc/motd", mtime=0),
        symlink("conf", "etc"),
        device("null", 1, 3),
    ]
)
HIGH = layer_of_members([whiteout("etc/gone"), file("implied/x\x1b[31m", b"x" * 1000)])
APP = image(LOW, HIGH, os="linux")
SECOND = image(LOW, os="linux")


@pytest.fixture
def app(tmp_path: Path) -> str:
    (tmp_path / "app.tar").write_bytes(classic(APP))
    return f"docker-archive:{tmp_path}/app.tar"


@pytest.fixture
def second(tmp_path: Path) -> str:
    (tmp_path / "second.tar").write_bytes(classic(SECOND))
    return f"docker-archive:{tmp_path}/second.tar"


def test_ls(run: Run, app: str) -> None:
    assert run("ls", app).out.splitlines() == [
        "lrwxrwxrwx 0:0 0 1970-01-01 00:00 /conf -> etc",
        "drwxr-xr-x 0:0 0 1970-01-01 00:00 /etc",
        "drwxr-xr-x 0:0 0 1970-01-01 00:00 /implied",
        "lrwxrwxrwx 0:0 0 1970-01-01 00:00 /m -> /etc/motd",
        "crw-r--r-- 0:0 1,3 1970-01-01 00:00 /null",
    ]
    assert run("ls", app, "etc/motd").out == "-rw-r--r-- 0:0 6 1970-01-02 00:00 /etc/motd\n"
    assert run("ls", app, "conf").out == "-rw-r--r-- 0:0 6 1970-01-02 00:00 /conf/motd\n"
    assert run("ls", app, "/m").out == "lrwxrwxrwx 0:0 0 1970-01-01 00:00 /m -> /etc/motd\n"
    everything = run("ls", "--recursive", app).out
    assert "/etc/motd" in everything
    assert "/etc/gone" not in everything
    assert "/implied/x\\x1b[31m" in everything  # which would colour the terminal


def test_ls_as_json(run: Run, app: str) -> None:
    document = json.loads(run("ls", "--json", "-R", app).out)
    by_path = {entry["path"]: entry for entry in document}
    low, high = map(str, APP.parsed.diff_ids)
    assert by_path["/etc/motd"] == {
        "path": "/etc/motd",
        "kind": "file",
        "mode": "0644",
        "uid": 0,
        "gid": 0,
        "size": 6,
        "mtime": 86_400,
        "layer": low,
    }
    assert by_path["/implied/x\x1b[31m"]["layer"] == high
    assert by_path["/implied"]["layer"] is None  # which no layer lists
    assert by_path["/m"]["target"] == "/etc/motd"
    assert by_path["/null"]["device"] == [1, 3]


@pytest.mark.parametrize("verb", ["ls", "cat"])
def test_a_file_that_is_not_there(run: Run, app: str, verb: str) -> None:
    done = run(verb, app, "/etc/gone")
    assert (done.code, done.out) == (1, "")
    assert "the image has no file '/etc/gone'" in done.err


def test_cat(run: Run, app: str) -> None:
    done = run("cat", app, "m", "/conf/motd")
    assert (done.out, done.err) == ("hello\nhello\n", "")
    refused = run("cat", app, "m", "/etc")
    assert (refused.code, refused.out) == (1, "")  # nothing, for one of them is none
    assert "no regular file" in refused.err


def test_cat_of_what_takes_long_says_when_it_is_done(run: Run, app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arv_docker.cli.cat._LONG", 0)
    done = run("cat", app, "m")
    assert done.out == "hello\n"
    assert f"{app}: read, 6 bytes in " in done.err


def test_diff(run: Run, app: str, second: str) -> None:
    done = run("diff", app, second)
    assert (done.code, done.out.splitlines()) == (0, ["A /etc/gone", "D /implied", "D /implied/x\\x1b[31m"])
    assert json.loads(run("diff", "--json", app, second).out)[0] == {"kind": "added", "path": "/etc/gone", "what": []}
    assert "1 added, 2 removed; " in done.err
    assert " of contents compared" in done.err
    same = run("diff", app, app)
    assert (same.out, same.err) == ("", "no difference; 0 bytes of contents compared\n")
    assert run("diff", "-q", app, second).err == ""


def test_export(app: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert arv_docker.main(["export", app]) == 0
    out, err = capfdbinary.readouterr()
    assert f"{app}: exported, {size_text(len(out))} in " in err.decode()
    with tarfile.open(fileobj=io.BytesIO(out)) as archive:
        assert [info.name for info in archive] == [
            "conf",
            "etc",
            "implied",
            "m",
            "null",
            "etc/motd",
            "implied/x\x1b[31m",
        ]


def test_no_tar_goes_to_a_terminal(run: Run, app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=SimpleNamespace(isatty=lambda: True)))
    assert arv_docker.main(["export", app]) == 2


@pytest.mark.parametrize(("name", "code"), [("app", 0), ("absent", 5)])
def test_a_closed_standard_error(app: str, tmp_path: Path, name: str, code: int) -> None:
    """As a daemon may start a command: nobody is told, and nothing of it is in the result."""
    command = [sys.executable, "-m", "arv_docker", "ls", app.replace("app.tar", f"{name}.tar"), "etc/motd"]
    script = shlex.join(command) + " 2>&-"
    done = subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stdout.count("\n")) == (code, 0 if code else 1)


def test_a_closed_standard_input() -> None:
    script = shlex.join([sys.executable, "-m", "arv_docker", "ls", "docker-archive:-"]) + " <&-"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (5, "", "arv-docker: the archive is empty.\n")


def test_what_is_piped_in(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(classic(APP))))
    assert run("cat", "docker-archive:-", "m").out == "hello\n"
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(classic(APP))))
    assert "/etc" in run("ls", "docker-archive:-").out


def test_an_image_in_keep(api: FakeApi, run: Run, tmp_path: Path, app: str) -> None:
    assert run("ingest", "--from-archive", app.partition(":")[2]).code == 0
    assert run("cat", "app:1", "m").out == "hello\n"
    assert run("diff", "keep:app:1", app).out == ""
    assert run("ls", "--verify", "app:1", "/etc/").out.endswith("/etc/motd\n")


def test_an_altered_archive(run: Run, tmp_path: Path) -> None:
    """By offset only what is asked for is read; with --verify, and for export, all is checked."""
    (tmp_path / "app.tar").write_bytes(classic(APP).replace(b"hello\n", b"HELLO\n"))
    place = f"docker-archive:{tmp_path}/app.tar"
    assert run("ls", place).code == 0
    for arguments in (("ls", "--verify", place), ("cat", "--verify", place, "m"), ("export", place)):
        assert run(*arguments).code == 5, arguments

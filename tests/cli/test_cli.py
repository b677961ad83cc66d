# SPDX-License-Identifier: Apache-2.0
"""What all commands share: --local, help, exit codes, and how errors are told."""

from __future__ import annotations

import errno
import functools
import importlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from arv_docker import cli, errors
from arv_docker.cli import arv_docker, exit_code_of, without_local

from ..test_errors import ALL
from .conftest import Run

ROOT = Path(__file__).parents[2]

PROGRAMS = {
    "arv-docker": [sys.executable, "-m", "arv_docker.cli.arv_docker"],
    "arv-keepdocker": [
        sys.executable,
        "-c",
        "import sys; from arv_docker.cli.arv_keepdocker import main; sys.exit(main())",
    ],
}


# -- --local ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "local", "rest"),
    [
        ([], None, []),
        (["ingest", "app"], None, ["ingest", "app"]),
        (["--local", "ingest", "app"], "", ["ingest", "app"]),
        (["ingest", "--local", "app"], "", ["ingest", "app"]),
        (["ingest", "app", "--local"], "", ["ingest", "app"]),
        (["ingest", "--local=/a/b", "app"], "/a/b", ["ingest", "app"]),
        (["--local=/a=b", "images"], "/a=b", ["images"]),
        (["--local=", "images"], "", ["images"]),
        (["--local=one", "images", "--local=two"], "two", ["images"]),
        (["images", "--", "--local"], None, ["images", "--", "--local"]),
        (["--local", "images", "--", "--local=x"], "", ["images", "--", "--local=x"]),
        (["images", "--locale"], None, ["images", "--locale"]),
        (["images", "x--local"], None, ["images", "x--local"]),
        (["local", "-local"], None, ["local", "-local"]),
    ],
)
def test_local_stands_anywhere_and_swallows_nothing(arguments: list[str], local: str | None, rest: list[str]) -> None:
    assert without_local(arguments) == (local, rest)


def test_options_are_not_abbreviated(run: Run) -> None:
    """Else --loc would be an option of argparse's, and swallow the image."""
    assert run("images", "--loc").code == 2
    assert run("arv-keepdocker", "--forc", "app").code == 2


# -- help -------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [*arv_docker.VERBS, "site serve", "site env", "site status"])
def test_every_verb_s_help_has_an_example(run: Run, verb: str) -> None:
    outcome = run(*verb.split(), "--help")
    assert outcome.code == 0
    assert outcome.err == ""
    assert f"arv-docker {verb}" in outcome.out.split("example", 1)[1]
    assert "exit code" in outcome.out or " " in verb


@pytest.mark.parametrize(
    ("arguments", "codes"),
    [(["--help"], {error("").exit_code for error in ALL}), (["arv-keepdocker", "--help"], {1, 2})],
)
def test_help_has_the_exit_codes_and_an_example(run: Run, arguments: list[str], codes: set[int]) -> None:
    outcome = run(*arguments)
    assert outcome.code == 0
    for code in codes:
        assert f"\n  {code}  " in outcome.out
    assert "example" in outcome.out


def test_help_names_every_verb(run: Run) -> None:
    out = run("--help").out
    for verb in arv_docker.VERBS:
        assert re.search(rf"\n    {verb}\s", out)


def modules_of(arguments: list[str]) -> set[str]:
    """What is loaded when a command with those words has ended; only this package and Python are there."""
    code = f"""
import sys
from arv_docker.cli.{arguments[0].replace("-", "_")} import main
try:
    main({arguments[1:]!r})
finally:
    print("loaded:", *sys.modules)
"""
    result = subprocess.run([sys.executable, "-E", "-S", "-c", code], capture_output=True, text=True, cwd=ROOT)
    return set(result.stdout.rpartition("loaded: ")[2].split())


@pytest.mark.parametrize(
    "arguments", [["arv-docker", "--help"], ["arv-docker", "ingest", "--help"], ["arv-keepdocker", "-h"]]
)
def test_help_starts_fast(arguments: list[str]) -> None:
    """Without the SDK and the web framework, which together take half a second."""
    loaded = modules_of(arguments)
    assert "arv_docker.cli" in loaded
    assert not loaded & {"arvados", "starlette", "uvicorn", "rich", "googleapiclient", "cryptography", "urllib3"}


@pytest.mark.parametrize("arguments", [["--help"], [], ["nonsense"], ["--version"]])
def test_the_list_of_verbs_needs_none_of_them(arguments: list[str]) -> None:
    """It takes a few times as long as a Python that does nothing, of which each of these would be as much again."""
    loaded = modules_of(["arv-docker", *arguments])
    ours = {name for name in loaded if name.startswith("arv_docker")}
    assert ours == {
        "arv_docker",
        "arv_docker.errors",
        *(f"arv_docker.cli{it}" for it in ("", ".arv_docker", ".interrupt", ".memory", ".options", ".program")),
    }
    heavy = {"dataclasses", "pathlib", "json", "inspect", "logging", "ssl", "http.client", "threading"}
    assert not (loaded & heavy) - modules_of_argparse()


@functools.cache
def modules_of_argparse() -> set[str]:
    """The modules that Python's own parser loads to print a help page: from 3.14 on it colours them."""
    code = """
import argparse, sys
try:
    argparse.ArgumentParser().parse_args(["--help"])
finally:
    print("loaded:", *sys.modules)
"""
    result = subprocess.run([sys.executable, "-E", "-S", "-c", code], capture_output=True, text=True, cwd=ROOT)
    return set(result.stdout.rpartition("loaded: ")[2].split())


def test_the_package_runs_as_the_command() -> None:
    result = subprocess.run([sys.executable, "-m", "arv_docker", "--help"], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("usage: arv-docker ")


@pytest.mark.parametrize("program", PROGRAMS)
def test_version(program: str) -> None:
    result = subprocess.run([*PROGRAMS[program], "--version"], capture_output=True, text=True)
    assert result.returncode == 0
    assert result.stdout.startswith(f"{program} ")


# -- exit codes -------------------------------------------------------------------------


@pytest.mark.conforms("K26", "S23")
@pytest.mark.parametrize("error", ALL)
def test_an_error_becomes_its_exit_code_and_words(
    error: type[errors.ArvDockerError], capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> int:
        raise error("what happened", detail="the engine's words\nin two lines")

    assert exit_code_of(fails, "arv-docker") == error("").exit_code
    assert capsys.readouterr() == ("", "arv-docker: what happened\n  the engine's words\n  in two lines\n")


def test_a_pipe_of_the_work_that_breaks(capsys: pytest.CaptureFixture[str]) -> None:
    """The result was not printed to the end only where the reader of it has gone."""

    def fails() -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    assert exit_code_of(fails, "arv-docker") == errors.DiskError.exit_code
    assert capsys.readouterr() == ("", "arv-docker: [Errno 32] Broken pipe\n")


def test_an_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    assert exit_code_of(interrupted, "arv-docker") == 130
    assert capsys.readouterr().err == "arv-docker: interrupted\n"


def test_without_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert exit_code_of(lambda: 8, "arv-docker") == 8


def test_a_command_s_own_code() -> None:
    assert exit_code_of(lambda: 0, "x") == 0
    assert exit_code_of(lambda: 8, "x") == 8


@pytest.mark.conforms("K26")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 2),
        (["nonsense"], 2),
        (["images", "--nonsense"], 2),
        (["ingest"], 2),
        (["ingest", "Bad/NAME:"], 2),
        (["resolve"], 2),
        (["site", "serve", "--dir", ""], 2),
        (["install-command", "--prefix", ""], 2),
        (["resolve", "sha256:xyz"], 2),
        (["ingest", "--image-id", "x", "app"], 2),
        (["ingest", "--retries", "x", "app"], 2),
        (["resolve", "app"], 1),
        (["arv-keepdocker", "repo:tag", "extra"], 1),
        (["arv-keepdocker", "--nonsense"], 2),
        (["arv-keepdocker", "Bad/NAME:"], 1),
        (["arv-keepdocker", "--from-archive", "/nowhere.tar"], 1),
        (["ingest", "--from-archive", "/nowhere.tar"], 5),
        (["verify", "app"], 1),
        (["inspect", "zzzzz-4zz18-000000000000077"], 1),
    ],
)
@pytest.mark.usefixtures("api", "engine")
def test_exit_codes(run: Run, arguments: list[str], code: int) -> None:
    outcome = run(*arguments)
    assert outcome.code == code
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    assert outcome.err


@pytest.mark.parametrize("arguments", [["arv-docker", "images"], ["arv-keepdocker"], ["arv-docker", "verify", "x"]])
def test_no_cluster_and_no_local(arguments: list[str]) -> None:
    result = subprocess.run([*PROGRAMS[arguments[0]], *arguments[1:]], capture_output=True, text=True)
    assert result.returncode == (1 if arguments == ["arv-keepdocker"] else 6)
    assert result.stdout == ""
    assert "ARVADOS_API_HOST" in result.stderr
    assert "--local" in result.stderr


@pytest.mark.conforms("S19")
@pytest.mark.parametrize("arguments", [["arv-docker", "images"], ["arv-keepdocker"]])
def test_a_cluster_that_says_nothing_is_waited_for_aloud(arguments: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        host = f"127.0.0.1:{deaf.getsockname()[1]}"
        environment = {**os.environ, "ARVADOS_API_HOST": host, "ARVADOS_API_TOKEN": "token"}
        command = [*PROGRAMS[arguments[0]], *arguments[1:]]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stderr is not None
            try:
                assert process.stderr.readline().startswith("asking the cluster: ")
                process.send_signal(signal.SIGINT)
                assert process.wait(20) == 130
            finally:
                process.kill()


def test_no_engine_is_installed(tmp_path: Path) -> None:
    command = [*PROGRAMS["arv-docker"], "ingest", "--local", "app"]
    environment = {**os.environ, "PATH": str(tmp_path)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 3
    assert "--from-archive" in result.stderr


# -- pipes and signals ------------------------------------------------------------------

MANY = """
import sys
from arv_docker.cli import exit_code_of
def run():
    for number in range(200_000):
        print("a line of the listing", number)
    return 0
sys.exit(exit_code_of(run, "arv-docker"))
"""


@pytest.mark.conforms("K1")
def test_a_reader_that_has_gone() -> None:
    """As in `arv-docker images | head -1`: quiet, and no failure."""
    with subprocess.Popen([sys.executable, "-c", MANY], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"a line of the listing 0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_signals_end_a_command_with_their_code(number: signal.Signals, code: int) -> None:
    # What starts the tests may have signals ignored, as nohup does. Naps, for Python does not look at a signal that
    # comes just before a long sleep until that has ended: Python 3.14 does not look between a call and the next.
    waits = "import signal, sys, time\nfrom arv_docker.cli import exit_code_of\n"
    waits += "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
    waits += "def run():\n    print('up', flush=True)\n    for _ in range(6000):\n        time.sleep(0.1)\n"
    waits += "sys.exit(exit_code_of(run, 'arv-docker'))"
    with subprocess.Popen([sys.executable, "-c", waits], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        started = time.monotonic()
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
        assert process.returncode == code
        assert b"Traceback" not in err
        assert time.monotonic() - started < 20


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_in_a_destructor_is_not_lost(number: signal.Signals, code: int) -> None:
    """Python lets no exception out of one."""
    waits = """
import os, signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from arv_docker.cli import exit_code_of
class Lost:
    def __del__(self):
        os.kill(os.getpid(), NUMBER)
        time.sleep(0.1)
def run():
    Lost()
    time.sleep(600)
sys.exit(exit_code_of(run, 'arv-docker'))
""".replace("NUMBER", str(int(number)))
    done = subprocess.run([sys.executable, "-c", waits], capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == 1


def test_json_is_indented_and_keeps_its_characters(capsys: pytest.CaptureFixture[str]) -> None:
    cli.print_json({"name": "é", "path": Path("/a")})
    assert capsys.readouterr().out == '{\n  "name": "é",\n  "path": "/a"\n}\n'


def test_every_verb_is_a_module_with_two_names() -> None:
    for verb in arv_docker.VERBS:
        module = importlib.import_module(f"arv_docker.cli.{verb.replace('-', '_')}")
        configure: Callable[..., object] = module.configure
        assert callable(configure)
        assert callable(module.run)


def test_nohup_is_heeded() -> None:
    waits = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from arv_docker.cli import exit_code_of
def run():
    os.kill(os.getpid(), signal.SIGHUP)
    return 8
sys.exit(exit_code_of(run, 'arv-docker'))
"""
    assert subprocess.run([sys.executable, "-c", waits]).returncode == 8


def test_an_interrupt_at_any_moment_is_one_line(tmp_path: Path) -> None:
    """From our first import on; before that Python itself begins, and has no handler yet."""
    program = tmp_path / "arv-docker"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nimport arv_docker\nprint('up', flush=True)\n"
        "from arv_docker.cli.arv_docker import main\nsys.exit(main())\n"
    )
    program.chmod(0o755)
    for number in range(40):
        with subprocess.Popen(
            [program, "images", f"--local={tmp_path}/none"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            time.sleep(0.02 + 0.01 * number)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert process.returncode in (130, 6), err  # 6 is the command's own
        assert "Traceback" not in err
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize("verb", ["images", "resolve x", "inspect x", "verify x", "untag x", "status x", "load x"])
def test_a_verb_that_reads_makes_no_site(verb: str, tmp_path: Path, run: Run) -> None:
    (tmp_path / "bin").mkdir()
    told = run(*verb.split(), f"--local={tmp_path}/none", *(["--engine=auto"] if verb == "load x" else []))
    assert (told.code, told.out) == (6, "")
    assert f"arv-docker ingest --local={tmp_path}/none IMAGE" in told.err
    assert not (tmp_path / "none").exists()


def test_an_unknown_option_shows_the_usage_of_the_verb(run: Run) -> None:
    told = run("images", "--nonsense")
    assert told.code == 2
    assert "usage: arv-docker images" in told.err
    assert "--project-uuid" in told.err


@pytest.mark.parametrize(
    ("text", "hint"),
    [("small.tar", "docker-archive:small.tar"), ("dcoker:app", "docker://"), ("oci-archve:x", "oci-archive:")],
)
@pytest.mark.usefixtures("api", "engine")
def test_a_place_that_is_taken_for_a_name_gets_a_hint(
    run: Run, text: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.tar").write_text("a tar")
    told = run("ingest", text)
    assert told.code == 1
    assert hint in told.err


@pytest.mark.parametrize(
    ("error", "stops"),
    [
        (errors.ClusterError("x"), True),
        (errors.ClusterError("x", status=401), True),
        (errors.ClusterError("x", status=503), True),
        (errors.ClusterError("x", status=422), False),
        (errors.KeepError("x"), False),
        (errors.ContentError("x"), False),
    ],
)
def test_some_errors_would_meet_the_next_image_too(error: errors.ArvDockerError, stops: bool) -> None:
    assert cli.is_of_the_cluster(error) is stops

# SPDX-License-Identifier: Apache-2.0
"""How much a command tells: --quiet, --verbose, --debug, and logs without secrets."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from arv_docker.cli import logs, without_telling
from arv_docker.compat import keepdocker
from arv_docker.engines.process import loggable

from ..archives import files_of, image
from ..arvados.fake_api import FakeApi
from ..engines.scripts import ONE, inspected, scripted
from ..registry.scripted import Registry, running
from ..transports.fake_engine import FakeEngine
from .conftest import Run, saved

PASSWORD = "a-very-secret-password"
BUILD_SECRET = "a-secret-of-the-build"


@pytest.mark.parametrize(
    ("arguments", "telling", "rest"),
    [
        (["ingest", "app"], "", ["ingest", "app"]),
        (["--debug", "ingest", "app"], "debug", ["ingest", "app"]),
        (["ingest", "-v", "app"], "verbose", ["ingest", "app"]),
        (["-q", "ingest", "app", "--verbose"], "verbose", ["ingest", "app"]),
        (["ingest", "--quiet", "--", "-v"], "quiet", ["ingest", "--", "-v"]),
    ],
)
def test_how_much_is_told_may_be_said_anywhere(arguments: list[str], telling: str, rest: list[str]) -> None:
    assert without_telling(arguments) == (telling, rest)


def test_quiet_leaves_results_warnings_and_errors(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    told = run("-q", "ingest", "--trust-readable", "app:1", "absent:1")
    assert told.code == 1
    assert len(told.out.splitlines()) == 1
    assert [line.partition(":")[0] for line in told.err.splitlines()] == ["warning", "absent"]


def test_debug_tells_of_engine_commands_and_their_ends(tmp_path: Path) -> None:
    path = scripted(tmp_path / "bin", "docker", {"image inspect": (0, inspected(), "")})
    done = command(tmp_path, "--debug", "ingest", "--local", "--dry-run", "app:1", PATH=path)
    assert re.search(
        r"^\d\d:\d\d:\d\d\.\d{3} arv_docker\.engines\.process: docker image inspect app:1: "
        r"exit code 0 after \d+\.\d\d s$",
        done.stderr,
        re.MULTILINE,
    )
    assert "arv_docker.engines.process" in command(tmp_path, "ingest", "--local", "-v", "x", PATH=path).stderr
    assert "arv_docker.engines" not in command(tmp_path, "ingest", "--local", "x", PATH=path).stderr


def test_the_variable_for_debugging_is_heeded_and_checked(tmp_path: Path) -> None:
    path = scripted(tmp_path / "bin", "docker", {"version": (0, "20.10", "")})
    told = command(tmp_path, "doctor", PATH=path, ARV_DOCKER_LOG="verbose").stderr
    assert "arv_docker.engines.process: docker version" in told
    wrong = command(tmp_path, "images", "--local", ARV_DOCKER_LOG="loud")
    assert wrong.returncode == 2
    assert "ARV_DOCKER_LOG=loud" in wrong.stderr


def test_other_libraries_are_not_heard_unasked(capsys: pytest.CaptureFixture[str]) -> None:
    with logs.show_log("", sys.stderr):
        logging.getLogger("urllib3.connectionpool").warning("nobody asked")
        logging.getLogger("arvados.keep").error("nobody asked")
        logging.getLogger("arvados").addHandler(logging.StreamHandler())
        logging.getLogger("arvados").error("nobody asked")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "secret",
    [
        "+A0123456789012345678901234567890123456789@65f1c2d3",
        "v2/zzzzz-gj3su-0123456789abcde/3kg6k6lzmp9kj5cpkcoxie963cmvjahbt2fod9zru30k1jqdmi",
        "Bearer eyJhbGciOiJSUzI1NiJ9.abcdef",
        "https://user:secret@registry.example/v2/",
        "https://storage.example/blob?X-Amz-Signature=abcdef0123",
    ],
)
def test_a_formatter_leaves_out_secrets(secret: str, capsys: pytest.CaptureFixture[str]) -> None:
    with logs.show_log("debug", sys.stderr):
        logging.getLogger("arvados.keep").warning("request failed: %s", secret)
    told = capsys.readouterr().err
    assert "…" in told
    assert secret not in told


def test_the_words_of_a_container_and_of_build_arguments_stay_out_of_the_log() -> None:
    assert loggable(["/bin/docker", "build", "--build-arg=KEY=a b", "--tag=x", "."]) == (
        "docker build --build-arg=KEY=… --tag=x ."
    )
    assert loggable(["docker", "run", "--detach", "sha256:0", "jupyter", "--token=x"], 2) == (
        "docker run --detach sha256:0 …"
    )


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The folder of a local site, with APP in a file beside it."""
    saved(tmp_path / "app.tar", image(files_of(b"low"), files_of(b"high"), os="linux"))
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text("FROM scratch\n")
    return tmp_path / "site"


def test_no_debug_log_has_a_secret(tmp_path: Path, site: Path) -> None:
    """Of runs of every kind: to Keep and from there, to and from a registry with a password, builds."""
    engine = {"image inspect": (0, inspected(), ""), "build": (0, "built\n", ""), "id": (0, ONE, "")}
    path = scripted(tmp_path / "bin", "docker", engine)
    registry = Registry()
    registry.users = {"ann": PASSWORD}
    told = []
    with running(registry):
        push = ("registry", "push", "--insecure", registry.host, "--username", "ann", "--password-env", "SECRET")
        for words in (
            ("ingest", f"--local={site}", "docker-archive:app.tar"),
            ("ingest", f"--local={site}", "--force", "docker-archive:app.tar"),
            ("verify", f"--local={site}", "app:1"),
            ("inspect", f"--local={site}", "app:1"),
            ("resolve", f"--local={site}", "app:1", "--explain"),
            ("copy", f"--local={site}", "keep:app:1", "oci:layout:app"),
            ("stage", f"--local={site}", "app:1", "--dir", "staged"),
            ("tag", f"--local={site}", "app:1", "other:1"),
            (*push, "docker-archive:app.tar", "tools/app:1"),
            ("registry", "images", "--insecure", registry.host, "--username", "ann", "--password-env", "SECRET"),
            ("build", "--build-arg", f"KEY={BUILD_SECRET}", "-t", "made:1", "context"),
            ("doctor", f"--local={site}"),
        ):
            done = command(tmp_path, "--debug", *words, PATH=path, SECRET=PASSWORD)
            assert "Traceback" not in done.stderr
            if words[0] != "doctor":
                assert done.returncode == 0, (words, done.stderr)
            told.append(done.stderr)
    log = "".join(told)
    assert re.search(r"arv_docker\.engines\.process: docker build .*--build-arg=KEY=… ", log)
    for secret in (PASSWORD, BUILD_SECRET, "YW5uOmEtdmVyeS1zZWNyZXQ"):  # the last as in a header of Basic
        assert secret not in log
    assert not re.search(r"\+A[0-9a-f]{40}@", log)
    assert not re.search(r"(?i)(bearer|basic|oauth2) [\w.~+/=-]{8,}", log)
    assert not re.search(r"v2/[0-9a-z]{5}-gj3su-[0-9a-z]{15}/\w", log)


def test_errors_of_the_drop_in_reach_its_logger_once(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit):
        keepdocker.main(["Bad/NAME:"], stderr=sys.stderr, install_sig_handlers=False)
    (record,) = [it for it in caplog.records if it.name == "arvados.keepdocker"]
    assert record.levelname == "ERROR"
    assert "Bad/NAME" in record.getMessage()
    assert capsys.readouterr().err.count("Bad/NAME") == 1


def command(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command, run in the folder to its end."""
    environment = {**os.environ, **variables}
    if "PATH" in variables:
        environment["PATH"] = f"{variables['PATH']}:{os.environ['PATH']}"
    line = [sys.executable, "-m", "arv_docker.cli.arv_docker", *words]
    return subprocess.run(line, capture_output=True, text=True, cwd=folder, env=environment, timeout=120)

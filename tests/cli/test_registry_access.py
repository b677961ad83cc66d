# SPDX-License-Identifier: Apache-2.0
"""`--authfile` and `--creds`: as whom a registry is asked, for every verb that takes ``docker://``."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from ..archives import image
from ..registry.conftest import registry, tokens, waited
from ..registry.scripted import Registry, TokenServer, running
from .conftest import Run

__all__ = ["registry", "tokens", "waited"]

IMAGE = image(b"layer".ljust(2048), os="linux", architecture="amd64")
SECRET = "the pass:word"


@pytest.fixture(autouse=True)
def _with_a_login(registry: Registry) -> None:
    registry.add("team/app:1", IMAGE)
    registry.users = {"ann": SECRET}


@pytest.fixture
def creds(tmp_path: Path) -> Path:
    file = tmp_path / "creds"
    file.write_text(f"ann:{SECRET}\nnot read\n")
    return file


def authfile(tmp_path: Path, host: str) -> Path:
    file = tmp_path / "given.json"
    encoded = base64.b64encode(f"ann:{SECRET}".encode()).decode()
    file.write_text(json.dumps({"auths": {host: {"auth": encoded}}}))
    return file


def verbs(registry: Registry, folder: Path) -> dict[str, list[str]]:
    source = f"docker://{registry.host}/team/app:1"
    return {
        "inspect": ["inspect", "--insecure", source],
        "ingest": ["ingest", "--insecure", f"--local={folder}/site", source],
        "copy": ["copy", "--insecure", source, f"oci:{folder}/layout"],
        "stage": [
            "stage",
            "--insecure",
            "--from=registry",
            "--dir",
            str(folder / "staged"),
            source.removeprefix("docker://"),
        ],
        "push": ["registry", "push", "--insecure", registry.host, source, "other:1"],
        "images": ["registry", "images", "--insecure", registry.host],
        "repos": ["registry", "repos", "--insecure", registry.host],
        "tags": ["registry", "tags", "--insecure", registry.host, "team/app"],
        "status": ["registry", "status", "--insecure", registry.host, "team/app:1"],
    }


VERBS = ("inspect", "ingest", "copy", "stage", "push", "images", "repos", "tags", "status")


@pytest.mark.parametrize("verb", VERBS)
def test_an_authfile_for_every_verb(run: Run, registry: Registry, tmp_path: Path, verb: str) -> None:
    words = verbs(registry, tmp_path)[verb]
    assert run(*words).code != 0
    done = run(*words, "--authfile", str(authfile(tmp_path, registry.host)))
    assert done.code == 0, done.err
    assert SECRET not in done.out + done.err


@pytest.mark.parametrize("verb", VERBS)
def test_credentials_of_a_file_for_every_verb(
    run: Run, registry: Registry, tmp_path: Path, creds: Path, verb: str
) -> None:
    option = {"copy": ["--src-creds"], "push": ["--src-creds", "--creds"]}.get(verb, ["--creds"])
    words = [word for name in option for word in (name, str(creds))]
    done = run(*verbs(registry, tmp_path)[verb], *words)
    assert done.code == 0, done.err


def test_two_registries_with_credentials_of_their_own(
    run: Run, registry: Registry, tmp_path: Path, creds: Path
) -> None:
    other, bobs = Registry(), tmp_path / "bobs"
    other.users = {"bob": "other"}
    bobs.write_text("bob:other")
    names = f"docker://{registry.host}/team/app:1", f"docker://{other.host}/app:2"
    with running(other):
        done = run("copy", "--insecure", *names, "--src-creds", str(creds), "--dest-creds", str(bobs))
    assert done.code == 0, done.err
    assert ("app", "2") in other.manifests


def test_credentials_of_a_descriptor(run: Run, registry: Registry, tmp_path: Path) -> None:
    """Its first line alone is taken."""
    reading, writing = os.pipe()
    os.write(writing, f"ann:{SECRET}\nrest".encode())
    os.close(writing)
    done = run(*verbs(registry, tmp_path)["tags"], "--creds", f"fd:{reading}")
    assert (done.code, done.out) == (0, "1\n"), done.err
    assert os.read(reading, 10) == b"rest"
    os.close(reading)


@pytest.mark.parametrize("place", ["ann:Hunter2", "fd:Hunter2", "fd:99999999", "fd:999", "Hunter2"])
def test_a_password_in_the_place_of_its_file_is_not_shown(
    run: Run, registry: Registry, tmp_path: Path, place: str
) -> None:
    done = run(*verbs(registry, tmp_path)["tags"], "--creds", place)
    assert done.code == 2
    assert "--creds" in done.err
    assert "Hunter2" not in done.out + done.err
    assert registry.seen == []


@pytest.mark.parametrize("content", ["Hunter2", "", ":Hunter2", "\nann:Hunter2"])
def test_what_is_no_name_and_password(run: Run, registry: Registry, tmp_path: Path, content: str) -> None:
    (tmp_path / "creds").write_text(content)
    done = run(*verbs(registry, tmp_path)["tags"], "--creds", str(tmp_path / "creds"))
    assert done.code == 2
    assert "is not NAME:PASSWORD" in done.err
    assert "Hunter2" not in done.err


def test_one_source_of_credentials(run: Run, registry: Registry, tmp_path: Path, creds: Path) -> None:
    done = run(*verbs(registry, tmp_path)["tags"], "--creds", str(creds), "--credential-helper", "x")
    assert (done.code, "give one of --creds" in done.err) == (2, True)
    done = run(*verbs(registry, tmp_path)["tags"], "--authfile", str(tmp_path / "none"))
    assert (done.code, "is not there" in done.err) == (2, True)


def test_lists_are_printed_also_where_a_part_is_refused(run: Run, registry: Registry, creds: Path) -> None:
    registry.put_manifest("z/last", "1", b"{}")
    registry.put_manifest("m/other", "1", b"{}")
    registry.fault = lambda it: "/m/other/tags" in it.path and it.refuse(403, "DENIED")
    for more, expected in ((), "team/app:1\nz/last:1\n"), (("--json",), None):
        done = run("registry", "images", "--insecure", registry.host, "--creds", str(creds), *more)
        assert done.code == 9
        assert (done.out if expected else json.loads(done.out)) == (expected or ["team/app:1", "z/last:1"])
        assert len(done.err.splitlines()) == 1
        assert "m/other (status 403)" in done.err


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HTTPS_PROXY", "http://ann:Hunter2#@127.0.0.1:9"),
        ("HTTPS_PROXY", "http://ann:Hunter2[@127.0.0.1:9"),
        ("ARV_DOCKER_REGISTRY_MIRRORS", "registry.example=ann:Hunter2@mirror.example/hub"),
        ("ARV_DOCKER_REGISTRY_MIRRORS", "registry.example=https://ann:Hunter2@mirror.example"),
        ("ARV_DOCKER_REGISTRY_MIRRORS", "ann:Hunter2@mirror.example"),
    ],
)
def test_a_password_in_a_setting_is_not_shown(
    run: Run, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    done = run("inspect", "docker://registry.example/app:1")
    assert done.code == 6
    assert variable in done.err
    assert "Hunter2" not in done.err


@pytest.mark.parametrize(
    "words",
    [
        ("inspect", "docker://ann:Hunter2@registry.example/app:1"),
        ("inspect", "docker://ann:Hunter2@localhost:5000/app:1"),
        ("registry", "tags", "ann:Hunter2@registry.example", "app"),
        ("registry", "tags", "https://ann:Hun/ter2@registry.example", "app"),
        ("registry", "tags", "registry.example", "app", "--service", "https://ann:Hunter2@x", "--service-project", "p"),
    ],
)
def test_a_password_in_a_name_is_not_shown(run: Run, words: tuple[str, ...]) -> None:
    done = run(*words)
    assert done.code == 2
    assert "Hunter2" not in done.out + done.err
    assert "ter2" not in done.out + done.err


def test_a_warning_is_a_line_of_its_own(run: Run, registry: Registry, tokens: TokenServer, home: Path) -> None:
    registry.bearer = tokens  # who lets everybody in
    (home / ".docker").mkdir()
    (home / ".docker" / "config.json").write_text('{"credsStore": "that-is-not-there"}')
    done = run("registry", "tags", "--insecure", registry.host, "team/app")
    assert (done.code, done.out) == (0, "1\n")
    assert done.err.startswith("warning: the credential helper docker-credential-that-is-not-there gave no credentials")

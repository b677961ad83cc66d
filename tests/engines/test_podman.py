# SPDX-License-Identifier: Apache-2.0
"""What Podman does in another way than Docker. The command here is a small script, as in `test_docker.py`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from arv_docker.engines.podman import Podman, Store
from arv_docker.errors import BadArchive, EngineError, EngineNotRunning, EnginePermissionDenied, NoEngine, NoSuchImage
from arv_docker.model.image import Digest, Platform
from arv_docker.model.reference import Reference, parse_name

from .scripts import ONE, THREE, Answer, calls_of, inspected, listing, scripted

Engine = Callable[..., Podman]

NO_SUCH = (125, "[]\n", "Error: inspecting object: x: image not known\n")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Podman with these answers, each to the calls that begin so."""

    def made(answers: Mapping[str, Answer], store: Store | None = None) -> Podman:
        monkeypatch.setenv("PATH", scripted(tmp_path / "bin", "podman", answers))
        return Podman(store)

    return made


@pytest.fixture
def calls(tmp_path: Path) -> Callable[[], list[list[str]]]:
    return lambda: calls_of(tmp_path / "bin")


@pytest.mark.conforms("K27")
def test_ids_without_their_algorithm(engine: Engine) -> None:
    bare = ONE.removeprefix("sha256:")
    podman = engine({"image inspect": (0, inspected(bare), ""), "images": (0, listing(bare), "")})
    assert str(podman.inspect(Reference.parse("app:1")).id) == ONE
    assert str(podman.list()[0].id) == ONE


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("app:1", ["localhost/app:1", "docker.io/library/app:1"]),
        ("x/app", ["localhost/x/app:latest", "docker.io/x/app:latest"]),
        ("docker.io/app:1", ["docker.io/library/app:1"]),
        ("localhost/app:1", ["localhost/app:1"]),
        ("quay.example.com/x/app:1", ["quay.example.com/x/app:1"]),
        (f"app:1@{ONE}", [f"localhost/app@{ONE}", f"docker.io/library/app@{ONE}"]),
    ],
)
def test_full_names_are_asked_for(
    engine: Engine, calls: Callable[[], list[list[str]]], name: str, asked: list[str]
) -> None:
    """By a short one Podman gives any image whose name ends so."""
    with pytest.raises(NoSuchImage):
        engine({"image inspect": NO_SUCH}).inspect(Reference.parse(name))
    assert [call[-1] for call in calls()] == asked


def test_an_image_of_this_machine_comes_before_one_of_the_hub(engine: Engine) -> None:
    answers = {
        "image inspect localhost/app:1": (0, inspected(ONE), ""),
        "image inspect docker.io/library/app:1": (0, inspected(THREE), ""),
    }
    assert str(engine(answers).inspect(Reference.parse("app:1")).id) == ONE
    assert str(engine(answers).inspect(Reference.parse("docker.io/app:1")).id) == THREE


def test_a_name_of_hex_digits_is_an_id_if_there_is_no_such_name(engine: Engine) -> None:
    answers = {f"image inspect {THREE}": (0, inspected(THREE), ""), "image inspect": NO_SUCH}
    assert str(engine({**answers, "images": (0, listing(THREE), "")}).inspect(parse_name("efef")).id) == THREE


def test_names_are_given_as_they_are_looked_up(engine: Engine, calls: Callable[[], list[list[str]]]) -> None:
    podman = engine({"tag": (0, "", ""), "pull": (0, "id\n", "")})
    podman.tag(Digest.parse(ONE), Reference.parse("app:1"))
    podman.tag(Digest.parse(ONE), Reference.parse("docker.io/library/app:1"))
    podman.pull(Reference.parse("app:1"))
    assert calls() == [
        ["tag", ONE, "localhost/app:1"],
        ["tag", ONE, "docker.io/library/app:1"],
        ["pull", "docker.io/library/app:1"],
    ]


def test_saving_one_and_several(engine: Engine, calls: Callable[[], list[list[str]]]) -> None:
    podman = engine({"save": (0, "a tar", "")})
    for images in ([ONE], [ONE, THREE]):
        with podman.save(images) as output:
            assert output.read(100) == b"a tar"
            assert output.read(100) == b""
    archive = ["save", "--format", "docker-archive"]
    assert calls() == [[*archive, ONE], [*archive, "--multi-image-archive", ONE, THREE]]


def test_a_store_of_its_own(engine: Engine, calls: Callable[[], list[list[str]]]) -> None:
    store = Store(root="/a", runroot="/b", driver="vfs")
    options = ["--root", "/a", "--runroot", "/b", "--storage-driver", "vfs"]
    answers = {" ".join(options): NO_SUCH}
    with pytest.raises(NoSuchImage):
        engine(answers, store).inspect(parse_name(ONE))
    assert calls() == [[*options, "image", "inspect", ONE]]
    with pytest.raises(EngineError, match="podman image inspect failed with status 125"):
        engine({" ".join(options): (125, "", "Error: something else")}, store).inspect(parse_name(ONE))
    assert Store(root="/a").options == ["--root", "/a"]


def test_what_is_loaded_leaves_no_file(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Podman writes the archive to a file first, which stays where it is killed."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    podman = engine({"load": (0, "Loaded ", "")})
    assert podman.load([b"x" * 10, b"y" * 5]) == "Loaded 15"
    there: list[str] = []

    def archive() -> object:
        yield b"first"
        there.extend(path.name for path in (tmp_path / "tmp").iterdir())
        raise BadArchive("a layer is not what it claims")

    with pytest.raises(BadArchive):
        podman.load(archive())  # type: ignore[arg-type]
    assert len(there) == 1
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_save_that_is_given_up_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Podman saves to a pipe by files of its own, which stay where it is killed."""
    for name in ("tmp", "bin"):
        (tmp_path / name).mkdir()
    script = tmp_path / "bin" / "podman"
    script.write_text('#!/bin/sh\ntouch "$TMPDIR/pipeDir1"\necho archive\nexec sleep 60\n')
    script.chmod(0o755)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))

    def interrupted() -> None:
        with Podman(command=str(script)).save(["app:1"]) as output:
            assert output.read(8) == b"archive\n"
            assert list((tmp_path / "tmp").rglob("pipeDir1"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.conforms("K27")
@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("Error: app:1: image not known", NoSuchImage),
        ("Error: inspecting object: app:1: image not known", NoSuchImage),
        ('Error: inspecting object: no such object: "app:1"', NoSuchImage),
        ("Error: mkdir /var/lib/containers/storage: permission denied", EnginePermissionDenied),
        ('cannot set up namespace using "/usr/bin/newuidmap": exit status 1', EnginePermissionDenied),
        ("Error: unable to connect to Podman socket: Get http://d/v4.3.1/libpod/_ping: dial unix", EngineNotRunning),
        ("Error: open /run/user/1000/libpod/tmp/pause.pid: permission denied", EnginePermissionDenied),
        ("Error: reading manifest 1 in registry.example/app: denied: permission denied", EngineError),
        ("Error: crun: exec: permission denied: OCI permission denied", EngineError),
        ("Error: setrlimit: operation not permitted", EngineError),
        ("Error: payload does not match any of the supported image formats", EngineError),
        ("", EngineError),
    ],
)
def test_what_a_refusal_means(engine: Engine, words: str, error: type[Exception]) -> None:
    podman = engine({"": (125, "", words + "\n")})
    for attempt in (lambda: podman.inspect(Reference.parse("app:1")), lambda: podman.load([b"x"]), podman.list):
        with pytest.raises(error) as caught:
            attempt()
        assert type(caught.value) is error
        assert caught.value.detail == words  # type: ignore[attr-defined]
        assert "Docker" not in str(caught.value)


@pytest.mark.conforms("W23")
def test_no_podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoEngine, match="no Podman command"):
        Podman()


def test_its_version(engine: Engine) -> None:
    assert engine({"version": (0, "4.3.1\n", "")}).version() == "4.3.1"


@pytest.mark.conforms("W23")
def test_its_platform(engine: Engine) -> None:
    assert engine({"version": (0, "linux/amd64\n", "")}).platform() == Platform("linux", "amd64")


def test_json_that_is_of_another_form(engine: Engine) -> None:
    with pytest.raises(EngineError, match="cannot be read"):
        engine({"images": (0, json.dumps([{"Id": "x"}]), "")}).list()

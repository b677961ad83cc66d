# SPDX-License-Identifier: Apache-2.0
"""Docker by its command line: what it says, and what its refusals mean. The command here is a small script."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from arv_docker.engines.docker import Docker
from arv_docker.errors import (
    AmbiguousImage,
    DiskError,
    EngineError,
    EngineFull,
    EngineNotRunning,
    EnginePermissionDenied,
    MissingMember,
    NoEngine,
    NoSuchImage,
)
from arv_docker.model.image import Digest, Platform
from arv_docker.model.reference import ImageId, Reference, parse_name

from .scripts import ONE, THREE, TWO, Answer, calls_of, inspected, listing, scripted

Engine = Callable[[Mapping[str, Answer]], Docker]


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Docker with these answers, each to the calls that begin so."""

    def made(answers: Mapping[str, Answer]) -> Docker:
        monkeypatch.setenv("PATH", scripted(tmp_path / "bin", "docker", answers))
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
        return Docker()

    return made


@pytest.fixture
def calls(tmp_path: Path) -> Callable[[], list[list[str]]]:
    """The arguments of every call so far."""
    return lambda: calls_of(tmp_path / "bin")


NO_SUCH: Answer = (1, "[]\n", "Error: No such image: x\n")


# -- what it says -----------------------------------------------------------------------


def test_version(engine: Engine) -> None:
    assert engine({"version --format": (0, "20.10.24\n", "")}).version() == "20.10.24"


@pytest.mark.conforms("W23")
def test_platform(engine: Engine) -> None:
    assert engine({"version --format": (0, "linux/arm64\n", "")}).platform() == Platform("linux", "arm64")
    for words in ("", "linux", "linux/"):
        with pytest.raises(EngineError, match="cannot be read"):
            engine({"version --format": (0, words, "")}).platform()
    with pytest.raises(EngineError) as caught:
        engine({"version --format": (1, "out", "its own words")}).platform()
    assert caught.value.detail == "its own words"


def test_list(engine: Engine, calls: Callable[[], list[list[str]]]) -> None:
    found = engine({"images": (0, listing(ONE, THREE), "")}).list()
    assert [str(image.id) for image in found] == [ONE, THREE]
    assert (found[0].repository, found[0].tag, found[0].created, found[0].size) == ("app", "1", "3 days ago", "4MB")
    assert [call[:3] for call in calls()] == [["images", "--no-trunc", "--format"]]


def test_an_empty_list(engine: Engine) -> None:
    assert engine({"images": (0, "", "")}).list() == []


def test_chains(engine: Engine, calls: Callable[[], list[list[str]]]) -> None:
    layers = f'["{TWO}","{ONE}"]\n["{TWO}"]\nnull\n'
    found = engine({"images": (0, listing(ONE, ONE, TWO, THREE), ""), "image inspect": (0, layers, "")}).chains()
    assert found == {(Digest.parse(TWO), Digest.parse(ONE)), (Digest.parse(TWO),), ()}
    assert calls()[1:] == [["image", "inspect", "--format", "{{json .RootFS.Layers}}", ONE, TWO, THREE]]


def test_chains_of_no_image(engine: Engine) -> None:
    assert engine({"images": (0, "", "")}).chains() == set()


def test_chains_of_more_images_than_a_command_line_takes(engine: Engine, calls: Callable[[], list[list[str]]]) -> None:
    images = [f"sha256:{number:064x}" for number in range(1234)]
    docker = engine({"images": (0, listing(*images), ""), "image inspect": (0, f'["{ONE}"]\n', "")})
    assert docker.chains() == {(Digest.parse(ONE),)}
    assert [it for call in calls()[1:] for it in call[4:]] == images
    assert max(map(len, calls())) <= 504


@pytest.mark.parametrize("answer", ["nonsense", '{"x": 1}', '["x"]', "[1]", "1"])
def test_chains_that_cannot_be_read(engine: Engine, answer: str) -> None:
    with pytest.raises(EngineError, match="cannot be read"):
        engine({"images": (0, listing(ONE), ""), "image inspect": (0, answer, "")}).chains()


def test_inspect(engine: Engine, calls: Callable[[], list[list[str]]]) -> None:
    found = engine({"image inspect": (0, inspected(), "")}).inspect(Reference.parse("app:1"))
    assert str(found.id) == ONE
    assert found.tags == ("app:1",)
    assert found.diff_ids == (Digest.parse(TWO),)
    assert (found.platform, found.size) == (Platform("linux", "arm64", "v8"), 1234)
    assert calls() == [["image", "inspect", "app:1"]]  # not "inspect", which finds containers too


def test_an_image_that_says_little(engine: Engine) -> None:
    keys: dict[str, Any] = {
        "RepoTags": None,
        "RepoDigests": None,
        "RootFS": None,
        "Os": "",
        "Architecture": None,
        "Size": None,
    }
    found = engine({"image inspect": (0, inspected(ONE, **keys), "")}).inspect(Reference.parse("app:1"))
    assert (found.tags, found.diff_ids, found.size, str(found.platform)) == ((), (), 0, "unknown/unknown/v8")


@pytest.mark.conforms("K27")
def test_ids_without_their_algorithm(engine: Engine) -> None:
    """As Podman prints them."""
    answers = {
        "image inspect": (0, inspected(ONE.removeprefix("sha256:")), ""),
        "images": (0, listing(ONE.removeprefix("sha256:")), ""),
    }
    docker = engine(answers)
    assert str(docker.inspect(Reference.parse("app:1")).id) == ONE
    assert str(docker.list()[0].id) == ONE


@pytest.mark.parametrize(
    "answer", ["", "[]", "{}", "null", "[1]", "[{}]", "not JSON", inspected("nonsense"), inspected(Size="x")]
)
def test_an_inspection_that_cannot_be_read(engine: Engine, answer: str) -> None:
    with pytest.raises(EngineError, match="cannot be read"):
        engine({"image inspect": (0, answer, "")}).inspect(Reference.parse("app:1"))


@pytest.mark.parametrize("answer", ["REPOSITORY TAG\n", "[]\n", '{"repository": "app"}\n', listing("nonsense")])
def test_a_listing_that_cannot_be_read(engine: Engine, answer: str) -> None:
    with pytest.raises(EngineError, match="cannot be read"):
        engine({"images": (0, answer, "")}).list()


def test_save_load_tag_and_pull(engine: Engine, calls: Callable[[], list[list[str]]]) -> None:
    docker = engine(
        {"save": (0, "a tar", ""), "load": (0, "Loaded ", ""), "tag": (0, "", ""), "pull": (0, "one\ntwo\n", "")}
    )
    with docker.save([ONE, "app:1"]) as output:
        assert output.read(100) + output.read(100) == b"a tar"
        assert output.read(100) == b""
    assert docker.load([b"x" * 10, b"y" * 5]) == "Loaded 15"
    docker.tag(Digest.parse(ONE), Reference.parse("docker.io/library/app:1"))
    lines: list[str] = []
    docker.pull(Reference.parse("quay.example.com/app:1"), lines.append)
    assert lines == ["one", "two"]
    assert calls() == [["save", ONE, "app:1"], ["load"], ["tag", ONE, "app:1"], ["pull", "quay.example.com/app:1"]]


def test_no_secret_is_an_argument(
    engine: Engine, calls: Callable[[], list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARVADOS_API_TOKEN", "a-secret-token")
    docker = engine({"": (0, inspected(), "")})
    docker.inspect(Reference.parse("app:1"))
    docker.load([b"a-secret-token"])
    docker.pull(Reference.parse("app:1"))
    assert "secret" not in json.dumps(calls())


# -- which image ------------------------------------------------------------------------


def test_a_whole_id_is_asked_for(engine: Engine, calls: Callable[[], list[list[str]]]) -> None:
    engine({"image inspect": (0, inspected(), "")}).inspect(parse_name(ONE))
    assert calls() == [["image", "inspect", ONE]]


def test_the_beginning_of_an_id_is_looked_up_in_the_listing(
    engine: Engine, calls: Callable[[], list[list[str]]]
) -> None:
    docker = engine({"images": (0, listing(ONE, THREE, ONE), ""), "image inspect": (0, inspected(), "")})
    assert str(docker.inspect(ImageId("abcd")).id) == ONE
    assert calls()[-1] == ["image", "inspect", ONE]


def test_the_beginning_of_several_ids(engine: Engine) -> None:
    with pytest.raises(AmbiguousImage, match="2 image IDs") as caught:
        engine({"images": (0, listing(ONE, TWO, THREE), "")}).inspect(ImageId("abcd"))
    assert caught.value.detail.splitlines() == [ONE, TWO]


def test_the_beginning_of_none(engine: Engine) -> None:
    with pytest.raises(NoSuchImage, match="sha256:0123"):
        engine({"images": (0, listing(ONE), "")}).inspect(ImageId("0123"))


def test_a_name_of_hex_digits_is_an_id_if_there_is_no_such_name(
    engine: Engine, calls: Callable[[], list[list[str]]]
) -> None:
    answers = {
        "image inspect efef": NO_SUCH,
        f"image inspect {THREE}": (0, inspected(THREE), ""),
        "images": (0, listing(ONE, THREE), ""),
    }
    assert str(engine(answers).inspect(parse_name("efef")).id) == THREE
    asked = [call[-1] for call in calls()]
    assert (asked[0], asked[2:]) == ("efef", [THREE])


def test_a_name_with_port_443_is_looked_up_without_it_too(engine: Engine, calls: Callable[[], list[list[str]]]) -> None:
    """As some engines list what they pulled; but `image/app` is another registry's than `image:443/app`."""
    seen = 0
    for name, asked in {
        "host.example:443/app:1": ["host.example:443/app:1", "host.example/app:1"],
        "image:443/app:1": ["image:443/app:1"],
        "host.example:8443/app:1": ["host.example:8443/app:1"],
    }.items():
        with pytest.raises(NoSuchImage):
            engine({"image inspect": NO_SUCH}).inspect(Reference.parse(name))
        assert [call[-1] for call in calls()[seen:]] == asked
        seen = len(calls())


def test_an_image_that_is_not_there(engine: Engine) -> None:
    with pytest.raises(NoSuchImage, match="'app:1'") as caught:
        engine({"image inspect": NO_SUCH}).inspect(Reference.parse("app:1"))
    assert caught.value.detail == "Error: No such image: x"


# -- what goes wrong --------------------------------------------------------------------


@pytest.mark.conforms("K9", "S20")
@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
            EngineNotRunning,
        ),
        ("error during connect: Get http://x: dial tcp: lookup x: no such host", EngineNotRunning),
        (
            "failed to connect to the docker API at unix:///x.sock; check if the path is correct and if the daemon "
            "is running: dial unix /x.sock: connect: no such file or directory",
            EngineNotRunning,
        ),
        (
            "Got permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: "
            'Get "http://%2Fvar%2Frun%2Fdocker.sock/v1.24/images/json": dial unix /var/run/docker.sock: connect: '
            "permission denied",
            EnginePermissionDenied,
        ),
        (
            "permission denied while trying to connect to the docker API at unix:///var/run/docker.sock",
            EnginePermissionDenied,
        ),
        ("Error: No such image: app:1", NoSuchImage),
        ("Error response from daemon: No such image: app:1", NoSuchImage),
        ("Error response from daemon: reference does not exist", NoSuchImage),
        ("Error: No such object: app:1", NoSuchImage),
        ("Error: inspecting object: app:1: image not known", NoSuchImage),
        ("Error response from daemon: open /data: permission denied", EngineError),
        ("Error response from daemon: write /x: no space left on device", EngineFull),
        ("unknown flag: --no-trunc", EngineError),
        ("", EngineError),
    ],
)
def test_what_a_refusal_means(engine: Engine, words: str, error: type[EngineError | DiskError]) -> None:
    docker = engine({"": (1, "", words + "\n")})
    attempts: list[Callable[[], object]] = [
        lambda: docker.inspect(Reference.parse("app:1")),
        lambda: docker.load([b"x"]),
        lambda: docker.pull(Reference.parse("app:1")),
        lambda: _saved(docker),
    ]
    for attempt in attempts:
        with pytest.raises(error) as caught:
            attempt()
        assert type(caught.value) is error
        assert caught.value.detail == words
        assert caught.value.message.endswith((".", "status 1."))


def _saved(docker: Docker) -> None:
    with docker.save(["app:1"]) as output:
        while output.read(100):
            pass


# -- several platforms of a name, in the containerd store --------------------------------

ARM = Platform("linux", "arm64")
IN_CONTAINERD = {"RepoDigests": [f"app@{ONE}"], "Architecture": "amd64", "Variant": ""}


def test_the_image_for_a_platform_is_inspected_and_saved(engine: Engine, calls: Callable[[], list[list[str]]]) -> None:
    engine(
        {
            "image inspect --platform linux/arm64": (0, inspected(THREE), ""),
            "image inspect": (0, inspected(ONE, **IN_CONTAINERD), ""),
            "save": (0, "a tar", ""),
        }
    )
    docker = Docker(platform=ARM)
    image = docker.inspect(Reference.parse("app:1"))
    assert (str(image.id), image.platform.architecture) == (THREE, "arm64")
    with docker.save([THREE]) as output:
        assert output.read(100) == b"a tar"
    assert calls()[-1] == ["save", "--platform=linux/arm64", "app:1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ('"--platform" requires API version 1.49, but the Docker daemon API version is 1.45', "oci-archive:FILE"),
        ("image with reference app:1 was found but does not provide the specified platform (linux/arm64)", "docker://"),
    ],
)
def test_a_platform_that_cannot_be_had(engine: Engine, words: str, message: str) -> None:
    answers = {"image inspect --platform": (1, "", words), "image inspect": (0, inspected(ONE, **IN_CONTAINERD), "")}
    engine(answers)
    with pytest.raises(NoSuchImage, match=message) as caught:
        Docker(platform=ARM).inspect(Reference.parse("app:1"))
    assert "linux/amd64" in caught.value.message
    assert "one image of a name" not in caught.value.message


def test_a_classic_store_is_not_asked_for_platforms(engine: Engine, calls: Callable[[], list[list[str]]]) -> None:
    engine({"image inspect": (0, inspected(ONE, Architecture="amd64"), "")})
    assert str(Docker(platform=ARM).inspect(Reference.parse("app:1")).id) == ONE
    assert calls() == [["image", "inspect", "app:1"]]


def test_what_docker_save_leaves_out_is_told_as_such(engine: Engine) -> None:
    docker = engine({"image inspect": (0, inspected(ONE), ""), "save": (0, "a tar", "")})
    docker.inspect(Reference.parse("app:1"))
    incomplete = pytest.raises(EngineError, match=r"does not have all of app:1, .*docker://NAME")
    with incomplete as raised, docker.save([ONE]):
        raise MissingMember("the archive has no file 'blobs/sha256/00'. Is it cut short?")
    assert raised.value.detail == "the archive has no file 'blobs/sha256/00'."
    lacking = engine({"save": (1, "", f"unable to create manifests file: content digest {ONE}: not found")})
    with pytest.raises(EngineError, match="does not have all of app:1"):
        _saved(lacking)


def test_an_image_that_cannot_be_unpacked_is_no_success(engine: Engine, calls: Callable[[], list[list[str]]]) -> None:
    """Docker 28.5 exits with 0."""
    words = "Loaded image: app:1\nError unpacking image app:1: failed to extract layer\n"
    docker = engine({"load": (0, words, ""), "image rm": (0, "", "")})
    with pytest.raises(EngineError, match="cannot unpack"):
        docker.load([b"x"])
    assert calls()[-1] == ["image", "rm", "app:1"]


def test_a_save_that_fails_in_the_middle(engine: Engine) -> None:
    with pytest.raises(EngineError, match="docker save"):
        _saved(engine({"save": (1, "part of a tar", "unexpected end")}))


def test_no_engine_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoEngine, match="--from-archive"):
        Docker()


def test_the_command_may_be_called_docker_io(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docker.io").write_text("#!/bin/sh\necho 1.2.3\n")
    (tmp_path / "docker.io").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr("arv_docker.engines.docker.COMMANDS", ("no-such-docker", "docker.io"))
    assert Docker().version() == "1.2.3"

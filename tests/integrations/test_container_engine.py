# SPDX-License-Identifier: Apache-2.0
"""The interface of repo2docker's engines: built and looked at in Docker (a small script), pushed into a cluster."""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from arv_docker.arvados.client import Cluster
from arv_docker.engines.docker import Docker
from arv_docker.engines.podman import Podman
from arv_docker.errors import ArvDockerError, BuildFailed, ClusterError, NoSuchImage, UsageError
from arv_docker.integrations.container_engine import ContainerEngine, Image, logins_of
from arv_docker.local import progress

from ..archives import files_of, image
from ..arvados.fake_api import FakeApi, http_error
from ..engines.scripts import ONE, TWO, Answer, built_by, calls_of, inspected, listing, scripted
from ..transports.fake_engine import FakeEngine, Pipe

Made = Callable[..., ContainerEngine]

WELL: Mapping[str, Answer] = {
    "build": (0, "Step 1/1\n", ""),
    "id": (0, ONE, ""),
    "image inspect": (0, inspected(), ""),
    "version": (0, "20.10\n", ""),
}
LABELS = {"repo2docker.repo": "https://git.example/x", "repo2docker.ref": "abc", "other": "x"}


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """One with Docker that gives these answers."""

    def made(answers: Mapping[str, Answer] = WELL, kind: type[Docker | Podman] = Docker) -> ContainerEngine:
        monkeypatch.setenv("PATH", scripted(tmp_path / "bin", kind.name, answers))
        return ContainerEngine(kind())

    return made


# -- building ----------------------------------------------------------------------------


@pytest.mark.conforms("R11")
def test_a_build(engine: Made, tmp_path: Path) -> None:
    lines = engine().build(
        path=str(tmp_path),
        dockerfile="binder/Dockerfile",
        tag="r2dx123",
        buildargs={"NB_UID": "1000"},
        labels={"repo2docker.ref": None, "repo2docker.repo": "local"},
        cache_from=["x"],
        container_limits={"memory": 1 << 30, "memswap": -1, "cpusetcpus": "0", "cpushares": 0},
        platform="linux/amd64",
        extra=None,
        squash=True,
    )
    assert list(lines) == ["warning: left out, for it is not known to this engine: squash\n", "Step 1/1\n"]
    words = calls_of(tmp_path / "bin")[0]
    assert [word for word in words if not word.startswith("--iidfile=")] == [
        "build",
        "--force-rm",
        "--tag=r2dx123:latest",
        "--cache-from=x",
        f"--file={tmp_path}/binder/Dockerfile",
        "--platform=linux/amd64",
        "--memory=1073741824",
        "--memory-swap=-1",
        "--cpuset-cpus=0",
        "--build-arg=NB_UID=1000",
        "--label=repo2docker.repo=local",
        str(tmp_path),
    ]


@pytest.mark.conforms("R11")
def test_a_context_in_memory(engine: Made, tmp_path: Path) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(b"FROM scratch\n")
        tar.addfile(entry, io.BytesIO(b"FROM scratch\n"))
    content.seek(0)
    list(engine().build(fileobj=content, custom_context=True, dockerfile="Dockerfile", tag="app:1"))
    assert calls_of(tmp_path / "bin")[0][-1] == "-"
    assert built_by(tmp_path / "bin")["stdin"] == content.getvalue().decode()


@pytest.mark.parametrize(
    ("wanted", "words"),
    [({"custom_context": True}, "a tar in fileobj"), ({"container_limits": {"disk": 1}}, "limited by disk")],
)
def test_what_cannot_be_built(engine: Made, wanted: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        list(engine().build(**wanted))


@pytest.mark.conforms("R8")
def test_what_a_build_said_comes_before_its_error(engine: Made, tmp_path: Path) -> None:
    lines = engine({**WELL, "build": (1, "no such file\n", "")}).build(path=str(tmp_path), tag="app:1")
    assert next(lines) == "no such file\n"
    with pytest.raises(BuildFailed):
        next(lines)


# -- looking -----------------------------------------------------------------------------


@pytest.mark.conforms("R9")
@pytest.mark.parametrize(
    ("config", "expected"),
    [({}, {"WorkingDir": ""}), ({"WorkingDir": "/srv", "Cmd": ["sh"]}, {"WorkingDir": "/srv", "Cmd": ["sh"]})],
)
def test_an_image(engine: Made, config: dict[str, Any], expected: dict[str, Any]) -> None:
    answer = inspected(RepoTags=["localhost/app:1", "registry.example/app:1"], Config=config)
    found = engine({"image inspect": (0, answer, "")}).inspect_image("app:1")
    assert found == Image(tags=["app:1", "registry.example/app:1"], config=expected)


@pytest.mark.conforms("R9")
def test_an_image_that_is_not_there(engine: Made) -> None:
    absent: Answer = (1, "[]\n", "Error: No such image: x\n")
    assert engine({"image inspect": absent, "images": (0, "", "")}).inspect_image("nowhere:1") is None


@pytest.mark.conforms("R9", "R10")
def test_images(engine: Made) -> None:
    lines = listing(ONE, ONE, TWO).replace('"app"', '"localhost/app"', 1).replace('"app"', '"<none>"', 2)
    first, _, last = lines.splitlines()
    lines = "\n".join((first, first.replace("localhost/app", "registry.example/app"), last))
    assert engine({"images": (0, lines, "")}).images() == [
        Image(tags=["app:1", "registry.example/app:1"]),
        Image(tags=[]),
    ]


# -- pushing -----------------------------------------------------------------------------

APP = image(files_of(b"content"), config={"Labels": LABELS}, os="linux", created="2024-01-02T03:04:05Z")


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def pushing(api: FakeApi, home: Path) -> Callable[..., ContainerEngine]:
    """One with an engine in memory, which has APP as app:1, and the cluster."""

    @contextmanager
    def cluster() -> Iterator[Cluster]:
        yield Cluster(api, retries=0)

    engine: Any = FakeEngine(APP)
    return lambda **options: ContainerEngine(engine, cluster, **options)


def the_collection(api: FakeApi) -> dict[str, Any]:
    (record,) = api.records["collections"].values()
    return dict(record)


@pytest.mark.conforms("R2", "R4", "R17")
def test_a_push_and_another(pushing: Callable[..., ContainerEngine], api: FakeApi) -> None:
    lines = list(pushing().push("app:1"))
    record = the_collection(api)
    told = f"{record['uuid']}, portable data hash {record['portable_data_hash']}\n"
    assert lines[-1].startswith("app:1 is stored in Keep, ")
    assert lines[-1].endswith(told)
    stored = dict(api.keep.blocks)
    assert list(pushing().push("app:1")) == [f"app:1 was in Keep already: {told}"]
    assert the_collection(api) == record
    assert api.keep.blocks == stored


@pytest.mark.conforms("R18")
def test_labels_become_properties_if_asked_for(pushing: Callable[..., ContainerEngine], api: FakeApi) -> None:
    list(pushing().push("app:1"))
    assert the_collection(api)["properties"] == {"docker-image-repo-tag": "app:1"}
    list(pushing(labels_as_properties=True).push("app:1"))
    assert the_collection(api)["properties"] == {
        "docker-image-repo-tag": "app:1",
        "repo2docker.repo": "https://git.example/x",
        "repo2docker.ref": "abc",
    }


@pytest.mark.conforms("R18")
def test_a_cluster_that_refuses_the_properties(pushing: Callable[..., ContainerEngine], api: FakeApi) -> None:
    list(pushing().push("app:1"))
    api.faults["collections.update"] = [http_error(422, "tag key is not defined in the vocabulary")]
    *_, warning, last = pushing(labels_as_properties=True).push("app:1")
    assert "repo2docker.repo" in warning
    assert "vocabulary" in warning
    assert "was in Keep already" in last
    assert the_collection(api)["properties"] == {"docker-image-repo-tag": "app:1"}


def test_a_push_that_is_given_up_leaves_nothing(api: FakeApi, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by Ctrl-C: the engine's command ends, and what was written of its output goes."""
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    go_on, ended = threading.Event(), threading.Event()

    class Slow(Pipe):
        """Stops after the first 20 MiB until it may go on."""

        left = 20 << 20

        def read(self, length: int) -> bytes:
            self.left -= length
            if self.left < 0:
                go_on.wait(60)
            return super().read(length)

    class Engine(FakeEngine):
        @contextmanager
        def save(self, images: Iterable[str]) -> Iterator[Any]:
            with super().save(images) as pipe:
                try:
                    yield Slow(pipe.read(1 << 30))
                finally:
                    ended.set()

    @contextmanager
    def cluster() -> Iterator[Cluster]:
        yield Cluster(api, retries=0)

    made = image(bytes(17 << 20), bytes(18 << 20))
    lines = ContainerEngine(Engine(made), cluster).push("app:1")  # type: ignore[arg-type]
    assert next(lines).startswith("storing in Keep: ")
    assert list(home.rglob("*.partial"))
    threading.Timer(0.1, go_on.set).start()
    lines.close()
    assert ended.is_set()
    assert not list(home.rglob("*.tar")) + list(home.rglob("*.partial"))
    assert not api.records["collections"]


def test_an_image_that_nobody_has(pushing: Callable[..., ContainerEngine], api: FakeApi) -> None:
    with pytest.raises(NoSuchImage):
        list(pushing().push("nowhere:1"))
    assert not api.records["collections"]


# -- running -----------------------------------------------------------------------------


@pytest.mark.conforms("R15")
def test_a_container(engine: Made, tmp_path: Path) -> None:
    answers: dict[str, Answer] = {
        "image inspect": (0, inspected(), ""),
        "run": (0, "c1\n", ""),
        "container inspect": (0, '{"Status": "running", "ExitCode": 0}', ""),
    }
    started = engine(answers).run(
        "app:1",
        volumes={"/a": "/b", "/c": {"bind": "/d", "mode": "ro"}, "/e": {"bind": "/f"}},
        ports={"8888/tcp": ("127.0.0.1", 8888)},
    )
    assert (started.id, started.status) == ("c1", "running")
    (words,) = (call for call in calls_of(tmp_path / "bin") if call[0] == "run")
    assert [word for word in words if word.startswith("--volume=")] == [
        "--volume=/a:/b:rw",
        "--volume=/c:/d:ro",
        "--volume=/e:/f:rw",
    ]


def test_what_a_container_cannot_be_started_with(engine: Made) -> None:
    with pytest.raises(UsageError, match="lxc_conf"):
        engine().run("app:1", lxc_conf={})


def test_options_of_docker_py_reach_the_command(engine: Made, tmp_path: Path) -> None:
    state = '{"Status":"running","ExitCode":0}'
    answers = {"run": (0, f"{'1' * 64}\n", ""), "container inspect": (0, state, "")}
    engine({**WELL, **answers}).run("app:1", cpu_quota=50000, cap_drop=["ALL"])
    (words,) = (call for call in calls_of(tmp_path / "bin") if call[0] == "run")
    assert {"--cpu-quota=50000", "--cap-drop=ALL"} <= set(words)


# -- credentials -------------------------------------------------------------------------


@pytest.mark.conforms("R14")
@pytest.mark.parametrize(
    ("registry", "key"),
    [
        ("registry.example:5000", "registry.example:5000"),
        ("https://registry.example/v1/", "registry.example"),
        ("docker.io", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("", "docker.io"),
    ],
)
def test_credentials(registry: str, key: str) -> None:
    (found,) = logins_of({"registry": registry, "username": "ann", "password": "s"}, "x").items()
    assert (found[0], found[1].username, found[1].secret) == (key, "ann", "s")


def test_no_credentials() -> None:
    assert logins_of({}, "x") == {}


@pytest.mark.conforms("R14")
@pytest.mark.parametrize(
    "document",
    [
        "hidden",
        ["hidden"],
        {"username": "hidden"},
        {"password": "hidden"},
        {"username": "hidden", "password": 7},
        {"username": "hidden", "password": ""},
        {"registry": 7, "username": "hidden", "password": "hidden"},
    ],
)
def test_what_are_no_credentials(document: object) -> None:
    with pytest.raises(UsageError, match="the variable X is not an object with the texts username, password") as caught:
        logins_of(document, "the variable X")
    assert "hidden" not in str(caught.value)


@pytest.mark.conforms("R7")
def test_a_cluster_that_is_not_there_is_said_beforehand(pushing: Callable[..., ContainerEngine], api: FakeApi) -> None:
    pushing().check()
    api._rootDesc["dockerImageFormats"] = ["v1"]
    with pytest.raises(ArvDockerError, match="format v2"):
        pushing().check()
    api.faults["users.current"] = [http_error(401)]
    with pytest.raises(ClusterError):
        pushing().check()

# SPDX-License-Identifier: Apache-2.0
"""The published repo2docker, of today and of before its interface changed, pushes into Keep with Docker and Podman.

Each version is in an environment of its own, with this package, made once in a run.
"""

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from . import environments, registries
from .engines import Docker, Engine, Image, Podman
from .environments import Environment
from .sites import TOP, Site, served

pytestmark = pytest.mark.engine("docker", "podman", "busybox")

TODAY, BEFORE = "2026.4.0", "2024.7.0"
NAME = "arvtest/notebook:1"

LONG = pytest.mark.long
with_every_engine = pytest.mark.parametrize(
    "repo2docker",
    [
        pytest.param((TODAY, "docker"), id="today-docker"),
        pytest.param((TODAY, "podman"), id="today-podman"),
        pytest.param((BEFORE, "docker"), id="before-docker", marks=LONG),
        pytest.param((BEFORE, "podman"), id="before-podman", marks=LONG),
    ],
    indirect=True,
)
with_docker = pytest.mark.parametrize(
    "repo2docker",
    [
        pytest.param((TODAY, "docker"), id="today-docker"),
        pytest.param((TODAY, "podman"), id="today-podman", marks=LONG),
        pytest.param((BEFORE, "docker"), id="before-docker", marks=LONG),
    ],
    indirect=True,
)

DOCKERFILE = """\
FROM scratch
COPY busybox /bin/sh
WORKDIR /srv
COPY greeting /srv/
CMD ["/bin/sh", "-c", "echo hello"]
"""


@dataclass
class Repo2docker:
    """One version of it, with an engine and a repository."""

    version: str
    environment: Environment
    engine: Engine
    folder: Path
    options: list[str] = field(default_factory=list)

    def run(self, *words: str, variables: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """`repo2docker --engine keep … repository`, from the folder in which that is."""
        found = self.engine.environment | (variables or {})
        clean = {name: value for name, value in found.items() if name != "PYTHONPATH"}
        options, command = (
            (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, ())
        )
        program = self.environment.folder / "bin" / "repo2docker"
        line = [str(program), "--engine=keep", "--user-id=1000", *self.options, *options, "repository", *command]
        return subprocess.run(
            line, env=clean, cwd=self.folder, capture_output=True, text=True, timeout=120, check=False
        )

    def pushed(self, *words: str) -> str:
        """What it says when it must push."""
        done = self.run("--no-run", "--push", f"--image-name={NAME}", "--KeepEngine.local=site", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Environment]:
    """Environments with this package and a version of repo2docker."""
    made: dict[str, Environment] = {}

    def installed(version: str) -> Environment:
        if version not in made:
            folder = tmp_path_factory.mktemp(f"repo2docker-{version}")
            subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
            environment = Environment(folder / "venv")
            # What is not there is taken from here: the Arvados SDK and the site take long to install.
            (own,) = environment.folder.glob("lib/python*/site-packages")
            (own / "tests.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}))
            environment.install("--no-deps", environments.sources(folder / "sources"))
            environment.install(f"jupyter-repo2docker=={version}")
            made[version] = environment
        return made[version]

    return installed


@pytest.fixture
def repo2docker(
    request: pytest.FixtureRequest,
    installed: Callable[[str], Environment],
    second_docker: Docker,
    podman: Podman,
    tmp_path: Path,
) -> Repo2docker:
    version, backend = request.param
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "Dockerfile").write_text(DOCKERFILE)
    (repository / "greeting").write_text("hello from here\n")
    shutil.copy(str(shutil.which("busybox")), repository)
    engine: Engine = second_docker if backend == "docker" else podman
    return Repo2docker(version, installed(version), engine, tmp_path, [f"--KeepEngine.backend={backend}"])


@pytest.fixture
def site(repo2docker: Repo2docker, tmp_path: Path) -> Site:
    return Site(tmp_path / "site", repo2docker.engine)


@with_every_engine
@pytest.mark.conforms("R1", "R2", "R3", "R4", "R5", "R6", "R10", "R13", "R17", "R18")
def test_a_repository_ends_in_keep(repo2docker: Repo2docker, site: Site) -> None:
    # Without a push nothing goes to Keep, and no cluster is needed.
    done = repo2docker.run("--no-run", f"--image-name={NAME}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert site.records() == ([], [])
    # What the engine has already is pushed too, into the project that is meant.
    with site.opened() as records:
        groups = records.api.groups()
        project = groups.create(body={"group_class": "project", "name": "images"}).execute()["uuid"]
    options = (f"--KeepEngine.project_uuid={project}", "--KeepEngine.label_properties=True")
    said = repo2docker.pushed(*options)
    with site.opened() as records:
        (collection,) = records.collections()
        links = records.links()
        image_id = records.verified(collection)
    assert {(it.link_class, it.name) for it in links} >= {
        ("docker_image_hash", image_id),
        ("docker_image_repo+tag", NAME),
    }
    assert {collection.owner_uuid, *(it.owner_uuid for it in links)} == {project}
    assert collection.properties["docker-image-repo-tag"] == NAME
    assert collection.properties["repo2docker.repo"] in ("local", "repository")
    assert collection.properties["repo2docker.version"].lstrip("v").startswith(repo2docker.version[:4])
    assert re.search(
        f"^{NAME} is stored in Keep, .* sent: {collection.uuid}, .* {re.escape(collection.pdh)}$", said, re.M
    )
    # Pushed again: nothing is uploaded.
    blocks = [(path, path.stat().st_mtime_ns) for path in site.blocks()]
    said = repo2docker.pushed(*options)
    assert f"{NAME} was in Keep already: {collection.uuid}, portable data hash {collection.pdh}\n" in said
    assert [(path, path.stat().st_mtime_ns) for path in site.blocks()] == blocks
    with site.opened() as records:
        assert (len(records.collections()), len(records.links())) == (1, len(links))
    assert site.printed("resolve", NAME) == collection.pdh
    # A cluster with a strict vocabulary refuses the properties, and has the image all the same.
    (site.folder / "vocabulary.json").write_text(json.dumps({"strict_tags": True, "tags": {}}))
    said = repo2docker.pushed("--KeepEngine.label_properties=True")
    assert "warning: the cluster takes no properties repo2docker.repo, repo2docker.version: " in said
    with site.opened() as records:
        (other,) = (it for it in records.collections() if it.uuid != collection.uuid)
    assert (other.pdh, other.properties) == (collection.pdh, {"docker-image-repo-tag": NAME})
    assert other.uuid in said.splitlines()[-1 if repo2docker.version == TODAY else -2]


@with_docker
@pytest.mark.conforms("R7")
def test_a_keep_that_fails(repo2docker: Repo2docker, site: Site) -> None:
    site.make()
    for number in range(16**3):
        (site.folder / "blocks" / f"{number:03x}").write_text("no folder for blocks\n")
    options = ("--no-run", "--push", f"--image-name={NAME}", "--KeepEngine.local=site", "--KeepEngine.retries=0")
    done = repo2docker.run(*options)
    assert done.returncode == 1
    assert "503 Service Unavailable: the block could not be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert site.records() == ([], [])
    # One that is not there.
    away = {"ARVADOS_API_HOST": "127.0.0.1:9", "ARVADOS_API_TOKEN": f"v2/zzzzz-gj3su-{'0' * 15}/{'s' * 50}"}
    done = repo2docker.run("--no-run", "--push", f"--image-name={NAME}", "--KeepEngine.retries=0", variables=away)
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr
    assert "s" * 50 not in done.stdout + done.stderr
    # None at all.
    done = repo2docker.run("--no-run", "--push", f"--image-name={NAME}")
    assert done.returncode == 1
    assert "no cluster is configured" in done.stderr
    assert "--KeepEngine.local=FOLDER" in done.stderr


@with_docker
@pytest.mark.conforms("R8")
def test_a_build_that_fails(repo2docker: Repo2docker, site: Site) -> None:
    (repo2docker.folder / "repository" / "Dockerfile").write_text("FROM scratch\nCOPY missing /\n")
    done = repo2docker.run("--no-run", "--push", f"--image-name={NAME}", "--KeepEngine.local=site")
    assert done.returncode == 1
    assert f"could not build {NAME}; its last words:" in done.stderr
    assert "missing" in done.stderr.partition("last words:")[2]
    assert "Traceback" not in done.stderr
    assert site.records() == ([], [])


@LONG
@pytest.mark.conforms("R7")
@pytest.mark.parametrize("repo2docker", [(TODAY, "podman"), (BEFORE, "docker")], indirect=True)
def test_a_push_that_is_interrupted(repo2docker: Repo2docker, site: Site, tmp_path: Path) -> None:
    (repo2docker.folder / "repository" / "large").write_bytes(os.urandom(300 << 20))
    (repo2docker.folder / "repository" / "Dockerfile").write_text("FROM scratch\nCOPY large /\n")
    assert repo2docker.run("--no-run", f"--image-name={NAME}").returncode == 0
    assert site.run("images").status == 0
    (tmp_path / "temporary").mkdir()
    environment = repo2docker.engine.environment | {"TMPDIR": str(tmp_path / "temporary")}
    options = ("--no-run", "--push", f"--image-name={NAME}", "--KeepEngine.local=site")
    program = repo2docker.environment.folder / "bin" / "repo2docker"
    process = subprocess.Popen(
        [program, "--engine=keep", "--user-id=1000", *repo2docker.options, *options, "repository"],
        env={name: value for name, value in environment.items() if name != "PYTHONPATH"},
        cwd=repo2docker.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list(site.blocks()) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[0].decode()
    assert process.returncode != 0, said
    assert list((tmp_path / "temporary").iterdir()) == []
    assert not list(Path(environment["HOME"]).rglob("*.partial"))
    assert site.records() == ([], [])
    assert "is stored in Keep" in repo2docker.pushed()


@with_every_engine
@pytest.mark.conforms("R12", "R15")
def test_pushed_and_run(repo2docker: Repo2docker, site: Site) -> None:
    options = ("--push", f"--image-name={NAME}", "--KeepEngine.local=site", "-e", "WORD=a-secret")
    volume = ("--volume", f"{repo2docker.folder}/repository:mounted")
    script = 'echo "said $WORD" && read line <mounted/greeting && echo "$line" && exit 3'
    done = repo2docker.run(*options, *volume, "--", "sh", "-c", script)
    said = done.stdout + done.stderr
    assert done.returncode == 3, said
    assert "is stored in Keep" in said
    assert "said a-secret\n" in said
    assert "hello from here\n" in said
    assert repo2docker.engine.text("ps", "--all", "--quiet") == ""
    assert len(site.records()[0]) == 1
    # One that cannot be started leaves no container.
    done = repo2docker.run(f"--image-name={NAME}", "--", "no-such-program")
    assert done.returncode == 1
    assert "no-such-program" in done.stdout + done.stderr
    assert repo2docker.engine.text("ps", "--all", "--quiet") == ""


@pytest.mark.parametrize("repo2docker", [(TODAY, "docker")], indirect=True)
def test_options_of_the_container(repo2docker: Repo2docker) -> None:
    options = {"cpu_period": 100000, "cpu_quota": 25000, "ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}]}
    files = "/sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us"  # of either generation of cgroups
    script = f'for file in {files}; do [ -r $file ] && read quota rest <$file; done; echo "$quota $(ulimit -n)"'
    given = f"--Repo2Docker.extra_run_kwargs={options}".replace(" ", "")  # with blanks it would be the repository
    done = repo2docker.run(f"--image-name={NAME}", given, "--", "sh", "-c", script)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "25000 100\n" in done.stdout + done.stderr
    done = repo2docker.run(f"--image-name={NAME}", "--Repo2Docker.extra_run_kwargs={'healthcheck':{}}", "--", "true")
    assert done.returncode == 1
    assert "healthcheck" in done.stdout + done.stderr


@with_docker
@pytest.mark.conforms("R1", "R16")
def test_it_is_listed_and_not_made_without_need(repo2docker: Repo2docker) -> None:
    code = (
        "import entrypoints, importlib.metadata as metadata;"
        "(found,) = metadata.entry_points(group='repo2docker.engines', name='keep');"
        "assert found.load() is entrypoints.get_group_named('repo2docker.engines')['keep'].load();"
        "print(found.value)"
    )
    said = repo2docker.environment.run("python", "-c", code).stdout
    assert said == "arv_docker.integrations.repo2docker:KeepEngine\n"
    # An engine that cannot even be made is not missed where nothing is built.
    wrong = "--KeepEngine.backend=nonsense"
    done = repo2docker.run("--no-build", wrong)
    assert done.returncode == 0, done.stderr
    assert "FROM scratch" in done.stdout
    assert repo2docker.run("--no-run", wrong).returncode != 0


@pytest.mark.parametrize("repo2docker", [(TODAY, "docker")], indirect=True)
def test_every_example_of_the_page(repo2docker: Repo2docker, podman: Podman, site: Site) -> None:
    page = (TOP / "docs/repo2docker.md").read_text()
    lines = re.findall(r"^    (repo2docker .*)$", page, re.MULTILINE)
    (program,) = re.findall(r"(?:^    from .*\n)(?:^(?:    .*)?\n)+", page, re.MULTILINE)
    with site.opened() as records:
        groups = records.api.groups()
        project = groups.create(body={"group_class": "project", "name": "images"}).execute()["uuid"]
    programs = repo2docker.folder / "bin"
    programs.mkdir()
    # As root it has to be told who uses the image.
    own = repo2docker.environment.folder / "bin"
    (programs / "repo2docker").write_text(f'#!/bin/sh\nexec {own}/repo2docker --user-id=1000 "$@"\n')
    (programs / "repo2docker").chmod(0o755)
    environment = repo2docker.engine.environment | podman.environment | repo2docker.engine.environment
    environment["PATH"] = f"{programs}:{own}:{os.environ['PATH']}"
    here = repo2docker.folder / "repository"
    with served(site.folder) as variables:
        for line in lines:
            done = subprocess.run(
                line, shell=True, cwd=here, env=environment | variables, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            assert "in Keep" in done.stderr
        code = textwrap.dedent(program).replace("zzzzz-j7d0g-0123456789abcde", project)
        done = subprocess.run(
            [own / "python", "-c", code],
            cwd=here,
            env=environment | variables,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("hello\n")
    assert len(lines) == 3
    with site.opened() as records:
        assert project in {it.owner_uuid for it in records.collections()}


@pytest.mark.conforms("R14")
def test_images_of_a_registry_with_a_password_are_built_from(
    installed: Callable[[str], Environment], docker: Docker, second_docker: Docker, small_image: Image, tmp_path: Path
) -> None:
    (tmp_path / "repository").mkdir()
    config = Path(second_docker.environment["DOCKER_CONFIG"]) / "config.json"
    config.write_text('{"auths": {}}')
    it = Repo2docker(TODAY, installed(TODAY), second_docker, tmp_path)
    with registries.registry(tmp_path / "registry", "password") as registry:
        base = f"{registry.host}/base:1"
        login = {"registry": registry.host, "username": registries.USER, "password": registries.PASSWORD}
        docker.run("tag", small_image.id, base)
        (tmp_path / "config").mkdir()
        variables = {"DOCKER_CONFIG": str(tmp_path / "config")}
        (tmp_path / "config" / "config.json").write_text(json.dumps({"auths": {registry.host: entry()}}))
        subprocess.run(["docker", "push", base], env=docker.environment | variables, check=True, capture_output=True)
        docker.run("rmi", base)
        (tmp_path / "repository" / "Dockerfile").write_text(f"FROM {base}\nLABEL a=b\n")
        shut = it.run("--no-run", f"--image-name={NAME}")
        assert shut.returncode == 1
        assert "last words" in shut.stderr
        given = {"CONTAINER_ENGINE_REGISTRY_CREDENTIALS": json.dumps(login)}
        done = it.run("--no-run", "--debug", f"--image-name={NAME}", variables=given)
        assert done.returncode == 0, done.stderr
        assert registries.PASSWORD not in done.stdout + done.stderr
        second_docker.empty()
        (tmp_path / "repo2docker_config.py").write_text(f"c.KeepEngine.registry_credentials = {login!r}\n")
        assert it.run("--no-run", f"--image-name={NAME}").returncode == 0
        (tmp_path / "repo2docker_config.py").unlink()
    given = {"CONTAINER_ENGINE_REGISTRY_CREDENTIALS": "{hidden"}
    done = it.run("--no-run", "--image-name=another/name:1", variables=given)
    assert done.returncode == 1
    assert "the variable CONTAINER_ENGINE_REGISTRY_CREDENTIALS is not JSON" in done.stderr
    assert "hidden" not in done.stderr
    assert config.read_text() == '{"auths": {}}'


def entry() -> dict[str, str]:
    """What Docker's configuration holds for the registry."""
    return {"auth": base64.b64encode(f"{registries.USER}:{registries.PASSWORD}".encode()).decode()}


def test_the_package_needs_no_repo2docker(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['repo2docker'] = sys.modules['traitlets'] = None;"
        "import arv_docker, arv_docker.integrations.container_engine"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(TOP)}, cwd=tmp_path)

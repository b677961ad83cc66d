# SPDX-License-Identifier: Apache-2.0
"""The ground that the other tests stand on: the engines start, hold the images, and a missing one is told apart."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from . import engines
from .engines import Docker, Image, Podman, Program

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["small_image", "base_image"])
def image(request: pytest.FixtureRequest) -> Image:
    made = request.getfixturevalue(request.param)
    assert isinstance(made, Image)
    return made


@pytest.fixture
def saved(docker: Docker, small_image: Image, tmp_path: Path) -> Path:
    docker.run("save", "--output", tmp_path / "saved.tar", small_image.reference)
    return tmp_path / "saved.tar"


# The daemons and their images


@pytest.mark.engine("docker", "busybox")
def test_a_container_runs_from_each_image(docker: Docker, image: Image) -> None:
    assert docker.text("run", "--rm", "--network", "none", image.reference) == image.greeting


@pytest.mark.engine("docker", "busybox")
def test_each_image_says_what_it_is(docker: Docker, image: Image) -> None:
    (found,) = json.loads(docker.text("image", "inspect", image.reference))
    assert found["Id"] == image.id
    assert found["RootFS"]["Layers"] == list(image.diff_ids)
    assert len(image.diff_ids) == 3


@pytest.mark.engine("docker", "busybox")
def test_the_base_image_has_over_100_megabytes(docker: Docker, base_image: Image) -> None:
    assert int(docker.text("image", "inspect", "--format", "{{.Size}}", base_image.id)) > 100 << 20


@pytest.mark.engine("docker", "busybox")
def test_layers_depend_on_their_content_alone(docker: Docker, second_docker: Docker, small_image: Image) -> None:
    assert engines.build_small(second_docker).diff_ids == small_image.diff_ids


@pytest.mark.engine("docker", "busybox")
def test_a_variant_differs_in_its_top_layer(
    docker: Docker, image: Image, variant_of: Callable[[Image, str], Image]
) -> None:
    variant = variant_of(image, "arvtest/variant:1")
    assert variant.diff_ids[:-1] == image.diff_ids[:-1]
    assert variant.diff_ids[-1] != image.diff_ids[-1]
    assert docker.text("run", "--rm", "--network", "none", variant.reference) == "hello from arvtest/variant:1"


@pytest.mark.engine("docker", "busybox")
def test_a_build_step_can_run_a_program(docker: Docker, small_image: Image) -> None:
    identity = docker.build(f"FROM {small_image.reference}\nRUN echo made >/made\n", {})
    assert docker.text("run", "--rm", "--network", "none", identity, "cat", "/made") == "made"
    docker.run("rmi", "--no-prune", identity)


@pytest.mark.engine("docker", "busybox")
def test_the_daemons_share_nothing(docker: Docker, second_docker: Docker, saved: Path, small_image: Image) -> None:
    assert second_docker.image_ids() == set()
    second_docker.run("load", stdin=saved)
    assert small_image.id in second_docker.image_ids()
    assert second_docker.text("run", "--rm", "--network", "none", small_image.id) == small_image.greeting
    second_docker.empty()
    assert second_docker.image_ids() == set()
    assert small_image.id in docker.image_ids()


@pytest.mark.engine("docker")
def test_a_child_process_reaches_the_daemon(docker: Docker) -> None:
    command = ["docker", "info", "--format", "{{.DockerRootDir}}"]
    done = subprocess.run(command, env=docker.environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{docker.folder}/data"


@pytest.mark.engine("docker")
def test_a_daemon_that_does_not_start_shows_its_log(engine_scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_text", lambda self, text: self.write_bytes(b"not JSON"))
    with pytest.raises(engines.EngineFailed, match=r"(?s)ended with 1.*end of its log.*invalid character"):
        Docker(engine_scratch / "broken")


# Other readers


@pytest.mark.engine("docker", "busybox", "podman")
def test_podman_loads_and_runs_what_docker_saved(podman: Podman, saved: Path, small_image: Image) -> None:
    podman.run("load", "--input", saved)
    assert podman.image_ids() == {small_image.id}
    assert podman.text("run", "--rm", "--network", "none", small_image.id) == small_image.greeting


@pytest.mark.engine("podman")
def test_a_child_process_has_podmans_store(podman: Podman) -> None:
    command = ["podman", "info", "--format", "{{.Store.GraphRoot}} {{.Store.RunRoot}}"]
    done = subprocess.run(command, env=podman.environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{podman.folder}/root {podman.folder}/run"


@pytest.mark.engine("docker", "busybox", "skopeo")
def test_skopeo_reads_the_daemon_and_the_archive(
    docker: Docker, skopeo: Program, saved: Path, small_image: Image, tmp_path: Path
) -> None:
    skopeo.run(
        *("copy", "--src-daemon-host", docker.host),
        *(f"docker-daemon:{small_image.reference}", f"docker-archive:{tmp_path}/copied.tar"),
    )
    for archive in (saved, tmp_path / "copied.tar"):
        config = skopeo.run("inspect", "--config", "--raw", f"docker-archive:{archive}").stdout
        assert f"sha256:{hashlib.sha256(config).hexdigest()}" == small_image.id


@pytest.mark.engine("docker", "busybox", "skopeo", "umoci")
def test_umoci_unpacks_what_skopeo_converted(skopeo: Program, saved: Path, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    skopeo.run("copy", f"docker-archive:{saved}", f"oci:{layout}:small")
    done = subprocess.run(["umoci", "ls", "--layout", str(layout)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["small"]


# Which tests run


def outcome(tmp_path: Path, test: str, *args: str, **variables: str) -> str:
    """What pytest says about a file with that one test, under the rules of this project."""
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    (tmp_path / "test_one.py").write_text(f"import pytest, socket\n\n{test}\n")
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-rsf",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            str(tmp_path),
            *args,
            "test_one.py",
        ],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(TOP), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | variables,
        capture_output=True,
        text=True,
    )
    return done.stdout


NEEDS_PODMAN = "@pytest.mark.engine('podman')\ndef test_one(): pass"


@pytest.fixture
def bare_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH without engines."""
    return str(tmp_path_factory.mktemp("bin"))


def test_a_missing_engine_is_a_skip_with_its_reason(tmp_path: Path, bare_path: str) -> None:
    said = outcome(tmp_path, NEEDS_PODMAN, PATH=bare_path)
    assert "1 skipped" in said
    assert "podman: no podman in PATH" in said


def test_a_missing_engine_fails_in_ci(tmp_path: Path, bare_path: str) -> None:
    said = outcome(tmp_path, NEEDS_PODMAN, PATH=bare_path, CI="true")
    assert "1 error" in said
    assert "podman: no podman in PATH (CI is set" in said


def test_an_unknown_engine_is_a_mistake(tmp_path: Path) -> None:
    said = outcome(tmp_path, "@pytest.mark.engine('poodman')\ndef test_one(): pass")
    assert "KeyError: 'poodman'" in said


def test_an_engine_without_root_is_a_skip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: f"/bin/{program}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert engines.missing.__wrapped__("docker") == "docker: needs root with the right to mount"


def test_long_tests_wait_for_their_option(tmp_path: Path) -> None:
    test = "@pytest.mark.long\ndef test_one(): pass"
    assert "1 skipped" in outcome(tmp_path, test)
    assert "1 passed" in outcome(tmp_path, test, "--long")


# What tests cannot reach


def test_a_connection_to_elsewhere_fails_the_test_whatever_it_catches(tmp_path: Path) -> None:
    said = outcome(
        tmp_path,
        "def test_one():\n"
        "    try:\n"
        "        socket.create_connection(('192.0.2.1', 80), timeout=1)\n"
        "    except Exception: pass\n",
    )
    assert "1 failed" in said
    assert "tried to connect to ('192.0.2.1', 80)" in said


def test_loopback_is_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()[:2]):
        pass


def test_each_test_has_a_home_of_its_own(home: Path, tmp_path: Path) -> None:
    assert Path.home() == home
    assert os.environ["XDG_CACHE_HOME"] == f"{home}/.cache"
    assert [*tmp_path.iterdir()] == []


def test_settings_of_the_surroundings_do_not_get_in(tmp_path: Path) -> None:
    test = (
        "def test_one():\n"
        "    import os\n"
        "    assert not {name for name in os.environ if name.startswith(('ARVADOS_', 'DOCKER_', 'ARV_DOCKER_'))}"
    )
    said = outcome(tmp_path, test, ARVADOS_API_TOKEN="x", DOCKER_HOST="tcp://x", ARV_DOCKER_SITE="x")
    assert "1 passed" in said


# What remains


@pytest.mark.engine("docker", "busybox")
def test_a_killed_run_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    """Kills a process that holds a daemon with a running container, and the daemon as well."""
    script = (
        "import os, signal\n"
        "from tests.real import engines\n"
        "with engines.scratch() as folder:\n"
        "    docker = engines.Docker(folder / 'd')\n"
        "    image = engines.build_small(docker)\n"
        "    docker.run('run', '--detach', '--network', 'none', image.id, 'sleep', '1000')\n"
        "    print(folder, flush=True)\n"
        "    os.kill(docker._process.pid, signal.SIGKILL)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=TOP, capture_output=True, text=True)
    folder = Path(done.stdout.strip())
    assert done.stdout, done.stderr
    engines.clear_leftovers()
    assert not folder.exists()
    assert engines._daemons_of(folder) == set()
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()

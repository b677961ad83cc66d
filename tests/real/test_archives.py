# SPDX-License-Identifier: Apache-2.0
"""The table of docs/archives.md#engines: what each program makes of the same bytes, column by column."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from arv_docker.archive.reader import ArchiveReader

from ..archives import Bytes
from .containerd import ContainerdDocker
from .engines import Docker, Engine, Podman, Program
from .field_archives import CASES, Case
from .sites import TOP
from .trees import TreePodman

PAGE = TOP / "docs/archives.md"

#: A checkout of the version that the column "before" is about.
OLDER = "TEST_OLDER_CHECKOUT"


def column(title: str) -> dict[str, str]:
    """What the page says of every archive in the column whose title begins so."""
    text = PAGE.read_text().partition("## Engines")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in re.findall(r"^\|.*\|$", text, re.M)]
    (number,) = (place for place, cell in enumerate(rows[0]) if cell.startswith(title))
    return {row[0]: row[number] for row in rows[2:]}


def check(title: str, found: dict[str, str]) -> None:
    """Compare with the page; the failure shows each row that differs."""
    said = column(title)
    assert len(said) > 25
    rows = {**found, **said}
    lines = [
        f"{row}: {found.get(row)}; the page says {said.get(row)}" for row in rows if found.get(row) != said.get(row)
    ]
    if lines:
        pytest.fail("\n".join([title, *lines]), pytrace=False)


# -- engines ---------------------------------------------------------------------------------------


def of_engine(engine: Docker | Podman, case: Case, file: Path) -> str:
    """A word for what the engine makes of the archive."""
    engine.empty()
    if engine.run("load", "--input", file, check=False).returncode != 0:
        return "refused"
    configs: set[str] = set()
    for image in engine.image_ids():
        if engine.run("create", image, "/none", check=False).returncode != 0:
            return "broken"
        configs |= configs_of(engine, image)
    names = sum(engine.run("image", "inspect", name, check=False).returncode == 0 for name in case.names)
    return word(case, configs, names) if configs else "broken"


def configs_of(engine: Engine, image: str) -> set[str]:
    """The digests of the configs of an image for each of its platforms; none where it cannot be saved."""
    if not isinstance(engine, ContainerdDocker):
        return {f"sha256:{image.removeprefix('sha256:')}"}
    saved = engine.run("save", image, check=False)
    if saved.returncode != 0:
        return set()
    return {str(listed.config_digest) for listed in ArchiveReader(Bytes(saved.stdout), by_index=True).images}


def of_skopeo(skopeo: Program, case: Case, file: Path, folder: Path) -> str:
    """A word for what skopeo makes of it; of several images each is asked for by its name."""
    configs = set()
    names = case.names if len(case.names) > 1 else ("",)
    for number, name in enumerate(names):
        source = ":".join(filter(None, (case.transport, str(file), name)))
        target = folder / f"copied-{number}"
        if skopeo.run("copy", source, f"dir:{target}", check=False).returncode != 0:
            return "refused"
        configs.add(json.loads((target / "manifest.json").read_text())["config"]["digest"])
    return word(case, configs, len(names) if len(case.names) > 1 else len(case.names))


def word(case: Case, configs: set[str], names: int) -> str:
    """A word for the images that a program has of an archive, and for how many of its names it has."""
    if not configs <= case.images:
        return "another image"
    images = "taken" if configs == case.images else f"{len(configs)} of {len(case.images)}"
    return images if names == len(case.names) else f"{images}, {names} of {len(case.names)} names"


def files(folder: Path) -> dict[str, Path]:
    """Every archive, in a folder of its own with the options of `ingest`."""
    made = {}
    for number, case in enumerate(CASES.values()):
        place = folder / f"{number:02}"
        place.mkdir(parents=True)
        (place / "archive").write_bytes(case.content)
        (place / "options.json").write_text(json.dumps(case.options))
        made[case.title] = place / "archive"
    return made


def check_engine(engine: Docker | Podman, version: str, title: str, folder: Path) -> None:
    """Compare an engine with its column, if it is of the version that the column is about."""
    check_version(title, version)
    made = files(folder)
    check(title, {case.title: of_engine(engine, case, made[case.title]) for case in CASES.values()})


def check_version(title: str, version: str) -> None:
    """Skip the test of a column where the program is of another version: those of a Debian that moves are."""
    if not version.startswith(f"{title.rsplit(maxsplit=1)[-1]}."):
        pytest.skip(f"docs/archives.md is about {title}, and here is {version}")


def version_of(docker: Docker) -> str:
    return docker.text("version", "--format", "{{.Server.Version}}")


@pytest.mark.engine("docker")
def test_docker(second_docker: Docker, tmp_path: Path) -> None:
    check_engine(second_docker, version_of(second_docker), "Docker 20.10", tmp_path / "made")


@pytest.mark.long
@pytest.mark.engine("docker", "debootstrap")
def test_docker_with_the_containerd_store(containerd_docker: ContainerdDocker, tmp_path: Path) -> None:
    check_engine(containerd_docker, version_of(containerd_docker), "Docker 26.1", tmp_path / "made")


@pytest.mark.long
@pytest.mark.engine("docker")
def test_the_newest_docker(sid_docker: ContainerdDocker, tmp_path: Path) -> None:
    check_engine(sid_docker, version_of(sid_docker), "Docker 28.5", tmp_path / "made")


@pytest.mark.long
@pytest.mark.engine("podman")
def test_podman(podman: Podman, tmp_path: Path) -> None:
    check_engine(podman, podman.text("--version").split()[-1], "Podman 4.3", tmp_path / "made")


@pytest.mark.long
@pytest.mark.engine("podman")
def test_the_newest_podman(sid_podman: TreePodman, tmp_path: Path) -> None:
    check_engine(sid_podman, sid_podman.text("--version").split()[-1], "Podman 5.8", sid_podman.folder / "made")


@pytest.mark.engine("skopeo")
def test_skopeo(skopeo: Program, tmp_path: Path) -> None:
    title = "skopeo 1.9"
    check_version(title, skopeo.text("--version").split()[-1])
    made = files(tmp_path / "made")
    check(title, {it.title: of_skopeo(skopeo, it, made[it.title], made[it.title].parent) for it in CASES.values()})


# -- arv-docker ------------------------------------------------------------------------------------


def of_arv_docker(checkout: Path, folder: Path) -> dict[str, str]:
    """A word for what `arv-docker ingest` of a checkout makes of each archive, from a file and piped in."""
    made = files(folder)
    script = TOP / "tests/real/ingest_each.py"
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], env=environment, cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    words = {}
    for title, path in made.items():
        file, piped = (_stored(CASES[title], *it) for it in found[path.parent.name])
        words[title] = file if file == piped else f"{file}; piped: {piped}"
    return words


def _stored(case: Case, code: int, images: list[str], names: list[str]) -> str:
    if code:
        assert images == []
        return f"refused ({code})"
    stored = word(case, set(images), len(set(case.names) & set(names)))
    return f"{stored} by a false name" if set(names) - set(case.names) else stored


def test_arv_docker(tmp_path: Path) -> None:
    check("arv-docker now", of_arv_docker(TOP, tmp_path / "made"))


@pytest.mark.long
def test_arv_docker_before(tmp_path: Path) -> None:
    if not (older := os.environ.get(OLDER)):
        pytest.skip(f"needs {OLDER}, a checkout of b6fe4e6")
    check("before", of_arv_docker(Path(older), tmp_path / "made"))

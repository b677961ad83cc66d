# SPDX-License-Identifier: Apache-2.0
"""A folder of archives beside real engines: kept in line with them, loaded into them again, and stored in Keep."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from arv_docker.model.archive_name import ArchiveName

from .disks import files_in
from .engines import Docker, Engine, Image, Podman
from .sites import Site, cached

NOT_THERE, CONTENT = 1, 5

VariantOf = Callable[[Image, str], Image]

pytestmark = pytest.mark.engine("docker", "podman", "busybox")


class Kept:
    """A folder and the engine that it is kept in line with."""

    def __init__(self, folder: Path, engine: Engine, name: str) -> None:
        self.folder = folder
        self.engine = engine
        self._site = Site(folder.parent / "site", engine)
        self._engine_option = f"--engine={name}"

    def update(self, *words: str) -> str:
        """The name of the archive that is current then."""
        return Path(self._site.printed("folder", "update", "--dir", self.folder, self._engine_option, *words)).name

    def refused(self, *words: str) -> tuple[int, str]:
        """The exit code of an update that changes nothing, and why."""
        before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in self.folder.iterdir()}
        done = self._site.run("folder", "update", "--dir", self.folder, self._engine_option, *words)
        assert done.out == ""
        assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in self.folder.iterdir()} == before
        return done.status, done.err

    def has(self, image: Image, reference: str) -> None:
        """Calls an image of the engine so, too."""
        self.engine.run("tag", image.id, reference)

    @property
    def names(self) -> list[str]:
        return files_in(self.folder)


@pytest.fixture
def kept(
    request: pytest.FixtureRequest,
    docker: Docker,
    podman: Podman,
    small_image: Image,
    second_docker: Docker,
    tmp_path: Path,
) -> Kept:
    """A folder, and an engine that has the small image as `web:latest`: Docker unless the test says otherwise."""
    name = getattr(request, "param", "docker")
    engine: Engine = second_docker if name == "docker" else podman
    engine.run("load", stdin=docker.run("save", small_image.id).stdout)
    kept = Kept(tmp_path / "images", engine, name)
    kept.has(small_image, "web:latest")
    return kept


def short(image: Image) -> str:
    return image.id.removeprefix("sha256:")[:12]


@pytest.mark.conforms("G7", "G8", "G9", "G10", "G11", "G13", "G14", "G20")
@pytest.mark.parametrize("kept", ["docker", "podman"], indirect=True)
def test_a_folder_is_kept_in_line(
    kept: Kept, docker: Docker, small_image: Image, variant_of: VariantOf, home: Path
) -> None:
    following = variant_of(small_image, "arvtest/web:2")
    kept.engine.run("load", stdin=docker.run("save", following.id).stdout)
    old, new = f"web_latest_{short(small_image)}", f"web_latest_{short(following)}"
    assert kept.update("web") == f"{old}.docker"
    path = kept.folder / f"{old}.docker"
    before = path.stat()
    assert kept.update("web") == path.name
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    # Another image under the same name: `latest` may be one, a version that was released is not.
    kept.has(small_image, "web:1.0")
    kept.has(small_image, "web_ui:1.0")
    assert kept.update("web_ui", "1.0") == f"web_ui_1.0_{short(small_image)}.docker"
    released = kept.update("web", "1.0", "--compress")
    kept.has(following, "web:1.0")
    status, told = kept.refused("web", "1.0", "--clean")
    assert (status, "--force" in told) == (NOT_THERE, True), told
    kept.has(following, "web:latest")
    assert kept.update("web") == f"{new}.docker"
    assert kept.names == sorted([f"{old}.docker", f"{new}.docker", released, f"web_ui_1.0_{short(small_image)}.docker"])
    kept.engine.run("rmi", "web:1.0")
    assert kept.refused("web", "1.0", "--clean")[0] == NOT_THERE
    assert kept.update("web", "--compress", "--clean") == f"{new}.zip"
    assert kept.names == sorted([f"{new}.zip", f"web_ui_1.0_{short(small_image)}.docker"])
    (kept.folder / f"web_0.9_{short(following)}.rar").touch()
    status, told = kept.refused("web", "--clean")
    assert (status, "nothing was changed" in told) == (CONTENT, True), told
    assert cached(home) == []


@pytest.mark.conforms("G12", "W20")
def test_a_zip_file_loads_and_is_the_canonical_archive_in_keep(
    kept: Kept, second_docker: Docker, podman: Podman, small_image: Image, tmp_path: Path
) -> None:
    kept.update("web", "--compress")
    name = f"web_latest_{short(small_image)}"
    assert kept.names == [f"{name}.zip"]
    second_docker.empty()
    podman.empty()
    for engine, transport in ((second_docker, "docker-daemon"), (podman, "containers-storage")):
        site = Site(tmp_path / "site", engine)
        assert site.printed("copy", f"folder:{kept.folder}:web", f"{transport}:again:1") == small_image.id
        assert engine.image_ids() == {small_image.id}
        assert engine.text("run", "--rm", "--network", "none", "again:1") == small_image.greeting
    stored, direct = Site(tmp_path / "stored"), Site(tmp_path / "direct", second_docker)
    stored.printed("ingest", f"folder:{kept.folder}:web", "--as", "again:1")
    direct.printed("ingest", "again:1")
    assert stored.printed("resolve", "again:1") == direct.printed("resolve", "again:1")
    # Its one member is that archive, which engines take as it is.
    with zipfile.ZipFile(kept.folder / f"{name}.zip") as archive:
        (member,) = archive.namelist()
        assert ArchiveName.parse(member) == ArchiveName("web", "latest", short(small_image))
        content = archive.read(member)
    site = Site(tmp_path / "site")
    site.printed("copy", f"folder:{kept.folder}:web", f"docker-archive:{tmp_path}/plain.tar")
    assert content == (tmp_path / "plain.tar").read_bytes()
    for engine in (second_docker, podman):
        engine.empty()
        engine.run("load", stdin=content)
        assert engine.image_ids() == {small_image.id}


@pytest.mark.conforms("G16", "G17")
def test_what_the_folder_offers_and_what_is_wrong_with_it(kept: Kept, small_image: Image, tmp_path: Path) -> None:
    kept.update("web", "--compress")
    site = Site(tmp_path / "site")
    (offered,) = json.loads(
        site.printed("folder", "config", "--dir", kept.folder, "--base-url", "https://host.example/i/")
    )
    assert (offered["name"], offered["version"], offered["image_id"]) == ("web", "latest", small_image.id)
    assert offered["url"] == f"https://host.example/i/web_latest_{short(small_image)}.zip"
    path = kept.folder / f"web_latest_{short(small_image)}.zip"
    path.rename(kept.folder / "web_latest_0123456789ab.zip")
    done = site.run("folder", "verify", "--dir", kept.folder)
    assert (done.status, done.out) == (CONTENT, "BAD  web_latest_0123456789ab.zip\n"), done.told
    for refused in (
        ["copy", f"folder:{kept.folder}:web", f"docker-archive:{tmp_path}/plain.tar"],
        ["ingest", f"folder:{kept.folder}:web", "--as", "web:1"],
    ):
        assert site.run(*refused).status == CONTENT
    assert site.records() == ([], [])
    assert not (tmp_path / "plain.tar").exists()

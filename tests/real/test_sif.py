# SPDX-License-Identifier: Apache-2.0
"""SIF files by the real Apptainer, as an ordinary user: built, run, refused, and put where a cluster's nodes look."""

import json
import re
from pathlib import Path

import arvados.collection
import pytest

from .disks import assert_full, enlarge, files_in, small_disk
from .engines import Docker, Image
from .shells import Shell
from .sites import TOP, Site, finished, show, started
from .trees import USER, Apptainer

pytestmark = pytest.mark.engine("docker", "busybox")

PAGE = (TOP / "docs/sif.md").read_text()
LINES = re.findall(r"^    (arv-docker .*)$", PAGE, re.MULTILINE)
PROGRAM = "\n".join(re.findall(r"^    ((?:from|\(image|built).*)$", PAGE, re.MULTILINE))
CONTENT = 5


class Here(Shell):
    """A shell whose site has the image as app:1."""

    def __init__(self, folder: Path, docker: Docker, apptainer: Apptainer) -> None:
        self.site = Site(folder / "site", docker)
        (folder / "cache/arvados/docker").mkdir(parents=True)  # Apptainer is another user here, and is to get through
        own = {"HOME": str(folder), "XDG_CACHE_HOME": f"{folder}/cache"}
        super().__init__(folder, self.site.folder, docker, apptainer, **own)


@pytest.fixture
def here(docker: Docker, apptainer: Apptainer, small_image: Image) -> Here:
    (apptainer.folder / "here").mkdir()
    here = Here(apptainer.folder / "here", docker, apptainer)
    docker.run("tag", small_image.id, "app:1")
    try:
        here.site.printed("ingest", "app:1")
    finally:
        docker.run("rmi", "app:1")
    return here


def test_every_example_of_its_page(
    here: Here, apptainer: Apptainer, small_image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in LINES:
        here.printed(line)
    assert len(LINES) == 8
    made = [*sorted(here.folder.glob("*/*.sif")), here.folder / "for-nextflow/app-1.img"]
    assert [str(it.relative_to(here.folder)) for it in made] == [
        "containers/app%3A1.sif",
        "for-cwltool/app:1.sif",
        "sifs/app%3A1.sif",
        "for-nextflow/app-1.img",
    ]
    for path in made:
        assert path.stat().st_uid == USER
        assert apptainer.text("exec", path, "/bin/hello") == small_image.greeting
    assert apptainer.text("run", made[0]) == small_image.greeting
    show(
        capsys, f"{apptainer.text('--version')}, user {USER}: {made[0].stat().st_size} bytes, {small_image.greeting!r}"
    )
    assert here.program(f"{PROGRAM}\nprint(image.paths[0], built)\n") == "sifs/app%3A1.sif []\n"
    assert list(here.folder.glob("*/.*")) == []  # neither locks nor unfinished work


def test_an_altered_layer_is_refused_before_apptainer_sees_it(here: Here) -> None:
    """It would build it: its own way is shown too."""
    here.run("arv-docker stage app:1 --dir containers")
    path = here.folder / "containers/app%3A1.tar"
    content = path.read_bytes()
    path.unlink()  # the cache has it too, and stays as it is
    altered = content.replace(b"echo hello from", b"echo hullo from")
    assert altered != content
    path.write_bytes(altered)
    done = here.run("arv-docker deploy containers --engine apptainer")
    assert done.status == CONTENT, done.told
    assert "Apptainer" not in done.err
    done = here.run("arv-docker stage --format sif app:1 --dir containers")
    assert done.status == CONTENT, done.told
    assert list(here.folder.glob("containers/*.sif")) == []
    (here.folder / "own").mkdir()
    done = here.run(
        f"cd own && apptainer build own.sif docker-archive:../containers/{path.name} && apptainer run own.sif"
    )
    assert (done.status, done.out.split()[:1]) == (0, ["hullo"]), done.told


def test_a_node_finds_the_converted_image(here: Here, apptainer: Apptainer, small_image: Image) -> None:
    """It looks for a collection by name in two projects, and runs its one file
    (docs/spec/arvados-clients.md#singularity-images-of-the-nodes)."""
    done = here.run("arv-docker sif fill app:1")
    assert done.status == 0, done.told
    uuid = done.out.strip()
    image = json.loads(here.site.printed("inspect", "--json", "app:1"))["file"]
    with here.site.opened() as records:
        api, owner = records.api, records.cluster.user_uuid
        for name in (".cache", "auto-generated singularity images"):
            filters = [["owner_uuid", "=", owner], ["name", "=", name], ["group_class", "=", "project"]]
            (project,) = api.groups().list(filters=filters, limit=1).execute()["items"]
            owner = project["uuid"]
        name = f"singularity image for {image.removesuffix('.tar')}"
        found = api.collections().list(filters=[["owner_uuid", "=", owner], ["name", "=", name]], limit=1).execute()
        assert [it["uuid"] for it in found["items"]] == [uuid]
        with arvados.collection.CollectionReader(uuid, api_client=api).open("image.sif", "rb") as file:
            (apptainer.folder / "image.sif").write_bytes(file.read())
    assert apptainer.text("exec", apptainer.folder / "image.sif", "/bin/hello") == small_image.greeting


def test_killed_while_apptainer_builds(here: Here) -> None:
    """Its own processes go on for a moment; what they leave is removed by the next run, which completes the work."""
    words = ["arv-docker", "stage", "--format", "sif", "app:1", "--dir", f"{here.folder}/sifs"]
    process = started(words, here.environment)
    while not list(here.folder.glob("sifs/.*.building/image.tar")):
        assert process.poll() is None, finished(process).told
    process.kill()
    assert finished(process).status == -9
    assert list(here.folder.glob("sifs/*.sif")) == []
    done = here.run("arv-docker stage --format sif app:1 --dir sifs && arv-docker verify sifs")
    assert done.status == 0, done.told
    assert sorted(it.name for it in (here.folder / "sifs").iterdir()) == ["app%3A1.sif", "app%3A1.sif_meta.json"]


def test_a_full_disk(here: Here) -> None:
    """Too small for the archive; then for what Apptainer makes of it."""
    stage = "arv-docker stage --format sif app:1 --dir disk/sifs"
    with small_disk(here.folder / "disk", 1 << 20) as disk:
        for size in (1 << 20, 3 << 20):
            enlarge(disk, size)
            done = here.run(stage)
            assert_full(done, disk.relative_to(here.folder))
            assert ("APPTAINER_TMPDIR" in done.err) == (size > 1 << 20)
            assert files_in(disk) == []
        enlarge(disk, 64 << 20)
        done = here.run(f"{stage} && arv-docker verify disk/sifs")
        assert done.status == 0, done.told

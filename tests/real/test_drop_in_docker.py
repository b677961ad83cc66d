# SPDX-License-Identifier: Apache-2.0
"""Names that Docker gives to other things than images, and readers that go away."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from arv_docker.compat import keepdocker

from .engines import Docker, Image
from .sites import Site, command


@pytest.fixture
def same(docker: Docker, small_image: Image) -> Iterator[str]:
    """A container, a volume and an image of one name."""
    docker.run("tag", small_image.reference, "same:latest")
    docker.run("create", "--name", "same", small_image.reference)
    docker.run("volume", "create", "same")
    yield "same"
    docker.run("rm", "same")
    docker.run("volume", "rm", "same")
    docker.run("rmi", "--no-prune", "same:latest", check=False)


@pytest.mark.conforms("K10", "S7")
@pytest.mark.engine("docker", "busybox")
def test_a_container_and_a_volume_of_the_image_s_name(
    same: str, docker: Docker, small_image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path / "site", docker)
    uuid = site.printed(same, program="arv_keepdocker")
    with site.opened() as records:
        assert records.verified(records.cluster.collection(uuid)) == small_image.id
    for name, value in docker.environment.items():
        monkeypatch.setenv(name, value)
    assert keepdocker.find_image_hashes(same) == [small_image.id]
    # The original's look-up of the name alone finds the container.
    docker.run("rmi", "--no-prune", "same:latest")
    assert keepdocker.find_image_hashes(same) == []
    refused = Site(tmp_path / "other", docker).run(same, program="arv_keepdocker")
    assert refused.status == 1, refused.told


@pytest.mark.conforms("K12", "S7", "S20")
@pytest.mark.engine("docker", "busybox")
def test_pull_asks_the_registry_for_the_tag_that_is_meant(docker: Docker, small_image: Image, tmp_path: Path) -> None:
    """The original looks whether the name without a tag is there, and then does not pull."""
    docker.run("tag", small_image.reference, "127.0.0.1:1/same:latest")
    try:
        site = Site(tmp_path / "site", docker)
        done = site.run("--pull", "127.0.0.1:1/same:latest", program="arv_keepdocker")
        assert done.status == 1, done.told
        assert "127.0.0.1:1" in done.err
        assert "refused" in done.err
        assert site.run("--no-pull", "127.0.0.1:1/same:latest", program="arv_keepdocker").status == 0
    finally:
        docker.run("rmi", "--no-prune", "127.0.0.1:1/same:latest")


@pytest.mark.conforms("K1")
def test_a_listing_whose_reader_goes_away(tmp_path: Path) -> None:
    Site(tmp_path / "site").make()
    line = command("images", f"--local={tmp_path}/site", program="arv_keepdocker")
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == (b"", 0)
    process.stderr.close()

# SPDX-License-Identifier: Apache-2.0
"""Out of Keep into an engine that has part of an image: only the rest is read and fed, and the image works."""

import io
import json
import signal
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .engines import BASE_DATA, Docker, Image
from .sites import Site, finished, show

VariantOf = Callable[[Image, str], Image]

#: What is read beside the layers that changed: a block at most.
BLOCK = 64 << 20


@pytest.fixture
def site(docker: Docker, tmp_path: Path) -> Site:
    """Where images are put from the one engine."""
    return Site(tmp_path / "site", docker)


@pytest.mark.engine("docker", "busybox")
def test_of_the_next_version_docker_is_fed_what_it_lacks(
    site: Site,
    base_image: Image,
    second_docker: Docker,
    variant_of: VariantOf,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    following = variant_of(base_image, "arvtest/base:2")
    for image in (base_image, following):
        site.printed("ingest", image.reference)
    there = Site(site.folder, second_docker)
    first = json.loads(there.printed("load", "--json", base_image.reference))
    assert first["bytes_spared"] == 0
    assert first["bytes_read"] > BASE_DATA
    done = there.run("load", "--json", following.reference)
    second = json.loads(done.out)
    show(
        capsys, f"first {first['bytes_read']} bytes read, then {second['bytes_read']}; {second['bytes_spared']} spared"
    )
    assert second["bytes_spared"] > BASE_DATA
    assert second["bytes_read"] < BLOCK
    assert second["engine_id"] == following.id
    assert f"docker had {second['bytes_spared'] / 1e6:.1f} MB" in done.err
    # It is listed, runs, and is saved again as the same image.
    assert following.id in second_docker.image_ids()
    assert second_docker.text("run", "--rm", "--network", "none", following.reference) == following.greeting
    second_docker.run("rmi", base_image.reference)
    second_docker.run("save", "--output", tmp_path / "saved.tar", following.reference)
    again = Site(tmp_path / "again")
    again.printed("ingest", "--from-archive", tmp_path / "saved.tar")
    assert again.printed("resolve", following.reference) == site.printed("resolve", following.reference)


@pytest.mark.engine("docker", "busybox")
def test_the_same_layer_on_another_one_is_fed(
    site: Site, small_image: Image, docker: Docker, second_docker: Docker
) -> None:
    """Docker calls a layer by all that is below it."""
    site.printed("ingest", small_image.reference)
    # An engine that has the uppermost layer alone, on nothing.
    second_docker.run("import", "-", "arvtest/foreign:1", stdin=_uppermost(docker.run("save", small_image.id).stdout))
    foreign = second_docker.text("image", "inspect", "--format", "{{json .RootFS.Layers}}", "arvtest/foreign:1")
    assert json.loads(foreign) == [small_image.diff_ids[-1]]
    there = Site(site.folder, second_docker)
    loaded = json.loads(there.printed("load", "--json", small_image.reference))
    assert loaded["bytes_spared"] == 0
    assert second_docker.text("run", "--rm", "--network", "none", small_image.reference) == small_image.greeting


@pytest.mark.engine("docker", "busybox")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_load_that_is_stopped_is_completed_by_the_next(
    number: signal.Signals, site: Site, base_image: Image, second_docker: Docker
) -> None:
    site.printed("ingest", base_image.reference)
    there = Site(site.folder, second_docker)
    process = there.start("load", base_image.reference)
    deadline = time.monotonic() + 60
    while not list((second_docker.folder / "data/tmp").glob("docker-import-*/blobs/sha256/*")):
        assert process.poll() is None, finished(process).told
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(number)
    done = finished(process, timeout=20)
    assert done.status == (130 if number == signal.SIGINT else -number), done.told
    assert "Traceback" not in done.err
    assert second_docker.image_ids() == set()
    assert there.printed("load", base_image.reference) == base_image.id
    assert second_docker.text("run", "--rm", "--network", "none", base_image.reference) == base_image.greeting


def _uppermost(archive: bytes) -> bytes:
    """The uppermost layer of the image in the archive."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:

        def content(name: str) -> bytes:
            member = tar.extractfile(name)
            assert member is not None
            return member.read()

        (image,) = json.loads(content("manifest.json"))
        return content(image["Layers"][-1])

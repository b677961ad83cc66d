# SPDX-License-Identifier: Apache-2.0
"""A stored image of which one byte is other than it was is refused, and the engine has nothing of it."""

import json
import subprocess
from pathlib import Path

import pytest

from .archives import image_archive
from .engines import Docker, Image
from .sites import Done, Records, Site, finished

#: Of `EXIT_CODES`: Keep lost a block, or the content is not what it claims.
CLUSTER, CONTENT = 4, 5


@pytest.fixture
def site(docker: Docker, tmp_path: Path) -> Site:
    return Site(tmp_path / "site", docker)


def inside(engine: Docker) -> tuple[set[str], list[str]]:
    """What an engine has: images with the untagged ones and those between, and layers on its disk."""
    layers = (engine.folder / "data/image").glob("*/layerdb/sha256/*")
    return engine.image_ids(), sorted(path.name for path in layers)


def assert_refused(site: Site, engine: Docker, image: Image, name: str, code: int) -> Done:
    """Neither verified nor loaded, with a reason; the engine is as before."""
    before = inside(engine)
    # Else Keep's client tries a damaged block again, with growing pauses.
    verified = site.run("verify", "--retries=0", name)
    assert (verified.status, verified.out) == (code, ""), verified.told
    loaded = Site(site.folder, engine).run("load", "--retries=0", name)
    assert (loaded.status, loaded.out) == (code, ""), loaded.told
    for done in (verified, loaded):
        assert done.err.splitlines()[-1].strip(), done.told
        assert "Traceback" not in done.err
    assert inside(engine) == before
    for what in (image.id, image.reference, *image.diff_ids):
        assert engine.run("image", "inspect", what, check=False).returncode != 0
    return loaded


def blocks_of(site: Site, image: Image) -> list[str]:
    return [str(block) for block in json.loads(site.printed("inspect", "--json", image.reference))["blocks"]]


@pytest.mark.engine("docker", "busybox")
def test_a_flipped_byte_on_the_sites_disk(site: Site, base_image: Image, second_docker: Docker) -> None:
    site.printed("ingest", base_image.reference)
    head_with_config, packed_layers, start_of_aligned, end_of_aligned, _ = blocks_of(site, base_image)
    for block in (head_with_config, packed_layers, start_of_aligned, end_of_aligned):
        md5, _, size = block.partition("+")
        path = site.folder / "blocks" / md5[:3] / md5
        # Far from its ends: in a layer this is the content of a file.
        flip(path, int(size) * 3 // 4)
        refused = assert_refused(site, second_docker, base_image, base_image.reference, CLUSTER)
        assert md5 in refused.err
        assert "lost, damaged or not readable" in refused.err
        flip(path, int(size) * 3 // 4)
    assert site.run("verify", base_image.reference).status == 0


def flip(path: Path, offset: int, bit: int = 1) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ bit]))


@pytest.mark.parametrize("size", [1 << 10, 2 << 20])
def test_a_damaged_block_is_refused_soon(size: int, tmp_path: Path) -> None:
    """Without an option that says how often to try; the site knows that trying again is of no use."""
    archive = image_archive(tmp_path / "archive.tar", [bytes(size)])
    site = Site(tmp_path / "site")
    uuid = site.printed("ingest", "--from-archive", archive)
    (path,) = (path for path in site.blocks() if path.stat().st_size == size + 512)
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    process = site.start("verify", uuid)
    try:
        done = finished(process, timeout=40)
    except subprocess.TimeoutExpired:
        pytest.fail("40 seconds were not enough to find a damaged block in a folder of this machine")
    assert done.status == CLUSTER, done.told


@pytest.mark.engine("docker", "busybox")
@pytest.mark.parametrize("number", [1, 3], ids=["packed layers", "aligned layer"])
def test_a_block_swapped_for_another_of_its_size_in_the_manifest_text(
    number: int, site: Site, base_image: Image, second_docker: Docker
) -> None:
    site.printed("ingest", base_image.reference)
    with site.opened() as records:
        uuid = _swapped(records, number)
    refused = assert_refused(site, second_docker, base_image, uuid, CONTENT)
    assert "holds other bytes" in refused.err


@pytest.mark.engine("docker", "busybox")
def test_a_swapped_block_is_refused_by_the_images_name_too(
    site: Site, base_image: Image, second_docker: Docker
) -> None:
    site.printed("ingest", base_image.reference)
    with site.opened() as records:
        uuid = _swapped(records, 1)
        (link,) = (link for link in records.links() if link.link_class == "docker_image_repo+tag")
        records.api.links().update(uuid=link.uuid, body={"head_uuid": uuid}).execute()
    assert_refused(site, second_docker, base_image, base_image.reference, CONTENT)


def _swapped(records: Records, number: int) -> str:
    """A collection like the only one there is, but for one block: as long, stored well, with one byte changed."""
    (collection,) = records.collections()
    tokens = (collection.manifest_text or "").split(" ")
    content = bytearray(records.cluster.get_block(tokens[1 + number]))
    content[len(content) * 3 // 4] ^= 1
    tokens[1 + number] = records.cluster.put_block(bytes(content))
    return records.cluster.create_collection({"manifest_text": " ".join(tokens), "name": "altered"}).uuid

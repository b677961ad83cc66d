# SPDX-License-Identifier: Apache-2.0
"""Two ingests of one image at the same moment end with one collection, whether or not they know of each other."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from arv_docker.arvados.catalog.link_classes import DIGEST
from arv_docker.arvados.dedup import LAYER
from arv_docker.site import LocalSite

from ..archives import classic, files_of, image
from .engines import Docker, Image
from .proxy import between, ingest
from .sites import Records, Site, assert_stored_once, cached, finished

Created = Callable[[Image], str]


@pytest.fixture
def created(docker: Docker) -> Created:
    return lambda image: docker.text("image", "inspect", "--format", "{{.Created}}", image.id)


@pytest.mark.conforms("K15")
@pytest.mark.engine("docker", "busybox")
def test_two_with_one_home_wait_for_each_other(
    docker: Docker, base_image: Image, created: Created, tmp_path: Path, home: Path
) -> None:
    site = Site(tmp_path / "site", docker)
    done = [finished(process) for process in [site.start("ingest", base_image.reference) for _ in range(2)]]
    with site.opened() as records:
        collection = assert_stored_once(records, base_image, created(base_image))
    assert [one.status for one in done] == [0, 0], [one.told for one in done]
    assert [one.out for one in done] == [f"{collection.uuid}\n"] * 2
    assert sum("already stored" in one.err for one in done) == 1
    assert cached(home) == []


@pytest.mark.conforms("S14")
@pytest.mark.engine("docker", "busybox")
@pytest.mark.parametrize("round_", range(4))
def test_two_without_a_common_lock_agree(
    round_: int, docker: Docker, small_image: Image, created: Created, tmp_path: Path
) -> None:
    """Two homes: the cluster is all that they share. Each round meets at slightly other moments."""
    site = Site(tmp_path / "site", docker)
    homes = [{"HOME": f"{tmp_path}/{name}", "XDG_CACHE_HOME": f"{tmp_path}/{name}/.cache"} for name in "ab"]
    done = [finished(it) for it in [site.start("ingest", small_image.reference, **home) for home in homes]]
    assert [one.status for one in done] == [0, 0], [one.told for one in done]
    with site.opened() as records:
        uuid = the_only_collection(records, small_image)
    assert [one.out for one in done] == [f"{uuid}\n"] * 2
    assert [cached(tmp_path / name) for name in "ab"] == [[], []]


@pytest.mark.conforms("S14")
@pytest.mark.engine("docker", "busybox")
@pytest.mark.parametrize("methods", ["POST", "POST DELETE", "GET POST PUT DELETE"])
def test_two_in_step_agree(methods: str, docker: Docker, small_image: Image, tmp_path: Path) -> None:
    """Neither asks the next thing of the API before the other has come as far: what can be done twice, is."""
    step = threading.Barrier(2)

    def hold(request: str) -> None:
        method, _, path = request.partition(" ")
        if method in methods.split() and path.startswith(("/arvados/v1/collections", "/arvados/v1/links")):
            try:
                step.wait(1)
            except threading.BrokenBarrierError:  # the other one has less to do
                step.reset()

    homes = [docker.environment | {"HOME": f"{tmp_path}/{it}", "XDG_CACHE_HOME": f"{tmp_path}/{it}"} for it in "ab"]
    with (
        LocalSite(tmp_path / "site") as running,
        between(running, hold=hold) as first,
        between(running, hold=hold) as second,
    ):
        both = [ingest(it.url, running, small_image, home) for it, home in zip((first, second), homes, strict=True)]
        for process in both:
            process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    posted = [
        ("POST /arvados/v1/collections", True) in {(it, bool(n)) for it, n in one.seen} for one in (first, second)
    ]
    assert posted == [True, True], "they did not meet"
    with Site(tmp_path / "site").opened() as records:
        the_only_collection(records, small_image)


def test_eight_at_once_link_a_layer_that_they_share_once(tmp_path: Path) -> None:
    """Each has an image of its own, and a home of its own; all stand on one large layer."""
    low = files_of(b"low" * 5_700_000)
    site = Site(tmp_path / "site")
    site.make()
    processes = []
    for number in range(8):
        archive = tmp_path / f"{number}.tar"
        archive.write_bytes(classic(image(low, files_of(b"%d" % number))))
        home = {"HOME": f"{tmp_path}/{number}", "XDG_CACHE_HOME": f"{tmp_path}/{number}/.cache"}
        processes.append(site.start("ingest", f"docker-archive:{archive}", "--as", f"app:{number}", **home))
    done = [finished(process, 600) for process in processes]
    assert [one.status for one in done] == [0] * 8, [one.told for one in done]
    with site.opened() as records:
        links = records.links()
        assert len(records.collections()) == 8
        (link,) = (it for it in links if it.link_class == LAYER)
        assert link.head_uuid in {one.out.strip() for one in done}
        assert len([it for it in links if it.link_class == "docker_image_hash"]) == 8


def the_only_collection(records: Records, image: Image) -> str:
    """The UUID of the one collection outside the trash, which has the image, its two links, and one for each layer."""
    (collection,) = records.cluster.collections([], manifest=True)
    assert records.verified(collection) == image.id
    links = sorted((link.link_class, link.name, link.head_uuid) for link in records.links())
    layers = [link for link in links if link[0] == LAYER]
    assert len(layers) == len(set(layers))
    assert {diff_id for _, diff_id, _ in layers} <= set(image.diff_ids)
    assert {head for _, _, head in layers} <= {collection.uuid}
    assert [link[0] for link in links].count(DIGEST) <= 1  # the original writes none
    assert [link for link in links if link[0] not in (LAYER, DIGEST)] == [
        ("docker_image_hash", image.id, collection.uuid),
        ("docker_image_repo+tag", image.reference, collection.uuid),
    ]
    return collection.uuid

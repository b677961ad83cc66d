# SPDX-License-Identifier: Apache-2.0
"""Two ingests of one image at the same moment end with one collection, whether or not they know of each other."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.real.engines import Docker, Image
from tests.real.sites import Site, assert_stored_once, cached, finished

Created = Callable[[Image], str]


@pytest.fixture
def created(docker: Docker) -> Created:
    return lambda image: docker.text("image", "inspect", "--format", "{{.Created}}", image.id)


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
        left = [collection for collection in records.collections() if collection.uuid in done[0].out]
        assert [one.out for one in done] == [f"{collection.uuid}\n" for collection in left] * 2
        live = list(records.cluster.collections([]))
        assert [collection.uuid for collection in live] == [collection.uuid for collection in left]
        assert records.verified(left[0]) == small_image.id if left[0].manifest_text else False
        names = [(link.link_class, link.name, link.head_uuid) for link in records.links()]
    assert sorted(names) == [
        ("docker_image_hash", small_image.id, left[0].uuid),
        ("docker_image_repo+tag", small_image.reference, left[0].uuid),
    ]
    assert [cached(tmp_path / name) for name in "ab"] == [[], []]

# SPDX-License-Identifier: Apache-2.0
"""An image of a registry whose name has the port 443, which links leave out and engines keep."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from arv_docker.compat import keepdocker

from .engines import Docker, Image
from .sites import Site

NAME, LINK = "image:443/lib/small:1", "image/lib/small:1"


@pytest.fixture
def site(docker: Docker, tmp_path: Path) -> Site:
    return Site(tmp_path / "site", docker)


@pytest.fixture
def tagged(docker: Docker, base_image: Image) -> Iterator[Image]:
    docker.text("tag", base_image.id, NAME)
    yield base_image
    docker.run("rmi", "--no-prune", NAME, check=False)


@pytest.mark.conforms("K2", "S5")
@pytest.mark.engine("docker", "busybox")
def test_it_is_found_under_the_name_that_the_engine_has(
    docker: Docker, tagged: Image, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original looks for `image/lib/small` in the engine, and finds nothing where that has the port."""
    for name, value in docker.environment.items():
        if name.startswith("DOCKER_"):
            monkeypatch.setenv(name, value)
    assert keepdocker.find_one_image_hash("image:443/lib/small", "1") == tagged.id
    assert keepdocker.find_image_hashes(NAME) == [tagged.id]
    uuid = site.printed("ingest", NAME)
    for words in (("image:443/lib/small", "1"), (NAME,)):
        assert site.printed(*words, program="arv_keepdocker") == uuid
    pdhs = {site.printed("resolve", text) for text in (NAME, LINK)}
    assert len(pdhs) == 1
    # An engine that leaves the port out, as the original expects of all.
    docker.text("tag", tagged.id, "localhost/lib/small:1")
    try:
        site.printed("ingest", "localhost:443/lib/small:1")
        assert site.printed("resolve", "localhost:443/lib/small:1") in pdhs
    finally:
        docker.run("rmi", "--no-prune", "localhost/lib/small:1")
    assert {it["repository"] for it in json.loads(site.printed("images", "--json", NAME))} == {"image/lib/small"}
    (staged,) = json.loads(site.printed("stage", "--json", "--from", "engine", "--dir", site.folder.parent / "d", NAME))
    assert staged["image_id"] == tagged.id
    docker.run("rmi", "--no-prune", NAME)
    site.printed("load", NAME)
    assert docker.text("image", "inspect", "--format", "{{.Id}}", NAME).strip() == tagged.id

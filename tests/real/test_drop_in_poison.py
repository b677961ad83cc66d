# SPDX-License-Identifier: Apache-2.0
"""Another user publishes links that lie about what collections hold: nobody's word is taken for bytes."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from arv_docker.arvados.catalog.link_classes import HASH, REPO_TAG
from arv_docker.arvados.client import Cluster, CollectionRecord
from arv_docker.local.progress import size_text

from .engines import Docker, Image
from .sites import Done, Site, show
from .strangers import Stranger


@pytest.fixture
def site(docker: Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    for name, value in docker.environment.items():
        monkeypatch.setenv(name, value)
    return Site(tmp_path / "site", docker)


@pytest.fixture
def stranger(site: Site) -> Stranger:
    return Stranger.on(site)


def altered(cluster: Cluster, collection: CollectionRecord) -> str:
    """The manifest text with a byte changed in the block that holds the most, which is of a layer."""
    tokens = (collection.manifest_text or "").split(" ")
    number = max(range(1, len(tokens) - 1), key=lambda it: int(tokens[it].split("+")[1]))
    content = bytearray(cluster.get_block(tokens[number]))
    content[len(content) * 3 // 4] ^= 1
    tokens[number] = cluster.put_block(bytes(content))
    return " ".join(tokens)


def published_wrong(image: Image) -> Callable[[Stranger, Cluster], str]:
    """(a) A hash link and a name to a canonical archive with one wrong layer."""

    def deed(stranger: Stranger, cluster: Cluster) -> str:
        good = stranger.ingests(cluster, image)
        text = altered(cluster, good)
        cluster.trash_collection(good.uuid)
        bad = cluster.create_collection({"manifest_text": text, "owner_uuid": stranger.project, "name": "bad"})
        for link_class, name in ((HASH, image.id), (REPO_TAG, image.reference)):
            stranger.publish(cluster, bad, link_class, name)
        return bad.uuid

    return deed


def published_right(image: Image) -> Callable[[Stranger, Cluster], str]:
    """(b) A hash link to a good collection, for now."""

    def deed(stranger: Stranger, cluster: Cluster) -> str:
        good = stranger.ingests(cluster, image)
        stranger.publish(cluster, good, HASH, image.id)
        return good.uuid

    return deed


def changes(uuid: str) -> Callable[[Stranger, Cluster], None]:
    def deed(_: Stranger, cluster: Cluster) -> None:
        cluster.update_collection(uuid, {"manifest_text": altered(cluster, cluster.collection(uuid))})

    return deed


@pytest.fixture(params=["Docker", "an archive"])
def ingest(request: pytest.FixtureRequest, site: Site, docker: Docker, tmp_path: Path) -> Callable[[Image], Done]:
    """Our ingest, from Docker or from an archive."""

    def ingest(image: Image) -> Done:
        if request.param == "Docker":
            return site.run("ingest", "--json", image.reference)
        docker.run("save", "--output", tmp_path / "image.tar", image.reference)
        return site.run("ingest", "--json", "--from-archive", tmp_path / "image.tar")

    return ingest


def assert_ours_is_right(site: Site, done: Done, image: Image, *, not_in: str) -> Mapping[str, Any]:
    """It ended with a collection of ours, of which every layer hashes right; gives what the ingest said."""
    assert done.status == 0, done.told
    said: dict[str, Any] = json.loads(done.out)
    with site.opened() as records:
        ours = records.cluster.collection(said["uuid"])
        assert ours.uuid != not_in
        assert ours.owner_uuid == records.cluster.user_uuid
        assert records.verified(ours) == image.id
        links = [it for it in records.links() if it.head_uuid == ours.uuid]
        assert sorted(it.link_class for it in links if it.link_class in (HASH, REPO_TAG)) == [HASH, REPO_TAG]
        assert {it.modified_by for it in links} == {records.cluster.user_uuid}
    return said


@pytest.mark.conforms("S8", "K5")
@pytest.mark.engine("docker", "busybox")
def test_a_hash_link_to_an_archive_with_a_wrong_layer(
    site: Site,
    stranger: Stranger,
    ingest: Callable[[Image], Done],
    base_image: Image,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = stranger.does(published_wrong(base_image))
    began = time.monotonic()
    done = ingest(base_image)
    took = time.monotonic() - began
    said = assert_ours_is_right(site, done, base_image, not_in=bad)
    assert "reading it back" in done.err
    assert "is not used" in done.err
    again = ingest(base_image)
    assert json.loads(again.out)["uuid"] == said["uuid"]
    assert "reading it back" not in again.err
    show(
        capsys,
        f"read back {size_text(104 << 20)} to find it wrong, sent {size_text(said['bytes_sent'])}: {took:.1f} s in all",
    )


@pytest.mark.conforms("S8", "K5")
@pytest.mark.engine("docker", "busybox")
def test_a_hash_link_to_a_collection_that_is_changed_later(
    site: Site,
    stranger: Stranger,
    ingest: Callable[[Image], Done],
    small_image: Image,
    capsys: pytest.CaptureFixture[str],
) -> None:
    theirs = stranger.does(published_right(small_image))
    began = time.monotonic()
    first = ingest(small_image)
    took = time.monotonic() - began
    said = assert_ours_is_right(site, first, small_image, not_in=theirs)
    assert said["bytes_sent"] == 0, "what was read back and is right need not be sent"
    stranger.does(changes(theirs))
    again = ingest(small_image)
    assert assert_ours_is_right(site, again, small_image, not_in=theirs)["uuid"] == said["uuid"]
    assert "reading it back" not in again.err
    show(capsys, f"read back once and copied, sent {size_text(said['bytes_sent'])}: {took:.1f} s in all")


@pytest.mark.conforms("S8")
@pytest.mark.engine("docker", "busybox")
def test_our_own_link_to_a_collection_that_is_changed_later(
    site: Site, stranger: Stranger, ingest: Callable[[Image], Done], small_image: Image
) -> None:
    """A link of ours attests the content that it was about, and no other."""
    theirs = stranger.does(published_right(small_image))
    assert site.printed("link", theirs, small_image.reference) == theirs
    stranger.does(changes(theirs))
    warned = site.run("resolve", small_image.reference)
    assert "has changed since it was linked" in warned.err, warned.told
    status = site.run("status", small_image.reference)
    assert (status.status, status.out.split()[0]) == (8, "shadowed"), status.told
    assert "has changed since it was linked" in status.err
    assert_ours_is_right(site, ingest(small_image), small_image, not_in=theirs)


@pytest.mark.conforms("S8", "K8")
@pytest.mark.engine("docker", "busybox")
def test_another_image_in_a_collection_that_we_linked(
    site: Site, stranger: Stranger, small_image: Image, base_image: Image
) -> None:
    """Where no engine has the image, Keep's is taken by our link; not any more when it is another one."""
    theirs = stranger.does(published_right(small_image))
    site.printed("link", theirs, "arvtest/only-in-keep:1")
    assert site.run("ingest", "arvtest/only-in-keep:1").status == 0

    def exchange(stranger: Stranger, cluster: Cluster) -> None:
        other = stranger.ingests(cluster, base_image)
        stranger.publish(cluster, other, HASH, base_image.id)
        cluster.update_collection(theirs, {"manifest_text": other.manifest_text})
        stranger.publish(cluster, cluster.collection(theirs), HASH, base_image.id)

    site.printed("link", theirs, "arvtest/never-copied:1")
    stranger.does(exchange)
    refused = site.run("ingest", "arvtest/never-copied:1")
    assert (refused.status, refused.out) == (1, ""), refused.told
    kept = site.run("ingest", "arvtest/only-in-keep:1")
    assert kept.status == 0, kept.told
    with site.opened() as records:
        assert records.verified(records.cluster.collection(kept.out.strip())) == small_image.id


@pytest.mark.conforms("S8", "K17")
@pytest.mark.engine("docker", "busybox")
def test_a_link_for_our_image_s_name_with_a_later_time_is_reported(
    site: Site, stranger: Stranger, small_image: Image, base_image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = site.printed("ingest", small_image.reference)

    def shadow(stranger: Stranger, cluster: Cluster) -> str:
        other = stranger.ingests(cluster, base_image)
        stranger.publish(cluster, other, REPO_TAG, small_image.reference)
        return cluster.user_uuid

    mallory = stranger.does(shadow)
    for words, status in ((("resolve", small_image.reference), 0), (("status", small_image.reference), 8)):
        done = site.run(*words)
        assert done.status == status, done.told
        assert mallory in done.err
        assert "not trusted" in done.err
        show(capsys, f"{words[0]}: {done.err.splitlines()[-1]}")
    explained = site.run("resolve", "--explain", small_image.reference).err
    assert "(not trusted): decides" in explained
    assert "outranked" in explained
    listed = site.run("images")
    assert f"links of {mallory}, who is not trusted" in listed.err
    (row,) = (it for it in listed.out.splitlines() if it.endswith(mallory))
    assert row.startswith(small_image.reference.split(":")[0])
    by_json = json.loads(site.printed("images", "--json"))
    assert [it["trusted"] for it in by_json] == [False, True]
    # Taken at our word it is still ours, and a second ingest says what it stored.
    again = site.run("ingest", small_image.reference)
    assert again.out == f"{ours}\n", again.told
    moved = site.run("tag", ours, small_image.reference)
    assert moved.status == 8, moved.told
    assert "still means" in moved.err

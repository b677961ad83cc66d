# SPDX-License-Identifier: Apache-2.0
"""Names of images that are in Keep: given, moved, taken away, and asked for, by the server's rule."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from arv_docker.arvados.catalog import resolver
from arv_docker.arvados.catalog.link_classes import HASH, REPO_TAG
from arv_docker.arvados.client import CollectionRecord
from arv_docker.arvados.trust import Trust
from arv_docker.errors import ArvDockerError, ClusterError, NoSuchImage, NotAnImage, NotReady, ShadowedName
from arv_docker.images import tags
from arv_docker.ingest.service import Ingest, Options
from arv_docker.local.progress import SilentProgress
from arv_docker.model.reference import Reference
from arv_docker.store.tarballs import cache_folder
from arv_docker.transports.docker_archive import ArchiveFile
from arv_docker.transports.names import Choice

from ..archives import Image, classic, files_of, image
from ..arvados.fake_api import ME, OTHER, SYSTEM, FakeApi, cluster, http_error
from ..transports.fake_engine import FakeEngine

TRUST = Trust.of(ME, SYSTEM)
APP = Reference.parse("app:1")


def made(when: str) -> Image:
    return image(files_of(when.encode()), os="linux", created=when)


OLDER, NEWER = made("2020-01-01T00:00:00Z"), made("2024-01-01T00:00:00Z")


def ingested(api: FakeApi, which: Image, name: str) -> CollectionRecord:
    engine: Any = FakeEngine(which)
    engine.tags = {which.parsed.digest: [name]}
    uuid = (
        Ingest(cluster(api), Options(cache_folder()), SilentProgress()).from_engine(engine, Reference.parse(name)).uuid
    )
    return cluster(api).collection(uuid)


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


def saved(made: Image) -> Path:
    """A file of the image, in the home that every test has."""
    file = Path.home() / "saved.tar"
    file.write_bytes(classic(made))
    return file


def link(api: FakeApi, collection: CollectionRecord, name: str = "app:1") -> tags.TagResult:
    return tags.link(cluster(api), collection, Reference.parse(name), TRUST, SilentProgress())


def move(api: FakeApi, collection: CollectionRecord, name: str = "app:1") -> tags.TagResult:
    return tags.move(cluster(api), collection, Reference.parse(name), TRUST, SilentProgress())


def status(api: FakeApi, name: Reference = APP) -> tags.Status:
    return tags.status(cluster(api), name, TRUST)


def meant(api: FakeApi, name: str = "app:1") -> str:
    """The collection that the server takes for the name."""
    return resolver.resolve(cluster(api), name, TRUST).collection.uuid


def names(api: FakeApi) -> list[tuple[str, str]]:
    return sorted((it["name"], it["head_uuid"]) for it in api.records["links"].values() if it["link_class"] == REPO_TAG)


# -- link -------------------------------------------------------------------------------


@pytest.mark.conforms("K21")
def test_link_writes_what_is_missing(api: FakeApi) -> None:
    collection = ingested(api, OLDER, "other:1")
    done = link(api, collection)
    assert (done.uuid, done.pdh, done.name) == (collection.uuid, collection.pdh, "app:1")
    assert (done.written, done.deleted, done.shadowed_by) == (1, 0, None)
    assert link(api, collection).written == 0
    assert names(api) == [("app:1", collection.uuid), ("other:1", collection.uuid)]
    (record,) = (it for it in api.records["links"].values() if it["name"] == "app:1")
    assert record["properties"] == {"image_timestamp": "2020-01-01T00:00:00Z"}
    assert record["tail_uuid"] == collection.pdh


@pytest.mark.conforms("K21")
def test_link_of_a_collection_that_no_link_knows(api: FakeApi) -> None:
    """As `arv-put` or a copy without links leaves it: read, hashed, and linked by ID too."""
    collection = ingested(api, OLDER, "other:1")
    api.records["links"].clear()
    assert link(api, collection).written == 2
    assert {(it["link_class"], it["name"]) for it in api.records["links"].values()} == {
        (HASH, str(OLDER.parsed.digest)),
        (REPO_TAG, "app:1"),
    }


@pytest.mark.conforms("K21", "K24")
def test_link_refuses_what_is_no_image(api: FakeApi) -> None:
    for text in (". d41d8cd98f00b204e9800998ecf8427e+0 0:0:notes.txt\n", ""):
        record = CollectionRecord.of(api.add("collections", manifest_text=text))
        with pytest.raises(NotAnImage):
            link(api, record)
    assert api.records["links"] == {}


@pytest.mark.conforms("K21", "S8")
def test_link_refuses_altered_bytes_whoever_vouches_for_them(api: FakeApi) -> None:
    collection = ingested(api, OLDER, "other:1")
    for block, content in api.keep.blocks.items():
        api.keep.blocks[block] = content.replace(b"2020", b"2O2O")
    for record in api.records["links"].values():
        record["modified_by_user_uuid"] = OTHER
    before = dict(api.records["links"])
    with pytest.raises(ArvDockerError):
        link(api, collection)
    assert api.records["links"] == before


def test_link_says_that_another_build_shadows_it(api: FakeApi) -> None:
    newer, older = ingested(api, NEWER, "app:1"), ingested(api, OLDER, "other:1")
    done = link(api, older)
    assert done.shadowed_by is not None
    assert done.shadowed_by.head_uuid == newer.uuid == meant(api)


# -- tag --------------------------------------------------------------------------------


@pytest.mark.conforms("S4")
def test_a_name_is_moved_to_an_older_build(api: FakeApi) -> None:
    """In a way that the server's rule honours: nothing outranks the new link afterwards."""
    newer, older = ingested(api, NEWER, "app:1"), ingested(api, OLDER, "app:old")
    assert meant(api) == newer.uuid
    done = move(api, older)
    assert (done.written, done.deleted, done.shadowed_by) == (1, 1, None)
    assert meant(api) == older.uuid
    assert status(api).state == "ready"
    assert names(api) == [("app:1", older.uuid), ("app:old", older.uuid)]
    assert move(api, newer).deleted == 0  # back again: it ranks first anyway
    assert meant(api) == newer.uuid


@pytest.mark.conforms("S4")
@pytest.mark.parametrize("created", [None, "0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z"])
def test_a_name_is_moved_to_a_build_without_a_time(api: FakeApi, created: str | None) -> None:
    timeless = image(files_of(b"timeless"), os="linux", **({"created": created} if created else {}))
    ingested(api, NEWER, "app:1")
    collection = ingested(api, timeless, "app:old")
    assert move(api, collection).shadowed_by is None
    assert meant(api) == collection.uuid


def test_several_links_that_outrank_it(api: FakeApi) -> None:
    older = ingested(api, OLDER, "app:old")
    for year in ("2022", "2023"):
        ingested(api, made(f"{year}-01-01T00:00:00Z"), "app:1")
    for _ in range(2):  # twice by the same name: its other links count when the oldest has gone
        api.link(
            api.image(NEWER.config, str(NEWER.parsed.digest)), REPO_TAG, "app:1", properties={"image_timestamp": "2025"}
        )
    assert move(api, older).shadowed_by is None
    assert meant(api) == older.uuid


def test_a_link_of_somebody_else_stays_and_is_reported(api: FakeApi) -> None:
    newer, older = ingested(api, NEWER, "app:1"), ingested(api, OLDER, "app:old")
    (shadow,) = (it for it in api.records["links"].values() if it["name"] == "app:1")
    api.faults["links.delete"] = [http_error(403)]
    done = move(api, older)
    assert (done.written, done.deleted) == (1, 0)
    assert done.shadowed_by is not None
    assert (done.shadowed_by.uuid, meant(api)) == (shadow["uuid"], newer.uuid)


def test_a_link_that_somebody_deletes_meanwhile_is_no_failure(api: FakeApi) -> None:
    ingested(api, NEWER, "app:1")
    older = ingested(api, OLDER, "app:old")
    api.faults["links.delete"] = [(http_error(404),)]
    assert move(api, older).shadowed_by is None
    assert meant(api) == older.uuid


def test_a_server_that_fails_is_told_of(api: FakeApi) -> None:
    ingested(api, NEWER, "app:1")
    older = ingested(api, OLDER, "app:old")
    api.faults["links.delete"] = [http_error(500)]
    with pytest.raises(ClusterError):
        move(api, older)
    assert move(api, older).shadowed_by is None


# -- untag ------------------------------------------------------------------------------


def test_untag_takes_the_name_and_leaves_the_images(api: FakeApi) -> None:
    for build in (OLDER, NEWER):
        ingested(api, build, "app:1")
    gone, stayed = tags.remove(cluster(api), APP)
    assert (len(gone), stayed) == (2, [])
    assert names(api) == []
    assert len(api.records["collections"]) == 2
    with pytest.raises(NoSuchImage):
        tags.remove(cluster(api), APP)


def test_untag_says_which_links_stay(api: FakeApi) -> None:
    for build in (OLDER, NEWER):
        ingested(api, build, "app:1")
    api.faults["links.delete"] = [None, http_error(403)]
    gone, stayed = tags.remove(cluster(api), APP)
    assert (len(gone), len(stayed)) == (1, 1)
    assert {it["uuid"] for it in api.records["links"].values() if it["link_class"] == REPO_TAG} == {stayed[0].uuid}


# -- status -----------------------------------------------------------------------------


@pytest.mark.conforms("H19")
def test_ready(api: FakeApi) -> None:
    collection = ingested(api, NEWER, "app:1")
    found = status(api)
    assert (found.state, found.uuid, found.pdh) == ("ready", collection.uuid, collection.pdh)
    assert (found.stored, found.warnings) == ((collection.uuid,), ())


@pytest.mark.conforms("S8", "H19")
def test_shadowed_by_a_stranger(api: FakeApi) -> None:
    ours = ingested(api, NEWER, "app:1")
    evil = api.image(b"evil", owner_uuid=OTHER, modified_by_user_uuid=OTHER)
    planted = api.link(
        evil, REPO_TAG, "app:1", properties={"image_timestamp": "2030-01-01T00:00:00Z"}, modified_by_user_uuid=OTHER
    )
    found = status(api)
    assert (found.state, found.uuid, found.stored) == ("shadowed", evil["uuid"], (ours.uuid,))
    assert (found.link.uuid, found.link.modified_by) == (planted["uuid"], OTHER)
    assert any("not trusted" in warning for warning in found.warnings)


@pytest.mark.conforms("H19")
def test_shadowed_where_our_links_pin_nothing(api: FakeApi) -> None:
    """As those of the original, which count for their own collection alone."""
    ours = ingested(api, OLDER, "app:1")
    for record in api.records["links"].values():
        record["tail_uuid"] = ""
    assert status(api).state == "ready"
    newer = api.image(NEWER.config, owner_uuid=OTHER, modified_by_user_uuid=OTHER)
    later = {"image_timestamp": "2030-01-01T00:00:00Z"}
    api.link(newer, REPO_TAG, "app:1", properties=later, modified_by_user_uuid=OTHER)
    found = status(api)
    assert (found.state, found.uuid, found.stored) == ("shadowed", newer["uuid"], (ours.uuid,))


def test_ready_where_a_colleague_s_collection_has_the_same_content(api: FakeApi) -> None:
    """Two users of a shared project store one image: the name means the one or the other, and both are it."""
    ours = ingested(api, NEWER, "app:1")
    theirs = api.add("collections", **{**api.records["collections"][ours.uuid], "uuid": "zzzzz-4zz18-000000000000099"})
    theirs |= {"owner_uuid": OTHER, "modified_by_user_uuid": OTHER}
    later = {"image_timestamp": "2030-01-01T00:00:00Z"}
    api.link(theirs, REPO_TAG, "app:1", properties=later, modified_by_user_uuid=OTHER)
    found = status(api)
    assert (found.state, found.uuid) == ("ready", theirs["uuid"])


def test_ready_where_it_has_and_our_link_pins_nothing(api: FakeApi) -> None:
    ours = ingested(api, NEWER, "app:1")
    for record in api.records["links"].values():
        record["tail_uuid"] = ""
    theirs = api.add("collections", **{**api.records["collections"][ours.uuid], "uuid": "zzzzz-4zz18-000000000000099"})
    theirs |= {"owner_uuid": OTHER, "modified_by_user_uuid": OTHER}
    later = {"image_timestamp": "2030-01-01T00:00:00Z"}
    api.link(theirs, REPO_TAG, "app:1", properties=later, modified_by_user_uuid=OTHER)
    found = status(api)
    assert (found.state, found.uuid) == ("ready", theirs["uuid"])


def test_shadowed_by_other_content_in_the_same_collection(api: FakeApi) -> None:
    ours = ingested(api, NEWER, "app:1")
    api.records["collections"][ours.uuid] |= {
        key: api.image(b"other")[key] for key in ("manifest_text", "portable_data_hash")
    }
    found = status(api)
    assert (found.state, found.uuid) == ("shadowed", ours.uuid)
    assert any("has changed since" in warning for warning in found.warnings)


def test_foreign(api: FakeApi) -> None:
    api.link(api.image(), REPO_TAG, "app:1", modified_by_user_uuid=OTHER)
    assert status(api).state == "foreign"


def wait(api: FakeApi, seconds: float, meanwhile: list[Any]) -> tags.Status:
    """What waiting ends with; no time passes, but something is done in each pause."""
    return tags.wait(cluster(api), APP, TRUST, seconds, sleep=lambda _: meanwhile.pop(0)())


@pytest.mark.conforms("H19")
def test_waiting_until_the_name_means_what_was_stored(api: FakeApi) -> None:
    """It is absent at first, then another user's, then ours and outranked, then it is ours."""
    evil = api.image(b"evil", owner_uuid=OTHER, modified_by_user_uuid=OTHER)
    planted: list[dict[str, Any]] = []

    def plant() -> None:
        later = {"image_timestamp": "2030-01-01T00:00:00Z"}
        planted.append(api.link(evil, REPO_TAG, "app:1", properties=later, modified_by_user_uuid=OTHER))

    def store() -> None:
        ingested(api, NEWER, "app:1")

    def withdraw() -> None:
        del api.records["links"][planted[0]["uuid"]]

    seen: list[str] = []

    def look(deed: Any) -> Any:
        def act() -> None:
            deed()
            seen.append(status(api).state)

        return act

    found = wait(api, 600, [look(plant), look(store), look(withdraw)])
    assert (found.state, found.uuid) == ("ready", meant(api))
    assert seen == ["foreign", "shadowed", "ready"]


@pytest.mark.conforms("H19")
def test_waiting_in_vain_says_what_the_name_means(api: FakeApi) -> None:
    with pytest.raises(NotReady, match=r"app:1 is absent after 0 s") as caught:
        wait(api, 0, [])
    assert caught.value.exit_code == 10
    ingested(api, OLDER, "app:1")
    evil = api.image(b"evil", owner_uuid=OTHER, modified_by_user_uuid=OTHER)
    later = {"image_timestamp": "2030-01-01T00:00:00Z"}
    planted = api.link(evil, REPO_TAG, "app:1", properties=later, modified_by_user_uuid=OTHER)
    with pytest.raises(NotReady, match=f"shadowed by {evil['uuid']} .link {planted['uuid']} of {OTHER}. after 0 s"):
        wait(api, 0, [])


# -- names that never move --------------------------------------------------------------


def uniquely(api: FakeApi, collection: CollectionRecord, name: str = "app:1") -> str:
    return tags.link_uniquely(cluster(api), collection, Reference.parse(name), TRUST, SilentProgress())


@pytest.mark.conforms("H20")
def test_a_unique_name_stays_with_its_image(api: FakeApi) -> None:
    """Whatever is stored under the plain name, and however late it was built."""
    unique = {}
    for build in (OLDER, NEWER):
        collection = ingested(api, build, "app:1")
        unique[uniquely(api, collection)] = collection.uuid
    assert list(unique) == [f"app:1-{build.parsed.digest.hex[:10]}" for build in (OLDER, NEWER)]
    assert {name: meant(api, name) for name in unique} == unique
    assert meant(api) == list(unique.values())[1]
    before = names(api)
    assert uniquely(api, collection) == list(unique)[1]
    assert names(api) == before


@pytest.mark.conforms("H20")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("app", "app:latest-{}"),
        ("docker.io/library/app:1", "docker.io/library/app:1-{}"),
        ("host.example:5000/tools/app:1", "host.example:5000/tools/app:1-{}"),
        (f"app@sha256:{'1' * 64}", "app:latest-{}"),
        (f"app:{'t' * 128}", "app:" + "t" * 117 + "-{}"),
    ],
)
def test_a_unique_name_is_the_plain_one_as_it_was_written(api: FakeApi, name: str, expected: str) -> None:
    assert uniquely(api, ingested(api, OLDER, "other:1"), name) == expected.format(OLDER.parsed.digest.hex[:10])


@pytest.mark.conforms("H20")
def test_a_unique_name_is_given_to_no_other_image(api: FakeApi) -> None:
    older, newer = ingested(api, OLDER, "app:1"), ingested(api, NEWER, "app:1")
    name = uniquely(api, older)
    before = names(api)
    for give in (link, move):
        with pytest.raises(ShadowedName, match=f"{name} is the name of the image in {older.uuid} alone"):
            give(api, newer, name)
    archive = ArchiveFile(saved(NEWER), None, Choice())
    with pytest.raises(ShadowedName):
        Ingest(cluster(api), Options(cache_folder()), SilentProgress()).from_source(archive, Reference.parse(name))
    with pytest.raises(ShadowedName):
        ingested(api, made("2025-01-01T00:00:00Z"), name)  # an engine's image that is tagged so
    assert names(api) == before
    assert link(api, older, name).written == 0  # its own image keeps it
    tags.remove(cluster(api), Reference.parse(name))
    assert link(api, newer, name).written == 1  # once it is gone it is a name as every other


@pytest.mark.conforms("H20")
def test_a_tag_of_ones_own_that_looks_like_a_unique_one(api: FakeApi) -> None:
    """As one with the number of a commit."""
    older, newer = ingested(api, OLDER, "app:1"), ingested(api, NEWER, "app:2")
    for collection in (older, newer):
        assert link(api, collection, "app:1.0-0123456789").written == 1


@pytest.mark.conforms("H20")
def test_a_unique_name_that_somebody_has_given_away_is_an_error(api: FakeApi) -> None:
    collection = ingested(api, OLDER, "app:1")
    evil = api.image(b"evil", owner_uuid=OTHER, modified_by_user_uuid=OTHER)
    name = f"app:1-{OLDER.parsed.digest.hex[:10]}"
    later = {"image_timestamp": "2030-01-01T00:00:00Z"}
    api.link(evil, REPO_TAG, name, properties=later, modified_by_user_uuid=OTHER)
    with pytest.raises(
        ShadowedName, match=f"{name}: to the cluster it means {evil['uuid']}.*{re.escape(collection.pdh)}"
    ):
        uniquely(api, collection)


@pytest.mark.parametrize("name", ["none:1", "abcdef"])
def test_a_name_that_is_none(api: FakeApi, name: str) -> None:
    api.link(api.image(image_id=f"sha256:{'abcdef' + '0' * 58}"), HASH, f"sha256:{'abcdef' + '0' * 58}")
    with pytest.raises(NoSuchImage):
        status(api, Reference.parse(name))

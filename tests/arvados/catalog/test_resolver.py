# SPDX-License-Identifier: Apache-2.0
"""Listing and resolving, and how few requests they take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from arv_docker.arvados.catalog import link_query, resolver
from arv_docker.arvados.catalog.link_classes import DIGEST, HASH, MIGRATION, REPO_TAG
from arv_docker.arvados.catalog.listing import ListingRow, list_images
from arv_docker.arvados.catalog.ranking import sort_key
from arv_docker.arvados.trust import Trust
from arv_docker.errors import AmbiguousImage, BadReference, ClusterError, NoSuchImage, NotAnImage
from arv_docker.model.reference import Reference

from ..fake_api import ME, OTHER, PROJECT, SYSTEM, FakeApi, cluster, http_error

TRUST = Trust.of(ME, SYSTEM)
IDS = [f"sha256:{digit * 64}" for digit in "abcdef"]


# -- the listing ------------------------------------------------------------------------


def cells(rows: Iterable[ListingRow]) -> list[tuple[str, str, str, str]]:
    return [(row.repository, row.tag, row.image_id, row.collection.uuid[-2:]) for row in rows]


@pytest.mark.conforms("K18")
def test_rows() -> None:
    api = FakeApi()
    both, only_hash = (api.image(b"%d" % n, IDS[n - 1], uuid=f"zzzzz-4zz18-{n:015d}") for n in (1, 2))
    only_name = api.image(b"3", IDS[2], uuid="zzzzz-4zz18-000000000000003")
    no_image = api.add(
        "collections", manifest_text=f". {'a' * 32}+3 0:3:notes.txt\n", uuid="zzzzz-4zz18-000000000000004"
    )
    api.link(both, HASH, IDS[0])
    api.link(both, REPO_TAG, "host:5000/app:1", properties={"image_timestamp": "2024-01-03T00:00:00Z"})
    api.link(both, REPO_TAG, "app:latest", properties={"image_timestamp": "2024-01-05T00:00:00Z"})
    api.link(both, REPO_TAG, "app:latest", properties={"image_timestamp": "2024-01-01T00:00:00Z"})
    api.link(only_hash, HASH, IDS[1], properties={"image_timestamp": "2024-01-04T00:00:00Z"})
    api.link(only_name, REPO_TAG, f"app@{IDS[2]}", properties={"image_timestamp": "2024-01-02T00:00:00Z"})
    api.link(no_image, REPO_TAG, "notes:1")
    api.link({"uuid": "zzzzz-4zz18-000000000000099"}, REPO_TAG, "gone:1")
    assert cells(list_images(cluster(api), TRUST).rows) == [
        ("app", "latest", IDS[0], "01"),
        ("<none>", "<none>", IDS[1], "02"),
        ("host:5000/app", "1", IDS[0], "01"),
        ("app@sha256", "c" * 64, IDS[2], "03"),
        ("notes", "1", "<unknown>", "04"),
    ]


def test_an_empty_listing() -> None:
    assert list_images(cluster(FakeApi()), TRUST).rows == ()


def test_the_time_shown_is_the_image_s_else_the_link_s() -> None:
    api = FakeApi()
    made = api.image()
    api.link(made, REPO_TAG, "a:1", properties={"image_timestamp": "2020-01-01T00:00:00+01:00"})
    api.link(made, REPO_TAG, "b:1", properties={"image_timestamp": None}, created_at="2021-01-01T00:00:00Z")
    api.link(made, REPO_TAG, "c:1", created_at=None)
    rows = list_images(cluster(api), TRUST).rows
    assert [row.timestamp.isoformat() for row in rows] == [
        "2020-01-01T00:00:00+01:00",
        "2021-01-01T00:00:00+00:00",
        "0001-01-01T00:00:00+00:00",
    ]


def library() -> FakeApi:
    api = FakeApi()
    for number, (name, image_id) in enumerate(
        [
            ("app:latest", IDS[0]),
            ("app:1", IDS[1]),
            ("host:443/app:1", IDS[2]),
            ("app_x:1", IDS[3]),
            ("appyx:1", IDS[4]),
            ("app:5000/other:1", IDS[5]),
        ]
    ):
        made = api.image(b"%d" % number, image_id, owner_uuid=PROJECT if name == "app:1" else ME)
        api.link(made, HASH, image_id, owner_uuid=made["owner_uuid"])
        api.link(made, REPO_TAG, name, owner_uuid=made["owner_uuid"])
    return api


@pytest.mark.conforms("K18")
@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("app", {"app:latest", "app:1"}),
        ("app:1", {"app:1"}),
        ("app:2", set()),
        ("app_x", {"app_x:1"}),  # the underscore is no wildcard
        ("app:5000/other", {"app:5000/other:1"}),
        (IDS[2], {"host:443/app:1"}),
        ("sha256:ccc", {"host:443/app:1"}),
        ("c" * 64, {"host:443/app:1"}),
        ("cccc", {"host:443/app:1"}),
        ("sha256:0", set()),
        ("sha256:" + "0" * 64, set()),
        ("nothing", set()),
    ],
)
def test_the_listing_of_a_name(name: str, found: set[str]) -> None:
    rows = list_images(cluster(library()), TRUST, name).rows
    assert {f"{row.repository}:{row.tag}" for row in rows} == found
    assert all(row.image_id.startswith("sha256:") for row in rows)


@pytest.mark.conforms("K18", "S22")
def test_the_listing_of_a_project() -> None:
    rows = list_images(cluster(library()), TRUST, project=PROJECT).rows
    assert [(row.repository, row.tag, row.image_id) for row in rows] == [("app", "1", IDS[1])]


@pytest.mark.parametrize("name", ["A", "sha256:", "sha256:x", "a b"])
def test_the_listing_of_no_name(name: str) -> None:
    with pytest.raises(BadReference):
        list_images(cluster(FakeApi()), TRUST, name)


@pytest.mark.conforms("S11", "S18")
def test_few_requests() -> None:
    """One for each 1,000 links and one for each 1,000 collections, and no filter with more values than that."""
    api = FakeApi()
    for number in range(1500):
        made = api.image(b"%d" % number)
        api.link(made, HASH, f"sha256:{number:064x}")
        api.link(made, REPO_TAG, f"app:{number}")
    assert len(list_images(cluster(api), TRUST).rows) == 1500
    assert api.requests == {"links.list": 4, "collections.list": 2}


def test_a_short_listing_takes_two_requests() -> None:
    api = library()
    list_images(cluster(api), TRUST)
    assert api.requests == {"links.list": 1, "collections.list": 1}


# -- what a name means ------------------------------------------------------------------


def meant(api: FakeApi, text: str) -> str:
    return resolver.resolve(cluster(api), text, TRUST).collection.uuid


def test_a_uuid_and_a_pdh_are_what_they_are() -> None:
    api = FakeApi()
    made = api.image()
    for text in (made["uuid"], made["portable_data_hash"]):
        found = resolver.resolve(cluster(api), text, TRUST)
        assert (found.collection.uuid, found.link) == (made["uuid"], None)


@pytest.mark.parametrize("text", ["zzzzz-4zz18-000000000000077", "a" * 32 + "+3"])
def test_a_uuid_or_pdh_of_nothing(text: str) -> None:
    with pytest.raises(NoSuchImage, match=text.replace("+", r"\+")):
        meant(FakeApi(), text)


def test_a_server_that_fails_is_not_a_missing_collection() -> None:
    api = FakeApi()
    api.faults["collections.get"] = [http_error(503)]
    with pytest.raises(ClusterError) as caught:
        meant(api, "zzzzz-4zz18-000000000000077")
    assert caught.value.status == 503


def test_a_name_means_the_image_that_the_server_prefers() -> None:
    api = FakeApi()
    old, new = api.image(b"old"), api.image(b"new")
    api.link(new, REPO_TAG, "app:latest", properties={"image_timestamp": "2024-02-01T00:00:00Z"})
    api.link(old, REPO_TAG, "app:latest", properties={"image_timestamp": "2024-01-01T00:00:00Z"})
    for text in ("app", "app:latest", "docker://app"):
        assert meant(api, text) == new["uuid"]
    with pytest.raises(NoSuchImage):
        meant(api, "app:1")


@pytest.mark.conforms("K11", "S2")
@pytest.mark.parametrize("text", [IDS[0], "a" * 64, "sha256:aaaa", "aaaa"])
def test_an_image_id_or_its_beginning(text: str) -> None:
    assert meant(api := library(), text) == api.records["links"][min(api.records["links"])]["head_uuid"]


def test_a_name_goes_before_an_id_that_it_could_begin() -> None:
    api = library()
    named = api.image(b"named aaaa")
    api.link(named, REPO_TAG, "aaaa:latest")
    assert meant(api, "aaaa") == named["uuid"]
    assert meant(api, "sha256:aaaa") != named["uuid"]


@pytest.mark.conforms("S1")
@pytest.mark.parametrize("text", ["sha256:" + "0" * 64, "sha256:0", "sha256:00", "0" * 64, "0000", "aaa", "sha256"])
def test_an_unknown_id_never_falls_back_to_another_image(text: str) -> None:
    with pytest.raises(NoSuchImage):
        meant(library(), text)


@pytest.mark.conforms("S10")
@pytest.mark.parametrize("text", ["sha256:", "sha256:%", "sha256:_", "%", "_", ""])
def test_no_wildcards(text: str) -> None:
    with pytest.raises(BadReference):
        meant(library(), text)


def test_the_beginning_of_several_ids() -> None:
    api = FakeApi()
    for image_id in (f"sha256:abcd{'0' * 60}", f"sha256:abcd{'1' * 60}"):
        api.link(api.image(image_id.encode(), image_id), HASH, image_id)
    with pytest.raises(AmbiguousImage) as caught:
        meant(api, "sha256:abcd")
    assert caught.value.detail.splitlines() == [f"sha256:abcd{'0' * 60}", f"sha256:abcd{'1' * 60}"]
    assert meant(api, "sha256:abcd0")


def test_one_id_in_two_collections_is_not_ambiguous() -> None:
    api = FakeApi()
    for content in (b"one", b"two"):
        api.link(api.image(content, IDS[0]), HASH, IDS[0])
    assert meant(api, "sha256:aaaa")


@pytest.fixture
def called() -> FakeApi:
    """Two images, each called by other digests too, one of them by that of an index of both; and by one name."""
    api = FakeApi()
    for number, (image_id, own) in enumerate([("a1", "b2"), ("c3", "b4")]):
        head = api.image(image_id=(whole := f"sha256:{image_id * 32}"))
        for link_class, name in (
            (HASH, whole),
            (REPO_TAG, "app:1"),
            (DIGEST, f"sha256:{own * 32}"),
            (DIGEST, f"sha256:{'d5' * 32}"),
        ):
            api.link(head, link_class, name, properties={"image_timestamp": f"202{number}-01-01T00:00:00Z"})
    return api


@pytest.mark.parametrize(
    ("text", "image_id"),
    [
        ("app:1", "c3"),
        (f"sha256:{'a1' * 32}", "a1"),
        ("a1" * 6, "a1"),
        (f"sha256:{'b2' * 32}", "a1"),
        ("b2" * 6, "a1"),
        (f"sha256:{'d5' * 32}", "c3"),
        (f"app@sha256:{'a1' * 32}", "a1"),
        (f"app@sha256:{'b2' * 32}", "a1"),
        (f"app:1@sha256:{'b2' * 32}", "a1"),
        (f"other.example/name:9@sha256:{'b4' * 32}", "c3"),
    ],
)
def test_every_digest_and_a_name_with_one(called: FakeApi, text: str, image_id: str) -> None:
    """A digest beside a tag says which image is meant, whatever has the name."""
    found = resolver.resolve(cluster(called), text, TRUST).collection
    assert f"{image_id * 32}.tar" in (found.manifest_text or "")
    assert {row.image_id for row in list_images(cluster(called), TRUST, text).rows} >= {f"sha256:{image_id * 32}"}


@pytest.mark.parametrize("text", [f"app:1@sha256:{'e6' * 32}", f"sha256:{'e6' * 32}", "e6e6e6e6"])
def test_a_digest_that_no_image_has(called: FakeApi, text: str) -> None:
    with pytest.raises(NoSuchImage):
        resolver.resolve(cluster(called), text, TRUST)
    assert list_images(cluster(called), TRUST, text).rows == ()


def test_the_beginning_of_the_digests_of_several_images() -> None:
    api = FakeApi()
    for image_id, own in (("a1", "b2b2"), ("c3", "b2b4")):
        api.link(api.image(image_id=f"sha256:{image_id * 32}"), DIGEST, f"sha256:{own * 16}")
    with pytest.raises(AmbiguousImage) as caught:
        resolver.resolve(cluster(api), "sha256:b2b", TRUST)
    assert f"sha256:{'b2b2' * 16}" in caught.value.detail


def test_links_to_what_cannot_be_read_do_not_count() -> None:
    api = FakeApi()
    readable = api.image()
    api.link({"uuid": "zzzzz-4zz18-000000000000099"}, REPO_TAG, "app:1", created_at="2030-01-01T00:00:00Z")
    api.link(readable, REPO_TAG, "app:1")
    assert meant(api, "app:1") == readable["uuid"]


def test_a_collection_that_holds_no_image_is_passed_over() -> None:
    api = FakeApi()
    good = api.image()
    for text in (f". {'a' * 32}+3 0:3:notes.txt\n", "", f". {'a' * 32}+3 0:1:a.tar 1:2:b.tar\n", "garbage"):
        bad = api.add("collections", manifest_text=text)
        api.link(bad, REPO_TAG, "app:1", created_at="2030-01-01T00:00:00Z")
    api.link(good, REPO_TAG, "app:1")
    assert meant(api, "app:1") == good["uuid"]


def test_a_name_of_nothing_but_that() -> None:
    api = FakeApi()
    api.link(api.add("collections", manifest_text=""), REPO_TAG, "app:1")
    with pytest.raises(NotAnImage):
        meant(api, "app:1")


# -- migrated images --------------------------------------------------------------------


def migrated(owner: str = SYSTEM) -> tuple[FakeApi, dict[str, Any], dict[str, Any]]:
    api = FakeApi()
    old = api.add("collections", manifest_text=f". {'a' * 32}+3 0:3:{'a' * 64}.tar\n")
    new = api.image()
    api.link(old, REPO_TAG, "app:1")
    api.add(
        "links",
        link_class=MIGRATION,
        name="any",
        tail_uuid=old["portable_data_hash"],
        head_uuid=new["portable_data_hash"],
        owner_uuid=owner,
    )
    return api, old, new


def test_an_image_of_version_1_is_followed_to_the_one_it_was_migrated_to() -> None:
    api, _, new = migrated()
    assert meant(api, "app:1") == new["uuid"]


@pytest.mark.parametrize("owner", [ME, OTHER, PROJECT])
def test_only_the_system_user_migrates(owner: str) -> None:
    api, _, _ = migrated(owner)
    with pytest.raises(NotAnImage):
        meant(api, "app:1")


def test_the_newest_migration_counts() -> None:
    api, old, _ = migrated()
    newer = api.image(b"newer")
    api.add(
        "links",
        link_class=MIGRATION,
        tail_uuid=old["portable_data_hash"],
        head_uuid=newer["portable_data_hash"],
        owner_uuid=SYSTEM,
        created_at="2030-01-01T00:00:00Z",
    )
    assert meant(api, "app:1") == newer["uuid"]


def test_a_migration_is_followed_once() -> None:
    api, _, new = migrated()
    new["manifest_text"] = f". {'b' * 32}+3 0:3:{'b' * 64}.tar\n"
    with pytest.raises(NotAnImage):
        meant(api, "app:1")


# -- warnings ---------------------------------------------------------------------------


@pytest.mark.conforms("K17")
def test_a_warning_where_clients_would_pick_another_image() -> None:
    """The server takes a collection's oldest link, clients its best one."""
    api = FakeApi()
    theirs, ours = api.image(b"theirs"), api.image(b"ours")
    api.link(theirs, REPO_TAG, "app:1", properties={"image_timestamp": "2024-01-01T00:00:00Z"})
    api.link(theirs, REPO_TAG, "app:1", properties={"image_timestamp": "2024-09-01T00:00:00Z"})
    api.link(ours, REPO_TAG, "app:1", properties={"image_timestamp": "2024-05-01T00:00:00Z"})
    found = resolver.resolve(cluster(api), "app:1", TRUST)
    assert found.collection.uuid == ours["uuid"]
    (warning,) = found.warnings
    assert theirs["uuid"] in warning


def test_a_warning_where_the_collection_changed_after_it_was_linked() -> None:
    api = FakeApi()
    before, now = api.image(b"before"), api.image(b"now")
    api.link(now, REPO_TAG, "app:1", tail_uuid=before["portable_data_hash"])
    trust = Trust.of(ME, SYSTEM)
    (warning,) = resolver.resolve(cluster(api), "app:1", trust).warnings
    assert "has changed since it was linked" in warning
    with pytest.raises(NoSuchImage):
        resolver.resolve(cluster(api), "app:1", trust, attested_only=True)
    api.link(api.image(b"other"), REPO_TAG, "app:2", tail_uuid="anything else")
    assert resolver.resolve(cluster(api), "app:2", TRUST).warnings == ()


def test_no_warning_where_all_agree() -> None:
    api = FakeApi()
    api.link(api.image(), REPO_TAG, "app:1")
    assert resolver.resolve(cluster(api), "app:1", TRUST).warnings == ()


def test_names_of_collections() -> None:
    api = library()
    uuids = [it["uuid"] for it in api.records["collections"].values()]
    found = link_query.links_to(cluster(api), uuids)
    assert len(found) == 12
    assert found == sorted(found, key=sort_key, reverse=True)
    assert link_query.links_to(cluster(api), []) == []


@pytest.mark.parametrize("name", ["app:3", "app", f"app@sha256:{'0' * 64}", "host.example:5000/tools/a_p:3"])
def test_the_images_of_a_repository_that_trusted_users_linked(name: str) -> None:
    """The last five, whatever their tags; not those of other repositories that look alike, nor of strangers."""
    api = FakeApi()
    stem = "host.example:5000/tools/a_p" if "/" in name else "app"
    ours = [api.image(b"%d" % number) for number in range(7)]
    for number, record in enumerate(ours):
        api.link(record, REPO_TAG, f"{stem}:{number}")
    api.link(ours[6], REPO_TAG, f"{stem}:again")
    for other in (f"{stem}:5000/other:1", f"{stem}x:1", f"{stem[:-2]}xp:1", f"x{stem}:1"):
        api.link(api.image(other.encode()), REPO_TAG, other)
    api.link(api.image(b"theirs"), REPO_TAG, f"{stem}:9", modified_by_user_uuid=OTHER)
    found = link_query.collections_of_repository(cluster(api), Reference.parse(name), Trust.of(ME, SYSTEM))
    assert [it.uuid for it in found] == [it["uuid"] for it in reversed(ours[2:])]
    assert all(it.manifest_text for it in found)

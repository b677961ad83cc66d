# SPDX-License-Identifier: Apache-2.0
"""Several users: who sees and changes what, through ownership and permission links."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from arv_docker.errors import UsageError
from arv_docker.site.api import users
from arv_docker.site.api.permissions import ALL_USERS

from .conftest import Direct

NAMES = ("can_read", "can_write", "can_manage")


@dataclass(frozen=True)
class Person:
    """A user of a site, who sends requests."""

    api: Direct
    token: str
    uuid: str

    def ok(self, method: str, path: str, body: object = None, **query: Any) -> Any:
        """The body of an answer that must be 200."""
        return self.api.ok(method, path, body, token=self.token, **query)

    def refused(self, status: int, method: str, path: str, body: object = None, **query: Any) -> str:
        """The message of an answer that must have this status."""
        return self.api.refused(status, method, path, body, token=self.token, **query)

    def project(self, name: str, owner: str | None = None) -> str:
        """A new project."""
        return str(self.ok("POST", "groups", {"group_class": "project", "name": name, "owner_uuid": owner})["uuid"])

    def collection(self, owner: str | None = None) -> str:
        """A new collection."""
        return str(self.ok("POST", "collections", {"owner_uuid": owner})["uuid"])

    def share(self, head: str, tail: str, name: str = "can_read") -> Any:
        """Give permission."""
        link = {"link_class": "permission", "name": name, "tail_uuid": tail, "head_uuid": head}
        return self.ok("POST", "links", {"link": link})

    def uuids(self, resource: str, **query: Any) -> set[str]:
        """What this user sees in a list."""
        return {item["uuid"] for item in self.ok("GET", resource, **query)["items"]}


def person(api: Direct, name: str, days: int | None = None) -> Person:
    """A new user; ``system`` is the site's own."""
    if name != users.ROOT:
        users.create(api.site.database, api.site.settings, name, is_admin=False)
    token = users.new_token(api.site.database, api.site.settings, name, days)
    return Person(api, token, api.ok("GET", "users/current", token=token)["uuid"])


@pytest.fixture
def alice(api: Direct) -> Person:
    """The first user."""
    return person(api, "alice")


@pytest.fixture
def bob(api: Direct) -> Person:
    """The second user."""
    return person(api, "bob")


def test_homes_are_closed_to_others(alice: Person, bob: Person) -> None:
    project, collection = alice.project("p"), alice.collection()
    for path in (f"groups/{project}", f"collections/{collection}"):
        for method in ("GET", "PUT", "DELETE"):
            bob.refused(404, method, path, {} if method == "PUT" else None)
    assert not bob.uuids("collections")
    assert project not in bob.uuids("groups")
    bob.refused(404, "GET", f"collections/{'d41d8cd98f00b204e9800998ecf8427e+0'}")
    bob.refused(422, "POST", "links", {"head_uuid": collection})


def test_users_see_each_other_but_not_what_is_private(alice: Person, bob: Person) -> None:
    assert {alice.uuid, bob.uuid} <= bob.uuids("users")
    seen = bob.ok("GET", f"users/{alice.uuid}")
    assert (seen["username"], seen["can_write"], seen["prefs"]) == ("alice", False, None)
    bob.refused(404, "GET", f"users/{bob.api.site.settings.system_user_uuid}")


@pytest.mark.parametrize("level", range(3))
def test_a_shared_project_gives_as_much_as_the_link_says(alice: Person, bob: Person, level: int) -> None:
    project = alice.project("p")
    inner = alice.project("inner", project)
    collection = alice.collection(inner)
    link = alice.share(project, bob.uuid, NAMES[level])
    assert (link["owner_uuid"], link["tail_kind"]) == (alice.api.site.settings.system_user_uuid, "arvados#user")
    assert bob.ok("GET", f"collections/{collection}")["uuid"] == collection
    rights = bob.ok("GET", f"groups/{inner}")
    assert (rights["can_write"], rights["can_manage"]) == (level >= 1, level >= 2)
    if level == 0:
        bob.refused(403, "PUT", f"collections/{collection}", {"name": "x"})
        bob.refused(403, "DELETE", f"collections/{collection}")
        bob.refused(403, "POST", f"collections/{collection}/trash")
        bob.refused(403, "POST", "collections", {"owner_uuid": inner})
    else:
        bob.ok("PUT", f"collections/{collection}", {"name": "x"})
        assert bob.ok("PUT", f"collections/{collection}", {"owner_uuid": bob.uuid})["owner_uuid"] == bob.uuid
        alice.refused(404, "GET", f"collections/{collection}")
    if level < 2:
        other = {"link_class": "permission", "name": "can_read", "tail_uuid": alice.uuid, "head_uuid": project}
        bob.refused(403, "POST", "links", other)
        bob.refused(404 if level < 0 else 403, "DELETE", f"links/{link['uuid']}")
    else:
        bob.ok("DELETE", f"links/{link['uuid']}")
        bob.refused(404, "GET", f"groups/{project}")


def test_a_shared_collection_shows_neither_its_project_nor_its_links(alice: Person, bob: Person) -> None:
    project = alice.project("p")
    collection = alice.collection(project)
    alice.ok("POST", "links", {"link_class": "docker_image_hash", "head_uuid": collection})
    link = alice.share(collection, bob.uuid)
    assert bob.uuids("collections") == {collection}
    assert bob.uuids("links", filters=[["head_uuid", "=", collection]]) == {link["uuid"]}
    bob.refused(404, "GET", f"groups/{project}")
    bob.refused(403, "PUT", f"collections/{collection}", {"name": "x"})
    alice.ok("PUT", f"links/{link['uuid']}", {"name": "can_write"})
    bob.ok("PUT", f"collections/{collection}", {"name": "x"})
    # To move it, one needs to write to where it is, too.
    bob.refused(403, "PUT", f"collections/{collection}", {"owner_uuid": bob.uuid})


def test_links_of_a_shared_project_are_shared(alice: Person, bob: Person) -> None:
    project = alice.project("p")
    link = alice.ok("POST", "links", {"link_class": "docker_image_hash", "name": "x", "owner_uuid": project})
    assert link["uuid"] not in bob.uuids("links")
    alice.share(project, bob.uuid)
    assert link["uuid"] in bob.uuids("links")
    bob.refused(403, "PUT", f"links/{link['uuid']}", {"name": "y"})
    bob.refused(403, "DELETE", f"links/{link['uuid']}")


def test_a_permission_given_twice_is_one_link_with_the_higher_level(alice: Person, bob: Person) -> None:
    project = alice.project("p")
    first = alice.share(project, bob.uuid, "can_write")
    assert alice.share(project, bob.uuid, "can_read") == first
    raised = alice.share(project, bob.uuid, "can_manage")
    assert (raised["uuid"], raised["name"]) == (first["uuid"], "can_manage")


def test_rules_of_permission_links(alice: Person, bob: Person) -> None:
    project, collection = alice.project("p"), alice.collection()

    def link(**changes: Any) -> Any:
        usual = {"link_class": "permission", "name": "can_read", "tail_uuid": bob.uuid, "head_uuid": project}
        return usual | changes

    for bad in ("can_login", "", None, "CAN_READ"):
        alice.refused(422, "POST", "links", link(name=bad))
    for tail in (project, collection, "", None, "garbage"):
        alice.refused(422, "POST", "links", link(tail_uuid=tail))
    for head in ("", None, "garbage", bob.api.site.settings.system_user_uuid):
        assert alice.api("POST", "links", link(head_uuid=head), token=alice.token).status in (404, 422)
    alice.refused(403, "POST", "links", link(head_uuid=bob.uuid, tail_uuid=alice.uuid))
    made = alice.share(project, bob.uuid)
    alice.refused(422, "PUT", f"links/{made['uuid']}", {"head_uuid": collection})
    alice.refused(422, "PUT", f"links/{made['uuid']}", {"link_class": "tag"})
    plain = alice.ok("POST", "links", {"name": "can_read", "tail_uuid": bob.uuid, "head_uuid": project})
    alice.refused(422, "PUT", f"links/{plain['uuid']}", {"link_class": "permission"})


def test_everybody_can_be_given_a_project(alice: Person, bob: Person) -> None:
    project = alice.project("p")
    alice.share(project, f"{alice.uuid[:5]}-j7d0g-{ALL_USERS}", "can_manage")
    # The least level on the way counts: users may write to the group of all users.
    rights = bob.ok("GET", f"groups/{project}")
    assert (rights["can_write"], rights["can_manage"]) == (True, False)


@pytest.mark.parametrize("name", NAMES)
def test_a_home_opens_to_those_who_manage_its_user(alice: Person, bob: Person, name: str) -> None:
    collection = alice.collection()
    alice.share(alice.uuid, bob.uuid, name)
    assert (collection in bob.uuids("collections")) == (name == "can_manage")


def test_owners_must_be_projects_that_one_may_write_to(alice: Person, bob: Person) -> None:
    bob.refused(422, "POST", "collections", {"owner_uuid": alice.project("p")})
    bob.refused(403, "POST", "collections", {"owner_uuid": alice.uuid})
    bob.refused(403, "POST", "collections", {"owner_uuid": f"{bob.uuid[:5]}-j7d0g-{ALL_USERS}"})
    for odd in (alice.collection(), "garbage", ""):
        bob.refused(403, "POST", "collections", {"owner_uuid": odd})


def test_what_is_shared_from_a_trashed_project_is_out_of_sight(alice: Person, bob: Person) -> None:
    project = alice.project("p")
    collection = alice.collection(project)
    alice.share(collection, bob.uuid)
    alice.ok("DELETE", f"groups/{project}")
    bob.refused(404, "GET", f"collections/{collection}")
    bob.refused(404, "GET", "collections/d41d8cd98f00b204e9800998ecf8427e+0")
    alice.ok("POST", f"groups/{project}/untrash")
    bob.ok("GET", f"collections/{collection}")


def test_the_systems_user_may_do_everything_but_see_trash_unasked(api: Direct, alice: Person, bob: Person) -> None:
    root = person(api, users.ROOT)
    project = alice.project("p")
    collection = alice.collection(project)
    block = "5d41402abc4b2a76b9719d911017c592+5"
    root.ok("PUT", f"collections/{collection}", {"manifest_text": f". {block} 0:5:x\n"})
    assert root.ok("GET", "users/current")["is_admin"] is True
    assert root.ok("GET", f"groups/{project}")["can_manage"] is True
    root.share(project, bob.uuid)
    alice.ok("DELETE", f"groups/{project}")
    root.refused(404, "GET", f"collections/{collection}")
    root.ok("GET", f"collections/{collection}", include_trash=True)


def test_not_even_the_site_s_own_user_puts_its_groups_into_the_trash(api: Direct) -> None:
    """A real server answers 200 and destroys them for good."""
    root = person(api, users.ROOT)
    group = f"{api.site.settings.cluster_id}-j7d0g-{ALL_USERS}"
    for method, path, body in (
        ("DELETE", f"groups/{group}", None),
        ("POST", f"groups/{group}/trash", None),
        ("PUT", f"groups/{group}", {"trash_at": "2026-01-01T00:00:00Z"}),
        ("PUT", f"groups/{group}", {"is_trashed": True}),
    ):
        root.refused(422, method, path, body)
    assert root.ok("GET", f"groups/{group}")["is_trashed"] is False


def test_an_inactive_user_sees_nothing_and_writes_nothing(api: Direct, alice: Person, bob: Person) -> None:
    alice.share(alice.project("p"), bob.uuid)
    with api.site.database.writing() as connection:
        connection.execute("UPDATE users SET is_active = 0 WHERE uuid = ?", (bob.uuid,))
    assert bob.ok("GET", "users/current")["is_active"] is False
    for resource in ("collections", "links", "groups"):
        assert bob.uuids(resource) == set()
    assert bob.uuids("users") == {bob.uuid}
    for body in ({}, {"owner_uuid": bob.uuid}):
        bob.refused(403, "POST", "collections", body)


def test_contents_of_projects_and_homes(alice: Person, bob: Person) -> None:
    project = alice.project("p")
    inner = alice.project("inner", project)
    inside, deep, outside = alice.collection(project), alice.collection(inner), alice.collection()
    listed = alice.ok("GET", "groups/contents", uuid=project, order=["uuid asc"], limit=1000, count="none")
    assert (listed["kind"], listed["included"]) == ("arvados#objectList", [])
    assert [item["uuid"] for item in listed["items"]] == [inner, inside]
    assert [item["kind"] for item in listed["items"]] == ["arvados#group", "arvados#collection"]
    assert "manifest_text" not in listed["items"][1]
    assert "items_available" not in listed
    assert alice.uuids("groups/contents", uuid=project, recursive=True) == {inner, inside, deep}
    assert alice.uuids("groups/contents", uuid=alice.uuid) == {project, outside}
    assert alice.uuids("groups/contents") >= {project, inner, inside, deep, outside}
    groups = [["uuid", "is_a", "arvados#group"], ["groups.group_class", "in", ["project", "filter"]]]
    assert alice.uuids("groups/contents", uuid=project, filters=groups) == {inner}
    only = [["uuid", "is_a", "arvados#collection"]]
    assert alice.uuids("groups/contents", uuid=project, filters=only) == {inside}
    bob.refused(404, "GET", "groups/contents", uuid=project)
    bob.refused(404, "GET", "groups/contents", uuid="garbage")


def test_contents_are_one_list_for_paging(alice: Person) -> None:
    project = alice.project("p")
    for number in range(3):
        alice.project(f"{number}", project)
        alice.collection(project)
    whole = alice.ok("GET", "groups/contents", uuid=project, order="uuid")
    assert whole["items_available"] == 6
    paged = [
        item["uuid"]
        for offset in range(0, 8, 2)
        for item in alice.ok("GET", "groups/contents", uuid=project, order="uuid", limit=2, offset=offset)["items"]
    ]
    assert paged == [item["uuid"] for item in whole["items"]]
    chosen = alice.ok("GET", "groups/contents", uuid=project, select=["uuid", "portable_data_hash", "manifest_text"])
    assert [set(item) for item in chosen["items"]] == [{"kind", "uuid"}] * 3 + [
        {"kind", "uuid", "portable_data_hash"}
    ] * 3
    alice.refused(422, "GET", "groups/contents", uuid=project, select=["bogus"])


def test_shared_lists_what_others_share(alice: Person, bob: Person) -> None:
    project = alice.project("p")
    alice.project("inner", project)
    mine = bob.project("mine")
    assert project not in bob.uuids("groups/shared")
    alice.share(project, bob.uuid)
    found = bob.ok("GET", "groups/shared", order="uuid", limit=10000, count="none", include="owner_uuid")
    class_project = [item["uuid"] for item in found["items"] if item["group_class"] == "project"]
    assert sorted(class_project) == sorted([project, f"{bob.uuid[:5]}-j7d0g-publicfavorites"])
    assert [item["uuid"] for item in found["included"]] == [alice.uuid]
    assert mine not in bob.uuids("groups/shared")
    collection = alice.collection()
    alice.share(collection, bob.uuid)
    assert collection in bob.uuids("groups/contents", exclude_home_project=True)
    bob.refused(422, "GET", "groups/shared", include="bogus")


def test_tokens_end_and_names_are_checked(api: Direct) -> None:
    users.create(api.site.database, api.site.settings, "carol", is_admin=True)
    for bad in ("carol", users.ROOT, "", "a b", "1a", "a" * 65):
        with pytest.raises(UsageError):
            users.create(api.site.database, api.site.settings, bad, is_admin=False)
    with pytest.raises(UsageError, match="user create"):
        users.new_token(api.site.database, api.site.settings, "nosuchuser", None)
    expired = users.new_token(api.site.database, api.site.settings, "carol", 0)
    api.refused(401, "GET", "users/current", token=expired)
    valid = users.new_token(api.site.database, api.site.settings, "carol", 1)
    assert api.ok("GET", "users/current", token=valid)["is_admin"] is True
    assert [(user.username, user.tokens) for user in users.list_users(api.site.database)][-1] == ("carol", 1)

# SPDX-License-Identifier: Apache-2.0
"""Links and projects."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Direct


def project(api: Direct, name: str, **attributes: Any) -> Any:
    """A new project."""
    return api.ok("POST", "groups", {"group": {"group_class": "project", "name": name} | attributes})


def projects(api: Direct) -> Any:
    """The user's projects by name."""
    mine = ["owner_uuid", "!=", api.site.settings.system_user_uuid]
    return api.ok("GET", "groups", filters=[mine], order="name")["items"]


def test_a_link_shows_what_it_joins(api: Direct) -> None:
    collection = api.ok("POST", "collections", {})
    made = api.ok(
        "POST",
        "links",
        {
            "link_class": "docker_image_hash",
            "name": "sha256:abc",
            "head_uuid": collection["uuid"],
            "properties": {"t": 1},
        },
    )
    assert made["head_kind"] == "arvados#collection"
    assert (made["tail_uuid"], made["tail_kind"]) == ("", "")
    assert made["owner_uuid"] == made["modified_by_user_uuid"] == api.site.settings.user_uuid
    found = api.ok("GET", "links", filters=[["head_kind", "=", "arvados#collection"]])["items"]
    assert found == [made]


def test_equal_links_are_as_many_as_were_made(api: Direct) -> None:
    same = {"link_class": "docker_image_repo+tag", "name": "app:1"}
    assert api.ok("POST", "links", same)["uuid"] != api.ok("POST", "links", same)["uuid"]


@pytest.mark.parametrize("name", ["head_uuid", "tail_uuid"])
def test_an_end_must_be_readable_or_no_uuid_at_all(api: Direct, name: str) -> None:
    trashed = api.ok("POST", "collections", {"is_trashed": True})
    for missing in ("zzzzz-4zz18-aaaaaaaaaaaaaaa", f"{api.site.settings.cluster_id}-4zz18-{'a' * 15}", trashed["uuid"]):
        assert "not found" in api.refused(422, "POST", "links", {name: missing})
    for text in ("garbage", "", None, api.site.settings.system_user_uuid, api.site.settings.user_uuid):
        assert api.ok("POST", "links", {name: text})[name] == (text or "")


def test_a_hash_as_an_end_loses_its_hints(api: Direct) -> None:
    pdh = "d41d8cd98f00b204e9800998ecf8427e+0"
    assert api.ok("POST", "links", {"tail_uuid": f"{pdh}+K@zzzzz"})["tail_uuid"] == pdh
    assert api.ok("POST", "links", {"tail_uuid": pdh})["tail_uuid"] == pdh


def test_update_and_delete(api: Direct) -> None:
    made = api.ok("POST", "links", {"name": "a"})
    path = f"links/{made['uuid']}"
    assert api.ok("PUT", path, {"link": {"name": "b"}})["name"] == "b"
    assert api.ok("DELETE", path)["name"] == "b"
    api.refused(404, "DELETE", path)
    api.refused(404, "GET", path)


def test_a_project_owns_and_hides_what_lies_in_it(api: Direct) -> None:
    outer = project(api, "outer")
    inner = project(api, "inner", owner_uuid=outer["uuid"])
    collection = api.ok("POST", "collections", {"owner_uuid": inner["uuid"]})
    link = api.ok("POST", "links", {"owner_uuid": inner["uuid"]})
    assert outer["can_write"] is True
    assert api.ok("DELETE", f"groups/{outer['uuid']}")["is_trashed"]
    for path in (f"groups/{inner['uuid']}", f"collections/{collection['uuid']}", f"links/{link['uuid']}"):
        api.refused(404, "GET", path)
    api.ok("GET", f"collections/{collection['uuid']}", include_trash=True)
    api.refused(422, "POST", "collections", {"owner_uuid": inner["uuid"]})
    api.ok("POST", f"groups/{outer['uuid']}/untrash")
    for path in (f"groups/{inner['uuid']}", f"collections/{collection['uuid']}", f"links/{link['uuid']}"):
        api.ok("GET", path)


def test_rules_of_projects(api: Direct) -> None:
    outer = project(api, "outer")
    inner = project(api, "inner", owner_uuid=outer["uuid"])
    api.refused(422, "POST", "groups", {"group": {"group_class": "project", "name": "outer"}})
    api.refused(422, "POST", "groups", {"group": {"name": "x"}})
    api.refused(422, "POST", "groups", {"group": {"group_class": "role", "name": "x"}})
    api.refused(422, "POST", "groups", {"group": {"group_class": "project"}})
    api.refused(422, "PUT", f"groups/{outer['uuid']}", {"group": {"group_class": "role"}})
    assert "inside itself" in api.refused(
        422, "PUT", f"groups/{outer['uuid']}", {"group": {"owner_uuid": inner["uuid"]}}
    )
    assert project(api, "outer2", owner_uuid=outer["uuid"])["owner_uuid"] == outer["uuid"]
    assert [item["name"] for item in projects(api)] == ["inner", "outer", "outer2"]
    second = api.ok("POST", "groups", {"group": {"group_class": "project", "name": "outer"}}, ensure_unique_name=True)
    assert second["name"].startswith("outer (")

# SPDX-License-Identifier: Apache-2.0
"""Collections: manifest text and signatures, hashes, names, trash."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from arv_docker.model import manifest_text
from arv_docker.site.folder import open_site

from .conftest import Direct

EMPTY_PDH = "d41d8cd98f00b204e9800998ecf8427e+0"


def create(api: Direct, **attributes: Any) -> Any:
    """A new collection."""
    return api.ok("POST", "collections", {"collection": attributes})


def age(api: Direct, uuid: str, column: str, moment: str) -> None:
    """Set a time of a stored collection, as if it had been written long ago."""
    with sqlite3.connect(api.site.folder.database) as connection:
        connection.execute(f"UPDATE collections SET {column} = ? WHERE uuid = ?", (moment, uuid))
    connection.close()


# -- manifest text ----------------------------------------------------------------------


def test_signed_text_is_stored_bare_and_comes_back_signed(api: Direct) -> None:
    locator = api.signed(b"hello")
    bare = locator.split("+A")[0]
    made = create(api, manifest_text=f". {locator}+K@zzzzz 0:5:sha256\\072abc.tar\n")
    assert made["portable_data_hash"] == manifest_text.pdh(f". {bare} 0:5:sha256\\072abc.tar\n")
    assert (made["file_count"], made["file_size_total"]) == (1, 5)
    found = api.ok("GET", f"collections/{made['uuid']}")
    [stream] = manifest_text.parse(found["manifest_text"])
    assert stream.locators[0].without_hints == bare
    assert "+K@zzzzz" in stream.locators[0].hints
    assert "+A" in stream.locators[0].hints
    again = create(api, manifest_text=found["manifest_text"])
    assert again["portable_data_hash"] == made["portable_data_hash"]
    [item] = api.ok("GET", "collections", filters=[["uuid", "=", made["uuid"]]])["items"]
    assert item["manifest_text"] == item["unsigned_manifest_text"] == ""
    chosen = ["manifest_text", "unsigned_manifest_text"]
    [item] = api.ok("GET", "collections", filters=[["uuid", "=", made["uuid"]]], select=chosen)["items"]
    assert "+A" in item["manifest_text"]
    assert item["unsigned_manifest_text"] == f". {bare}+K@zzzzz 0:5:sha256\\072abc.tar\n"


def test_a_block_needs_a_good_signature(api: Direct) -> None:
    locator = api.signed(b"hello")
    for bad in (
        locator.split("+A")[0],
        locator.replace("+A", "+A0")[:-1],
        locator[:-1] + ("0" if locator[-1] != "0" else "1"),
        api.signed(b"hello", ttl=-10),
        api.site.settings.signer.sign(locator, api.site.settings.token_secret, int(time.time()) + 100),
        f"{locator.split('+A')[0]}+Rzzzzz-{locator.split('+A')[1]}",
        locator.upper().replace("+A", "+A", 1),
    ):
        api.refused(403, "POST", "collections", {"manifest_text": f". {bad} 0:5:x\n"})
    assert api.ok("GET", "collections")["items_available"] == 0


def test_the_empty_block_needs_none_but_must_not_have_a_bad_one(api: Direct) -> None:
    create(api, manifest_text=f". {EMPTY_PDH} 0:0:x\n")
    api.refused(403, "POST", "collections", {"manifest_text": f". {EMPTY_PDH}+A{'0' * 40}@7fffffff 0:0:x\n"})


@pytest.mark.parametrize(
    "text", [". 0:1:x\n", f". {EMPTY_PDH} 0:0:x", f". {EMPTY_PDH}\n", "x", f".  {EMPTY_PDH} 0:0:x\n"]
)
def test_invalid_text_is_422(api: Direct, text: str) -> None:
    assert "manifest" in api.refused(422, "POST", "collections", {"manifest_text": text})


def test_counts_ignore_placeholders_and_join_repeated_names(api: Direct) -> None:
    text = f". {EMPTY_PDH} 0:0:a 0:0:a 0:0:b\n./d {EMPTY_PDH} 0:0:.\n./e {EMPTY_PDH} 0:0:a\n"
    assert create(api, manifest_text=text, file_count=99)["file_count"] == 3
    assert len(api.ok("GET", "collections", filters=[["file_names", "like", "%e/a%"]])["items"]) == 1


def test_the_claimed_hash_must_be_the_computed_one_in_its_first_32_digits(api: Direct) -> None:
    api.refused(422, "POST", "collections", {"manifest_text": "", "portable_data_hash": f"{'0' * 32}+1"})
    assert create(api, portable_data_hash=EMPTY_PDH[:32] + "+99")["portable_data_hash"] == EMPTY_PDH


def test_unchanged_text_may_come_back_unsigned_changed_text_may_not(api: Direct) -> None:
    made = create(api, manifest_text=f". {api.signed(b'hello')} 0:5:x\n", name="n")
    bare = made["manifest_text"].split("+A")[0] + " 0:5:x\n"
    path = f"collections/{made['uuid']}"
    assert api.ok("PUT", path, {"manifest_text": bare, "name": "m"})["name"] == "m"
    api.refused(403, "PUT", path, {"manifest_text": bare.replace("x", "y")})
    changed = api.ok("PATCH", path, {"manifest_text": made["manifest_text"].replace(":x", ":y")})
    assert changed["portable_data_hash"] != made["portable_data_hash"]


def test_signatures_end_when_the_collection_goes_to_the_trash(api: Direct) -> None:
    soon = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(time.time() + 60))
    made = create(api, manifest_text=f". {api.signed(b'hello')} 0:5:x\n", trash_at=soon)
    expiry = int(made["manifest_text"].split("@")[1].split(" ")[0], 16)
    assert 50 < expiry - time.time() <= 60


def test_get_by_hash_gives_content_and_nothing_else(api: Direct) -> None:
    made = create(api, manifest_text=f". {api.signed(b'hello')} 0:5:x\n", name="n")
    pdh = made["portable_data_hash"]
    found = api.ok("GET", f"collections/{pdh}+K@zzzzz")
    assert set(found) == set(made)
    assert (found["uuid"], found["portable_data_hash"]) == (pdh, pdh)
    assert (found["name"], found["owner_uuid"], found["created_at"], found["properties"]) == ("", "", None, None)
    assert "+A" in found["manifest_text"]
    assert set(api.ok("GET", f"collections/{pdh}", select=["uuid"])) == {"uuid", "kind", "etag"}
    api.refused(422, "DELETE", f"collections/{pdh}")
    api.refused(422, "PUT", f"collections/{pdh}", {"name": "x"})
    api.refused(404, "GET", f"collections/{pdh[:32]}")
    api.ok("DELETE", f"collections/{made['uuid']}")
    assert "not found" in api.refused(404, "GET", f"collections/{pdh}")


# -- names ------------------------------------------------------------------------------


def test_a_name_is_unique_below_its_owner_and_the_refusal_is_422(api: Direct) -> None:
    made = create(api, name="n")
    assert "n" in api.refused(422, "POST", "collections", {"name": "n"})
    other = create(api, name="m")
    api.refused(422, "PUT", f"collections/{other['uuid']}", {"name": "n"})
    project = api.ok("POST", "groups", {"group_class": "project", "name": "p"})
    create(api, name="n", owner_uuid=project["uuid"])
    create(api, name="")
    create(api, name=None)
    api.ok("DELETE", f"collections/{made['uuid']}")
    create(api, name="n")
    api.refused(422, "POST", f"collections/{made['uuid']}/untrash")
    back = api.ok("POST", f"collections/{made['uuid']}/untrash", ensure_unique_name=True)
    assert back["name"] == f"n ({made['uuid'][-15:]})"


def test_a_unique_name_is_made_on_demand(api: Direct) -> None:
    long = "x" * 255
    for name in ("n", long):
        first = api.ok("POST", "collections", {"name": name}, ensure_unique_name=True)
        second = api.ok("POST", "collections", {"name": name}, ensure_unique_name=True)
        assert first["name"] == name
        assert second["name"] == f"{name[:237]} ({second['uuid'][-15:]})"
        assert second["current_version_uuid"] == second["uuid"]


def test_eight_at_once_get_eight_names(api: Direct) -> None:
    found: list[Any] = []

    def post() -> None:
        found.append(api("POST", "collections", {"name": "n"}, ensure_unique_name="true"))

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status for answer in found] == [200] * 8
    assert len({answer.body["name"] for answer in found}) == 8


@pytest.mark.parametrize("name", [".", "..", "a/b", "x" * 256])
def test_names_that_cannot_be_folders_are_refused(api: Direct, name: str) -> None:
    api.refused(422, "POST", "collections", {"name": name})
    api.refused(422, "POST", "groups", {"group_class": "project", "name": name})


# -- attributes -------------------------------------------------------------------------


def test_attributes_of_the_server_are_ignored(api: Direct) -> None:
    made = create(api, created_at="2001-01-01T00:00:00Z", modified_by_user_uuid="x", kind="y", etag="z", version=7)
    assert made["created_at"] > "2020"
    assert made["modified_by_user_uuid"] == api.site.settings.user_uuid
    assert made["version"] == 1
    assert api.ok("PUT", f"collections/{made['uuid']}", made | {"name": "n"})["name"] == "n"


@pytest.mark.parametrize(
    ("status", "attributes"),
    [
        (422, {"bogus": 1}),
        (422, {"uuid": "zzzzz-4zz18-aaaaaaaaaaaaaaa"}),
        (422, {"properties": [1]}),
        (422, {"properties": "x"}),
        (422, {"name": 5}),
        (422, {"replication_desired": "x"}),
        (422, {"storage_classes_desired": [1]}),
        (422, {"description": "x" * 524289}),
        (422, {"delete_at": "2100-01-01T00:00:00Z"}),
        (403, {"replication_confirmed": 2}),
        (403, {"storage_classes_confirmed": ["hot"]}),
        (403, {"owner_uuid": "garbage"}),
        (403, {"owner_uuid": ""}),
        (403, {"owner_uuid": "zzzzz-4zz18-aaaaaaaaaaaaaaa"}),
        (422, {"owner_uuid": "zzzzz-tpzed-aaaaaaaaaaaaaaa"}),
        (422, {"owner_uuid": "zzzzz-j7d0g-aaaaaaaaaaaaaaa"}),
    ],
)
def test_a_bad_attribute_is_refused(api: Direct, status: int, attributes: dict[str, Any]) -> None:
    api.refused(status, "POST", "collections", {"collection": attributes})


def test_replacing_files_is_refused_as_what_it_is(api: Direct) -> None:
    for name in ("replace_files", "replace_segments"):
        body = {"collection": {}, name: {"/a": ""}}
        assert "not part of the embedded site" in api.refused(400, "POST", "collections", body)


def test_defaults(api: Direct) -> None:
    made = create(api, storage_classes_desired=[], properties=None, description="")
    assert made["storage_classes_desired"] == ["default"]
    assert (made["properties"], made["description"], made["name"], made["manifest_text"]) == ({}, None, "", "")
    assert made["portable_data_hash"] == EMPTY_PDH
    api.refused(422, "PUT", f"collections/{made['uuid']}", {"storage_classes_desired": []})
    api.refused(422, "PUT", f"collections/{made['uuid']}", {"version": 3})


def test_a_change_is_stamped_and_no_change_is_not(api: Direct) -> None:
    made = create(api, name="n", properties={"a": [1, {"b": None}]})
    path = f"collections/{made['uuid']}"
    assert api.ok("PUT", path, {"name": "n", "properties": {"a": [1, {"b": None}]}}) == made
    changed = api.ok("PUT", path, {"properties": {"c": True}})
    assert changed["modified_at"] > made["modified_at"]
    assert changed["created_at"] == made["created_at"]
    assert changed["etag"] != made["etag"]
    assert changed["properties"] == {"c": True}


# -- trash ------------------------------------------------------------------------------


def test_trash_hides_delete_shortens_untrash_brings_back(api: Direct) -> None:
    made = create(api, manifest_text=f". {api.signed(b'hello')} 0:5:x\n", name="n")
    path = f"collections/{made['uuid']}"
    trashed = api.ok("POST", f"{path}/trash")
    assert trashed["is_trashed"]
    assert "+A" not in trashed["manifest_text"]
    assert trashed["delete_at"] > trashed["trash_at"] >= made["created_at"]
    api.refused(404, "GET", path)
    api.refused(404, "PUT", path, {"name": "m"})
    assert api.ok("GET", "collections")["items"] == []
    assert len(api.ok("GET", "collections", include_trash=True)["items"]) == 1
    assert "+A" not in api.ok("GET", path, include_trash=True)["manifest_text"]
    back = api.ok("POST", f"{path}/untrash")
    assert (back["is_trashed"], back["trash_at"], back["delete_at"]) == (False, None, None)
    assert "+A" in api.ok("GET", path)["manifest_text"]
    assert "not trashed" in api.refused(422, "POST", f"{path}/untrash")


def test_trash_times_are_settled(api: Direct) -> None:
    later = create(api, trash_at="2100-01-01T00:00:00Z")
    assert not later["is_trashed"]
    assert later["delete_at"] == "2100-01-15T00:00:00.000000000Z"
    now = create(api, trash_at="2001-01-01T00:00:00Z")
    assert now["is_trashed"]
    assert now["trash_at"] > "2020"
    assert create(api, is_trashed=True)["is_trashed"]
    assert create(api, trash_at="garbage")["trash_at"] is None
    path = f"collections/{later['uuid']}"
    assert api.ok("PUT", path, {"trash_at": None})["delete_at"] is None


def test_what_is_due_goes_by_itself_and_takes_its_links_along(api: Direct) -> None:
    made = create(api, trash_at="2100-01-01T00:00:00Z", name="n")
    head = api.ok("POST", "links", {"head_uuid": made["uuid"], "link_class": "docker_image_hash"})
    other = api.ok("POST", "links", {"link_class": "docker_image_hash"})
    age(api, made["uuid"], "trash_at", "2020-01-01T00:00:00.000000000Z")
    api.refused(404, "GET", f"collections/{made['uuid']}")
    assert api.ok("GET", f"links/{head['uuid']}") == head  # in the trash: links dangle
    create(api, name="n")
    age(api, made["uuid"], "delete_at", "2020-01-02T00:00:00.000000000Z")
    api.refused(404, "GET", f"collections/{made['uuid']}", include_trash=True)
    api.refused(404, "GET", f"links/{head['uuid']}")
    assert api.ok("GET", f"links/{other['uuid']}") == other


def test_a_deleted_project_takes_along_what_lies_in_it(api: Direct) -> None:
    outer = api.ok("POST", "groups", {"group_class": "project", "name": "outer"})
    inner = api.ok("POST", "groups", {"group_class": "project", "name": "inner", "owner_uuid": outer["uuid"]})
    create(api, owner_uuid=inner["uuid"])
    api.ok("POST", "links", {"owner_uuid": inner["uuid"]})
    about = api.ok("POST", "links", {"head_uuid": outer["uuid"]})
    kept = api.ok("POST", "links", {})
    api.ok("DELETE", f"groups/{outer['uuid']}")
    assert api.ok("GET", "links", include_trash=True)["items_available"] == 3
    with sqlite3.connect(api.site.folder.database) as connection:
        connection.execute("UPDATE groups SET delete_at = trash_at")
    connection.close()
    mine = ["owner_uuid", "!=", api.site.settings.system_user_uuid]
    for resource in ("collections", "groups"):
        assert api.ok("GET", resource, include_trash=True, filters=[mine])["items"] == []
    assert api.ok("GET", "links", include_trash=True)["items"] == [kept]
    api.refused(404, "GET", f"links/{about['uuid']}")


def test_nothing_is_deleted_while_a_signature_for_it_may_be_about(api: Direct) -> None:
    def in_seconds(seconds: int) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))

    made = create(api, trash_at=in_seconds(60), delete_at=in_seconds(120))
    assert made["delete_at"] > in_seconds(api.site.settings.blob_signature_ttl - 10)


def test_an_unrelated_change_leaves_the_times_alone(api: Direct) -> None:
    made = create(api, trash_at="2100-01-01T00:00:00Z", delete_at="2100-01-02T00:00:00Z")
    changed = api.ok("PUT", f"collections/{made['uuid']}", {"name": "n"})
    assert (changed["trash_at"], changed["delete_at"]) == (made["trash_at"], made["delete_at"])


def test_times_at_the_end_of_the_calendar_are_refused(api: Direct) -> None:
    assert "range" in api.refused(422, "POST", "collections", {"trash_at": "9999-12-31T00:00:00Z"})
    api.refused(422, "POST", "collections", {"trash_at": "2100-01-02", "delete_at": "2100-01-01"})


# -- vocabulary -------------------------------------------------------------------------


def test_a_strict_vocabulary_refuses_keys_it_does_not_know(tmp_path: Path) -> None:
    folder = tmp_path / "strict"
    folder.mkdir()
    (folder / "vocabulary.json").write_text(json.dumps({"strict_tags": True, "tags": {"IDTAG1": {}}}))
    api = Direct(open_site(folder))
    create(api, properties={"IDTAG1": "x", "docker-image-repo-tag": "app:1"})
    for resource in ("collections", "links"):
        assert "arv-docker.x" in api.refused(422, "POST", resource, {"properties": {"arv-docker.x": 1}})
    api.ok("POST", "links", {"properties": {"image_timestamp": "2024-05-01"}})
    assert api.ok("GET", "vocabulary")["strict_tags"] is True
    api.site.close()

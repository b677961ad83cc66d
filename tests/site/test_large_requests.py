# SPDX-License-Identifier: Apache-2.0
"""Requests of somebody with a token that would make the site hold much, or keep others from writing."""

from __future__ import annotations

import json
import threading
import tracemalloc
from typing import Any

import pytest

from arv_docker.site.api import endpoint, listing, manifests
from arv_docker.site.api.manifests import Manifest, manifest_of
from arv_docker.site.refusal import Refusal
from arv_docker.site.store import properties

from .conftest import Direct

BLOCK = "d41d8cd98f00b204e9800998ecf8427e+0"

# -- manifest text ----------------------------------------------------------------------


def test_a_few_bytes_that_spell_long_paths_are_refused_before_the_paths_are_made() -> None:
    """A stream's name of 200 kB before 500 files: 100 MB of paths in 204 kB of text. They took 6 GB once."""
    text = f"./{'a' * 200_000} {BLOCK} " + " ".join(f"0:0:{number}" for number in range(500)) + "\n"
    tracemalloc.start()
    try:
        with pytest.raises(Refusal, match="paths") as refused:
            manifest_of(text)
        assert refused.value.status == 422
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_a_manifest_of_too_many_files_is_422(api: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "MAX_TOKENS", 10)
    fits = f". {BLOCK} " + " ".join(f"0:0:{number}" for number in range(9)) + "\n"
    assert api.ok("POST", "collections", {"manifest_text": fits})["file_count"] == 9
    assert "more than 10" in api.refused(422, "POST", "collections", {"manifest_text": fits.replace("\n", " 0:0:x\n")})


def test_others_write_while_a_long_manifest_is_read(api: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, goes_on = threading.Event(), threading.Event()

    def slow(given: str) -> Manifest:
        reads.set()
        assert goes_on.wait(60)
        return manifest_of(given)

    monkeypatch.setattr(endpoint, "manifest_of", slow)
    answers: list[Any] = []
    body = {"collection": {"manifest_text": f". {BLOCK} 0:0:a\n"}}
    writer = threading.Thread(target=lambda: answers.append(api.ok("POST", "collections", body)))
    writer.start()
    assert reads.wait(60)
    api.ok("POST", "links", {"name": "meanwhile"})
    goes_on.set()
    writer.join()
    assert answers[0]["file_count"] == 1


def test_a_bad_manifest_is_refused_as_late_as_the_record_is_looked_for(api: Direct) -> None:
    bad = {"manifest_text": "bad"}
    assert "invalid" in api.refused(422, "POST", "collections", bad)
    api.refused(404, "PUT", f"collections/{api.site.settings.cluster_id}-4zz18-{'0' * 15}", bad)
    api.refused(401, "POST", "collections", bad, token="unknown")


# -- JSON in records --------------------------------------------------------------------


def test_long_json_is_not_cached_json(api: Direct) -> None:
    """Texts of a few megabytes spell a million values each, and 256 of them would stay."""
    long = {"a": 1, "long": "x" * 20_000}
    api.ok("POST", "links", {"name": "long", "properties": long})
    api.ok("POST", "links", {"name": "short", "properties": {"a": 1}})
    properties._cached_json.cache_clear()
    found = api.ok("GET", "links", filters=[["properties.a", "=", 1]])["items"]
    assert {item["name"] for item in found} == {"long", "short"}
    assert properties._cached_json.cache_info().currsize == 2  # the short record and the operand


# -- answers ----------------------------------------------------------------------------


def pages(api: Direct, path: str, **query: Any) -> list[list[str]]:
    """The names of all records of a list, page by page as clients walk it: by the number of items that came."""
    found: list[list[str]] = []
    while True:
        offset = sum(map(len, found))
        answer = api.ok("GET", path, offset=offset, order=["name"], **query)
        if not answer["items"]:
            return found
        assert answer["limit"] == len(answer["items"]) or offset + len(answer["items"]) == answer["items_available"]
        found.append([item["name"] for item in answer["items"]])


@pytest.mark.parametrize(
    ("resource", "large"),
    [
        ("links", {"properties": {"x": "y" * 600}}),
        ("workflows", {"definition": json.dumps({"x": "y" * 9_600})}),
        ("groups", {"group_class": "project", "description": "y" * 9_600}),
    ],
)
def test_an_answer_holds_so_much_text_and_says_how_many_came(
    resource: str, large: dict[str, Any], api: Direct, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(7):
        api.ok("POST", resource, {"name": f"name {number}"} | large)
    monkeypatch.setattr(listing, "MAX_TEXT", 22_000)
    mine = [["owner_uuid", "=", api.site.settings.user_uuid]]
    assert pages(api, resource, filters=mine) == [
        ["name 0", "name 1"],
        ["name 2", "name 3"],
        ["name 4", "name 5"],
        ["name 6"],
    ]
    monkeypatch.setattr(listing, "MAX_TEXT", 10)
    assert pages(api, resource, filters=mine) == [[f"name {number}"] for number in range(7)]


def test_contents_of_several_kinds_page_without_a_gap(api: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    project = api.ok("POST", "groups", {"group_class": "project", "name": "p"})["uuid"]
    for number in range(3):
        large = {"owner_uuid": project, "description": "y" * 9_600}
        api.ok("POST", "groups", {"name": f"a{number}", "group_class": "project"} | large)
        api.ok("POST", "workflows", {"name": f"b{number}"} | large)
        api.ok("POST", "collections", {"name": f"c{number}"} | large)
    monkeypatch.setattr(listing, "MAX_TEXT", 22_000)
    found = pages(api, "groups/contents", uuid=project)
    assert [name for page in found for name in page] == [f"{kind}{number}" for kind in "abc" for number in range(3)]
    assert len(found) > 1

# SPDX-License-Identifier: Apache-2.0
"""Nothing that somebody may still read is lost: blocks under valid signatures, and the groups that every site has."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from arv_docker.site import upkeep
from arv_docker.site.api import users
from arv_docker.site.api.permissions import SITE_GROUPS
from arv_docker.site.folder import Site, open_site
from arv_docker.site.store import clock
from arv_docker.site.store.signatures import Verdict

from .conftest import Direct
from .test_sharing import Person, person

#: Seconds that signatures live on the sites of this module, and that garbage collection adds.
TTL, SLACK = 100, 1

SIGNED = re.compile(r"[0-9a-f]{32}\+\d+\+A[0-9a-f]{40}@[0-9a-f]{8}")

START = datetime(2026, 1, 1, tzinfo=timezone.utc)


class World:
    """A site whose clock only moves when it is told to, with every locator that it ever signed."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, trash_lifetime: int = TTL) -> None:
        self.now = START
        patch.setattr(clock, "current_time", lambda: self.now)
        patch.setattr(upkeep, "SLACK_SECONDS", SLACK)
        site = open_site(folder)
        short = replace(site.settings, blob_signature_ttl=TTL, trash_lifetime=trash_lifetime)
        self.site: Site = replace(site, settings=short)
        self.api = Direct(self.site)
        self.signed: set[str] = set()

    def ask(self, method: str, path: str, body: object = None, **query: Any) -> Any:
        """The body of an answer, whichever it is; locators in it are remembered."""
        answer = self.api(method, path, body, **query)
        self.signed |= set(SIGNED.findall(json.dumps(answer.body)))
        return answer.body

    def ok(self, method: str, path: str, body: object = None, **query: Any) -> Any:
        """The body of an answer that must be 200."""
        found = self.ask(method, path, body, **query)
        assert "errors" not in found, found
        return found

    def stored(self, data: bytes) -> str:
        """The signed locator of a block that is stored at this moment."""
        md5, seconds = hashlib.md5(data).hexdigest(), self.now.timestamp()
        incoming = self.site.blocks.receive(md5)
        incoming.write(data)
        incoming.commit()
        os.utime(self.site.blocks.path(md5), (seconds, seconds))
        locator = self.site.settings.signer.sign(f"{md5}+{len(data)}", self.token, int(seconds) + TTL)
        self.signed.add(locator)
        return locator

    @property
    def token(self) -> str:
        """The user's token."""
        return self.site.settings.token

    def valid(self) -> list[str]:
        """The locators whose signatures are good now."""
        seconds, signer = int(self.now.timestamp()), self.site.settings.signer
        return [found for found in self.signed if signer.verdict(found, self.token, seconds) is Verdict.GOOD]

    def has(self, locator: str) -> bool:
        """Whether the block is stored."""
        return self.site.blocks.size(locator[:32]) is not None

    def pass_time(self, seconds: float) -> None:
        """Let time pass; requests then find the trash as it is."""
        self.now += timedelta(seconds=seconds)
        self.ask("GET", "users/current")

    def collect(self) -> None:
        """Collect garbage."""
        upkeep.collect_garbage(self.site, dry_run=False)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A fresh site."""
    found = World(tmp_path / "site", monkeypatch)
    yield found
    found.site.close()


def text_of(locator: str) -> str:
    """Manifest text of one file."""
    return f". {locator} 0:{locator.split('+')[1]}:x\n"


# -- blocks -----------------------------------------------------------------------------


def soon(world: World, seconds: float = 5) -> str:
    """A time that is about to come."""
    return clock.text_of(world.now + timedelta(seconds=seconds))


#: Ways in which a collection stops naming its block: requests on the collection and on the projects around it.
WAYS: dict[str, Callable[[World, str, str, str], object]] = {
    "collection deleted": lambda w, uuid, inner, outer: w.ok("DELETE", f"collections/{uuid}"),
    "collection put into the trash": lambda w, uuid, inner, outer: w.ok("POST", f"collections/{uuid}/trash"),
    "collection trashed, then deleted": lambda w, uuid, inner, outer: (
        w.ok("POST", f"collections/{uuid}/trash"),
        w.ok("DELETE", f"collections/{uuid}"),
    ),
    "collection trashed by update": lambda w, uuid, inner, outer: w.ok(
        "PUT", f"collections/{uuid}", {"is_trashed": True}
    ),
    "collection to be trashed soon": lambda w, uuid, inner, outer: w.ok(
        "PUT", f"collections/{uuid}", {"trash_at": soon(w), "delete_at": soon(w, 6)}
    ),
    "manifest text changed": lambda w, uuid, inner, outer: w.ok("PUT", f"collections/{uuid}", {"manifest_text": ""}),
    "project deleted": lambda w, uuid, inner, outer: w.ok("DELETE", f"groups/{inner}"),
    "project above deleted": lambda w, uuid, inner, outer: w.ok("DELETE", f"groups/{outer}"),
    "project put into the trash": lambda w, uuid, inner, outer: w.ok("POST", f"groups/{inner}/trash"),
    "project trashed by update": lambda w, uuid, inner, outer: w.ok("PUT", f"groups/{outer}", {"is_trashed": True}),
    "project to be trashed soon": lambda w, uuid, inner, outer: w.ok(
        "PUT", f"groups/{outer}", {"trash_at": soon(w), "delete_at": soon(w, 6)}
    ),
    "moved into a project that is to be trashed": lambda w, uuid, inner, outer: w.ok(
        "PUT",
        f"collections/{uuid}",
        {
            "owner_uuid": w.ok("POST", "groups", {"group_class": "project", "name": "doomed", "trash_at": soon(w)})[
                "uuid"
            ]
        },
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_block_stays_as_long_as_its_signatures_and_no_longer(world: World, way: str) -> None:
    outer = world.ok("POST", "groups", {"group_class": "project", "name": "outer"})["uuid"]
    inner = world.ok("POST", "groups", {"group_class": "project", "name": "inner", "owner_uuid": outer})["uuid"]
    locator = world.stored(b"data")
    uuid = world.ok("POST", "collections", {"manifest_text": text_of(locator), "owner_uuid": inner})["uuid"]
    world.pass_time(10 * TTL)
    before = world.ok("GET", f"collections/{uuid}")["manifest_text"]
    world.now += timedelta(microseconds=1)
    WAYS[way](world, uuid, inner, outer)
    for _ in range(TTL):
        world.pass_time(1)
        world.ask("GET", f"collections/{uuid}", include_trash=True)
        world.ask("GET", "collections", include_trash=True, select=["manifest_text"])
        world.collect()
        assert all(world.has(found) for found in world.valid()), way
    assert world.api("POST", "collections", {"manifest_text": before}).status == 200, (
        "while it is signed it is to be had"
    )
    newest = world.ok("GET", "collections", order=["created_at desc"])["items"][0]["uuid"]
    world.ok("DELETE", f"collections/{newest}")
    for _ in range(4):
        world.pass_time(TTL + SLACK + 1)
        world.collect()
    assert not world.has(locator), way


def test_signatures_end_when_the_project_above_goes_into_the_trash(world: World) -> None:
    outer = world.ok("POST", "groups", {"group_class": "project", "name": "outer"})["uuid"]
    inner = world.ok("POST", "groups", {"group_class": "project", "name": "inner", "owner_uuid": outer})["uuid"]
    locator = world.stored(b"data")
    made = world.ok("POST", "collections", {"manifest_text": text_of(locator), "owner_uuid": inner})
    world.ok("PUT", f"groups/{outer}", {"trash_at": soon(world, 20)})
    ask: dict[str, Callable[[], Any]] = {
        "get": lambda: world.ok("GET", f"collections/{made['uuid']}", include_trash=True),
        "by hash": lambda: world.ok("GET", f"collections/{made['portable_data_hash']}", include_trash=True),
        "list": lambda: world.ok("GET", "collections", select=["manifest_text"], include_trash=True)["items"][0],
    }
    for name, request in ask.items():
        assert request()["manifest_text"].endswith(f"@{int(START.timestamp()) + 20:08x} 0:4:x\n"), name
    world.pass_time(21)
    for name, request in ask.items():
        assert "+A" not in request()["manifest_text"], name
    # With a copy that stays, the content is signed for the whole time.
    world.ok("POST", "collections", {"manifest_text": text_of(locator)})
    assert ask["by hash"]()["manifest_text"].endswith(f"@{int(START.timestamp()) + 21 + TTL:08x} 0:4:x\n")


class Deletions(RuleBasedStateMachine):
    """Any order of requests, time and garbage collection."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.patch = pytest.MonkeyPatch()
        self.collections: list[str] = []
        self.projects: list[str] = []

    @initialize(lifetime=st.sampled_from([1, TTL, 3 * TTL]))
    def begin(self, lifetime: int) -> None:
        self.world = World(self.folder / "site", self.patch, lifetime)
        self.projects.append(self.world.site.settings.user_uuid)

    def teardown(self) -> None:
        self.world.site.close()
        self.patch.undo()
        shutil.rmtree(self.folder)

    numbers = st.integers(0, 5)

    @rule(number=numbers)
    def put(self, number: int) -> None:
        self.world.stored(bytes([number]))

    @rule(which=numbers, owner=numbers, count=st.integers(1, 2), scheduled=st.booleans())
    def create(self, which: int, owner: int, count: int, scheduled: bool) -> None:
        valid = sorted(self.world.valid())
        if valid:
            locators = " ".join(valid[(which + number) % len(valid)] for number in range(count))
            trash_at = soon(self.world, TTL // 3) if scheduled else None
            made = self.world.ask(
                "POST",
                "collections",
                {"manifest_text": f". {locators} 0:1:x\n", "owner_uuid": self.project(owner), "trash_at": trash_at},
            )
            self.collections += [made["uuid"]] if "uuid" in made else []

    @rule(owner=numbers)
    def make_project(self, owner: int) -> None:
        name = f"p{len(self.projects)}"
        made = self.world.ask(
            "POST", "groups", {"group_class": "project", "name": name, "owner_uuid": self.project(owner)}
        )
        self.projects += [made["uuid"]] if "uuid" in made else []

    @rule(which=numbers, action=st.sampled_from(["DELETE", "trash", "untrash", "soon", "never", "empty", "move"]))
    def change_collection(self, which: int, action: str) -> None:
        if self.collections:
            self.change("collections", self.collections[which % len(self.collections)], action, which)

    @rule(which=numbers, action=st.sampled_from(["DELETE", "trash", "untrash", "soon", "never", "move"]))
    def change_project(self, which: int, action: str) -> None:
        if self.projects[1:]:
            self.change("groups", self.projects[1:][which % len(self.projects[1:])], action, which)

    def change(self, resource: str, uuid: str, action: str, which: int) -> None:
        """One request that trashes, deletes, brings back, empties or moves."""
        path, second = f"{resource}/{uuid}", soon(self.world, 1)
        if action in ("trash", "untrash"):
            self.world.ask("POST", f"{path}/{action}")
        elif action == "DELETE":
            self.world.ask("DELETE", path)
        else:
            bodies: dict[str, Any] = {
                "soon": {"trash_at": second, "delete_at": second},
                "never": {"trash_at": None},
                "empty": {"manifest_text": ""},
                "move": {"owner_uuid": self.project(which + 1)},
            }
            self.world.ask("PUT", path, bodies[action])

    @rule(trash=st.booleans())
    def read(self, trash: bool) -> None:
        listed = self.world.ask(
            "GET", "collections", select=["manifest_text", "portable_data_hash"], include_trash=trash
        )
        for item in listed["items"]:
            self.world.ask("GET", f"collections/{item['portable_data_hash']}", include_trash=trash)

    @rule(seconds=st.sampled_from([0.1, 1, 7.5, TTL // 2, TTL - 1, TTL, TTL + 2, 3 * TTL]))
    def wait(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule()
    def collect(self) -> None:
        self.world.collect()

    @invariant()
    def nothing_is_lost(self) -> None:
        if hasattr(self, "world"):
            assert all(self.world.has(found) for found in self.world.valid())
            assert list(upkeep.problems(self.world.site, quick=False)) == []

    def project(self, which: int) -> str:
        """An owner."""
        return self.projects[which % len(self.projects)]


Deletions.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
TestDeletions = Deletions.TestCase


# -- the groups that every site has -----------------------------------------------------


@pytest.fixture
def people(api: Direct) -> dict[str, Person]:
    """A user, an administrator, and the site's own user."""
    users.create(api.site.database, api.site.settings, "admin", is_admin=True)
    token = users.new_token(api.site.database, api.site.settings, "admin", None)
    admin = Person(api, token, api.ok("GET", "users/current", token=token)["uuid"])
    return {"user": person(api, "alice"), "admin": admin, "system": person(api, users.ROOT)}


@pytest.mark.parametrize("suffix", sorted(SITE_GROUPS))
def test_nobody_takes_away_a_group_that_every_site_has(api: Direct, people: dict[str, Person], suffix: str) -> None:
    group = f"{api.site.settings.cluster_id}-j7d0g-{suffix}"
    was = people["system"].ok("GET", f"groups/{group}")
    for name, who in people.items():
        trashed = who.project("to be trashed")
        who.ok("PUT", f"groups/{trashed}", {"trash_at": "2100-01-01T00:00:00Z"})
        for method, path, body in (
            ("DELETE", f"groups/{group}", None),
            ("POST", f"groups/{group}/trash", None),
            ("POST", f"groups/{group}/untrash", {"ensure_unique_name": True}),
            ("PUT", f"groups/{group}", {"trash_at": "2026-01-01T00:00:00Z"}),
            ("PUT", f"groups/{group}", {"trash_at": "2100-01-01T00:00:00Z"}),
            ("PUT", f"groups/{group}", {"delete_at": "2100-01-01T00:00:00Z"}),
            ("PUT", f"groups/{group}", {"is_trashed": True}),
            ("PATCH", f"groups/{group}", {"owner_uuid": trashed}),
            ("PUT", f"groups/{group}", {"owner_uuid": who.uuid}),
            ("PUT", f"groups/{group}", {"group_class": "project" if was["group_class"] == "role" else "role"}),
        ):
            status = 403 if name == "user" else 422
            if name == "system" and body == {"owner_uuid": who.uuid}:
                status = 200  # its owner already
            if status == 200:
                who.ok(method, path, body)
            else:
                who.refused(status, method, path, body)
    found = people["system"].ok("GET", f"groups/{group}")
    assert {**found, "modified_at": was["modified_at"]} == was
    assert people["admin"].ok("PUT", f"groups/{group}", {"description": "x"})["description"] == "x"


@pytest.mark.parametrize("method", ["DELETE", "PUT", "POST"])
def test_users_are_not_deleted_by_requests(api: Direct, people: dict[str, Person], method: str) -> None:
    for who in people.values():
        for uuid in [other.uuid for other in people.values()]:
            assert api(method, f"users/{uuid}", {}, token=who.token).status in (403, 404, 405, 501)
    assert len(people["system"].ok("GET", "users")["items"]) == len(people) + 1


def test_a_site_whose_groups_an_older_version_put_into_the_trash_gets_them_back(tmp_path: Path) -> None:
    site = open_site(tmp_path / "site")
    uuid = site.settings.user_uuid
    with site.database.writing() as connection:
        connection.execute(
            "UPDATE groups SET is_trashed = 1, trash_at = '2026-01-01', delete_at = '2026-01-02', owner_uuid = ? "
            "WHERE uuid LIKE '%publicfavorites'",
            (uuid,),
        )
        connection.execute("DELETE FROM groups WHERE uuid LIKE '%fffffffffffffff'")
    site.close()
    site = open_site(tmp_path / "site")
    groups = Direct(site).ok("GET", "groups")["items"]
    assert {group["uuid"][12:] for group in groups} == SITE_GROUPS
    assert {group["owner_uuid"] for group in groups} == {site.settings.system_user_uuid}
    site.close()

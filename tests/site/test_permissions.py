# SPDX-License-Identifier: Apache-2.0
"""Who may do what: every method of the discovery document, and of Keep, as each kind of person.

The answers are the tables of docs/internals/permissions.md. `python -m tests.site.test_permissions` writes what the
site answers now; read the difference before you commit it. A method without a row fails here.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from arv_docker.site import LocalSite
from arv_docker.site.api import users
from arv_docker.site.folder import open_site

from .conftest import Reply, Web
from .test_wrong_tokens import KINDS, NEEDED

PAGE = Path(__file__).resolve().parents[2] / "docs" / "internals" / "permissions.md"

#: The people, in the order of the columns: a record's owner; who has the level on the project in which it lies;
#: an administrator; another user; and somebody without a token.
PEOPLE = ("owner", "can_manage", "can_write", "can_read", "administrator", "stranger", "no token")

#: Methods that list: the record may be missing from what is answered.
LISTS = ("list", "shared", "accessible")

DATA = b"kept by its owner"
MD5 = hashlib.md5(DATA).hexdigest()
TEXT = f"{MD5}+{len(DATA)}"

#: Requests to Keep; a block is read with the locator that the person's own reading of the collection gave, the
#: stranger's with the owner's.
KEEP = {"keep.put": "PUT", "keep.get": "GET", "keep.head": "HEAD"}


@dataclass(frozen=True)
class World:
    """A served site with one token for each person."""

    web: Web
    tokens: dict[str, str]
    uuids: dict[str, str]

    def ask(self, who: str, http_method: str, path: str, body: object = None) -> Reply:
        """One request."""
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        authorization = f"Bearer {self.tokens[who]}" if self.tokens[who] else ""
        return self.web(http_method, path, data, authorization=authorization, content_type="application/json")

    def make(self, resource: str, **attributes: Any) -> Any:
        """A new record of the owner's."""
        path = f"/arvados/v1/{resource}?ensure_unique_name=true"
        reply = self.ask("owner", "POST", path, NEEDED.get(resource, {}) | attributes)
        assert reply.status == 200, reply.body
        return reply.json

    def project(self) -> str:
        """A new project, shared with those who have a level."""
        uuid = str(self.make("groups")["uuid"])
        for name in ("can_manage", "can_write", "can_read"):
            self.make("links", link_class="permission", name=name, head_uuid=uuid, tail_uuid=self.uuids[name])
        return uuid

    def record(self, resource: str, project: str) -> Any:
        """A new record in a project; that of a container is what came of a request."""
        if resource == "containers":
            made = self.record("container_requests", project)
            return self.ask("owner", "GET", f"/arvados/v1/containers/{made['container_uuid']}").json
        if resource == "container_requests":
            image = self.ask("owner", "GET", "/arvados/v1/collections").json["items"][0]["portable_data_hash"]
            run = {"container_image": image, "state": "Committed", "priority": 1, "use_existing": False}
            needs = {"runtime_constraints": {"vcpus": 1, "ram": 1}}
            return self.make(resource, owner_uuid=project, **run, **needs)
        given: dict[str, Any] = {"owner_uuid": project}
        if resource == "collections":
            locator = self.ask("owner", "PUT", f"/{MD5}", DATA).body.decode().strip()
            given |= {"manifest_text": f". {locator} 0:{len(DATA)}:sha256:{'0' * 64}.tar\n"}
        if resource == "links":
            given |= {"link_class": "docker_image_hash", "name": "x"}
        return self.make(resource, **given)


def served(folder: Path) -> Iterator[World]:
    """The world on a fresh site."""
    with LocalSite(folder) as running:
        site = open_site(folder)
        tokens, uuids = {"owner": running.token, "no token": ""}, {"owner": site.settings.user_uuid}
        for person in set(PEOPLE) - tokens.keys():
            name = person.replace("_", "-")
            uuids[person] = users.create(site.database, site.settings, name, is_admin=person == "administrator")
            tokens[person] = users.new_token(site.database, site.settings, name, None)
        world = World(Web(int(running.url.rpartition(":")[2]), running.token, folder), tokens, uuids)
        image = world.record("collections", world.uuids["owner"])
        world.make("links", link_class="docker_image_hash", name=f"sha256:{'0' * 64}", head_uuid=image["uuid"])
        yield world
        site.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A site for all tests here: each makes what it needs."""
    yield from served(tmp_path_factory.mktemp("permissions") / "site")


def methods(world: World) -> dict[str, tuple[str, str]]:
    """HTTP method and path, by the names in the discovery document."""
    document = world.ask("no token", "GET", "/discovery/v1/apis/arvados/v1/rest").json
    return {
        f"{resource}.{name}": (method["httpMethod"], "/arvados/v1/" + method["path"])
        for resource, listed in document["resources"].items()
        for name, method in listed["methods"].items()
    }


def row(world: World, name: str, http_method: str, path: str) -> list[str]:
    """The answers to each of the people, about a new record each."""
    return [cell(world, who, name, http_method, path) for who in PEOPLE]


def cell(world: World, who: str, name: str, http_method: str, path: str) -> str:
    """One answer: its status, and "hidden" where the record is not in it."""
    resource, _, function = name.partition(".")
    project = world.project()
    record = subject(world, resource, project)
    if function == "untrash":
        assert world.ask("owner", "POST", f"/arvados/v1/{resource}/{record['uuid']}/trash").status == 200
    path = path.replace("{uuid}", record["uuid"])
    if function == "contents":
        path += f"?uuid={project}"
    elif function in LISTS:
        path += "?order=created_at+desc"
    body = None
    if function == "create":
        body = NEEDED.get(resource, {}) | {"owner_uuid": project, "name": "made"}
    elif function == "update":
        body = {"priority": 0} if resource == "containers" else {"name": f"changed by {who}"}
    reply = world.ask(who, http_method, path, body)
    if function in LISTS and reply.status == 200 and record["uuid"] not in reply.body.decode():
        return "200, hidden"
    return str(reply.status)


def subject(world: World, resource: str, project: str) -> Any:
    """The record that a method is asked about."""
    if resource in KINDS and resource != "groups":
        return world.record(resource, project)
    if resource == "containers":
        return world.record(resource, project)
    if resource == "keep_services":
        return world.ask("owner", "GET", "/arvados/v1/keep_services").json["items"][0]
    if resource == "users":
        return {"uuid": world.uuids["owner"]}
    return {"uuid": project}


def keep_cell(world: World, who: str, http_method: str) -> str:
    """The status of one request to Keep."""
    if http_method == "PUT":
        return str(world.ask(who, "PUT", f"/{MD5}", DATA).status)
    made = world.record("collections", world.project())
    path = f"/arvados/v1/collections/{made['uuid']}"
    seen = world.ask(who, "GET", path)
    text = (seen if seen.status == 200 else world.ask("owner", "GET", path)).json["manifest_text"]
    return str(world.ask(who, http_method, "/" + text.split()[1]).status)


def table(world: World) -> dict[str, list[str]]:
    """All answers, by method."""
    rows = {name: row(world, name, *method) for name, method in sorted(methods(world).items())}
    return rows | {name: [keep_cell(world, who, method) for who in PEOPLE] for name, method in KEEP.items()}


# -- the page ---------------------------------------------------------------------------


def printed(rows: Mapping[str, list[str]]) -> str:
    """The table as the page has it."""
    lines = [["method", *PEOPLE], ["---"] * (len(PEOPLE) + 1), *([f"`{name}`", *cells] for name, cells in rows.items())]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def published() -> dict[str, list[str]]:
    """The rows of the page."""
    lines = [line.strip("| \n").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    return {cells[0].strip("`"): cells[1:] for cells in lines}


NAMES = sorted(published()) if PAGE.exists() else []


def test_every_method_has_its_row_and_every_row_its_method(world: World) -> None:
    assert sorted({*methods(world), *KEEP}) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_person_is_answered_as_published(world: World, name: str) -> None:
    if name in KEEP:
        found = [keep_cell(world, who, KEEP[name]) for who in PEOPLE]
    else:
        found = row(world, name, *methods(world)[name])
    assert dict(zip(PEOPLE, found, strict=True)) == dict(zip(PEOPLE, published()[name], strict=True))


def main() -> int:
    """Write the table into the page."""
    with tempfile.TemporaryDirectory() as folder:
        for world in served(Path(folder) / "site"):
            text = printed(table(world))
    before, _, rest = PAGE.read_text().partition("<!-- table -->\n")
    PAGE.write_text(f"{before}<!-- table -->\n{text}{rest[rest.index('<!-- end -->') :]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

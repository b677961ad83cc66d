# SPDX-License-Identifier: Apache-2.0
"""Every route that the discovery document names, with every kind of wrong token: what is refused, and what leaks."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from arv_docker.site import LocalSite
from arv_docker.site.api import users
from arv_docker.site.folder import Site, open_site

from .conftest import Reply, Web

#: In the name of everything that is the user's own: no answer to anybody else may hold it.
SECRET = "not-for-others"
DATA = SECRET.encode()
MD5 = hashlib.md5(DATA).hexdigest()

KINDS = ("collections", "groups", "links", "container_requests", "workflows")

#: Methods that need no token.
OPEN = {"configs.get", "vocabularies.get", "keep_services.list", "keep_services.accessible"}

#: What another user is answered, by method. Records of others are not there for them.
OTHERS = {"list": 200, "create": 200, "current": 200, "shared": 200, "contents": 404}

#: Nobody makes a container, and nobody runs in one.
CONTAINERS = {"containers.create": 403, "containers.current": 404}

#: What a record of each kind must have to be made.
NEEDED: dict[str, Any] = {
    "groups": {"group_class": "project", "name": "own"},
    "container_requests": {
        "command": ["true"],
        "container_image": "x",
        "output_path": "/out",
        "mounts": {"/out": {"kind": "tmp"}},
    },
}


@dataclass(frozen=True)
class World:
    """A served site with a user who has one record of each kind."""

    web: Web
    site: Site
    #: A record of the user by resource.
    uuids: dict[str, str]
    #: Locator of a block, signed for the user.
    locator: str
    other: str

    def ask(self, http_method: str, path: str, token: str, body: object = None) -> Reply:
        """One request with a token, "" for none."""
        data = None if body is None else json.dumps(body).encode()
        authorization = f"Bearer {token}" if token else ""
        return self.web(http_method, path, data, authorization=authorization, content_type="application/json")

    def signed(self, token: str, seconds: int = 600) -> str:
        """The block's locator as if it had been signed for a token."""
        return self.site.settings.signer.sign(f"{MD5}+{len(DATA)}", token, int(time.time()) + seconds)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The site, for all tests here: none of them may change anything."""
    folder = tmp_path_factory.mktemp("wrong-tokens") / "site"
    with LocalSite(folder) as running:
        site = open_site(folder)
        web = Web(int(running.url.rpartition(":")[2]), running.token, folder)
        users.create(site.database, site.settings, "other", is_admin=False)
        other = users.new_token(site.database, site.settings, "other", None)
        locator = web("PUT", f"/{MD5}", DATA).body.decode().strip()
        made = {"users": site.settings.user_uuid, "api_client_authorizations": site.settings.token_uuid}
        for resource, attributes in (
            ("groups", {"group_class": "project"}),
            ("collections", {"manifest_text": f". {locator} 0:{len(DATA)}:{SECRET}\n"}),
            ("links", {"link_class": "docker_image_hash"}),
            ("container_requests", NEEDED["container_requests"]),
            ("workflows", {"definition": SECRET}),
        ):
            properties = {} if resource == "workflows" else {"properties": {SECRET: SECRET}}
            body = json.dumps(attributes | {"name": SECRET} | properties).encode()
            made[resource] = web("POST", f"/arvados/v1/{resource}", body, content_type="application/json").json["uuid"]
        yield World(web, site, made, locator, other)
        site.close()


def routes(world: World) -> Iterator[tuple[str, str, str]]:
    """Name, HTTP method and path of every method in the discovery document, about the user's own records."""
    document = world.web("GET", "/discovery/v1/apis/arvados/v1/rest", authorization="").json
    for resource, listed in document["resources"].items():
        for name, method in listed["methods"].items():
            path = method["path"].replace("{uuid}", world.uuids.get(resource, "zzzzz-bi6l4-000000000000000"))
            query = f"?uuid={world.uuids['groups']}" if name == "contents" else ""
            yield f"{resource}.{name}", method["httpMethod"], f"/arvados/v1/{path}{query}"


def wrong_tokens(world: World) -> dict[str, str]:
    """Tokens that open nothing, by what is wrong with them."""
    settings = world.site.settings
    foreign_uuid = world.other.split("/")[1]
    return {
        "none": "",
        "unknown": f"v2/{settings.cluster_id}-gj3su-{'0' * 15}/{'0' * 50}",
        "unknown and short": "0",
        "expired": users.new_token(world.site.database, settings, "other", 0),
        "secret of another": f"v2/{foreign_uuid}/{settings.token_secret}",
        "UUID alone": settings.token_uuid,
        "SQL": "' OR 1=1 --",
    }


def state(world: World) -> Any:
    """All that the user has."""
    paths = [f"/arvados/v1/{name}?include_trash=true" for name in KINDS]
    return [world.web("GET", path).json["items"] for path in paths]


def test_no_route_opens_to_a_wrong_token(world: World) -> None:
    before = state(world)
    asked = 0
    for name, method, path in routes(world):
        for kind, token in wrong_tokens(world).items():
            reply = world.ask(method, path, token, {} if method in ("POST", "PUT") else None)
            assert reply.status == (200 if name in OPEN else 401), (name, kind, reply.body)
            assert DATA not in reply.body, (name, kind)
            asked += 1
    assert asked > 200
    assert state(world) == before


def test_no_route_shows_a_user_what_is_anothers(world: World) -> None:
    before = state(world)
    for name, method, path in routes(world):
        resource, _, function = name.partition(".")
        expected = 200 if name in OPEN or name == "users.get" else CONTAINERS.get(name, OTHERS.get(function, 404))
        body = NEEDED.get(resource, {})
        reply = world.ask(method, path, world.other, body if method in ("POST", "PUT") else None)
        assert reply.status == expected, (name, reply.body)
        assert DATA not in reply.body, name
        if method == "POST" and function == "create":
            given = body | {"owner_uuid": world.site.settings.user_uuid}
            assert world.ask(method, path, world.other, given).status == 403, name
    assert state(world) == before


def test_routes_that_are_not_there_tell_no_more_than_that(world: World) -> None:
    for path in ("logs", "users/system", "nosuch", f"collections/{world.uuids['collections']}/provenance"):
        for token in wrong_tokens(world).values():
            reply = world.ask("GET", f"/arvados/v1/{path}", token)
            assert reply.status in (404, 501)
            assert DATA not in reply.body


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_block_is_read_with_the_token_that_it_was_signed_for(world: World, method: str) -> None:
    own, secret = world.site.settings.token, world.site.settings.token_secret
    forged = world.locator.partition("+A")[0] + "+A" + "0" * 40 + world.locator[-9:]
    for kind, locator, token, status in (
        ("right", world.locator, own, 200),
        ("no token", world.locator, "", 401),
        ("unknown token", world.locator, "unknown", 400),
        ("other user's token", world.locator, world.other, 400),
        ("other form of the same token", world.locator, secret, 400),
        ("forged", forged, own, 400),
        ("signed for another", world.signed(world.other), own, 400),
        ("past its end", world.signed(own, -5), own, 401),
        ("forged and past its end", forged[:-8] + "00000001", own, 401),
        ("its end moved", world.signed(own, -5)[:-8] + f"{int(time.time()) + 600:08x}", own, 400),
        ("unsigned", f"{MD5}+{len(DATA)}", own, 400),
        ("unsigned, no token", f"{MD5}+{len(DATA)}", "", 401),
        ("signature of another block", world.locator.replace(MD5, hashlib.md5(b"").hexdigest()), own, 400),
    ):
        reply = world.ask(method, f"/{locator}", token)
        assert reply.status == status, (kind, reply.body)
        assert (DATA in reply.body) == (status == 200 and method == "GET"), kind


def test_a_block_is_named_with_the_token_that_it_was_signed_for(world: World) -> None:
    """What somebody could not read, he cannot put into a collection of his own, which would sign it for him."""
    own = world.site.settings.token
    for kind, locator, token in (
        ("other user", world.locator, world.other),
        ("unsigned", f"{MD5}+{len(DATA)}", world.other),
        ("past its end", world.signed(own, -5), own),
        ("forged", world.locator.partition("+A")[0] + "+A" + "0" * 40 + world.locator[-9:], own),
        ("other form of the token", world.locator, world.site.settings.token_secret),
    ):
        text = f". {locator} 0:{len(DATA)}:x\n"
        reply = world.ask("POST", "/arvados/v1/collections", token, {"collection": {"manifest_text": text}})
        assert reply.status == 403, (kind, reply.body)


def test_a_put_without_a_good_token_stores_nothing_and_gives_nothing_to_read_with(world: World) -> None:
    data = b"never stored"
    md5 = hashlib.md5(data).hexdigest()
    for token in wrong_tokens(world).values():
        reply = world.web("PUT", f"/{md5}", data, authorization=f"Bearer {token}" if token else "")
        assert (reply.status, reply.body) == (401, b"Unauthorized\n")
    assert not world.web.block(data).exists()


def test_secrets_stay_in_the_folder(world: World) -> None:
    """Nothing but the question for one's own token answers with it."""
    secrets = [world.site.settings.blob_signing_key.encode(), world.other.split("/")[2].encode()]
    for _name, method, path in routes(world):
        if method == "GET":
            reply = world.ask(method, path, world.site.settings.token)
            assert not any(secret in reply.body for secret in secrets), path
    assert Path(world.web.folder / "settings.json").stat().st_mode & 0o077 == 0

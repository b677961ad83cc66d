# SPDX-License-Identifier: Apache-2.0
"""The recorded conversation with a real Arvados, held again with the site, answer by answer.

The recordings are data from outside this repository: the folder that ARV_DOCKER_RECORDINGS names, else
`../shared/recordings` beside the checkout. UUIDs, times, signatures, tokens, request ids and the wording of errors
must differ and are set aside; every other difference
is in `DIFFERENCES`, and in docs/internals/site.md with its reason.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from arv_docker.site import LocalSite
from arv_docker.site.api import users
from arv_docker.site.folder import open_site
from arv_docker.site.store.files import write_private
from arv_docker.site.store.settings import new_settings

from .conftest import Reply, Web

# Read at import: the tests' own homes come without such variables.
NAMED = os.environ.get("ARV_DOCKER_RECORDINGS")
RECORDINGS = Path(NAMED) if NAMED else Path(__file__).resolve().parents[3] / "shared" / "recordings"

#: Outside of what the site is: old versions, replace_files.
OUTSIDE = frozenset({70, 71})

#: Every difference that is left: number of the recording, place in the answer.
DIFFERENCES = frozenset(
    {
        # The recorded tokens were made behind the API's back, without stamps.
        (5, "created_at"),
        (5, "modified_at"),
        (5, "modified_by_user_uuid"),
        # The site is where the client found it.
        (6, "items[0].service_port"),
        # One copy on one disk.
        (7, "header x-keep-replicas-stored"),
        (7, "header x-keep-storage-classes-confirmed"),
        # Nobody fills the disk without a token.
        (14, "status"),
        # An empty list of UUIDs is a filter like any other.
        (29, "limit"),
        # Errors have one shape, whoever answers on a real server.
        (36, "error_token"),
        # Malformed parameters are no 500, which clients repeat for minutes.
        (50, "status"),
        (51, "status"),
        # Follows from the time at which the request was created.
        (66, "priority"),
        # No federation: there is nobody to ask.
        (56, "status"),
        # Versions of collections are off.
        (69, "version"),
        (72, "version"),
        (74, "version"),
        (75, "version"),
        (76, "version"),
    }
)

UUID = re.compile(r"[0-9a-z]{5}-[0-9a-z]{5}-[0-9a-z]{15}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")
SIGNATURE = re.compile(r"\+A[0-9a-f]{40}@[0-9a-f]{8}")

pytestmark = pytest.mark.skipif(not RECORDINGS.is_dir(), reason=f"no recordings in {RECORDINGS}")


def recording(number: int) -> Any:
    """One recorded exchange."""
    (path,) = RECORDINGS.glob(f"{number:02}_*.json")
    return json.loads(path.read_text())


def strings(values: dict[str, Any]) -> dict[str, str]:
    """Parameters as they go into a query or form: what is no string as JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


class Replay:
    """The conversation as it goes: what was learnt of the names that this site has for the recorded ones."""

    def __init__(self, web: Web, tokens: Mapping[str, str]) -> None:
        self.web = web
        self.tokens = tokens
        self.ours: dict[str, str] = {}

    def send(self, request: Any) -> Reply:
        """The recorded request, with this site's names in it."""
        path, body = self.translated(request["path"]), self.translated(request["body"])
        pairs = strings(self.translated(request["params"]) or {})
        kind = request["content_type"] or ""
        if kind.startswith("application/x-www-form-urlencoded"):
            data: bytes | None = urlencode(strings(body)).encode()
        else:
            data = None if body is None else (body if isinstance(body, str) else json.dumps(body)).encode()
        token = self.tokens.get(request["as"] or "", request["as"] or "")
        headers = request["headers"] | {"authorization": f"Bearer {token}" if token else "", "content-type": kind}
        return self.web(request["method"], f"{path}?{urlencode(pairs)}" if pairs else path, data, **headers)

    def translated(self, value: Any) -> Any:
        """A recorded value with every name in it that this site has another one for."""
        text = json.dumps(value)
        for theirs in sorted(self.ours, key=len, reverse=True):
            text = text.replace(theirs, self.ours[theirs])
        return json.loads(text)

    def differences(self, answer: Any, reply: Reply) -> Iterator[str]:
        """Where the reply is not what was recorded; what may differ is learnt on the way."""
        if reply.status != answer["status"]:
            yield "status"
            return
        for name in ("x-keep-replicas-stored", "x-keep-storage-classes-confirmed", "vary"):
            if reply.headers.get(name) != answer["headers"].get(name):
                yield f"header {name}"
        theirs = answer["body"]
        if isinstance(theirs, dict):
            yield from self.compared(theirs, reply.json, "")
        elif reply.status == 200:
            yield from self.compared(theirs, reply.body.decode(), "body")

    def compared(self, theirs: Any, ours: Any, place: str) -> Iterator[str]:
        """The places below ``place`` where two values differ."""
        if isinstance(theirs, dict) and isinstance(ours, dict):
            for name in sorted(theirs.keys() | ours.keys()):
                here = f"{place}.{name}".lstrip(".")
                if (name in theirs) != (name in ours):
                    yield here
                elif name not in ("errors", "api_token"):
                    yield from self.compared(theirs[name], ours[name], here)
        elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
            for number, (one, other) in enumerate(zip(theirs, ours, strict=True)):
                yield from self.compared(one, other, f"{place}[{number}]")
        elif not self.same(theirs, ours, place):
            yield place

    def same(self, theirs: Any, ours: Any, place: str) -> bool:
        """Whether two single values say the same, names and times aside."""
        if not isinstance(theirs, str) or not isinstance(ours, str):
            return type(theirs) is type(ours) and bool(theirs == ours)
        if place.endswith("etag"):
            return bool(theirs) == bool(ours)
        for pattern in (UUID, TIME):
            if pattern.fullmatch(theirs) and pattern.fullmatch(ours):
                # To the microsecond: what a create says beyond it is not stored.
                self.ours.setdefault(theirs[:-4] + "000Z" if pattern is TIME else theirs, ours)
                return pattern is TIME or self.ours[theirs] == ours
        for one, other in zip(SIGNATURE.findall(theirs), SIGNATURE.findall(ours), strict=False):
            self.ours.setdefault(one, other)
        # Names that the server made up end in parts of UUIDs.
        return re.sub(r" \(\w{15}\)$", " ()", SIGNATURE.sub("+A", theirs)) == re.sub(
            r" \(\w{15}\)$", " ()", SIGNATURE.sub("+A", ours)
        )


@pytest.fixture
def replay(tmp_path: Path) -> Iterator[Replay]:
    """A site of the recorded cluster's id, with its three users under their UUIDs."""
    folder = tmp_path / "site"
    folder.mkdir()
    alice = recording(4)["response"]["body"]
    bob = recording(45)["request"]["body"]["collection"]["owner_uuid"]
    settings = replace(new_settings(alice["created_at"], "alice"), cluster_id="zzzzz", user_uuid=alice["uuid"])
    settings = replace(
        settings, token_uuid="zzzzz-gj3su-000000000000001", keep_service_uuid="zzzzz-bi6l4-000000000000001"
    )
    write_private(folder / "settings.json", settings.to_json().encode())
    site = open_site(folder)
    for name in ("bob", "carol"):
        users.create(site.database, site.settings, name, is_admin=False)
    with site.database.writing() as connection:
        connection.execute("UPDATE users SET email = 'alice@example.com', last_name = 'Test' WHERE username = 'alice'")
        connection.execute("UPDATE users SET uuid = ? WHERE username = 'bob'", (bob,))
        connection.execute("UPDATE users SET is_active = 0 WHERE username = 'carol'")
    tokens = {name: users.new_token(site.database, site.settings, name, None) for name in ("alice", "bob", "carol")}
    site.close()
    with LocalSite(folder) as running:
        yield Replay(Web(int(running.url.rpartition(":")[2]), running.token, folder), tokens)


def before(replay: Replay) -> dict[int, Callable[[], None]]:
    """What was done between the recorded requests."""

    def ok(method: str, path: str, attributes: Any) -> Any:
        request: dict[str, Any] = {
            "method": method,
            "path": f"/arvados/v1/{path}",
            "as": "alice",
            "params": None,
            "headers": {},
        }
        reply = replay.send(request | {"content_type": "application/json", "body": attributes})
        assert reply.status == 200, reply.body
        return reply.json

    def in_project() -> None:
        owner = recording(61)["request"]["params"]["uuid"]
        made = ok("POST", "collections", {"name": "inP", "owner_uuid": owner})
        replay.ours[recording(64)["request"]["path"].rpartition("/")[2]] = made["uuid"]

    def with_versions() -> None:
        made = ok(
            "POST", "collections", {"name": "ver", "manifest_text": ". d41d8cd98f00b204e9800998ecf8427e+0 0:0:a\n"}
        )
        replay.ours[recording(69)["request"]["path"].rpartition("/")[2]] = made["uuid"]

    def files_replaced() -> None:
        done = recording(71)
        text = SIGNATURE.sub("", done["response"]["body"]["manifest_text"])
        ok("PUT", done["request"]["path"].removeprefix("/arvados/v1/"), {"manifest_text": text})

    def not_yet_expired() -> None:
        expiry = recording(11)["request"]["path"].rpartition("@")[2]
        replay.ours[expiry] = f"{int(time.time()) + 600:08x}"

    return {11: not_yet_expired, 61: in_project, 69: with_versions, 72: files_replaced}


def test_the_site_answers_as_a_real_server_did(replay: Replay, capsys: pytest.CaptureFixture[str]) -> None:
    between = before(replay)
    found = set()
    numbers = [number for number in range(3, 81) if number not in OUTSIDE]
    for number in numbers:
        between.get(number, lambda: None)()
        exchange = recording(number)
        reply = replay.send(exchange["request"])
        found |= {(number, place) for place in replay.differences(exchange["response"], reply)}
    with capsys.disabled():
        sys.stdout.write(f"\n  {len(numbers)} recorded exchanges, {len(found)} differences, each of them listed\n")
    assert found ^ DIFFERENCES == set()


def test_discovery_and_config_say_nothing_that_a_real_server_does_not(replay: Replay) -> None:
    """Whatever the site lists, a real server lists with the same path, method, type and default."""
    theirs = recording(1)["response"]["body"]
    ours = replay.web("GET", "/discovery/v1/apis/arvados/v1/rest").json
    assert set(ours) <= set(theirs)
    for resource, listed in ours["resources"].items():
        for name, method in listed["methods"].items():
            real = theirs["resources"][resource]["methods"][name]
            for key in ("id", "path", "httpMethod"):
                assert method[key] == real[key], (resource, name)
            for parameter, described in method["parameters"].items():
                known = real["parameters"][parameter]
                for key in ("type", "location", "default"):
                    assert described.get(key) == known.get(key), (resource, name, parameter)
    for name, schema in ours["schemas"].items():
        assert schema["uuidPrefix" if "uuidPrefix" in schema else "id"], name
        if "uuidPrefix" in schema:
            assert schema["uuidPrefix"] == theirs["schemas"][name]["uuidPrefix"]
    config = replay.web("GET", "/arvados/v1/config").json
    real_config = recording(2)["response"]["body"]
    assert set(config) <= set(real_config)
    for section in ("API", "Collections", "Users", "Login", "Containers"):
        assert set(config[section]) <= set(real_config[section])

# SPDX-License-Identifier: Apache-2.0
"""Requests made up from the discovery document, and made-up manifest texts: no 5xx but 501, no hang, no growth.

To a server in a process of its own. With `--long` 50,000 requests by two users who share some of what they have; that
test prints what was answered (`pytest -rP` shows it).
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from arv_docker.errors import BadManifestText
from arv_docker.model import manifest_text
from arv_docker.site.api import users
from arv_docker.site.folder import open_site
from arv_docker.site.store.resources import SERVED

from .test_clients import Served, connected, start
from .test_wrong_tokens import KINDS, NEEDED, SECRET

#: Seconds after which an answer counts as a hang: the usual one comes in ten milliseconds.
HANG = 30

#: Bytes by which the server may grow once it is warm.
GROWTH = 48 << 20

#: Numbers of requests in a usual run and with `--long`.
REQUESTS = pytest.mark.parametrize("amount", [400, pytest.param(50_000, marks=pytest.mark.long)])
TEXTS = pytest.mark.parametrize("amount", [400, pytest.param(10_000, marks=pytest.mark.long)])


class Target:
    """A served site, and what its answers may be like."""

    def __init__(self, served: Served) -> None:
        self.pid, self.folder = served.process.pid, served.folder
        self.connection, self.headers = connected(served.folder)
        self.connection.timeout = HANG
        self.statuses: Counter[int] = Counter()
        self.slowest = (0.0, "")
        self.asked = 0
        self.warm = 0

    def ask(self, method: str, path: str, body: bytes | None = None, token: str = "", **headers: str) -> Any:
        """The body of an answer; one that is not allowed fails the test."""
        authorization = {"Authorization": f"Bearer {token}"} if token else {}
        began = time.monotonic()
        try:
            self.connection.request(method, path, body, self.headers | headers | authorization)
            reply = self.connection.getresponse()
            answer = reply.read()
        except (OSError, HTTPException) as error:
            self.connection.close()  # the next request has a new one
            seconds = time.monotonic() - began
            raise AssertionError(f"request {self.asked}, {seconds:.1f} s: {method} {path} {body!r}") from error
        self.slowest = max(self.slowest, (time.monotonic() - began, f"{method} {path[:200]}"))
        assert reply.status < 500 or reply.status == 501, (method, path, body, reply.status, answer)
        self.statuses[reply.status] += 1
        self.asked += 1
        return json.loads(answer) if answer else None

    def memory(self) -> int:
        """The memory that the server occupies, in bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * 4096

    def check_growth(self, amount: int) -> None:
        """Called once a request: after a third of them memory stays what it is."""
        if self.asked >= amount // 3 and not self.warm:
            self.warm = self.memory()


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    """A fresh site."""
    served = start(tmp_path / "site")
    found = Target(served)
    yield found
    found.connection.close()
    served.process.terminate()
    served.process.communicate()


def columns() -> st.SearchStrategy[str]:
    """Names of attributes, real and not."""
    real = sorted({name for resource in SERVED.values() for name in resource.columns})
    return st.sampled_from([*real, "any", "properties.a", "collections.name", "(file_count < version)", "bogus", ""])


#: Texts that stand for a UUID of the world, put in when the request is sent.
uuids = st.integers(0, 99).map("@{}".format)
times = st.sampled_from(["2026-11-20T23:00:00Z", "2100-01-01T00:00:00Z", "2026-11-20T23:00:55.660634000Z"])
operators = st.sampled_from(
    ["=", "!=", "<", "<=", ">", ">=", "like", "ilike", "in", "not in", "is_a", "exists", "contains", "@@", "<>", ""]
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | columns()
    | uuids
    | times
    | st.sampled_from(["d41d8cd98f00b204e9800998ecf8427e+0", "arvados#collection", "project", "can_read", "permission"])
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(columns(), inner, max_size=3), max_leaves=5
)
filters = st.lists(st.tuples(columns(), operators, values).map(list) | values, max_size=3)
orders = st.lists(st.tuples(columns(), st.sampled_from([" asc", " desc", "", " up"])).map("".join), max_size=3)

#: Parameters that fit, by name, and attributes by the type that the discovery document gives them, or by name.
PARAMETERS: dict[str, st.SearchStrategy[Any]] = {
    "filters": filters,
    "order": orders,
    "select": st.lists(columns(), max_size=3),
    "limit": st.integers(0, 2000),
    "offset": st.integers(0, 50),
    "count": st.sampled_from(["none", "exact"]),
    "uuid": uuids,
    "include": st.sampled_from(["owner_uuid", ["owner_uuid"], ["container_uuid"]]),
}
TYPES: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(max_size=12) | uuids,
    "text": st.text(max_size=40),
    "datetime": times | st.none(),
    "integer": st.integers(-2, 2**40),
    "boolean": st.booleans(),
    "float": st.floats(0, 1e9),
    "Hash": st.dictionaries(st.text(max_size=5), leaves, max_size=3),
    "Array": st.lists(st.text(max_size=5), max_size=3),
}
ATTRIBUTES: dict[str, st.SearchStrategy[Any]] = {
    "owner_uuid": uuids,
    "head_uuid": uuids,
    "tail_uuid": uuids,
    "link_class": st.sampled_from(["docker_image_hash", "docker_image_repo+tag", "tag", "permission", "star"]),
    "name": st.sampled_from(["can_read", "can_write", "can_manage", "a", "b", "c:latest"]) | st.text(max_size=12),
    "group_class": st.sampled_from(["project", "role", "filter"]),
    "manifest_text": st.just("@text") | st.sampled_from(["", ". d41d8cd98f00b204e9800998ecf8427e+0 0:0:x\n"]),
    "state": st.sampled_from(["Uncommitted", "Committed", "Final"]),
    "container_image": st.sampled_from(["a", "c:latest", "d41d8cd98f00b204e9800998ecf8427e+0", f"sha256:{'0' * 64}"]),
    "definition": st.sampled_from(["{}", "a: 1", "a: &b [*b]", "[" * 50, "!!python/name:os.system {}"]),
}


@dataclass(frozen=True)
class Made:
    """A request that was made up; texts like "@5" and "@text" in it stand for what the world has by then."""

    method: str
    path: str
    resource: str
    who: int
    #: The way in which the parameters go: in the query, or as a POST of a form that stands for the method.
    form: bool
    parameters: dict[str, Any]
    body: Any


def requests_of(document: Any) -> st.SearchStrategy[Made]:
    """Requests to the methods of a discovery document."""
    methods = [
        (resource, method)
        for resource, listed in document["resources"].items()
        for method in listed["methods"].values()
    ]

    def request(chosen: Any) -> st.SearchStrategy[Made]:
        resource, method = chosen
        names = [name for name, it in method["parameters"].items() if it["location"] == "query"]
        optional = {name: PARAMETERS.get(name, values) | values for name in names}
        body: st.SearchStrategy[Any] = st.none() | values
        for reference in (method.get("request") or {}).get("properties", {}).values():
            fitting = attributes(document["schemas"][reference["$ref"]], NEEDED.get(resource, {}))
            body = st.one_of(fitting, fitting, fitting, body)
        which = st.integers(0, 99).map("@{}".format) | st.sampled_from(["garbage", "a/b", "", "%00", "@5@"])
        return st.builds(
            Made,
            st.just(method["httpMethod"]),
            which.map(lambda uuid: method["path"].replace("{uuid}", uuid)),
            st.just(resource),
            st.integers(0, 1),
            st.booleans(),
            st.fixed_dictionaries({}, optional=optional),
            body,
        )

    return st.sampled_from(methods).flatmap(request)


def attributes(schema: Any, needed: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Attributes of a kind of record that are mostly of the right type, with those that it needs."""
    types = {name: it["type"] for name, it in schema["properties"].items()}
    fitting = {name: ATTRIBUTES.get(name, TYPES[kind]) for name, kind in types.items()}

    def record(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
        return st.fixed_dictionaries({name: fitting[name] if name in ATTRIBUTES else leaves for name in names})

    usual = st.lists(st.sampled_from(sorted(set(fitting) & set(ATTRIBUTES))), max_size=4).flatmap(record)
    any_type = st.lists(st.sampled_from(sorted(fitting)), max_size=2).flatmap(
        lambda names: st.fixed_dictionaries({name: fitting[name] for name in names})
    )
    return st.tuples(usual, any_type).map(lambda both: needed | both[0] | both[1])


class TwoUsers:
    """Two users who share a project each with the other, and a third whose things none of them may see."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.tokens: list[str] = []
        self.uuids: dict[str, list[str]] = {resource: [] for resource in (*KINDS, "users", "containers")}
        site = open_site(target.folder)
        people = {name: users.create(site.database, site.settings, name, is_admin=False) for name in ("a", "b", "c")}
        tokens = {name: users.new_token(site.database, site.settings, name, None) for name in people}
        site.close()
        self.uuids["users"] += people.values()
        self.tokens, self.third = [tokens["a"], tokens["b"]], tokens["c"]
        for name, other, level in (("a", "b", "can_write"), ("b", "a", "can_read")):
            project = self.make("groups", tokens[name], group_class="project", name=f"of {name}")
            share = {"link_class": "permission", "name": level, "head_uuid": project, "tail_uuid": people[other]}
            self.make("links", tokens[name], **share)
        for resource in KINDS:
            self.make(resource, tokens["c"], **{"name": SECRET, **NEEDED.get(resource, {}), "description": SECRET})
        data = b"hello"
        locator = self.put(data, self.tokens[0])
        self.texts = [f". {locator} 0:5:x\n", f". {self.put(data, self.tokens[1])} 0:5:x\n"]
        self.before = self.state()

    def make(self, resource: str, token: str, **attributes: Any) -> str:
        """A new record's UUID."""
        given = {key: it for key, it in attributes.items() if key in SERVED[resource].columns}
        answer = self.target.ask("POST", f"/arvados/v1/{resource}", json.dumps(given).encode(), token)
        self.uuids[resource].append(answer["uuid"])
        return str(answer["uuid"])

    def put(self, data: bytes, token: str) -> str:
        """The signed locator of a block, stored for a user."""
        connection, _ = connected(self.target.folder)
        connection.request("PUT", "/5d41402abc4b2a76b9719d911017c592", data, {"Authorization": f"Bearer {token}"})
        locator = connection.getresponse().read().decode().strip()
        connection.close()
        return locator

    def state(self) -> Any:
        """All that the third user has."""
        return [self.target.ask("GET", f"/arvados/v1/{name}", token=self.third)["items"] for name in KINDS]

    def filled(self, value: Any, made: Made) -> Any:
        """``value`` with what its texts stand for."""
        if isinstance(value, str):
            if value == "@text":
                return self.texts[made.who]
            return re.sub(r"@(\d+)", lambda match: self.uuid(int(match[1]), made.resource), value)
        if isinstance(value, list):
            return [self.filled(item, made) for item in value]
        if isinstance(value, dict):
            return {key: self.filled(item, made) for key, item in value.items()}
        return value

    def uuid(self, number: int, resource: str) -> str:
        """A UUID: up to 70 one of the resource's, beyond any; the newest are the likeliest."""
        of_resource = self.uuids.get(resource) if number < 70 else None
        some = of_resource or [uuid for listed in self.uuids.values() for uuid in listed]
        return some[-1 - number % min(len(some), 25)] if number % 3 else some[number % len(some)]

    def ask(self, made: Made) -> None:
        """Send one request as one of the two."""
        parameters = self.filled(made.parameters, made)
        texts = {key: it if isinstance(it, str) else json.dumps(it) for key, it in parameters.items()}
        query, path = urlencode(texts, errors="replace"), f"/arvados/v1/{quote(self.filled(made.path, made))}"
        token = self.tokens[made.who]
        body = self.filled(made.body, made)
        if made.form:
            if isinstance(body, dict) and made.resource in SERVED:
                query += "&" + urlencode({SERVED[made.resource].singular: json.dumps(body)})
            form = {"Content-Type": "application/x-www-form-urlencoded", "X-HTTP-Method-Override": made.method}
            answer = self.target.ask("POST", path, query.encode(), token, **form)
        else:
            data = None if body is None or made.method == "GET" else json.dumps(body).encode()
            answer = self.target.ask(made.method, f"{path}?{query}", data, token)
        if made.resource in KINDS and isinstance(answer, dict) and "uuid" in answer:
            self.uuids[made.resource].append(answer["uuid"])
        assert SECRET not in json.dumps(answer), made


def quick(amount: int) -> settings:
    """Hypothesis without its own limits, and without a second try: the world is another one by then."""
    checks = list(HealthCheck)
    return settings(
        max_examples=amount, deadline=None, database=None, suppress_health_check=checks, phases=[Phase.generate]
    )


@REQUESTS
def test_requests_from_the_discovery_document(target: Target, amount: int) -> None:
    document = target.ask("GET", "/discovery/v1/apis/arvados/v1/rest")
    both = TwoUsers(target)

    @quick(amount)
    @given(requests_of(document))
    def ask(made: Made) -> None:
        both.ask(made)
        target.check_growth(amount)

    ask()
    grown = target.memory() - target.warm
    sys.stdout.write(f"{target.asked} requests, slowest {target.slowest[0]:.3f} s ({target.slowest[1]})\n")
    sys.stdout.write(
        f"answers {dict(sorted(target.statuses.items()))}, grown by {grown >> 10} KiB to {target.memory() >> 20} MiB\n"
    )
    assert target.asked >= amount
    assert target.statuses[200] > amount // 10
    assert grown < GROWTH
    assert both.state() == both.before


tokens = st.one_of(
    st.sampled_from(
        [".", "./a", "./a/b", "..", "./", "", "d41d8cd98f00b204e9800998ecf8427e+0", "0:0:x", "0:5:a\\040b"]
    ),
    st.sampled_from(["d41d8cd98f00b204e9800998ecf8427e", f"{'a' * 32}+5", f"{'a' * 32}+5+A{'0' * 40}@ffffffff"]),
    st.sampled_from(
        ["0:0:.", "0:0:\\056", "0:0:\\056\\056", "1:2:a//b", f"0:{2**63}:x", f"{'9' * 30}:1:x", "0:0:\\400"]
    ),
    st.text(max_size=6),
)
lines = st.lists(tokens, min_size=1, max_size=6).map(" ".join)
texts = st.lists(lines, max_size=4).map(lambda found: "\n".join(found) + "\n") | st.text(max_size=30)


@TEXTS
def test_manifest_texts(target: Target, amount: int) -> None:
    """The site takes what the grammar allows, with the hash that the grammar gives, and refuses the rest."""

    @quick(amount)
    @given(texts)
    def ask(text: str) -> None:
        answer = target.ask("POST", "/arvados/v1/collections", json.dumps({"manifest_text": text}).encode())
        target.check_growth(amount)
        try:
            manifest_text.parse(text)
        except BadManifestText:
            assert "errors" in answer
        else:
            assert "errors" in answer or answer["portable_data_hash"] == manifest_text.pdh(text)

    ask()
    assert target.memory() - target.warm < GROWTH


def test_bytes_that_are_no_request(target: Target) -> None:
    """Broken HTTP ends that connection, not the server."""
    for junk in (
        b"\0" * 100,
        b"GET\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
        b"PUT /x HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ):
        broken, _ = connected(target.folder)
        broken.connect()
        assert broken.sock is not None
        broken.sock.sendall(junk)
        broken.sock.settimeout(2)
        with contextlib.suppress(OSError):
            assert not broken.sock.recv(100).startswith(b"HTTP/1.1 5")
        broken.close()
    assert target.ask("GET", "/arvados/v1/config")["ClusterID"]

# SPDX-License-Identifier: Apache-2.0
"""Requests made up from the discovery document, and made-up manifest texts: no 5xx but 501, no hang, no growth.

2,000 requests in a usual run, 50,000 with `--long`, to a server in a process of its own.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arv_docker.errors import BadManifestText
from arv_docker.model import manifest_text
from arv_docker.site.store.resources import SERVED

from .test_clients import Served, connected, start

#: Seconds after which an answer counts as a hang, and bytes by which the server may grow once it is warm.
HANG, GROWTH = 8, 48 << 20

AMOUNTS = pytest.mark.parametrize("amount", [1_000, pytest.param(25_000, marks=pytest.mark.long)])


class Target:
    """A served site, and what its answers may be like."""

    def __init__(self, served: Served) -> None:
        self.pid, self.folder = served.process.pid, served.folder
        self.connection, self.headers = connected(served.folder)
        self.asked = 0
        self.warm = 0

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Any:
        """An answer's body; one that is not allowed fails the test."""
        began = time.monotonic()
        status, answer = self._answer(method, path, body, headers)
        if time.monotonic() - began > HANG:  # the machine may have been busy, but not twice
            began = time.monotonic()
            status, answer = self._answer(method, path, body, headers)
            assert time.monotonic() - began <= HANG, (method, path)
        assert status < 500 or status == 501, (method, path, body, status, answer)
        self.asked += 1
        return json.loads(answer) if answer else None

    def _answer(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        self.connection.request(method, path, body, self.headers | headers)
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def memory(self) -> int:
        """What the server occupies, in bytes."""
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
    | st.sampled_from(["2026-11-20T23:00:00Z", "d41d8cd98f00b204e9800998ecf8427e+0", "arvados#collection", "project"])
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(columns(), inner, max_size=3), max_leaves=5
)
filters = st.lists(st.tuples(columns(), operators, values).map(list) | values, max_size=3)
orders = st.lists(st.tuples(columns(), st.sampled_from([" asc", " desc", "", " up"])).map("".join), max_size=3)


def requests_of(document: Any, uuids: list[str]) -> st.SearchStrategy[tuple[str, str, dict[str, Any], Any]]:
    """Requests to the methods of a discovery document: HTTP method, path, parameters, body."""
    methods = [method for listed in document["resources"].values() for method in listed["methods"].values()]
    fitting = {"filters": filters, "order": orders, "select": st.lists(columns(), max_size=3)}

    def request(method: Any) -> st.SearchStrategy[tuple[str, str, dict[str, Any], Any]]:
        names = [name for name, it in method["parameters"].items() if it["location"] == "query"]
        optional = {name: fitting.get(name, values) | values for name in names}
        path = st.sampled_from([*uuids, "garbage", "a/b", ""]).map(lambda uuid: method["path"].replace("{uuid}", uuid))
        body = st.none() | st.dictionaries(columns(), values, max_size=4) | values
        return st.tuples(st.just(method["httpMethod"]), path, st.fixed_dictionaries({}, optional=optional), body)

    return st.sampled_from(methods).flatmap(request)


def quick(amount: int) -> settings:
    """Hypothesis without its own limits."""
    return settings(max_examples=amount, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@AMOUNTS
def test_requests_from_the_discovery_document(target: Target, amount: int) -> None:
    document = target.ask("GET", "/discovery/v1/apis/arvados/v1/rest")
    uuids = [target.ask("GET", "/arvados/v1/users/current")["uuid"], "d41d8cd98f00b204e9800998ecf8427e+0"]
    for resource, attributes in (("collections", {}), ("links", {}), ("groups", {"group_class": "project"})):
        body = json.dumps(attributes | {"name": "kept", "properties": {"a": 1}}).encode()
        uuids.append(target.ask("POST", f"/arvados/v1/{resource}", body)["uuid"])

    @quick(amount)
    @given(requests_of(document, uuids))
    def ask(request: tuple[str, str, dict[str, Any], Any]) -> None:
        method, path, parameters, body = request
        query = urlencode({key: it if isinstance(it, str) else json.dumps(it) for key, it in parameters.items()})
        data = None if body is None or method == "GET" else json.dumps(body).encode()
        target.ask(method, f"/arvados/v1/{quote(path)}?{query}", data)
        target.check_growth(amount)

    ask()
    assert target.asked >= amount
    assert target.memory() - target.warm < GROWTH


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


@AMOUNTS
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

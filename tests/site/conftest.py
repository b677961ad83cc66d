# SPDX-License-Identifier: Apache-2.0
"""What the tests of the site share: a site's API as a function, and a site on a port."""

from __future__ import annotations

import hashlib
import http.client
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from arv_docker.site import LocalSite
from arv_docker.site.api.discovery import Origin
from arv_docker.site.api.endpoint import Answer, Api, Request
from arv_docker.site.folder import Site, open_site


@dataclass(frozen=True)
class Direct:
    """The API of a site, called without HTTP."""

    site: Site

    def __call__(
        self, method: str, path: str, body: object = None, *, token: str | None = None, **query: Any
    ) -> Answer:
        """The answer to a request; query values that are no strings go as JSON, as clients send them."""
        values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in query.items()}
        request = Request(
            method=method,
            path=path,
            query=urlencode(values),
            headers={
                "authorization": f"Bearer {self.site.settings.token if token is None else token}",
                "content-type": "application/json",
            },
            body=b"" if body is None else json.dumps(body).encode(),
            origin=Origin("http", "127.0.0.1", 1234),
        )
        return Api(self.site.database, self.site.settings, self.site.vocabulary).answer(request)

    def ok(self, method: str, path: str, body: object = None, **query: Any) -> Any:
        """The body of an answer that must be 200."""
        answer = self(method, path, body, **query)
        assert answer.status == 200, answer.body
        return answer.body

    def refused(self, status: int, method: str, path: str, body: object = None, **query: Any) -> str:
        """The message of an answer that must have this status."""
        answer = self(method, path, body, **query)
        assert answer.status == status, answer.body
        errors: Any = answer.body["errors"]
        return str(errors[0])

    def signed(self, data: bytes, ttl: int = 3600) -> str:
        """A locator of ``data``, signed for the user; the block itself need not exist."""
        digest = hashlib.md5(data).hexdigest()
        settings = self.site.settings
        return settings.signer.sign(f"{digest}+{len(data)}", settings.token, int(time.time()) + ttl)


@dataclass(frozen=True)
class Reply:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Web:
    """A served site, spoken to over HTTP."""

    port: int
    token: str
    folder: Path

    def __call__(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """One request on a connection of its own, with the user's token unless ``authorization`` says otherwise."""
        sent = {"authorization": f"Bearer {self.token}"} | {
            key.replace("_", "-"): text for key, text in headers.items()
        }
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, {key: value for key, value in sent.items() if value})
            answer = connection.getresponse()
            found = {key.lower(): value for key, value in answer.getheaders()}
            return Reply(answer.status, found, answer.read())
        finally:
            connection.close()

    def block(self, data: bytes) -> Path:
        """The file of a block."""
        digest = hashlib.md5(data).hexdigest()
        return self.folder / "blocks" / digest[:3] / digest


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Direct]:
    """The API of an empty site."""
    site = open_site(tmp_path / "site")
    yield Direct(site)
    site.close()


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalSite]:
    """An empty site, served over plain HTTP."""
    with LocalSite(tmp_path / "site") as running:
        yield running


@pytest.fixture
def web(local: LocalSite) -> Web:
    """The same, with a plain HTTP client in front of it."""
    return Web(int(local.url.rpartition(":")[2]), local.token, local.folder)

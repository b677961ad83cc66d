# SPDX-License-Identifier: Apache-2.0
"""A service as Rescale's beside a registry, that does as it is told and takes what its public client sends, no more.

A key (``Authorization: Token KEY``) is exchanged for a token that lives for a while, which goes with every other
request (``Bearer``); what creates has a JSON object as its body.
"""

from __future__ import annotations

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .scripted import Registry

SECRET = "the-API-key"


class ProjectService(ThreadingHTTPServer):
    """`pending` is how often an image is pending before it is ready; None for ever."""

    daemon_threads = True

    def __init__(self, registry: Registry, project: str = "p1") -> None:
        super().__init__(("127.0.0.1", 0), _Conversation)
        self.url = f"http://127.0.0.1:{self.server_port}/api/v3"
        self.registry = registry
        self.path = f"/api/v3/htc/projects/{project}"
        self.repositories: list[str] = []
        self.token = "registry-token-1"
        self.pending: int | None = 0
        self.deletes: int | None = None
        self.ready = "READY"
        self.seen: list[str] = []
        self.bearers: list[str] = []
        self.lifetime: object = 7200
        self.key = SECRET
        self.bodies: dict[str, str] = {}


class _Conversation(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ProjectService

    def _converse(self) -> None:
        server = self.server
        server.seen.append(f"{self.command} {self.path}")
        for ending, text in server.bodies.items():
            if self.path.endswith(ending):
                return self._answer(200, text)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        given = self.headers.get("Authorization")
        if self.path == "/api/v3/auth/token":
            if self.command != "GET" or given != f"Token {server.key}":
                return self._answer(401, {"errorDescription": "no such key"})
            server.bearers.append(f"bearer-{len(server.bearers) + 1}")
            return self._answer(200, {"tokenValue": server.bearers[-1], "expiresIn": server.lifetime})
        if not server.bearers or given != f"Bearer {server.bearers[-1]}":
            return self._answer(401, {"errorDescription": "who are you?"})
        if self.command == "POST" and (self.headers.get("Content-Type"), body) != ("application/json", b"{}"):
            return self._answer(400, {"errorDescription": "a JSON object is wanted"})
        path = self.path.removeprefix(server.path)
        if self.command == "POST" and (match := re.fullmatch("/container-registry/repo/(.+)", path)):
            if match[1] == "forbidden":
                return self._answer(403, {"errorDescription": "no new repositories for you"})
            if match[1] not in server.repositories:
                server.repositories.append(match[1])
            return self._answer(200, {"repositoryName": match[1]})
        if path == "":
            return self._answer(200, {"projectId": "p1", "repositories": server.repositories})
        if path == "/container-registry/token":
            return self._answer(200, server.token)
        images = [f"{repository}:{name}" for repository, name in server.registry.manifests if ":" not in name]
        if path == "/container-registry/images":
            return self._answer(200, {"images": sorted(images)})
        name = path.removeprefix("/container-registry/images/")
        if name not in images:
            return self._answer(404, {"errorDescription": "no such image"})
        if self.command == "DELETE":
            if server.deletes is None:
                for key in [key for key in server.registry.manifests if f"{key[0]}:{key[1]}" == name]:
                    del server.registry.manifests[key]
            return self._answer(server.deletes or 200, {})
        if server.pending is None or server.pending > 0:
            server.pending = None if server.pending is None else server.pending - 1
            return self._answer(200, {"status": "PENDING"})
        return self._answer(200, {"status": server.ready})

    do_GET = do_POST = do_DELETE = _converse

    def _answer(self, status: int, document: object) -> None:
        body = document.encode() if isinstance(document, str) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the one it replaces
        """Nothing."""

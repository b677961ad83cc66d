# SPDX-License-Identifier: Apache-2.0
"""A project of a service as Rescale's, whose REST interface looks after a registry.

The paths are those of its public client (docs/spec/project-registry.md#service-paths): ``/auth/token``, and below
``/htc/projects/ID/container-registry`` the images, repositories and the token for the registry.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ..errors import RegistryDenied, RegistryError, UnsupportedByRegistry, UsageError
from ..model.image import MAX_JSON_SIZE
from .access import Access
from .answer import Answer
from .credentials import Credentials, Provider, Wallet, good_until
from .http import Http, is_local
from .patience import Attempts, Patience
from .services import State

Result = TypeVar("Result")

_MAX_TOKEN = 1 << 20
#: Seconds after which a service is asked for a new token for the registry. Those of Amazon's registries live 12 hours.
_REGISTRY_LIFETIME = 3600.0
#: What a token for the service lives if it does not say, in seconds.
_LIFETIME = 300.0
#: No more names of images or repositories than these bytes hold.
_MAX_LIST = 64 << 20


class Project:
    """A project of such a service. To be closed after use."""

    def __init__(
        self,
        url: str,
        project: str,
        provider: Provider,
        *,
        patience: Patience | None = None,
        access: Access | None = None,
    ) -> None:
        """``provider`` gives the key of the REST interface, which is exchanged for tokens that live for a while.

        Raises UsageError for a URL that is not safe.
        """
        if "@" in url:
            raise UsageError("the service has a name or a password in its address: its key goes with a provider.")
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and is_local(parts.hostname or "")):
            raise UsageError(f"{url!r} is not the https:// address of a service.")
        if not project or "/" in project:
            raise UsageError(f"{project!r} is not the ID of a project.")
        plain = parts.scheme == "http"
        self._http = Http(parts.netloc, plain=plain, patience=patience, access=access, role="service")
        self._base = parts.path.rstrip("/")
        self._path = f"{self._base}/htc/projects/{project}"
        self._key = Wallet(provider)
        self._token = Wallet(self._exchanged_token)

    def credentials(self) -> Credentials:
        """Credentials for the registry, from the service; a Provider."""
        step = "getting a token for the registry"

        def read(answer: Answer) -> str:
            return answer.read_document(_MAX_TOKEN).decode(errors="replace").strip()

        token = self._request("GET", "container-registry/token", step, read)
        if not token or not token.isprintable():
            raise RegistryError(f"{self._http.host}: {step}: the answer has no token.")
        self._http.hide_secret(token)
        return Credentials("AWS", token, "password", good_until(_REGISTRY_LIFETIME))

    def create(self, repository: str) -> bool:
        """Create a repository, as the service does without a word if it is there."""
        step = f"creating repository {repository}"
        return self._request("POST", f"container-registry/repo/{repository}", step, lambda _: True)

    def repositories(self) -> Iterator[str]:
        """The repositories of the project."""
        return iter(self._list_names("", "repositories"))

    def images(self) -> Iterator[str]:
        """The images of the project."""
        return iter(self._list_names("container-registry/images", "images"))

    def tags(self, repository: str) -> Iterator[str]:
        """The tags of a repository, of the names of the project's images."""
        for name in self.images():
            if name.startswith(f"{repository}:"):
                yield name.removeprefix(f"{repository}:")

    def status(self, name: str) -> State:
        """The state of an image, as the service says."""
        step = f"asking for {name}"
        unknown: dict[str, Any] = {}
        found = self._request("GET", f"container-registry/images/{name}", step, _object_in, absent=unknown)
        if not found:
            return "absent"
        state = found.get("status")
        if state == "READY":
            return "ready"
        if state == "PENDING":
            return "pending"
        raise RegistryError(f"{self._http.host}: {step}: the status {str(state)[:100]!r} is unknown.")

    def delete(self, name: str) -> bool:
        """Delete an image, by the service; a service that has withdrawn deletion answers as for an unknown path."""
        if self.status(name) == "absent":
            return False
        step = f"deleting {name}"
        try:
            return self._request("DELETE", f"container-registry/images/{name}", step, lambda _: True)
        except RegistryError as error:
            if error.status not in (403, 404, 405, 501):
                raise
            message = f"{self._http.host}: {step}: unsupported. The service does not allow deleting."
            raise UnsupportedByRegistry(message, detail=error.detail, status=error.status) from None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # -- the conversation -------------------------------------------------------------------

    def _list_names(self, path: str, key: str) -> list[str]:
        step = f"listing {key}"
        names = self._request("GET", path, step, lambda answer: _object_in(answer, _MAX_LIST)).get(key)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise RegistryError(f"{self._http.host}: {step}: the answer is no list of {key}.")
        return names

    def _request(
        self, method: str, path: str, step: str, read: Callable[[Answer], Result], absent: Result | None = None
    ) -> Result:
        """Return the result of ``read`` for the answer; ``absent``, if given, for a missing document."""

        def attempt(attempts: Attempts) -> Result:
            with self._answer_to(method, path, step, attempts) as answer:
                if answer.status == 404 and absent is not None:
                    return absent
                if answer.status not in (200, 201, 202, 204):
                    raise answer.refusal()
                return read(answer)

        return self._http.patience.run(attempt)

    @contextmanager
    def _answer_to(self, method: str, path: str, step: str, attempts: Attempts) -> Iterator[Answer]:
        """An answer with the present token, or, if that is refused, with a new one."""
        url = f"{self._path}/{path}".rstrip("/")
        body = b"{}" if method == "POST" else None
        token = self._token.credentials()
        while True:
            headers = {"Accept": "application/json"}
            if body is not None:
                headers["Content-Type"] = "application/json"
            if token is not None:
                headers["Authorization"] = f"Bearer {token.bearer}"
            with self._http.send(method, url, headers, body=body, step=step, attempts=attempts) as answer:
                renewed = self._token.renew(token) if answer.status == 401 else None
                if renewed is None:
                    yield answer
                    return
            token = renewed

    def _exchanged_token(self) -> Credentials | None:
        """A token for the key; a Provider. A key that is refused is asked for once more: it may have been changed."""
        key = self._key.credentials()
        try:
            return self._exchange(key)
        except RegistryDenied:
            renewed = self._key.renew(key)
            if renewed is None:
                raise
            return self._exchange(renewed)

    def _exchange(self, key: Credentials | None) -> Credentials | None:
        if key is None:
            return None
        self._http.hide_secret(key.secret)
        headers = {"Accept": "application/json", "Authorization": f"Token {key.bearer}"}
        step = "getting a token for the service"
        with self._http.send("GET", f"{self._base}/auth/token", headers, step=step) as answer:
            if answer.status != 200:
                raise answer.refusal()
            found = _object_in(answer)
        token, seconds = found.get("tokenValue"), found.get("expiresIn")
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable() or " " in token:
            raise answer.error(f"{answer.giver} gives no token.")
        self._http.hide_secret(token)
        if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or seconds <= 0:
            seconds = _LIFETIME
        return Credentials("", token, "bearer", good_until(seconds))


def _object_in(answer: Answer, limit: int = MAX_JSON_SIZE) -> dict[str, Any]:
    """The JSON object in an answer; raises RegistryError for anything else."""
    try:
        found = json.loads(answer.read_document(limit))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise answer.error(f"{answer.giver} answers with something else than a JSON object.")
    return found

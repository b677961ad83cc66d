# SPDX-License-Identifier: Apache-2.0
"""What surrounds a registry: who creates repositories, lists and deletes images, and says when one can be used.

A plain registry answers all of it by the distribution API. A service as Rescale's has a
REST interface of its own beside the registry; one as Amazon's wants repositories created
before a push, by a command of the user's.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar
from urllib.parse import urlsplit

from ..errors import NoSuchImage, RegistryError, Unsupported, UsageError
from ..local.settings import command_environment
from ..model.image import MAX_JSON_SIZE, json_object
from ..model.reference import Reference
from .client import Client
from .credentials import Credentials, Provider, Wallet, good_until
from .http import Http, Patience, is_local
from .mirrors import repository_of

if TYPE_CHECKING:
    import urllib3

Answer = TypeVar("Answer")
State = Literal["ready", "pending", "absent"]

#: Seconds that a command that creates a repository may take.
_TIMEOUT = 300.0
#: Seconds after which a service is asked for a new token. Those of Amazon's registries live 12 hours.
_TOKEN_LIFETIME = 3600.0


class Service(Protocol):
    """The questions that every registry answers in its own way, about repositories and names (``repository:tag``)
    without the registry's host and folder. Each may raise RegistryError, and Unsupported for what is not offered."""

    def create(self, repository: str) -> bool:
        """Has a repository be there before a push; False if it was, or need not be."""

    def repositories(self) -> Iterator[str]:
        """The repositories that there are."""

    def images(self) -> Iterator[str]:
        """The names of all images."""

    def status(self, name: str) -> State:
        """Whether an image of that name can be used. Not whether it is the newest: names that are unique say that."""

    def delete(self, name: str) -> bool:
        """Takes an image away; False if there was none."""


class PlainService:
    """A registry that needs nothing else. ``folder`` is where in it all repositories are.

    ``command`` creates a repository, whose name is put behind it; without one, pushing does.
    """

    def __init__(self, client: Client, folder: str = "", command: Sequence[str] = ()) -> None:
        self._client = client
        self._beginning = f"{folder}/" if folder else ""
        self._command = tuple(command)

    def create(self, repository: str) -> bool:
        """Runs the command if there is one and the repository is not there. Raises RegistryError if it fails."""
        if not self._command or self._exists(repository):
            return False
        step = f"{self._client.host}: creating repository {repository}"
        try:
            done = subprocess.run(
                [*self._command, self._beginning + repository],
                capture_output=True,
                timeout=_TIMEOUT,
                env=command_environment(),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RegistryError(f"{step}: {self._command[0]} cannot be run: {error}.") from None
        if done.returncode and self._exists(repository):
            return False  # another push was faster
        if done.returncode:
            said = done.stderr.decode(errors="replace")
            raise RegistryError(f"{step}: {self._command[0]} ended with {done.returncode}.", detail=said)
        return True

    def repositories(self) -> Iterator[str]:
        """Those of the folder."""
        for name in self._client.repositories():
            if name.startswith(self._beginning):
                yield name.removeprefix(self._beginning)

    def images(self) -> Iterator[str]:
        """Every tag of every repository."""
        for repository in self.repositories():
            for tag in self._tags(repository):
                yield f"{repository}:{tag}"

    def status(self, name: str) -> State:
        """Ready once the name has a manifest: a registry takes one only when all that it names is there."""
        return "absent" if self._client.digest_of(*self._repository_and_tag(name)) is None else "ready"

    def delete(self, name: str) -> bool:
        """Takes the tag away. A registry that knows no such thing deletes the image, if no other tag is of it."""
        repository, tag = self._repository_and_tag(name)
        digest = self._client.digest_of(repository, tag)
        if digest is None:
            return False
        try:
            if self._client.delete(repository, tag):
                return True
        except Unsupported:
            pass
        others = [it for it in self._tags(repository) if it != tag and self._client.digest_of(repository, it) == digest]
        if others:
            raise Unsupported(
                f"{self._client.host}: deleting {name}: unsupported. The registry deletes an image with all its names, "
                f"and this one is also {', '.join(others)}."
            )
        gone = self._client.delete(repository, digest)
        if not gone and self._client.digest_of(repository, tag) is not None:
            raise Unsupported(f"{self._client.host}: deleting {name}: unsupported. The registry has no way to do that.")
        return gone

    def _exists(self, repository: str) -> bool:
        try:
            next(self._client.tags(self._beginning + repository), None)
        except NoSuchImage:
            return False
        return True

    def _tags(self, repository: str) -> Iterator[str]:
        try:
            yield from self._client.tags(self._beginning + repository)
        except NoSuchImage:  # a repository may be listed before its first image comes, and after its last went
            return

    def _repository_and_tag(self, name: str) -> tuple[str, str]:
        """Repository and tag as the registry has them; raises BadReference or UsageError for what is no name."""
        parsed = Reference.parse(f"{self._client.host}/{self._beginning}{name}")
        if parsed.digest is not None or parsed.tag is None:
            raise UsageError(f"{name!r} is not REPOSITORY:TAG.")
        return repository_of(parsed), parsed.tag


class Project:
    """A project of a service as Rescale's, whose REST interface looks after a registry.

    The paths are those of its public client (docs/spec/project-registry.md#service-paths): ``/htc/projects/ID`` and
    ``container-registry/{images[/NAME],repo/NAME,token}`` below it.
    """

    def __init__(self, url: str, project: str, provider: Provider, *, patience: Patience | None = None) -> None:
        """``provider`` gives the secret for the REST interface. Raises UsageError for a URL that is not safe."""
        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise UsageError("the service has a name or a password in its address: its token goes with a provider.")
        if parts.scheme != "https" and not (parts.scheme == "http" and is_local(parts.hostname or "")):
            raise UsageError(f"{url!r} is not the https:// address of a service.")
        if not project or "/" in project:
            raise UsageError(f"{project!r} is not the ID of a project.")
        self._http = Http(parts.netloc, plain=parts.scheme == "http", patience=patience)
        self._path = f"{parts.path.rstrip('/')}/htc/projects/{project}"
        self._wallet = Wallet(provider)

    def credentials(self) -> Credentials:
        """For the registry, from the service; a Provider."""
        step = "getting a token for the registry"

        def read(response: urllib3.BaseHTTPResponse) -> str:
            return self._http.read_content(response, 1 << 20, step).decode(errors="replace").strip()

        token = self._request("GET", "container-registry/token", step, read)
        if not token or not token.isprintable():
            raise RegistryError(f"{self._http.host}: {step}: the answer has no token.")
        self._http.hide_secret(token)
        return Credentials("AWS", token, "password", good_until(_TOKEN_LIFETIME))

    def create(self, repository: str) -> bool:
        """Asks for the repository, which changes nothing if it is there."""
        step = f"creating repository {repository}"
        return self._request("POST", f"container-registry/repo/{repository}", step, lambda _: True)

    def repositories(self) -> Iterator[str]:
        """Those that the project has."""
        return iter(self._list_names("", "repositories"))

    def images(self) -> Iterator[str]:
        """Those that the project has."""
        return iter(self._list_names("container-registry/images", "images"))

    def status(self, name: str) -> State:
        """What the service says."""
        step = f"asking for {name}"
        unknown: dict[str, Any] = {}
        found = self._request(
            "GET", f"container-registry/images/{name}", step, self._object_reader(step), absent=unknown
        )
        if not found:
            return "absent"
        state = found.get("status")
        if state == "READY":
            return "ready"
        if state == "PENDING":
            return "pending"
        raise RegistryError(f"{self._http.host}: {step}: the status {state!r} is unknown.")

    def delete(self, name: str) -> bool:
        """Asks the service to; one that has withdrawn that answers as if it did not know the path."""
        if self.status(name) == "absent":
            return False
        step = f"deleting {name}"
        try:
            return self._request("DELETE", f"container-registry/images/{name}", step, lambda _: True)
        except RegistryError as error:
            if error.status not in (403, 404, 405, 501):
                raise
            message = f"{self._http.host}: {step}: unsupported. The service does not allow deleting."
            raise Unsupported(message, detail=error.detail, status=error.status) from None

    def _list_names(self, path: str, key: str) -> list[str]:
        step = f"listing {key}"
        names = self._request("GET", path, step, self._object_reader(step)).get(key)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise RegistryError(f"{self._http.host}: {step}: the answer is no list of {key}.")
        return names

    def _object_reader(self, step: str) -> Callable[[urllib3.BaseHTTPResponse], dict[str, Any]]:
        def read(response: urllib3.BaseHTTPResponse) -> dict[str, Any]:
            return json_object(self._http.read_content(response, MAX_JSON_SIZE, step), what="the service's answer")

        return read

    def _request(
        self,
        method: str,
        path: str,
        step: str,
        read: Callable[[urllib3.BaseHTTPResponse], Answer],
        absent: Answer | None = None,
    ) -> Answer:
        """What ``read`` makes of the answer; ``absent`` for what is not there, where that is given."""

        def attempt() -> Answer:
            with self._answer(method, path, step) as response:
                if response.status == 404 and absent is not None:
                    return absent
                if response.status not in (200, 201, 202, 204):
                    raise self._http.refusal_of(response, step)
                return read(response)

        return self._http.patience.run(attempt)

    @contextmanager
    def _answer(self, method: str, path: str, step: str) -> Iterator[urllib3.BaseHTTPResponse]:
        """An answer to the secret of the wallet, or, if that is refused, to the next one."""
        url = f"{self._path}/{path}".rstrip("/")
        credentials = self._wallet.credentials()
        while True:
            headers = {"Accept": "application/json", "Content-Length": "0"}
            if credentials is not None:
                self._http.hide_secret(credentials.secret)
                headers["Authorization"] = f"Bearer {credentials.bearer}"
            with self._http.send(method, url, headers, step=step) as response:
                renewed = self._wallet.renew(credentials) if response.status == 401 else None
                if renewed is None:
                    yield response
                    return
            credentials = renewed

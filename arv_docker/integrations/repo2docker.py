# SPDX-License-Identifier: Apache-2.0
"""``repo2docker --engine keep``: images that repo2docker builds and pushes end in Keep.

This package needs no repo2docker; this module does, and repo2docker finds it by its entry
point. One class serves both generations of repo2docker: that of before 2025.8, which asks
for ``images`` and ``push``, and the one that has ``build`` push (docs/repo2docker.md).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from repo2docker.engine import BuildError, Container, ContainerEngine, ContainerEngineException, Image, ImageLoadError
from traitlets import Bool, Dict, Enum, Int, Unicode, default, validate

from ..api import open_cluster
from ..arvados.api_requests import RETRIES
from ..engines.docker import Docker
from ..engines.podman import Podman
from ..errors import ArvDockerError, BadSettings, NoCluster
from ..local.progress import printable
from .container_engine import ContainerEngine as Engine
from .container_engine import logins_of

if TYPE_CHECKING:
    from ..arvados.client import Cluster
    from ..engines.container import Container as Started
    from ..registry.credentials import Credentials

Value = TypeVar("Value")

#: Where repo2docker and BinderHub put credentials for a registry, as JSON.
_CREDENTIALS = "CONTAINER_ENGINE_REGISTRY_CREDENTIALS"


class KeepEngine(ContainerEngine):
    """An engine of repo2docker that builds with Docker or Podman, and pushes into Keep."""

    string_output = True

    backend = Enum(["docker", "podman"], "docker", config=True, help="The engine that builds and runs.")
    project_uuid = Unicode("", config=True, help="The project to own collections and links; your home if empty.")
    local = Unicode(
        None,
        allow_none=True,
        config=True,
        help="Push to the site on this machine in this folder, or to the default one if empty, instead of to "
        "the cluster of ARVADOS_API_HOST.",
    )
    retries = Int(RETRIES, min=0, config=True, help="How often a failed request to the cluster is tried again.")
    label_properties = Bool(
        False,
        config=True,
        help="Note repo2docker's labels (repository, commit, version) as properties of the collection. A cluster with "
        "a strict vocabulary may refuse them, which is said and is no failure.",
    )
    registry_credentials = Dict(
        config=True,
        help=f"registry, username and password for the images that are built from; else the JSON in {_CREDENTIALS}.",
    )

    def build(
        self,
        *,
        push: bool = False,
        load: bool = False,  # noqa: ARG002 -- the engine has it in any case
        **wanted: Any,
    ) -> Generator[str, None, None]:
        """Build an image into the engine, and push it if wanted; that a push is possible is checked first."""
        if push:
            yield from _raising(ImageLoadError, lambda: self._engine().check())
        yield from _raising(BuildError, lambda: self._engine().build(**wanted))
        if push:
            yield from self.push(wanted["tag"])

    def push(self, image_spec: str) -> Generator[str, None, None]:
        """Put the image into Keep."""
        yield from _raising(ImageLoadError, lambda: self._engine().push(image_spec))

    def images(self) -> list[Image]:
        """The images of the engine."""
        return [Image(tags=image.tags) for image in self._ask(lambda engine: engine.images())]

    def inspect_image(self, image: str) -> Image | None:
        """Return the image, or None."""
        found = self._ask(lambda engine: engine.inspect_image(image))
        return None if found is None else Image(tags=found.tags, config=dict(found.config or {}))

    def run(self, image_spec: str, **wanted: Any) -> Container:
        """Start a container."""
        return _Container(self._ask(lambda engine: engine.run(image_spec, **wanted)))

    @validate("local")
    def _local_validate(self, proposal: Any) -> str | None:
        """Make the path absolute, for repo2docker changes to another folder to build."""
        folder: str | None = proposal["value"]
        return str(Path(folder).absolute()) if folder else folder

    # Named as repo2docker's own methods, which these replace: its check accepts nothing, and nobody handles its error.

    @default("registry_credentials")
    def _registry_credentials_default(self) -> dict[str, str]:
        return {}

    @validate("registry_credentials")
    def _registry_credentials_validate(self, proposal: Any) -> dict[str, str]:
        credentials: dict[str, str] = proposal["value"]
        return credentials

    def _ask(self, question: Callable[[Engine], Value]) -> Value:
        """Return the engine's answer; a failure is logged, for repo2docker would end without a word."""
        try:
            return question(self._engine())
        except ArvDockerError as error:
            self.log.error(f"{printable(str(error))}\n")
            raise ImageLoadError(error.message) from error

    def _engine(self) -> Engine:
        """Make an engine; repo2docker makes an object of this class for each thing that it does."""
        backends: dict[str, type[Docker | Podman]] = {"docker": Docker, "podman": Podman}
        return Engine(
            backends[self.backend](),
            self._cluster,
            project=self.project_uuid or None,
            labels_as_properties=self.label_properties,
            logins=self._logins(),
        )

    def _cluster(self) -> AbstractContextManager[Cluster]:
        return open_cluster(self.local, retries=self.retries)

    def _logins(self) -> dict[str, Credentials]:
        if self.registry_credentials:
            return logins_of(self.registry_credentials, "KeepEngine.registry_credentials")
        try:
            found = json.loads(os.environ.get(_CREDENTIALS) or "{}")
        except ValueError:
            raise BadSettings(f"the variable {_CREDENTIALS} is not JSON.") from None
        return logins_of(found, f"the variable {_CREDENTIALS}")


@Container.register
class _Container:
    """A container with logs in bytes, as repo2docker expects against its own interface."""

    def __init__(self, container: Started) -> None:
        self._container = container

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def logs(self, *, stream: bool = False, **options: Any) -> bytes | Iterator[bytes]:
        if stream:
            return (line.encode() for line in self._container.logs(stream=True, **options))
        return "".join(self._container.logs(**options)).encode()


def _raising(
    failure: type[ContainerEngineException], work: Callable[[], Iterable[str] | None]
) -> Generator[str, None, None]:
    """Yield the lines of some work, and those of an error before ``failure``, of which repo2docker shows nothing."""
    try:
        yield from work() or ()
    except ArvDockerError as error:
        yield f"{printable(str(error))}\n"
        if type(error) is NoCluster:
            yield "To repo2docker, --local is --KeepEngine.local=FOLDER.\n"
        raise failure(error.message) from error

# SPDX-License-Identifier: Apache-2.0
"""Build, look at, run, and push into Keep: the interface of repo2docker's engines, without repo2docker.

Other engines push to a registry; this one pushes into Keep. Nothing is remembered between two calls, so a program may
make as many objects as it likes.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from ..engines import container
from ..engines.building import Build
from ..engines.output import steady_lines
from ..engines.run_options import run_options
from ..errors import ClusterError, NoSuchImage, UsageError
from ..local.progress import Progress, SilentProgress, size_text
from ..local.settings import settings
from ..model.manifest import parse_platform
from ..model.reference import DEFAULT_REGISTRY, Reference, parse_name
from ..registry.credentials import Credentials
from ..store.tarballs import cache_folder
from .stream_progress import stream_progress

if TYPE_CHECKING:
    from ..arvados.client import Cluster
    from ..engines import EngineImage
    from ..engines.container import Container
    from ..engines.docker import Docker
    from ..engines.podman import Podman
    from ..ingest.options import Options
    from ..ingest.results import IngestResult

Value = TypeVar("Value")

#: repo2docker's names for the limits of a build, with those of a ``Build``.
_LIMITS = {"memory": "memory", "memswap": "memory_swap", "cpushares": "cpu_shares", "cpusetcpus": "cpuset_cpus"}
#: repo2docker's labels: repository, commit and its own version.
_LABELS = "repo2docker."
#: Other names of Docker Hub.
_HUB = dict.fromkeys(("", "index.docker.io", "registry-1.docker.io"), DEFAULT_REGISTRY)
#: Where Podman puts what is built here.
_OWN = "localhost/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image of the engine. ``config`` is None if not requested; else ``WorkingDir`` is in it."""

    tags: list[str]
    config: Mapping[str, Any] | None = None


class ContainerEngine:
    """Docker or Podman, with Keep in the place of a registry. Every method raises the ArvDockerError that fits."""

    #: What ``build`` and ``push`` give are texts, and what fails is raised.
    string_output = True

    def __init__(
        self,
        engine: Docker | Podman,
        cluster: Callable[[], AbstractContextManager[Cluster]] | None = None,
        *,
        project: str | None = None,
        labels_as_properties: bool = False,
        logins: Mapping[str, Credentials] | None = None,
    ) -> None:
        """Use ``cluster`` to open the cluster to push to, by default the configured one.

        ``project`` owns the pushed images. With ``labels_as_properties`` repo2docker's labels of an
        image become properties of its collection. ``logins`` are for the registries that a build needs.
        """
        self._engine = engine
        self._cluster = cluster or _configured_cluster
        self._project = project
        self._labels_as_properties = labels_as_properties
        self._logins = logins or {}

    def build(
        self,
        *,
        buildargs: Mapping[str, str] | None = None,
        cache_from: Sequence[str] | None = None,
        container_limits: Mapping[str, str | int] | None = None,
        tag: str = "",
        custom_context: bool = False,
        dockerfile: str = "",
        fileobj: IO[bytes] | None = None,
        path: str = "",
        labels: Mapping[str, str | None] | None = None,
        platform: str | None = None,
        **others: object,
    ) -> Generator[str, None, EngineImage]:
        """Build an image: yield the lines of the log as they come, and return the image.

        The context is the folder ``path``, or the tar in ``fileobj`` (with ``custom_context``),
        which may also be a Dockerfile alone; ``dockerfile`` is a path within it. A label without a
        value is left out. Options in ``others`` are not known here, and a line says so.
        """
        if unknown := sorted(name for name, value in others.items() if value):
            yield f"warning: left out, for it is not known to this engine: {', '.join(unknown)}\n"
        if custom_context and fileobj is None:
            raise UsageError("a context of its own (custom_context) is a tar in fileobj, and none is given.")
        with _context(fileobj, path) as context:
            wanted = Build(
                context,
                tag=Reference.parse(tag) if tag else None,
                dockerfile=dockerfile,
                arguments=buildargs or {},
                labels={name: value for name, value in (labels or {}).items() if value is not None},
                platform=parse_platform(platform) if platform else None,
                cache_from=cache_from or (),
                logins=self._logins,
                **_limits(container_limits or {}),
            )
            return (yield from steady_lines(self._engine.build(wanted)))

    def images(self) -> list[Image]:
        """The images of the engine with their names, newest first."""
        tags: dict[str, list[str]] = {}
        for line in self._engine.list():
            named = tags.setdefault(str(line.id), [])
            if "<none>" not in (line.repository, line.tag):
                named.append(_familiar_name(f"{line.repository}:{line.tag}"))
        return [Image(tags=named) for named in tags.values()]

    def inspect_image(self, image: str) -> Image | None:
        """Return the engine's image of that name or ID, or None."""
        try:
            found = self._engine.inspect(parse_name(image))
        except NoSuchImage:
            return None
        return Image(tags=list(map(_familiar_name, found.tags)), config={"WorkingDir": "", **found.config})

    def check(self) -> None:
        """Raise the error that would stop a push: no cluster, or unreachable, or another user's project."""
        from ..ingest.preflight import Preflight

        with self._cluster() as cluster:
            Preflight(cluster, self._options(), SilentProgress()).check()

    def push(self, image_spec: str) -> Generator[str, None, IngestResult]:
        """Put an image of the engine into Keep, if Keep lacks it: yield lines of progress, and return the result.

        The last line names the collection and its portable data hash. Closing the generator ends the push, and the
        next push goes on where it ended.
        """
        return (yield from stream_progress(lambda progress: self._push(image_spec, progress)))

    def run(
        self,
        image_spec: str,
        *,
        command: Sequence[str] = (),
        environment: Sequence[str] = (),
        ports: Mapping[str, int | str | tuple[str, int | str] | None] | None = None,
        publish_all_ports: bool = False,
        remove: bool = False,
        volumes: Mapping[str, str | Mapping[str, str]] | None = None,
        **others: object,
    ) -> Container:
        """Start a container of an image of the engine.

        ``environment`` are texts ``NAME=value``, ``ports`` those of the container with what they are
        here (``{"8888/tcp": ("127.0.0.1", 8888)}``), ``volumes`` paths here with their places there, or with
        ``{"bind": place, "mode": "ro"}``. ``others`` are names of docker-py for options that the command has too, such
        as ``cpu_quota``. Raises UsageError for the rest.
        """
        wanted = container.Run(
            image_spec,
            command=command,
            environment=environment,
            ports=ports or {},
            publish_all_ports=publish_all_ports,
            remove=remove,
            options=run_options(others),
            volumes={path: _place(volume) for path, volume in (volumes or {}).items()},
        )
        return container.start_container(self._engine, wanted)

    def _options(self) -> Options:
        from ..ingest.options import Options

        return Options.from_settings(settings(), cache_folder(), self._project)

    def _push(self, image_spec: str, progress: Progress) -> IngestResult:
        from ..arvados.trust import Trust
        from ..ingest.service import Ingest

        name = parse_name(image_spec)
        image = self._engine.inspect(name)
        with self._cluster() as cluster:
            ingest = Ingest(cluster, self._options(), progress, Trust.from_settings(cluster, settings()))
            stored = ingest.from_engine(self._engine, name, image)
            if self._labels_as_properties:
                _add_properties(cluster, stored.uuid, _labels_of(image), progress)
        state = "was in Keep already" if stored.already else f"is stored in Keep, {size_text(stored.bytes_sent)} sent"
        progress.say(f"{image_spec} {state}: {stored.uuid}, portable data hash {stored.pdh}")
        return stored


def logins_of(document: object, where: str) -> dict[str, Credentials]:
    """Read repo2docker's credentials for a registry, ``{"registry": …, "username": …, "password": …}``.

    Without a registry they are for Docker Hub; empty ones give none. ``where`` names their place for the message of
    UsageError, which shows nothing of them.
    """
    if not document:
        return {}
    values = [document.get(key) for key in ("username", "password")] if isinstance(document, Mapping) else []
    registry = document.get("registry", "") if isinstance(document, Mapping) else None
    if not isinstance(registry, str) or not values or not all(isinstance(value, str) and value for value in values):
        raise UsageError(f"{where} is not an object with the texts username, password and, if need be, registry.")
    host = registry.partition("://")[2] or registry
    name, password = map(str, values)
    return {_HUB.get(host.partition("/")[0], host.partition("/")[0]): Credentials(name, password)}


@contextmanager
def _context(fileobj: IO[bytes] | None, path: str) -> Iterator[Path | IO[bytes]]:
    """The context for a command: a folder as it is, a Python file object copied to a file that commands can read."""
    if fileobj is None:
        yield Path(path)
        return
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(fileobj, file)
        file.seek(0)
        yield file


def _limits(limits: Mapping[str, str | int]) -> dict[str, str]:
    if unknown := sorted(set(limits) - set(_LIMITS)):
        raise UsageError(f"a build cannot be limited by {', '.join(unknown)}. Known: {', '.join(_LIMITS)}.")
    return {_LIMITS[name]: str(value) for name, value in limits.items() if value}


def _place(volume: str | Mapping[str, str]) -> tuple[str, str]:
    return (volume, "rw") if isinstance(volume, str) else (volume["bind"], volume.get("mode", "rw"))


def _familiar_name(name: str) -> str:
    return name.removeprefix(_OWN)


def _labels_of(image: EngineImage) -> dict[str, str]:
    labels = image.config.get("Labels") or {}
    return {name: value for name, value in labels.items() if name.startswith(_LABELS)}


def _add_properties(cluster: Cluster, uuid: str, properties: Mapping[str, str], progress: Progress) -> None:
    """Add missing properties to the collection; warn where the cluster refuses them."""
    collection = cluster.collection(uuid)
    wanted = {**collection.properties, **properties}
    if wanted == collection.properties:
        return
    try:
        cluster.update_collection(uuid, {"properties": wanted})
    except ClusterError as error:
        if error.status not in (403, 422):
            raise
        progress.warn(f"the cluster takes no properties {', '.join(properties)}: {error.in_one_line}")


@contextmanager
def _configured_cluster() -> Iterator[Cluster]:
    from ..arvados.client import Cluster

    yield Cluster.from_settings()

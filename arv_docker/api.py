# SPDX-License-Identifier: Apache-2.0
"""Functions for other programs: the collection of an image, stored first if need be, and a cluster to ask.

``get_image`` raises the errors of ``arv_docker.errors`` and never SystemExit; it may be
called from many threads and processes at once, for the same image too.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .arvados.api_requests import RETRIES
from .arvados.catalog import link_query
from .arvados.catalog.ranking import TIMESTAMP
from .arvados.client import Cluster, Link
from .arvados.trust import Trust
from .engines import Engine
from .engines.apptainer import Apptainer
from .engines.auto import Auto
from .engines.docker import Docker
from .engines.podman import Podman
from .errors import NoSuchImage, UsageError
from .ingest.from_engine import store_from_engine
from .ingest.from_keep import find_in_keep
from .ingest.options import Options
from .ingest.request import IngestRequest
from .ingest.results import IngestResult
from .ingest.service import Ingest
from .local.progress import Progress, SilentProgress
from .local.settings import Settings
from .local.settings import settings as user_settings
from .model.image import Digest, Platform, parsed_time
from .model.reference import ImageId, Reference, parse_name
from .registry.access import Access
from .staging.deployment import DeployedImage, deploy_images
from .staging.folder import PlainFolder
from .staging.origins import Origin, usual_origins
from .staging.stage import stage_images
from .staging.staged import Container, Copy, Folder
from .store import tarballs
from .store.cache import CacheFolder
from .transports.names import Choice


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image in Keep.

    A container request names it by ``pdh``. ``image_timestamp`` is when the image was
    built, None where it does not say; ``linked_at`` and ``linked_by`` tell of the link by
    which it was found, ``trusted`` whether its writer's word is taken.
    """

    uuid: str
    pdh: str
    image_id: Digest
    name: str
    image_timestamp: datetime.datetime | None
    linked_at: datetime.datetime | None
    linked_by: str
    trusted: bool

    def as_json(self) -> dict[str, str | bool | None]:
        """The record as a document for JSON: the ID as text, times as RFC 3339."""

        def text(time: datetime.datetime | None) -> str | None:
            return None if time is None else time.isoformat()

        return {
            "uuid": self.uuid,
            "pdh": self.pdh,
            "image_id": str(self.image_id),
            "name": self.name,
            "image_timestamp": text(self.image_timestamp),
            "linked_at": text(self.linked_at),
            "linked_by": self.linked_by,
            "trusted": self.trusted,
        }


def get_image(
    api: Any,
    reference: str,
    *,
    project_uuid: str | None = None,
    pull: bool = False,
    engine: Engine | str | None = None,
    trust_readable: bool = False,
    retries: int = RETRIES,
    progress: Progress | None = None,
    cache: Path | None = None,
    settings: Settings | None = None,
) -> ImageRecord:
    """Return the image that ``reference`` names, as the cluster behind ``api`` has it; store it first if need be.

    ``reference`` is an image's name with any registry, port, tag and digest, or its ID.
    What Keep has is taken from there, and copied into ``project_uuid`` if that is given. A name means what the cluster
    takes it for; where an untrusted user says so, ``progress`` is warned and the record is not ``trusted``. What Keep
    has not is stored from ``engine``, an object or a name as of ``open_engine`` (Docker unless given). ``pull`` fetches
    it from its registry first, so that the newest one is taken. ``api`` is a client object of the Arvados SDK.
    ``cache`` is the folder for what an interrupted run leaves, and ``settings`` say whose links are trusted and how
    images are named; those of the user unless given.

    Raises NoSuchImage where neither Keep nor the engine has it, EngineError where Keep has
    not and the engine cannot be asked, and what storing it may raise.

    >>> import arvados, arv_docker  # doctest: +SKIP
    >>> image = arv_docker.get_image(arvados.api("v1"), "localhost:5000/tools/bwa:0.7")  # doctest: +SKIP
    >>> request = {"container_image": image.pdh}  # doctest: +SKIP
    """
    name = parse_name(reference)
    cluster = Cluster(api, retries=retries)
    settings = settings or user_settings()
    trust = Trust.from_settings(cluster, settings, readable=trust_readable)
    progress = progress or SilentProgress()
    if not pull and project_uuid is None and (record := _record_in_keep(cluster, name, trust, progress)) is not None:
        return record
    ingest = Ingest(
        cluster, Options.from_settings(settings, cache or tarballs.cache_folder(), project_uuid), progress, trust
    )
    request = IngestRequest((reference,), pull=pull, prefer_keep=True, follow_cluster=True)
    stored = store_from_engine(ingest, request, lambda: open_engine(engine, settings=settings), name, progress=progress)
    return _record(cluster, name, stored, trust)


def open_engine(engine: Engine | str | None = None, *, settings: Settings | None = None) -> Engine:
    """Return the engine called ``docker``, ``podman`` or ``auto`` (the first that has the image); Docker unless given.

    An engine object is returned as it is. ``settings`` say how long it may be silent; those of the user unless given.
    Raises NoEngine where it is not installed, UsageError for another name.
    """
    timeout = (settings or user_settings()).engine_timeout
    engines: dict[str, Callable[[], Engine]] = {
        "docker": partial(Docker, timeout=timeout),
        "podman": partial(Podman, timeout=timeout),
    }
    if engine is None or isinstance(engine, str):
        name = engine or "docker"
        if name == "auto":
            return Auto(list(engines.values()), lambda _: None)
        if name not in engines:
            raise UsageError(f"{name!r} is no engine: write {', '.join(engines)} or auto.")
        return engines[name]()
    return engine


def materialize(
    references: Iterable[str | Container],
    directory: Path | str,
    offline: bool = False,
    force: bool = False,
    injected: Sequence[Container] = (),
    *,
    platform: Platform | str | None = None,
    origins: Sequence[Origin] | None = None,
    folder: Folder | None = None,
    progress: Progress | None = None,
    cache: Path | None = None,
    settings: Settings | None = None,
) -> tuple[Container, ...]:
    """Put images into ``directory``, each once, with their metadata, and return them as they are there, in their order.

    An image is asked for by name or ID, or as a ``Container`` of an earlier time, whose
    digest in its registry is then asked for first. What is staged there already stays,
    unless ``force`` fetches it anew; ``offline`` asks nothing but the cache, and overwrites
    nothing. ``injected`` are images that are taken as they are in place of fetching those of
    their names. ``platform`` (``linux/arm64``) says which of several images of a name is meant;
    a folder has one of them. ``origins`` are asked in their order (the configured cluster, Docker or
    Podman, the registry); ``folder`` is the form in which the directory is kept. ``cache`` and ``settings`` are those
    of the user unless given.

    Raises NoSuchImage, which names all that cannot be had, and OtherImage where the directory has
    one for another platform, before anything is changed; and what reading and writing raise,
    after which the next call completes the work.

    >>> import arv_docker  # doctest: +SKIP
    >>> staged = arv_docker.materialize(["busybox:latest"], "containers")  # doctest: +SKIP
    >>> staged[0].image_id, staged[0].paths  # doctest: +SKIP
    """
    progress = progress or SilentProgress()
    cache = cache or tarballs.cache_folder()
    if origins is None and not offline:
        choice = Choice(
            access=Access.of_user(),
            progress=progress,
            settings=settings or user_settings(),
            cache=CacheFolder.at(cache),
        )
        origins = usual_origins(choice)
    return stage_images(
        references,
        folder or PlainFolder(Path(directory), progress=progress),
        origins or (),
        cache,
        offline=offline,
        force=force,
        injected=injected,
        platform=platform,
        progress=progress,
    )


def deploy(
    directory: Path | str,
    engine: Engine | Apptainer | None = None,
    *,
    copies: Sequence[Copy] | None = None,
    progress: Progress | None = None,
    cache: Path | None = None,
) -> tuple[DeployedImage, ...]:
    """Load every image of the folder that the engine (Docker unless given) lacks, under its name.

    For Apptainer a SIF file is built where the folder has only an archive; other engines take no SIF files.
    ``copies`` are what the folder holds, where that is of another form than the usual one; ``cache`` is the user's
    unless given. Raises NoSuchImage for one that holds no image, NotVerified, before anything is loaded, if something
    in it is not as it was staged, and EngineError.

    >>> import arv_docker  # doctest: +SKIP
    >>> [it.container.name for it in arv_docker.deploy("containers") if it.loaded]  # doctest: +SKIP
    """
    engine = engine if isinstance(engine, Apptainer) else open_engine(engine)
    folder = CacheFolder(tarballs.cache_folder) if cache is None else CacheFolder.at(cache)
    return deploy_images(directory, engine, folder, copies=copies, progress=progress)


@contextmanager
def open_cluster(local: str | Path | None = None, *, retries: int = RETRIES) -> Iterator[Cluster]:
    """Open the cluster of the Arvados settings; with ``local``, the site in that folder, while the block lasts.

    The folder is made where it is not there; an empty text means ``$ARV_DOCKER_SITE``, or the one in the user's data
    folder. Raises NoCluster where no cluster is configured.

    >>> import arv_docker  # doctest: +SKIP
    >>> with arv_docker.open_cluster("trial") as cluster:  # doctest: +SKIP
    ...     cluster.user_uuid
    """
    if local is None:
        yield Cluster.from_settings(retries=retries)
        return
    from . import site

    with site.LocalSite(Path(local) if local else site.default_folder()) as running:
        yield Cluster.at_url(running.url, running.token, retries=retries)


def _record_in_keep(
    cluster: Cluster, name: Reference | ImageId, trust: Trust, progress: Progress
) -> ImageRecord | None:
    """Return the image the cluster takes the name for; None for an image to be stored or proven. Write nothing."""
    image = find_in_keep(cluster, name, trust, progress, follow_cluster=True)
    if image is None:
        return None
    links = link_query.links_to(cluster, [image.collection.uuid])
    named = image.name.link_name if image.name is not None else str(image.image_id)
    links = [link for link in links if link.name == named]
    if image.untrusted_writer is None:
        links = [link for link in links if trust.attests(link, image.collection)]
    if not links:
        return None  # by a further digest, or by a stranger's word: it is read back, and linked under its own ID
    return _record_of(
        image.collection.uuid, image.collection.pdh, image.image_id, name=name, link=links[0], trust=trust
    )


def _record(cluster: Cluster, name: Reference | ImageId, stored: IngestResult, trust: Trust) -> ImageRecord:
    """Record of an image that was stored just now, whatever else the name may mean to the cluster."""
    names = (stored.name, str(stored.image_id))
    links = [link for link in link_query.links_to(cluster, [stored.uuid]) if link.name in names]
    if not links:
        raise NoSuchImage(f"the links of {stored.uuid}, which {name} is stored as, were deleted meanwhile. Try again.")
    link = max(links, key=lambda link: (link.name == stored.name, trust.includes(link.modified_by)))
    return _record_of(stored.uuid, stored.pdh, stored.image_id, name=name, link=link, trust=trust)


def _record_of(
    uuid: str, pdh: str, image_id: Digest, *, name: Reference | ImageId, link: Link, trust: Trust
) -> ImageRecord:
    return ImageRecord(
        uuid=uuid,
        pdh=pdh,
        image_id=image_id,
        name=str(name),
        image_timestamp=parsed_time(link.properties.get(TIMESTAMP)),
        linked_at=parsed_time(link.created_at),
        linked_by=link.modified_by,
        trusted=trust.includes(link.modified_by) and link.tail_uuid in ("", pdh),
    )

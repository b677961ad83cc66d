# SPDX-License-Identifier: Apache-2.0
"""Images of an engine: fetched first if that is wanted, and taken from Keep where no engine has them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future

from ..engines import Engine, EngineImage
from ..errors import EngineNotRunning, EnginePermissionDenied, NoEngine, NoSuchImage, PlatformNotAskable, UsageError
from ..local.progress import Progress
from ..model.reference import ImageId, Reference
from ..transports.docker_daemon import NamedSource, check_platform
from .dry_run import IngestPlan
from .request import IngestRequest
from .results import IngestResult
from .service import Ingest

log = logging.getLogger(__name__)

#: The engine, and what it says of an image.
Inspected = tuple[Engine, EngineImage]

#: Reasons why an engine may not have an image, so that Keep is asked for it.
_ABSENT = (NoSuchImage, NoEngine, EngineNotRunning, EnginePermissionDenied)


def store_from_engine(
    ingest: Ingest,
    request: IngestRequest,
    engine: Callable[[], Engine],
    name: Reference | ImageId,
    *,
    progress: Progress,
    inspected: Future[Inspected] | None = None,
) -> IngestResult:
    """Put the engine's image into Keep; without an engine, or an image there, take the image that Keep has.

    ``engine`` finds the engine, ``inspected`` is its answer if it has been asked.
    """
    follow = request.follow_cluster
    if request.prefer_keep and not request.pull and (kept := ingest.from_keep(name, follow_cluster=follow)) is not None:
        return kept
    try:
        if inspected is not None:
            found, image = inspected.result()
        else:
            found = engine()
            if request.pull:
                _pull(found, name, progress)
            image = found.inspect(name)
    except PlatformNotAskable:
        source = NamedSource(engine, name, request.choice.platform)
        return ingest.from_source(source, request.name, source.catalog_name)
    except _ABSENT as error:
        # No other failure: one of an engine that has the image must not end in an older build of the name.
        particular = (
            ingest.options.force or request.pull or request.name or request.choice.platform or request.prefer_keep
        )
        if particular or (kept := ingest.from_keep(name, follow_cluster=follow)) is None:
            raise
        progress.say(f"{error.message} Keep has it.")
        return kept
    check_platform(image, request.choice.platform, name)
    log.debug("%s has %s as %s", found.name, name, image.id)
    return ingest.from_engine(found, name, image, request.name)


def plan_from_engine(
    ingest: Ingest, request: IngestRequest, engine: Callable[[], Engine], name: Reference | ImageId
) -> IngestPlan:
    """Plan the ingest of an engine's image; where no engine has the image, of the image that Keep has."""
    try:
        found = engine()
        if request.choice.platform:
            check_platform(found.inspect(name), request.choice.platform, name)
        return ingest.plans.engine(found, name, request.name)
    except _ABSENT:
        if ingest.options.force or request.choice.platform or (kept := ingest.plans.keep(name)) is None:
            raise
        return kept


def _pull(engine: Engine, name: Reference | ImageId, progress: Progress) -> None:
    if not isinstance(name, Reference):
        raise UsageError("--pull needs a name; an image ID says of no registry where the image is.")
    engine.pull(name, progress.say)

# SPDX-License-Identifier: Apache-2.0
"""An image of an engine, for ``arv-docker ingest`` and ``arv-keepdocker``.

It is asked for early, fetched first if that is wanted, and taken from Keep where no engine has it.
"""

from __future__ import annotations

import argparse
import threading
from typing import TYPE_CHECKING

from .. import cli
from ..errors import EngineNotRunning, EnginePermissionDenied, NoEngine, NoSuchImage, UsageError
from ..local import progress
from ..model.reference import ImageId, Reference

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ..engines import Engine, EngineImage
    from ..ingest.dry_run import Planned
    from ..ingest.options import Ingested
    from ..ingest.service import Ingest
    from ..model.image import Platform

#: Why an engine may not have an image, so that Keep is asked for it.
_NOT_THERE = (NoSuchImage, NoEngine, EngineNotRunning, EnginePermissionDenied)


def inspected(args: argparse.Namespace, name: Reference | ImageId | None) -> Future[tuple[Engine, EngineImage]] | None:
    """The engine and what it says of an image, asked while the SDK is loaded, which takes longer; None if not to be."""
    from concurrent.futures import Future

    if name is None or args.pull or args.from_archive is not None:
        return None
    result: Future[tuple[Engine, EngineImage]] = Future()

    def inspect() -> None:
        try:
            engine = cli.engine(args)
            result.set_result((engine, engine.inspect(name)))
        except BaseException as error:  # noqa: BLE001 -- it goes on to whoever asks for the result
            result.set_exception(error)

    threading.Thread(target=inspect, daemon=True).start()
    return result


def stored(
    args: argparse.Namespace,
    ingest: Ingest,
    name: Reference | ImageId,
    shown: progress.Progress,
    inspected: Future[tuple[Engine, EngineImage]] | None,
    *,
    called: Reference | None = None,
) -> Ingested:
    """The image from the engine; where it has none, or there is no engine, one that Keep has already."""
    try:
        if inspected is not None:
            engine, image = inspected.result()
        else:
            engine = cli.engine(args)
            if args.pull:
                _pull(engine, name, shown)
            image = engine.inspect(name)
    except _NOT_THERE as error:
        # No other failure: one of an engine that has the image must not end in an older build of the name.
        own = args.force or args.pull or called or _platform(args)
        if own or (found := ingest.from_keep(name)) is None:
            raise
        shown.say(f"{error.message} Keep has it.")
        return found
    if (platform := _platform(args)) is not None:
        from ..transports.docker_daemon import check_platform

        check_platform(image, platform, name)
    return ingest.from_engine(engine, name, image, called)


def planned(args: argparse.Namespace, ingest: Ingest, name: Reference | ImageId) -> Planned:
    """What would be done with the image; where no engine has it, with the one that Keep has already."""
    from ..transports.docker_daemon import check_platform

    try:
        engine = cli.engine(args)
        if args.platform:
            check_platform(engine.inspect(name), args.platform, name)
        return ingest.plans.engine(engine, name)
    except _NOT_THERE:
        if args.force or args.platform or (found := ingest.plans.keep(name)) is None:
            raise
        return found


def _platform(args: argparse.Namespace) -> Platform | None:
    """The platform that is asked for; ``arv-keepdocker`` has no such option."""
    return getattr(args, "platform", None)


def _pull(engine: Engine, name: Reference | ImageId, shown: progress.Progress) -> None:
    if not isinstance(name, Reference):
        raise UsageError("--pull needs a name; an image ID says of no registry where the image is.")
    engine.pull(name, shown.say)

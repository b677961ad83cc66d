# SPDX-License-Identifier: Apache-2.0
"""``arv-docker ingest``: images from engines, archives and registries into Keep."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .. import cli, progress
from ..errors import (
    ArvDockerError,
    ClusterError,
    EngineNotRunning,
    EnginePermissionDenied,
    NoEngine,
    NoSuchImage,
    UsageError,
)
from ..reference import ImageId, Reference, parse_name

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ..engine import Engine, EngineImage
    from ..ingest import Ingest, Ingested
    from ..keep.client import Cluster
    from ..plan import Planned
    from ..transports import Source

    Outcome = Ingested | Planned | ArvDockerError


#: Why an engine may not have an image, so that Keep is asked for it.
_NOT_THERE = (NoSuchImage, NoEngine, EngineNotRunning, EnginePermissionDenied)


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.epilog = (
        "An IMAGE is a name or ID in an engine, or a source: docker-archive:FILE[:NAME], oci:FOLDER[:NAME],\n"
        "oci-archive:FILE[:NAME], docker://NAME (a registry), folder:FOLDER:IMAGE[:VERSION].\n\n"
        "Prints the UUID of each image's collection, in the order of the arguments. An image that is there already\n"
        "is not stored again. Of several images each is stored by itself: what fails for one leaves the others\n"
        "whole, and the exit code is that of the first failure.\n\n"
        "examples:\n"
        "  arv-docker ingest busybox:latest\n"
        "  arv-docker ingest app:1 app:2 app:3\n"
        "  arv-docker ingest --dry-run app:4\n"
        "  arv-docker ingest docker://debian:12 --as base:12\n"
        "  arv-docker ingest --unique app:1\n"
        "  arv-docker ingest --local --from-archive busybox.tar busybox:latest\n"
    )
    parser.add_argument("image", nargs="*", metavar="IMAGE", help="the images; with --from-archive the name to give it")
    parser.add_argument("--as", dest="called", metavar="NAME[:TAG]", help="link the image by this name, not its own")
    parser.add_argument(
        "--unique",
        action="store_true",
        help="link the image by one more name too, such as app:1-b038788ddb with digits of its ID, which can never "
        "mean another one",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what is stored and what would be sent; do nothing")
    cli.add_source_options(parser)
    add_options(parser)
    cli.add_engine_option(parser)
    cli.add_cluster_options(parser)
    cli.add_json_option(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that ``arv-keepdocker`` shares with this verb."""
    parser.add_argument("-f", "--force", action="store_true", help="store the image again, even if it is there")
    parser.add_argument("--project-uuid", metavar="UUID", help="the project to own the collection and its links")
    parser.add_argument("--name", help="the collection's name, instead of one made from the image's")
    parser.add_argument(
        "--from-archive",
        metavar="FILE",
        type=Path,
        help="read the image from a file that docker save, podman save or skopeo wrote; needs no engine",
    )
    parser.add_argument(
        "--image-id",
        choices=("config", "manifest", "both"),
        help="which digest names the file in Keep: config, manifest for nodes with Docker's containerd store, or both: "
        "two collections over the same blocks; the one that the nodes know (the setting ARV_DOCKER_IMAGE_ID, else "
        "config) gets the image's name",
    )
    cli.add_trust_option(parser)
    parser.add_argument("--pull", action=argparse.BooleanOptionalAction, help="fetch the image from its registry first")
    parser.add_argument(
        "--cache",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep the saved tarball until the image is in Keep, so that a second try needs no second save (default)",
    )
    parser.add_argument("--keep-tarball", action="store_true", help="leave the saved tarball in the cache afterwards")
    parser.add_argument(
        "--image-properties",
        action="store_true",
        help="note ID and time of the image as properties docker-image-hash and docker-image-timestamp of a new "
        "collection; a cluster with a strict vocabulary may refuse them",
    )
    parser.add_argument(
        "--force-image-format",
        action="store_true",
        help="store the image even if the cluster does not say that it accepts version 2 images",
    )


def run(args: argparse.Namespace) -> int:
    """Ingests the images and prints the UUIDs of their collections."""
    if not args.image and args.from_archive is None:
        raise UsageError("which image? Give its name or ID, a source, or --from-archive FILE.")
    if len(args.image) > 1 and (args.from_archive or args.name or args.called):
        raise UsageError("--from-archive, --name and --as are for one image, and several are given.")
    if args.pull and (args.from_archive or any(_engine_s(text) is None for text in args.image)):
        raise UsageError("--pull is for images of an engine, by their names.")
    shown = progress.on()
    asked = args.image or [""]
    name = _engine_s(asked[0]) if len(asked) == 1 and not args.dry_run else None
    inspected = _inspected(args, name)
    with cli.cluster(args) as cluster:
        outcomes = _Batch(args, cluster, shown, inspected).outcomes(asked)
    failures = [outcome for outcome in outcomes if isinstance(outcome, ArvDockerError)]
    done = [outcome for outcome in outcomes if not isinstance(outcome, ArvDockerError)]
    if len(outcomes) == 1 and failures:
        raise failures[0]
    if args.json:
        documents = [_document(text, outcome) for text, outcome in zip(asked, outcomes, strict=True)]
        cli.print_json(documents if len(outcomes) > 1 else documents[0])
    else:
        for outcome in done:
            print(outcome if args.dry_run else outcome.uuid)
    if len(outcomes) > 1:
        state = "are planned" if args.dry_run else "are in Keep"
        shown.say(f"{len(done)} of {len(outcomes)} images {state}" + (f", {len(failures)} failed" if failures else ""))
    return failures[0].exit_code if failures else 0


def ingested(args: argparse.Namespace, name: Reference | ImageId | None, shown: progress.Progress) -> Ingested:
    """One image of an engine or an archive, as ``arv-keepdocker`` has it; a line on what happened goes to ``shown``."""
    inspected = _inspected(args, name)
    with cli.cluster(args) as cluster:
        ingest = _ingest(args, cluster, shown)
        if args.from_archive is not None:
            result = ingest.from_archive(args.from_archive, name)
        else:
            assert name is not None
            result = _from_engine_or_keep(args, ingest, name, shown, inspected)
    _tell(result, shown)
    return result


class _Batch:
    """The images of one command line, and what becomes of each."""

    def __init__(
        self,
        args: argparse.Namespace,
        cluster: Cluster,
        shown: progress.Progress,
        inspected: Future[tuple[Engine, EngineImage]] | None,
    ) -> None:
        """``inspected`` is the engine and what it says of the only image, if it has been asked."""
        self._args = args
        self._inspected = inspected
        self._cluster = cluster
        self._shown = shown
        self._ingest = _ingest(args, cluster, shown)
        self._called = Reference.parse(args.called) if args.called else None

    def outcomes(self, asked: list[str]) -> list[Outcome]:
        """What became of each image, in their order; an error that is about one image is in its place."""
        from ..ingest import Ingested

        together = {} if self._args.dry_run else self._together(asked)
        found = []
        for text in asked:
            outcome = together.get(text) or self._outcome(text)
            if self._args.unique and isinstance(outcome, Ingested):
                outcome = self._named_uniquely(outcome)
            if isinstance(outcome, ArvDockerError):
                if len(asked) > 1:
                    self._shown.say(f"{text}: {outcome.message}")
            elif isinstance(outcome, Ingested):
                _tell(outcome, self._shown)
            found.append(outcome)
        return found

    def _together(self, asked: list[str]) -> Mapping[str, Outcome]:
        """Images of one engine that can be read in one save."""
        from ..transports import names

        texts = [text for text in asked if names.split(text)[0] is None]
        if len(texts) < 2 or self._args.keep_tarball or self._args.pull:
            return {}
        images: dict[str, tuple[Reference | ImageId, EngineImage]] = {}
        try:
            engine = cli.engine(self._args)
            for text in texts:
                with suppress(NoSuchImage, UsageError):
                    name = parse_name(text)
                    images[text] = (name, engine.inspect(name))
            stored = self._ingest.together(engine, list(images.values()))
        except ClusterError as error:
            return dict.fromkeys(images, error)
        except ArvDockerError as error:
            self._shown.say(f"the images are read one by one: {error.message}")
            return {}
        # One name of each; its others are linked in the usual way.
        return {text: stored.pop(image.id) for text, (_, image) in images.items() if image.id in stored}

    def _outcome(self, text: str) -> Outcome:
        from ..transports import names
        from ..transports.docker_archive import ArchiveFile

        choice = names.Choice(self._args.platform, insecure=self._args.insecure, progress=self._shown)
        try:
            if self._args.from_archive is not None:
                name = parse_name(text) if text else None
                archive = ArchiveFile(self._args.from_archive, name, choice)
                return self._from_source(archive, self._called or name, None)
            transport, rest = names.split(text)
            if transport is None:
                return self._from_engine(parse_name(text))
            source = names.source(text, choice)
            otherwise = Reference.parse(rest.removeprefix("//")) if transport == "docker" else None
            return self._from_source(source, self._called, otherwise or getattr(source, "called", None))
        except ArvDockerError as error:
            return error

    def _named_uniquely(self, done: Ingested) -> Outcome:
        try:
            return self._ingest.named_uniquely(done)
        except ArvDockerError as error:
            return error

    def _from_source(
        self, source: Source, name: Reference | ImageId | None, otherwise: Reference | None
    ) -> Ingested | Planned:
        if self._args.dry_run:
            return self._ingest.plan_source(source, name, otherwise)
        return self._ingest.from_source(source, name, otherwise)

    def _from_engine(self, name: Reference | ImageId) -> Ingested | Planned:
        if self._args.dry_run:
            try:
                return self._ingest.plan_engine(cli.engine(self._args), name)
            except _NOT_THERE:
                if self._args.force or (found := self._ingest.plan_keep(name)) is None:
                    raise
                return found
        return _from_engine_or_keep(self._args, self._ingest, name, self._shown, self._inspected, called=self._called)


def _from_engine_or_keep(
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
        if args.force or args.pull or called or (found := ingest.from_keep(name)) is None:
            raise
        shown.say(f"{error.message} Keep has it.")
        return found
    return ingest.from_engine(engine, name, image, called)


def _inspected(args: argparse.Namespace, name: Reference | ImageId | None) -> Future[tuple[Engine, EngineImage]] | None:
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


def _engine_s(text: str) -> Reference | ImageId | None:
    """The image of an engine that a text means; None for one of another source, and for what is no name."""
    from ..transports import names

    with suppress(ArvDockerError):
        if names.split(text)[0] is None:
            return parse_name(text)
    return None


def _ingest(args: argparse.Namespace, cluster: Cluster, shown: progress.Progress) -> Ingest:
    from ..ingest import Ingest, Options
    from ..settings import settings

    configured = settings()
    options = Options(
        project=args.project_uuid,
        name=args.name,
        force=args.force,
        by_manifest=configured.by_manifest,
        image_ids=configured.image_ids(args.image_id),
        use_cache=args.cache,
        keep_tarball=args.keep_tarball,
        force_image_format=args.force_image_format,
        describe=args.image_properties,
    )
    return Ingest(cluster, options, shown, cli.trust(args, cluster, shown))


def _tell(result: Ingested, shown: progress.Progress) -> None:
    """A line on what happened."""
    state = "already stored" if result.already else "stored"
    spared = f", {progress.size(result.bytes_spared)} were in Keep" if result.bytes_spared else ""
    shown.say(f"{result.name or result.image_id}: {state}, {progress.size(result.bytes_sent)} sent{spared}")
    if result.beside:
        shown.say(f"under {result.beside.image_id} too, of the same blocks: {result.beside.uuid}")
    if result.unique:
        shown.say(f"{result.unique}: means this image and can never mean another one")


def _document(text: str, outcome: Outcome) -> dict[str, object]:
    """An outcome for programs."""
    if isinstance(outcome, ArvDockerError):
        return {"asked": text, "error": outcome.message, "detail": outcome.detail, "exit_code": outcome.exit_code}
    return cli.as_json(outcome)


def _pull(engine: Engine, name: Reference | ImageId, shown: progress.Progress) -> None:
    if not isinstance(name, Reference):
        raise UsageError("--pull needs a name; an image ID says of no registry where the image is.")
    engine.pull(name, shown.say)

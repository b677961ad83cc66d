# SPDX-License-Identifier: Apache-2.0
"""The images of one ``arv-docker ingest``: each by itself, so that what fails for one leaves the others whole."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from .. import cli
from ..errors import ArvDockerError, ClusterError, NoSuchImage, UsageError
from ..local import progress
from ..model.reference import ImageId, Reference, parse_name
from . import engine_images

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from ..arvados.client import Cluster
    from ..engines import Engine, EngineImage
    from ..ingest.dry_run import Planned
    from ..ingest.options import Ingested
    from ..ingest.service import Ingest
    from ..transports import OpenedImage, Source

    Outcome = Ingested | Planned | ArvDockerError


class Batch:
    """The images of one command line, and what becomes of each."""

    def __init__(
        self,
        args: argparse.Namespace,
        cluster: Cluster,
        shown: progress.Progress,
        ingest: Ingest,
        inspected: Future[tuple[Engine, EngineImage]] | None,
    ) -> None:
        """``inspected`` is the engine and what it says of the only image, if it has been asked."""
        self._args = args
        self._inspected = inspected
        self._cluster = cluster
        self._shown = shown
        self._ingest = ingest
        self._called = Reference.parse(args.called) if args.called else None

    def outcomes(self, asked: list[str]) -> list[tuple[str, Outcome]]:
        """What became of each image, in their order, with what it was asked for as, or is called where it is one of
        several; an error that is about one image is in its place."""
        if self._args.all or self._args.all_platforms:
            found = list(self._told((it for text in asked for it in self._every(text)), alone=False))
        else:
            together = {} if self._args.dry_run else self._together(asked)
            each = ((text, together.get(text) or self._outcome(text)) for text in asked)
            found = list(self._told(each, alone=len(asked) == 1))
        if self._args.all_platforms:
            self._say_what_names_mean(found)
        return found

    def _told(self, outcomes: Iterable[tuple[str, Outcome]], *, alone: bool) -> Iterator[tuple[str, Outcome]]:
        """The outcomes, each told of when it comes; not an error that is ``alone``, with which the command ends."""
        from ..ingest.options import Ingested

        for text, found in outcomes:
            outcome = found
            if self._args.unique and isinstance(outcome, Ingested):
                outcome = self._named_uniquely(outcome)
            if isinstance(outcome, ArvDockerError):
                if not alone:
                    self._shown.fail(f"{text or self._args.from_archive}: {outcome}")
            elif isinstance(outcome, Ingested):
                tell(outcome, self._shown)
            yield text, outcome

    def _together(self, asked: list[str]) -> Mapping[str, Outcome]:
        """Images of one engine that can be read in one save."""
        from ..transports import names

        texts = [text for text in asked if names.split(text)[0] is None]
        if len(texts) < 2 or self._args.keep_tarball or self._args.pull or self._args.platform:
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

        try:
            if self._args.from_archive is None and names.split(text)[0] is None:
                return self._from_engine(parse_name(text))
            source, name, otherwise = self._source(text)
            if self._args.dry_run:
                return self._ingest.plans.source(source, name, otherwise)
            return self._ingest.from_source(source, name, otherwise)
        except ArvDockerError as error:
            return error

    def _source(self, text: str) -> tuple[Source, Reference | ImageId | None, Reference | None]:
        """Where an image is, what it is to be called, and what else it may be called."""
        from ..transports import keep, names
        from ..transports.docker_archive import ArchiveFile

        choice = cli.choice(self._args, self._shown)
        if self._args.from_archive is not None:
            name = parse_name(text) if text else None
            return ArchiveFile(self._args.from_archive, name, choice), self._called or name, None
        if keep.place_of(text) is not None:
            raise UsageError(
                f"{text!r} is in Keep already. Copy it from another cluster with arv-docker copy {text} keep:, "
                "or give it one more name with arv-docker link."
            )
        source = names.source(text, choice)
        return source, self._called, source.called

    # -- several images of one source ----------------------------------------------------

    def _every(self, text: str) -> Iterator[tuple[str, Outcome]]:
        """The images of a source, each opened when its turn comes."""
        try:
            source, name, otherwise = self._source(text)
            piped = source.piped_archive() if self._args.all and not self._args.dry_run else None
            if piped is not None:
                yield from self._ingest.every_piped(piped)
                return
            with source.platforms() if self._args.all_platforms else source.every() as images:
                for called, opened in images:
                    yield called, self._one(called, opened, name, otherwise)
        except ArvDockerError as error:
            yield text, error

    def _one(
        self,
        called: str,
        opened: Callable[[], OpenedImage],
        name: Reference | ImageId | None,
        otherwise: Reference | None,
    ) -> Outcome:
        try:
            image = opened()
            if self._args.dry_run:
                return self._ingest.plans.image(image, called)
            if self._args.all:
                return self._ingest.under_its_names(image)
            return self._ingest.from_image(image, name, otherwise)
        except ArvDockerError as error:
            return error

    def _say_what_names_mean(self, outcomes: list[tuple[str, Outcome]]) -> None:
        """Of several images by one name the cluster takes one, whatever the platform of its nodes."""
        from ..arvados.catalog import resolver
        from ..ingest.options import Ingested

        stored = [(called, it) for called, it in outcomes if isinstance(it, Ingested) and it.name]
        for name in dict.fromkeys(it.name for _, it in stored if it.name):
            theirs = {it.uuid: called for called, it in stored if it.name == name}
            if len(theirs) > 1:
                uuid = resolver.resolve(self._cluster, name).collection.uuid
                self._shown.say(
                    f"{name}: to the cluster it means {theirs.get(uuid, uuid)}; for another one's portable data hash "
                    f"see arv-docker resolve --platform OS/ARCH {name}"
                )

    def _named_uniquely(self, done: Ingested) -> Outcome:
        try:
            return self._ingest.named_uniquely(done)
        except ArvDockerError as error:
            return error

    def _from_engine(self, name: Reference | ImageId) -> Ingested | Planned:
        if self._args.dry_run:
            return engine_images.planned(self._args, self._ingest, name)
        return engine_images.stored(self._args, self._ingest, name, self._shown, self._inspected, called=self._called)


def tell(result: Ingested, shown: progress.Progress) -> None:
    """A line on what happened."""
    state = "already stored" if result.already else "stored"
    spared = f", {progress.size_text(result.bytes_spared)} were in Keep" if result.bytes_spared else ""
    shown.say(f"{result.name or result.image_id}: {state}, {progress.size_text(result.bytes_sent)} sent{spared}")
    if result.beside:
        shown.say(f"under {result.beside.image_id} too, of the same blocks: {result.beside.uuid}")
    if result.unique:
        shown.say(f"{result.unique}: means this image and can never mean another one")

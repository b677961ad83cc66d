# SPDX-License-Identifier: Apache-2.0
"""Running of an IngestRequest: image by image, so that a failure leaves the other images whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeAlias

from ..arvados.catalog import resolver
from ..arvados.client import Cluster
from ..engines import Engine, EngineImage
from ..errors import ArvDockerError, ClusterError, NoSuchImage, UsageError
from ..local.progress import Progress
from ..model.image import Digest
from ..model.reference import ImageId, Reference, parse_name
from ..transports import OpenedImage, Source, keep, names
from ..transports.docker_archive import ArchiveFile
from .dry_run import IngestPlan
from .from_engine import Inspected, plan_from_engine, store_from_engine
from .request import IngestRequest
from .results import IngestResult
from .service import Ingest

#: An image's result or plan, or the error that is about it alone.
Outcome: TypeAlias = IngestResult | IngestPlan | ArvDockerError


class IngestRun:
    """The images of a request, with the outcome of each."""

    def __init__(
        self,
        request: IngestRequest,
        cluster: Cluster,
        ingest: Ingest,
        engine: Callable[[], Engine],
        *,
        progress: Progress,
        inspected: Future[Inspected] | None = None,
    ) -> None:
        """``engine`` finds the engine that is meant; ``inspected`` is its answer about the only image, if it has been
        asked."""
        self._request = request
        self._cluster = cluster
        self._ingest = ingest
        self._engine = engine
        self._progress = progress
        self._inspected = inspected

    def outcomes(self) -> Iterator[tuple[str, Outcome]]:
        """The outcomes in the images' order, as they come, each with the text from the request.

        Of several images of one source each comes with what it is called there."""
        stored: list[tuple[str, IngestResult]] = []
        request = self._request
        shared = {} if request.dry_run or request.for_several else self._store_shared(request.images)
        for text in request.images:
            several = self._each_of(text) if request.for_several else [(text, shared.get(text) or self._outcome(text))]
            for called, outcome in several:
                named = self._name_uniquely(outcome) if request.unique else outcome
                if isinstance(named, IngestResult):
                    stored.append((called, named))
                yield called, named
        if request.all_platforms:
            self._say_meanings(stored)

    def _store_shared(self, texts: Sequence[str]) -> Mapping[str, Outcome]:
        """Store images of an engine in a single save."""
        in_engine = [text for text in texts if names.split(text)[0] is None]
        one_by_one = self._ingest.options.keep_tarball or self._request.pull or self._request.choice.platform
        if len(in_engine) < 2 or one_by_one:
            return {}
        images: dict[str, tuple[Reference | ImageId, EngineImage]] = {}
        stored: dict[Digest, IngestResult | ArvDockerError] = {}
        try:
            engine = self._engine()
            for text in in_engine:
                with suppress(NoSuchImage, UsageError):
                    name = parse_name(text)
                    images[text] = (name, engine.inspect(name))
            stored = self._ingest.store_shared(engine, list(images.values()))
        except ClusterError as error:
            return dict.fromkeys(images, error)
        except ArvDockerError as error:
            self._progress.say(f"the images are read one by one: {error.message}")
            return {}
        # One name of each; its others are linked in the usual way.
        return {text: stored.pop(image.id) for text, (_, image) in images.items() if image.id in stored}

    def _outcome(self, text: str) -> Outcome:
        try:
            if self._request.from_archive is None and names.split(text)[0] is None:
                name_in_engine = parse_name(text)
                if self._request.dry_run:
                    return plan_from_engine(self._ingest, self._request, self._engine, name_in_engine)
                progress, inspected = self._progress, self._inspected
                return store_from_engine(
                    self._ingest, self._request, self._engine, name_in_engine, progress=progress, inspected=inspected
                )
            source, name, otherwise = self._source(text)
            if self._request.dry_run:
                return self._ingest.plans.source(source, name, otherwise)
            return self._ingest.from_source(source, name, otherwise)
        except ArvDockerError as error:
            return error

    def _source(self, text: str) -> tuple[Source, Reference | ImageId | None, Reference | None]:
        """The place of an image, the name for it, and the name to use otherwise."""
        request = self._request
        if request.from_archive is not None:
            name = parse_name(text) if text else None
            return ArchiveFile(request.from_archive, name, request.choice, any_name=True), request.name or name, None
        if keep.place_of(text) is not None:
            raise UsageError(
                f"{text!r} is in Keep already. Copy it from another cluster with arv-docker copy {text} keep:, "
                "or give it one more name with arv-docker link."
            )
        source = names.source(text, request.choice)
        return source, request.name, source.catalog_name

    # -- several images of one source ----------------------------------------------------

    def _each_of(self, text: str) -> Iterator[tuple[str, Outcome]]:
        """The images of a source, each opened when its turn comes."""
        try:
            source, name, otherwise = self._source(text)
            piped = source.piped_archive() if self._request.every and not self._request.dry_run else None
            if piped is not None:
                yield from self._ingest.every_piped(piped)
                return
            with source.platforms() if self._request.all_platforms else source.every() as images:
                for called, open_image in images:
                    yield called, self._one_of(called, open_image, name, otherwise)
        except ArvDockerError as error:
            yield text, error

    def _one_of(
        self,
        called: str,
        open_image: Callable[[], OpenedImage],
        name: Reference | ImageId | None,
        otherwise: Reference | None,
    ) -> Outcome:
        try:
            image = open_image()
            if self._request.dry_run:
                return self._ingest.plans.image(image, called)
            if self._request.every:
                return self._ingest.under_its_names(image)
            return self._ingest.from_image(image, name, otherwise)
        except ArvDockerError as error:
            return error

    def _say_meanings(self, stored: Sequence[tuple[str, IngestResult]]) -> None:
        """Name the image that the cluster takes among several by one name, for any platform of the nodes."""
        for name in dict.fromkeys(result.name for _, result in stored if result.name):
            theirs = {result.uuid: called for called, result in stored if result.name == name}
            if len(theirs) > 1:
                uuid = resolver.resolve(self._cluster, name, self._ingest.trust, attested_only=False).collection.uuid
                self._progress.say(
                    f"{name}: to the cluster it means {theirs.get(uuid, uuid)}; for another one's portable data hash "
                    f"see arv-docker resolve --platform OS/ARCH {name}"
                )

    def _name_uniquely(self, outcome: Outcome) -> Outcome:
        if not isinstance(outcome, IngestResult):
            return outcome
        try:
            return self._ingest.name_uniquely(outcome)
        except ArvDockerError as error:
            return error

# SPDX-License-Identifier: Apache-2.0
"""``docker-daemon:``, an image in a Docker engine: read while it is saved, written by ``docker load``.

What is here serves every engine; ``containers-storage:`` is the same with Podman.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..archive import canonical
from ..archive.stream import StreamedImage
from ..engines import Engine, EngineImage
from ..engines.docker import Docker
from ..errors import DiskError, EngineError, EngineFull, NoSuchImage, PlatformNotAskable, UsageError
from ..local.disk import amount_needed
from ..local.progress import Advance, Progress
from ..model.image import Digest, Platform
from ..model.manifest import suits
from ..model.reference import ImageId, Reference, parse_name
from ..store import tarballs
from ..store.cache import NO_CACHE, CacheFolder
from ..store.layer_index import LayerTable
from . import Destination, EngineImageNamed, OpenedImage, SeekableImage, Source
from .local import archive_of, names_present, seekable
from .names import Choice


def source(rest: str, choice: Choice) -> NamedSource:
    """The source ``NAME``, or ``sha256:ID``."""
    engine = partial(Docker, platform=choice.platform, timeout=choice.settings.engine_timeout)
    return NamedSource(engine, parse_name(rest), choice.platform)


def destination(rest: str, choice: Choice) -> NamedDestination:
    """The destination ``NAME[:TAG]``, which the image is called in the engine."""
    engine = partial(Docker, timeout=choice.settings.engine_timeout)
    return NamedDestination(engine, name_for(rest), choice.progress, choice.cache)


class NamedSource(Source):
    """The image that an engine has under a name."""

    def __init__(
        self, engine: Callable[[], Engine], name: Reference | ImageId, platform: Platform | None = None
    ) -> None:
        """Name an image; ``engine`` is found when it is opened, which must be for ``platform``, if that is given."""
        self._engine = engine
        self._platform = platform
        self._name = name

    @property
    def catalog_name(self) -> Reference | None:
        """The image's name in the engine, None for an ID."""
        return self._name if isinstance(self._name, Reference) else None

    def in_engine(self) -> EngineImageNamed | None:
        """Return the image as the engine knows it; None where it cannot be asked for one of several platforms.

        Raises EngineError and NoSuchImage.
        """
        engine = self._engine()
        try:
            image = engine.inspect(self._name)
        except PlatformNotAskable:
            return None
        check_platform(image, self._platform, self._name)
        return EngineImageNamed(engine, self._name, image)

    @contextmanager
    def open(self) -> Iterator[StreamedImage]:
        """The image, while the engine saves it. Raises EngineError, NoSuchImage, and what ``EngineSource`` raises."""
        if (place := self.in_engine()) is not None:
            with EngineSource(place.engine, place.image, None).open() as image:
                yield image
            return
        name = self._name.written or self._name.familiar_name if isinstance(self._name, Reference) else self._name
        with self._engine().save([str(name)]) as output:  # all platforms, of which one is taken
            yield StreamedImage(output, platform=self._platform)


def check_platform(image: EngineImage, platform: Platform | None, name: Reference | ImageId) -> None:
    """Raise NoSuchImage if an engine's image is for another platform than is asked for."""
    if platform is not None and not suits(image.platform, platform):
        raise NoSuchImage(
            f"the engine has {name} for {image.platform}, and not for {platform}. A "
            "registry may have others, docker://NAME."
        )


class NamedDestination(Destination[Digest]):
    """A name in an engine, which an image that is written there gets."""

    def __init__(
        self, engine: Callable[[], Engine], name: Reference, progress: Progress, cache: CacheFolder = NO_CACHE
    ) -> None:
        """Choose a name in an engine; ``engine`` is found when an image is written."""
        self._engine = engine
        self._name = name
        self._progress = progress
        self._cache = cache

    def present(self, layers: Sequence[Digest]) -> frozenset[Digest]:
        """The layers that the engine can do without, as ``EngineDestination`` has it. Raises EngineError."""
        return EngineDestination(self._engine(), self._cache.layer_table()).present(layers)

    def write(self, image: OpenedImage, advance: Advance) -> Digest:
        """Load the layers that the engine lacks and name the image; return the engine's ID. Raises as ``load`` does.

        Of a source that can leave layers out no others are read, but those whose sizes are not known here: the archive
        says the sizes of all.
        """
        engine = self._engine()
        table = self._cache.layer_table()
        with seekable(image, self._cache.path, table, self._progress) as found:
            return ensure_loaded(
                engine, found, self._name, lambda _: nullcontext(advance), self._progress.say, table=table
            ).engine_id


def name_for(rest: str) -> Reference:
    """The name that an image can be given in an engine; raises BadReference, or UsageError for an ID or a digest."""
    name = parse_name(rest)
    if isinstance(name, ImageId) or name.digest is not None:
        raise UsageError(f"{rest!r} is no name that an image can be given. Write NAME:TAG.")
    return name


class EngineSource(Source):
    """An image of an engine, read while the engine saves it.

    ``image_file`` is the tarball's place in the stat-keyed cache, which gets what is read;
    None writes nothing to disk.
    """

    def __init__(self, engine: Engine, image: EngineImage, image_file: Path | None) -> None:
        self._engine = engine
        self._image = image
        self._file = image_file

    @contextmanager
    def open(self) -> Iterator[StreamedImage]:
        """The image. Raises EngineError, DiskError, and at its end DigestMismatch if the engine saved another one."""
        if self._file is None:
            with self._engine.save([str(self._image.id)]) as output:
                yield StreamedImage(output, self._image.id, size=self._image.size)
        else:
            with tarballs.saving(self._engine, self._image.id, self._file, self._image.size) as stream:
                yield StreamedImage(stream, self._image.id, size=self._image.size)


@dataclass(frozen=True, slots=True)
class LoadResult:
    """An image after a load: the engine's ID, if it was there before, and the bytes that were skipped."""

    engine_id: Digest
    already: bool
    spared: int


def ensure_loaded(
    engine: Engine,
    image: SeekableImage,
    name: Reference | None,
    step: Callable[[int], AbstractContextManager[Advance]],
    say: Callable[[str], None],
    *,
    table: LayerTable,
) -> LoadResult:
    """Ensure that the engine has all of the image, called ``name`` unless that is None.

    What it lacks is loaded, and noted in ``table``; ``step`` gets the number of bytes. Raises as
    ``EngineDestination.write`` does.
    """
    there, spared = whole_id(engine, image), 0
    if there is None:
        found, spared = EngineDestination(engine, table).write_missing(image, step, say)
    else:
        found = there
    if name is not None:
        engine.tag(found, name)
    return LoadResult(found, there is not None, spared)


class EngineDestination:
    """An engine that images are loaded into; ``table`` learns the sizes of the layers that it takes."""

    def __init__(self, engine: Engine, table: LayerTable | None = None) -> None:
        self._engine = engine
        self._table = table or LayerTable()

    def present(self, layers: Sequence[Digest]) -> frozenset[Digest]:
        """The layers of an image, given from the lowest up, that the engine can do without.

        Docker's classic store knows a layer by its chain, the layers below it, so one counts only
        where an image there begins with the same ones; and not if it stands in another place too.
        """
        return names_present(layers, self._in_place, self._table)

    def _in_place(self, diff_ids: Sequence[Digest]) -> frozenset[Digest]:
        try:
            chains = self._engine.chains()
        except NoSuchImage:  # one was removed between two commands
            return frozenset()
        shared = max((_count_common(diff_ids, chain) for chain in chains), default=0)
        return frozenset(diff_ids[:shared]).difference(diff_ids[shared:])

    def write_missing(
        self, image: SeekableImage, step: Callable[[int], AbstractContextManager[Advance]], say: Callable[[str], None]
    ) -> tuple[Digest, int]:
        """Load the image without the layers that the engine has; return the engine's ID, and the bytes skipped.

        Whether it takes such an archive is for the engine to say; where it does not, all is loaded,
        and ``say`` is told. ``step`` gets the number of bytes each time. Raises as ``write`` does.
        """
        if present := self.present(image.config.diff_ids):
            try:
                return self._write_without(image, step, present)
            except EngineError as error:
                say(
                    f"{self._engine.name} does not do with the layers that it has, loading all of them: {error.message}"
                )
        return self._write_without(image, step, frozenset())

    def _write_without(
        self,
        image: SeekableImage,
        step: Callable[[int], AbstractContextManager[Advance]],
        skip: frozenset[Digest],
    ) -> tuple[Digest, int]:
        # Before their sizes are asked for: then those are as they were read.
        image.read_ahead([it for it in image.config.distinct_diff_ids if it not in skip])
        layout = canonical.layout(image.config, image.sizes)
        spared = sum(span.length for span in layout.spans if span.diff_id in skip)
        with step(layout.size - spared) as advance:
            return self.write(image, advance, skip), spared

    def write(self, image: SeekableImage, advance: Advance, skip: Container[Digest] = ()) -> Digest:
        """Load the image, every layer checked before the engine can take the archive for complete.

        Layers in ``skip`` are not read, and the engine is to take its own. Gives the ID under
        which the engine has the image: the config's digest, or the manifest's in a containerd
        store. Raises what the layers raise, and EngineError if the image is not there afterwards.
        """
        layout = canonical.layout(image.config, image.sizes)
        try:
            words = self._engine.load(archive_of(image, layout, advance, skip))
        except EngineFull as error:
            raise DiskError(
                f"{self._engine.name} has no room for image {image.config.digest.short_hex}: "
                f"{amount_needed(layout.size)} are needed, {error.room or 'fewer'} are free. "
                "Make room there, and try again.",
                detail=error.detail,
            ) from error
        except EngineError:
            self._remove_broken(layout.manifest_digest)
            raise
        found = whole_id(self._engine, image) if skip else engine_id(self._engine, image)
        if found is None:
            raise EngineError(
                f"{self._engine.name} took the archive, but has no image {image.config.digest} now.", detail=words
            )
        for span in layout.spans:
            if span.diff_id not in skip:
                self._table.note(span.diff_id, span.size)
        return found

    def _remove_broken(self, image: Digest) -> None:
        """Remove the image that a containerd store has of an archive which it then could not unpack (Docker 26.1)."""
        with suppress(EngineError, NoSuchImage):
            if not self._engine.inspect(ImageId(image.hex)).tags:
                self._engine.remove(image)


def engine_id(engine: Engine, image: SeekableImage) -> Digest | None:
    """The engine's ID of the image: config digest, or manifest digest in a containerd store; None if absent.

    The second is computed of the sizes of its layers, which are asked of the image only where the first is not there.
    """
    for name in _names(image):
        try:
            return engine.inspect(ImageId(name.hex)).id
        except NoSuchImage:
            continue
    return None


def whole_id(engine: Engine, image: SeekableImage) -> Digest | None:
    """The engine's ID of the image, if it has all of it.

    A containerd store takes an image without layers that it has only compressed, runs it, and
    inspects it, but saves it without them; and leaves it out of its listing (seen with Docker 26.1).
    """
    found = engine_id(engine, image)
    if found is None or found == image.config.digest:
        return found
    return found if any(listed.id == found for listed in engine.list()) else None


def _names(image: SeekableImage) -> Iterator[Digest]:
    yield image.config.digest
    yield canonical.layout(image.config, image.sizes).manifest_digest


def _count_common(one: Sequence[Digest], other: Sequence[Digest]) -> int:
    """The number of layers that both have in common, from the lowest up."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (mine, theirs) in pairs if mine != theirs), min(len(one), len(other)))

# SPDX-License-Identifier: Apache-2.0
"""Staged images: wanted images, images in a folder, and the check of their bytes."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from ..archive.archived_image import ArchivedImage
from ..archive.layer import CHUNK
from ..engines.apptainer import is_sif
from ..errors import BadReference, ContentError, DigestMismatch, NotAnImage, NotVerified
from ..local.disk import hash_of
from ..local.progress import Progress
from ..model.image import Digest, Platform
from ..model.manifest import parse_platform, suits
from ..model.reference import ImageId, Reference, parse_name, references_in
from ..store.content_store import Entries, Entry, content_path, metadata_path
from ..store.metadata import Metadata
from ..transports.docker_archive import ArchiveFile


@dataclass(frozen=True, slots=True)
class Container:
    """An image as it is staged.

    ``name`` is its canonical name, or its ID where it was asked for by that. ``repo_digest`` is the full name by
    digest under which a registry has it, None if no engine or registry told one. ``archive`` is the SHA-256 of the
    file, of which each of ``paths`` is a name, with its metadata at the same place in ``metadata_paths``; ``digests``
    are further ones by which engines and registries call the image. ``origin`` says where it came from this time:
    keep, engine, registry, cache, injected, or staged for one that was there.
    """

    name: str
    image_id: Digest
    repo_digest: str | None
    platform: Platform
    archive: Digest
    paths: tuple[Path, ...]
    metadata_paths: tuple[Path, ...]
    digests: tuple[Digest, ...]
    origin: str

    @property
    def engine_name(self) -> Reference | None:
        """The name of the image in an engine; None where it was asked for by ID or digest alone."""
        name = parse_name(self.name)
        if isinstance(name, ImageId) or name.tag is None:
            return None
        return Reference.parse(replace(name, digest=None, written="").canonical)

    @property
    def is_sif(self) -> bool:
        """True if the image is a SIF file, False if it is an archive."""
        return is_sif(content_path(self.paths[0]))

    @property
    def kind(self) -> str:
        """The kind of image by which engines take it or not, in the words of WfExS: ``docker`` or ``singularity``."""
        return "singularity" if self.is_sif else "docker"

    @contextmanager
    def open(self) -> Iterator[ArchivedImage]:
        """Open the image; raises DigestMismatch for an archive with another one in it, NotAnImage for a SIF file, and
        what ``ArchiveFile`` raises."""
        if self.is_sif:
            raise NotAnImage(f"{self.paths[0]} is a SIF file; images are read out of archives. Stage it as one too.")
        with ArchiveFile(content_path(self.paths[0]), follow_links=False).open() as image:
            if image.config.digest != self.image_id:
                raise DigestMismatch(
                    f"{self.paths[0]} should hold image {self.image_id}, and holds {image.config.digest}. "
                    "Nothing of it is used."
                )
            yield image


@dataclass(frozen=True, slots=True)
class WantedImage:
    """An image to be staged: the name, and each spelling in which it was given.

    ``platform`` says which of several is meant, None: whichever the name means where it is looked for. ``known`` is the
    name by digest under which a registry had it before, None if that is not known; ``known_platform`` what it was for.
    """

    name: Reference | ImageId
    spellings: tuple[str, ...]
    platform: Platform | None = None
    known: Reference | None = None
    known_platform: Platform | None = None

    @property
    def canonical(self) -> str:
        """The full spelling of the name."""
        return self.name.full_id if isinstance(self.name, ImageId) else self.name.canonical

    @property
    def digest(self) -> Digest | None:
        """The digest that was asked for; None for a name alone."""
        return self.name.as_digest if isinstance(self.name, ImageId) else self.name.digest

    def fits(self, platform: Platform) -> bool:
        """Say if an image for ``platform`` is among those that are meant."""
        return self.platform is None or suits(platform, self.platform)

    def __str__(self) -> str:
        return self.spellings[0]


@dataclass(frozen=True, slots=True)
class Copy:
    """A file in a folder of staged images, with the metadata beside it, or the reason why these cannot be used.

    ``sealed``: the metadata are this package's; WfExS' own have no seal.
    """

    path: Path
    metadata: Metadata | None
    problem: str = ""
    sealed: bool = True


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """A file of a folder after it was read; ``problem`` is empty for an unchanged file.

    One that is not ``sealed`` agrees with metadata that WfExS wrote.
    """

    path: Path
    name: str | None
    image_id: Digest | None
    problem: str
    sealed: bool = True


class Folder(Protocol):
    """A folder of staged images, in whatever form. ``sif`` says whether what is put there becomes SIF files."""

    sif: bool

    def copies(self) -> Sequence[Copy]:
        """The copies that are in the folder; no archive is read."""

    def tidy(self) -> None:
        """Remove what killed processes left half done, unless another process works on the folder."""

    def paths(self, wanted: WantedImage, image_id: Digest) -> tuple[Path, ...]:
        """The files that the image belongs in."""

    def put(self, wanted: WantedImage, entry: Entry, entries: Entries, *, force: bool) -> Sequence[Copy]:
        """Put an entry of the cache, which is known there by the image's name, into its files, and return the copies.

        Files that are there stay unless ``force``. Raises DigestMismatch for an entry that is not as it was written,
        OtherImage where something else is in its place, and DiskError.
        """


def wanted_images(
    references: Iterable[str | Container], platform: Platform | str | None = None
) -> tuple[WantedImage, ...]:
    """The images that are asked for, each once in whatever spellings; raises BadReference and UsageError."""
    by_name: dict[str, WantedImage] = {}
    chosen = parse_platform(platform) if isinstance(platform, str) else platform
    for asked in [references] if isinstance(references, str) else references:
        staged = None if isinstance(asked, str) else asked
        text, known, before = (staged.name, staged.repo_digest, staged.platform) if staged else (str(asked), None, None)
        before = None if before is None or "unknown" in (before.os, before.architecture) else before
        name = parse_name(text)
        if isinstance(name, ImageId) and name.as_digest is None:
            raise BadReference(f"{text!r} is the beginning of an image ID; what is staged is named by all 64 digits.")
        new = WantedImage(name, (text,), chosen, Reference.parse(known) if known else None, before)
        old = by_name.get(new.canonical, new)
        spellings = tuple(dict.fromkeys((*old.spellings, text)))
        informed = old if old.known else new
        by_name[new.canonical] = replace(
            old, spellings=spellings, known=informed.known, known_platform=informed.known_platform
        )
    return tuple(by_name.values())


def containers(copies: Iterable[Copy], origin: str = "staged") -> list[Container]:
    """The images of a folder, each once though it has several file names. Copies with a problem are left out."""
    images: dict[tuple[str, Digest, Digest], Container] = {}
    for copy in copies:
        if (metadata := copy.metadata) is not None:
            new = container_of(metadata, copy.path, origin)
            key = (new.name, metadata.image_id, metadata.archive)
            old = images.setdefault(key, new)
            if old is not new:
                more = (*old.metadata_paths, *new.metadata_paths)
                images[key] = replace(old, paths=(*old.paths, copy.path), metadata_paths=more)
    return list(images.values())


def ambiguous_names(staged: Iterable[Container]) -> list[str]:
    """Messages about names that several images have: an engine would have the last of them by such a name."""
    images: dict[str, dict[Digest, Path]] = {}
    for container in staged:
        images.setdefault(container.name, {})[container.image_id] = container.paths[0]
    return [
        f"{name} is {len(paths)} images here: {', '.join(map(str, paths.values()))}. Stage it again, with --force; or "
        "remove those that are not meant."
        for name, paths in images.items()
        if len(paths) > 1
    ]


def container_of(metadata: Metadata, path: Path, origin: str) -> Container:
    """The image of an archive with that metadata."""
    digests = references_in(metadata.repo_digests)
    asked = parse_name(metadata.name or str(metadata.image_id))
    same = [digest for digest in digests if isinstance(asked, Reference) and digest.repository == asked.repository]
    return Container(
        name=asked.full_id if isinstance(asked, ImageId) else asked.canonical,
        image_id=metadata.image_id,
        repo_digest=next((digest.canonical for digest in (*same, *digests)), None),
        platform=metadata.platform,
        archive=metadata.archive,
        paths=(path,),
        metadata_paths=(metadata_path(path),),
        digests=metadata.digests,
        origin=origin,
    )


def check_bytes(container: Container, progress: Progress) -> None:
    """Read the files of an image; raises DigestMismatch if one is not as it was staged, or is gone."""
    read = set()
    for path in container.paths:
        try:
            status = (file := content_path(path)).lstat()
        except OSError as error:
            raise DigestMismatch(f"{path} cannot be read: {error.strerror}. Stage the image again.") from None
        if stat.S_ISLNK(status.st_mode):
            raise DigestMismatch(f"{path} is a link, which is not followed. Stage the image again, with --force.")
        if not stat.S_ISREG(status.st_mode):
            raise DigestMismatch(f"{path} is no file. Stage the image again, with --force.")
        if (status.st_dev, status.st_ino) in read:
            continue
        read.add((status.st_dev, status.st_ino))
        with progress.step(f"verifying {path.name}", status.st_size) as advance:
            content = hash_of(file, advance)
        if content is None:
            raise DigestMismatch(f"{path} is not this user's to read, or its disk fails; nothing of it is used.")
        if content != container.archive:
            raise DigestMismatch(
                f"{path} is not as it was staged; nothing of it is used. Stage the image again, with --force."
            )


def check_image(container: Container, progress: Progress) -> None:
    """Read the image in the archive; raises ContentError if a layer is not the one that the image's config names."""
    with container.open() as image, progress.step(f"verifying {container.name}", image.known_size) as advance:
        for layer in image.layers():
            while content := layer.read(CHUNK):
                advance(len(content))


def verify(copies: Iterable[Copy], progress: Progress) -> Iterator[CheckedFile]:
    """Read every file of a folder, and yield each with what is wrong with it."""
    for copy in copies:
        if copy.metadata is None:
            yield CheckedFile(copy.path, None, None, copy.problem)
            continue
        container = container_of(copy.metadata, copy.path, "staged")
        problem = ""
        try:
            check_bytes(container, progress)
            if not container.is_sif:
                check_image(container, progress)
        except ContentError as error:
            problem = error.message
        yield CheckedFile(copy.path, container.name, container.image_id, problem, copy.sealed)


def check_all(copies: Sequence[Copy], progress: Progress) -> list[Container]:
    """Return the images of a folder where all are as they were staged; raises NotVerified, which names the others."""
    bad = [copy.problem for copy in copies if copy.problem]
    staged = containers(copies)
    for container in staged:
        try:
            check_bytes(container, progress)
        except ContentError as error:
            bad.append(error.message)
    bad += ambiguous_names(staged)
    if bad:
        raise NotVerified("not everything in the folder is as it was staged; nothing is loaded:", detail="\n".join(bad))
    return staged

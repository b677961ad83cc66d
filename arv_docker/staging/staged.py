# SPDX-License-Identifier: Apache-2.0
"""What is wanted in a folder of staged images, what is there, and whether that is well."""

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
from ..store.content_store import Entries, Entry, metadata_path
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
    def called(self) -> Reference | None:
        """The name that it gets in an engine; None where it was asked for by ID or digest alone."""
        name = parse_name(self.name)
        if isinstance(name, ImageId) or name.tag is None:
            return None
        return Reference.parse(replace(name, digest=None, written="").canonical)

    @property
    def is_sif(self) -> bool:
        """Whether it is a SIF file, not an archive."""
        return is_sif(self.paths[0])

    @property
    def kind(self) -> str:
        """What engines take it or not for, in the words of WfExS: ``docker`` or ``singularity``."""
        return "singularity" if self.is_sif else "docker"

    @contextmanager
    def open(self) -> Iterator[ArchivedImage]:
        """The image; raises DigestMismatch for an archive with another one in it, NotAnImage for a SIF file, and what
        ``ArchiveFile`` raises."""
        if self.is_sif:
            raise NotAnImage(f"{self.paths[0]} is a SIF file; images are read out of archives. Stage it as one too.")
        with ArchiveFile(self.paths[0]).open() as image:
            if image.config.digest != self.image_id:
                raise DigestMismatch(
                    f"{self.paths[0]} should hold image {self.image_id}, and holds {image.config.digest}. "
                    "Nothing of it is used."
                )
            yield image


@dataclass(frozen=True, slots=True)
class Wanted:
    """An image that is to be staged: its name, and each way in which it was written.

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
        """The one full spelling."""
        return self.name.written if isinstance(self.name, ImageId) else self.name.canonical

    @property
    def digest(self) -> Digest | None:
        """The digest that was asked for, None for a name alone."""
        return self.name.whole if isinstance(self.name, ImageId) else self.name.digest

    def fits(self, platform: Platform) -> bool:
        """Whether an image for that platform is one that is meant."""
        return self.platform is None or suits(platform, self.platform)

    def __str__(self) -> str:
        return self.spellings[0]


@dataclass(frozen=True, slots=True)
class Copy:
    """A file in a folder of staged images, with what is written beside it; or else why that cannot be used."""

    path: Path
    metadata: Metadata | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """A file of a folder after it was read; ``problem`` is empty if it is as it was staged."""

    path: Path
    name: str | None
    image_id: Digest | None
    problem: str


class Folder(Protocol):
    """A folder of staged images, in whatever form. ``sif`` says whether what is put there becomes SIF files."""

    sif: bool

    def copies(self) -> Sequence[Copy]:
        """What is there; no archive is read."""

    def tidy(self) -> None:
        """Removes what killed processes left half done, unless another process works on the folder."""

    def paths(self, wanted: Wanted, image_id: Digest) -> tuple[Path, ...]:
        """Where the image belongs."""

    def put(self, wanted: Wanted, entry: Entry, entries: Entries, *, force: bool) -> Sequence[Copy]:
        """Puts an entry of the cache, which is known there by the image's name, to where it belongs; gives what is
        there now.

        What was there stays unless ``force``. Raises DigestMismatch for an entry that is not as it was written,
        OtherImage where something else is in its place, and DiskError.
        """


def wanted(references: Iterable[str | Container], platform: Platform | str | None = None) -> tuple[Wanted, ...]:
    """Each image once, however often and in whatever spellings it is asked for; raises BadReference and UsageError."""
    found: dict[str, Wanted] = {}
    chosen = parse_platform(platform) if isinstance(platform, str) else platform
    for it in [references] if isinstance(references, str) else references:
        text, known, before = (it, None, None) if isinstance(it, str) else (it.name, it.repo_digest, it.platform)
        before = None if before is None or "unknown" in (before.os, before.architecture) else before
        name = parse_name(text)
        if isinstance(name, ImageId) and name.whole is None:
            raise BadReference(f"{text!r} is the beginning of an image ID; what is staged is named by all 64 digits.")
        new = Wanted(name, (text,), chosen, Reference.parse(known) if known else None, before)
        old = found.get(new.canonical, new)
        spellings = tuple(dict.fromkeys((*old.spellings, text)))
        of = old if old.known else new
        found[new.canonical] = replace(old, spellings=spellings, known=of.known, known_platform=of.known_platform)
    return tuple(found.values())


def containers(copies: Iterable[Copy], origin: str = "staged") -> list[Container]:
    """The images of a folder, those that are there under several file names once. Copies with a problem are left
    out."""
    found: dict[tuple[str, Digest, Digest], Container] = {}
    for copy in copies:
        if (it := copy.metadata) is not None:
            new = container_of(it, copy.path, origin)
            old = found.setdefault((new.name, it.image_id, it.archive), new)
            if old is not new:
                more = (*old.metadata_paths, *new.metadata_paths)
                found[new.name, it.image_id, it.archive] = replace(
                    old, paths=(*old.paths, copy.path), metadata_paths=more
                )
    return list(found.values())


def ambiguous(found: Iterable[Container]) -> list[str]:
    """What is wrong where one name is that of several images: an engine would have the last of them by it."""
    images: dict[str, dict[Digest, Path]] = {}
    for it in found:
        images.setdefault(it.name, {})[it.image_id] = it.paths[0]
    return [
        f"{name} is {len(paths)} images here: {', '.join(map(str, paths.values()))}. Stage it again, with --force; or "
        "remove those that are not meant."
        for name, paths in images.items()
        if len(paths) > 1
    ]


def container_of(metadata: Metadata, path: Path, origin: str) -> Container:
    """The image of that archive."""
    digests = references_in(metadata.repo_digests)
    asked = parse_name(metadata.name or str(metadata.image_id))
    own = [it for it in digests if isinstance(asked, Reference) and it.repository == asked.repository]
    return Container(
        name=asked.written if isinstance(asked, ImageId) else asked.canonical,
        image_id=metadata.image_id,
        repo_digest=next((it.canonical for it in (*own, *digests)), None),
        platform=metadata.platform,
        archive=metadata.archive,
        paths=(path,),
        metadata_paths=(metadata_path(path),),
        digests=metadata.digests,
        origin=origin,
    )


def check_bytes(container: Container, progress: Progress) -> None:
    """Reads the files of an image; raises DigestMismatch if one is not as it was staged, or is gone."""
    read = set()
    for path in container.paths:
        try:
            found = path.stat()
        except OSError as error:
            raise DigestMismatch(f"{path} cannot be read: {error.strerror}. Stage the image again.") from None
        if not stat.S_ISREG(found.st_mode):
            raise DigestMismatch(f"{path} is no file. Stage the image again, with --force.")
        if (found.st_dev, found.st_ino) in read:
            continue
        read.add((found.st_dev, found.st_ino))
        with progress.step(f"verifying {path.name}", found.st_size) as advance:
            content = hash_of(path, advance)
        if content is None:
            raise DigestMismatch(f"{path} is not this user's to read, or its disk fails; nothing of it is used.")
        if content != container.archive:
            raise DigestMismatch(
                f"{path} is not as it was staged; nothing of it is used. Stage the image again, with --force."
            )


def check_image(container: Container, progress: Progress) -> None:
    """Reads the image in the archive; raises ContentError if a layer is not the one that the image's config names."""
    with container.open() as image, progress.step(f"verifying {container.name}", image.known_size) as advance:
        for layer in image.layers():
            while content := layer.read(CHUNK):
                advance(len(content))


def verify(copies: Iterable[Copy], progress: Progress) -> Iterator[Checked]:
    """Reads everything."""
    for copy in copies:
        if copy.metadata is None:
            yield Checked(copy.path, None, None, copy.problem)
            continue
        container = container_of(copy.metadata, copy.path, "staged")
        problem = ""
        try:
            check_bytes(container, progress)
            if not container.is_sif:
                check_image(container, progress)
        except ContentError as error:
            problem = error.message
        yield Checked(copy.path, container.name, container.image_id, problem)


def sound(copies: Sequence[Copy], progress: Progress) -> list[Container]:
    """The images of a folder, when all of them are as they were staged; raises NotVerified, which names those that
    are not."""
    bad = [copy.problem for copy in copies if copy.problem]
    found = containers(copies)
    for container in found:
        try:
            check_bytes(container, progress)
        except ContentError as error:
            bad.append(error.message)
    bad += ambiguous(found)
    if bad:
        raise NotVerified("not everything in the folder is as it was staged; nothing is loaded:", detail="\n".join(bad))
    return found

# SPDX-License-Identifier: Apache-2.0
"""The images that an archive or layout lists, before any image is read, and the choice among them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from ..errors import BadReference, NoSuchImage, SeveralImages, lines_of
from ..model import manifest as manifests
from ..model.image import Config, Descriptor, Digest, Platform
from ..model.manifest import Manifest
from ..model.reference import ImageId, Reference, parse_name, references_in

#: What an image may be called by; a plain text is the name of an OCI layout, which need not be a reference.
Name = Reference | ImageId | str

_CONFIG_NAME = re.compile(r"(?:^|/)(?:sha256:)?([0-9a-f]{64})(?:\.json)?$")
_BLOB_NAME = re.compile(r"blobs/(sha256|sha512)/([0-9a-f]+)")


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """An image that an archive lists: the names of its files there.

    ``tags`` are the image's names in full, ``short_names`` those of an OCI layout that are no full names.
    ``digests`` are those of its OCI manifest and the indexes that lead to it. Images of one of ``groups`` are
    one image for several platforms. ``platform`` is None where the list does not say. ``manifest`` is its OCI manifest,
    where there is one.
    """

    config_path: str
    tags: tuple[str, ...]
    layer_paths: tuple[str, ...]
    short_names: tuple[str, ...] = ()
    digests: tuple[Digest, ...] = ()
    platform: Platform | None = None
    groups: frozenset[int] = field(default=frozenset(), compare=False)
    manifest: Manifest | None = field(default=None, compare=False)

    @property
    def config_digest(self) -> Digest | None:
        """The digest in the config's path, as all engines write it; None for a path without a digest."""
        match = _CONFIG_NAME.search(self.config_path)
        return Digest.sha256(match[1]) if match else digest_in(self.config_path)

    def answers_to(self, name: Name) -> bool:
        """True if ``name`` is a name of the image, or the beginning of the ID or another digest."""
        if isinstance(name, ImageId):
            digests = (self.config_digest, *self.digests)
            return any(digest is not None and name.matches(digest) for digest in digests)
        if isinstance(name, str):
            if name in self.tags or name in self.short_names:
                return True
            with suppress(BadReference):
                return self.answers_to(parse_name(name))
            return False
        if name in references_in(self.tags) or str(name) in self.short_names:
            return True
        return name.as_id is not None and self.answers_to(name.as_id)

    def __str__(self) -> str:
        name = ", ".join((*self.tags, *self.short_names)) or self.config_path
        return f"{name} ({self.platform})" if self.platform and self.groups else name


def each_once(images: Sequence[ArchiveEntry]) -> list[ArchiveEntry]:
    """Return each image once, with all its names."""
    tags: dict[str, dict[str, None]] = {}
    for image in images:
        tags.setdefault(image.config_path, {}).update(dict.fromkeys(image.tags))
    last = {image.config_path: image for image in images}
    return [replace(image, tags=tuple(tags[path])) for path, image in last.items()]


def choose_image(
    images: Sequence[ArchiveEntry], name: Name | None, platform: Platform | None, *, any_name: bool = False
) -> ArchiveEntry:
    """The image called ``name``, or the only one if None; for ``platform``, where the archive has it for several.

    With ``any_name`` a name does not have to be the archive's own if only one image is there. Raises SeveralImages,
    which names them, where that leaves more than one, NoSuchImage where it leaves none, and AmbiguousImage for several
    of one platform.
    """
    distinct = for_platforms(images, name, any_name=any_name)
    return distinct[0] if len(distinct) == 1 else _for_platform(distinct, platform)


def for_platforms(images: Sequence[ArchiveEntry], name: Name | None, *, any_name: bool = False) -> list[ArchiveEntry]:
    """The image called ``name``, or the only one if None, once for each platform; raises as ``choose_image`` does."""
    found = [image for image in images if name is None or image.answers_to(name)]
    if not found and any_name and not isinstance(name, ImageId) and _are_one(images):
        found = list(images)
    if not found:
        raise NoSuchImage(
            f"the archive holds no image {str(name)!r}. Choose one of these by its name or ID, or, of one image, leave "
            "the name out:",
            detail=_lines(images),
        )
    distinct = list({image.config_path: image for image in reversed(found)}.values())[::-1]
    if len(distinct) == 1 or _are_one(found):
        return distinct
    called = f"called {str(name)!r} " if name else ""
    raise SeveralImages(
        f"the archive holds {len(distinct)} images {called}- say which one is meant, by its name or ID:",
        detail=_lines(images if name is None else found),
    )


def check_platform(config: Config, platform: Platform | None) -> None:
    """Raise NoSuchImage for the config of an image that is for another platform than is asked for."""
    if platform is not None:
        found = manifests.IndexEntry(Descriptor("", config.digest, 0), config.platform)
        manifests.choose_entry([found], platform, what="the archive")


def digest_in(path: str) -> Digest | None:
    """The digest by which a blob is named, in archives and layouts alike; None for any other path."""
    match = _BLOB_NAME.fullmatch(path)
    with suppress(BadReference):
        return Digest.parse(f"{match[1]}:{match[2]}") if match else None
    return None


def _are_one(images: Sequence[ArchiveEntry]) -> bool:
    """True if ``images`` are one image, for one platform or several."""
    return len(images) == 1 or (bool(images) and bool(frozenset.intersection(*(image.groups for image in images))))


def _for_platform(images: Sequence[ArchiveEntry], platform: Platform | None) -> ArchiveEntry:
    by_digest = {image.digests[0]: image for image in images}
    offered = [manifests.IndexEntry(Descriptor("", digest, 0), image.platform) for digest, image in by_digest.items()]
    return by_digest[manifests.choose_entry(offered, platform, what="the archive").descriptor.digest]


def _lines(images: Sequence[ArchiveEntry]) -> str:
    return lines_of(images)

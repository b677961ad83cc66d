# SPDX-License-Identifier: Apache-2.0
"""Reading a docker-archive: what ``docker save`` writes, and tools that write the same.

Known generations: Docker 1.10 to 24 (a folder for each layer, a repeated layer as a
symbolic link), Docker 25 and later (``blobs/sha256/``, also an OCI layout), Podman and
skopeo (flat files), and the canonical archive. In all of them ``manifest.json`` says
which files are the config and the layers; nothing else in the archive is believed, and
the bytes are judged by the digests that the config names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..errors import (
    BadArchive,
    BadConfig,
    DigestMismatch,
    LayerCountMismatch,
    NoSuchImage,
    NotAnImage,
    SchemaOne,
    SeveralImages,
)
from ..image import MAX_JSON_SIZE, Config, Digest
from ..reference import ImageId, Reference, references_in
from . import oci
from .layer import Layer
from .tar import Index, Member, RandomAccess

_MAX_LAYERS = 10_000
_HEX_NAME = re.compile(r"(?:^|/)([0-9a-f]{64})(?:\.json)?$")
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"PK\x03\x04": "zip",
}


@dataclass(frozen=True, slots=True)
class Listed:
    """An image as ``manifest.json`` lists it, before anything of it was read."""

    config_path: str
    tags: tuple[str, ...]
    layer_paths: tuple[str, ...]

    def answers_to(self, name: Reference | ImageId) -> bool:
        """Whether ``name`` is one of the image's tags, or the beginning of its ID."""
        if isinstance(name, ImageId):
            claimed = _claimed(self.config_path)
            return claimed is not None and name.matches(claimed)
        return name in references_in(self.tags)

    def __str__(self) -> str:
        return ", ".join(self.tags) or self.config_path


class ArchivedImage:
    """One image of an archive, its layers readable in any order.

    ``config`` is parsed and hashes to what its path claims; ``sizes`` are the layers'
    bytes by diff_id; ``tags`` the names that the archive gives it.
    """

    def __init__(self, source: RandomAccess, index: Index, listed: Listed) -> None:
        """Reads config and structure. Raises BadArchive, BadConfig, DigestMismatch, or a NotAnImage."""
        self._source = source
        self._index = index
        self.tags = listed.tags
        self.config = config_of(index, listed)
        self._listed = listed
        self._members = layer_members(index, listed, self.config)

    def check_layout(self) -> None:
        """Raises DigestMismatch if another reader could take another image from the archive, each byte being right:
        by an OCI layout in it, or from a layer that stands at two places."""
        for diff_id, path in zip(self.config.diff_ids, self._listed.layer_paths, strict=True):
            if self._index.file(path) != self._members[diff_id]:
                raise DigestMismatch(f"layer {diff_id} stands at two places in the archive. Readers may take either.")
        blobs = {self.config.digest: self._index.file(self._listed.config_path), **self._members}
        oci.check(self._index, self.config, blobs)

    @property
    def sizes(self) -> Mapping[Digest, int]:
        """The uncompressed size of each distinct layer, in bytes."""
        return {diff_id: member.size for diff_id, member in self._members.items()}

    def layers(self, skip: Container[Digest] = ()) -> Iterator[Layer]:
        """Each distinct layer that is not in ``skip``, in the order in which they lie in the archive."""
        for diff_id in sorted(self._members, key=lambda diff_id: self._members[diff_id].offset):
            if diff_id not in skip:
                yield self.layer(diff_id)

    def layer(self, diff_id: Digest) -> Layer:
        """The layer of that name, from its front."""
        offset, size = self.place(diff_id)
        return Layer(section(self._source, offset, size), claimed=diff_id, size=size)

    def place(self, diff_id: Digest) -> tuple[int, int]:
        """Where the layer's bytes lie in the archive: offset and size."""
        member = self._members[diff_id]
        return member.offset, member.size


class DockerArchive:
    """A docker-archive: an index of its members and the images that it lists."""

    def __init__(self, source: RandomAccess) -> None:
        """Reads the headers and ``manifest.json``; raises BadArchive, SchemaOne or NotAnImage."""
        _refuse_compressed(source)
        self._source = source
        self._index = Index(source)
        self.images = listing(self._index)

    def image(self, name: Reference | ImageId | None = None) -> ArchivedImage:
        """The image called ``name``, or the only one there is.

        A name does not have to be the archive's own if only one image is there, an ID does.
        Raises SeveralImages, which names them, where that leaves more than one, and
        NoSuchImage where it leaves none.
        """
        return ArchivedImage(self._source, self._index, self._listed(name))

    def _listed(self, name: Reference | ImageId | None) -> Listed:
        several = "\n".join(str(image) for image in self.images)
        found = [image for image in self.images if name is None or image.answers_to(name)]
        if not found and not isinstance(name, ImageId) and len(self.images) == 1:
            return self.images[0]
        if not found:
            raise NoSuchImage(f"the archive holds no image {str(name)!r}; it holds:", detail=several)
        if len({image.config_path for image in found}) > 1:
            called = f"called {str(name)!r} " if name else ""
            raise SeveralImages(
                f"the archive holds {len(found)} images {called}- say which one is meant, by its name or ID:",
                detail=several,
            )
        return found[0]


def section(source: RandomAccess, offset: int, size: int) -> partial[bytes]:
    """A function that reads on from ``offset``, ``size`` bytes in all."""
    return partial(_read_on, source, [offset, offset + size])


def _read_on(source: RandomAccess, bounds: list[int], length: int) -> bytes:
    content = source.read_at(bounds[0], min(length, bounds[1] - bounds[0]))
    bounds[0] += len(content)
    return content


def _refuse_compressed(source: RandomAccess) -> None:
    start = source.read_at(0, 8)
    for magic, kind in _COMPRESSED.items():
        if start.startswith(magic):
            raise BadArchive(f"the archive is compressed with {kind}. Decompress it first.")


def only(images: Sequence[Listed]) -> Listed:
    """The one image there is; raises SeveralImages, which names them."""
    if len(images) != 1:
        raise SeveralImages(
            f"the archive holds {len(images)} images - say which one is meant, by its name or ID:",
            detail="\n".join(map(str, images)),
        )
    return images[0]


def listing(index: Index) -> tuple[Listed, ...]:
    """The images that ``manifest.json`` lists; raises BadArchive, SchemaOne or NotAnImage where that cannot be said."""
    if "manifest.json" not in index:
        raise _without_manifest(index)
    try:
        document = json.loads(index.read("manifest.json", limit=MAX_JSON_SIZE).decode())
    except (ValueError, RecursionError) as error:
        raise BadArchive(f"manifest.json in the archive is not JSON: {error}.") from None
    if not isinstance(document, list) or not document:
        raise BadArchive("manifest.json in the archive lists no image. Save the image again, by its name.")
    return tuple(_listed_image(item) for item in document)


def _without_manifest(index: Index) -> Exception:
    names = set(index.names())
    if "repositories" in names:
        return SchemaOne("the archive is of a Docker older than 1.10. Load it into a newer engine, and save it again.")
    if any(name.endswith("/layer.tar") for name in names):
        return BadArchive("the archive has layers and no manifest.json: it is cut short. Save or copy it again.")
    if "oci-layout" in names or "index.json" in names:
        return NotAnImage("the archive is an OCI layout without Docker's manifest.json. Load it into an engine first.")
    return NotAnImage("the archive has no manifest.json: it was not made by docker save, podman save or skopeo.")


def _listed_image(item: Any) -> Listed:
    def strings(key: str) -> tuple[str, ...]:
        value = item.get(key) or []
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value) or len(value) > _MAX_LAYERS:
            raise BadArchive(f"manifest.json in the archive has a malformed {key}.")
        return tuple(value)

    if not isinstance(item, dict) or not isinstance(item.get("Config"), str):
        raise BadArchive("manifest.json in the archive has an entry without a config.")
    return Listed(item["Config"], strings("RepoTags"), strings("Layers"))


def config_of(index: Index, listed: Listed) -> Config:
    """The config of a listed image; raises BadConfig, DigestMismatch, or what ``Config.parse`` refuses."""
    member = index.file(listed.config_path)
    if member.size > MAX_JSON_SIZE:
        raise BadConfig(
            f"the image's config is {member.size} bytes; more than {MAX_JSON_SIZE} are not read. It is no image config."
        )
    config = Config.parse(index.read(listed.config_path, limit=MAX_JSON_SIZE))
    claimed = _claimed(listed.config_path)
    if claimed is not None and claimed != config.digest:
        raise DigestMismatch(
            f"the archive calls its config {claimed}, and the config hashes to {config.digest}. "
            "The archive was altered or damaged; nothing of it is used."
        )
    return config


def _claimed(path: str) -> Digest | None:
    """The digest that a config's path names, as all engines write it; None for a path that names none."""
    match = _HEX_NAME.search(path)
    return Digest.sha256(match[1]) if match else None


def layer_members(index: Index, listed: Listed, config: Config) -> dict[Digest, Member]:
    """Where each distinct layer of an image lies, unverified; raises LayerCountMismatch and BadArchive."""
    if len(listed.layer_paths) != len(config.diff_ids):
        raise LayerCountMismatch(
            f"the archive lists {len(listed.layer_paths)} layers and the image's config {len(config.diff_ids)}. "
            "Save the image again."
        )
    members: dict[Digest, Member] = {}
    for diff_id, path in zip(config.diff_ids, listed.layer_paths, strict=True):
        member = index.file(path)
        members.setdefault(diff_id, member)
    return members

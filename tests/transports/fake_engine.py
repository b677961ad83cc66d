# SPDX-License-Identifier: Apache-2.0
"""An engine in memory, of either store: the classic one, or containerd's, which names images by manifest."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from arv_docker.archive import canonical
from arv_docker.archive.archived_image import ArchivedImage
from arv_docker.archive.reader import ArchiveReader
from arv_docker.archive.tar import Index
from arv_docker.engines import EngineImage, ListedImage
from arv_docker.engines.building import Build
from arv_docker.errors import ContentError, EngineError, NoSuchImage
from arv_docker.model.image import OCI_MANIFEST, Digest, Platform
from arv_docker.model.reference import ImageId, Reference

from ..archives import END, Bytes, Image, blobs_of, classic, descriptor, member, oci_index, oci_manifest, tar


class Pipe:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, length: int) -> bytes:
        piece, self._content = self._content[:length], self._content[length:]
        return piece

    def readinto(self, buffer: memoryview) -> int:
        piece = self.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


class FakeEngine:
    """`images` are archives by the engine's ID; `calls` what it was asked for."""

    name = "docker"

    def __init__(
        self,
        *images: Image,
        containerd: bool = False,
        compressed: bool = False,
        deaf: bool = False,
        takes_short: bool = True,
    ) -> None:
        """`deaf`: says that it loaded and did not; `takes_short`: archives without layers that it has. `compressed`:
        it has those only so, and is content, but does not list the image, which is then in `partial`."""
        self.containerd = containerd
        self._compressed = compressed
        self.partial: set[Digest] = set()
        self._deaf = deaf
        self._takes_short = takes_short
        self.images: dict[Digest, bytes] = {}
        self.tags: dict[Digest, list[str]] = {}
        self.calls: list[str] = []
        self.builds: list[Build] = []
        self.fed: list[bytes] = []
        for made in images:
            self.images[made.parsed.digest] = classic(made)
            self.tags[made.parsed.digest] = ["app:1"]

    def version(self) -> str:
        return "1"

    def platform(self) -> Platform:
        return Platform("linux", "amd64")

    def chains(self) -> set[tuple[Digest, ...]]:
        self.calls.append("chains")
        whole = (content for image_id, content in self.images.items() if image_id not in self.partial)
        return {image.config.diff_ids for image in map(_archived, whole)}

    def inspect(self, name: Reference | ImageId) -> EngineImage:
        for image_id in self.images:
            tags = self.tags.get(image_id, [])
            named = isinstance(name, Reference) and name in map(Reference.parse, tags)
            if named or (isinstance(name, ImageId) and name.matches(image_id)):
                config = _archived(self.images[image_id]).config
                started = json.loads(config.raw).get("config") or {}
                platform = config.platform if config.platform.architecture != "unknown" else self.platform()
                return EngineImage(image_id, tuple(tags), (), config.diff_ids, platform, 1000, config=started)
        raise NoSuchImage(f"no image {name}")

    @contextmanager
    def save(self, images: Iterable[str]) -> Iterator[Any]:
        self.calls.append("save")
        contents = [self.images[Digest.parse(image_id)] for image_id in images]
        yield Pipe(contents[0] if len(contents) == 1 else together(contents))

    def load(self, archive: Iterable[bytes]) -> str:
        self.calls.append("load")
        self.fed = []
        for chunk in archive:
            self.fed.append(chunk)
        if self._deaf:
            return "Loaded nothing"
        content = b"".join(self.fed)
        try:
            short = content
            if self._takes_short:
                content = self._completed(content)
            found = ArchiveReader(Bytes(content)).image()
        except ContentError as error:
            raise EngineError(str(error)) from error
        layout = canonical.layout(found.config, found.sizes)
        image_id = layout.manifest_digest if self.containerd else found.config.digest
        self.images[image_id] = content
        self.partial -= {image_id}
        layers = {f"blobs/sha256/{diff_id.hex}" for diff_id in found.sizes}
        if self._compressed and not layers <= set(Index(Bytes(short)).names()):
            self.partial.add(image_id)
        return "Loaded image"

    def tag(self, image: Digest, name: Reference) -> None:
        self.calls.append("tag")
        self.tags = {it: [tag for tag in tags if tag != name.familiar_name] for it, tags in self.tags.items()}
        self.tags.setdefault(image, []).append(name.familiar_name)

    def remove(self, image: Digest) -> None:
        self.calls.append("remove")
        del self.images[image]

    def pull(self, name: Reference, on_line: Callable[[str], None] | None = None) -> None:
        self.calls.append("pull")

    def build(self, wanted: Build) -> Generator[str, None, EngineImage]:
        self.calls.append("build")
        self.builds.append(wanted)
        yield "Step 1/1 : FROM scratch\n"
        image_id = next(iter(self.images))
        if wanted.tag:
            self.tag(image_id, wanted.tag)
        return self.inspect(ImageId(image_id.hex))

    def list(self) -> list[ListedImage]:
        return [ListedImage("app", "1", image_id, "", "") for image_id in self.images if image_id not in self.partial]

    def _completed(self, content: bytes) -> bytes:
        """The archive with the layers that this engine has and the archive has not."""
        there = set(Index(Bytes(content)).names())
        own = {layer.claimed: layer for image in map(_archived, self.images.values()) for layer in image.layers()}
        names = {f"blobs/sha256/{diff_id.hex}": layer for diff_id, layer in own.items() if diff_id is not None}
        missing = [member(name.encode(), layer.read(1 << 30)) for name, layer in names.items() if name not in there]
        return b"".join((content[: -len(END)], *missing, END))


def together(contents: Sequence[bytes]) -> bytes:
    """One archive of the images in several, as Docker 25 and later save them: what they share is there once."""
    files: dict[str, bytes] = {}
    entries, manifests = [], []
    for image in map(_archived, contents):
        layers = {layer.claimed: layer.read(1 << 30) for layer in image.layers()}
        names = [f"blobs/sha256/{diff_id.hex}" for diff_id in image.config.diff_ids]
        files |= {f"blobs/sha256/{diff_id.hex}": layer for diff_id, layer in layers.items() if diff_id is not None}
        files[f"blobs/sha256/{image.config.digest.hex}"] = image.config.raw
        manifests.append(oci_manifest(image.config.raw, [layers[diff_id] for diff_id in image.config.diff_ids]))
        files |= blobs_of(manifests[-1])
        entries.append({"Config": f"blobs/sha256/{image.config.digest.hex}", "RepoTags": None, "Layers": names})
    index = oci_index(*(descriptor(manifest, OCI_MANIFEST) for manifest in manifests))
    return tar({**files, "index.json": index, "manifest.json": json.dumps(entries).encode()})


def _archived(content: bytes) -> ArchivedImage:
    return ArchiveReader(Bytes(content)).image()

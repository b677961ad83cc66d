# SPDX-License-Identifier: Apache-2.0
"""Reading of archives and layouts: of ``docker save``, and of tools that write the same or OCI.

Known generations: Docker 1.10 to 24 (a folder for each layer, a repeated layer as a
symbolic link), Docker 25 and later (``blobs/sha256/``, also an OCI layout; its containerd
store with compressed layers), Podman and skopeo (flat files), OCI layouts, and the canonical
archive. ``manifest.json``, where it is there, says which files are the config and the layers,
else the OCI index; nothing else is believed, and the bytes are judged by the digests that the
config names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from ..errors import BadArchive, BadConfig, ContentError, DigestMismatch, LayerCountMismatch, NotAnImage, SchemaOne
from ..local.progress import Progress
from ..model import manifest
from ..model.image import MAX_JSON_SIZE, Config, Digest, Platform, json_document, spellings_of
from . import oci
from .archived_image import ArchivedImage, ArchiveLayer
from .blob import Files, RandomAccess
from .codecs.whole_archive import unwrap
from .listing import ArchiveEntry, Name, check_platform, choose_image, digest_in, each_once, for_platforms
from .strict_tar import StrictCheck
from .tar import TOLERANT, Index

_MAX_LAYERS = 10_000
_MAX_IMAGES = 10_000
_MANIFEST_KEYS = spellings_of("Config", "RepoTags", "Layers")

#: One of several images: what the archive calls it, and what opens it, which raises what ``Images.open_entry`` raises.
Openable = tuple[str, Callable[[], ArchivedImage]]


class Images:
    """The images of an archive or layout. ``images`` are the listed images."""

    def __init__(
        self, files: Files, *, by_index: bool = False, any_name: bool = False, progress: Progress | None = None
    ) -> None:
        """List the images of ``files``. ``by_index``: the OCI index is asked first, where Docker's ``manifest.json`` is
        there too. ``any_name``: a name does not have to be the archive's own if only one image is there.

        Raises BadArchive, SchemaOne or NotAnImage where it cannot be said which images are there.
        """
        self._files = files
        self._progress = progress
        self._any_name = any_name
        self._faces: tuple[ArchiveEntry, ...] | None = None
        if by_index and "index.json" in files:
            self.images = self._by_index()
        else:
            self.images = named_listing(files)

    def image(self, name: Name | None = None, platform: Platform | None = None) -> ArchivedImage:
        """Open the image called ``name``, or the only one if None; for ``platform``, where it is there for several.

        Without a platform that for this machine is taken, where there are several. Raises SeveralImages or
        AmbiguousImage, which name them, where that leaves more than one, and NoSuchImage where it leaves none; and what
        ``open_entry`` raises.
        """
        images = self.images
        if platform is not None and "index.json" in self._files:
            images = self._by_index() or images  # manifest.json has one platform of each image
        image = self.open_entry(choose_image(images, name, platform, any_name=self._any_name))
        check_platform(image.config, platform)
        return image

    def every(self, name: Name | None = None) -> Iterator[Openable]:
        """Yield every image, or every one called ``name``: each once with all its names, for all platforms there.

        Raises NoSuchImage where there is none of that name.
        """
        found = [image for image in self.images if name is None or image.answers_to(name)]
        if not found:
            found = [choose_image(self.images, name, None, any_name=self._any_name)]
        for image in each_once(found):
            yield str(image), partial(self.open_entry, image)

    def platforms(self, name: Name | None = None) -> Iterator[Openable]:
        """The image called ``name``, or the only one there is, for each of its platforms; raises as ``image`` does."""
        images = self._by_index() if "index.json" in self._files else ()
        for image in for_platforms(images or self.images, name, any_name=self._any_name):
            yield str(image), partial(self.open_entry, image)

    def open_entry(self, listed: ArchiveEntry) -> ArchivedImage:
        """Open an image of ``images``: read its config and structure.

        Raises BadArchive, BadConfig, or a NotAnImage; DigestMismatch where ``manifest.json`` and the OCI index lead to
        different images.
        """
        check_listed(listed)
        config = config_of(self._files, listed)
        layers = [
            ArchiveLayer.of(diff_id, self._files.blob(path), digest_in(path))
            for diff_id, path in layer_paths(listed, config)
        ]
        digests = listed.digests
        if "manifest.json" in self._files and "index.json" in self._files:
            digests = oci.digests_of(oci.check(self._files, listing(self._files)), listed)
        return ArchivedImage(
            config,
            layers,
            tags=listed.tags,
            digests=digests,
            read_manifest=partial(self._manifest_of, config, digests),
            progress=self._progress,
        )

    def _manifest_of(self, config: Config, digests: Sequence[Digest]) -> bytes | None:
        """The manifest of an image with that config among the documents with these digests."""
        for digest in digests:
            path = f"blobs/{digest.algorithm}/{digest.hex}"
            if digest.algorithm not in manifest.HASHES or path not in self._files:
                continue
            raw = self._files.read(path, limit=MAX_JSON_SIZE)
            if Digest.of(raw, digest.algorithm) != digest:
                raise DigestMismatch(f"manifest {digest} in the archive holds other bytes. Save the image again.")
            parsed = manifest.parse(raw, what=f"manifest {digest}")
            if isinstance(parsed, manifest.Manifest) and parsed.config.digest == config.digest:
                return raw
        return None

    def _by_index(self) -> tuple[ArchiveEntry, ...]:
        """The images of the OCI index, with the names of ``manifest.json`` for them too."""
        if self._faces is None:
            docker = listing(self._files) if "manifest.json" in self._files else ()
            self._faces = oci.with_names_of(oci.listing(self._files), docker)
        return self._faces


class ArchiveReader(Images):
    """The images of a tar, which may be compressed or the one member of a ZIP file."""

    def __init__(
        self,
        source: RandomAccess,
        *,
        by_index: bool = False,
        any_name: bool = False,
        strict: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Read the tar's headers and what lists the images. ``strict``: refuse what two readers may read differently.

        Raises BadArchive, SchemaOne or NotAnImage.
        """
        check = StrictCheck() if strict else TOLERANT
        content, known = unwrap(source, progress, check)
        super().__init__(Index(content, known, check=check), by_index=by_index, any_name=any_name, progress=progress)


def named_listing(files: Files) -> tuple[ArchiveEntry, ...]:
    """The images of an archive as ``listing`` has them, with the names in the OCI index too."""
    images = listing(files)
    if "manifest.json" not in files or "index.json" not in files:
        return images
    try:
        return oci.with_names_of(images, oci.listing(files))
    except ContentError:  # said when an image is opened: of which, the index cannot tell
        return images


def check_listed(listed: ArchiveEntry) -> None:
    """Raise NotAnImage where the manifest shows something other than an image."""
    if listed.manifest is not None:
        manifest.check_image(listed.manifest, what=f"{listed} in the archive")


def listing(files: Files) -> tuple[ArchiveEntry, ...]:
    """The images of an archive, by ``manifest.json`` or else the OCI index.

    Raises BadArchive, BadConfig, SchemaOne or NotAnImage where they cannot be told.
    """
    if "manifest.json" not in files:
        if "index.json" in files:
            return oci.listing(files)
        raise _without_images(files)
    raw = files.read("manifest.json", limit=MAX_JSON_SIZE)
    try:
        document = json_document(raw, what="manifest.json in the archive", spellings=_MANIFEST_KEYS)
    except BadConfig as error:
        raise BadArchive(error.message) from None
    if not isinstance(document, list) or not document:
        raise BadArchive("manifest.json in the archive lists no image. Save the image again, by its name.")
    if len(document) > _MAX_IMAGES:
        raise BadArchive(f"manifest.json in the archive lists {len(document)} images; at most {_MAX_IMAGES} are read.")
    return tuple(_listed_image(item) for item in document)


def config_of(files: Files, listed: ArchiveEntry) -> Config:
    """The config of a listed image; raises BadConfig, DigestMismatch, or what ``Config.parse`` refuses."""
    size = files.blob(listed.config_path).size
    if size > MAX_JSON_SIZE:
        raise BadConfig(
            f"the image's config is {size} bytes; more than {MAX_JSON_SIZE} are not read. It is no image config."
        )
    raw = files.read(listed.config_path, limit=MAX_JSON_SIZE)
    claimed = listed.config_digest
    if claimed is not None and (found := Digest.of(raw, claimed.algorithm)) != claimed:
        raise DigestMismatch(
            f"the archive calls its config {claimed}, and the config hashes to {found}. "
            "The archive was altered or damaged; nothing of it is used."
        )
    return Config.parse(raw)


def layer_paths(listed: ArchiveEntry, config: Config) -> list[tuple[Digest, str]]:
    """An image's layers from the lowest up, each with its path in the archive; raises LayerCountMismatch."""
    if len(listed.layer_paths) != len(config.diff_ids):
        raise LayerCountMismatch(
            f"the archive lists {len(listed.layer_paths)} layers and the image's config {len(config.diff_ids)}. "
            "Save the image again."
        )
    return list(zip(config.diff_ids, listed.layer_paths, strict=True))


def _without_images(files: Files) -> Exception:
    if "repositories" in files:
        return SchemaOne("the archive is of a Docker older than 1.10. Load it into a newer engine, and save it again.")
    if any(name.endswith("/layer.tar") for name in files.names()):
        return BadArchive("the archive has layers and no manifest.json: it is cut short. Save or copy it again.")
    return NotAnImage(
        "the archive has no manifest.json and no index.json: it was not made by docker save, podman save or skopeo."
    )


def _listed_image(item: Any) -> ArchiveEntry:
    def strings(key: str) -> tuple[str, ...]:
        value = item.get(key) or []
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value) or len(value) > _MAX_LAYERS:
            raise BadArchive(f"manifest.json in the archive has a malformed {key}.")
        return tuple(value)

    if not isinstance(item, dict) or not isinstance(item.get("Config"), str):
        raise BadArchive("manifest.json in the archive has an entry without a config.")
    return ArchiveEntry(item["Config"], strings("RepoTags"), strings("Layers"))

# SPDX-License-Identifier: Apache-2.0
"""A cache folder of WfExS-backend, which then finds the images of a workflow there, offline.

Each container factory of WfExS has a cache in the layout of ``store.content_store``, with links for each workflow
engine (docs/spec/wfexs.md#cache-layout):

    containers/DockerContainerFactory/sha256~<base64>~
    containers/DockerContainerFactory/CWLWorkflowEngine/<file name>

The archives are compressed with gzip, for WfExS takes no others, and name the image: by that name WfExS looks for it
in an engine that has loaded the archive.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..archive import canonical, oci
from ..archive.canonical import Names
from ..archive.codecs.gzip import gzip_chunks
from ..errors import ContentError, OtherImage, UsageError
from ..local.disk import read_file
from ..local.progress import Progress, SilentProgress
from ..model.image import MAX_JSON_SIZE, Digest
from ..model.reference import ImageId
from ..staging.staged import Copy, WantedImage
from ..store.content_store import Entries, Entry, content_path, metadata_path
from ..store.filenames import METADATA_SUFFIX, naming
from ..store.metadata import Metadata, Wfexs, WfexsSif, record_of
from ..transports.docker_archive import ArchiveFile
from ..transports.local import archive_of

#: WfExS' factories, by the engine that each drives.
FACTORIES = {"docker": "DockerContainerFactory", "podman": "PodmanContainerFactory"}
#: The one for Singularity, whose SIF files are only read here.
SINGULARITY = "SingularityContainerFactory"
#: Its workflow engines, by the naming of the files that each looks for.
ENGINES = {"cwl": "CWLWorkflowEngine", "nextflow": "NextflowWorkflowEngine"}


class WfexsCache:
    """The images in a cache folder of WfExS."""

    sif = False

    def __init__(self, path: Path, scheme: str | None = None, progress: Progress | None = None) -> None:
        """Use the naming ``scheme`` of the workflow engine that is written for, None: all. Raises UsageError."""
        if scheme is not None and scheme not in ENGINES:
            raise UsageError(f"WfExS looks for no files by the naming {scheme!r}: it has {' and '.join(ENGINES)}.")
        self._root = path / "containers"
        self._schemes = [scheme] if scheme else list(ENGINES)
        self._progress = progress or SilentProgress()

    def copies(self) -> list[Copy]:
        """The copies for every factory, and for the workflow engines that are written for."""
        groups = [
            (engine, self._root / factory / ENGINES[scheme])
            for engine, factory in FACTORIES.items()
            for scheme in self._schemes
        ]
        found = [_copy(path, Wfexs(engine)) for engine, folder in groups for path in _names_in(folder)]
        sif_groups = [self._root / SINGULARITY / ENGINES[scheme] for scheme in self._schemes]
        sifs = [_copy(path, WfexsSif()) for folder in sif_groups for path in _names_in(folder)]
        return [*_mark_differences(found), *sifs]

    def tidy(self) -> None:
        """Remove archives that are not whole."""
        for factory in FACTORIES.values():
            Entries(self._root / factory, "", lambda name: (name,), shared=True).tidy()

    def paths(self, wanted: WantedImage, image_id: Digest) -> tuple[Path, ...]:
        """The paths of an image's links."""
        caches = [(scheme, it) for engine in FACTORIES for scheme, it in self._caches(engine, wanted)]
        return tuple(
            it.root / ENGINES[scheme] / name for scheme, it in caches for name in _names(scheme, wanted, image_id)
        )

    def put(self, wanted: WantedImage, entry: Entry, entries: Entries, *, force: bool) -> list[Copy]:
        """Store an image, compressed once; the factories share the file where there are hard links."""
        entries.check(entry)
        paths = self.paths(wanted, entry.metadata.image_id)
        for path in () if force else (*paths, *map(metadata_path, paths)):
            _check_free(path)
        written = None
        for engine in FACTORIES:
            for _, cache in self._caches(engine, wanted):
                if not force and (there := cache.query(wanted.canonical)) is not None:
                    _check_same(there, entry, wanted)
                    continue
                written = cache.adopt(wanted.canonical, written) if written else self._write(cache, wanted, entry)
        return [copy for copy in self.copies() if copy.path in paths]

    def _caches(self, engine: str, wanted: WantedImage) -> Iterator[tuple[str, Entries]]:
        for scheme in self._schemes:

            def names(_: str, scheme: str = scheme) -> Sequence[str]:
                return _names(scheme, wanted, Digest.of(b""))

            root = self._root / FACTORIES[engine]
            yield (
                scheme,
                Entries(root, ENGINES[scheme], names, form=Wfexs(engine), progress=self._progress, shared=True),
            )

    def _write(self, cache: Entries, wanted: WantedImage, entry: Entry) -> Entry:
        image_id = entry.metadata.image_id
        with ArchiveFile(entry.path).open() as image, cache.fetching(image_id):
            layout = canonical.layout(image.config, image.sizes, _tags(wanted))
            tags = [wanted.canonical] if _tags(wanted).tags else []
            record = record_of(image.config, sum(image.sizes.values()), entry.metadata.repo_digests, tags)
            with self._progress.step(f"compressing {wanted}", layout.size) as advance:
                chunks = gzip_chunks(_read_from(archive_of(image, layout, advance)))
                return cache.update(
                    wanted.canonical, chunks, layout.size, image_id, lambda archive: Metadata(image_id, archive, record)
                )


def _names(scheme: str, wanted: WantedImage, image_id: Digest) -> tuple[str, ...]:
    return tuple(dict.fromkeys(naming(scheme)(text, image_id) for text in wanted.spellings))


def _tags(wanted: WantedImage) -> Names:
    """Names for the archive: the full one alone, which both Docker and Podman then use."""
    if isinstance(wanted.name, ImageId) or wanted.name.tag is None or wanted.name.digest is not None:
        return Names()
    return Names((wanted.canonical,), {oci.FULL_NAME: wanted.canonical, oci.REF_NAME: wanted.name.tag})


def _check_same(present: Entry, entry: Entry, wanted: WantedImage) -> None:
    if present.metadata.image_id != entry.metadata.image_id:
        raise OtherImage(
            f"WfExS has {wanted} as image {present.metadata.image_id.short_hex}, and it is "
            f"{entry.metadata.image_id.short_hex} now. Use --force to replace it, or another --dir."
        )


def _check_free(path: Path) -> None:
    """Raise OtherImage where something is at ``path`` that a killed process of ours cannot have left."""
    if os.path.lexists(path) and not (path.is_symlink() and path.readlink().parent == Path("..")):
        raise OtherImage(
            f"{path} is there and is no link into this cache. Use --force to replace it, or another --dir."
        )


def _names_in(folder: Path) -> list[Path]:
    """The links to archives in a folder."""
    return [path for path in sorted(folder.glob("[!.]*")) if not path.name.endswith(METADATA_SUFFIX)]


def _copy(path: Path, form: Wfexs | WfexsSif) -> Copy:
    try:
        return Copy(path, form.load(read_file(content_path(metadata_path(path)), MAX_JSON_SIZE)))
    except (OSError, ContentError) as error:
        return Copy(path, None, f"the metadata of {path} cannot be used: {error}")


def _mark_differences(copies: list[Copy]) -> list[Copy]:
    """Mark copies of one archive whose metadata differ as problems: signatures do not cover all of the metadata, and
    all factories should have the same."""
    said: dict[Digest, set[str]] = {}
    for copy in copies:
        if (it := copy.metadata) is not None:
            record = {key: value for key, value in it.record.items() if key != "Id"}
            said.setdefault(it.archive, set()).add(json.dumps(record, sort_keys=True))
    problem = "does not say the same of the image as its other metadata do. Stage it again, with --force."
    return [
        Copy(it.path, None, f"{metadata_path(it.path)} {problem}")
        if it.metadata is not None and len(said[it.metadata.archive]) > 1
        else it
        for it in copies
    ]


def _read_from(chunks: Iterator[bytes]) -> Callable[[int], bytes]:
    """A function that reads from the chunks as from a file: fewer bytes than asked for only at the end."""
    held = bytearray()

    def read(length: int) -> bytes:
        while len(held) < length and (chunk := next(chunks, None)) is not None:
            held.extend(chunk)
        content = bytes(held[:length])
        del held[:length]
        return content

    return read

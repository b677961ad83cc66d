# SPDX-License-Identifier: Apache-2.0
"""The canonical archive, layout 1: a tar that is a function of the image alone.

It is at once a docker-archive and an OCI layout, holds no tags, and carries both names
that engines know an image by (docs/spec/archive.md#layout-1). This module also holds the block rule
(docs/spec/archive.md#block-rule): where the archive is cut into blocks, so that equal layers become equal blocks. Pure
functions of a config and the sizes of its layers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import DigestMismatch
from ..model.image import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Config, Descriptor, Digest
from .layer import Layer

_TAR_BLOCK = 512
_BLOB = "blobs/sha256/"

#: A layer whose header, content and padding reach this many bytes begins a block of its own.
ALIGNED_SPAN = 16 << 20
#: Keep's largest block; each run is cut at every multiple of it.
BLOCK_SIZE = 64 << 20
#: What ends a tar.
END = bytes(2 * _TAR_BLOCK)


@dataclass(frozen=True, slots=True)
class Span:
    """A layer's place in the archive: its header starts at ``offset``, ``size`` bytes of content follow it."""

    diff_id: Digest
    size: int
    offset: int

    @property
    def length(self) -> int:
        """The number of bytes of header, content and padding."""
        return span_length(self.size)

    @property
    def header(self) -> bytes:
        """The tar header: the 512 bytes before the content."""
        return layer_header(self.diff_id, self.size)

    @property
    def is_aligned(self) -> bool:
        """True if the layer begins a block of its own."""
        return self.length >= ALIGNED_SPAN


@dataclass(frozen=True, slots=True)
class Layout:
    """A canonical archive without its layers' bytes.

    ``head`` is entries 0 to 5 as bytes; ``spans`` are the layers in the order of the
    archive, the packed ones before the aligned ones; ``manifest_digest`` is the name
    by which an engine with a containerd store knows the image.
    """

    config: Config
    manifest_digest: Digest
    head: bytes
    spans: tuple[Span, ...]

    @property
    def size(self) -> int:
        """The size of the whole archive, in bytes."""
        return len(self.head) + sum(span.length for span in self.spans) + len(END)

    @property
    def packed_spans(self) -> tuple[Span, ...]:
        """The layers that share a run of blocks."""
        return tuple(span for span in self.spans if not span.is_aligned)

    @property
    def aligned_spans(self) -> tuple[Span, ...]:
        """The layers with a run of blocks to themselves."""
        return tuple(span for span in self.spans if span.is_aligned)

    def block_sizes(self) -> tuple[int, ...]:
        """The sizes of the archive's blocks, in order: the block rule of layout 1."""
        runs = [len(self.head), sum(span.length for span in self.packed_spans)]
        runs += [span.length for span in self.aligned_spans]
        return tuple(size for run in [*runs, len(END)] for size in cut(run))


@dataclass(frozen=True, slots=True)
class Names:
    """The names an archive gives its image: ``tags`` in ``manifest.json``, ``notes`` (annotations) in the OCI index."""

    tags: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)


def layout(config: Config, sizes: Mapping[Digest, int], names: Names | None = None) -> Layout:
    """The canonical archive of the image, whose layers have ``sizes`` uncompressed bytes by diff_id.

    With ``names`` the archive is not the canonical one, but the same with names in it.
    """
    names = names or Names()
    manifest = manifest_of(config, sizes)
    manifest_digest = Digest.of(manifest)
    head = b"".join(
        (
            _header("blobs/", 0, folder=True),
            _header(_BLOB, 0, folder=True),
            _entry("oci-layout", _json({"imageLayoutVersion": "1.0.0"})),
            _entry("index.json", index([entry(Descriptor(OCI_MANIFEST, manifest_digest, len(manifest)), names)])),
            _entry("manifest.json", _docker_manifest(config, names)),
            _entry(_blob(manifest_digest), manifest),
            _entry(_blob(config.digest), config.raw),
        )
    )
    return Layout(config, manifest_digest, head, _spans(config, sizes, len(head)))


def manifest_of(config: Config, sizes: Mapping[Digest, int]) -> bytes:
    """The OCI manifest that the canonical archive of an image has, from the sizes of its layers."""
    layers = [Descriptor(OCI_LAYER, diff_id, sizes[diff_id]) for diff_id in config.diff_ids]
    return oci_manifest(Descriptor(OCI_CONFIG, config.digest, len(config.raw)), layers)


def oci_manifest(config: Descriptor, layers: list[Descriptor]) -> bytes:
    """The OCI manifest of the archive, byte for byte."""
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": config.as_json(),
            "layers": [layer.as_json() for layer in layers],
        }
    )


def index(entries: Sequence[Mapping[str, object]]) -> bytes:
    """The OCI index of ``entries``, byte for byte."""
    return _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})


def entry(manifest: Descriptor, names: Names) -> dict[str, object]:
    """The entry for a manifest in an OCI index."""
    return {**manifest.as_json(), **({"annotations": names.notes} if names.notes else {})}


def content(archive: Layout, layer: Callable[[Digest], Layer], skip: Container[Digest] = ()) -> Iterator[bytes]:
    """Yield the archive's bytes in order, each layer asked for when its turn comes; without those in ``skip``.

    What ``Layer.read`` raises for a layer that is not what it claims comes up before
    that layer's last bytes are handed out, so whoever reads this never has a complete
    archive of a wrong image.
    """
    yield archive.head
    for span in archive.spans:
        if span.diff_id in skip:
            continue
        yield span.header
        yield from _withhold_last_chunk(layer(span.diff_id), span)
        yield padding(span.size)
    yield END


def layer_header(diff_id: Digest, size: int) -> bytes:
    """The tar header of a layer's entry."""
    return _header(_blob(diff_id), size)


def padding(size: int) -> bytes:
    """The NUL bytes that follow ``size`` bytes of content in a tar."""
    return bytes(-size % _TAR_BLOCK)


def span_length(size: int) -> int:
    """The number of bytes that ``size`` bytes of content take in a tar, with header and padding."""
    return _TAR_BLOCK + size + -size % _TAR_BLOCK


def cut(run: int) -> Iterator[int]:
    """Yield the block sizes of a run of ``run`` bytes; none for an empty run."""
    for start in range(0, run, BLOCK_SIZE):
        yield min(BLOCK_SIZE, run - start)


def _spans(config: Config, sizes: Mapping[Digest, int], start: int) -> tuple[Span, ...]:
    layers = config.distinct_diff_ids
    spans = []
    for digest in sorted(layers, key=lambda layer: span_length(sizes[layer]) >= ALIGNED_SPAN):
        spans.append(Span(digest, sizes[digest], start))
        start += span_length(sizes[digest])
    return tuple(spans)


def _withhold_last_chunk(layer: Layer, span: Span) -> Iterator[bytes]:
    """A layer's chunks, each handed out only when the next one has been read, the last after the check."""
    held = layer.read()
    while held:
        following = layer.read()
        if not following:
            _check(layer, span)
        yield held
        held = following
    _check(layer, span)


def _check(layer: Layer, span: Span) -> None:
    """Raise DigestMismatch unless the layer is the archive's layer in this place, whatever digest was claimed."""
    if (layer.diff_id, layer.position) != (span.diff_id, span.size):
        raise DigestMismatch(f"layer {span.diff_id} holds other bytes: they hash to {layer.diff_id}.")


def _docker_manifest(config: Config, names: Names) -> bytes:
    layers = [_blob(digest) for digest in config.diff_ids]
    return _json([{"Config": _blob(config.digest), "RepoTags": names.tags or None, "Layers": layers}])


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _blob(digest: Digest) -> str:
    return _BLOB + digest.hex


def _entry(name: str, body: bytes) -> bytes:
    return _header(name, len(body)) + body + padding(len(body))


def _header(name: str, size: int, *, folder: bool = False) -> bytes:
    """A tar header: 512 bytes of POSIX ustar; every field that says who and when is zero
    (docs/spec/archive.md#tar-headers)."""
    fields = b"".join(
        (
            name.encode().ljust(100, b"\0"),
            b"0000755\0" if folder else b"0000644\0",
            b"0000000\0" * 2,
            _size_field(size),
            b"00000000000\0",
            b" " * 8,
            b"5" if folder else b"0",
            bytes(100),
            b"ustar\x0000",
        )
    ).ljust(_TAR_BLOCK, b"\0")
    return fields[:148] + b"%06o\0 " % sum(fields) + fields[156:]


def _size_field(size: int) -> bytes:
    """The size field of a tar header: eleven octal digits, or base 256 from 8 GiB on, where they no longer suffice."""
    return b"%011o\0" % size if size < 8 << 30 else b"\x80" + size.to_bytes(11, "big")

# SPDX-License-Identifier: Apache-2.0
"""Docker-archives of each generation, made by hand, and what their tars are made of."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from arv_docker.archive import canonical
from arv_docker.archive.layer import Layer
from arv_docker.model.image import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Config, Digest

END = bytes(1024)


class Bytes:
    """Bytes in memory that can be read anywhere, as `archive.tar.RandomAccess`; counts the reads."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.reads = 0

    @property
    def size(self) -> int:
        return len(self.content)

    def read_at(self, offset: int, length: int) -> bytes:
        self.reads += 1
        return self.content[offset : offset + length]


def hex_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Image:
    """An image in memory: its config's bytes and its layers', from the lowest up."""

    config: bytes
    layers: tuple[bytes, ...]

    @property
    def parsed(self) -> Config:
        return Config.parse(self.config)

    @property
    def by_id(self) -> dict[Digest, bytes]:
        return {Digest.of(layer): layer for layer in self.layers}

    @property
    def sizes(self) -> dict[Digest, int]:
        return {diff_id: len(layer) for diff_id, layer in self.by_id.items()}

    def layer(self, diff_id: Digest) -> Layer:
        return layer_of(self.by_id[diff_id])


def image(*layers: bytes, **keys: Any) -> Image:
    """An image of these layers, its config with these keys."""
    diff_ids = [f"sha256:{hex_of(layer)}" for layer in layers]
    return Image(json.dumps({**keys, "rootfs": {"type": "layers", "diff_ids": diff_ids}}).encode(), layers)


def layer_of(content: bytes, *, claimed: Digest | None = None, known: bool = True) -> Layer:
    """A layer to be read: with its name and size known ahead, or neither."""
    stream = io.BytesIO(content)
    return Layer(
        stream.read,
        claimed=(claimed or Digest.of(content)) if known else None,
        size=len(content) if known else None,
    )


def files_of(layer: bytes = b"") -> bytes:
    """A layer that is a tar of one file."""
    return tar({"file": layer})


# -- tars -------------------------------------------------------------------------------


def member(
    name: bytes = b"file",
    content: bytes = b"",
    *,
    kind: bytes = b"0",
    target: bytes = b"",
    size: bytes | None = None,
    prefix: bytes = b"",
    checksum: bytes | None = None,
) -> bytes:
    """A header with its content, field by field, however wrong."""
    size = b"%011o\0" % len(content) if size is None else size
    fields = b"".join(
        (
            name.ljust(100, b"\0"),
            b"0000644\0" + b"0000000\0" * 2,
            size,
            b"00000000000\0" + b" " * 8 + kind,
            target.ljust(100, b"\0"),
            b"ustar\x0000".ljust(88, b"\0"),
            prefix,
        )
    ).ljust(512, b"\0")
    checksum = b"%06o\0 " % sum(fields) if checksum is None else checksum
    return fields[:148] + checksum + fields[156:] + content + bytes(-len(content) % 512)


def pax(records: Mapping[str, bytes], *, kind: bytes = b"x") -> bytes:
    """A PAX header with these records."""
    return member(b"pax", b"".join(pax_record(key.encode(), value) for key, value in records.items()), kind=kind)


def pax_record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest


def tar(files: Mapping[str, bytes | str], *, folders: Sequence[str] = (), form: int = tarfile.USTAR_FORMAT) -> bytes:
    """A tar by the standard library: bytes are files, texts are symbolic links."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for name in folders:
            folder = tarfile.TarInfo(name)
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def gzipped(content: bytes) -> bytes:
    """Compressed, without the time."""
    return gzip.compress(content, mtime=0)


# -- docker-archives --------------------------------------------------------------------


def classic(made: Image, tags: Sequence[str] | None = ("app:1",)) -> bytes:
    """As Docker 1.10 to 24 save: a folder for each layer, a repeated layer as a symbolic link to the first."""
    config = f"{hex_of(made.config)}.json"
    files: dict[str, bytes | str] = {}
    folders, paths, first = [], [], dict[bytes, str]()
    for number, layer in enumerate(made.layers):
        folder = hex_of(b"v1 id %d" % number + layer)
        folders.append(folder)
        paths.append(f"{folder}/layer.tar")
        files[f"{folder}/VERSION"] = b"1.0"
        files[f"{folder}/json"] = b"{}"
        files[paths[-1]] = f"../{first[layer]}/layer.tar" if layer in first else layer
        first.setdefault(layer, folder)
    files[config] = made.config
    files["manifest.json"] = json.dumps([{"Config": config, "RepoTags": tags, "Layers": paths}]).encode()
    files["repositories"] = b"{}"
    return tar(files, folders=folders)


def hybrid(made: Image, tags: Sequence[str] | None = ("app:1",)) -> bytes:
    """As Docker 25 and later save: `blobs/sha256/`, also an OCI layout; a repeated layer is there once."""
    return tar({**layout_files(made), **docker_manifest(made, made.layers, tags)}, folders=["blobs", "blobs/sha256"])


def containerd(
    made: Image, tags: Sequence[str] | None = ("app:1",), compress: Callable[[bytes], bytes] = gzipped
) -> bytes:
    """As Docker saves from its containerd store, an image that BuildKit made: layers as the registry had them, an
    index in the index, in it the image, one for another platform that is not there, and an attestation."""
    stored = [compress(layer) for layer in made.layers]
    statement = json.dumps({"_type": "https://in-toto.io/Statement/v0.1"}).encode()
    no_config = json.dumps({"architecture": "unknown", "os": "unknown", "rootfs": {"type": "layers", "diff_ids": []}})
    attestation = oci_manifest(no_config.encode(), [statement])
    manifest = oci_manifest(made.config, stored, f"{OCI_LAYER}+gzip")
    inner = oci_index(
        descriptor(manifest, OCI_MANIFEST, platform={"architecture": "amd64", "os": "linux"}),
        descriptor(b"absent", OCI_MANIFEST, platform={"architecture": "arm64", "os": "linux"}),
        descriptor(
            attestation,
            OCI_MANIFEST,
            platform={"architecture": "unknown", "os": "unknown"},
            annotations={"vnd.docker.reference.type": "attestation-manifest"},
        ),
    )
    notes = [{"io.containerd.image.name": f"docker.io/library/{tag}"} for tag in tags or ()] or [{}]
    files = {
        **blobs_of(made.config, *stored, statement, no_config.encode(), attestation, manifest, inner),
        "index.json": oci_index(*(descriptor(inner, OCI_INDEX, annotations=note) for note in notes)),
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
    }
    return tar({**files, **docker_manifest(made, stored, tags)}, folders=["blobs", "blobs/sha256"])


def layout_files(
    made: Image, name: str | None = None, compress: Callable[[bytes], bytes] | None = None, **keys: Any
) -> dict[str, bytes]:
    """The files of an OCI layout of one image, called `name`; `keys` go into its descriptor in the index."""
    stored = [compress(layer) if compress else layer for layer in made.layers]
    manifest = oci_manifest(made.config, stored)
    notes = {"annotations": {"org.opencontainers.image.ref.name": name}} if name else {}
    return {
        **blobs_of(made.config, *stored, manifest),
        "index.json": oci_index(descriptor(manifest, OCI_MANIFEST, **notes, **keys)),
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
    }


def layout(made: Image, name: str | None = "app:1", compress: Callable[[bytes], bytes] | None = gzipped) -> bytes:
    """An OCI layout in a tar, without Docker's `manifest.json`, as skopeo and podman write `oci-archive:`."""
    return tar(layout_files(made, name, compress), folders=["blobs", "blobs/sha256"])


def docker_manifest(made: Image, stored: Sequence[bytes], tags: Sequence[str] | None) -> dict[str, bytes]:
    """`manifest.json` of an archive that has its files in `blobs/`."""
    layers = [f"blobs/sha256/{hex_of(layer)}" for layer in stored]
    entry = {"Config": f"blobs/sha256/{hex_of(made.config)}", "RepoTags": tags, "Layers": layers}
    return {"manifest.json": json.dumps([{**entry, "LayerSources": {"x": {"size": 1}}}]).encode()}


def blobs_of(*contents: bytes) -> dict[str, bytes]:
    """The files of these contents, by the names that they have in `blobs/`."""
    return {f"blobs/sha256/{hex_of(content)}": content for content in contents}


def descriptor(blob: bytes, media_type: str, **keys: Any) -> dict[str, Any]:
    """What an OCI document says of another."""
    return {"mediaType": media_type, "digest": f"sha256:{hex_of(blob)}", "size": len(blob), **keys}


def oci_manifest(config: bytes, layers: Sequence[bytes], media_type: str = OCI_LAYER) -> bytes:
    """An OCI manifest of a config and layers as they are stored."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config, OCI_CONFIG),
        "layers": [descriptor(layer, media_type) for layer in layers],
    }
    return json.dumps(document).encode()


def oci_index(*descriptors: Mapping[str, Any]) -> bytes:
    """An OCI index of these."""
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors}).encode()


def flat(made: Image, tags: Sequence[str] | None = ("localhost/app:1",)) -> bytes:
    """As Podman and skopeo save: `<digest>.tar` and `<digest>.json` side by side, and links for old readers."""
    config = f"{hex_of(made.config)}.json"
    layers = [f"{hex_of(layer)}.tar" for layer in made.layers]
    old = {f"{hex_of(b'v1' + layer)}/layer.tar": f"../{hex_of(layer)}.tar" for layer in made.layers}
    return tar(
        {
            **{f"{hex_of(layer)}.tar": layer for layer in made.layers},
            **old,
            config: made.config,
            "manifest.json": json.dumps([{"Config": config, "RepoTags": tags, "Layers": layers}]).encode(),
        }
    )


def canonical_archive(made: Image) -> bytes:
    """The canonical archive."""
    return b"".join(canonical.content(canonical.layout(made.parsed, made.sizes), made.layer))


def several(*images: tuple[Image, Sequence[str]]) -> bytes:
    """Several images in one archive, as `docker save A B` writes."""
    files: dict[str, bytes | str] = {}
    manifest = []
    for made, tags in images:
        layers = [f"{hex_of(layer)}.tar" for layer in made.layers]
        files |= dict(zip(layers, made.layers, strict=True))
        files[f"{hex_of(made.config)}.json"] = made.config
        manifest.append({"Config": f"{hex_of(made.config)}.json", "RepoTags": tags, "Layers": layers})
    files["manifest.json"] = json.dumps(manifest).encode()
    return tar(files)

# SPDX-License-Identifier: Apache-2.0
"""Docker-archives made by hand: good ones, and ones that are wrong in one place."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

#: A member before it is written: name, content.
Members = list[tuple[str, bytes]]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def config_of(layers: Sequence[bytes]) -> bytes:
    """A config of an image with those layers."""
    diff_ids = [f"sha256:{digest(layer)}" for layer in layers]
    document = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    return json.dumps(document, separators=(",", ":")).encode()


def members_of(layers: Sequence[bytes], *, config: bytes | None = None, name: str = "made/byhand:1") -> Members:
    """What the archive of an image consists of, `manifest.json` last."""
    config = config_of(layers) if config is None else config
    paths = [f"{digest(layer)}.tar" for layer in layers]
    manifest = [{"Config": f"{digest(config)}.json", "RepoTags": [name], "Layers": paths}]
    return [
        *zip(paths, layers, strict=True),
        (f"{digest(config)}.json", config),
        ("manifest.json", json.dumps(manifest).encode()),
    ]


def write(
    path: Path, members: Members, *, also: Sequence[tarfile.TarInfo] = (), names: Callable[[str], str] = str
) -> Path:
    """A tar of the members, and of links; `names` may rename a member (an archive may name it as it likes)."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for entry in also:
            tar.addfile(entry)
        for name, content in members:
            member = tarfile.TarInfo("x")
            member.name, member.size = names(name), len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def image_archive(path: Path, layers: Sequence[bytes], **arguments: str) -> Path:
    """The archive of a good image with those layers."""
    return write(path, members_of(layers, **arguments))  # type: ignore[arg-type]


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    """A symbolic (`tarfile.SYMTYPE`) or hard (`tarfile.LNKTYPE`) link."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def with_sparse_member(path: Path, name: str, size: int, members: Members) -> Path:
    """A tar whose first member is `size` zero bytes that take no room on disk, then the others."""
    entry = tarfile.TarInfo(name)
    entry.size = size
    with path.open("wb") as file:
        file.write(entry.tobuf(tarfile.GNU_FORMAT))
        file.seek(-(-size // 512) * 512, os.SEEK_CUR)
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for other, content in members:
                member = tarfile.TarInfo(other)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path

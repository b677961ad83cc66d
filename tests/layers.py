# SPDX-License-Identifier: Apache-2.0
"""Layers with files of every kind, made by the standard library's tar."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable


def layer_of_members(members: Iterable[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A layer of these members with their contents."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def file(name: str, content: bytes = b"", **keys: object) -> tuple[tarfile.TarInfo, bytes]:
    return _member(name, tarfile.REGTYPE, keys), content


def folder(name: str, **keys: object) -> tuple[tarfile.TarInfo, bytes]:
    return _member(name, tarfile.DIRTYPE, {"mode": 0o755, **keys}), b""


def symlink(name: str, target: str, **keys: object) -> tuple[tarfile.TarInfo, bytes]:
    return _member(name, tarfile.SYMTYPE, {"linkname": target, "mode": 0o777, **keys}), b""


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return _member(name, tarfile.LNKTYPE, {"linkname": target}), b""


def whiteout(name: str) -> tuple[tarfile.TarInfo, bytes]:
    head, _, tail = name.rpartition("/")
    return file(f"{head}/.wh.{tail}" if head else f".wh.{tail}")


def opaque(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return file(f"{name}/.wh..wh..opq" if name else ".wh..wh..opq")


def device(name: str, major: int, minor: int) -> tuple[tarfile.TarInfo, bytes]:
    return _member(name, tarfile.CHRTYPE, {"devmajor": major, "devminor": minor}), b""


def _member(name: str, kind: bytes, keys: dict[str, object]) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in keys.items():
        setattr(info, key, value)
    return info

# SPDX-License-Identifier: Apache-2.0
"""A small image made without any engine, for those who have none: ``python -m arv_docker.archive.sample FILE``.

Two layers: a program of 150 bytes that greets (Linux on x86-64), and a text. Any engine
loads and runs it. The same bytes come out every time.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import sys
import tarfile
from pathlib import Path

GREETING = b"Hello from a container image that came out of Keep.\n"
NAME = "arv-docker/sample:1"

_LOAD_ADDRESS = 0x400000


def write(file: Path) -> None:
    """Write the sample image as a docker-archive."""
    layers = [_layer("bin/hello", _program(), 0o755), _layer("etc/motd", GREETING, 0o644)]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": {"Cmd": ["/bin/hello"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_sha256(layer)}" for layer in layers]},
            "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "arv-docker sample"} for _ in layers],
        }
    ).encode()
    names = [f"{_sha256(layer)}.tar" for layer in layers]
    manifest = [{"Config": f"{_sha256(config)}.json", "RepoTags": [NAME], "Layers": names}]
    with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, layer in zip(names, layers, strict=True):
            _add(archive, name, layer, 0o644)
        _add(archive, f"{_sha256(config)}.json", config, 0o644)
        _add(archive, "manifest.json", json.dumps(manifest).encode(), 0o644)


def _layer(name: str, content: bytes, mode: int) -> bytes:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        _add(archive, name, content, mode)
    return layer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    archive.addfile(member, io.BytesIO(content))


def _program() -> bytes:
    """A Linux ELF executable for x86-64: write(1, GREETING), then exit(0)."""
    headers = 64 + 56  # ELF header, one program header
    code_length = 34
    text_address = _LOAD_ADDRESS + headers + code_length
    code = b"".join(
        (
            b"\xb8" + struct.pack("<I", 1),  # mov eax, 1 (write)
            b"\xbf" + struct.pack("<I", 1),  # mov edi, 1 (standard output)
            b"\xbe" + struct.pack("<I", text_address),  # mov esi, text
            b"\xba" + struct.pack("<I", len(GREETING)),  # mov edx, length
            b"\x0f\x05",  # syscall
            b"\xb8" + struct.pack("<I", 60),  # mov eax, 60 (exit)
            b"\xbf" + struct.pack("<I", 0),  # mov edi, 0
            b"\x0f\x05",  # syscall
        )
    )
    size = headers + len(code) + len(GREETING)
    entry = _LOAD_ADDRESS + headers
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = identity + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _LOAD_ADDRESS, _LOAD_ADDRESS, size, size, 0x1000)
    return header + segment + code + GREETING


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    write(Path(sys.argv[1]))

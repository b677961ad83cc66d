# SPDX-License-Identifier: Apache-2.0
"""However large a layer is, an ingest takes little memory, with the embedded site in the same process."""

import hashlib
import json
import subprocess
import time
from pathlib import Path

import pytest

from .archives import with_sparse_member
from .sites import Site, finished, show

GIB = 1 << 30
BLOCK = 64 << 20
#: SHA-256 of that many zero bytes.
ZEROS = {
    4 * GIB: "8479e43911dc45e89f934fe48d01297e16f51d17aa561d4d1c216b1ae0fcddca",
    20 * GIB: "6cb118a8f8b3c19385874297e291dcbcdf3a9837ba1ca7b00ace2491adbff551",
}


def peak(process: subprocess.Popen[str]) -> int:
    """Bytes of memory that a process had at most, asked for until it ends."""
    # Not `getrusage`: its figure begins with that of the parent.
    most = 0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
        most = max([most, *(int(kib) << 10 for kib in found)])
        time.sleep(0.02)
    return most


@pytest.mark.parametrize("size", [4 * GIB, pytest.param(20 * GIB, marks=pytest.mark.long)], ids=["4 GiB", "20 GiB"])
def test_a_layer_of_many_gibibytes(size: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = b'{"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' % ZEROS[size].encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": ["zeros:1"], "Layers": ["layer.tar"]}]).encode()
    others = [(name, config), ("manifest.json", manifest)]
    archive = with_sparse_member(tmp_path / "zeros.tar", "layer.tar", size, others)
    site = Site(tmp_path / "site")
    begin = time.monotonic()
    process = site.start("ingest", "--from-archive", archive)
    most = peak(process)
    done = finished(process)
    seconds = time.monotonic() - begin
    assert done.status == 0, done.told
    show(capsys, f"{size >> 30} GiB in {seconds:.1f} s, at most {most / 1e6:.0f} MB of memory")
    assert 20 << 20 < most < 400_000_000
    assert archive.stat().st_blocks * 512 < 1 << 20

    # The layer's run: a header and zeros, whole blocks of zeros, and what the header pushed out of the last.
    zeros = f"{hashlib.md5(bytes(BLOCK)).hexdigest()}+{BLOCK}"
    tail = f"{hashlib.md5(bytes(512)).hexdigest()}+512"
    inspected = json.loads(site.printed("inspect", "--json", done.out.strip()))
    _head, _first, *middle, last, _end = inspected["blocks"]
    assert middle == [zeros] * (size // BLOCK - 1)
    assert last == tail
    assert inspected["layers"] == [{"diff_id": f"sha256:{ZEROS[size]}", "size": size}]
    assert len(site.blocks()) == 5
    with site.opened() as records:
        (collection,) = records.collections()
    text = f". {' '.join(inspected['blocks'])} 0:{inspected['size']}:sha256\\072{name.removesuffix('.json')}.tar\n"
    assert collection.pdh == f"{hashlib.md5(text.encode()).hexdigest()}+{len(text)}"

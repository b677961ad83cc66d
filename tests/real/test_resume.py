# SPDX-License-Identifier: Apache-2.0
"""An ingest that is killed again and again sends no block a second time that Keep has taken.

Bytes are counted on their way, by a proxy that kills the ingest when so many of them have come. What a kill costs are
the blocks that are under way then.
"""

import random
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from arv_docker.archive.canonical import BLOCK_SIZE
from arv_docker.arvados.blocks import BUFFERS
from arv_docker.site import LocalSite

from .engines import Docker, build_noisy, require
from .proxy import Proxy, ingest, serving
from .sites import assert_stored_once, cached, show
from .test_kill import Case

MIB = 1 << 20


class Count(Proxy):
    """Counts the bytes of blocks; kills its client when `limit` of them have come and `least` blocks are answered."""

    def __init__(self, site: LocalSite, home: Path, limit: int, least: int) -> None:
        super().__init__(site.url, "", 0, lambda request: None)
        #: Bytes of each block that was answered, and of each that was not (yet), by `PUT /md5`.
        self.taken: dict[str, int] = {}
        self.under_way: Counter[str] = Counter()
        self._limit, self._least = limit, least
        self._killed = False
        self._home = home
        self._before = recorded(home)
        self._turn = threading.Lock()

    @property
    def sent(self) -> int:
        """Bytes of blocks that have come, whole or in part."""
        return sum(self.taken.values()) + self.under_way.total()

    def received(self, request: str, count: int) -> None:
        if request.startswith("PUT "):
            with self._turn:
                self.under_way[request] += count
                if self.sent >= self._limit and len(self.taken) >= self._least and not self._killed:
                    self._kill()

    def answered(self, request: str) -> None:
        if request.startswith("PUT "):
            with self._turn:
                if not self._killed:
                    self.taken[request] = self.under_way.pop(request)

    def _kill(self) -> None:
        """Not between an answer and its record, where nobody could say whether the block is still under way."""
        deadline = time.monotonic() + 60
        while recorded(self._home) < self._before + sum(self.taken.values()):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        self._killed = True
        self.kill_client()


def recorded(home: Path) -> int:
    """Bytes of the blocks that an interrupted ingest has on record as sent."""
    lines = [line for file in home.rglob("*.blocks") for line in file.read_text().splitlines()]
    return sum(int(line.split("+")[1]) for line in lines)


@pytest.mark.conforms("K14", "S6")
@pytest.mark.engine("docker", "busybox")
@pytest.mark.parametrize(
    ("kills", "layers", "size", "most"),
    [
        pytest.param(5, 5, 18 * MIB, 40 * MIB, id="90 MiB"),
        pytest.param(50, 10, 70 * MIB, 160 * MIB, id="700 MiB", marks=pytest.mark.long),
    ],
)
def test_an_ingest_that_is_killed_again_and_again_sends_each_block_once(
    kills: int,
    layers: int,
    size: int,
    most: int,
    docker: Docker,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`most` are the bytes of blocks that a run may send before it is killed."""
    require("busybox")
    image = build_noisy(docker, layers, size, f"arvtest/noisy:{layers}")
    created = docker.text("image", "inspect", "--format", "{{.Created}}", image.id)
    case = Case(tmp_path, docker, image, created)
    moments = random.Random(50)
    runs: list[Count] = []

    def run(limit: int, least: int = 0) -> int:
        with LocalSite(case.site.folder) as running, serving(Count(running, tmp_path, limit, least)) as proxy:
            runs.append(proxy)
            proxy.client = ingest(proxy.url, running, image, case.environment)
            proxy.client.join(300)
            return proxy.client.exitcode or 0

    for number in range(kills):
        missing = layers * size - recorded(tmp_path)
        # Less than what is still to be sent, so that the run is sure to be killed.
        limit = moments.randrange(1, max(2, min(most, missing)))
        assert run(limit, least=number % 3 == 0 and missing > layers * size // 2) == -signal.SIGKILL
    assert run(sys.maxsize) == 0

    with case.site.opened() as records:
        collection = assert_stored_once(records, image, created)
    assert cached(tmp_path) == []
    assert collection.manifest_text is not None
    whole = int(collection.manifest_text.split()[-1].split(":")[1])
    assert set(Counter(block for it in runs for block in it.taken).values()) == {1}
    lost = [it.under_way.total() for it in runs]
    sent = sum(it.sent for it in runs)
    assert sent == whole + sum(lost)
    assert max(lost) <= BUFFERS * BLOCK_SIZE
    kept = sum(bool(it.taken) for it in runs[:-1])
    show(
        capsys,
        f"{whole / 1e6:.1f} MB, killed {kills} times, {kept} times with blocks taken before: {sent / 1e6:.1f} MB "
        f"sent in all, {sum(lost) / 1e6:.1f} MB of them under way at a kill, {max(lost) / 1e6:.1f} MB at most",
    )
    docker.run("image", "rm", "--force", image.id)

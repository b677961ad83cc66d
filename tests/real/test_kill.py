# SPDX-License-Identifier: Apache-2.0
"""An ingest that is killed at any moment is completed by the next one, with nothing double, wrong or left behind.

Each moment gets a site and a home of its own, `kill -9`, and a plain run. Moments of the first kind are taken from the
conversation with the cluster, by a proxy; those of the second from what lies on disk while the image is saved and sent.
"""

import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from arv_docker.site import LocalSite

from .engines import Docker, Image
from .proxy import between, ingest
from .sites import Site, assert_stored_once, cached, show

Created = Callable[[Image], str]


@pytest.fixture
def created(docker: Docker) -> Created:
    return lambda image: docker.text("image", "inspect", "--format", "{{.Created}}", image.id)


def home_of(folder: Path, docker: Docker) -> dict[str, str]:
    """The environment of a command with that folder as its home."""
    return docker.environment | {"HOME": str(folder), "XDG_CACHE_HOME": f"{folder}/.cache"}


class Case:
    """One site and one home, in which an ingest is killed and another one completes it."""

    def __init__(self, folder: Path, docker: Docker, image: Image, created: str) -> None:
        self.folder = folder
        self.image = image
        self.created = created
        self.environment = home_of(folder, docker)
        self.site = Site(folder / "site", docker)

    def killed_in(self, when: str, number: int) -> tuple[list[tuple[str, int]], int]:
        """The requests of an ingest that dies in one of them, and its exit code."""
        with LocalSite(self.site.folder) as running, between(running, when, number) as proxy:
            proxy.client = ingest(proxy.url, running, self.image, self.environment)
            proxy.client.join(60)
            return proxy.seen, proxy.client.exitcode or 0

    def assert_completed(self) -> str:
        """A plain run ends well, and all is as if nothing had happened; gives the PDH."""
        with LocalSite(self.site.folder) as running:
            plain = ingest(running.url, running, self.image, self.environment)
            plain.join(60)
        assert plain.exitcode == 0
        return self.assert_right()

    def assert_right(self) -> str:
        with self.site.opened() as records:
            pdh = assert_stored_once(records, self.image, self.created).pdh
        assert cached(self.folder) == []
        return pdh


@pytest.mark.conforms("S6", "K14")
@pytest.mark.engine("docker", "busybox")
@pytest.mark.parametrize("when", ["before", "within", "after"])
def test_an_ingest_killed_in_any_request_is_completed_by_the_next(
    when: str,
    docker: Docker,
    small_image: Image,
    created: Created,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def case(name: str) -> Case:
        return Case(tmp_path / name, docker, small_image, created(small_image))

    whole = case("whole")
    requests, status = whole.killed_in(when, 0)
    assert status == 0
    pdh = whole.assert_right()
    moments = [number for number, (_, body) in enumerate(requests, 1) if body or when != "within"]

    def after_kill(number: int) -> tuple[str, bool]:
        one = case(str(number))
        seen, status = one.killed_in(when, number)
        # Two threads may both ask for the Keep services, or one for both: so the number of requests varies.
        killed = len(seen) >= number
        assert status == (-signal.SIGKILL if killed else 0), f"{when} request {number}: exit code {status}"
        return one.assert_completed(), killed

    with ThreadPoolExecutor(2) as threads:
        outcomes = list(threads.map(after_kill, moments))
    assert {found for found, _ in outcomes} == {pdh}
    kills = sum(killed for _, killed in outcomes)
    assert kills >= len(moments) - 4
    assert {request.partition(" ")[0] for request, _ in requests} >= {"GET", "PUT", "POST"}
    show(capsys, f"killed {when} a request, at {kills} moments of {len(requests)} requests: {pdh} each time")


#: How much of the image is saved, or of its blocks is with the site, when the ingest dies.
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8)


@pytest.mark.conforms("S6", "K14")
@pytest.mark.engine("docker", "busybox")
def test_an_ingest_killed_while_it_saves_or_stores_is_completed_by_the_next(
    docker: Docker, base_image: Image, created: Created, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = int(docker.text("image", "inspect", "--format", "{{.Size}}", base_image.id))

    def saved(case: Case) -> int:
        return sum(path.stat().st_size for path in case.folder.rglob("*.partial"))

    def sent(case: Case) -> int:
        return sum(path.stat().st_size for path in case.site.blocks())

    outcomes = []
    for what, measured in (("saved", saved), ("stored", sent)):
        for share in SHARES:
            case = Case(tmp_path / f"{what}-{share}", docker, base_image, created(base_image))
            process = case.site.start("ingest", base_image.reference, **case.environment)
            _wait(process, lambda: _more(measured, case, int(share * size)))  # noqa: B023 - called at once
            process.kill()
            process.communicate()
            assert process.returncode == -signal.SIGKILL, f"{share:.0%} {what}: it ended before"
            left = [name.rpartition(".")[2] for name in cached(case.folder)]
            outcomes.append(f"{share:.0%} {what}: left {left}, {len(case.site.blocks())} block files")
            plain = case.site.run("ingest", base_image.reference, **case.environment)
            assert plain.status == 0, plain.told
            case.assert_right()
    show(capsys, *(f"killed at {outcome}" for outcome in outcomes))


def _more(measured: Callable[[Case], int], case: Case, least: int) -> bool:
    try:
        return measured(case) > least
    except FileNotFoundError:  # renamed while we looked
        return False


def _wait(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)

# SPDX-License-Identifier: Apache-2.0
"""Many launchers at once: one image, many processes or threads, one collection."""

import sys
import threading
import time
from pathlib import Path

import pytest

import arv_docker
from arv_docker.site import LocalSite

from .engines import Docker, Image
from .sites import Site, cached, finished, show, started
from .test_at_once import the_only_collection

MANY = 16


@pytest.mark.conforms("S14", "K15")
@pytest.mark.engine("docker", "busybox")
def test_sixteen_processes_in_two_homes(
    docker: Docker, small_image: Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight share a lock, and the two groups of eight share the cluster alone."""
    site = Site(tmp_path / "site", docker)
    homes = [{"HOME": f"{tmp_path}/{name}", "XDG_CACHE_HOME": f"{tmp_path}/{name}/.cache"} for name in "ab"]
    began = time.monotonic()
    processes = [site.start("ingest", small_image.reference, **homes[number % 2]) for number in range(MANY)]
    done = [finished(process, timeout=300) for process in processes]
    took = time.monotonic() - began
    assert [one.status for one in done] == [0] * MANY, [one.told for one in done]
    with site.opened() as records:
        uuid = the_only_collection(records, small_image)
        everything = records.collections()
    assert [one.out for one in done] == [f"{uuid}\n"] * MANY
    assert [cached(tmp_path / name) for name in "ab"] == [[], []]
    assert len(everything) <= 2
    stored = sum("already stored" not in one.err for one in done)
    show(capsys, f"{MANY} processes: {stored} sent the image, {len(everything) - 1} collections trashed, {took:.0f} s")


@pytest.mark.conforms("S23")
@pytest.mark.engine("docker", "busybox")
def test_sixteen_threads_with_one_client(
    docker: Docker, small_image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in docker.environment.items():
        monkeypatch.setenv(name, value)
    site = Site(tmp_path / "site", docker)
    got: list[object] = []

    def get(api: object) -> None:
        try:
            got.append(arv_docker.get_image(api, small_image.reference).uuid)
        except BaseException as error:  # noqa: BLE001 - SystemExit too is what must not come
            got.append(error)

    with site.opened() as records:
        threads = [threading.Thread(target=get, args=(records.api,)) for _ in range(MANY)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        uuid = the_only_collection(records, small_image)
    assert got == [uuid] * MANY


@pytest.mark.engine("docker", "busybox")
def test_processes_of_a_launcher(docker: Docker, small_image: Image, tmp_path: Path) -> None:
    site = Site(tmp_path / "site", docker)
    code = (
        "import sys, arvados, arv_docker; "
        "api = arvados.api('v1', discoveryServiceUrl=sys.argv[1], token=sys.argv[2]); "
        f"print(arv_docker.get_image(api, {small_image.reference!r}).uuid)"
    )
    with LocalSite(site.folder) as running:
        line = [sys.executable, "-c", code, running.discovery_url, running.token]
        done = [finished(it) for it in [started(line, docker.environment) for _ in range(4)]]
    assert [one.status for one in done] == [0] * 4, [one.told for one in done]
    with site.opened() as records:
        uuid = the_only_collection(records, small_image)
    assert {one.out for one in done} == {f"{uuid}\n"}

# SPDX-License-Identifier: Apache-2.0
"""Every image of one site to another: the plan is what happens, the second run moves nothing, killed it completes."""

import json
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from arv_docker.arvados.client import Cluster
from arv_docker.ingest.service import Ingest, Options
from arv_docker.local.progress import SilentProgress
from arv_docker.model.manifest_text import locators, parse
from arv_docker.model.reference import Reference
from arv_docker.site import LocalSite
from arv_docker.store.tarballs import cache_folder

from ..archives import classic, files_of, image
from .sites import Done, command, finished, served, show, started

NAMES = 3


@pytest.fixture
def clusters(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Two sites, known by the settings files one.conf and two.conf."""
    settings = tmp_path / "config" / "arvados"
    settings.mkdir(parents=True)
    bundle = tmp_path / "bundle.pem"
    with ExitStack() as sites:
        for name in ("one", "two"):
            variables = sites.enter_context(served(tmp_path / name))
            keys = ("ARVADOS_API_HOST", "ARVADOS_API_TOKEN")
            (settings / f"{name}.conf").write_text("".join(f"{key}={variables[key]}\n" for key in keys))
            with bundle.open("a") as file:
                file.write(Path(variables["SSL_CERT_FILE"]).read_text())
        home = tmp_path / "home"
        home.mkdir()
        yield {
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
            "SSL_CERT_FILE": str(bundle),
            "PATH": "/usr/bin:/bin",
        }


def fill(folder: Path, count: int, scratch: Path) -> None:
    """Images that share a layer, each with three names."""
    low = files_of(b"low" * 6_000_000)
    with LocalSite(folder) as running:
        ingest = Ingest(Cluster.at_url(running.url, running.token), Options(cache_folder()), SilentProgress())
        for number in range(count):
            made = image(low, files_of(b"%d" % number * 50_000), created=f"2024-01-{number % 28 + 1:02}T00:00:00Z")
            (scratch / "image.tar").write_bytes(classic(made))
            for name in range(NAMES):
                ingest.from_archive(scratch / "image.tar", Reference.parse(f"app{number}:{name}"))


def copy(clusters: dict[str, str], *words: str) -> Done:
    done = finished(started(command("copy", "--json", *words, "--all", "keep:one/", "keep:two/"), clusters), 600)
    assert done.status == 0, done.told
    return done


def listed(clusters: dict[str, str], tmp_path: Path, name: str) -> dict[str, str]:
    """The names of a site and the content that each means."""
    with LocalSite(tmp_path / name) as running:
        cluster = Cluster.at_url(running.url, running.token)
        pdh = {it.uuid: it.pdh for it in cluster.collections([])}
        links = cluster.links([["link_class", "in", ["docker_image_repo+tag", "docker_image_hash"]]])
        return {it.name: pdh[it.head_uuid] for it in links}


@pytest.mark.parametrize(("count", "kills"), [(6, 2), pytest.param(50, 10, marks=pytest.mark.long)])
def test_every_image_of_a_site(
    clusters: dict[str, str], tmp_path: Path, count: int, kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "one", count, tmp_path)
    plan = json.loads(copy(clusters, "--dry-run").out)
    assert listed(clusters, tmp_path, "two") == {}
    start = time.monotonic()
    for _ in range(kills):
        process = started(command("copy", "--all", "keep:one/", "keep:two/"), clusters)
        assert process.stderr is not None
        while (line := process.stderr.readline()) and "copied" not in line:
            pass  # until one more image is there
        time.sleep(random.uniform(0, 0.3))
        process.kill()
        finished(process)
    left = json.loads(copy(clusters).out)
    assert [it["source"] for it in plan] == [it["source"] for it in left]
    assert listed(clusters, tmp_path, "two") == listed(clusters, tmp_path, "one")
    assert len(listed(clusters, tmp_path, "two")) == count * (NAMES + 1)
    with LocalSite(tmp_path / "two") as running:
        found = list(Cluster.at_url(running.url, running.token).collections([], manifest=True))
    assert len(found) == count
    blocks = {block.without_hints: block.size or 0 for it in found for block in locators(parse(it.manifest_text or ""))}
    assert abs(sum(it["bytes_to_send"] for it in plan) - sum(blocks.values())) < count * 4096  # padding, and the ends
    again = json.loads(copy(clusters).out)
    assert all(it["already"] and it["bytes_sent"] == it["links_written"] == 0 for it in again)
    assert all(it["uuid"] and it["bytes_to_send"] == 0 for it in json.loads(copy(clusters, "--dry-run").out))
    done = sum(not it["already"] for it in left)
    show(
        capsys,
        f"{count} images with {NAMES} names each: killed {kills} times, {done} left for the last run, "
        f"{time.monotonic() - start:.1f} s; again: nothing moved",
    )


def test_the_plan_is_what_happens(clusters: dict[str, str], tmp_path: Path) -> None:
    """Of the first image all is sent; of the second what the first has not, as a plan made then says."""
    fill(tmp_path / "one", 2, tmp_path)
    for name in ("app1:0", "app0:0"):
        words = ["copy", "--json", f"keep:one/{name}", "keep:two/"]
        planned = json.loads(finished(started(command(*words, "--dry-run"), clusters)).out)
        done = json.loads(finished(started(command(*words), clusters)).out)
        assert (planned["uuid"], done["already"]) == (None, False)
        assert abs(planned["bytes_to_send"] - done["bytes_sent"]) < 64 << 10

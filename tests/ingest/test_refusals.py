# SPDX-License-Identifier: Apache-2.0
"""Every way into Keep: what the cluster will refuse is found before a block is sent, and a refusal leaves nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from arv_docker.archive.stream import StreamedArchive
from arv_docker.arvados.client import Cluster
from arv_docker.arvados.trust import Trust
from arv_docker.errors import ArvDockerError, ClusterError
from arv_docker.ingest.between_clusters import Copier, images_of
from arv_docker.ingest.service import Ingest, Options
from arv_docker.local.progress import SilentProgress
from arv_docker.model.reference import ImageId, Reference
from arv_docker.store.tarballs import cache_folder
from arv_docker.transports import names
from arv_docker.transports.names import Choice

from ..archives import classic, files_of, image
from ..arvados.fake_api import ME, PROJECT, SYSTEM, FakeApi, http_error
from ..registry.conftest import registry
from ..registry.scripted import Registry
from ..transports.fake_engine import FakeEngine
from .test_between_clusters import ingested, stored_by_upstream

__all__ = ["registry"]

LOW = files_of(b"low" * 30_000)
ONE, TWO = image(LOW, files_of(b"one")), image(LOW, files_of(b"two"))
APP = Reference.parse("app:1")


def left() -> list[str]:
    """The files that are in the cache, but for what is remembered of registries."""
    return [path.name for path in cache_folder().iterdir() if path.is_file()]


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


Way = Callable[[FakeApi, Options, Path], object]


def by_engine(api: FakeApi, options: Options, folder: Path) -> object:
    return Ingest(Cluster(api, retries=0), options, SilentProgress()).from_engine(FakeEngine(ONE), APP)


def by_batch(api: FakeApi, options: Options, folder: Path) -> object:
    engine = FakeEngine(ONE)
    engine.images |= FakeEngine(TWO).images
    wanted = [(APP, engine.inspect(ImageId(made.parsed.digest.hex))) for made in (ONE, TWO)]
    results = Ingest(Cluster(api, retries=0), options, SilentProgress()).store_shared(engine, wanted).values()
    if failed := [it for it in results if isinstance(it, ArvDockerError)]:
        raise failed[0]
    return results


def by_archive(api: FakeApi, options: Options, folder: Path) -> object:
    (folder / "app.tar").write_bytes(classic(ONE))
    return Ingest(Cluster(api, retries=0), options, SilentProgress()).from_archive(folder / "app.tar", APP)


def by_pipe(api: FakeApi, options: Options, folder: Path) -> object:
    (folder / "app.tar").write_bytes(classic(ONE))
    with (folder / "app.tar").open("rb") as stream:
        piped = Ingest(Cluster(api, retries=0), options, SilentProgress()).every_piped(StreamedArchive(stream))
        ((_, result),) = piped
    if isinstance(result, ArvDockerError):
        raise result
    return result


def copied_of(there: FakeApi, here: FakeApi, options: Options) -> object:
    source = Cluster(there, retries=0)
    (found,) = images_of(source, Trust.of(ME, SYSTEM))
    return Copier(source, Cluster(here, retries=0), options, SilentProgress()).run(found)


def by_copy(api: FakeApi, options: Options, folder: Path) -> object:
    there = FakeApi()
    ingested(there, ONE, folder, "app:1")
    return copied_of(there, api, options)


def by_copy_as_it_is(api: FakeApi, options: Options, folder: Path) -> object:
    there = FakeApi()
    stored_by_upstream(there, ONE, "app:1")
    return copied_of(there, api, options)


WAYS: list[Way] = [by_engine, by_batch, by_archive, by_pipe, by_copy, by_copy_as_it_is]
every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


@every_way
def test_the_way_is_open(api: FakeApi, tmp_path: Path, way: Way) -> None:
    way(api, Options(cache_folder(), project=PROJECT), tmp_path)
    assert api.records["collections"]
    assert left() == []


@every_way
@pytest.mark.parametrize("status", [403, 422])
def test_a_refused_creation_leaves_nothing(api: FakeApi, tmp_path: Path, way: Way, status: int) -> None:
    api.faults["collections.create"] = [http_error(status) for _ in range(4)]
    with pytest.raises(ClusterError) as caught:
        way(api, Options(cache_folder()), tmp_path)
    assert caught.value.status == status
    assert (api.records, left()) == ({"links": {}, "collections": {}}, [])


@every_way
@pytest.mark.parametrize("scopes", [["GET /arvados/v1/"], ["POST /arvados/v1/collections", "GET /"], []])
def test_a_token_that_may_not_link_is_found_before_a_block_is_sent(
    api: FakeApi, tmp_path: Path, way: Way, scopes: list[str]
) -> None:
    api.scopes = scopes
    with pytest.raises(ClusterError, match="may not create"):
        way(api, Options(cache_folder()), tmp_path)
    assert (api.keep.blocks, left()) == ({}, [])


@every_way
@pytest.mark.parametrize(
    "project", [{"can_write": False}, {"group_class": "role", "can_write": True}, {"group_class": "filter"}]
)
def test_a_project_that_cannot_own_it_is_found_before_a_block_is_sent(
    api: FakeApi, tmp_path: Path, way: Way, project: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = api.answer
    monkeypatch.setattr(
        api, "answer", lambda request, execute: project if request == "groups.get" else answer(request, execute)
    )
    with pytest.raises(ClusterError):
        way(api, Options(cache_folder(), project=PROJECT), tmp_path)
    assert (api.keep.blocks, left()) == ({}, [])


@pytest.mark.parametrize(
    "scopes", [["all"], ["POST /arvados/v1/"], ["POST /arvados/v1/links", "POST /arvados/v1/collections"]]
)
def test_a_token_that_may(api: FakeApi, tmp_path: Path, scopes: list[str]) -> None:
    api.scopes = scopes
    assert by_archive(api, Options(cache_folder()), tmp_path)


@pytest.mark.parametrize("status", [403, 404])
def test_a_token_of_which_nothing_is_said(api: FakeApi, tmp_path: Path, status: int) -> None:
    api.faults["tokens.current"] = [http_error(status)]
    assert by_archive(api, Options(cache_folder()), tmp_path)


def test_a_plan_of_a_copy_looks_too(api: FakeApi) -> None:
    there = FakeApi()
    stored_by_upstream(there, ONE, "app:1")
    source = Cluster(there, retries=0)
    (found,) = images_of(source, Trust.of(ME, SYSTEM))
    api.faults["groups.get"] = [http_error(404)]
    with pytest.raises(ClusterError):
        Copier(source, Cluster(api, retries=0), Options(cache_folder(), project=PROJECT), SilentProgress()).plan(found)


def test_a_batch_ends_with_the_cluster(api: FakeApi) -> None:
    """Each of the images would wait for it anew."""
    engine = FakeEngine(ONE)
    engine.images |= FakeEngine(TWO).images
    wanted = [(APP, engine.inspect(ImageId(made.parsed.digest.hex))) for made in (ONE, TWO)]
    api.faults["collections.create"] = [http_error(401)]
    results = Ingest(Cluster(api, retries=0), Options(cache_folder()), SilentProgress()).store_shared(engine, wanted)
    (error,) = results.values()
    assert isinstance(error, ClusterError)
    assert error.is_outage
    assert api.requests["collections.create"] == 1


def test_from_a_registry(api: FakeApi, registry: Registry, tmp_path: Path) -> None:
    registry.add("app:1", ONE)
    source = names.source(f"docker://{registry.host}/app:1", Choice(insecure=True))
    api.faults["collections.create"] = [http_error(422)]
    with pytest.raises(ClusterError):
        Ingest(Cluster(api, retries=0), Options(cache_folder()), SilentProgress()).from_source(source, APP)
    assert left() == []

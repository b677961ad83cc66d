# SPDX-License-Identifier: Apache-2.0
"""From one cluster to another: content, ID, every name; blocks once, and only those that are missing."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from arv_docker.archive import canonical
from arv_docker.arvados.catalog.link_classes import DIGEST, HASH, REPO_TAG
from arv_docker.arvados.catalog.resolver import resolve
from arv_docker.arvados.client import Cluster
from arv_docker.arvados.stored import image_file
from arv_docker.arvados.trust import Trust
from arv_docker.errors import ArvDockerError, ClusterError, KeepError, NoSuchImage
from arv_docker.ingest import name_meanings
from arv_docker.ingest.between_clusters import Candidate, Copier, CopyResult, image_named, images_of
from arv_docker.ingest.name_meanings import NameDifference
from arv_docker.ingest.service import Ingest, Options
from arv_docker.local.progress import SilentProgress, StoreStep
from arv_docker.model import manifest_text
from arv_docker.model.reference import Reference
from arv_docker.store.tarballs import cache_folder, hold_image_lock

from ..archives import Image, classic, files_of, image
from ..arvados.fake_api import ME, OTHER, PROJECT, SYSTEM, FakeApi, http_error

BIG = files_of(b"low" * 5_700_000)
TRUST = Trust.of(ME, SYSTEM)
MADE = "2024-01-02T03:04:05Z"
ONE = image(BIG, files_of(b"one"), created=MADE)
TWO = image(BIG, files_of(b"two"), created="2024-01-03T03:04:05Z")
THREE = image(BIG, files_of(b"three"), created=MADE)


@pytest.fixture(autouse=True)
def _no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake gives every record a second of its own."""
    monkeypatch.setattr(name_meanings, "_NEXT_SECOND", 0)


@pytest.fixture
def there() -> FakeApi:
    return FakeApi()


@pytest.fixture
def here() -> FakeApi:
    return FakeApi()


def ingested(api: FakeApi, made: Image, folder: Path, *names: str, **options: Any) -> None:
    (folder / "image.tar").write_bytes(classic(made))
    for name in names:
        ingest = Ingest(Cluster(api), Options(cache_folder(), **options), SilentProgress())
        ingest.from_archive(folder / "image.tar", Reference.parse(name))


def stored_by_upstream(api: FakeApi, made: Image, name: str) -> None:
    """A tarball cut every 64 MiB, its links without a pin, as arv-keepdocker leaves them."""
    content = classic(made)
    blocks = [api.keep.put(content[start : start + (8 << 20)], 1) for start in range(0, len(content), 8 << 20)]
    text = manifest_text.single_file(f"{made.parsed.digest}.tar", len(content), blocks)
    record = api.add("collections", manifest_text=text)
    for link_class, called in (("docker_image_hash", str(made.parsed.digest)), ("docker_image_repo+tag", name)):
        properties = {"image_timestamp": "2024-01-02T03:04:05Z"}
        api.add(
            "links", link_class=link_class, name=called, head_uuid=record["uuid"], tail_uuid="", properties=properties
        )


def named(source: Cluster, text: str) -> Candidate:
    return image_named(source, text, Trust.of(ME, SYSTEM))


def every_of(source: Cluster, project: str | None = None) -> list[Candidate]:
    return images_of(source, Trust.of(ME, SYSTEM), project)


def copied(there: FakeApi, here: FakeApi, text: str, **options: Any) -> CopyResult:
    source, target = Cluster(there, retries=0), Cluster(here, retries=0)
    return Copier(source, target, Options(cache_folder(), **options), SilentProgress()).run(named(source, text))


def names_in(api: FakeApi) -> dict[str, str]:
    """The PDH by each name that is linked, and by each hash."""
    collections = api.records["collections"]
    links = (it for it in api.records["links"].values() if it["link_class"] in (HASH, REPO_TAG))
    return {it["name"]: collections[it["head_uuid"]]["portable_data_hash"] for it in links}


def test_content_id_and_every_name(there: FakeApi, here: FakeApi, tmp_path: Path) -> None:
    ingested(there, ONE, tmp_path, "app:1", "app:latest", "quay.example.com/tools/app:1")
    done = copied(there, here, "app:1")
    assert names_in(here) == names_in(there)
    assert set(done.names) == {"app:1", "app:latest", "quay.example.com/tools/app:1"}
    assert here.keep.blocks == there.keep.blocks
    for link in (it for it in here.records["links"].values() if it["link_class"] in (HASH, REPO_TAG)):
        assert link["properties"] == {"image_timestamp": "2024-01-02T03:04:05Z"}


@pytest.mark.parametrize("by", ["app:1", "pdh", "uuid"])
def test_every_name_of_the_content(there: FakeApi, here: FakeApi, tmp_path: Path, by: str) -> None:
    """Whichever of its collections has the name: a copy in a project, say."""
    ingested(there, ONE, tmp_path, "app:1")
    ingested(there, ONE, tmp_path, "app:2", project=PROJECT)
    first, second = there.records["collections"].values()
    assert first["portable_data_hash"] == second["portable_data_hash"]
    asked = {"app:1": "app:1", "pdh": first["portable_data_hash"], "uuid": second["uuid"]}[by]
    assert sorted(copied(there, here, asked).names) == ["app:1", "app:2"]
    assert names_in(here) == names_in(there)


def test_again_moves_nothing(there: FakeApi, here: FakeApi, tmp_path: Path) -> None:
    ingested(there, ONE, tmp_path, "app:1", "app:2")
    copied(there, here, "app:1")
    before = dict(here.keep.blocks), len(here.records["links"])
    done = copied(there, here, str(ONE.parsed.digest))
    assert (done.already, done.bytes_sent, done.links_written) == (True, 0, 0)
    assert (dict(here.keep.blocks), len(here.records["links"])) == before


def test_of_the_next_version_only_what_is_missing(there: FakeApi, here: FakeApi, tmp_path: Path) -> None:
    ingested(there, ONE, tmp_path, "app:1")
    copied(there, here, "app:1")
    ingested(there, TWO, tmp_path, "app:2")
    big = [name for name, content in there.keep.blocks.items() if len(content) > 1 << 20]
    for name in big:
        del there.keep.blocks[name]  # whoever reads the layer there fails
    done = copied(there, here, "app:2")
    assert done.bytes_sent < 64 << 10
    assert done.bytes_skipped >= len(BIG)
    assert names_in(here) == names_in(there)


def test_the_manifest_s_name_stays(there: FakeApi, here: FakeApi, tmp_path: Path) -> None:
    ingested(there, ONE, tmp_path, "app:1", by_manifest=True)
    done = copied(there, here, "app:1")
    assert done.image_id == canonical.layout(ONE.parsed, ONE.sizes).manifest_digest
    assert names_in(here) == names_in(there)
    assert copied(there, here, "app:1").already


def test_what_upstream_stored_stays_as_it_is(there: FakeApi, here: FakeApi) -> None:
    stored_by_upstream(there, ONE, "app:1")
    done = copied(there, here, "app:1")
    assert (done.bytes_sent, names_in(here)) == (len(classic(ONE)), names_in(there))
    assert here.keep.blocks == there.keep.blocks
    assert copied(there, here, "app:1").already
    assert list(cache_folder().iterdir()) == []


def test_what_is_no_image_is_not_copied(there: FakeApi, here: FakeApi) -> None:
    stored_by_upstream(there, ONE, "app:1")
    name = max(there.keep.blocks, key=lambda it: len(there.keep.blocks[it]))
    there.keep.blocks[name] = bytes(len(there.keep.blocks[name]))
    with pytest.raises(ArvDockerError):
        copied(there, here, "app:1")
    assert here.records == {"links": {}, "collections": {}}
    with pytest.raises(NoSuchImage):
        copied(there, here, "nosuch:1")


def meanings(api: FakeApi, *names: str) -> dict[str, str]:
    """The PDH that each name means."""
    return {name: resolve(Cluster(api, retries=0), name, TRUST).collection.pdh for name in names}


def all_copied(there: FakeApi, here: FakeApi) -> list[NameDifference]:
    """Copy every image, and give the names that differ."""
    source, target = Cluster(there, retries=0), Cluster(here, retries=0)
    copier, images = Copier(source, target, Options(cache_folder()), SilentProgress()), every_of(source)
    for each in images:
        copier.run(each)
    return copier.settle_names()


def pdhs(api: FakeApi) -> set[str]:
    return {record["portable_data_hash"] for record in api.records["collections"].values()}


def test_an_image_in_another_layout_is_other_content(there: FakeApi, here: FakeApi, tmp_path: Path) -> None:
    """Workflows pin the portable data hash, whatever image the other cluster has."""
    stored_by_upstream(there, ONE, "app:1")
    ingested(here, ONE, tmp_path, "app:1")
    done = copied(there, here, "app:1")
    assert not done.already
    assert pdhs(there) < pdhs(here)
    assert copied(there, here, "app:1").already


def test_both_layouts_under_the_same_names_go_both_ways(there: FakeApi, here: FakeApi, tmp_path: Path) -> None:
    """Every portable data hash arrives, and names mean the same on both."""
    for made, name in ((ONE, "app:1"), (THREE, "app:2")):
        stored_by_upstream(there, made, name)
        ingested(here, made, tmp_path, name)
    assert all_copied(there, here) == []
    before = meanings(there, "app:1", "app:2")
    assert meanings(here, "app:1", "app:2") == before
    assert all_copied(here, there) == []
    assert pdhs(there) == pdhs(here)
    assert meanings(there, "app:1", "app:2") == meanings(here, "app:1", "app:2") == before
    links = [dict(api.records["links"]) for api in (there, here)]
    assert (all_copied(there, here), all_copied(here, there)) == ([], [])
    assert [dict(api.records["links"]) for api in (there, here)] == links


def test_a_name_that_means_a_newer_image_there_is_listed(there: FakeApi, here: FakeApi, tmp_path: Path) -> None:
    ingested(there, ONE, tmp_path, "app:1")
    ingested(here, TWO, tmp_path, "app:1")
    (one,), (two,) = pdhs(there), pdhs(here)
    assert all_copied(there, here) == [NameDifference("app:1", one, two, copied=True)]


@pytest.mark.parametrize("upstream", [False, True])
def test_an_interrupted_copy_is_taken_up(
    there: FakeApi, here: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, upstream: bool
) -> None:
    if upstream:
        stored_by_upstream(there, ONE, "app:1")
    else:
        ingested(there, ONE, tmp_path, "app:1")
    put = here.keep.put

    def full(content: bytes, copies: int) -> str:
        if here.keep.blocks:
            raise KeepError("Keep is full.")
        return put(content, copies)

    monkeypatch.setattr(here.keep, "put", full)
    with pytest.raises(KeepError):
        copied(there, here, "app:1")
    monkeypatch.setattr(here.keep, "put", put)
    before = dict(here.keep.blocks)
    deadline = time.monotonic() + 20
    while sum(path.read_text().count("\n") for path in cache_folder().glob("*.blocks")) < len(before):
        assert time.monotonic() < deadline  # each is noted by the thread that sent it, a moment later
        time.sleep(0.01)
    here.keep.blocks.clear()
    copied(there, here, "app:1")
    assert before
    assert here.keep.blocks.keys().isdisjoint(before)
    assert names_in(here) == names_in(there)


def test_blocks_that_are_refused_are_sent_again(there: FakeApi, here: FakeApi) -> None:
    """What an interrupted copy sent is signed for the token that it had then."""
    stored_by_upstream(there, ONE, "app:1")
    here.faults["collections.create"] = [http_error(401)]
    with pytest.raises(ClusterError):
        copied(there, here, "app:1")
    here.keep.blocks.clear()
    here.faults["collections.create"] = [http_error(403)]
    assert copied(there, here, "app:1").bytes_sent == len(classic(ONE))
    assert (here.keep.blocks, names_in(here)) == (there.keep.blocks, names_in(there))
    assert list(cache_folder().iterdir()) == []


def test_a_refusal_for_another_reason_sends_nothing_again(there: FakeApi, here: FakeApi) -> None:
    stored_by_upstream(there, ONE, "app:1")
    here.faults["collections.create"] = [http_error(403)]
    with pytest.raises(ClusterError):
        copied(there, here, "app:1")
    assert here.requests["collections.create"] == 1


def test_a_cluster_that_takes_no_such_images_is_found_before_anything_is_sent(there: FakeApi, here: FakeApi) -> None:
    stored_by_upstream(there, ONE, "app:1")
    here._rootDesc["dockerImageFormats"] = ["v1"]
    with pytest.raises(ArvDockerError, match="v2"):
        copied(there, here, "app:1")
    assert here.keep.blocks == {}


def test_how_much_there_is_to_copy_is_told(there: FakeApi, here: FakeApi, tmp_path: Path) -> None:
    ingested(there, ONE, tmp_path, "app:1")
    totals = []

    class Told(SilentProgress):
        def store_step(self, title: str, total: int | None) -> AbstractContextManager[StoreStep]:
            totals.append(total)
            return super().store_step(title, total)

    Copier(Cluster(there), Cluster(here), Options(cache_folder()), Told()).run(named(Cluster(there), "app:1"))
    assert totals == [sum(ONE.sizes.values())]


def test_two_at_once_copy_once(there: FakeApi, here: FakeApi) -> None:
    stored_by_upstream(there, ONE, "app:1")
    said: Queue[str] = Queue()

    class Told(SilentProgress):
        def say(self, message: str) -> None:
            said.put(message)

    with ThreadPoolExecutor() as threads:
        with hold_image_lock(cache_folder(), ONE.parsed.digest):
            copying = Copier(Cluster(there), Cluster(here), Options(cache_folder()), Told())
            done = threads.submit(copying.run, named(Cluster(there), "app:1"))
            assert "another process" in said.get(timeout=60)
            assert here.keep.blocks == {}
            stored_by_upstream(here, ONE, "app:1")  # that process did it
            before = dict(here.records["collections"])
        assert done.result(60).already
    assert here.records["collections"] == before


def test_into_a_project(there: FakeApi, here: FakeApi, tmp_path: Path) -> None:
    ingested(there, ONE, tmp_path, "app:1")
    copied(there, here, "app:1", project=PROJECT)
    assert {it["owner_uuid"] for it in here.records["collections"].values()} == {PROJECT}


def test_a_plan_is_what_happens(there: FakeApi, here: FakeApi, tmp_path: Path) -> None:
    ingested(there, ONE, tmp_path, "app:1", "app:latest")
    ingested(there, TWO, tmp_path, "app:2")
    source, target = Cluster(there), Cluster(here)
    copying = Copier(source, target, Options(cache_folder()), SilentProgress())
    for found in every_of(source):
        planned, done = copying.plan(found), copying.run(found)
        assert planned.uuid is None
        assert planned.bytes_to_send is not None
        assert abs(planned.bytes_to_send - done.bytes_sent) <= 4096  # padding, and the end
    for found in every_of(source):
        done = copying.run(found)
        assert (copying.plan(found).uuid, done.already, done.links_written) == (done.uuid, True, 0)
    assert names_in(here) == names_in(there)


def test_a_plan_of_several_counts_what_they_share_once(there: FakeApi, here: FakeApi, tmp_path: Path) -> None:
    ingested(there, ONE, tmp_path, "app:1")
    ingested(there, TWO, tmp_path, "app:2")
    copying = Copier(Cluster(there), Cluster(here), Options(cache_folder()), SilentProgress())
    plans = [copying.plan(found) for found in every_of(Cluster(there))]
    assert here.keep.blocks == {}
    assert [it.layers_held for it in plans] == [0, 1]
    for planned, found in zip(plans, every_of(Cluster(there)), strict=True):
        assert planned.bytes_to_send is not None
        assert abs(planned.bytes_to_send - copying.run(found).bytes_sent) <= 4096


def test_every_image_once_and_those_of_a_project(there: FakeApi, tmp_path: Path) -> None:
    ingested(there, ONE, tmp_path, "app:1", "app:latest")
    ingested(there, TWO, tmp_path, "app:2", project=PROJECT)
    there.add("links", link_class="docker_image_repo+tag", name="app:9", head_uuid="zzzzz-4zz18-999999999999999")
    stray = there.add("collections", manifest_text=f". {there.keep.put(b'x', 1)} 0:1:x\n")
    there.add("links", link_class="docker_image_repo+tag", name="x:1", head_uuid=stray["uuid"])
    assert [str(it) for it in every_of(Cluster(there))] == ["app:latest, app:1", "app:2"]
    assert [str(it) for it in every_of(Cluster(there), PROJECT)] == ["app:2"]


@pytest.mark.parametrize("further", [[], ["other:1"]])
def test_a_name_means_the_same_image_there(there: FakeApi, here: FakeApi, tmp_path: Path, further: list[str]) -> None:
    """Also where two images by one name were made at the same time: then the later link decides."""
    twin = image(files_of(b"twin"), created=MADE)
    ingested(there, ONE, tmp_path, "app:1")
    ingested(there, twin, tmp_path, "app:1")
    ingested(there, ONE, tmp_path, *further)
    copying = Copier(Cluster(there), Cluster(here), Options(cache_folder()), SilentProgress())
    for found in every_of(Cluster(there)):
        copying.run(found)
    assert (
        resolve(Cluster(here), "app:1", TRUST).collection.pdh == resolve(Cluster(there), "app:1", TRUST).collection.pdh
    )
    assert image_file(resolve(Cluster(there), "app:1", TRUST).collection).image_id == twin.parsed.digest


def digests_in(api: FakeApi) -> set[tuple[str, str]]:
    """The digests that links have, and the PDH of the collection that each leads to."""
    collections = api.records["collections"]
    links = (it for it in api.records["links"].values() if it["link_class"] == DIGEST)
    return {(it["name"], collections[it["head_uuid"]]["portable_data_hash"]) for it in links}


@pytest.mark.parametrize("upstream", [False, True])
@pytest.mark.parametrize("names", [["app:1"], ["app:1", "app:2"], []])
def test_the_digests_by_which_its_source_called_it(
    there: FakeApi, here: FakeApi, tmp_path: Path, names: list[str], upstream: bool
) -> None:
    """An engine's or a registry's; not what somebody says whom nobody trusts."""
    if upstream:
        stored_by_upstream(there, ONE, "app:1")
    else:
        ingested(there, ONE, tmp_path, *(names or [str(ONE.parsed.digest)]))
    (record,) = there.records["collections"].values()
    own, foreign = (f"sha256:{letter * 64}" for letter in "ab")
    pin = record["portable_data_hash"]
    there.link(record, DIGEST, own, tail_uuid=pin)
    there.link(record, DIGEST, "nonsense", tail_uuid=pin)
    there.link(record, DIGEST, f"sha256:{'c' * 64}", tail_uuid="")
    there.records["links"][there.link(record, DIGEST, foreign, tail_uuid=pin)["uuid"]]["modified_by_user_uuid"] = OTHER
    record["modified_by_user_uuid"] = OTHER
    done = copied(there, here, str(ONE.parsed.digest))
    assert {name for name, _ in digests_in(here)} >= {own}
    assert not {name for name, _ in digests_in(here)} & {foreign, "nonsense", f"sha256:{'c' * 64}"}
    (pdh,) = {pdh for _, pdh in digests_in(here)}
    # Of another layout, changed by somebody else since the link was written: it is not taken as it lies.
    assert (pdh == pin) == (not upstream)
    before = dict(here.records["links"])
    again = copied(there, here, own)
    assert (again.uuid, again.already, again.links_written) == (done.uuid, True, 0)
    assert here.records["links"] == before
    plan = Copier(Cluster(there), Cluster(here), Options(cache_folder()), SilentProgress()).plan(
        named(Cluster(there), own)
    )
    assert (plan.uuid, plan.bytes_to_send) == (done.uuid, 0)


def test_both_collections_of_an_image_go_as_they_are(there: FakeApi, here: FakeApi, tmp_path: Path) -> None:
    ingested(there, ONE, tmp_path, "app:1", image_ids=("config", "manifest"))
    copying = Copier(Cluster(there), Cluster(here), Options(cache_folder()), SilentProgress())
    sent = [copying.run(found).bytes_sent for found in every_of(Cluster(there))]
    assert names_in(here) == names_in(there)
    assert (here.keep.blocks, min(sent)) == (there.keep.blocks, 0)
    assert len(here.records["collections"]) == 2
    assert digests_in(here) == digests_in(there)
    copied_once = [copying.run(found) for found in every_of(Cluster(there))]
    assert [(it.already, it.bytes_sent, it.links_written) for it in copied_once] == [(True, 0, 0)] * 2
    back = Copier(Cluster(here), Cluster(there), Options(cache_folder()), SilentProgress())
    back_again = [back.run(found) for found in every_of(Cluster(here))]
    assert [(it.already, it.bytes_sent, it.links_written) for it in back_again] == [(True, 0, 0)] * 2

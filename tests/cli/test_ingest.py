# SPDX-License-Identifier: Apache-2.0
"""`arv-docker ingest` and `arv-keepdocker IMAGE`: what is stored, linked, said, and left behind."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from arv_docker.archive import canonical
from arv_docker.archive.reader import ArchiveReader
from arv_docker.arvados.catalog.link_classes import DIGEST, HASH, REPO_TAG
from arv_docker.errors import EngineError
from arv_docker.model import manifest_text
from arv_docker.model.image import Digest
from arv_docker.model.reference import Reference
from arv_docker.store.tarballs import cache_folder

from ..archives import Bytes, canonical_archive, containerd, files_of, flat, hybrid, image, several
from ..arvados.fake_api import ME, OTHER, PROJECT, FakeApi, Request, http_error, lost
from ..transports.fake_engine import FakeEngine
from .conftest import APP, Run, saved

ID = str(APP.parsed.digest)


def collections(api: FakeApi) -> list[dict[str, Any]]:
    return list(api.records["collections"].values())


def links(api: FakeApi) -> list[tuple[str, str, str]]:
    return sorted(
        (it["link_class"], it["name"], it["head_uuid"])
        for it in api.records["links"].values()
        if it["link_class"] in (HASH, REPO_TAG)
    )


def content_of(api: FakeApi, record: dict[str, Any]) -> bytes:
    ((parts),) = manifest_text.files(manifest_text.parse(record["manifest_text"])).values()
    return b"".join(api.keep.blocks[part.locator.without_hints][part.offset :][: part.length] for part in parts)


@pytest.mark.conforms("K3", "K24")
@pytest.mark.parametrize(
    "arguments", [["ingest", "app:1"], ["arv-keepdocker", "app:1"], ["arv-keepdocker", "app", "1"]]
)
def test_an_image_of_the_engine(api: FakeApi, engine: FakeEngine, run: Run, arguments: list[str]) -> None:
    outcome = run(*arguments)
    (record,) = collections(api)
    assert (outcome.code, outcome.out) == (0, f"{record['uuid']}\n")
    assert content_of(api, record) == canonical_archive(APP)
    assert f"sha256\\072{APP.parsed.digest.hex}.tar" in record["manifest_text"]
    assert record["name"] == f"Docker image app:1 {APP.parsed.digest.short_hex}"
    assert record["properties"] == {"docker-image-repo-tag": "app:1"}
    assert links(api) == [(HASH, ID, record["uuid"]), (REPO_TAG, "app:1", record["uuid"])]
    for link in (it for it in api.records["links"].values() if it["link_class"] in (HASH, REPO_TAG)):
        assert link["properties"] == {"image_timestamp": "2024-01-02T03:04:05Z"}
        assert link["tail_uuid"] == record["portable_data_hash"]
    assert engine.calls == ["save"]
    assert list(cache_folder().iterdir()) == []


@pytest.mark.conforms("K4")
def test_again_sends_nothing_and_saves_nothing(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    first = run("ingest", "app:1")
    requests = api.total
    again = run("ingest", "app:1")
    assert again.out == first.out
    assert "already stored, 0 bytes sent" in again.err
    assert engine.calls == ["save"]
    assert api.total - requests < 6
    assert (len(collections(api)), len(links(api))) == (1, 2)


@pytest.mark.conforms("K19", "K20")
@pytest.mark.parametrize("form", [hybrid, flat, canonical_archive])
def test_every_archive_of_an_image_is_one_collection(
    api: FakeApi, run: Run, archive: Path, tmp_path: Path, form: Any
) -> None:
    (tmp_path / "other.tar").write_bytes(form(APP))
    first = run("ingest", "--from-archive", str(archive), "app:1")
    again = run("ingest", "--from-archive", str(tmp_path / "other.tar"), "app:1")
    assert (first.code, again.code, first.out) == (0, 0, again.out)
    assert len(collections(api)) == 1


@pytest.mark.conforms("S23")
def test_json(api: FakeApi, run: Run, archive: Path) -> None:
    document = json.loads(run("ingest", "--json", "--from-archive", str(archive)).out)
    (record,) = collections(api)
    expected = {
        "uuid": record["uuid"],
        "pdh": record["portable_data_hash"],
        "image_id": ID,
        "name": "app:1",
        "already": False,
        "links_written": 3,
    }
    assert expected.items() <= document.items()
    assert document["bytes_sent"] == len(canonical_archive(APP))


def test_an_archive_s_own_name_unless_another_is_given(api: FakeApi, run: Run, archive: Path) -> None:
    run("ingest", "--from-archive", str(archive))
    run("ingest", "--from-archive", str(archive), "quay.example.com/other:2")
    assert [name for link_class, name, _ in links(api) if link_class == REPO_TAG] == [
        "app:1",
        "quay.example.com/other:2",
    ]
    assert len(collections(api)) == 1


@pytest.mark.conforms("K11")
def test_an_image_by_its_id_gets_no_name(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    assert run("ingest", ID).code == 0
    assert [link_class for link_class, _, _ in links(api)] == [HASH]
    (record,) = collections(api)
    assert record["name"] == f"Docker image {APP.parsed.digest.short_hex}"
    assert record["properties"] == {}


def test_by_the_manifest_digest(api: FakeApi, run: Run, archive: Path) -> None:
    layout = canonical.layout(APP.parsed, APP.sizes)
    run("ingest", "--image-id", "manifest", "--from-archive", str(archive))
    (record,) = collections(api)
    assert layout.manifest_digest.hex in record["manifest_text"]
    assert (HASH, str(layout.manifest_digest), record["uuid"]) in links(api)


@pytest.mark.conforms("K6", "S15")
def test_force_stores_it_again(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    first = run("ingest", "app:1")
    stored = dict(api.keep.blocks)
    api.keep.blocks.clear()
    again = run("ingest", "--force", "app:1")
    assert (again.out, api.keep.blocks) == (first.out, stored)
    assert engine.calls == ["save", "save"]
    assert (len(collections(api)), len(links(api))) == (1, 2)


@pytest.mark.conforms("K6")
@pytest.mark.usefixtures("engine")
def test_force_with_a_name_of_its_own_makes_a_collection_of_its_own(api: FakeApi, run: Run) -> None:
    first, again = run("ingest", "app:1"), run("ingest", "--force", "--name", "mine", "app:1")
    assert first.out != again.out
    assert [it["name"] for it in collections(api)][1:] == ["mine"]


@pytest.mark.conforms("K6", "S13")
@pytest.mark.usefixtures("engine")
def test_project_and_name(api: FakeApi, run: Run) -> None:
    run("ingest", "--project-uuid", PROJECT, "--name", "app:1", "app:1")
    (record,) = collections(api)
    assert (record["owner_uuid"], record["name"]) == (PROJECT, "app:1")
    assert {link["owner_uuid"] for link in api.records["links"].values()} == {PROJECT}


@pytest.mark.conforms("K5")
def test_an_image_in_another_project_is_copied_without_its_bytes(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    run("ingest", "app:1")
    sent = len(api.keep.blocks)
    outcome = run("ingest", "--project-uuid", PROJECT, "app:1")
    assert outcome.code == 0
    one, two = collections(api)
    assert one["portable_data_hash"] == two["portable_data_hash"]
    assert (len(api.keep.blocks), engine.calls) == (sent, ["save"])


# -- interrupted ------------------------------------------------------------------------


@pytest.mark.conforms("S6", "K14")
@pytest.mark.parametrize("request_", ["collections.create", "links.create", "collections.list", "links.list"])
@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("status", [403, 500])
def test_a_run_that_failed_anywhere_is_completed_by_the_next(
    api: FakeApi, engine: FakeEngine, run: Run, request_: str, number: int, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A creation that was refused leaves nothing for another try; of what failed the tarball serves again."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    api.faults[request_] = [None] * number + [http_error(status)] * 20
    first = run("ingest", "app:1")
    assert status == 500 or request_.endswith("list") or list(cache_folder().iterdir()) == []
    api.faults.clear()
    again = run("ingest", "app:1")
    assert again.code == 0
    (record,) = collections(api)
    assert links(api) == [(HASH, ID, record["uuid"]), (REPO_TAG, "app:1", record["uuid"])]
    assert first.code in (0, 4)
    assert list(cache_folder().iterdir()) == []
    saves = 2 if status == 403 and engine.calls[1:] else 1
    assert engine.calls == ["save"] * saves, "the tarball of the first run serves again"


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("request_", ["collections.create", "links.create"])
def test_lost_answers(api: FakeApi, run: Run, request_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    api.faults[request_] = [lost()]
    assert run("ingest", "app:1").code == 0
    assert (len(collections(api)), len(links(api))) == (1, 2)


@pytest.mark.conforms("K13", "K14")
def test_a_kept_tarball(engine: FakeEngine, api: FakeApi, run: Run) -> None:
    run("ingest", "--keep-tarball", "app:1")
    assert sorted(path.name for path in cache_folder().iterdir()) == [f"{ID}.tar", f"{ID}.tar.stat"]
    run("ingest", "--force", "app:1")
    assert engine.calls == ["save"]


@pytest.mark.conforms("K13", "S8")
def test_a_kept_tarball_that_is_damaged_is_saved_again(engine: FakeEngine, api: FakeApi, run: Run) -> None:
    run("ingest", "--keep-tarball", "app:1")
    file = cache_folder() / f"{ID}.tar"
    stat = file.stat()
    with file.open("r+b") as opened:
        opened.seek(file.read_bytes().index(b"lowlow"))
        opened.write(b"LOW")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    api.records["collections"].clear()
    outcome = run("ingest", "app:1")
    assert outcome.code == 0
    assert "no good" in outcome.err
    (record,) = collections(api)
    assert content_of(api, record) == canonical_archive(APP)


def test_no_cache_leaves_no_tarball(engine: FakeEngine, api: FakeApi, run: Run) -> None:
    api.faults["collections.create"] = [http_error(403)]
    assert run("ingest", "--no-cache", "app:1").code == 4
    assert list(cache_folder().iterdir()) == []


# -- refused, and nothing written -------------------------------------------------------


@pytest.mark.conforms("K22", "S6")
@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"x" * 2000, 5, "not a tar archive"),
        (several((APP, ["app:1"]), (image(b"x"), ["other:1"])), 5, "other:1"),
        (flat(APP)[:30_000], 5, "cut short"),
        (hybrid(APP).replace(b"lowlow", b"LOWLOW", 1), 5, "other bytes"),
    ],
)
def test_content_that_is_refused(api: FakeApi, run: Run, tmp_path: Path, content: bytes, code: int, words: str) -> None:
    (tmp_path / "bad.tar").write_bytes(content)
    outcome = run("ingest", "--from-archive", str(tmp_path / "bad.tar"))
    assert outcome.code == code
    assert words in outcome.err
    assert (collections(api), links(api)) == ([], [])


def test_a_stored_image_gets_no_name_that_is_another_s_alone(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    """Also where nothing has to be read for it."""
    other = image(files_of(b"other"), os="linux")
    engine.load([canonical_archive(other)])
    taken = Reference.parse("app:1").unique_for(APP.parsed.digest)
    assert run("ingest", "--unique", "app:1").code == 0
    assert run("ingest", str(other.parsed.digest)).code == 0
    before = links(api)
    engine.tag(other.parsed.digest, taken)
    refused = run("ingest", taken.familiar_name)
    assert refused.code == 8
    assert "alone" in refused.err
    assert links(api) == before


def test_an_image_in_keep_is_no_source(run: Run, api: FakeApi) -> None:
    outcome = run("ingest", "keep:tools/app:1")
    assert outcome.code == 2
    assert "arv-docker copy keep:tools/app:1 keep:" in outcome.err
    assert (collections(api), links(api)) == ([], [])


def test_an_image_that_the_engine_does_not_have(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    outcome = run("ingest", "none:1")
    assert (outcome.code, outcome.out) == (1, "")
    assert (collections(api), links(api)) == ([], [])


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
@pytest.mark.parametrize("names", [["app:1"], ["docker-daemon:app:1"], ["app:1", "app:1"]])
def test_an_engine_s_image_for_another_platform_is_not_taken(
    api: FakeApi, engine: FakeEngine, run: Run, monkeypatch: pytest.MonkeyPatch, names: list[str], options: list[str]
) -> None:
    monkeypatch.setattr("arv_docker.transports.docker_daemon.Docker", lambda **_: engine)
    refused = run("ingest", *options, "--platform", "linux/arm64", *names)
    assert (refused.code, refused.out) == (1, "")
    assert "app:1 for linux/amd64, and not for linux/arm64" in refused.err
    assert collections(api) == []
    assert run("ingest", *options, "--platform", "linux/amd64", *names).code == 0


@pytest.mark.usefixtures("engine")
def test_what_keep_has_by_that_name_is_not_taken_for_another_platform_s(
    api: FakeApi, engine: FakeEngine, run: Run
) -> None:
    assert run("ingest", "app:1").code == 0
    engine.images.clear()
    assert run("ingest", "app:1").code == 0
    for options in ([], ["--dry-run"]):
        assert run("ingest", *options, "--platform", "linux/arm64", "app:1").code == 1


@pytest.mark.conforms("K7")
@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("formats", [["v1"], [], None])
def test_a_cluster_that_takes_no_version_2(api: FakeApi, run: Run, formats: object) -> None:
    api._rootDesc["dockerImageFormats"] = formats
    refused = run("ingest", "app:1")
    assert refused.code == 1
    assert "--force-image-format" in refused.err
    assert collections(api) == []
    forced = run("ingest", "--force-image-format", "app:1")
    assert forced.code == 0
    assert "warning" in forced.err


# -- links of others --------------------------------------------------------------------


def plant(api: FakeApi, run: Run, archive: Path, *, good: bool) -> dict[str, Any]:
    """The image, or something else of its name, stored and linked by somebody else."""
    run("ingest", "--from-archive", str(archive))
    (record,) = collections(api)
    api.records["links"].clear()
    record |= {"owner_uuid": OTHER, "modified_by_user_uuid": OTHER}
    if not good:
        for name, block in api.keep.blocks.items():
            api.keep.blocks[name] = block.replace(b"lowlow", b"LOWLOW", 1)
    api.link(record, HASH, ID, modified_by_user_uuid=OTHER, tail_uuid=record["portable_data_hash"])
    return record


@pytest.mark.conforms("S8", "K5")
@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("good", [True, False])
def test_a_stranger_s_link_is_a_hint_that_is_read_back(api: FakeApi, run: Run, archive: Path, good: bool) -> None:
    planted = plant(api, run, archive, good=good)
    sent = set(api.keep.blocks)
    outcome = run("ingest", "app:1")
    assert outcome.code == 0
    assert "reading it back" in outcome.err
    assert ("is not used" in outcome.err) is not good
    ours = [it for it in collections(api) if it["owner_uuid"] == ME]
    assert [it["uuid"] for it in ours] == outcome.out.split()
    assert planted["uuid"] not in outcome.out
    assert set(api.keep.blocks) == sent
    assert Digest.of(content_of(api, ours[0])) == Digest.of(canonical_archive(APP))


# -- pulling ----------------------------------------------------------------------------


@pytest.mark.conforms("K12", "S7")
def test_pull(engine: FakeEngine, api: FakeApi, run: Run) -> None:
    run("ingest", "--pull", "app:1")
    assert engine.calls[0] == "pull"
    assert run("ingest", "--pull", ID).code == 2
    engine.calls.clear()
    run("ingest", "--no-pull", "app:1")
    assert "pull" not in engine.calls


def test_more_layers_than_docker_mounts_are_warned_of(api: FakeApi, run: Run, tmp_path: Path) -> None:
    many = image(*(files_of(b"%d" % number) for number in range(126)))
    outcome = run("ingest", "--from-archive", str(saved(tmp_path / "many.tar", many)))
    assert outcome.code == 0
    assert "126 layers" in outcome.err


# -- what is no proof -------------------------------------------------------------------


@pytest.mark.conforms("S1", "S8")
def test_a_link_by_one_id_to_another_image(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    """Asked for an ID, only that image will do, whoever says what of another."""
    run("ingest", "app:1")
    (record,) = collections(api)
    wanted = f"sha256:{'a' * 64}"
    api.link(record, HASH, wanted, modified_by_user_uuid=OTHER, tail_uuid=record["portable_data_hash"])
    before = links(api)
    assert run("ingest", wanted).code == 1
    assert run("ingest", wanted[:20]).code == 1
    assert links(api) == before
    assert "the ID of another image" in run("resolve", wanted).err
    engine.images.clear()
    outcome = run("load", wanted)
    assert (outcome.code, engine.images) == (1, {})


@pytest.mark.conforms("S8")
@pytest.mark.usefixtures("engine")
def test_a_stranger_s_timestamp_does_not_rank_our_links(api: FakeApi, run: Run, archive: Path) -> None:
    planted = plant(api, run, archive, good=True)
    for link in api.records["links"].values():
        link["properties"] = {"image_timestamp": "2099-01-01T00:00:00Z"}
    assert run("ingest", "app:1").code == 0
    ours = [it for it in api.records["links"].values() if it["head_uuid"] != planted["uuid"]]
    assert {it["properties"]["image_timestamp"] for it in ours if it["link_class"] in (HASH, REPO_TAG)} == {
        "2024-01-02T03:04:05Z"
    }


def test_a_failing_engine_that_has_the_image_does_not_end_in_an_older_build(
    api: FakeApi, engine: FakeEngine, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("ingest", "app:1")
    newer = image(files_of(b"newer"), os="linux")
    engine.images = FakeEngine(newer).images
    engine.tags = {newer.parsed.digest: ["app:1"]}

    def save(*_: object) -> Any:
        raise EngineError("docker save failed with status 1.")

    monkeypatch.setattr(engine, "save", save)
    outcome = run("ingest", "app:1")
    assert (outcome.code, outcome.out) == (3, "")


@pytest.mark.usefixtures("engine")
def test_a_project_that_may_not_be_written_is_found_before_anything_is_sent(
    api: FakeApi, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "get", lambda uuid: Request(lambda: {"uuid": uuid, "can_write": False}))
    outcome = run("ingest", "--project-uuid", PROJECT, "app:1")
    assert (outcome.code, api.keep.blocks) == (4, {})
    assert PROJECT in outcome.err


def test_a_short_id_gives_an_archive_s_image_no_name(api: FakeApi, run: Run, archive: Path) -> None:
    assert run("ingest", "--from-archive", str(archive), APP.parsed.digest.short_hex).code == 0
    assert [link_class for link_class, _, _ in links(api)] == [HASH]


@pytest.mark.usefixtures("engine")
def test_a_collection_that_will_go_to_the_trash_is_not_relied_on(api: FakeApi, run: Run) -> None:
    run("ingest", "app:1")
    (record,) = collections(api)
    record["trash_at"] = "2099-01-01T00:00:00Z"
    assert run("ingest", "app:1").code == 0
    assert len(collections(api)) == 2


@pytest.mark.usefixtures("engine")
def test_a_collection_that_may_only_be_read_gets_no_property_and_that_is_well(api: FakeApi, run: Run) -> None:
    run("ingest", "app:1")
    (record,) = collections(api)
    record["properties"] = {}
    api.faults["collections.update"] = [http_error(403)]
    assert run("ingest", "app:1").code == 0


@pytest.mark.conforms("K25")
@pytest.mark.usefixtures("engine")
def test_properties_that_are_asked_for(api: FakeApi, run: Run) -> None:
    assert run("ingest", "--image-properties", "app:1").code == 0
    (record,) = collections(api)
    assert record["properties"] == {
        "docker-image-repo-tag": "app:1",
        "docker-image-hash": ID,
        "docker-image-timestamp": "2024-01-02T03:04:05Z",
    }
    assert run("ingest", "--image-properties", "--project-uuid", PROJECT, "app:1").code == 0
    (_, copy) = collections(api)
    assert copy["properties"] == record["properties"]


# -- other digests of an image ----------------------------------------------------------


def digests_in(api: FakeApi) -> dict[str, str]:
    return {it["name"]: it["head_uuid"] for it in api.records["links"].values() if it["link_class"] == DIGEST}


@pytest.fixture
def containerd_engine(engine: FakeEngine) -> FakeEngine:
    """An engine that calls APP by the digest of an index, as a containerd store does."""
    content = containerd(APP)
    called = ArchiveReader(Bytes(content)).image().digests[-1]
    engine.images = {called: content}
    engine.tags = {called: ["app:1"]}
    return engine


@pytest.mark.conforms("S9")
def test_an_engine_with_another_id_gives_the_same_archive(
    api: FakeApi, containerd_engine: FakeEngine, run: Run, archive: Path
) -> None:
    assert run("ingest", "app:1").code == 0
    (record,) = collections(api)
    assert content_of(api, record) == canonical_archive(APP)
    assert links(api) == [(HASH, ID, record["uuid"]), (REPO_TAG, "app:1", record["uuid"])]
    (called,) = containerd_engine.images
    manifest_digest = canonical.layout(APP.parsed, APP.sizes).manifest_digest
    assert {str(called), str(manifest_digest)} <= digests_in(api).keys()
    assert set(digests_in(api).values()) == {record["uuid"]}


def test_an_image_is_known_by_the_engine_s_digest(api: FakeApi, containerd_engine: FakeEngine, run: Run) -> None:
    first = run("ingest", "app:1")
    again = run("ingest", "app:1")
    assert (again.code, again.out, containerd_engine.calls) == (0, first.out, ["save"])
    assert "already stored" in again.err


def test_a_stranger_s_word_for_a_digest_is_not_taken(api: FakeApi, containerd_engine: FakeEngine, run: Run) -> None:
    run("ingest", "app:1")
    for link in api.records["links"].values():
        if link["link_class"] == DIGEST:
            link["modified_by_user_uuid"] = OTHER
    assert run("ingest", "app:1").code == 0
    assert containerd_engine.calls == ["save", "save"]
    assert len(collections(api)) == 1


def test_an_image_is_found_by_every_digest(api: FakeApi, containerd_engine: FakeEngine, run: Run) -> None:
    run("ingest", "app:1")
    (record,) = collections(api)
    for name in [*digests_in(api), *(name[7:19] for name in digests_in(api)), f"app@{next(iter(digests_in(api)))}"]:
        outcome = run("resolve", name)
        assert outcome.code == 0, outcome.err
        assert outcome.out.strip() == record["portable_data_hash"]
        assert "the cluster itself does not know the digest" in outcome.err
        assert ID.removeprefix("sha256:")[:12] in run("images", name).out

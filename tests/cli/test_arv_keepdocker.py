# SPDX-License-Identifier: Apache-2.0
"""`arv-keepdocker` where the original fails or a script depends on it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from arv_docker.arvados.catalog.link_classes import DIGEST, HASH, REPO_TAG
from arv_docker.model.image import Digest
from arv_docker.model.reference import name_as_id

from ..archives import files_of, image
from ..arvados.fake_api import ME, OTHER, PROJECT, FakeApi
from ..transports.fake_engine import FakeEngine
from .conftest import APP, Run

ID = str(APP.parsed.digest)
HEX = APP.parsed.digest.hex


def collections(api: FakeApi) -> list[dict[str, Any]]:
    return list(api.records["collections"].values())


def links(api: FakeApi, head: str) -> list[tuple[str, str]]:
    found = [it for it in api.records["links"].values() if it["link_class"] in (HASH, REPO_TAG)]
    return sorted((it["link_class"], it["name"]) for it in found if it["head_uuid"] == head)


# -- the command line -------------------------------------------------------------------


@pytest.mark.conforms("S5", "K6")
@pytest.mark.parametrize("arguments", [["app", "1"], ["app:1"]])
@pytest.mark.parametrize("name", ["app", "1", "app:1", ID, "images", "--force"])
@pytest.mark.usefixtures("engine")
def test_an_option_s_value_may_be_anything(api: FakeApi, run: Run, arguments: list[str], name: str) -> None:
    """The original forwards its arguments without those that equal the image or its tag, options' values too."""
    outcome = run("arv-keepdocker", f"--name={name}", "--project-uuid", PROJECT, *arguments)
    (record,) = collections(api)
    assert (outcome.code, outcome.out) == (0, f"{record['uuid']}\n")
    assert (record["name"], record["owner_uuid"]) == (name, PROJECT)


@pytest.mark.conforms("S5", "K2")
@pytest.mark.parametrize(
    ("arguments", "link"),
    [
        (["host.example:443/app:1"], "host.example/app:1"),
        (["host.example:443/app", "1"], "host.example/app:1"),
        (["host.example:8888/lib/app:1"], "host.example:8888/lib/app:1"),
        (["[::1]:8888/app"], "[::1]:8888/app:latest"),
    ],
)
def test_registries_with_ports(
    api: FakeApi, engine: FakeEngine, run: Run, arguments: list[str], link: str, archive: Path
) -> None:
    outcome = run("arv-keepdocker", "--from-archive", str(archive), *arguments)
    (record,) = collections(api)
    assert outcome.code == 0
    assert links(api, record["uuid"]) == [(HASH, ID), (REPO_TAG, link)]
    assert record["properties"] == {"docker-image-repo-tag": link}


@pytest.mark.conforms("K11", "S2")
@pytest.mark.parametrize("name", [ID, HEX, HEX[:12], ID[:19]])
def test_an_id_gives_the_image_and_no_name(api: FakeApi, engine: FakeEngine, run: Run, name: str) -> None:
    if len(name) == 12:
        engine.tags[APP.parsed.digest] = []
        inspect = engine.inspect
        engine.inspect = lambda it: inspect(name_as_id(str(it)) or it)  # type: ignore[method-assign, assignment]
    assert run("arv-keepdocker", name).code == 0
    (record,) = collections(api)
    assert links(api, record["uuid"]) == [(HASH, ID)]
    assert record["name"] == f"Docker image {APP.parsed.digest.short_hex}"


@pytest.mark.conforms("S1", "K8", "K11")
@pytest.mark.parametrize("name", [f"sha256:{'9' * 64}", "9" * 64, "9" * 12, "sha256:9999", "sha256"])
def test_an_id_that_nobody_has_is_an_error(api: FakeApi, engine: FakeEngine, run: Run, name: str) -> None:
    """The original takes any version 2 image for it and ends with code 0."""
    assert run("arv-keepdocker", "app:1").code == 0
    before = dict(api.records["links"])
    outcome = run("arv-keepdocker", name)
    assert (outcome.code, outcome.out) == (1, "")
    assert api.records["links"] == before


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("arguments", [[""], ["", "latest"], ["app", ""]])
def test_an_empty_name_is_no_name(api: FakeApi, run: Run, arguments: list[str]) -> None:
    """As `arv-keepdocker "$IMAGE"` has it in a script whose variable is not set."""
    outcome = run("arv-keepdocker", *arguments)
    assert (outcome.code, outcome.out) == (1, "")
    assert "is not" in outcome.err
    assert collections(api) == []


@pytest.mark.conforms("S11", "K11")
def test_a_name_with_a_digest(api: FakeApi, run: Run, archive: Path) -> None:
    """arvados-cwl-runner splits it at the colon and relies on a link of that very name."""
    for arguments in ([f"app@{ID}"], ["app@sha256", ID[7:]]):
        assert run("arv-keepdocker", "--from-archive", str(archive), *arguments).code == 0
    (record,) = collections(api)
    assert links(api, record["uuid"]) == [(HASH, ID), (REPO_TAG, f"app@{ID}")]


@pytest.mark.parametrize("name", ["app@sha256:" + "d" * 64, "app:1@sha256:" + "d" * 64])
def test_a_digest_that_the_source_has_not_proven_is_refused(
    api: FakeApi, engine: FakeEngine, run: Run, archive: Path, name: str
) -> None:
    """Whoever reads NAME@DIGEST takes it for a promise about bytes."""
    ways: list[tuple[str, ...]] = [
        ("arv-keepdocker", "--from-archive", str(archive), name),
        ("ingest", "--from-archive", str(archive), name),
        ("ingest", "--as", name, f"docker-archive:{archive}"),
        ("ingest", "--as", name, "app:1"),
        ("ingest", "--as", name, "--dry-run", f"docker-archive:{archive}"),
        ("ingest", "--as", name, "--dry-run", "app:1"),
    ]
    for words in ways:
        outcome = run(*words)
        assert outcome.code == (1 if words[0] == "arv-keepdocker" else 5), words
        assert f"{'d' * 64}; it has {ID}" in outcome.err, words
    assert collections(api) == []
    assert run("ingest", f"docker-archive:{archive}").code == 0
    before = dict(api.records["links"])
    for verb in ("link", "tag"):
        assert run(verb, "app:1", name).code == 5
    assert api.records["links"] == before


def test_the_digest_of_the_canonical_manifest_is_proven(api: FakeApi, run: Run, archive: Path) -> None:
    assert run("ingest", f"docker-archive:{archive}").code == 0
    manifest = next(it["name"] for it in api.records["links"].values() if it["link_class"] == DIGEST)
    for words in (
        ("ingest", "--as", f"app@{manifest}", f"docker-archive:{archive}"),
        ("tag", "app:1", f"b@{manifest}"),
    ):
        assert run(*words).code == 0, words
    names = {it["name"] for it in api.records["links"].values() if it["link_class"] == REPO_TAG}
    assert names == {"app:1", f"app@{manifest}", f"b@{manifest}"}


# -- what is there already --------------------------------------------------------------


@pytest.mark.conforms("S3")
@pytest.mark.parametrize("stale", ["gone", "of another collection"])
def test_a_stale_hash_link_does_not_count(api: FakeApi, engine: FakeEngine, run: Run, stale: str) -> None:
    """The original writes no hash link then, and the image cannot be found by its ID."""
    other = api.image(b"other", f"sha256:{'e' * 64}") if stale != "gone" else {"uuid": "zzzzz-4zz18-gggggggggggggggg"}
    api.link(other, HASH, ID, tail_uuid="")
    outcome = run("arv-keepdocker", "app:1")
    assert outcome.code == 0
    assert links(api, outcome.out.strip()) == [(HASH, ID), (REPO_TAG, "app:1")]


@pytest.mark.conforms("S11")
def test_all_collections_of_an_image_are_looked_at(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    """The original reads 100 and makes one more when its own is the 101st."""
    first = run("arv-keepdocker", "app:1").out
    (own,) = collections(api)
    for number in range(150):
        copy = api.add(
            "collections",
            uuid=f"zzzzz-4zz18-c{number:014d}",
            manifest_text=own["manifest_text"],
            owner_uuid=OTHER,
            modified_by_user_uuid=OTHER,
        )
        api.link(copy, HASH, ID, modified_by_user_uuid=OTHER, owner_uuid=OTHER)
    assert run("arv-keepdocker", "app:1").out == first
    assert len(collections(api)) == 151


@pytest.mark.conforms("K8")
def test_an_image_that_only_keep_has(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    uuid = run("arv-keepdocker", "app:1").out
    engine.images.clear()
    assert run("arv-keepdocker", "app", "1").out == uuid
    assert run("arv-keepdocker", ID).out == uuid
    copied = run("arv-keepdocker", "--project-uuid", PROJECT, "app:1")
    assert copied.code == 0
    one, two = collections(api)
    assert (one["uuid"], two["owner_uuid"]) == (uuid.strip(), PROJECT)
    assert one["portable_data_hash"] == two["portable_data_hash"]
    assert links(api, two["uuid"]) == [(HASH, ID), (REPO_TAG, "app:1")]
    assert run("arv-keepdocker", "none:1").code == 1


@pytest.mark.conforms("K8", "S8")
def test_what_a_stranger_calls_by_the_name_is_verified_and_stays_his_or_is_refused(
    api: FakeApi, engine: FakeEngine, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster would run it; so it is the answer, with a warning. Into a project it is copied when that is asked."""
    run("arv-keepdocker", "app:1")
    for record in (*api.records["links"].values(), *api.records["collections"].values()):
        record["modified_by_user_uuid"] = record["owner_uuid"] = OTHER
    (theirs,) = collections(api)
    engine.images.clear()
    before = api.requests["links.create"]
    taken = run("arv-keepdocker", "app:1")
    assert (taken.code, taken.out.strip()) == (0, theirs["uuid"])
    assert f"last written by {OTHER}, who is not trusted" in taken.err
    assert (api.requests["links.create"], len(collections(api))) == (before, 1)
    for _ in range(2):
        copied = run("arv-keepdocker", "--project-uuid", PROJECT, "app:1")
        assert copied.code == 0, copied.err
        (ours,) = [it for it in collections(api) if it["owner_uuid"] == PROJECT]
        assert (copied.code, copied.out.strip()) == (0, ours["uuid"])
        assert ours["portable_data_hash"] == theirs["portable_data_hash"]
        assert links(api, ours["uuid"]) == [(HASH, ID), (REPO_TAG, "app:1")]
    for record in api.records["links"].values():
        record["modified_by_user_uuid"] = OTHER
    monkeypatch.setenv("ARV_DOCKER_NAMES", "trusted")
    refused = run("arv-keepdocker", "app:1")
    assert refused.code == 1
    assert f"app:1 is in Keep by the word of {OTHER} alone" in refused.err
    assert "ARV_DOCKER_TRUSTED_WRITERS" in refused.err
    assert run("arv-keepdocker", "--trust-readable", "app:1").code == 0


@pytest.mark.conforms("S13", "K5")
def test_links_belong_to_the_project_of_the_collection(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    run("arv-keepdocker", "--project-uuid", PROJECT, "app:1")
    (record,) = collections(api)
    assert links(api, record["uuid"]) == [(HASH, ID), (REPO_TAG, "app:1")]
    assert {it["owner_uuid"] for it in api.records["links"].values()} == {PROJECT}
    run("arv-keepdocker", "app:1")
    _, own = collections(api)
    assert {it["owner_uuid"] for it in api.records["links"].values() if it["head_uuid"] == own["uuid"]} == {ME}


@pytest.mark.conforms("S18", "K4")
def test_to_do_nothing_takes_few_requests(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    """The original makes 16 list requests, and reads the discovery document again."""
    run("arv-keepdocker", "app:1")
    before = api.total
    run("arv-keepdocker", "app:1")
    assert api.total - before <= 4  # the user, links by the image's names, its collection, links of its layers
    print(f"{api.total - before} requests: {dict(api.requests)}")  # noqa: T201 - shown with -s
    assert engine.calls == ["save"]


@pytest.mark.conforms("K22")
def test_an_engine_whose_id_the_archive_does_not_prove(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    """The original takes the engine's word, and names the file after an image that is not in it."""
    other = Digest.of(b"other")
    engine.images = {other: engine.images[APP.parsed.digest]}
    engine.tags = {other: ["app:1"]}
    outcome = run("arv-keepdocker", "app:1")
    assert outcome.code == 1
    assert f"the engine calls the image {other}, and what it saves is {APP.parsed.digest}" in outcome.err
    assert (collections(api), api.records["links"]) == ([], {})


# -- listing ----------------------------------------------------------------------------


@pytest.mark.conforms("S22", "K1", "K18")
def test_the_listing_shows_twelve_digits_and_takes_a_project(api: FakeApi, run: Run, archive: Path) -> None:
    run("arv-keepdocker", "--from-archive", str(archive), "app:1")
    run("arv-keepdocker", "--from-archive", str(archive), "--project-uuid", PROJECT, "lib/app:2")
    for words in ([], ["images"]):
        heading, *rows = run("arv-keepdocker", *words).out.splitlines()
        assert heading.split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "COLLECTION", "CREATED"]
        assert [row.split()[:3] for row in rows] == [["lib/app", "2", HEX[:12]], ["app", "1", HEX[:12]]]
    (row,) = run("arv-keepdocker", "--project-uuid", PROJECT, "images").out.splitlines()[1:]
    assert row.split()[0] == "lib/app"


def test_an_image_may_be_called_as_a_verb(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    stage = image(files_of(b"stage"), os="linux")
    engine.images[stage.parsed.digest] = engine.images[APP.parsed.digest]
    engine.tags[APP.parsed.digest] = ["images:latest", "stage:latest", "site:latest"]
    for words in (["images", "latest"], ["images:latest"], ["stage"], ["site"]):
        assert run("arv-keepdocker", *words).code == 0
    (record,) = collections(api)
    assert [name for _, name in links(api, record["uuid"])][1:] == ["images:latest", "site:latest", "stage:latest"]


@pytest.mark.usefixtures("api", "engine")
def test_progress_for_programs(run: Run) -> None:
    """As the original: a line at the beginning, and one when all is written."""
    outcome = run("arv-keepdocker", "--batch-progress", "app:1")
    assert outcome.code == 0
    lines = re.findall(r"^\S.* \d+: (\d+) written (-?\d+) total$", outcome.err, re.MULTILINE)
    assert lines[0][0] == "0"
    written, total = map(int, lines[-1])
    assert written == total == sum(APP.sizes.values())
    assert run("arv-keepdocker", "--silent", "app:1").err == ""


@pytest.mark.usefixtures("engine")
def test_without_progress_warnings_are_still_told(api: FakeApi, run: Run) -> None:
    """As the original's `--no-progress`, which is about progress alone."""
    api._rootDesc["dockerImageFormats"] = []
    outcome = run("arv-keepdocker", "--no-progress", "--force-image-format", "app:1")
    assert outcome.code == 0
    assert "warning: the cluster does not accept images of format v2" in outcome.err

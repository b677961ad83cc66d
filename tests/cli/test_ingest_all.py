# SPDX-License-Identifier: Apache-2.0
"""`arv-docker ingest --all` and `--all-platforms`, and `--platform` for one of several images by one name."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from arv_docker.arvados.catalog.link_classes import DIGEST, HASH, REPO_TAG
from arv_docker.model.image import OCI_INDEX, OCI_MANIFEST, Digest

from ..archives import (
    Image,
    blobs_of,
    classic,
    descriptor,
    files_of,
    flat,
    image,
    layout_files,
    oci_index,
    oci_manifest,
    several,
    tar,
)
from ..arvados.fake_api import ME, PROJECT, FakeApi, Request, http_error
from ..registry import scripted
from ..registry.conftest import registry
from ..registry.scripted import Registry
from ..transports.fake_engine import FakeEngine
from .conftest import APP, Run

__all__ = ["registry"]

ONE, TWO, THREE = (image(files_of(b"%d" % number), os="linux", architecture="amd64") for number in (1, 2, 3))
PLATFORMS = {
    "linux/amd64": image(files_of(b"x"), os="linux", architecture="amd64", created="2024-01-01T00:00:00Z"),
    "linux/arm64": image(files_of(b"a"), os="linux", architecture="arm64", created="2024-01-03T00:00:00Z"),
    "linux/arm/v6": image(files_of(b"6"), os="linux", architecture="arm", variant="v6", created="2024-01-02T00:00:00Z"),
}


def named(api: FakeApi) -> dict[str, set[str]]:
    """The IDs that are linked, and the names of each."""
    links = api.records["links"].values()
    heads = {it["head_uuid"]: it["name"] for it in links if it["link_class"] == HASH}
    found: dict[str, set[str]] = {name: set() for name in heads.values()}
    for it in links:
        if it["link_class"] == REPO_TAG:
            found[heads[it["head_uuid"]]].add(it["name"])
    return found


def ids(*images: Image) -> list[str]:
    return [str(made.parsed.digest) for made in images]


def pdhs(api: FakeApi) -> dict[str, str]:
    """The portable data hash of each image that is stored."""
    links = (it for it in api.records["links"].values() if it["link_class"] == HASH)
    return {it["name"]: api.records["collections"][it["head_uuid"]]["portable_data_hash"] for it in links}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Three images: one with two names, one with one, one with none."""
    path = tmp_path / "three.tar"
    path.write_bytes(several((ONE, ["one:1", "one:latest"]), (TWO, ["example.com/two:2"]), (THREE, [])))
    return path


# -- every image ------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["docker-archive:{}"], ["--from-archive", "{}"]])
def test_every_image_of_an_archive_by_its_own_names(api: FakeApi, run: Run, archive: Path, words: list[str]) -> None:
    asked = [word.format(archive) for word in words]
    outcome = run("ingest", "--all", *asked)
    assert outcome.code == 0, outcome.err
    one, two, three = ids(ONE, TWO, THREE)
    assert named(api) == {one: {"one:1", "one:latest"}, two: {"example.com/two:2"}, three: set()}
    assert len(outcome.out.split()) == 3
    assert "3 of 3 images are in Keep" in outcome.err
    before = {kind: dict(records) for kind, records in api.records.items()}
    again = run("ingest", "--all", *asked)
    assert (again.out, api.records) == (outcome.out, before)


def test_without_it_an_archive_of_several_is_refused_with_a_list(api: FakeApi, run: Run, archive: Path) -> None:
    outcome = run("ingest", f"docker-archive:{archive}")
    assert (outcome.code, api.records["links"]) == (5, {})
    for name in ("one:1", "one:latest", "example.com/two:2"):
        assert name in outcome.err


def test_one_failure_leaves_the_others_whole(api: FakeApi, run: Run, tmp_path: Path) -> None:
    whole = several((ONE, ["one:1"]), (TWO, ["two:2"]), (THREE, ["three:3"]))
    (tmp_path / "a.tar").write_bytes(whole.replace(TWO.layers[0], files_of(b"!")))
    outcome = run("ingest", "--all", "--json", f"docker-archive:{tmp_path}/a.tar")
    assert outcome.code == 5
    first, second, third = json.loads(outcome.out)
    assert [it["asked"] for it in (first, second, third)] == ["one:1", "two:2", "three:3"]
    assert (first["name"], second["exit_code"], third["name"]) == ("one:1", 5, "three:3")
    assert set(named(api)) == set(ids(ONE, THREE))
    assert "2 of 3 images are in Keep, 1 failed" in outcome.err
    assert "two:2: layer " in outcome.err


def test_an_image_that_cannot_be_opened_leaves_the_others_whole(api: FakeApi, run: Run, tmp_path: Path) -> None:
    artifact = Image(b'{"no":"image"}', ())
    (tmp_path / "a.tar").write_bytes(several((artifact, ["bad:1"]), (TWO, ["two:2"])))
    outcome = run("ingest", "--all", f"docker-archive:{tmp_path}/a.tar")
    assert (outcome.code, set(named(api)), len(outcome.out.split())) == (5, set(ids(TWO)), 1)
    assert "bad:1: not a container image" in outcome.err


def test_an_archive_that_cannot_be_read_is_one_failure(api: FakeApi, run: Run, archive: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(b"x" * 2000)
    outcome = run("ingest", "--all", f"docker-archive:{tmp_path}/bad.tar", f"docker-archive:{archive}")
    assert (outcome.code, len(outcome.out.split())) == (5, 3)
    assert "3 of 4 images are in Keep, 1 failed" in outcome.err


def test_an_interrupted_run_is_completed_by_the_next(api: FakeApi, run: Run, archive: Path) -> None:
    for number in range(0, 8, 3):
        api.faults["links.create"] = [None] * number + [http_error(403)] * 2
        run("ingest", "--all", f"docker-archive:{archive}")
        api.faults.clear()
        assert run("ingest", "--all", f"docker-archive:{archive}").code == 0
        assert {name for names in named(api).values() for name in names} == {"one:1", "one:latest", "example.com/two:2"}
        assert len(api.records["collections"]) == 3
        for records in api.records.values():
            records.clear()


def test_a_plan_of_all(api: FakeApi, run: Run, archive: Path) -> None:
    uuid = run("ingest", f"docker-archive:{archive}:example.com/two:2").out.strip()
    before = dict(api.records["links"])
    plans = json.loads(run("ingest", "--all", "--dry-run", "--json", f"docker-archive:{archive}").out)
    assert [it["uuid"] for it in plans] == [None, uuid, None]
    text = run("ingest", "--all", "--dry-run", f"docker-archive:{archive}")
    assert text.out.splitlines()[0].startswith("one:1, one:latest: about ")
    assert "3 of 3 images are planned" in text.err
    assert api.records["links"] == before


def test_a_plan_counts_once_what_the_images_share(api: FakeApi, run: Run, tmp_path: Path) -> None:
    large = files_of(b"large" * 4_000_000)
    both = [(image(large, files_of(b"%d" % number)), [f"app:{number}"]) for number in range(2)]
    (tmp_path / "both.tar").write_bytes(several(*both))
    words = ["ingest", "--all", "--json", f"docker-archive:{tmp_path / 'both.tar'}"]
    plans, done = (json.loads(run(*words, *more).out) for more in (["--dry-run"], []))
    assert [it["layers_held"] for it in plans] == [0, 1]
    for planned, stored in zip(plans, done, strict=True):
        assert abs(planned["bytes_to_send"] - stored["bytes_sent"]) < 16384  # what is around the layers


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    "words",
    [
        ["--all", "app:1"],
        ["--all", "docker://example.com/app:1"],
        ["--all", "--dry-run", "docker-archive:-"],
        ["--all-platforms", "docker-archive:-"],
        ["--all", "docker-archive:-:one:1"],
        ["--all", "docker-archive:{}", "--as", "x:1"],
        ["--all", "docker-archive:{}", "--platform", "linux/amd64"],
        ["--all", "--all-platforms", "docker-archive:{}"],
        ["--all-platforms", "app:1"],
        ["--all-platforms", "docker-archive:{}", "--name", "x"],
    ],
)
def test_what_does_not_go_together(api: FakeApi, run: Run, archive: Path, words: list[str]) -> None:
    assert run("ingest", *(word.format(archive) for word in words)).code == 2
    assert api.records["collections"] == {}


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Puts bytes on standard input."""
    return lambda content: monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))


def test_every_image_that_is_piped_in(api: FakeApi, run: Run, archive: Path, pipe: Callable[[bytes], None]) -> None:
    pipe(archive.read_bytes())
    outcome = run("ingest", "--all", "--json", "docker-archive:-")
    assert outcome.code == 0, outcome.err
    one, two, three = ids(ONE, TWO, THREE)
    assert named(api) == {one: {"one:1", "one:latest"}, two: {"example.com/two:2"}, three: set()}
    assert sum(it["bytes_sent"] for it in json.loads(outcome.out)) == sum(map(len, api.keep.blocks.values()))
    before = {kind: dict(records) for kind, records in api.records.items()}
    again = run("ingest", "--all", f"docker-archive:{archive}")
    assert again.out.split() == [it["uuid"] for it in json.loads(outcome.out)]
    pipe(gzip.compress(archive.read_bytes()))
    assert run("ingest", "--all", "docker-archive:-").out == again.out
    assert api.records == before


def test_of_what_is_piped_in_one_failure_leaves_the_others_whole(
    api: FakeApi, run: Run, pipe: Callable[[bytes], None]
) -> None:
    whole = several((ONE, ["one:1"]), (TWO, ["two:2"]), (THREE, ["three:3"]))
    pipe(whole.replace(TWO.layers[0], files_of(b"!")))
    outcome = run("ingest", "--all", "docker-archive:-")
    assert (outcome.code, set(named(api))) == (5, set(ids(ONE, THREE)))
    assert "2 of 3 images are in Keep, 1 failed" in outcome.err
    pipe(whole[:12_000])
    assert run("ingest", "--all", "docker-archive:-").code == 5
    assert set(named(api)) == set(ids(ONE, THREE))


def test_both_digests_of_each(api: FakeApi, run: Run, archive: Path) -> None:
    assert run("ingest", "--all", "--image-id", "both", f"docker-archive:{archive}").code == 0
    assert len(api.records["collections"]) == 6
    names = [it["name"] for it in api.records["links"].values() if it["link_class"] == REPO_TAG]
    assert sorted(names) == ["example.com/two:2", "one:1", "one:latest"]


# -- every platform ---------------------------------------------------------------------


def unpacked(folder: Path, files: Mapping[str, bytes]) -> str:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return str(folder)


@pytest.fixture
def layout(tmp_path: Path) -> str:
    """A layout with an image for several platforms, as BuildKit writes it, called app:1, and another image."""
    manifests, files = [], dict[str, bytes]()
    for platform, made in PLATFORMS.items():
        keys = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
        manifest = oci_manifest(made.config, made.layers)
        files |= blobs_of(made.config, *made.layers, manifest)
        manifests.append(descriptor(manifest, OCI_MANIFEST, platform=keys))
    inner = oci_index(*manifests)
    other = oci_manifest(ONE.config, ONE.layers)
    files |= blobs_of(inner, ONE.config, *ONE.layers, other)

    def called(name: str) -> dict[str, Any]:
        return {"annotations": {"org.opencontainers.image.ref.name": name}}

    files["index.json"] = oci_index(
        descriptor(inner, OCI_INDEX, **called("app:1")), descriptor(other, OCI_MANIFEST, **called("one:1"))
    )
    files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    return unpacked(tmp_path / "layout", files)


@pytest.fixture
def index(layout: str) -> str:
    """The digest of the index of several platforms."""
    (entry, _) = json.loads((Path(layout) / "index.json").read_text())["manifests"]
    return str(entry["digest"])


def test_every_platform_is_an_image_of_its_own_by_one_name(api: FakeApi, run: Run, layout: str, index: str) -> None:
    outcome = run("ingest", "--all-platforms", f"oci:{layout}:app:1")
    assert outcome.code == 0, outcome.err
    assert named(api) == {image_id: {"app:1"} for image_id in ids(*PLATFORMS.values())}
    assert "app:1: to the cluster it means app:1 (linux/arm64)" in outcome.err
    assert "3 of 3 images are in Keep" in outcome.err
    assert len([it for it in api.records["links"].values() if (it["link_class"], it["name"]) == (DIGEST, index)]) == 3
    links = dict(api.records["links"])
    assert run("ingest", "--all-platforms", f"oci:{layout}:app:1").out == outcome.out
    assert api.records["links"] == links


@pytest.mark.parametrize("asked", ["app:1", "{index}"])
def test_one_of_them_is_resolved_by_its_platform(api: FakeApi, run: Run, layout: str, index: str, asked: str) -> None:
    run("ingest", "--all-platforms", f"oci:{layout}:app:1")
    asked = asked.format(index=index)
    for platform, made in PLATFORMS.items():
        outcome = run("resolve", "--platform", platform, asked)
        (image_id,) = ids(made)
        assert (outcome.code, outcome.out) == (0, pdhs(api)[image_id] + "\n")
        assert ("the cluster itself takes" in outcome.err) is (pdhs(api)[image_id] != run("resolve", asked).out.strip())
        assert json.loads(run("inspect", "--json", "--platform", platform, asked).out)["image_id"] == image_id
    assert run("resolve", "--platform", "linux/arm64/v8", "app:1").out == run("resolve", "app:1").out
    assert run("resolve", "--platform", "linux/arm", "app:1").out == pdhs(api)[ids(PLATFORMS["linux/arm/v6"])[0]] + "\n"
    refused = run("resolve", "--platform", "linux/s390x", "app:1")
    assert (refused.code, refused.out) == (1, "")
    for platform in PLATFORMS:
        assert platform in refused.err


def test_of_one_platform_s_builds_the_first_in_the_cluster_s_order(api: FakeApi, run: Run, tmp_path: Path) -> None:
    """And little is read: the head of each archive, of those before it."""
    for year in (2022, 2023, 2024):
        for architecture in ("amd64", "s390x"):
            created = f"{year}-01-01T00:00:00Z"
            made = image(files_of(b"low" * 6_000_000), os="linux", architecture=architecture, created=created)
            (tmp_path / "a.tar").write_bytes(classic(made, ["app:1"]))
            run("ingest", "--from-archive", str(tmp_path / "a.tar"))
            newest = str(made.parsed.digest)
    get, read = api.keep.get, list[int]()

    def counted(locator: str, num_retries: int) -> bytes:
        read.append(int(locator.split("+")[1]))
        return get(locator, num_retries)

    api.keep.get = counted  # type: ignore[method-assign]
    assert run("resolve", "--platform", "linux/s390x", "app:1").out.strip() == pdhs(api)[newest]
    assert sum(read) < 64 << 10


@pytest.mark.parametrize("by", ["uuid", "portable_data_hash"])
def test_a_collection_that_was_asked_for_itself(api: FakeApi, run: Run, layout: str, by: str) -> None:
    run("ingest", f"oci:{layout}:one:1")
    (record,) = api.records["collections"].values()
    assert run("resolve", "--platform", "linux/amd64", record[by]).out.strip() == record["portable_data_hash"]
    assert run("resolve", "--platform", "linux/arm64", record[by]).code == 1


def test_a_damaged_candidate_is_left_out(api: FakeApi, run: Run, layout: str) -> None:
    run("ingest", "--all-platforms", f"oci:{layout}:app:1")
    (arm,) = ids(PLATFORMS["linux/arm64"])
    for record in api.records["collections"].values():
        if arm.removeprefix("sha256:") in record["manifest_text"]:
            del api.keep.blocks["+".join(record["manifest_text"].split()[1].split("+")[:2])]
    (x86,) = ids(PLATFORMS["linux/amd64"])
    outcome = run("resolve", "--platform", "linux/amd64", "app:1")
    assert outcome.out.strip() == pdhs(api)[x86]
    assert "is left out" in outcome.err
    assert run("resolve", "--platform", "linux/arm64", "app:1").code == 1


def test_the_index_s_digest_is_no_proof_of_the_platform(api: FakeApi, run: Run, layout: str, index: str) -> None:
    """A containerd store calls each platform's image by the index; its layers tell them apart."""
    run("ingest", "--all-platforms", f"oci:{layout}:app:1")
    for platform, made in PLATFORMS.items():
        engine = FakeEngine(made)
        engine.images = {Digest.parse(index): classic(made)}
        engine.tags = {Digest.parse(index): ["engine:1"]}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("arv_docker.cli.engine", lambda args, engine=engine: engine)
            document = json.loads(run("ingest", "--json", "--as", f"{platform.replace('/', '-')}:1", "engine:1").out)
        assert ([document["image_id"]], document["already"], engine.calls) == (ids(made), True, [])


def test_all_of_a_layout_and_one_name_for_all_platforms(api: FakeApi, run: Run, layout: str) -> None:
    refused = run("ingest", "--all-platforms", f"oci:{layout}")
    assert (refused.code, api.records["links"]) == (5, {})
    assert run("ingest", "--all-platforms", "--as", "other:1", f"oci:{layout}:app:1").code == 0
    assert {name for names in named(api).values() for name in names} == {"other:1"}
    assert run("ingest", "--all", f"oci:{layout}").code == 0
    assert named(api)[ids(ONE)[0]] == {"one:1"}
    assert all(names == {"app:1", "other:1"} for it, names in named(api).items() if it != ids(ONE)[0])


@pytest.fixture
def indexed(registry: Registry) -> str:
    """The name in a registry of an index of two platforms, with an attestation beside them."""
    listed = []
    for number, platform in enumerate(("linux/amd64", "linux/arm64", "unknown/unknown")):
        digest = registry.add(f"tools/app:part{number}", PLATFORMS.get(platform, ONE))
        listed.append((platform, digest, len(registry.manifests["tools/app", digest][1])))
    registry.put_manifest("tools/app", "1", scripted.index(*listed), OCI_INDEX)
    return f"docker://{registry.host}/tools/app:1"


def test_every_platform_of_an_index_in_a_registry(api: FakeApi, run: Run, registry: Registry, indexed: str) -> None:
    outcome = run("ingest", "--insecure", "--all-platforms", "--as", "app:1", indexed)
    assert outcome.code == 0, outcome.err
    two = ids(PLATFORMS["linux/amd64"], PLATFORMS["linux/arm64"])
    assert named(api) == {image_id: {"app:1"} for image_id in two}
    own = {scripted.sha256(registry.manifests["tools/app", f"part{number}"][1]) for number in (0, 1)}
    assert own <= {it["name"] for it in api.records["links"].values() if it["link_class"] == DIGEST}
    for image_id, platform in zip(two, ("linux/amd64", "linux/arm64"), strict=True):
        assert run("resolve", "--platform", platform, "app:1").out.strip() == pdhs(api)[image_id]
    fetched = len(registry.received("GET .*/blobs/"))
    assert run("ingest", "--insecure", "--all-platforms", "--as", "app:1", indexed).out == outcome.out
    assert len(registry.received("GET .*/blobs/")) == fetched + 2  # the configs


def test_a_platform_that_fails_leaves_the_others_whole(
    api: FakeApi, run: Run, registry: Registry, indexed: str
) -> None:
    (layer,) = PLATFORMS["linux/arm64"].layers
    for digest, content in registry.blobs.items():
        if content == gzip.compress(layer, mtime=0):
            registry.blobs[digest] = content[:-9] + b"x" * 9
    documents = json.loads(run("ingest", "--insecure", "--all-platforms", "--json", indexed).out)
    first, second = documents
    assert (first["image_id"], second["exit_code"] in (5, 9)) == (ids(PLATFORMS["linux/amd64"])[0], True)
    assert second["asked"] == f"{registry.host}/tools/app:1 (linux/arm64)"
    assert set(named(api)) == set(ids(PLATFORMS["linux/amd64"]))


def test_a_project_that_may_not_be_written_is_found_before_anything_is_sent(
    api: FakeApi, run: Run, layout: str, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "get", lambda uuid: Request(lambda: {"uuid": uuid, "can_write": False}))
    for words in (["--all-platforms", f"oci:{layout}:app:1"], ["--all", f"docker-archive:{archive}"]):
        outcome = run("ingest", "--project-uuid", PROJECT, *words)
        assert (outcome.code, outcome.out, api.keep.blocks) == (4, "", {})


def test_an_image_in_a_registry_is_inspected(api: FakeApi, run: Run, indexed: str) -> None:
    document = json.loads(run("inspect", "--insecure", "--platform", "linux/arm64", "--json", indexed).out)
    assert ([document["image_id"]], document["same_layers"]) == (ids(PLATFORMS["linux/arm64"]), [])


def test_a_name_for_one_platform_is_one_image(api: FakeApi, run: Run, registry: Registry) -> None:
    registry.add("tools/app:1", ONE)
    assert run("ingest", "--insecure", "--all-platforms", f"docker://{registry.host}/tools/app:1").code == 0
    assert named(api) == {ids(ONE)[0]: {f"{registry.host}/tools/app:1"}}


# -- the same layers --------------------------------------------------------------------


def converted(made: Image, **keys: Any) -> Image:
    """The same layers with a config written anew."""
    document = json.loads(made.config)
    return Image(json.dumps({**document, **keys}, indent=1).encode(), made.layers)


@pytest.mark.parametrize("name", ["app:1", "converted:1"])
def test_an_image_with_the_layers_of_another_one(api: FakeApi, run: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "a.tar").write_bytes(classic(APP, ["app:1", "app:latest"]))
    first = run("ingest", "--all", f"docker-archive:{tmp_path}/a.tar")
    assert "another image" not in first.err
    other = converted(APP, author="a tool")
    (tmp_path / "b.tar").write_bytes(flat(other, [name]))
    seen = json.loads(run("inspect", "--json", f"docker-archive:{tmp_path}/b.tar").out)["same_layers"]
    (uuid,) = api.records["collections"]
    assert seen == [{"uuid": uuid, "image_id": ids(APP)[0], "names": ["app:latest", "app:1"]}]
    outcome = run("ingest", f"docker-archive:{tmp_path}/b.tar")
    assert outcome.code == 0
    assert (
        f"{name} is another image than {ids(APP)[0]} (app:latest, app:1), {uuid}, with the same layers" in outcome.err
    )
    assert "another image" not in run("ingest", f"docker-archive:{tmp_path}/b.tar").err
    stored = json.loads(run("inspect", "--json", ids(other)[0]).out)["same_layers"]
    assert stored == seen
    assert f"  {uuid}  {ids(APP)[0]}  app:latest, app:1" in run("inspect", ids(other)[0]).out.splitlines()
    back = json.loads(run("inspect", "--json", ids(APP)[0]).out)["same_layers"]
    # The links of its layers lead to the image that came first, names to either.
    assert [it["image_id"] for it in back] == (ids(other) if name == "app:1" else [])


def test_images_with_some_of_its_layers_are_not_said_to_have_the_same(api: FakeApi, run: Run, tmp_path: Path) -> None:
    for number, made in enumerate(
        (APP, image(*APP.layers[::-1]), image(APP.layers[0]), image(*APP.layers, APP.layers[1]))
    ):
        (tmp_path / "a.tar").write_bytes(classic(made, [f"app:{number}"]))
        outcome = run("ingest", f"docker-archive:{tmp_path}/a.tar")
        assert outcome.code == 0
        assert "another image" not in outcome.err
    (tmp_path / "a.tar").write_bytes(classic(converted(image(*APP.layers[::-1]), author="x"), ["x:1"]))
    assert json.loads(run("inspect", "--json", f"docker-archive:{tmp_path}/a.tar").out)["same_layers"] == []


def test_nobody_s_word_is_taken_for_the_same_layers(api: FakeApi, run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(classic(APP))
    run("ingest", f"docker-archive:{tmp_path}/a.tar")
    for link in api.records["links"].values():
        link["modified_by_user_uuid"] = ME.replace("1", "9")
    (tmp_path / "b.tar").write_bytes(classic(converted(APP, author="x"), ["app:1"]))
    assert "another image" not in run("ingest", f"docker-archive:{tmp_path}/b.tar").err


def test_a_cluster_that_fails_is_no_reason_not_to_inspect(api: FakeApi, run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar(layout_files(APP)))
    api.faults["links.list"] = [http_error(500)]
    outcome = run("inspect", "--json", f"oci-archive:{tmp_path}/a.tar")
    assert outcome.code == 0
    assert "same_layers" not in json.loads(outcome.out)
    assert "was not found out" in outcome.err

# SPDX-License-Identifier: Apache-2.0
"""`arv-docker stage`, `deploy`, and `verify` of a folder: what is printed, and exit codes."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import pytest

from arv_docker import cli
from arv_docker.errors import NoCluster, NoEngine
from arv_docker.model.image import OCI_INDEX
from arv_docker.store.content_store import entries_in
from arv_docker.store.tarballs import cache_folder

from ..archives import canonical_archive, files_of, image
from ..arvados.fake_api import FakeApi, http_error
from ..registry.conftest import registry
from ..registry.scripted import Registry, index
from ..transports.fake_engine import FakeEngine
from .conftest import APP, Run

__all__ = ["registry"]

ID = str(APP.parsed.digest)
NAME = "docker.io/library/app:1"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def shut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a cluster nor an engine is to be asked."""

    def refuse(args: argparse.Namespace) -> None:
        pytest.fail("it was asked")

    monkeypatch.setattr(cli, "cluster", refuse)
    monkeypatch.setattr(cli, "engine", refuse)


def test_staging_says_where_each_image_is(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    done = run("stage", "app:1", "--dir", "d")
    assert (done.code, done.out) == (0, "d/app%3A1.tar\n")
    assert "app:1: from the engine" in done.err
    assert Path("d/app%3A1.tar").read_bytes() == canonical_archive(APP)
    again = run("stage", "docker://app:1", "app:1", "--dir", "d")
    assert (again.out, "already there" in again.err) == ("d/app%3A1.tar\n", True)


def test_for_programs(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    (found,) = json.loads(run("stage", "app:1", "--dir", "d", "--json").out)
    assert found == {
        "name": NAME,
        "image_id": ID,
        "repo_digest": None,
        "os": "linux",
        "architecture": "unknown",
        "variant": "",
        "archive": found["archive"],
        "paths": ["d/app%3A1.tar"],
        "metadata_paths": ["d/app%3A1.tar_meta.json"],
        "digests": found["digests"],
        "origin": "engine",
        "format": "archive",
    }
    assert found["archive"].startswith("sha256:")
    (deployed,) = json.loads(run("deploy", "d", "--json").out)
    assert deployed == found | {"origin": "staged", "engine_id": ID, "loaded": False}
    (checked,) = json.loads(run("verify", "d", "--json").out)
    assert checked == {"path": "d/app%3A1.tar", "name": NAME, "image_id": ID, "problem": "", "sealed": True}


@pytest.mark.conforms("W13", "W14", "W15")
def test_offline_asks_nobody(api: FakeApi, engine: FakeEngine, run: Run, request: pytest.FixtureRequest) -> None:
    run("stage", "app:1", "--dir", "d")
    request.getfixturevalue("shut")
    assert run("stage", "--offline", "app:1", "--dir", "d").code == 0
    forced = run("stage", "--offline", "--force", "app:1", "--dir", "e")
    assert (forced.code, forced.out) == (0, "e/app%3A1.tar\n")
    assert "nothing is overwritten" in forced.err
    missing = run("stage", "--offline", "app:1", "none:1", "--dir", "f")
    assert (missing.code, missing.out) == (1, "")
    assert "not in the cache: none:1. Offline" in missing.err
    assert not Path("f").exists()
    for line in (("verify", "d"), ("deploy", "d", "--engine", "none")):
        assert run(*line).code == 0


def test_each_origin_alone(api: FakeApi, engine: FakeEngine, registry: Registry, run: Run) -> None:
    assert run("stage", "--from", "keep", "app:1", "--dir", "d").code == 1
    assert run("ingest", "app:1").code == 0
    assert "from Keep" in run("stage", "--from", "keep", "--force", "app:1", "--dir", "d").err
    assert "from the engine" in run("stage", "--from", "engine", "--force", "app:1", "--dir", "d").err
    assert engine.calls.count("pull") == 1
    registry.add("x:1", APP)
    name = f"{registry.host}/x:1"
    assert "from the cache" in run("stage", "--from", "registry", "--insecure", name, "--dir", "d").err
    assert "from the registry" in run("stage", "--from", "registry", "--insecure", "--force", name, "--dir", "d").err


def test_without_a_cluster_or_an_engine(api: FakeApi, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(args: argparse.Namespace) -> None:
        raise (NoEngine if hasattr(args, "engine") and args.origin == "engine" else NoCluster)("there is none.")

    monkeypatch.setattr(cli, "cluster", nothing)
    monkeypatch.setattr(cli, "engine", nothing)
    assert run("stage", "--from", "keep", "app:1", "--dir", "d").code == 6
    assert run("stage", "--from", "engine", "app:1", "--dir", "d").code == 3
    both = run("stage", ID, "--dir", "d")
    assert both.code == 1
    assert both.err.count("there is none.") == 2


def test_a_cluster_that_does_not_answer(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    run("stage", "app:1", "--dir", "d")
    api.faults["links.list"] = [http_error(503)] * 20
    done = run("stage", "app:1", "--dir", "e")
    assert (done.code, done.out) == (4, "")
    assert "--offline for what the cache has" in done.err
    assert run("stage", "app:1", "--dir", "e", "--offline").code == 0
    assert run("stage", "app:1", "--dir", "f", "--from", "engine").code == 0


def test_one_of_several_platforms(api: FakeApi, engine: FakeEngine, registry: Registry, run: Run) -> None:
    listed = []
    for platform in ("linux/amd64", "linux/arm64"):
        made = image(files_of(platform.encode()), os="linux", architecture=platform.partition("/")[2])
        digest = registry.add(f"x:{made.parsed.digest.short_hex}", made)
        listed.append((platform, digest, len(registry.manifests["x", digest][1])))
    registry.put_manifest("x", "1", index(*listed), OCI_INDEX)
    name = f"{registry.host}/x:1"
    words = ("stage", "--from", "registry", "--insecure", "--json", name, "--platform")
    for platform in ("linux/amd64", "linux/arm64"):
        folder = platform.replace("/", "-")
        (found,) = json.loads(run(*words, platform, "--dir", folder).out)
        assert f"{found['os']}/{found['architecture']}" == platform
        assert platform in run("cache", "list").out
        assert run("stage", "--offline", "--platform", platform, name, "--dir", f"{folder}-2").code == 0
    refused = run(*words, "linux/amd64", "--dir", "linux-arm64")
    assert (refused.code, refused.out) == (1, "")
    assert "a folder has one image of a name" in refused.err
    missing = run(*words, "linux/s390x", "--dir", "none")
    assert (missing.code, "linux/arm64" in missing.err) == (1, True)
    there = {it["platform"] for it in json.loads(run("cache", "list", "--json").out)}
    assert there == {"linux/amd64", "linux/arm64"}
    assert "is for linux/arm64, and docker runs on linux/amd64" in run("deploy", "linux-arm64").err


def test_a_folder_whose_name_is_no_text(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    folder = os.fsdecode(b"d\xff")
    assert run("stage", "app:1", "--dir", folder).code == 0
    for line in (("stage", "app:1", "--dir", folder), ("deploy", folder), ("verify", folder)):
        assert run(*line).code == 0
        (found,) = json.loads(run(*line, "--json").out)
        assert os.fsencode((found.get("paths") or [found["path"]])[0]) == b"d\xff/app%3A1.tar"


@pytest.mark.parametrize(
    ("scheme", "name"),
    [
        ("cwl", "app:1.img"),
        ("nextflow", "app-1.img"),
        ("folder", f"app_1_{APP.parsed.digest.short_hex}.docker"),
        ("{tag}+{short_id}.tar", f"1+{APP.parsed.digest.short_hex}.tar"),
    ],
)
def test_names_of_files(api: FakeApi, engine: FakeEngine, run: Run, scheme: str, name: str) -> None:
    assert run("stage", "app:1", "--dir", "d", "--naming", scheme).out == f"d/{name}\n"
    assert run("verify", "d").out == f"ok   {APP.parsed.digest.short_hex}  d/{name}\n"


def test_a_cache_of_wfexs(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    done = run("stage", "app:1", "--dir", "d", "--layout", "wfexs", "--naming", "cwl")
    assert done.out == "d/containers/DockerContainerFactory/CWLWorkflowEngine/app:1.img\n"
    assert len(run("verify", "d").out.splitlines()) == 2
    assert run("deploy", "d").out == f"{ID} there {NAME}\n"


@pytest.mark.conforms("W21")
def test_images_that_are_given(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    run("stage", "app:1", "--dir", "given")
    for path in entries_in(cache_folder()).contents():
        entries_in(cache_folder()).discard(path)
    engine.images.clear()
    done = run("stage", "app:1", "--dir", "d", "--inject", "given")
    assert (done.code, done.out) == (0, "d/app%3A1.tar\n")
    assert "as it was given" in done.err
    assert run("stage", "app:1", "--dir", "e", "--inject", "nowhere").code == 1


@pytest.mark.conforms("W18")
def test_deploying_says_what_it_loaded(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    run("stage", "app:1", "--dir", "d")
    engine.images.clear()
    done = run("deploy", "d")
    assert (done.code, done.out) == (0, f"{ID} loaded {NAME}\n")
    assert "1 of 1 images had to be loaded" in done.err
    assert run("deploy", "d").out == f"{ID} there {NAME}\n"


@pytest.mark.conforms("W22")
def test_no_engine_loads_nothing_and_says_so(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    run("stage", "app:1", "--dir", "d")
    engine.calls.clear()
    done = run("deploy", "d", "--engine", "none")
    assert (done.code, done.out) == (0, f"{ID} staged {NAME}\n")
    assert "there is no engine, so nothing was loaded" in done.err
    assert json.loads(run("deploy", "d", "--engine", "none", "--json").out)[0]["engine_id"] is None
    assert engine.calls == []


@pytest.mark.conforms("W19")
def test_what_was_altered_is_refused(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    run("stage", "app:1", "--dir", "d")
    engine.images.clear()
    engine.calls.clear()
    path = Path("d/app%3A1.tar")
    path.chmod(0o644)
    path.write_bytes(canonical_archive(APP).replace(b"high", b"high"[::-1], 1))
    assert run("verify", "d").code == 5
    for options in ((), ("--engine", "none")):
        refused = run("deploy", "d", *options)
        assert (refused.code, refused.out) == (5, "")
        assert "not as it was staged" in refused.err
    assert run("verify", "d").out == f"BAD  {APP.parsed.digest.short_hex}  d/app%3A1.tar\n"
    assert engine.calls == []


def test_which_is_meant_a_folder_or_an_image(api: FakeApi, engine: FakeEngine, run: Run) -> None:
    run("ingest", "app:1")
    Path("app").mkdir()
    assert run("verify", "app:1").out.startswith("verified ")
    assert run("verify", "./app").code == 1
    assert "holds no staged image" in run("verify", "./app").err
    run("stage", "app:1", "--dir", "app")
    assert run("verify", "app").out.startswith("ok ")
    assert run("verify", "app:1").out.startswith("verified ")
    assert run("verify", "--quick", "app").code == 2


@pytest.mark.parametrize(
    "line",
    [
        ("stage", "app:1"),
        ("stage", "--dir", "d"),
        ("stage", "app:1", "--dir", "file"),
        ("stage", "app:1", "--dir", "d", "--naming", "sif"),
        ("stage", "app:1", "--dir", "d", "--layout", "wfexs", "--naming", "folder"),
        ("stage", "APP", "--dir", "d"),
        ("stage", "docker-archive:app.tar", "--dir", "d"),
        ("stage", "keep:app:1", "--dir", "d"),
        ("stage", "app:1", "--dir", "d", "--from", "nowhere"),
        ("stage", "app:1", "--dir", "d", "--platform", "arm64"),
        ("stage", "app:1", "--dir", ""),
        ("stage", "app:1", "--dir", "d", "--inject", ""),
        ("deploy", "", "--engine", "none"),
        ("folder", "list", "--dir", ""),
        ("deploy",),
    ],
)
def test_bad_command_lines(api: FakeApi, engine: FakeEngine, run: Run, line: tuple[str, ...]) -> None:
    Path("file").touch()
    assert run(*line).code == 2
    assert not Path("d").exists()


def test_nothing_to_deploy(run: Run) -> None:
    Path("d").mkdir()
    for folder in ("d", "e"):
        done = run("deploy", folder, "--engine", "none")
        assert (done.code, "holds no staged image" in done.err) == (1, True)


@pytest.mark.parametrize("scheme", ["plain", "cwl", "nextflow", "folder", "{registry}:{repository}:{tag}"])
def test_every_staged_file_can_be_named_as_an_archive(api: FakeApi, engine: FakeEngine, run: Run, scheme: str) -> None:
    """WfExS' names for CWL have colons, at the first of which a path ends otherwise."""
    names = ["app:1"] if scheme == "folder" else ["app:1", "docker://docker.io/library/app:1"]
    for name in names:
        outcome = run("stage", "--from", "engine", "--naming", scheme, "--dir", f"d{len(name)}", name)
        assert outcome.code == 0, outcome
        path = outcome.out.strip()
        for text in (path, f"{path}:", f"./{path}"):
            shown = run("inspect", "--json", f"docker-archive:{text}")
            assert (shown.code, json.loads(shown.out)["image_id"]) == (0, str(APP.parsed.digest)), text
        assert run("inspect", f"docker-archive:{path}:nothing:1").code == 1
        assert run("copy", f"docker-archive:{path}", f"oci-archive:copied:{len(name)}:").code == 0
        assert run("inspect", f"oci-archive:copied:{len(name)}").code == 0

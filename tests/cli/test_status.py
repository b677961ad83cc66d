# SPDX-License-Identifier: Apache-2.0
"""`arv-docker status`: what is printed, the exit codes, and waiting."""

from __future__ import annotations

import json
import time

import pytest

from ..arvados.fake_api import OTHER, FakeApi
from ..transports.fake_engine import FakeEngine
from .conftest import APP, Run

UNIQUE = f"app:1-{APP.parsed.digest.hex[:10]}"


def plant(api: FakeApi, name: str = "app:1") -> str:
    """Another user's image under that name, built later; gives its collection."""
    evil = api.image(b"evil", owner_uuid=OTHER, modified_by_user_uuid=OTHER)
    later = {"image_timestamp": "2030-01-01T00:00:00Z"}
    api.link(evil, "docker_image_repo+tag", name, properties=later, modified_by_user_uuid=OTHER)
    return str(evil["uuid"])


@pytest.mark.conforms("H19")
@pytest.mark.usefixtures("engine")
def test_each_state_has_its_word_and_exit_code(run: Run, api: FakeApi) -> None:
    absent = run("status", "app:1")
    assert (absent.code, absent.out, absent.err) == (1, "absent  app:1\n", "")
    stored = run("ingest", "app:1").out.strip()
    ready = run("status", "app:1")
    assert (ready.code, ready.out.split()[:3], ready.err) == (0, ["ready", "app:1", stored], "")
    evil = plant(api)
    shadowed = run("status", "app:1")
    assert (shadowed.code, shadowed.out.split()[:3]) == (8, ["shadowed", "app:1", evil])
    assert "not trusted" in shadowed.err


@pytest.mark.usefixtures("engine")
def test_json_has_the_same_keys_in_each_state(run: Run, api: FakeApi) -> None:
    absent = json.loads(run("status", "app:1", "--json").out)
    stored = run("ingest", "app:1").out.strip()
    ready = json.loads(run("status", "app:1", "--json").out)
    assert (absent["state"], ready["state"]) == ("absent", "ready")
    assert absent.keys() == ready.keys()
    assert (absent["uuid"], absent["stored"]) == (None, [])
    assert (ready["uuid"], ready["stored"]) == (stored, [stored])


@pytest.mark.conforms("H19")
@pytest.mark.usefixtures("engine")
def test_waiting(run: Run, api: FakeApi) -> None:
    run("ingest", "app:1")
    ready = run("status", "app:1", "--wait")
    assert (ready.code, ready.out.split()[0]) == (0, "ready")
    plant(api)
    began = time.monotonic()
    late = run("status", "app:1", "--wait", "--timeout", "0.2")
    assert time.monotonic() - began >= 0.2
    assert (late.code, late.out) == (10, "")
    assert "app:1 is shadowed by zzzzz-4zz18-" in late.err
    assert "after 0.2 s" in late.err


def test_waiting_can_be_interrupted(run: Run, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    api.before["links.list"] = interrupted
    done = run("status", "app:1", "--wait")
    assert (done.code, done.out, done.err) == (130, "", "arv-docker: interrupted\n")


def test_what_is_no_name_is_said_before_the_cluster_is_asked(run: Run, api: FakeApi) -> None:
    assert run("status", "UPPER:1").code == 2
    assert run("status", "app:1", "--wait", "--timeout", "-1").code == 2
    assert api.total == 0


# -- ingest --unique --------------------------------------------------------------------


@pytest.mark.conforms("H20")
def test_one_more_name_that_can_never_mean_another_image(run: Run, api: FakeApi, engine: FakeEngine) -> None:
    done = run("ingest", "--unique", "app:1")
    assert done.code == 0, done.err
    assert f"{UNIQUE}: means this image" in done.err
    names = {it["name"] for it in api.records["links"].values() if it["link_class"] == "docker_image_repo+tag"}
    assert names == {"app:1", UNIQUE}
    assert run("resolve", UNIQUE).out == run("resolve", "app:1").out
    written = len(api.records["links"])
    again = run("ingest", "--unique", "--json", "app:1")
    assert json.loads(again.out)["unique"] == UNIQUE
    assert (len(api.records["links"]), engine.calls) == (written, ["save"])


@pytest.mark.conforms("H20")
def test_an_image_by_its_id(run: Run, api: FakeApi, engine: FakeEngine) -> None:
    done = run("ingest", "--unique", "--json", str(APP.parsed.digest))
    assert json.loads(done.out)["unique"] == f"image:latest-{APP.parsed.digest.hex[:10]}"


@pytest.mark.conforms("H20")
@pytest.mark.usefixtures("engine")
def test_a_unique_name_that_means_something_else_is_an_error(run: Run, api: FakeApi) -> None:
    evil = plant(api, UNIQUE)
    done = run("ingest", "--unique", "app:1")
    assert (done.code, done.out) == (8, "")
    assert f"to the cluster it means {evil}" in done.err
    assert run("status", "app:1").code == 0

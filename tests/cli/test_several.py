# SPDX-License-Identifier: Apache-2.0
"""Verbs that take several images: an outcome for each, the highest exit code, one list of JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arv_docker.arvados.client import Cluster
from arv_docker.errors import ClusterError

from ..arvados.fake_api import FakeApi
from .conftest import APP, Run

VERBS = ["load", "verify", "inspect", "resolve", "status", "untag"]


@pytest.fixture
def stored(api: FakeApi, run: Run, archive: Path) -> FakeApi:
    assert run("ingest", "--from-archive", str(archive)).code == 0
    assert run("link", "app:1", "other:2").code == 0
    return api


@pytest.mark.usefixtures("stored", "engine")
@pytest.mark.parametrize("verb", VERBS)
def test_what_fails_for_one_leaves_the_others_whole(run: Run, verb: str) -> None:
    done = run(verb, "--json", "app:1", "absent:1", "other:2")
    assert done.code == 1
    documents = json.loads(done.out)
    assert [document["asked"] for document in documents] == ["app:1", "absent:1", "other:2"]
    assert ["error" in document for document in documents] == [False, verb != "status", False]
    assert ("absent:1: " in done.err) == (verb != "status")


@pytest.mark.usefixtures("stored", "engine")
@pytest.mark.parametrize("verb", VERBS)
def test_one_image_is_no_list(run: Run, verb: str) -> None:
    assert isinstance(json.loads(run(verb, "--json", "app:1").out), dict)


@pytest.mark.usefixtures("stored")
def test_lines_are_in_the_order_of_the_arguments(run: Run) -> None:
    done = run("resolve", "other:2", str(APP.parsed.digest))
    assert done.code == 0
    assert len(done.out.splitlines()) == 2
    states = run("status", "absent:1", "app:1").out.splitlines()
    assert [line.split()[0] for line in states] == ["absent", "ready"]


@pytest.mark.usefixtures("stored")
def test_a_failure_of_the_cluster_ends_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ClusterError("the cluster cannot be reached.")

    monkeypatch.setattr(Cluster, "links", fail)
    done = run("resolve", "app:1", "app:1", "app:1")
    assert (done.code, done.err.count("cannot be reached")) == (4, 1)
    assert "2 of 3 images were not tried: the cluster fails" in done.err

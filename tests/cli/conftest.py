# SPDX-License-Identifier: Apache-2.0
"""Commands run inside the test's process, on a cluster and an engine in memory."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from arv_docker import cli
from arv_docker.arvados.client import Cluster
from arv_docker.cli import arv_docker, arv_keepdocker

from .. import json_contract
from ..archives import Image, classic, files_of, image
from ..arvados.fake_api import FakeApi
from ..transports.fake_engine import FakeEngine

#: Two layers, one of them in two blocks of its own.
APP = image(files_of(b"low" * 7_000_000), files_of(b"high"), os="linux", created="2024-01-02T03:04:05Z")


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    """The cluster that every command uses, whatever its options say."""
    api = FakeApi()

    @contextmanager
    def cluster(args: argparse.Namespace) -> Iterator[Cluster]:
        yield Cluster(api, retries=0)

    monkeypatch.setattr(cli, "cluster", cluster)
    return api


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The engine that every command uses; it has APP as app:1."""
    engine = FakeEngine(APP)
    monkeypatch.setattr(cli, "engine", lambda args: engine)
    return engine


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs `arv-docker`, or `arv-keepdocker` if that is the first word."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def run(*arguments: str) -> Outcome:
        keepdocker = arguments[:1] == ("arv-keepdocker",)
        try:
            code = arv_keepdocker.main(arguments[1:]) if keepdocker else arv_docker.main(arguments)
        except SystemExit as exit:  # noqa: A001
            code = int(exit.code or 0)
        out, err = capsys.readouterr()
        json_contract.check(arguments, out)
        return Outcome(code, out, err)

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A file with APP as app:1."""
    return saved(tmp_path / "app.tar", APP)


def saved(path: Path, made: Image) -> Path:
    path.write_bytes(classic(made))
    return path

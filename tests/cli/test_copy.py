# SPDX-License-Identifier: Apache-2.0
"""`arv-docker copy --dry-run` to what is no cluster: how many layers of an image are there, and nothing is written."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from arv_docker.transports import docker_daemon

from ..archives import canonical_archive, image
from ..transports.fake_engine import FakeEngine
from ..transports.test_names import offered
from .conftest import APP, Run, saved

__all__ = ["offered"]

NEXT = image(APP.layers[0], b"higher".ljust(1024), APP.layers[0], os="linux")


def copy(run: Run, *words: str) -> dict[str, object]:
    done = run("copy", "--json", *words)
    assert done.code == 0, done.err
    return dict(json.loads(done.out))


def test_how_many_layers_a_layout_has(run: Run, tmp_path: Path, archive: Path) -> None:
    source, place = f"docker-archive:{saved(tmp_path / 'next.tar', NEXT)}", f"oci:{tmp_path}/layout"
    told = {"destination": place, "image_id": str(NEXT.parsed.digest), "layers": 2}
    assert copy(run, "--dry-run", source, place) == {**told, "layers_held": 0}
    assert not (tmp_path / "layout").exists()
    copy(run, f"docker-archive:{archive}", place)
    before = sorted((tmp_path / "layout").rglob("*"))
    assert copy(run, "--dry-run", source, place) == {**told, "layers_held": 1}
    done = run("copy", "--dry-run", source, place)
    assert (done.code, done.out) == (0, f"{source}: 1 of 2 layers are there\n")
    assert sorted((tmp_path / "layout").rglob("*")) == before


def test_an_image_of_an_engine_is_not_saved_for_that(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine(APP)
    monkeypatch.setattr(docker_daemon, "Docker", lambda **_: engine)
    document = copy(run, "--dry-run", "docker-daemon:app:1", f"docker-archive:{tmp_path}/app.tar")
    assert (document["image_id"], document["layers"], document["layers_held"]) == (str(APP.parsed.digest), 2, 0)
    assert (
        copy(run, "--dry-run", f"docker-archive:{saved(tmp_path / 'next.tar', NEXT)}", "docker-daemon:app:2")[
            "layers_held"
        ]
        == 0
    )  # the lowest layer stands at the top, too
    assert engine.calls == ["chains"]


def test_what_is_piped_in_is_not_known_before(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(canonical_archive(APP))))
    done = run("copy", "--dry-run", "docker-archive:-", f"oci:{tmp_path}/layout")
    assert (done.code, done.out) == (2, "")
    assert "save it to a file first" in done.err


def test_a_destination_of_another_package_that_cannot_be_asked(
    run: Run, archive: Path, offered: dict[str, Any]
) -> None:
    written: list[object] = []
    destination = SimpleNamespace(write=lambda image, advance: written.append(image.config))
    offered["moon"] = SimpleNamespace(destination=lambda rest, choice: destination)
    done = run("copy", "--dry-run", f"docker-archive:{archive}", "moon:crater")
    assert (done.code, done.out, written) == (2, "", [])
    assert "cannot be asked" in done.err
    copy(run, f"docker-archive:{archive}", "moon:crater")
    assert written == [APP.parsed]

# SPDX-License-Identifier: Apache-2.0
"""How places of images are written: our transports, those of other packages, and plain names."""

from __future__ import annotations

import importlib
import importlib.metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from arv_docker.errors import ArvDockerError, BadReference, UsageError
from arv_docker.transports import names

from ..archives import classic, files_of, image

APP = image(files_of(b"app"))


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Transports that another package offers: what is put in here, by name. An exception is raised by its loading."""
    found: dict[str, Any] = {}

    class Entry:
        def __init__(self, name: str) -> None:
            self.value = f"other_package:{name}"
            self._name = name

        def load(self) -> Any:
            if isinstance(found[self._name], Exception):
                raise found[self._name]
            return found[self._name]

    def entry_points(group: str, name: str) -> list[Entry]:
        return [Entry(name)] if group == "arv_docker.transports" and name in found else []

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    return found


@pytest.mark.parametrize(
    "name",
    [
        "busybox",
        "busybox:latest",
        "sha256:0123",
        "localhost:5000/a:1",
        "docker",
        "docker:dind",
        "a/keep:1",
        "",
        ":",
        ":x",
    ],
)
def test_plain_names(name: str) -> None:
    assert names.split(name) == (None, name)
    with pytest.raises(UsageError, match="transport in front"):
        names.source(name)


@pytest.mark.parametrize("name", names.OURS)
def test_each_transport_of_ours_reads_or_writes(name: str) -> None:
    module = importlib.import_module(f"arv_docker.transports.{names.OURS[name]}")
    assert callable(getattr(module, "source", None)) or callable(getattr(module, "destination", None))
    rest = "//x:1" if name == "docker" else "x:1"
    assert names.split(f"{name}:{rest}") == (name, rest)


def test_a_source_by_its_text(tmp_path: Path) -> None:
    (tmp_path / "app.tar").write_bytes(classic(APP))
    for text in (f"docker-archive:{tmp_path}/app.tar", f"docker-archive:{tmp_path}/app.tar:app:1"):
        with names.source(text).open() as found:
            assert found.config == APP.parsed


@pytest.mark.parametrize(("text", "error"), [("docker-archive:", UsageError), ("docker-archive:x:A:B", BadReference)])
def test_texts_that_name_no_place(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        names.source(text)


def test_a_transport_of_another_package(offered: dict[str, Any]) -> None:
    asked: list[Any] = []
    offered["moon"] = SimpleNamespace(source=lambda rest, choice: asked.append((rest, choice)))
    assert names.split("moon:crater:1") == ("moon", "crater:1")
    names.source("moon:crater:1")
    assert asked == [("crater:1", names.Choice())]
    with pytest.raises(UsageError, match="cannot be written there"):
        names.destination("moon:crater:1")


def test_a_transport_of_another_package_that_is_broken(offered: dict[str, Any]) -> None:
    offered["moon"] = ImportError("no rocket")
    with pytest.raises(ArvDockerError, match=r"other_package:moon.*no rocket"):
        names.source("moon:crater")


def test_none_takes_the_place_of_ours(offered: dict[str, Any]) -> None:
    offered["docker-archive"] = SimpleNamespace(source=lambda rest, choice: None)
    assert names.source("docker-archive:x") is not None


def test_what_can_only_be_written_is_not_read(offered: dict[str, Any]) -> None:
    asked: list[str] = []
    offered["moon"] = SimpleNamespace(destination=lambda rest, choice: asked.append(rest))
    names.destination("moon:crater")
    assert asked == ["crater"]
    with pytest.raises(UsageError, match="cannot be read from there"):
        names.source("moon:crater")


@pytest.mark.parametrize("name", ["localhost:5000/app", "127.0.0.1:5000/team/app:1", "[::1]:5000/app", "localhost/app"])
def test_registries_on_this_machine(name: str) -> None:
    assert names.is_here(f"docker://{name}")


@pytest.mark.parametrize(
    "text", ["docker://app", "docker://registry.example/app:1", "docker-daemon:localhost/app", "app"]
)
def test_what_is_no_registry_on_this_machine(text: str) -> None:
    assert not names.is_here(text)

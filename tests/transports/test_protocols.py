# SPDX-License-Identifier: Apache-2.0
"""Callers ask an image, a source or a destination for an ability, never which kind it is; so others' are served too."""

from __future__ import annotations

import ast
import importlib
import json
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import arv_docker
from arv_docker.archive.layer import Layer
from arv_docker.errors import BadArchive
from arv_docker.testing import MemoryImage, StreamedMemoryImage, check_image, file_layer
from arv_docker.transports import Destination, OpenedImage, Source, names

from ..arvados.fake_api import FakeApi
from ..cli.conftest import Run, api, run
from .test_names import offered

__all__ = ["api", "offered", "run"]

ROOT = Path(arv_docker.__file__).parent

#: What an image, a source or a destination may be able to do.
ABILITIES = {name for kind in (OpenedImage, Source, Destination) for name in vars(kind) if not name.startswith("_")} | {
    "layer",
    "sizes",
    "read_ahead",
    "known_size",
}


def concrete_kinds() -> set[str]:
    """The names of our classes of images, sources and destinations."""
    for path in (*ROOT.joinpath("transports").glob("*.py"), ROOT / "arvados" / "stored.py"):
        importlib.import_module(".".join(("arv_docker", *path.relative_to(ROOT).with_suffix("").parts)))
    found: set[str] = set()
    waiting: list[type] = [OpenedImage, Source, Destination]
    while waiting:
        kind = waiting.pop()
        found.add(kind.__name__)
        waiting += kind.__subclasses__()
    return found


def questions(path: Path) -> list[str]:
    """Where a module asks for one of these kinds, or whether something has one of these abilities."""
    kinds, asked = concrete_kinds(), []
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1):
            continue
        if node.func.id in ("isinstance", "issubclass"):
            named = {it.id for it in ast.walk(node.args[1]) if isinstance(it, ast.Name)}
            named |= {it.attr for it in ast.walk(node.args[1]) if isinstance(it, ast.Attribute)}
            if named & kinds:
                asked.append(f"{path.name}:{node.lineno} {ast.unparse(node)}")
        elif node.func.id in ("hasattr", "getattr"):
            name = node.args[1].value if isinstance(node.args[1], ast.Constant) else None
            if name in ABILITIES and ast.unparse(node.args[0]) not in ("args", "self._args"):
                asked.append(f"{path.name}:{node.lineno} {ast.unparse(node)}")
    return asked


def test_nobody_outside_the_transports_asks_which_kind_an_image_or_a_source_is() -> None:
    for path in ROOT.rglob("*.py"):
        if path.relative_to(ROOT).parts[0] not in ("transports", "site") and path.name != "opened_image.py":
            assert questions(path) == []


def test_the_search_finds_such_questions(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    for text in (
        "isinstance(image, StreamedImage)",
        "isinstance(image, archived_image.ArchivedImage | str)",
        "hasattr(source, 'every')",
        "getattr(image, 'tags', ())",
    ):
        module.write_text(text)
        assert questions(module), text
    assert {"RegistrySource", "KeepDestination", "StoredImage", "CanonicalImage"} <= concrete_kinds()


# -- a transport of another package that has no more than is asked of it ---------------------------

APP = MemoryImage(file_layer(b"low"), file_layer(b"high"), os="linux", architecture="amd64")


class Tape:
    """An image that is read once: its config is there at the end, and nothing derives from classes of ours."""

    def __init__(self) -> None:
        self._streamed = StreamedMemoryImage(APP)

    @property
    def config(self) -> Any:
        return self._streamed.config

    def layers(self, skip: Container[Any] = ()) -> Iterator[Layer]:
        yield from self._streamed.layers(skip)


class LateTape:
    """The same, with a config that is no attribute before the end."""

    config: Any

    def layers(self, skip: Container[Any] = ()) -> Iterator[Layer]:
        yield from StreamedMemoryImage(APP).layers(skip)
        self.config = APP.config


class Random:
    """An image whose layers can be had in any order."""

    def __init__(self) -> None:
        self.config, self.sizes, self.layer, self.layers = APP.config, APP.sizes, APP.layer, APP.layers


@pytest.fixture(params=[Tape, LateTape, Random])
def kind(request: pytest.FixtureRequest, offered: dict[str, Any]) -> type:
    """The kind of image that ``strm:`` opens."""

    @contextmanager
    def opened() -> Iterator[Any]:
        yield request.param()

    offered["strm"] = SimpleNamespace(source=lambda rest, choice: SimpleNamespace(open=opened))
    found: type = request.param
    return found


def test_it_is_opened(kind: type) -> None:
    with names.source("strm:x").open() as image:
        assert image.streams == (kind is not Random)
        if image.streams:
            with pytest.raises(BadArchive):
                _ = image.config
        check_image(image, APP)
        assert (image.tags, image.digests, dict(image.compressed_layers)) == ((), (), {})


def test_it_is_ingested(kind: type, api: FakeApi, run: Run) -> None:
    done = run("ingest", "--json", "--as", "app:1", "strm:x")
    assert (done.code, json.loads(done.out)["image_id"]) == (0, str(APP.config.digest)), done.err
    assert run("ingest", "--json", "strm:x").code == 0
    verified = run("verify", "app:1")
    assert (verified.code, verified.err) == (0, "")


def test_it_is_copied(kind: type, run: Run, tmp_path: Path) -> None:
    for place in (f"docker-archive:{tmp_path}/a.tar", f"oci:{tmp_path}/layout:app"):
        done = run("copy", "strm:x", place)
        assert (done.code, done.out) == (0, f"{APP.config.digest}\n"), done.err
        with names.source(place).open() as image:
            check_image(image, APP)


def test_it_is_inspected(kind: type, api: FakeApi, run: Run) -> None:
    done = run("inspect", "--json", "strm:x")
    assert (done.code, json.loads(done.out)["image_id"]) == (0, str(APP.config.digest)), done.err


def test_what_it_cannot_do_is_said(kind: type, api: FakeApi, run: Run) -> None:
    done = run("ingest", "--all", "strm:x")
    assert (done.code, "--all is for" in done.err) == (2, True), done.err
    planned = run("ingest", "--dry-run", "strm:x")
    assert planned.code == (0 if kind is Random else 2), planned.err

# SPDX-License-Identifier: Apache-2.0
"""By which name an image is linked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from arv_docker.engines import EngineImage
from arv_docker.ingest import link_names
from arv_docker.model.image import Digest, Platform
from arv_docker.model.reference import Reference, parse_name

HEX = "abc123def456" + "0" * 52
ID = Digest.sha256(HEX)
SHORT = HEX[:12]


@pytest.mark.parametrize(
    ("asked", "tags", "label"),
    [
        ("app:1", ("app:1",), "app:1"),
        (f"sha256:{HEX}", ("app:1",), None),
        (SHORT, ("app:1",), None),
        (SHORT, (f"{SHORT}:latest",), f"{SHORT}:latest"),  # a name, though it looks like an ID
    ],
)
def test_an_engine_s_image(asked: str, tags: tuple[str, ...], label: str | None) -> None:
    image = EngineImage(ID, tags, (), (), Platform("linux", "amd64"), 1)
    found = link_names.of_engine(parse_name(asked), image)
    assert (found and found.link_name) == label


@pytest.mark.parametrize(
    ("asked", "otherwise", "label"),
    [
        ("app:1", "there:1", "app:1"),
        (None, "there:1", "there:1"),
        (None, None, None),
        (f"sha256:{HEX}", "there:1", None),
        (SHORT, "there:1", None),
        ("fff123def456", "there:1", "fff123def456:latest"),  # no beginning of this ID, so a name
    ],
)
def test_a_source_s_image(asked: str | None, otherwise: str | None, label: str | None) -> None:
    image: Any = SimpleNamespace(config=SimpleNamespace(digest=ID), tags=(), digests=())
    name = parse_name(asked) if asked else None
    found = link_names.of_source(image, name, Reference.parse(otherwise) if otherwise else None)
    assert (found and found.link_name) == label

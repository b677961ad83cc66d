# SPDX-License-Identifier: Apache-2.0
"""Versions: which ones are unreleased builds, and what engines take as tags."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arv_docker.model.build_version import is_dirty, tag_of
from arv_docker.model.reference import Reference


@pytest.mark.conforms("G3")
@pytest.mark.parametrize(
    ("version", "dirty"),
    [
        ("latest", True),
        ("dev", True),
        ("1.2.3.dirty", True),
        ("1.2.3+dirty", True),
        (".dirty", True),
        ("1.2.3.0", True),
        ("10.20.30.0", True),
        ("1.2.3", False),
        ("1.2.3.4", False),
        ("1.2.3.10", False),
        ("1.2.3-dirty", False),
        ("develop", False),
        ("dirty", False),
        ("latest-1", False),
        ("v1.2.3.0", False),
        ("1.2.3.0\n", False),
        ("latest\n", False),
        ("", False),
    ],
)
def test_what_is_an_unreleased_build(version: str, dirty: bool) -> None:
    assert is_dirty(version) is dirty


@pytest.mark.conforms("G4")
@pytest.mark.parametrize(
    ("version", "tag"),
    [
        ("1.2.3+dirty", "1.2.3.dirty"),
        ("+5", "_.5"),
        ("-rc1", "_-rc1"),
        ("1 2/3", "1-2-3"),
        ("1.2.3", "1.2.3"),
        ("_x", "_x"),
        ("a" * 128, "a" * 128),
    ],
)
def test_the_tag_of_a_version(version: str, tag: str) -> None:
    assert tag_of(version) == tag


@pytest.mark.conforms("G4")
@given(st.text(min_size=1, max_size=300))
def test_every_version_has_a_tag_that_engines_take(version: str) -> None:
    assert Reference.parse(f"web:{tag_of(version)}").tag == tag_of(version)


@pytest.mark.conforms("G4")
def test_long_versions_have_tags_of_their_own() -> None:
    one, two = tag_of("a" * 200 + "1"), tag_of("a" * 200 + "2")
    assert one != two
    assert len(one) == len(two) == 128

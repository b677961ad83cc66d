# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests of registries; `tests/transports` and `tests/cli` import them."""

from collections.abc import Iterator

import pytest

from .scripted import Registry, TokenServer, Waited, running


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A registry in memory."""
    server = Registry()
    with running(server):
        yield server


@pytest.fixture
def tokens() -> Iterator[TokenServer]:
    """A server of tokens."""
    server = TokenServer()
    with running(server):
        yield server


@pytest.fixture
def waited() -> Waited:
    """What was waited for; no time passes."""
    return Waited()

# SPDX-License-Identifier: Apache-2.0
"""The truth table of what counts as attested (docs/spec/trust.md#attested-links)."""

from __future__ import annotations

import pytest

from arv_docker.arvados.client import CollectionRecord, Link
from arv_docker.arvados.trust import Trust

from .fake_api import ME, OTHER, SYSTEM

NAMED = "zzzzz-tpzed-000000000000007"
NOW, THEN = "a" * 32 + "+3", "b" * 32 + "+3"


def attests(trust: Trust, *, writer: str, pin: str | None, changed_by: str) -> bool:
    link = Link.of({"modified_by_user_uuid": writer, "tail_uuid": pin, "owner_uuid": ME})
    collection = CollectionRecord.of({"portable_data_hash": NOW, "modified_by_user_uuid": changed_by, "owner_uuid": ME})
    return trust.attests(link, collection)


@pytest.mark.conforms("S8")
@pytest.mark.parametrize("pin", [NOW, THEN, None, ""])
@pytest.mark.parametrize("changed_by", [ME, SYSTEM, NAMED, OTHER, ""])
@pytest.mark.parametrize("writer", [ME, SYSTEM, NAMED, OTHER, ""])
def test_truth_table(writer: str, pin: str | None, changed_by: str) -> None:
    """A trusted writer, and the PDH as it is now; or no pin, and a trusted last hand on the collection."""
    trusted = {ME, SYSTEM, NAMED}
    expected = writer in trusted and (pin == NOW or (not pin and changed_by in trusted))
    assert attests(Trust.of(ME, SYSTEM, [NAMED]), writer=writer, pin=pin, changed_by=changed_by) is expected


def test_nobody_is_trusted_by_being_named_nowhere() -> None:
    assert not attests(Trust.of(ME, SYSTEM), writer=NAMED, pin=NOW, changed_by=ME)


@pytest.mark.parametrize("pin", [NOW, THEN, ""])
def test_upstream_s_rule_believes_everybody(pin: str) -> None:
    trust = Trust.of(ME, SYSTEM, readable=True)
    assert attests(trust, writer=OTHER, pin=pin, changed_by=OTHER)
    assert trust.includes(OTHER)
    assert not Trust.of(ME, SYSTEM).includes(OTHER)

# SPDX-License-Identifier: Apache-2.0
"""A listing takes a request for each thousand records, and a name a few, however many links there are."""

from __future__ import annotations

from pathlib import Path

import arvados
import pytest

from arv_docker.arvados.catalog.listing import list_images
from arv_docker.arvados.client import Cluster
from arv_docker.arvados.trust import Trust
from arv_docker.compat import keepdocker
from arv_docker.local.settings import Settings
from arv_docker.site import LocalSite
from bench.many_links import Traffic, both, counted, fill


def bounds(records: int) -> int:
    """The most requests for so many records of a kind."""
    return -(-records // 1000) + 2


def assert_within_bounds(traffic: Traffic, links: int) -> None:
    assert traffic.collections <= bounds(links // 2)
    assert traffic.requests - traffic.collections <= bounds(links)


@pytest.mark.conforms("S18")
def test_five_thousand_links(tmp_path: Path) -> None:
    fill(tmp_path / "site", 5000)
    ours, theirs = both(tmp_path / "site")
    print(f"this package {ours}\nthe original {theirs}")  # noqa: T201 - shown with -s
    assert_within_bounds(ours, 5000)
    assert ours.requests < theirs.requests
    assert ours.sent < 0.3 * theirs.sent
    with LocalSite(tmp_path / "site") as site, counted() as counts:
        api = arvados.api("v1", discoveryServiceUrl=site.discovery_url, token=site.token)
        Cluster(api).user_uuid  # noqa: B018 - the discovery document is read
        image_id = f"sha256:{7:016x}{'0' * 48}"
        names: list[tuple[str, ...]] = [("app", "7"), ("none", "1"), (image_id,), (image_id[:23],), (image_id[7:23],)]
        for words in names:
            counts.append(Traffic())
            assert len(keepdocker.list_images_in_arv(api, 3, *words)) == (words[0] != "none")
            assert counts[-1].requests <= 5, words  # with one for who asks
        counts.append(Traffic())
        assert len(list_images(Cluster(api), Trust.from_settings(Cluster(api), Settings()), "app").rows) == 2500
        assert_within_bounds(counts[-1], 5000)


@pytest.mark.long
@pytest.mark.conforms("S18")
def test_a_hundred_thousand_links(tmp_path: Path) -> None:
    fill(tmp_path / "site", 100_000)
    ours, theirs = both(tmp_path / "site")
    print(f"this package {ours}\nthe original {theirs}")  # noqa: T201 - shown with -s
    assert_within_bounds(ours, 100_000)
    assert ours.sent < 0.04 * theirs.sent
    assert ours.seconds <= 0.5 * theirs.seconds

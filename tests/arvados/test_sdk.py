# SPDX-License-Identifier: Apache-2.0
"""Which cluster the settings mean, and what is said where they mean none."""

from __future__ import annotations

import pytest

from arv_docker.arvados.client import Cluster
from arv_docker.errors import BadSettings, ClusterError, NoCluster


@pytest.fixture
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    import arvados.config

    monkeypatch.setattr(arvados.config, "_settings", None)


@pytest.mark.usefixtures("_no_settings")
def test_no_cluster_is_configured() -> None:
    with pytest.raises(NoCluster, match=r"ARVADOS_API_HOST and ARVADOS_API_TOKEN not set.*--local") as caught:
        Cluster.from_settings()
    assert caught.value.exit_code == 6


@pytest.mark.usefixtures("_no_settings")
def test_half_a_cluster_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARVADOS_API_HOST", "arvados.example.com")
    with pytest.raises(NoCluster, match="ARVADOS_API_TOKEN not set") as caught:
        Cluster.from_settings()
    assert not isinstance(caught.value, BadSettings)


@pytest.mark.usefixtures("_no_settings")
def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARVADOS_API_HOST", "127.0.0.1:9")
    monkeypatch.setenv("ARVADOS_API_TOKEN", "secret-token")
    with pytest.raises(ClusterError, match=r"127\.0\.0\.1:9") as caught:
        Cluster.from_settings(retries=0)
    assert "secret-token" not in str(caught.value)


@pytest.mark.parametrize("token", ["v2/x/SECRET\nX: y", "SECRET ", "SECRET\u2026", ""])
def test_what_is_no_token_is_refused_without_being_quoted(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadSettings) as caught:
        Cluster.at_url("http://127.0.0.1:1", token)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1:notaport", "[::1", "127.0.0.1:99999", "https://127.0.0.1:9"])
def test_what_is_no_host(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARVADOS_API_HOST", host)
    monkeypatch.setenv("ARVADOS_API_TOKEN", "token")
    monkeypatch.setattr("arvados.config._settings", None)
    with pytest.raises(BadSettings, match=r"no host.*ARVADOS_API_HOST"):
        Cluster.from_settings(retries=0)


@pytest.mark.parametrize("host", ["ann:Hunter2@cluster.example", "https://ann:Hunter2@cluster.example", "Hunter2@"])
def test_a_password_in_the_host_of_a_cluster_is_not_shown(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setattr("arvados.config._settings", None)
    monkeypatch.setenv("ARVADOS_API_HOST", host)
    monkeypatch.setenv("ARVADOS_API_TOKEN", "v2/zzzzz-gj3su-000000000000000/abc")
    with pytest.raises(BadSettings, match="ARVADOS_API_HOST has a name or a password") as caught:
        Cluster.from_settings()
    assert "Hunter2" not in str(caught.value)

# SPDX-License-Identifier: Apache-2.0
"""The seam to the SDK: pages, records, and its errors as ours."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from typing import Any

import arvados.errors
import googleapiclient.errors
import httplib2
import pytest

from arv_docker.arvados.client import PAGE, Cluster, CollectionRecord, Link, batches
from arv_docker.errors import ClusterError, KeepError

from .fake_api import ME, FakeApi, cluster, http_error


def many(count: int) -> FakeApi:
    api = FakeApi()
    for number in range(count):
        api.add("links", name=f"n{number}", link_class="x")
    return api


@pytest.mark.parametrize(("count", "requests"), [(0, 1), (1, 1), (999, 1), (1000, 2), (1001, 2), (2500, 3)])
def test_pages(count: int, requests: int) -> None:
    api = many(count)
    found = list(cluster(api).links([["link_class", "=", "x"]]))
    assert len({link.uuid for link in found}) == len(found) == count
    assert api.requests["links.list"] == requests


def test_a_server_with_smaller_pages() -> None:
    api = many(25)
    api.largest_page = 10
    assert len(list(cluster(api).links([]))) == 25
    assert api.requests["links.list"] == 3


def test_batches() -> None:
    assert list(batches([])) == []
    assert list(batches(["a", "b", "a"])) == [["a", "b"]]
    assert list(map(len, batches([str(number) for number in range(2 * PAGE + 1)]))) == [PAGE, PAGE, 1]


def test_null_and_absent_values_are_empty() -> None:
    link = Link.of({"uuid": "u", "name": None, "properties": None})
    assert (link.uuid, link.name, link.head_uuid, link.properties) == ("u", "", "", {})
    collection = CollectionRecord.of({"uuid": "u", "properties": []})
    assert (collection.uuid, collection.pdh, collection.properties, collection.manifest_text) == ("u", "", {}, None)


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (http_error(401), 401, "ARVADOS_API_TOKEN"),
        (http_error(403), 403, "allow"),
        (http_error(404), 404, "no such thing"),
        (http_error(422), 422, "refuses"),
        (http_error(500), 500, "status 500"),
        (ConnectionRefusedError(111, "Connection refused"), None, "cannot be reached"),
        (TimeoutError("timed out"), None, "cannot be reached"),
        (ssl.SSLCertVerificationError("unable to get local issuer certificate"), None, "SSL_CERT_FILE"),
        (socket.gaierror(-2, "Name or service not known"), None, "cannot be reached"),
        (httplib2.ServerNotFoundError("Unable to find the server"), None, "cannot be reached"),
        (googleapiclient.errors.UnknownApiNameOrVersion("x"), None, "no Arvados API server"),
        (googleapiclient.errors.InvalidJsonError(), None, "no Arvados API server"),
        (json.JSONDecodeError("Expecting value", "<html>", 0), None, "no Arvados API server"),
        (http.client.BadStatusLine("SSH-2.0"), None, "no Arvados API server"),
        (http.client.IncompleteRead(b"{"), None, "cut short"),
    ],
)
def test_errors_of_the_sdk(error: Exception, status: int | None, words: str) -> None:
    api = FakeApi()
    api.faults["links.list"] = [error]
    with pytest.raises(ClusterError, match=words) as caught:
        list(cluster(api).links([]))
    assert caught.value.status == status
    assert caught.value.detail == str(error).strip()


@pytest.mark.parametrize("answer", [[], "<html>", None, 1])
def test_an_answer_that_is_no_object(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi()
    monkeypatch.setattr(api, "answer", lambda request, execute: answer)
    with pytest.raises(ClusterError, match="no JSON object"):
        cluster(api).collection("zzzzz-4zz18-000000000000001")


def test_what_the_cluster_says_of_itself() -> None:
    api = FakeApi()
    assert cluster(api).user_uuid == ME
    assert cluster(api).system_user_uuid == "zzzzz-tpzed-000000000000000"
    assert cluster(api).image_formats == ["v2"]
    assert cluster(api).replication == 2
    api._rootDesc = {"dockerImageFormats": None, "defaultCollectionReplication": 3}
    assert cluster(api).image_formats == []
    assert cluster(api).replication == 3


def test_who_we_are_is_asked_once() -> None:
    api = FakeApi()
    ours = cluster(api)
    assert (ours.user_uuid, ours.user_uuid, api.requests["users.current"]) == (ME, ME, 1)


class Keep:
    def __init__(self, outcome: Any) -> None:
        self._outcome = outcome

    def _answer(self, *_: Any, **__: Any) -> Any:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    put = get = head = _answer


def keep(outcome: Any) -> Cluster:
    api: Any = FakeApi()
    api.keep = Keep(outcome)
    return cluster(api)


def test_blocks() -> None:
    assert keep(b"x").get_block("locator") == b"x"
    assert keep(True).has_block("locator") is True
    assert keep(arvados.errors.NotFoundError("x")).has_block("locator") is False


@pytest.mark.parametrize(
    "error",
    [
        arvados.errors.KeepReadError("lost"),
        arvados.errors.NotFoundError("lost"),
        arvados.errors.NoKeepServersError("none"),
    ],
)
def test_blocks_that_cannot_be_read(error: Exception) -> None:
    with pytest.raises(KeepError, match=r"block a{32}") as caught:
        keep(error).get_block("a" * 32 + "+3+A" + "0" * 40 + "@12345678")
    assert "+A" not in caught.value.message  # a signature is a secret
    assert caught.value.detail


def test_presence_without_a_clear_answer() -> None:
    with pytest.raises(KeepError, match="did not answer"):
        keep(arvados.errors.KeepReadError("timeout")).has_block("a" * 32 + "+3")


def test_no_signature_in_an_error() -> None:
    api = FakeApi()
    locator = f"{'0' * 32}+1+A{'5' * 40}@ffffffff"

    def get(locator: str, num_retries: int) -> bytes:
        raise arvados.errors.KeepReadError(f"failed to read {locator}")

    api.keep.get = get  # type: ignore[method-assign]
    with pytest.raises(KeepError) as caught:
        Cluster(api).get_block(locator)
    assert "5" * 40 not in str(caught.value)

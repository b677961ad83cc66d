# SPDX-License-Identifier: Apache-2.0
"""Lists of registries: as long as they are, to their end, and with a word where they may be short."""

from __future__ import annotations

import json

import pytest

from arv_docker.errors import NoSuchImage, RegistryDenied, RegistryError
from arv_docker.publishing.registry import Registry as Publisher
from arv_docker.registry import pages
from arv_docker.registry.client import Client

from .scripted import Conversation, Registry, Waited


@pytest.fixture
def client(registry: Registry, waited: Waited) -> Client:
    return Client(registry.host, insecure=True, patience=waited.patience)


def test_a_hundred_thousand_tags_in_one_answer(registry: Registry, client: Client) -> None:
    """As distribution 2.8 gives them."""
    tags = [f"build-{number:06}-feature-branch-0123456789abcdef0123" for number in range(100_000)]
    body = json.dumps({"name": "app", "tags": tags}).encode()
    assert len(body) > 5_000_000
    registry.fault = lambda conversation: conversation.answer(200, body)
    assert list(client.tags("app")) == tags


def test_a_list_that_is_larger_than_any(registry: Registry, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_MAX_BYTES", 1000)
    registry.fault = lambda conversation: conversation.answer(200, json.dumps({"tags": ["x" * 1000]}).encode())
    with pytest.raises(RegistryError, match="larger than 1000 bytes"):
        list(client.tags("app"))


@pytest.mark.parametrize(("name", "most", "words"), [("_MAX_TOTAL", 100, "bytes"), ("_MAX_PAGES", 5, "pages")])
def test_pages_without_end(
    registry: Registry, client: Client, monkeypatch: pytest.MonkeyPatch, name: str, most: int, words: str
) -> None:
    monkeypatch.setattr(pages, name, most)
    registry.fault = lambda it: it.answer(200, b'{"tags": ["a", "b"]}', Link=f"<?last={len(registry.seen)}>;rel=next")
    with pytest.raises(RegistryError, match=f"more than {most} {words}; it may never end"):
        list(client.tags("app"))


def test_pages_that_take_for_ever(registry: Registry, client: Client, waited: Waited) -> None:
    def fault(conversation: Conversation) -> bool:
        waited.seconds.append(100)
        return conversation.answer(200, b'{"tags": ["a"]}', Link=f"<?last={len(registry.seen)}>; rel=next")

    registry.fault = fault
    with pytest.raises(RegistryError, match="has not ended after 300 s"):
        list(client.tags("app"))
    assert len(registry.seen) <= 4


def test_pages_that_lead_in_a_circle_end_with_a_word(
    registry: Registry, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    registry.fault = lambda it: it.answer(200, b'{"tags": ["a"]}', Link='</v2/app/tags/list?again>; rel="next"')
    assert list(client.tags("app")) == ["a", "a"]
    assert "the list may be short" in caplog.text


def test_a_full_page_without_a_next_one_is_said_to_be_perhaps_not_all(
    registry: Registry, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    body = json.dumps({"tags": [str(number) for number in range(1000)]}).encode()
    registry.fault = lambda conversation: conversation.answer(200, body)
    assert len(list(client.tags("app"))) == 1000
    assert "the list may be short" in caplog.text


@pytest.mark.parametrize("status", [401, 403])
def test_one_repository_that_is_refused_leaves_the_others(registry: Registry, status: int) -> None:
    for name in ("a/first", "m/other", "z/last"):
        registry.put_manifest(name, "1", b"{}")
    registry.fault = lambda it: "/m/other/tags" in it.path and it.refuse(status, "DENIED")
    names = Publisher(registry.host, insecure=True).images()
    assert [next(names), next(names)] == ["a/first:1", "z/last:1"]
    with pytest.raises(RegistryDenied, match=f"m/other .status {status}"):
        next(names)


def test_tags_of_one_repository(registry: Registry) -> None:
    for tag in ("1", "2"):
        registry.put_manifest("team/app", tag, b"{}")
    ours = Publisher(f"{registry.host}/team", insecure=True)
    assert list(ours.tags("app")) == ["1", "2"]
    with pytest.raises(NoSuchImage, match="no image in other"):
        list(ours.tags("other"))

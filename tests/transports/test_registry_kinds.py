# SPDX-License-Identifier: Apache-2.0
"""What registries of different makers do in ways of their own, and what they are nonetheless read and written by."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from arv_docker.errors import NotAnImage, RegistryDenied, RegistryError, SchemaOne
from arv_docker.model.image import OCI_INDEX
from arv_docker.registry.client import Client
from arv_docker.registry.patience import Patience

from .. import archives
from ..registry.scripted import Conversation, Registry, TokenServer, Waited, index, sha256
from .test_registry import BIG, IMAGE, MIB, faulty, only_blob, read, source
from .test_registry_destination import BIG as SENT
from .test_registry_destination import NEXT, held, noise, push, sent

# -- reading -----------------------------------------------------------------------------------


def test_schema_one_as_it_is_signed(registry: Registry) -> None:
    """Its digest is that of a part of it."""
    raw = b'{"schemaVersion": 1, "fsLayers": [], "history": [], "signatures": []}'
    signed = "application/vnd.docker.distribution.manifest.v1+prettyjws; charset=utf-8"
    registry.fault = lambda it: it.answer(200, raw, Content_Type=signed, Docker_Content_Digest=sha256(b"a part"))
    with pytest.raises(SchemaOne):
        read(source(registry))


@pytest.mark.parametrize(
    "kind",
    ["docker.image.rootfs.foreign.diff.tar.gzip", "oci.image.layer.nondistributable.v1.tar+gzip"],
)
def test_a_layer_that_its_maker_alone_gives_out(registry: Registry, kind: str) -> None:
    registry.add("tools/app:1", IMAGE, media_type=f"application/vnd.{kind}")
    assert read(source(registry)) == IMAGE.by_id  # some have it all the same
    registry.repositories["tools/app"] -= {sha256(only_blob(registry))}
    with pytest.raises(NotAnImage, match="may give it out, as with Windows"):
        read(source(registry))


@pytest.mark.parametrize("status", [400, 416, 501])
def test_a_registry_that_refuses_ranges(registry: Registry, waited: Waited, status: int) -> None:
    """As a proxy does that keeps a copy: the blob comes anew, from its front."""
    breaks = iter([MIB, 3 * MIB])

    def fault(conversation: Conversation, blob: bytes) -> bool:
        if conversation.offset():
            return conversation.refuse(status, "RANGE_INVALID")
        return conversation.partly(blob, upto=next(breaks, None))

    faulty(registry, "tools/app:1", fault)
    assert read(source(registry, patience=waited.patience)) == BIG.by_id
    assert len([it for it in registry.received("GET .*/blobs/") if "Range" in it.headers]) == 1


def test_a_registry_that_refuses_the_whole(registry: Registry, waited: Waited) -> None:
    faulty(registry, "tools/app:1", lambda conversation, blob: conversation.refuse(416, "RANGE_INVALID"))
    with pytest.raises(RegistryError, match="answers 416"):
        read(source(registry, patience=waited.patience))


def test_a_registry_that_wants_more_than_is_usual(registry: Registry, tokens: TokenServer) -> None:
    """Azure's lets nobody list tags who may only pull."""
    registry.add("tools/app:1", IMAGE)
    registry.bearer = tokens
    wanted = "repository:tools/app:metadata_read"

    def fault(conversation: Conversation) -> bool:
        issued = tokens.issued.get(conversation.headers.get("Authorization", "").removeprefix("Bearer "))
        if "/tags/" not in conversation.path or (issued and wanted in issued.scopes):
            return False
        challenge = f'Bearer realm="{tokens.url}/token",service="scripted",scope="{wanted}",error="insufficient_scope"'
        return conversation.refuse(401, "UNAUTHORIZED", WWW_Authenticate=challenge)

    registry.fault = fault
    client = Client(registry.host, insecure=True)
    assert client.manifest("tools/app", "1").raw
    assert list(client.tags("tools/app")) == ["1"]
    assert [it.scopes for it in tokens.issued.values()] == [
        ["repository:tools/app:pull"],
        ["repository:tools/app:pull", wanted],
    ]


def test_what_a_registry_wants_is_asked_for_once(registry: Registry, tokens: TokenServer) -> None:
    registry.add("tools/app:1", IMAGE)
    registry.bearer = tokens
    challenge = f'Bearer realm="{tokens.url}/token",service="scripted",scope="repository:tools/app:pull"'
    registry.fault = lambda it: "Authorization" not in it.headers and it.refuse(401, "NO", WWW_Authenticate=challenge)
    assert read(source(registry)) == IMAGE.by_id
    assert [it.scopes for it in tokens.issued.values()] == [["repository:tools/app:pull"]]


@pytest.mark.parametrize(
    "raw",
    [
        '{"access_token": "%s"}',
        '{"token": "%s", "expires_in": 1' + "0" * 400 + "}",
        '{"token": "%s", "expires_in": "1"}',
    ],
)
def test_answers_of_token_servers(registry: Registry, tokens: TokenServer, raw: str) -> None:
    registry.add("tools/app:1", IMAGE)
    registry.bearer = tokens
    tokens.made = lambda scopes: "the-token"  # type: ignore[method-assign]
    tokens.raw = (raw % "the-token").encode()
    assert read(source(registry)) == IMAGE.by_id


def test_a_token_of_the_configuration_that_no_request_can_hold(registry: Registry, home: Path) -> None:
    registry.add("tools/app:1", IMAGE)
    registry.users = {}
    (home / ".docker").mkdir()
    auths = {registry.host: {"registrytoken": "the-secret\n"}}
    (home / ".docker" / "config.json").write_text(json.dumps({"auths": auths}))
    with pytest.raises(RegistryDenied, match="several lines") as caught:
        read(source(registry))
    assert "the-secret" not in str(caught.value)


# -- writing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 405, 416, 501])
def test_a_registry_that_takes_no_rest(registry: Registry, waited: Waited, status: int) -> None:
    """It knows what it got before the connection broke, and wants no more of it: the blob goes anew, and whole."""
    breaks = iter([MIB, 2 * MIB])

    def fault(conversation: Conversation) -> bool:
        if conversation.command != "PATCH":
            return False
        if not conversation.headers.get("Content-Range", "0-").startswith("0-"):
            return conversation.refuse(status, "UNSUPPORTED")
        body = conversation.request_seen.body
        if len(body) < MIB or (upto := next(breaks, None)) is None:
            return False
        upload = re.search(r"uploads/(\d+)", conversation.path)
        assert upload
        registry.uploads[upload[1]] += body[:upto]
        conversation.reset()
        return True

    registry.fault = fault
    push(registry, SENT, patience=waited.patience)
    assert held(registry) == SENT


def test_a_registry_that_takes_only_small_parts(registry: Registry, waited: Waited) -> None:
    """As GitHub's: a whole blob of any size, but of one that comes in ranges at most 4 MiB at once."""

    def fault(conversation: Conversation) -> bool:
        large = "Content-Range" in conversation.headers and len(conversation.request_seen.body) > 4 * MIB
        return large and conversation.refuse(416, "REQUESTED_RANGE_NOT_SATISFIABLE")

    registry.fault = fault
    pushed = push(registry, SENT, patience=waited.patience)
    assert held(registry) == SENT
    assert pushed.bytes_sent == sent(registry)


def test_places_that_are_written_in_every_way(registry: Registry) -> None:
    """The place of an upload may be relative to what was asked for, and have a query."""

    def fault(conversation: Conversation) -> bool:
        vars(conversation).pop("answer", None)  # that of the last request by the same connection
        if conversation.command not in ("POST", "PATCH"):
            return False
        answer = conversation.answer

        def relative(status: int, body: bytes = b"", **headers: str) -> bool:
            place = headers.pop("Location")
            if conversation.command == "POST":
                place = place.partition("/blobs/uploads/")[2]
            else:
                place = "?" + place.partition("?")[2]
            return answer(status, body, Location=place)  # and no Range either

        conversation.answer = relative  # type: ignore[method-assign]
        return False

    registry.fault = fault
    push(registry, IMAGE)
    assert held(registry) == IMAGE


@pytest.mark.parametrize(
    ("line", "status"), [("POST", 201), ("PATCH", 204), ("PUT .*uploads", 202), ("PUT .*man", 202)]
)
def test_every_way_to_say_that_it_is_done(registry: Registry, line: str, status: int) -> None:
    """Docker and skopeo take each, and so there are registries that say it so."""

    def fault(conversation: Conversation) -> bool:
        vars(conversation).pop("answer", None)  # that of the last request by the same connection
        answer = conversation.answer
        if re.match(line, conversation.request_seen.line):
            conversation.answer = lambda usual, body=b"", **headers: answer(status, body, **headers)  # type: ignore[method-assign]
        return False

    registry.fault = fault
    push(registry, IMAGE)
    assert held(registry) == IMAGE


@pytest.mark.parametrize("status", [400, 403, 405, 501])
def test_a_registry_that_does_not_say_what_it_has(registry: Registry, status: int) -> None:
    """It is sent all."""
    registry.fault = lambda it: it.command == "HEAD" and it.refuse(status, "UNSUPPORTED")
    push(registry, IMAGE)
    push(registry, NEXT, "tools/app:2")
    assert (held(registry), held(registry, "tools/app:2")) == (IMAGE, NEXT)


def test_a_registry_that_works_long_on_what_it_got(registry: Registry) -> None:
    """Some copy a large blob before they say that they have it: nothing is sent again meanwhile."""

    def fault(conversation: Conversation) -> bool:
        if conversation.command == "PUT":
            time.sleep(0.6)
        return False

    registry.fault = fault
    patience = Patience(read=0.3, work=30)
    pushed = push(registry, archives.image(noise(MIB, "slow")), patience=patience)
    assert len(registry.received("PUT")) == 3
    assert pushed.bytes_sent == sent(registry)


def test_an_index_under_the_name_makes_room(registry: Registry) -> None:
    digest = registry.add("tools/app:old", NEXT)
    registry.put_manifest("tools/app", "1", index(("linux/amd64", digest, 1)), OCI_INDEX)
    push(registry, IMAGE)
    assert held(registry) == IMAGE

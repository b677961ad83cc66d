# SPDX-License-Identifier: Apache-2.0
"""Headers of registries, which are strangers: every legal form is read, and 65 kB of anything cost next to nothing."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

import pytest

from arv_docker.errors import RegistryError
from arv_docker.registry.authorization import Challenge, parse_challenge
from arv_docker.registry.blob import _CONTENT_RANGE
from arv_docker.registry.client import Client
from arv_docker.registry.pages import next_link
from arv_docker.registry.upload import _RANGE

from .scripted import Registry, Waited

SIZE = 65_000
#: Seconds of CPU that only a reader which goes back over all that it has read takes.
HANG = 10


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ('</v2/_catalog?last=b>; rel="next"', "/v2/_catalog?last=b"),
        ("</a>; rel=next", "/a"),
        ("</a>;rel=next", "/a"),
        ('</a>; rel="prev next"', "/a"),
        ('</a> ; REL = "NEXT"', "/a"),
        ('</first>; rel="first", </a>; rel="next", </last>; rel="last"', "/a"),
        ('</a>; title="a, <b>; rel=prev"; rel="next"', "/a"),
        ('</a?x=1,2>; rel="next"', "/a?x=1,2"),
        ('<https://registry.example/a>; rel="next"; n="1"', "https://registry.example/a"),
        (r'</a>; title="\"quoted\""; rel="next"', "/a"),
        ('</a>; rel="prev"; rel="next"', None),
        ('</a>; rel="nextish"', None),
        ("</a>", None),
        ("/a; rel=next", None),
        ("", None),
        ("</a; rel=next", None),
    ],
)
def test_links_to_the_next_page(header: str, target: str | None) -> None:
    assert next_link(header) == target


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Bearer realm = "https://a/t" , service=s', Challenge("bearer", "https://a/t", "s")),
        ('BEARER Realm="https://a/t"', Challenge("bearer", "https://a/t")),
        (r'Bearer realm="https://a/\"t"', Challenge("bearer", 'https://a/"t')),
        ('Negotiate, Bearer realm="https://a/t"', Challenge("bearer", "https://a/t")),
        ('NTLM TlRMTVNTUAAB==, Basic realm="x"', Challenge("basic")),
        ('Bearer realm="https://a/t?x=1,2",scope="a b"', Challenge("bearer", "https://a/t?x=1,2", "", ("a", "b"))),
        ('Bearer realm="https://a/t', Challenge("bearer", "https://a/t")),
        ('Bearer realm="https://a/t", Bearer realm="https://b/t"', Challenge("bearer", "https://a/t")),
        ("=", None),
        ('"', None),
        (",,,", None),
    ],
)
def test_challenges_in_every_form(header: str, expected: Challenge | None) -> None:
    assert parse_challenge(header) == expected


#: What regular expressions stumble over, repeated.
PIECES = (
    *("<", ">", "<>", '"', "\\", '\\"', ",", ";", "=", " ", "\t", "a", "0", "-", "/", "*", "rel", "a=", "a=b,", 'a="'),
    *("Basic ", "Bearer ", 'Bearer realm="', "</a>; rel=x, ", "bytes ", "0-", "a ,", "= ", " =", '"a"', "<a>;"),
)


def texts() -> Iterator[str]:
    for first, piece in itertools.product(("", "<", 'Bearer realm="', "bytes 0-", "0-"), PIECES):
        yield first + piece * (SIZE // len(piece))


READERS: tuple[Callable[[str], object], ...] = (
    parse_challenge,
    next_link,
    _CONTENT_RANGE.fullmatch,
    _RANGE.fullmatch,
)


@pytest.mark.parametrize("read", READERS, ids=["WWW-Authenticate", "Link", "Content-Range", "Range"])
def test_65_kb_of_anything_are_read_in_no_time(read: Callable[[str], object]) -> None:
    start = time.process_time()
    for text in texts():
        read(text)
    # 160 texts take 0.1 s; one for which a reader goes back over all that it has read takes over 20 s.
    assert time.process_time() - start < HANG


@pytest.mark.parametrize("name", ["Location", "Link", "WWW_Authenticate", "Retry_After", "Docker_Content_Digest"])
@pytest.mark.parametrize("piece", ["/", "<", "9", "%", "sha256:", "a,", "../", "[", "Bearer a=", "@"])
@pytest.mark.parametrize("status", [401, 302])
def test_a_registry_that_says_65_kb_of_anything_is_an_error_of_the_registry(
    registry: Registry, waited: Waited, name: str, piece: str, status: int
) -> None:
    registry.fault = lambda conversation: conversation.answer(
        status, b"", **{name: piece * (SIZE // len(piece))}, Content_Length="0"
    )
    client = Client(registry.host, insecure=True, patience=waited.patience)
    start = time.process_time()
    with pytest.raises(RegistryError):
        client.manifest("app", "1")
    assert time.process_time() - start < HANG
    client.close()


def test_numbers_without_end(registry: Registry, waited: Waited) -> None:
    """No digits are made a number that would take long, nor end in a traceback."""
    registry.put_manifest("app", "1", b"{}")
    digits = "9" * 60_000
    registry.fault = lambda it: it.answer(429, b"", Retry_After=digits)
    with pytest.raises(RegistryError, match="answers 429"):
        Client(registry.host, insecure=True, patience=waited.patience).manifest("app", "1")

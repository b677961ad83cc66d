# SPDX-License-Identifier: Apache-2.0
"""Block signatures."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from arv_docker.site.store.signatures import Signer, Verdict, strip_signature

SIGNER = Signer(b"site-secret-0123456789", 1209600)
MD5 = "5d41402abc4b2a76b9719d911017c592"
TOKEN = "v2/zspec-gj3su-000000000000000/abc"
EXPIRY = 0x6B133518
SIGNED = f"{MD5}+5+A48e7a8bd03baa9e72735d5c9c2390f8aaabac896@6b133518"

hashes = st.text("0123456789abcdef", min_size=32, max_size=32)
tokens = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="@"), min_size=1, max_size=60)
expiries = st.integers(0, 0xFFFFFFFF)


def test_the_published_vector() -> None:
    """The vector of docs/spec/arvados-collections.md#block-signatures; servers in three languages agree on it."""
    assert SIGNER.signature(MD5, TOKEN, EXPIRY) == "48e7a8bd03baa9e72735d5c9c2390f8aaabac896"
    assert SIGNER.sign(f"{MD5}+5", TOKEN, EXPIRY) == SIGNED
    assert SIGNER.verdict(SIGNED, TOKEN, EXPIRY) is Verdict.GOOD


def test_each_way_to_be_bad_has_its_name() -> None:
    assert SIGNER.verdict(f"{MD5}+5", TOKEN, EXPIRY) is Verdict.MISSING
    assert SIGNER.verdict(SIGNED, TOKEN, EXPIRY + 1) is Verdict.EXPIRED
    assert SIGNER.verdict(SIGNED, "abc", EXPIRY) is Verdict.WRONG
    assert SIGNER.verdict(SIGNED.replace("5d4", "6d4"), TOKEN, EXPIRY) is Verdict.WRONG
    assert SIGNER.verdict(f"{MD5}+5+Agarbage", TOKEN, EXPIRY) is Verdict.WRONG
    assert Signer(SIGNER.key, 60).verdict(SIGNED, TOKEN, EXPIRY) is Verdict.WRONG
    assert Signer(b"other", 1209600).verdict(SIGNED, TOKEN, EXPIRY) is Verdict.WRONG


def test_an_outdated_hint_is_expired_even_when_it_was_never_genuine() -> None:
    assert SIGNER.verdict(f"{MD5}+5+A{'0' * 40}@00000001", TOKEN, 2) is Verdict.EXPIRED


@given(hashes, tokens, expiries, st.sampled_from(["", "+K@zzzzz", "+Z"]))
def test_what_is_signed_verifies_until_it_expires(md5: str, token: str, expiry: int, hint: str) -> None:
    locator = SIGNER.sign(f"{md5}+12{hint}", token, expiry)
    assert SIGNER.verdict(locator, token, expiry) is Verdict.GOOD
    assert SIGNER.verdict(locator, token, expiry + 1) is Verdict.EXPIRED
    assert strip_signature(locator) == f"{md5}+12{hint}"
    assert SIGNER.sign(locator, token, expiry) == locator


@given(hashes, tokens, tokens, expiries)
def test_a_signature_serves_one_token(md5: str, token: str, other: str, expiry: int) -> None:
    verdict = SIGNER.verdict(SIGNER.sign(f"{md5}+1", token, expiry), other, expiry)
    assert (verdict is Verdict.GOOD) == (token == other)

# SPDX-License-Identifier: Apache-2.0
"""Block signatures: the proof that a token may read a block. Pure functions.

The formula is that of docs/spec/arvados-collections.md#block-signatures.

A signed locator ends in ``+A<40 hex>@<expiry in hex>``: HMAC-SHA1, keyed with the site's
secret, over the block's MD5, the token exactly as presented, the expiry and the
lifetime of signatures. The size is not part of it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from enum import Enum

_HINT = re.compile(r"\+A([0-9a-f]{40})@([0-9a-f]{1,8})(?=\+|$)", re.ASCII)
_ANY_HINT = re.compile(r"\+A[^+]*")


class Verdict(Enum):
    """The verdict on a locator's signature."""

    GOOD = "good"
    MISSING = "missing"
    EXPIRED = "expired"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Signer:
    """The signer and checker of one site's locators: its secret, and the lifetime of signatures in seconds."""

    key: bytes
    ttl: int

    def signature(self, md5: str, token: str, expiry: int) -> str:
        """The signature, 40 hex digits, for a block, a token and a Unix time."""
        message = f"{md5}@{token}@{expiry:08x}@{self.ttl:x}"
        return hmac.new(self.key, message.encode(), hashlib.sha1).hexdigest()

    def sign(self, locator: str, token: str, expiry: int) -> str:
        """``locator`` with a signature hint, in place of any it has."""
        bare = strip_signature(locator)
        return f"{bare}+A{self.signature(bare[:32], token, expiry)}@{expiry:08x}"

    def verdict(self, locator: str, token: str, now: int) -> Verdict:
        """The verdict on ``locator``: if it is signed for ``token`` at the Unix time ``now``.

        The expiry is looked at before the signature, as keepstore does: an outdated hint
        is "expired" whether or not it was genuine.
        """
        hint = _HINT.search(locator)
        if not hint:
            return Verdict.WRONG if "+A" in locator else Verdict.MISSING
        expiry = int(hint[2], 16)
        if expiry < now:
            return Verdict.EXPIRED
        good = hmac.compare_digest(self.signature(locator[:32], token, expiry), hint[1])
        return Verdict.GOOD if good else Verdict.WRONG


def strip_signature(locator: str) -> str:
    """``locator`` without its signature; other hints stay."""
    return _ANY_HINT.sub("", locator)

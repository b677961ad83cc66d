# SPDX-License-Identifier: Apache-2.0
"""Patterns of ``like`` and ``ilike`` filters, matched in time that grows with the text alone. Pure.

SQLite's own LIKE tries every way to share a text among several ``%``, which takes for ever on a pattern with many of
them. Here each part between two ``%`` is looked for once, at the first place after the one before.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

#: Characters of a pattern. Names of records have at most 255, a portable data hash fewer.
MAX_PATTERN = 1024

#: Characters that are looked through between two calls of ``check``: a few milliseconds' worth for any part.
_STRIDE = 1 << 16

#: Called now and then while a long text is matched; raises to give up.
Check = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Pattern:
    """The parts of a pattern between its ``%``: ``sizes`` in characters, and what matches each."""

    parts: tuple[re.Pattern[str], ...]
    sizes: tuple[int, ...]

    def matches(self, text: str, check: Check) -> bool:
        """Say if the whole of ``text`` has this form."""
        if len(self.parts) == 1:
            return len(text) == self.sizes[0] and self.parts[0].match(text) is not None
        start, end = self.sizes[0], len(text) - self.sizes[-1]
        if start > end or not self.parts[0].match(text) or not self.parts[-1].match(text, end):
            return False
        for part, size in zip(self.parts[1:-1], self.sizes[1:-1], strict=True):
            while start + size <= end:
                check()
                if place := part.search(text, start, min(end, start + _STRIDE + size)):
                    start = place.end()
                    break
                start += _STRIDE + 1
            else:
                return False
        return True


@lru_cache(maxsize=256)
def compile_pattern(pattern: str, ignore_case: bool) -> Pattern:
    """The pattern of PostgreSQL's LIKE: ``%``, ``_``, and a backslash that takes the next character literally."""
    parts: list[list[str]] = [[]]
    for piece in re.findall(r"\\.|.", pattern, re.DOTALL):
        if piece == "%":
            parts.append([])
        else:
            parts[-1].append("." if piece == "_" else re.escape(piece[-1]))
    flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)
    return Pattern(tuple(re.compile("".join(part), flags) for part in parts), tuple(map(len, parts)))

# SPDX-License-Identifier: Apache-2.0
"""Output of running engines: lines that are safe to show, from a generator with a return value."""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Iterable, Iterator
from typing import Generic, TypeVar

from ..local.progress import printable

Item = TypeVar("Item")
Value = TypeVar("Value")

#: The end of a line. After a carriage return alone, the next line takes the place of this one.
_LINE_END = re.compile(rb"\r?\n|\r(?=[^\n])")
_LONGEST_LINE = 64 << 10
#: Escape sequences that move a terminal's cursor, colour text, or set the title.
_TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
#: Seconds between two lines that take each other's place.
_PASSING = 2.0


class Ending(Generic[Item, Value]):
    """A generator to loop over; ``value`` then is what it returned."""

    value: Value

    def __init__(self, items: Generator[Item, None, Value]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Item]:
        self.value = yield from self._items


def steady_lines(lines: Generator[str, None, Value]) -> Generator[str, None, Value]:
    """Yield the lines, each with a line feed; of lines that take each other's place, one every two seconds."""
    shown = time.monotonic()
    ending = Ending(lines)
    for line in ending:
        if not line.endswith("\r"):
            yield line
        elif time.monotonic() >= shown + _PASSING:
            shown = time.monotonic()
            yield line[:-1] + "\n"
    return ending.value


def lines_of(pieces: Generator[bytes, None, Value]) -> Generator[str, None, Value]:
    """Yield the lines of an output that comes in pieces, as ``split_lines`` does, and return what the pieces return."""
    output = Ending(pieces)
    yield from split_lines(output)
    return output.value


def split_lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """Yield the lines of an output; a line that is far too long comes in parts.

    A line ends in a line feed, or in a carriage return where the next takes its place, and has nothing in it that a
    terminal would act upon.
    """
    rest = b""
    for piece in pieces:
        rest += piece
        start = 0
        for end in _LINE_END.finditer(rest):
            yield _printable_text(rest[start : end.start()]) + ("\r" if end[0] == b"\r" else "\n")
            start = end.end()
        rest = rest[start:]
        if len(rest) > _LONGEST_LINE:
            yield _printable_text(rest) + "\n"
            rest = b""
    if rest := rest.rstrip(b"\r"):
        yield _printable_text(rest) + "\n"


def _printable_text(line: bytes) -> str:
    return printable(_TERMINAL.sub("", line.decode(errors="replace")).expandtabs())

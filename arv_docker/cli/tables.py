# SPDX-License-Identifier: Apache-2.0
"""Tables and long lines for people: as wide as a terminal, and whole for ``--wide`` and where a program reads them."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO

from ..errors import one_line

_GAP = 2
#: The least width of a column that is shortened.
_LEAST = 8
#: The space before a unit, at which no line ends.
_BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:bytes|[kMGT]B)\b)")
_NO_BREAK = "\xa0"

Row = Sequence[str]


def width_for(args: argparse.Namespace, stream: TextIO | None = None) -> int | None:
    """The width of the terminal behind ``stream`` (standard output); None where lines are not to be shortened."""
    stream = stream or sys.stdout
    return None if args.wide or not stream.isatty() else shutil.get_terminal_size().columns


def lines_of(rows: Sequence[Row], width: int | None = None, elastic: Sequence[int] = ()) -> Iterator[str]:
    """The table as lines, the first row being its head.

    With a ``width`` the ``elastic`` columns share what the others leave of it, and show the ends of longer texts.
    """
    cells = [tuple(map(one_line, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if width is not None:
        room = width - natural_width(rows) + sum(widths[column] for column in elastic)
        left = list(elastic)
        for column in sorted(elastic, key=lambda number: widths[number]):
            widths[column] = min(widths[column], max(_LEAST, room // len(left)))
            room -= widths[column]
            left.remove(column)
    for row in cells:
        yield "  ".join(_end_of(text, size).ljust(size) for text, size in zip(row, widths, strict=True)).rstrip()


def natural_width(rows: Sequence[Row]) -> int:
    """The width of the table with whole texts."""
    widths = [max(len(one_line(text)) for text in column) for column in zip(*rows, strict=True)]
    return sum(widths) + _GAP * (len(widths) - 1)


def fill_lines(lines: Iterable[str], width: int | None) -> Iterator[str]:
    """Continue lines longer than ``width`` in the next; no word and no size is broken."""
    for line in lines:
        if width is None or len(line) <= width:
            yield line
            continue
        whole = _BEFORE_UNIT.sub(_NO_BREAK, line)
        text = textwrap.fill(whole, width, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)
        yield text.replace(_NO_BREAK, " ")


def _end_of(text: str, width: int) -> str:
    return text if len(text) <= width else f"…{text[len(text) - width + 1 :]}"

# SPDX-License-Identifier: Apache-2.0
"""A terminal: what a command leaves on its screen."""

import re

_TOKEN = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)|(.)", re.DOTALL)


def screen_of(written: str) -> list[str]:
    """The lines on the screen after all that a command wrote, as far as it moves the cursor and erases lines."""
    lines, row, column = [""], 0, 0
    for number, letter, move, text, _ in _TOKEN.findall(written):
        if letter == "A":
            row = max(0, row - int(number or 1))
        elif letter == "K":
            lines[row] = "" if number == "2" else lines[row][:column]
        elif move == "\r":
            column = 0
        elif move == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif text:
            lines[row] = lines[row].ljust(column)[:column] + text + lines[row][column + len(text) :]
            column += len(text)
    return lines

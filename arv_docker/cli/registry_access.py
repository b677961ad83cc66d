# SPDX-License-Identifier: Apache-2.0
"""Options that say as whom a registry is asked: ``--authfile``, ``--creds`` and the like, for every verb that takes
``docker://``.

A password is never an argument, which everybody on the machine can read: the options name where it is.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError

if TYPE_CHECKING:
    from ..registry.access import Access
    from ..registry.credentials import Provider

#: Bytes of a name and a password.
_MOST = 64 << 10
_FORMS = "FILE, - or fd:N"
_PURPOSES = {
    "--creds": "the registry",
    "--src-creds": "the registry to read from",
    "--dest-creds": "the registry to write to",
}


def add_options(parser: argparse.ArgumentParser, *creds: str) -> None:
    """Add ``--authfile`` and those options of _PURPOSES that ``creds`` names."""
    parser.add_argument(
        "--authfile", metavar="FILE", type=Path, help="the file that holds logins, as auth.json or Docker's config.json"
    )
    for option in creds:
        parser.add_argument(
            option,
            metavar="FILE",
            help=f"read NAME:PASSWORD for {_PURPOSES[option]} from a file, - (standard input) or fd:N",
        )


def access_of(args: argparse.Namespace) -> Access:
    """The user's access to registries, with ``--authfile`` if it is given; raises UsageError if it is not there."""
    from ..registry.access import Access

    return Access.of_user(getattr(args, "authfile", None))


def credentials_of(args: argparse.Namespace, option: str) -> Provider | None:
    """The user name and password by an option, read now; None without the option.

    Raises UsageError, which shows nothing of either, for what cannot be read or is not NAME:PASSWORD.
    """
    from ..registry.credentials import static_provider

    place: str | None = getattr(args, option.removeprefix("--").replace("-", "_"), None)
    if place is None:
        return None
    name, colon, secret = _first_line(place, option).partition(":")
    if not colon or not name:
        raise UsageError(f"{option}: what is read there is not NAME:PASSWORD.")
    return static_provider(name, secret)


def _first_line(place: str, option: str) -> str:
    """The first line of a file, of standard input or of a descriptor; nothing behind it is taken."""
    number = place.removeprefix("fd:")
    try:
        if place == "-":
            raw = _line_from(0)
        elif number != place:
            if not (number.isascii() and number.isdecimal() and len(number) < 7):
                raise UsageError(f"{option}: fd:N has the number of an open descriptor.")
            raw = _line_from(int(number))
        else:
            descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            try:
                raw = _line_from(descriptor)
            finally:
                os.close(descriptor)
        return raw.decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError, ValueError):
        # The place may be a password, written where other programs want it: it is not shown.
        raise UsageError(
            f"{option} wants {_FORMS}, where NAME:PASSWORD can be read; the password itself is no argument, for "
            "everybody on this machine could see it."
        ) from None


def _line_from(descriptor: int) -> bytes:
    raw = b""
    while len(raw) < _MOST and (byte := os.read(descriptor, 1)):
        if byte == b"\n":
            break
        raw += byte
    return raw

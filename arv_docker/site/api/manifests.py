# SPDX-License-Identifier: Apache-2.0
"""Manifest text of a request, read within bounds: the stored text, and values computed from it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...errors import BadManifestText
from ...model import manifest_text
from ..refusal import invalid
from ..store.signatures import strip_signature

#: Blocks and runs of files in one text: each takes a hundred bytes of memory and more. A terabyte has 16,384 blocks.
MAX_TOKENS = 1_000_000

#: Characters of all paths together. A stream's name stands before each of its files: a few bytes can spell many.
MAX_PATHS = 64 << 20


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest text with all that a collection stores of it."""

    #: The text as it came, with signatures.
    source_text: str
    #: The text as it is stored.
    text: str
    portable_data_hash: str
    #: Every locator once, as it came.
    locators: frozenset[str]
    file_count: int
    file_size: int
    #: The paths of all files, a line each.
    file_names: str


def manifest_of(given: str) -> Manifest:
    """Parse ``given`` as manifest text; raises Refusal 422 for other text, and beyond the bounds."""
    if given.count(" ") > MAX_TOKENS:
        raise invalid(f"manifest_text has more than {MAX_TOKENS} blocks and files")
    try:
        streams = manifest_text.parse(given)
    except BadManifestText as error:
        raise invalid(f"manifest_text is invalid: {error.message}") from error
    names = _paths(streams)
    size = sum(token.length for stream in streams for token in stream.files)
    if size >= 1 << 63:
        raise invalid("the files of manifest_text are too large together")
    return Manifest(
        given,
        strip_signatures(given),
        manifest_text.pdh(given),
        frozenset(str(locator) for locator in manifest_text.locators(streams)),
        len(names),
        size,
        # Names are bytes that need not be UTF-8; for searching, replacement characters do.
        "\n".join(names).encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
    )


def _paths(streams: tuple[manifest_text.Stream, ...]) -> list[str]:
    """The path of each file, without the leading ``./``; raises Refusal 422 where they are too long together."""
    found: dict[tuple[str, str], None] = {
        (stream.name, token.name): None
        for stream in streams
        for token in stream.files
        if token.name != "." or token.length
    }
    if sum(len(folder) + len(name) for folder, name in found) > MAX_PATHS:
        raise invalid(f"the paths of the files in manifest_text have more than {MAX_PATHS} characters together")
    # "./a" with "b" is the file that "." with "a/b" is.
    return list(dict.fromkeys(f"{folder}/{name}".removeprefix("./") for folder, name in found))


def strip_signatures(text: str) -> str:
    """Manifest text as it is stored: signature hints gone, other hints kept."""
    return _SIGNED.sub(lambda match: strip_signature(match[0]), text)


_SIGNED = re.compile(r"(?<= )[0-9a-fA-F]{32}(?:\+\d+)?(?:\+[A-Z][A-Za-z0-9@_-]*)+(?=[ \n])", re.ASCII)

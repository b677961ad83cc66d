# SPDX-License-Identifier: Apache-2.0
"""Versions of images as build machines write them: released or dirty, and the tag for an engine. No I/O."""

from __future__ import annotations

import hashlib
import re

_DIRTY = re.compile(r"latest|dev|.*[.+]dirty|[0-9]+\.[0-9]+\.[0-9]+\.0")
_NOT_IN_TAGS = re.compile(r"[^A-Za-z0-9_.-]")
_LONGEST_TAG = 128


def is_dirty(version: str) -> bool:
    """True if a version names an unreleased build, whose content may change under the same name.

    ``latest``, ``dev``, what ends in ``.dirty`` or ``+dirty``, and four numbers of which the
    last, the number of the build, is 0 (docs/spec/archive-folder.md#dirty-versions).

    >>> is_dirty("1.2.3+dirty"), is_dirty("1.2.3")
    (True, False)
    """
    return _DIRTY.fullmatch(version) is not None


def tag_of(version: str) -> str:
    """The tag of a version in an engine. A version that is a valid tag stays unchanged.

    ``+`` becomes a dot, other characters that tags lack a dash; a tag that would begin with
    one of these gets an underscore in front; one of more than 128 characters is cut, with
    a hash of the whole at its end.

    >>> tag_of("1.2.3+dirty")
    '1.2.3.dirty'
    """
    tag = _NOT_IN_TAGS.sub("-", version.replace("+", "."))
    if tag.startswith((".", "-")):
        tag = f"_{tag}"
    if len(tag) <= _LONGEST_TAG:
        return tag
    return f"{tag[: _LONGEST_TAG - 13]}-{hashlib.sha256(version.encode()).hexdigest()[:12]}"

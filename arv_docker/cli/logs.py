# SPDX-License-Identifier: Apache-2.0
"""Log messages of a command, on standard error: ours as far as the user asks for them, others' only while debugging.

The rooms write to loggers below ``arv_docker``; no other module configures a handler. A secret must not get into a
message in the first place. A formatter looks again, for other libraries quote URLs and locators as they are.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from ..errors import UsageError, one_line

VARIABLE = "ARV_DOCKER_LOG"
_LEVELS = {"": logging.WARNING, "verbose": logging.INFO, "debug": logging.DEBUG}

#: Variables whose values are secrets.
_SECRETS = ("ARVADOS_API_TOKEN", "ARVADOS_BLOB_SIGNING_KEY")
_REDACTED = (
    (re.compile(r"\+A[0-9a-f]{40}@[0-9a-f]+"), "+A…"),  # the signature of a block's locator
    (re.compile(r"\bv2/[0-9a-z]{5}-gj3su-[0-9a-z]{15}/[^\s'\"]+"), "v2/…"),  # a token of Arvados
    (re.compile(r"(?i)\b((?:bearer|basic|oauth2)\s+)[A-Za-z0-9._~+/=-]{8,}"), r"\1…"),
    (re.compile(r"([a-z][a-z0-9+.-]*://)[^/\s@]+@"), r"\1…@"),  # user and password of a URL
    (re.compile(r"([a-z][a-z0-9+.-]*://[^\s?'\"]+\?)[^\s'\"]+"), r"\1…"),  # a query, where storage puts signatures
)


@contextmanager
def show_log(level: str, stream: TextIO) -> Iterator[None]:
    """Show log messages on ``stream`` while the block lasts: ``level`` is "", "verbose" or "debug".

    Without a level only our own warnings are, and nothing of what libraries write to standard error where nobody
    configured a handler. Raises UsageError for another level.
    """
    if level not in _LEVELS:
        raise UsageError(f"{VARIABLE}={level}: write debug or verbose, or leave it out.")
    handler = logging.StreamHandler(stream)
    if level == "":
        handler.setFormatter(_Redacting("warning: %(message)s"))
        handler.addFilter(_is_warning_of_ours)
    else:
        handler.setFormatter(_Redacting("%(asctime)s.%(msecs)03d %(name)s: %(message)s", "%H:%M:%S"))
        handler.addFilter(lambda record: record.name.startswith("arv_docker") or record.levelno >= logging.WARNING)
    root, ours = logging.getLogger(), logging.getLogger("arv_docker")
    before = ours.level
    root.addHandler(handler)
    ours.setLevel(_LEVELS[level])
    _refuse_handlers(logging.getLogger("arvados"))
    try:
        yield
    finally:
        root.removeHandler(handler)
        ours.setLevel(before)


def _refuse_handlers(logger: logging.Logger) -> None:
    """Keep the SDK from adding a handler for standard error when it is imported, unless for debugging."""
    if not os.environ.get("ARVADOS_DEBUG"):
        setattr(logger, "addHandler", lambda _: None)  # noqa: B010 -- mypy takes no plain assignment


def _is_warning_of_ours(record: logging.LogRecord) -> bool:
    """Tell if the message is for every user. Warnings of a site are for its operator."""
    ours = record.name.startswith("arv_docker.") and not record.name.startswith("arv_docker.site")
    return ours and record.levelno >= logging.WARNING


class _Redacting(logging.Formatter):
    """A formatter that leaves out possible secrets."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the message as a single line, even with strangers' names in it."""
        record.message = one_line(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        """Return the message as one line or more, without secrets."""
        text = super().format(record)  # which may end with a traceback
        for name in _SECRETS:
            if len(value := os.environ.get(name, "")) >= 8:
                text = text.replace(value, "…")
        for pattern, replacement in _REDACTED:
            text = pattern.sub(replacement, text)
        return text

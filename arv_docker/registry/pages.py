# SPDX-License-Identifier: Apache-2.0
"""Lists of a registry, page after page: repositories and tags.

A list is a stream: names are given as they come, and each page has a bound of its own. distribution 2.8 gives all tags
of a repository in one answer, 100,000 of them in 5 MB.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from urllib.parse import urljoin, urlsplit

from ..errors import NoSuchImage, RegistryError
from .answer import Answer
from .authorization import Scopes
from .patience import Attempts
from .session import Session

log = logging.getLogger(__name__)

#: Names that are asked for at once, and bytes that are read of one answer: names of 128 characters, half a million.
_PAGE = 1000
_MAX_BYTES = 64 << 20
#: A list of more pages, or of more seconds or bytes in all, has no end.
_MAX_PAGES = 2_000
_MAX_SECONDS = 300.0
_MAX_TOTAL = 256 << 20
#: A header of links beyond this is not read.
_MAX_HEADER = 16 << 10

#: The pieces of a link's parameters. None can be where another one is, so that reading is linear.
_GAP = re.compile(r"[\s;]*")
_NAME = re.compile(r"[^\s;,=\"<>]+")
_EQUALS = re.compile(r"[ \t]*=[ \t]*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"?', re.DOTALL)
_BARE = re.compile(r'[^\s;,"]*')


class Pages:
    """The names in a list, over all its pages. An iterator.

    ``key`` is what the list is called in each answer. Raises NoSuchImage where there is no such repository,
    UnsupportedByRegistry where the registry gives no list, RegistryError where it is none, or has no end.
    """

    def __init__(self, session: Session, path: str, key: str, scopes: Scopes, step: str) -> None:
        self._session = session
        self._path = path
        self._key = key
        self._scopes = scopes
        self._step = step
        self._url: str | None = f"{path}?n={_PAGE}"
        self._seen: set[str] = set()
        self._names: Iterator[str] = iter(())
        self._room = _MAX_TOTAL
        self._deadline = session.http.patience.clock() + _MAX_SECONDS

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while (name := next(self._names, None)) is None:
            if self._url is None:
                raise StopIteration
            if self._url in self._seen:
                self._warn("the registry's pages lead in a circle")
                raise StopIteration
            self._check_end()
            self._seen.add(self._url)
            names, self._url = self._session.http.patience.run(self._read_page)
            if self._url is None and len(names) == _PAGE:
                self._warn(f"the registry gave just the {_PAGE} names that were asked for, and no next page")
            self._names = iter(names)
        return name

    def _check_end(self) -> None:
        """Refuse a list that goes on for ever."""
        what = f"{self._session.host}: {self._step}: the list"
        if self._room <= 0:
            raise RegistryError(f"{what} has more than {_MAX_TOTAL} bytes; it may never end.")
        if len(self._seen) >= _MAX_PAGES:
            raise RegistryError(f"{what} has more than {_MAX_PAGES} pages; it may never end.")
        if self._session.http.patience.clock() > self._deadline:
            raise RegistryError(f"{what} has not ended after {_MAX_SECONDS:.0f} s; it may never end.")

    def _warn(self, reason: str) -> None:
        log.warning("%s: %s: the list may be short: %s.", self._session.host, self._step, reason)

    def _read_page(self, attempts: Attempts) -> tuple[list[str], str | None]:
        url = self._url
        assert url is not None
        with self._session.send("GET", url, scopes=self._scopes, step=self._step, attempts=attempts) as answer:
            if answer.status == 400 and url != self._path and len(self._seen) == 1:
                return [], self._path  # it gives fewer at once, by its own choice
            if answer.status == 404 and self._key == "tags":
                raise NoSuchImage(f"{self._session.host}: {self._step}: there is no such repository.")
            if answer.status in (404, 405, 501):
                raise self._session.unsupported_error(answer, self._step, "listing")
            if answer.status != 200:
                raise answer.refusal()
            names = self._names_in(answer)
            link = ", ".join(answer.headers.getlist("Link"))
        return names, self._next_url(link, url)

    def _next_url(self, link: str, url: str) -> str | None:
        """The next page, of this registry: a registry behind a proxy may not know its name."""
        target = next_link(link)
        if target is None:
            return None
        http = self._session.http
        parts = urlsplit(http.absolute_url(urljoin(http.base, url), target, self._step))
        return f"{http.base}{parts.path}?{parts.query}"

    def _names_in(self, answer: Answer) -> list[str]:
        try:
            raw = answer.read_document(_MAX_BYTES)
            self._room -= len(raw)
            names = json.loads(raw).get(self._key)
        except (ValueError, RecursionError, AttributeError):
            raise answer.error(f"the answer of {answer.giver} is no list of {self._key}.") from None
        if names is None:
            return []  # as Go writes an empty list
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise answer.error(f"the answer of {answer.giver} is no list of {self._key}.")
        return names


def next_link(header: str) -> str | None:
    """The target of the link with the relation ``next`` in ``Link`` headers (RFC 8288), None without one.

    >>> next_link('</v2/_catalog?last=b>; rel="next"')
    '/v2/_catalog?last=b'
    """
    header = header[:_MAX_HEADER]
    position = 0
    while (start := header.find("<", position)) >= 0 and (end := header.find(">", start)) >= 0:
        relation, position = _relation_at(header, end + 1)
        if "next" in relation.lower().split():
            return header[start + 1 : end].strip()
    return None


def _relation_at(header: str, position: int) -> tuple[str, int]:
    """The first ``rel`` among the parameters that begin there, and where the next link may begin."""
    relation: str | None = None
    while position < len(header):
        gap = _GAP.match(header, position)
        position = gap.end() if gap else position
        name = _NAME.match(header, position)
        if name is None:
            break
        value, position = _value_at(header, name.end())
        if relation is None and name[0].lower() == "rel":
            relation = value
    return relation or "", position


def _value_at(header: str, position: int) -> tuple[str, int]:
    equals = _EQUALS.match(header, position)
    if equals is None:
        return "", position
    quoted = _QUOTED.match(header, equals.end())
    if quoted:
        return quoted[1], quoted.end()
    bare = _BARE.match(header, equals.end())
    return (bare[0], bare.end()) if bare else ("", equals.end())

# SPDX-License-Identifier: Apache-2.0
"""The Authorization header of requests: none, name and password, or a token that a token server gives for them.

A registry says with status 401 what it wants (distribution-spec, authentication; RFC 6750).
Tokens are kept until shortly before they expire, and fetched anew when the registry refuses one.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from ..errors import RegistryDenied, RegistryError
from .answer import Answer
from .credentials import Credentials, Wallet, good_until
from .http import Http, host_name, is_local
from .patience import Attempts

_MAX_TOKEN = 1 << 20
#: What a token lives if its server does not say, in seconds.
_LIFETIME = 60.0
#: A header of challenges beyond this is not read, nor more scopes than these.
_MAX_HEADER = 16 << 10
_MAX_SCOPES = 16

#: The pieces of a challenge. Each begins with what the one before it cannot hold, so that reading is linear.
_GAP = re.compile(r"[\s,]*")
_WORD = re.compile(r"[^\s,=\"]+")
_EQUALS = re.compile(r"[ \t]*=(?!=)[ \t]*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"?', re.DOTALL)
_BARE = re.compile(r'[^\s,"]*')

_STEP = "getting a token"

#: What a token is asked for, such as ``repository:tools/bwa:pull``.
Scopes = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Challenge:
    """A registry's demand: ``basic``, or ``bearer`` tokens of the server ``realm`` for ``service`` and ``scopes``."""

    scheme: str
    realm: str = ""
    service: str = ""
    scopes: Scopes = ()


@dataclass(frozen=True, slots=True)
class _Token:
    header: str
    until: float


class Authorization:
    """The Authorization of requests to one registry. May be used by several threads at once."""

    def __init__(self, http: Http, wallet: Wallet) -> None:
        self._http = http
        self._wallet = wallet
        self._challenge: Challenge | None = None
        self._tokens: dict[Scopes, _Token] = {}
        self._extra_scopes: dict[Scopes, Scopes] = {}
        self._lock = threading.Lock()

    def header(self, scopes: Scopes, attempts: Attempts) -> str | None:
        """The header to send at once: None before the registry has asked for authorization.

        ``attempts`` are those of the request that needs it. Raises RegistryError where a token cannot be had.
        """
        with self._lock:
            return self._current_header(scopes, attempts)

    def renew(self, scopes: Scopes, wanted: str, refused: str | None, attempts: Attempts) -> str | None:
        """The header to send after an answer of 401 with the challenge ``wanted`` to a request that had ``refused``.

        None if there is nothing else to try. Raises RegistryError where no token can be had.
        """
        with self._lock:
            held = self._tokens.get(scopes)
            if held is not None and held.header != refused and time.monotonic() < held.until:
                return held.header  # another thread was here first
            self._tokens.pop(scopes, None)
            if (challenge := parse_challenge(wanted)) is not None:
                self._challenge = challenge
                missing = _missing_scopes(scopes, challenge.scopes)
                self._extra_scopes[scopes] = missing or self._extra_scopes.get(scopes, ())
            if self._challenge is None:
                return None
            header = self._header_with(self._challenge, scopes, attempts)
            if header == refused:
                credentials = self._wallet.renew(self._wallet.credentials())
                header = self._header_with(self._challenge, scopes, attempts, credentials)
            return None if header == refused else header

    def renew_expired(self, scopes: Scopes, refused: str, attempts: Attempts) -> str | None:
        """The header to send after an answer of 403 to a request that had ``refused``; None if there is no other.

        That is how Amazon's registries refuse a secret that has expired, and how all refuse what is not allowed:
        other credentials are asked for only where those that are held may have expired.
        """
        with self._lock:
            header = self._current_header(scopes, attempts)
            if header == refused and self._challenge and (credentials := self._wallet.renew_if_old()) is not None:
                self._tokens.pop(scopes, None)
                header = self._header_with(self._challenge, scopes, attempts, credentials)
            return None if header == refused else header

    def _current_header(self, scopes: Scopes, attempts: Attempts) -> str | None:
        held = self._tokens.get(scopes)
        if held is not None and time.monotonic() < held.until:
            return held.header
        return self._header_with(self._challenge, scopes, attempts) if self._challenge else None

    def _header_with(
        self, wanted: Challenge, scopes: Scopes, attempts: Attempts, credentials: Credentials | None = None
    ) -> str | None:
        credentials = credentials or self._wallet.credentials()
        self._hide(credentials)
        if credentials is not None and credentials.kind == "bearer":
            return f"Bearer {credentials.bearer}"
        if wanted.scheme == "basic":
            return f"Basic {credentials.basic}" if credentials else None
        return self._fetch_token(wanted, scopes, attempts, credentials)

    def _hide(self, credentials: Credentials | None) -> None:
        if credentials is not None:
            self._http.hide_secret(credentials.secret)
            self._http.hide_secret(credentials.basic)

    def _fetch_token(
        self, wanted: Challenge, scopes: Scopes, attempts: Attempts, credentials: Credentials | None
    ) -> str:
        """Have a token given, keep it, and return its header. It is asked for once more only with other credentials:
        whoever needs it tries again, and counts."""
        try:
            token = self._request_token(wanted, scopes, attempts, credentials)
        except RegistryDenied:
            credentials = self._wallet.renew(credentials)
            if credentials is None:
                raise
            self._hide(credentials)
            token = self._request_token(wanted, scopes, attempts, credentials)
        self._tokens[scopes] = token
        return token.header

    def _request_token(
        self, wanted: Challenge, scopes: Scopes, attempts: Attempts, credentials: Credentials | None
    ) -> _Token:
        """A new token from the realm, which may be another host and gets the registry's credentials, as it must."""
        realm = self._http.absolute_url(self._http.base, wanted.realm, _STEP)
        self._check_realm(realm)
        scopes = (*scopes, *self._extra_scopes.get(scopes, ()))
        fields = [("service", wanted.service)] if wanted.service else []
        headers = {"Accept": "application/json"}
        if credentials is not None and credentials.kind == "identity":
            fields += [("grant_type", "refresh_token"), ("refresh_token", credentials.secret)]
            fields += [("client_id", "arv-docker"), ("scope", " ".join(scopes))]
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            method, url, body = "POST", realm, urlencode(fields).encode()
        else:
            if credentials is not None:
                headers["Authorization"] = f"Basic {credentials.basic}"
                fields.append(("account", credentials.username))
            fields += [("scope", scope) for scope in scopes]
            mark = "&" if urlsplit(realm).query else "?"
            method, url, body = "GET", f"{realm}{mark}{urlencode(fields)}", None
        with self._http.send(
            method, url, headers, body=body, step=_STEP, attempts=attempts, role="token server"
        ) as answer:
            if answer.status != 200:
                raise answer.refusal()
            return self._parse_token(answer)

    def _check_realm(self, realm: str) -> None:
        parts, ours = urlsplit(realm), urlsplit(self._http.base)
        safe = parts.scheme == "https" or (parts.scheme == ours.scheme == "http" and is_local(parts.hostname or ""))
        if "@" in parts.netloc:
            raise RegistryError(f"{self._http.host}: {_STEP}: the token server's address has a name or a password.")
        if not safe or (is_local(parts.hostname or "") and not is_local(host_name(self._http.host))):
            place = f"{parts.scheme}://{parts.netloc}{parts.path}"[:200]
            raise RegistryError(f"{self._http.host}: {_STEP}: the registry sends us to {place!r}, which is not safe.")

    def _parse_token(self, answer: Answer) -> _Token:
        try:
            document = json.loads(answer.read_document(_MAX_TOKEN))
            token = document.get("token") or document.get("access_token")
            lifetime = document.get("expires_in")
        except (ValueError, AttributeError, RecursionError):
            token = lifetime = None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable() or " " in token:
            raise answer.error(f"{answer.giver} gives no token.")
        self._http.hide_secret(token)
        seconds = lifetime if isinstance(lifetime, (int, float)) and lifetime > 0 else _LIFETIME
        return _Token(f"Bearer {token}", good_until(seconds))


def parse_challenge(header: str) -> Challenge | None:
    """The challenge of a ``WWW-Authenticate`` header that is met here, Bearer before Basic; None for neither.

    >>> parse_challenge('Bearer realm="https://auth.example/token",service="example"')
    Challenge(scheme='bearer', realm='https://auth.example/token', service='example', scopes=())
    """
    challenges: dict[str, dict[str, str]] = {}
    parameters: dict[str, str] = {}
    for scheme, name, value in _pieces_of(header[:_MAX_HEADER]):
        if scheme:
            parameters = {}
            if not challenges.get(scheme, {}).get("realm"):
                challenges[scheme] = parameters
        else:
            parameters.setdefault(name, value)
    bearer = challenges.get("bearer", {})
    if bearer.get("realm"):
        scopes = tuple(bearer.get("scope", "").split()[:_MAX_SCOPES])
        return Challenge("bearer", bearer["realm"], bearer.get("service", ""), scopes)
    return Challenge("basic") if "basic" in challenges else None


def _pieces_of(header: str) -> Iterator[tuple[str, str, str]]:
    """Each scheme, as ``(scheme, "", "")``, and behind it its parameters, as ``("", name, value)``; names are small."""
    position = 0
    while (position := _end_of(_GAP, header, position)) < len(header):
        word = _WORD.match(header, position)
        if word is None:  # a quote or an equals sign that stands alone
            position += 1
            continue
        position = word.end()
        equals = _EQUALS.match(header, position)
        if equals is None:
            yield word[0].lower(), "", ""
            continue
        quoted = _QUOTED.match(header, equals.end())
        bare = None if quoted else _BARE.match(header, equals.end())
        if quoted:
            value, position = re.sub(r"\\(.)", r"\1", quoted[1]), quoted.end()
        else:
            assert bare is not None
            value, position = bare[0], bare.end()
        yield "", word[0].lower(), value


def _end_of(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match else position


def _missing_scopes(asked: Scopes, wanted: Scopes) -> Scopes:
    """The scopes of ``wanted`` that go beyond ``asked``: Azure's registries want ``metadata_read`` for lists of
    tags."""
    actions: dict[str, set[str]] = {}
    for scope in asked:
        place, _, names = scope.rpartition(":")
        actions.setdefault(place, set()).update(names.split(","))
    missing = []
    for scope in wanted:
        place, _, names = scope.rpartition(":")
        if not actions.get(place, set()).issuperset(names.split(",")):
            missing.append(scope)
    return tuple(missing)

# SPDX-License-Identifier: Apache-2.0
"""What goes into a request's Authorization: nothing, name and password, or a token that is got for them.

A registry says with status 401 what it wants (distribution-spec, authentication; RFC 6750).
Tokens are kept until shortly before they expire, and got anew when the registry refuses one.
"""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from ..errors import RegistryDenied, RegistryError
from .credentials import Credentials, Wallet, good_until
from .http import Http, host_name, is_local

_MAX_TOKEN = 1 << 20
#: What a token lives if its server does not say, in seconds.
_LIFETIME = 60.0

_CHALLENGE = re.compile(r"(?:^|,)\s*([A-Za-z]+)\s+(?=[a-zA-Z]+=)")
_PARAMETER = re.compile(r'([a-zA-Z_]+)=(?:"([^"]*)"|([^\s,"]+))')

#: What a token is asked for, such as ``repository:tools/bwa:pull``.
Scopes = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a registry wants: ``basic``, or ``bearer`` tokens of the server ``realm`` for ``service`` and ``scopes``."""

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

    def header(self, scopes: Scopes) -> str | None:
        """What to send at once: None before the registry has said that it wants anything.

        Raises RegistryError where a new token is due and cannot be had.
        """
        with self._lock:
            return self._current_header(scopes)

    def renew(self, scopes: Scopes, wanted: str, refused: str | None) -> str | None:
        """What to send after an answer of 401 with the challenge ``wanted`` to a request that had ``refused``.

        None if there is nothing else to try. Raises RegistryError where no token can be had.
        """
        with self._lock:
            held = self._tokens.get(scopes)
            if held is not None and held.header != refused and time.monotonic() < held.until:
                return held.header  # another thread was here first
            self._tokens.pop(scopes, None)
            if (found := parse_challenge(wanted)) is not None:
                self._challenge = found
                self._extra_scopes[scopes] = _missing_scopes(scopes, found.scopes) or self._extra_scopes.get(scopes, ())
            if self._challenge is None:
                return None
            header = self._header_with(self._challenge, scopes)
            if header == refused:
                header = self._header_with(self._challenge, scopes, self._wallet.renew(self._wallet.credentials()))
            return None if header == refused else header

    def renew_expired(self, scopes: Scopes, refused: str) -> str | None:
        """What to send after an answer of 403 to a request that had ``refused``; None if there is nothing else to try.

        That is how Amazon's registries refuse a secret that has expired, and how all refuse what is not allowed:
        other credentials are asked for only where those that are held may have expired.
        """
        with self._lock:
            header = self._current_header(scopes)
            if header == refused and self._challenge and (credentials := self._wallet.renew_if_old()) is not None:
                self._tokens.pop(scopes, None)
                header = self._header_with(self._challenge, scopes, credentials)
            return None if header == refused else header

    def _current_header(self, scopes: Scopes) -> str | None:
        held = self._tokens.get(scopes)
        if held is not None and time.monotonic() < held.until:
            return held.header
        return self._header_with(self._challenge, scopes) if self._challenge else None

    def _header_with(self, wanted: Challenge, scopes: Scopes, credentials: Credentials | None = None) -> str | None:
        credentials = credentials or self._wallet.credentials()
        if credentials is not None:
            self._http.hide_secret(credentials.secret)
            self._http.hide_secret(credentials.basic)
        if credentials is not None and credentials.kind == "bearer":
            return f"Bearer {credentials.bearer}"
        if wanted.scheme == "basic":
            return f"Basic {credentials.basic}" if credentials else None
        return self._fetch_token(wanted, scopes, credentials)

    def _fetch_token(self, wanted: Challenge, scopes: Scopes, credentials: Credentials | None) -> str:
        def attempt() -> _Token:
            return self._request_token(wanted, scopes, credentials)

        try:
            token = self._http.patience.run(attempt)
        except RegistryDenied:
            credentials = self._wallet.renew(credentials)
            if credentials is None:
                raise
            self._http.hide_secret(credentials.secret)
            self._http.hide_secret(credentials.basic)
            token = self._http.patience.run(attempt)
        self._tokens[scopes] = token
        return token.header

    def _request_token(self, wanted: Challenge, scopes: Scopes, credentials: Credentials | None) -> _Token:
        """A new token from the realm, which may be another host and gets the registry's credentials, as it must."""
        realm = self._http.absolute_url(self._http.base, wanted.realm, "getting a token")
        step = f"getting a token from {urlsplit(realm).netloc}"
        self._check_realm(realm, step)
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
        with self._http.send(method, url, headers, body=body, step=step) as response:
            if response.status != 200:
                raise self._http.refusal_of(response, step)
            return self._parse_token(self._http.read_content(response, _MAX_TOKEN, step), step)

    def _check_realm(self, realm: str, step: str) -> None:
        parts, ours = urlsplit(realm), urlsplit(self._http.base)
        safe = parts.scheme == "https" or (parts.scheme == ours.scheme == "http" and is_local(parts.hostname or ""))
        if not safe or (is_local(parts.hostname or "") and not is_local(host_name(self._http.host))):
            raise RegistryError(f"{self._http.host}: {step}: the registry sends us to {realm!r}, which is not safe.")

    def _parse_token(self, raw: bytes, step: str) -> _Token:
        try:
            document = json.loads(raw)
            token = document.get("token") or document.get("access_token")
            lifetime = document.get("expires_in")
        except (ValueError, AttributeError, RecursionError):
            token = lifetime = None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable() or " " in token:
            raise RegistryError(f"{self._http.host}: {step}: the answer has no token.")
        self._http.hide_secret(token)
        seconds = lifetime if isinstance(lifetime, (int, float)) and lifetime > 0 else _LIFETIME
        return _Token(f"Bearer {token}", good_until(seconds))


def parse_challenge(header: str) -> Challenge | None:
    """What a ``WWW-Authenticate`` header asks for, Bearer before Basic; None for neither.

    >>> parse_challenge('Bearer realm="https://auth.example/token",service="example"')
    Challenge(scheme='bearer', realm='https://auth.example/token', service='example', scopes=())
    """
    starts = list(_CHALLENGE.finditer(header))
    found = {}
    for place, start in enumerate(starts):
        end = starts[place + 1].start() if place + 1 < len(starts) else len(header)
        parameters = {it[1].lower(): it[2] or it[3] or "" for it in _PARAMETER.finditer(header[start.end() : end])}
        found[start[1].lower()] = parameters
    bearer = found.get("bearer", {})
    if bearer.get("realm"):
        return Challenge("bearer", bearer["realm"], bearer.get("service", ""), tuple(bearer.get("scope", "").split()))
    return Challenge("basic") if "basic" in found or header.strip().lower() == "basic" else None


def _missing_scopes(asked: Scopes, wanted: Scopes) -> Scopes:
    """Those of ``wanted`` that go beyond ``asked``: Azure's registries want ``metadata_read`` for lists of tags."""
    actions: dict[str, set[str]] = {}
    for scope in asked:
        place, _, names = scope.rpartition(":")
        actions.setdefault(place, set()).update(names.split(","))
    found = []
    for scope in wanted:
        place, _, names = scope.rpartition(":")
        if not actions.get(place, set()).issuperset(names.split(",")):
            found.append(scope)
    return tuple(found)

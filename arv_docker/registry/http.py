# SPDX-License-Identifier: Apache-2.0
"""HTTP with a registry: connections, where redirects lead, and what of it all may be shown.

A registry is a stranger. Its redirects lead neither to plain HTTP nor from the outside to this machine, and no secret
follows them to another host; whatever it says in an error is shown without the secrets that it was given.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from .. import __version__
from ..errors import RegistryError
from ..local.proxy import proxy_connections, proxy_secrets
from . import certificates
from .access import Access
from .answer import PASSING, Answer
from .cut_off import with_deadlines
from .patience import Attempts, Hosts, Patience

if TYPE_CHECKING:
    import urllib3

log = logging.getLogger(__name__)

#: What a request carries. Chunks come with their Content-Length, and are gone through anew for each attempt.
Body = bytes | Iterable[bytes] | None

_MAX_REDIRECTS = 5
_PORTS = {"http": 80, "https": 443}
#: How http.client says what a proxy answers to CONNECT.
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")
#: No timeout may be zero.
_LEAST_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class _Request:
    """A request to one host. ``step`` names the action, ``giver`` the host that is to answer."""

    method: str
    url: str
    headers: dict[str, str]
    body: Body
    step: str
    giver: str
    attempts: Attempts

    @property
    def is_write(self) -> bool:
        """Say if the host has to keep something before it answers."""
        return self.method in ("PUT", "PATCH")


class Http:
    """Requests to a registry, and to hosts that it refers to. May be used by several threads at once.

    ``plain`` asks for HTTP without TLS, which is for loopback alone. ``role`` is what messages call the host.
    """

    def __init__(
        self,
        host: str,
        *,
        plain: bool = False,
        patience: Patience | None = None,
        access: Access | None = None,
        role: str = "registry",
    ) -> None:
        self.host = host
        self.base = f"{'http' if plain else 'https'}://{host}"
        self.patience = patience or Patience()
        self._access = access or Access()
        self._role = role
        self._hosts = Hosts(self.patience)
        self._secrets: set[str] = set()
        self._pools: dict[tuple[str, str], urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    @contextmanager
    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        step: str,
        attempts: Attempts | None = None,
        body: Body = None,
        role: str = "",
    ) -> Iterator[Answer]:
        """The answer to one request, its body unread. ``url`` may be relative to the registry's.

        ``step`` says for messages what is being done, ``role`` what the host is, if not the registry. ``attempts`` are
        the tries that this is one of: their time is what it may take. Redirects of GET and HEAD are followed.
        Raises RegistryError: with ``retry_after`` for a broken connection and a status that may pass.
        """
        asked = self.absolute_url(self.base, url, step)
        role = role or self._role
        sent = {"User-Agent": f"arv-docker/{__version__}", **headers}
        attempts = attempts or Attempts(self.patience)
        request = _Request(method, asked, sent, body, step, self._giver(role, asked), attempts)
        answer = self._follow_redirects(request, role)
        try:
            yield answer
        finally:
            answer.release()

    @contextmanager
    def translated_errors(self, step: str, giver: str = "the registry") -> Iterator[None]:
        """Turn urllib3's errors in the block into RegistryError. ``giver`` is who was asked."""
        from urllib3.exceptions import HTTPError, LocationParseError, SSLError

        try:
            yield
        except SSLError as error:
            if _is_broken_off(error):
                raise self._connection_error(error, step, giver) from None
            folder = self._access.certificates[0] / self.host if self._access.certificates else "certs.d"
            raise RegistryError(
                f"{self.host}: {step}: no safe connection to {giver}. A registry with a certificate authority of its "
                f"own needs it in {folder}, one on this machine without TLS --insecure.",
                detail=self.conceal(str(error)),
            ) from None
        except (LocationParseError, UnicodeError):
            raise RegistryError(f"{self.host}: {step}: the address of {giver} is none.") from None
        except (HTTPError, OSError) as error:
            raise self._connection_error(error, step, giver) from None

    def hide_secret(self, secret: str) -> None:
        """Hide ``secret``: from now on it appears in no message."""
        with self._lock:
            self._secrets.add(secret)

    def conceal(self, text: str) -> str:
        """Return ``text`` without the secrets that are known."""
        with self._lock:
            secrets = sorted(filter(None, self._secrets), key=len, reverse=True)
        for secret in secrets:
            text = text.replace(secret, "***")
        return text

    def absolute_url(self, base: str, url: str, step: str) -> str:
        """The absolute form of a URL in an answer of ``base``; raises RegistryError for other texts."""
        try:
            whole = urljoin(base, url)
            origin_of(whole)
        except ValueError:
            raise RegistryError(f"{self.host}: {step}: the {self._role} gives an address that is none.") from None
        return whole

    def check_redirect(self, before: str, after: str, step: str) -> None:
        """Raise RegistryError where the registry refers from one URL to another that is not safe."""
        old, new = urlsplit(before), urlsplit(after)
        if new.scheme != "https" and (new.scheme, old.scheme) != ("http", "http"):
            raise RegistryError(f"{self.host}: {step}: a redirect from {old.scheme} to {new.scheme} is not followed.")
        if is_local(new.hostname or "") and not is_local(old.hostname or ""):
            raise RegistryError(f"{self.host}: {step}: a redirect to this machine ({new.hostname}) is not followed.")

    def close(self) -> None:
        """Close the connections."""
        for pool in self._pools.values():
            pool.clear()

    # -- one request -----------------------------------------------------------------------

    def _follow_redirects(self, request: _Request, role: str) -> Answer:
        for _ in range(_MAX_REDIRECTS + 1):
            answer = self._answer_to(request)
            location = answer.headers.get("Location")
            if request.method not in ("GET", "HEAD") or not 300 <= answer.status < 400 or not location:
                return answer
            answer.release()
            url = self.absolute_url(request.url, location, request.step)
            self.check_redirect(request.url, url, request.step)
            headers = dict(request.headers)
            if origin_of(url) != origin_of(request.url):
                headers.pop("Authorization", None)
            request = replace(request, url=url, headers=headers, giver=self._giver(role, url))
        raise RegistryError(f"{self.host}: {request.step}: redirected more than {_MAX_REDIRECTS} times.")

    def _answer_to(self, request: _Request) -> Answer:
        """The answer of one host, asked in its turn; raises RegistryError for a transient answer."""
        url, attempts = request.url, request.attempts
        with self._hosts.turn(urlsplit(url).netloc, attempts, waits=request.body is None):
            started = time.monotonic()
            with self.translated_errors(request.step, request.giver):
                response = self._pool(url).request(
                    request.method,
                    url,
                    body=request.body,
                    headers=request.headers,
                    timeout=self._timeout(request),
                    redirect=False,
                    retries=False,
                    preload_content=False,
                    decode_content=False,
                )
            log.debug(
                "%s %s: %d, %s bytes, %.2f s",
                request.method,
                _without_secrets(url),
                response.status,
                response.headers.get("Content-Length", "?")[:20],
                time.monotonic() - started,
            )
            if request.is_write:
                attempts.keep_alive()
            answer = Answer(
                response,
                label=f"{self.host}: {request.step}: ",
                giver=request.giver,
                url=url,
                seconds=self._seconds(attempts),
                is_elsewhere=not self._is_here(url),
                conceal=self.conceal,
                translated=lambda: self.translated_errors(request.step, request.giver),
            )
            if answer.status in PASSING:
                refusal = answer.refusal()
                answer.release()
                raise refusal
        return answer

    def _giver(self, role: str, url: str) -> str:
        """Words for who answers at ``url``."""
        host = urlsplit(url).netloc.rpartition("@")[2]
        if role != self._role:
            return f"the {role} ({host})"
        return f"the {role}" if self._is_here(url) else f"the storage behind the {role} ({host})"

    def _is_here(self, url: str) -> bool:
        return origin_of(url) == origin_of(self.base)

    def _connection_error(self, error: BaseException, step: str, giver: str) -> RegistryError:
        """The error for a connection that failed, or for a proxy that refuses."""
        from urllib3.exceptions import ProxyError

        detail = self.conceal(_message_of(error))
        if tunnel := _TUNNEL.search(str(error)[:1000]):
            status = int(tunnel[1])
            return RegistryError(
                f"{self.host}: {step}: the proxy on the way to {giver} answers {status}. Check HTTPS_PROXY, its name "
                "and password, and NO_PROXY.",
                detail=detail,
                status=status,
                retry_after=0.0 if status in PASSING else None,
            )
        if isinstance(error, ProxyError):
            return RegistryError(
                f"{self.host}: {step}: the proxy on the way to {giver} cannot be reached. Check HTTPS_PROXY and "
                "NO_PROXY.",
                detail=detail,
                retry_after=0.0,
            )
        return RegistryError(
            f"{self.host}: {step}: the connection failed. Is {giver} there?", detail=detail, retry_after=0.0
        )

    def _pool(self, url: str) -> urllib3.PoolManager:
        """The connections for a URL: with the certificates for its host, through a proxy where one is set."""
        import urllib3

        parts = urlsplit(url)
        host = self.host if self._is_here(url) else parts.netloc
        proxy = "" if is_local(parts.hostname or "") else self._access.proxies.proxy_for(parts.scheme, parts.netloc)
        with self._lock:
            self._secrets.update(proxy_secrets(proxy) if proxy else ())
            if (pool := self._pools.get((proxy, host))) is None:
                context = certificates.context_for(host, self.host, self._access.certificates)
                many: dict[str, Any] = {"ssl_context": context, "maxsize": 8}
                pool = proxy_connections(proxy, many) if proxy else urllib3.PoolManager(**many)
                self._pools[proxy, host] = with_deadlines(pool)
        return pool

    def _timeout(self, request: _Request) -> urllib3.Timeout:
        import urllib3

        patience, seconds = self.patience, self._seconds(request.attempts)
        if request.is_write:  # urllib3 sends a body with the patience that it has to connect
            return urllib3.Timeout(connect=patience.read if request.body else patience.connect, read=patience.work)
        return urllib3.Timeout(connect=min(patience.connect, seconds), read=seconds)

    def _seconds(self, attempts: Attempts) -> float:
        """The seconds allowed for an answer or a document."""
        return max(_LEAST_SECONDS, min(self.patience.read, attempts.remaining))


def is_local(name: str) -> bool:
    """Tell if a host's name, as written, means this machine or the local network. Nothing is looked up."""
    name = name.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_link_local or mapped.is_unspecified)


def host_name(netloc: str) -> str:
    """The name in ``host:port``, without the port."""
    return urlsplit(f"//{netloc}").hostname or ""


def origin_of(url: str) -> tuple[str, str, int | None]:
    """The origin that an Authorization belongs to: scheme, host and port, however they are written; raises ValueError
    for a port that is none. Registries leave out a port that is the usual one."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme)


def _is_broken_off(error: BaseException) -> bool:
    """Tell if a TLS error means that the connection just ended, which may pass, and nothing unsafe."""
    return any(isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError)) for cause in (error, *error.args))


def _message_of(error: BaseException) -> str:
    """The message of urllib3's error, without the object in front."""
    text = str(error)
    return text.rpartition(">: ")[2] or text


def _without_secrets(url: str) -> str:
    """A URL for logs: a name, a password, a signature in it is nobody's business."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{'?…' if parts.query else ''}"

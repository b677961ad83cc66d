# SPDX-License-Identifier: Apache-2.0
"""HTTP with a registry: what is tried again and when, which redirects are followed, how much is read.

A registry is a stranger. Its answers are bounded, its redirects lead neither to plain
HTTP nor from the outside to this machine, and no secret follows them to another host;
whatever it says in an error is shown without the secrets that it was given.
"""

from __future__ import annotations

import email.utils
import ipaddress
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit

from .. import __version__
from ..errors import RegistryDenied, RegistryError
from ..local.proxy import proxy_connections
from . import certificates

if TYPE_CHECKING:
    import urllib3

Result = TypeVar("Result")
#: What a request carries. Chunks come with their Content-Length, and are gone through anew for each attempt.
Body = bytes | Iterable[bytes] | None

#: Statuses that may pass, those of proxies too: what else a registry refuses, it refuses for good. 499 is what
#: distribution says of a body that broke off.
_PASSING = frozenset((408, 425, 429, 499, 500, 502, 503, 504, *range(520, 528)))
_MAX_REDIRECTS = 5
_PORTS = {"http": 80, "https": 443}
#: An error's text beyond this is not read.
_MAX_ERROR = 64 << 10
_MAX_SHOWN = 1000


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a registry is waited for.

    ``tries`` is the number of attempts for one request. ``longest`` is the most seconds that
    a registry may ask to wait before the next; one that asks for more is given up.
    ``connect`` and ``read`` are seconds of silence, ``work`` those of one that was told to keep what it got: some
    copy a large layer before they answer (seen with storage as Amazon's). ``sleep`` waits.
    """

    tries: int = 6
    longest: float = 120.0
    connect: float = 15.0
    read: float = 60.0
    work: float = 900.0
    sleep: Callable[[float], None] = time.sleep

    def run(self, attempt: Callable[[], Result]) -> Result:
        """What ``attempt`` gives, called again after each error that may pass. Raises the last one."""
        failures = 0
        while True:
            try:
                return attempt()
            except RegistryError as error:
                failures += 1
                if failures >= self.tries:
                    raise
                self.wait(error, failures)

    def wait(self, error: RegistryError, failures: int) -> None:
        """Waits before the next attempt after so many failures; raises ``error`` if there should be none."""
        if error.retry_after is None or error.retry_after > self.longest:
            raise error
        self.sleep(max(error.retry_after, min(2.0**failures / 8, 10.0)))


class Http:
    """Requests to one registry, and to where it sends us. May be used by several threads at once.

    ``plain`` asks for HTTP without TLS, which is for loopback alone.
    """

    def __init__(self, host: str, *, plain: bool = False, patience: Patience | None = None) -> None:
        self.host = host
        self.base = f"{'http' if plain else 'https'}://{host}"
        self.patience = patience or Patience()
        self._secrets: set[str] = set()
        self._pools: dict[tuple[str, str], urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    @contextmanager
    def send(
        self, method: str, url: str, headers: Mapping[str, str], *, body: Body = None, step: str
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """The answer to one request, its body unread. ``url`` may be relative to the registry's.

        ``step`` says for messages what is being done. Redirects of GET and HEAD are followed.
        Raises RegistryError: with ``retry_after`` for a broken connection and a status that may pass.
        """
        from urllib3.exceptions import HTTPError

        with self.translated_errors(step):
            response = self._follow_redirects(
                method, self.absolute_url(self.base, url, step), dict(headers), body, step
            )
        try:
            if response.status in _PASSING:
                raise self.refusal_of(response, step)
            yield response
        finally:
            with suppress(HTTPError, OSError):
                _release(response)

    @contextmanager
    def translated_errors(self, step: str) -> Iterator[None]:
        """Turns what urllib3 raises in the block into RegistryError."""
        from urllib3.exceptions import HTTPError, LocationParseError, SSLError

        try:
            yield
        except SSLError as error:
            raise RegistryError(
                f"{self.host}: {step}: no safe connection. A registry with a certificate authority of its own needs "
                f"it in {certificates.folder_of(self.host)}, one on this machine without TLS --insecure.",
                detail=self.conceal(str(error)),
            ) from None
        except (LocationParseError, UnicodeError) as error:
            raise RegistryError(f"{self.host}: {step}: not an address: {error}.") from None
        except (HTTPError, OSError) as error:
            raise RegistryError(
                f"{self.host}: {step}: the connection failed. Is the registry there?",
                detail=self.conceal(_message_of(error)),
                retry_after=0.0,
            ) from None

    def read_content(self, response: urllib3.BaseHTTPResponse, limit: int, step: str) -> bytes:
        """The whole body of an answer; raises RegistryError if it has more than ``limit`` bytes or breaks off."""
        with self.translated_errors(step):
            pieces = []
            room = limit + 1
            while room > 0 and (piece := response.read(min(room, 1 << 16))):
                pieces.append(piece)
                room -= len(piece)
        if room <= 0:
            raise RegistryError(f"{self.host}: {step}: the answer is larger than {limit} bytes; it is not read.")
        return b"".join(pieces)

    def refusal_of(self, response: urllib3.BaseHTTPResponse, step: str) -> RegistryError:
        """The error for an answer that is not what was asked for, with the registry's own words."""
        kind = RegistryDenied if response.status in (401, 403) else RegistryError
        reason = f" {response.reason}" if response.reason else ""
        return kind(
            f"{self.host}: {step}: the registry answers {response.status}{reason}.",
            detail=self.conceal(_error_text(response)),
            status=response.status,
            retry_after=_retry_after(response) if response.status in _PASSING else None,
        )

    def hide_secret(self, secret: str) -> None:
        """From now on ``secret`` appears in no message."""
        with self._lock:
            self._secrets.add(secret)

    def conceal(self, text: str) -> str:
        """``text`` without the secrets that are known."""
        with self._lock:
            secrets = sorted(filter(None, self._secrets), key=len, reverse=True)
        for secret in secrets:
            text = text.replace(secret, "***")
        return text

    def _follow_redirects(
        self, method: str, url: str, headers: dict[str, str], body: Body, step: str
    ) -> urllib3.BaseHTTPResponse:
        headers.setdefault("User-Agent", f"arv-docker/{__version__}")
        for _ in range(_MAX_REDIRECTS + 1):
            response = self._pool(url).request(
                method,
                url,
                body=body,
                headers=headers,
                timeout=self._timeout(method),
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
            )
            location = response.headers.get("Location")
            if method not in ("GET", "HEAD") or not 300 <= response.status < 400 or not location:
                return response
            _release(response)
            url, before = self.absolute_url(url, location, step), url
            self.check_redirect(before, url, step)
            if origin_of(url) != origin_of(before):
                headers.pop("Authorization", None)
        raise RegistryError(f"{self.host}: {step}: redirected more than {_MAX_REDIRECTS} times.")

    def absolute_url(self, base: str, url: str, step: str) -> str:
        """The whole of a URL, maybe relative, in an answer of ``base``; raises RegistryError for one that is none."""
        try:
            whole = urljoin(base, url)
            origin_of(whole)
        except ValueError:
            raise RegistryError(f"{self.host}: {step}: the registry gives an address that is none.") from None
        return whole

    def check_redirect(self, before: str, after: str, step: str) -> None:
        """Raises RegistryError where the registry sends us from one URL to another that is not safe."""
        old, new = urlsplit(before), urlsplit(after)
        if new.scheme != "https" and (new.scheme, old.scheme) != ("http", "http"):
            raise RegistryError(f"{self.host}: {step}: a redirect from {old.scheme} to {new.scheme} is not followed.")
        if is_local(new.hostname or "") and not is_local(old.hostname or ""):
            raise RegistryError(f"{self.host}: {step}: a redirect to this machine ({new.hostname}) is not followed.")

    def _pool(self, url: str) -> urllib3.PoolManager:
        """The connections for a URL: with the certificates for its host, through a proxy where one is set."""
        import urllib3

        parts = urlsplit(url)
        host = self.host if origin_of(url) == origin_of(self.base) else parts.netloc
        proxy = proxy_for(parts.scheme, parts.netloc)
        with self._lock:
            if (pool := self._pools.get((proxy, host))) is None:
                many: dict[str, Any] = {"ssl_context": certificates.context(host, self.host), "maxsize": 8}
                pool = proxy_connections(proxy, many) if proxy else urllib3.PoolManager(**many)
                self._pools[proxy, host] = pool
        return pool

    def _timeout(self, method: str) -> urllib3.Timeout:
        import urllib3

        patience = self.patience
        return urllib3.Timeout(connect=patience.connect, read=patience.work if method == "PUT" else patience.read)

    def close(self) -> None:
        """Closes the connections."""
        for pool in self._pools.values():
            pool.clear()


def is_success(response: urllib3.BaseHTTPResponse) -> bool:
    """Whether the registry did as it was told. Which of these statuses it says so with differs, whatever is written."""
    return 200 <= response.status < 300


def is_local(name: str) -> bool:
    """Whether a host's name, as written, means this machine or its network card's own network. Nothing is looked up."""
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


def proxy_for(scheme: str, netloc: str) -> str:
    """The proxy that the environment sets for ``host[:port]`` (``HTTPS_PROXY``, ``NO_PROXY``); empty for none."""
    if is_local(host_name(netloc)) or urllib.request.proxy_bypass(netloc):
        return ""
    return urllib.request.getproxies().get(scheme, "")


def origin_of(url: str) -> tuple[str, str, int | None]:
    """What an Authorization belongs to: scheme, host and port, however they are written; raises ValueError for a port
    that is none. Registries leave out a port that is the usual one."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme)


def _release(response: urllib3.BaseHTTPResponse) -> None:
    """Gives the connection back if little is left to read, else closes it."""
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) <= _MAX_ERROR:
        response.drain_conn()
        response.release_conn()
    else:
        response.close()


def _message_of(error: BaseException) -> str:
    """What urllib3 says, without the object that it says it of."""
    text = str(error)
    return text.rpartition(">: ")[2] or text


def _error_text(response: urllib3.BaseHTTPResponse) -> str:
    """The words in an error's body: those of the distribution API, or the text itself, its first line or so."""
    from urllib3.exceptions import HTTPError

    try:
        raw = response.read(_MAX_ERROR)
    except (HTTPError, OSError):
        return ""
    text = raw.decode(errors="replace")
    with suppress(ValueError, TypeError, AttributeError, RecursionError):
        document = json.loads(text)
        found = [f"{it.get('code')}: {it.get('message')}" for it in document.get("errors", [])]
        text = "\n".join(found) or text
    return text[:_MAX_SHOWN]


def _retry_after(response: urllib3.BaseHTTPResponse) -> float:
    """The seconds that the registry asks to wait: a number, or until a date; 0 where it does not ask."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text[:9])
    with suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    return 0.0

# SPDX-License-Identifier: Apache-2.0
"""Sending blocks to Keep: out of a buffer that is used again, hashed once.

The SDK's own client copies a block and hashes it a second time before it sends it
(docs/decisions/0004-straight-to-the-bytes.md). Here are its rules for the rest, as
docs/spec/arvados-clients.md#keep-client states them: rendezvous order, copies, storage classes, which answers are
tried again. Which services there are, and in what order a block goes to them, the SDK still says.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import BadManifestText, KeepError
from ..local.background import future_of
from ..local.proxy import exceptions_in, is_excepted, proxy_connections
from ..local.retry import Backoff
from ..model.manifest_text import Locator

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, HTTPConnectionPool, PoolManager

log = logging.getLogger(__name__)

_PIECE = 1 << 20
#: Seconds for one piece to be taken, or for the answer: 32 KiB/s and less is no connection.
_PATIENCE = 256
#: Seconds to connect, doubled with each try: to a server in the same building, and through a proxy.
_CONNECT, _CONNECT_PROXY = 2, 20
_FIRST_WAIT, _LONGEST_WAIT = 2.0, 60.0
_JITTER = 0.5
_LONGEST_ANSWER = 4096
#: A number of copies; Python refuses to read one of thousands of digits.
_COUNT = re.compile(r"\s*\d{1,9}\s*", re.ASCII)
_TRIED_AGAIN = frozenset((408, 409, 423, 429, 500, 502, 503, 504))

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class _Answer:
    """Answer of one service. ``copies`` is 0 where it did not store the block; ``classes`` are the copies by storage
    class, None where it knows none; ``final`` says that asking it again is no use."""

    words: str
    copies: int = 0
    classes: Mapping[str, int] | None = field(default_factory=dict)
    locator: str = ""
    final: bool = True


class BlockWriter:
    """Writer of blocks to the services that an SDK Keep client knows. Used by any number of threads."""

    def __init__(self, keep: Any, *, copies: int, retries: int) -> None:
        """``keep`` is the SDK's Keep client; a request that failed is tried ``retries`` times more."""
        self._keep = keep
        self._copies = copies
        self._retries = retries
        self._pools: dict[str | None, PoolManager] = {}
        self._lock = threading.Lock()

    def put(self, content: memoryview, md5: str) -> str:
        """Store a block, whose MD5 in hex is ``md5``, and return its signed locator.

        Raises KeepError if too few copies were stored.
        """
        import arvados
        import arvados.errors

        if getattr(self._keep, "local_store", None):  # $KEEP_LOCAL_STORE: a folder in place of services
            return str(self._keep.put(bytes(content), copies=self._copies))
        if any((_proxy(scheme) or "").startswith("socks") for scheme in ("http", "https")):  # libcurl speaks to those
            return self._put_by_sdk(content)
        locator = arvados.KeepLocator(f"{md5}+{len(content)}")
        block = _Block(self._send, content, md5, self._copies, getattr(self._keep, "_default_classes", ()))
        backoff = Backoff(self._retries + 1, _FIRST_WAIT, _LONGEST_WAIT, jitter=_JITTER)
        for attempt, pause in enumerate((0.0, *backoff.pauses())):
            if attempt:
                log.debug("trying block %s again in %.1f s: %s", md5, pause, "; ".join(block.words.values()))
                time.sleep(pause)
            try:
                roots = self._keep.weighted_service_roots(locator, force_rebuild=attempt > 0, need_writable=True)
            except (arvados.errors.NoKeepServersError, arvados.errors.ApiError, OSError) as error:
                block.words["the list of Keep services"] = str(error)
                continue
            if not roots:
                block.words["Keep"] = "no service is known that may be written to"
                break
            if block.ask_services(roots, self._keep.max_replicas_per_service, attempt):
                return block.locator
            if not block.worth_another_try(roots):
                break
        raise KeepError(
            f"Keep did not store a block of {len(content)} bytes: {block.copies} of {self._copies} copies "
            f"after {attempt + 1} {'tries' if attempt else 'try'}.",
            detail="\n".join(f"{root}: {words}" for root, words in block.words.items()),
        )

    def _send(self, root: str, content: memoryview, md5: str, headers: dict[str, str], attempt: int) -> _Answer:
        """Send a PUT to a service."""
        import arvados.util
        import urllib3

        headers = headers | {
            "Authorization": f"Bearer {self._keep.api_token}",
            "X-Request-Id": arvados.util.new_request_id(),
            "Content-Length": str(len(content)),
        }
        pieces: Any = [content[start : start + _PIECE] for start in range(0, len(content), _PIECE)]
        begun = time.monotonic()
        connect = (_CONNECT_PROXY if self._keep.using_proxy else _CONNECT) * 2**attempt
        try:
            response = self._pool(root).request(
                "PUT",
                root + md5,
                body=pieces,
                headers=headers,
                timeout=urllib3.Timeout(connect=connect, read=_PATIENCE),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            try:
                answer = _answer(response, response.read(_LONGEST_ANSWER), f"{md5}+{len(content)}")
            finally:
                response.close()
            seconds = time.monotonic() - begun
            log.debug("PUT %s%s: status %s, %d bytes in %.2f s", root, md5, response.status, len(content), seconds)
            return answer
        except (urllib3.exceptions.HTTPError, OSError) as error:
            log.debug("PUT %s%s: %s after %.2f s", root, md5, type(error).__name__, time.monotonic() - begun)
            return _Answer(str(error), final="CERTIFICATE_VERIFY_FAILED" in str(error))

    def _put_by_sdk(self, content: memoryview) -> str:
        import arvados.errors

        try:
            return str(self._keep.put(bytes(content), copies=self._copies, num_retries=self._retries))
        except (arvados.errors.KeepWriteError, arvados.errors.NoKeepServersError) as error:
            raise KeepError(f"Keep did not store a block of {len(content)} bytes.", detail=str(error)) from error

    def _pool(self, root: str) -> PoolManager:
        """The connections to a service, through the proxy that the environment names for it."""
        import arvados.util
        import urllib3

        url = urllib.parse.urlsplit(root)
        proxy = _proxy(url.scheme)
        if proxy and is_excepted(exceptions_in(os.environ), url.scheme, url.netloc):
            proxy = None
        with self._lock:
            if proxy not in self._pools:
                tls: dict[str, Any] = (
                    {"cert_reqs": "CERT_NONE"}
                    if self._keep.insecure
                    else {"cert_reqs": "CERT_REQUIRED", "ca_certs": arvados.util.ca_certs_path()}
                )
                if self._keep.insecure:  # the user said so; saying it again for each request is no help
                    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
                many: dict[str, Any] = {"maxsize": 16, **tls}
                pools = (
                    proxy_connections(proxy, many, variable=f"{url.scheme}_proxy")
                    if proxy
                    else urllib3.PoolManager(**many)
                )
                kinds = (urllib3.HTTPConnectionPool, urllib3.HTTPSConnectionPool)
                pools.pool_classes_by_scheme = {str(kind.scheme): _patient(kind) for kind in kinds}
                self._pools[proxy] = pools
            return self._pools[proxy]


class _Block:
    """Block on its way: the copies that are stored, and the services that may still be asked."""

    def __init__(
        self, send: Callable[..., _Answer], content: memoryview, md5: str, copies: int, classes: Sequence[str]
    ) -> None:
        self._send = send
        self._content = content
        self._md5 = md5
        self._wanted = copies
        self._classes: set[str] | None = set(classes)
        self._confirmed: Counter[str] = Counter()
        self._finished: set[str] = set()
        self.copies = 0
        self.locator = ""
        self.words: dict[str, str] = {}

    def ask_services(self, roots: Sequence[str], most_per_service: int | None, attempt: int) -> bool:
        """Ask the services in their order, as many at once as copies are missing; say if the block is stored then."""
        waiting = [root for root in roots if root not in self._finished]
        while waiting and not self._complete:
            together = waiting[: max(1, self._wanted - self.copies) if most_per_service == 1 else 1]
            del waiting[: len(together)]
            headers = {"X-Keep-Desired-Replicas": str(self._wanted)}
            if self._classes:
                headers["X-Keep-Storage-Classes"] = ", ".join(sorted(self._classes))

            def send(root: str, headers: dict[str, str] = headers) -> _Answer:
                return self._send(root, self._content, self._md5, headers, attempt)

            for root, answer in zip(together, at_once(send, together), strict=True):
                self._note(root, answer)
        return self._complete

    def worth_another_try(self, roots: Sequence[str]) -> bool:
        """True if a service is left that may say something else next time."""
        return any(root not in self._finished for root in roots)

    @property
    def _complete(self) -> bool:
        return self.copies >= self._wanted and not self._classes

    def _note(self, root: str, answer: _Answer) -> None:
        self.words[root] = answer.words
        if answer.final:
            self._finished.add(root)
        if not answer.copies:
            return
        self.copies += answer.copies
        self.locator = answer.locator
        if answer.classes is None:
            self._classes = None  # a server that knows none: copies alone count
        elif self._classes is not None:
            self._confirmed.update(answer.classes)
            self._classes -= {name for name, count in self._confirmed.items() if count >= self._wanted}


def _proxy(scheme: str) -> str | None:
    """The proxy that the environment names for a scheme, by libcurl's rule: ``http_proxy`` counts in small letters."""
    names = [f"{scheme}_proxy", *(["HTTPS_PROXY"] if scheme == "https" else []), "all_proxy", "ALL_PROXY"]
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def _patient(pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
    """Connection pool of the same kind, whose connections have _PATIENCE for each piece as soon as they are made.

    urllib3 sends the body with the patience that it had to connect; a busy service takes a block late.
    """
    connection: Any = pool.ConnectionCls

    def connect(self: Any) -> None:
        connection.connect(self)
        self.sock.settimeout(_PATIENCE)

    patient = type(connection.__name__, (connection,), {"connect": connect})
    return type(pool.__name__, (pool,), {"ConnectionCls": patient})


def _answer(response: BaseHTTPResponse, body: bytes, name: str) -> _Answer:
    """Meaning of a service's answer to the PUT of block ``name`` (``md5+size``)."""
    words = f"{response.status} {response.reason or ''}".rstrip()
    if not 200 <= response.status < 300:
        said = " ".join(body[:200].decode("latin-1").split())
        words += f": {said}" if said else ""
        return _Answer(words, final=response.status not in _TRIED_AGAIN)
    locator = body.decode("latin-1").strip()
    if not _is_of(locator, name):
        return _Answer(f"{words}, with another block's locator")
    try:
        copies = max(0, int(response.headers.get("X-Keep-Replicas-Stored", 1)))
    except ValueError:
        copies = 1
    words += f", {copies} {'copy' if copies == 1 else 'copies'}"
    return _Answer(words, copies, _classes(response.headers.get("X-Keep-Storage-Classes-Confirmed")), locator)


def _is_of(text: str, name: str) -> bool:
    """True if the text is a locator, and nothing else, of the block called ``name``."""
    try:
        return Locator.parse(text).without_hints == name
    except BadManifestText:
        return False


def _classes(header: str | None) -> Mapping[str, int] | None:
    """The copies by storage class in ``default=2, archive=1``, none in a malformed text; None without the header."""
    if header is None:
        return None
    found: Counter[str] = Counter()
    for pair in header.split(","):
        name, _, count = pair.partition("=")
        found[name.strip()] += int(count) if _COUNT.fullmatch(count) else 0
    return found


def at_once(call: Callable[[str], Value], items: Sequence[str]) -> list[Value]:
    """Call ``call`` with each item, all at the same time, on threads that nobody has to wait for at the end."""
    if len(items) == 1:
        return [call(items[0])]
    results = [future_of(partial(call, item), "block") for item in items]
    return [result.result() for result in results]

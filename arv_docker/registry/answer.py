# SPDX-License-Identifier: Apache-2.0
"""An answer to one request: the host that gave it, the words, and bounds on reading.

Whoever answers is a stranger: bodies are bounded in size and time, and what they say is shown without the secrets that
this program gave out.
"""

from __future__ import annotations

import email.utils
import io
import json
import time
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING

from ..archive.codecs.decompression import DecompressedStream
from ..errors import ArvDockerError, RegistryDenied, RegistryError
from .cut_off import cutting_off, socket_of

if TYPE_CHECKING:
    import urllib3

#: Statuses that may pass, those of proxies too: what else a registry refuses, it refuses for good. 499 is what
#: distribution says of a body that broke off.
PASSING = frozenset((408, 425, 429, 499, 500, 502, 503, 504, *range(520, 528)))

#: An error's text beyond this is not read, nor waited for longer than so many seconds.
_MAX_ERROR = 64 << 10
_MAX_SHOWN = 1000
_ERROR_SECONDS = 5.0
_PIECE = 64 << 10

#: Encodings of HTTP by the names that they have here.
_ENCODINGS = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate", "zstd": "zstd"}

Read = Callable[[int], bytes]


class Answer:
    """The answer to a request. ``giver`` says in words whose it is, ``url`` where it came from.

    ``is_elsewhere`` is true of one that came from another host than the registry: from storage behind it.
    """

    def __init__(
        self,
        response: urllib3.BaseHTTPResponse,
        *,
        label: str,
        giver: str,
        url: str,
        seconds: float,
        is_elsewhere: bool,
        conceal: Callable[[str], str],
        translated: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """``label`` stands in front of messages, ``seconds`` is what a document may take; ``conceal`` takes secrets
        out of a text, and ``translated`` turns errors of the connection into ours."""
        self.status = response.status
        self.headers = response.headers
        self.giver = giver
        self.url = url
        self.is_elsewhere = is_elsewhere
        self._response = response
        self._label = label
        self._seconds = seconds
        self._conceal = conceal
        self._translated = translated

    @property
    def is_success(self) -> bool:
        """Say if the request was done as told. Which of these statuses a registry then gives differs, whatever is
        written."""
        return 200 <= self.status < 300

    def read_some(self, length: int) -> bytes:
        """Return bytes of the body as they come, at most ``length``; b"" at the end. Raises RegistryError."""
        with self._translated():
            return self._response.read1(length)

    def read_document(self, limit: int) -> bytes:
        """Return the whole body, decoded as its head says.

        Raises RegistryError if it has more than ``limit`` bytes, breaks off, or takes too long.
        """
        pieces = []
        room = limit + 1
        with self._translated(), cutting_off(socket_of(self._response), self._seconds):
            while room > 0 and (piece := self._response.read(min(room, _PIECE))):
                pieces.append(piece)
                room -= len(piece)
        if room <= 0:
            raise self.error(f"the answer is larger than {limit} bytes; it is not read.")
        raw = b"".join(pieces)
        if not self.encoding or raw[:1] in (b"{", b"["):  # some say that they encode, and do not
            return raw
        content = self.decoded_reader(io.BytesIO(raw).read)(limit + 1)
        if len(content) > limit:
            raise self.error(f"the answer is larger than {limit} bytes; it is not read.")
        return content

    @property
    def encoding(self) -> str:
        """The encoding of the body (``Content-Encoding``), which nobody asked for; empty for not at all."""
        text = self.headers.get("Content-Encoding", "")[:100].strip().lower()
        return "" if text == "identity" else text

    def decoded_reader(self, read: Read) -> Read:
        """A reader of the body that ``read`` gives encoded. Raises RegistryError for an encoding that is not known."""
        kind = _ENCODINGS.get(self.encoding)
        if kind is None:
            raise self.error(f"the answer is encoded (Content-Encoding: {self.encoding}), which was not asked for.")
        if kind == "deflate":
            return self._inflate(read)
        content = DecompressedStream(read, kind, what="the answer")

        def read_decoded(length: int) -> bytes:
            try:
                return content.read(length)
            except RegistryError:
                raise
            except ArvDockerError as error:
                raise self._undecodable(error.message) from None

        return read_decoded

    def error(self, message: str) -> RegistryError:
        """An error about this answer that is not transient."""
        return RegistryError(f"{self._label}{message}", status=self.status)

    def refusal(self) -> RegistryError:
        """The error for an unexpected answer, with the words of the host that gave it."""
        kind = RegistryDenied if self.status in (401, 403) else RegistryError
        reason = f" {self._response.reason[:100]}" if self._response.reason else ""
        return kind(
            f"{self._label}{self.giver} answers {self.status}{reason}.",
            detail=self._conceal(self._error_text()),
            status=self.status,
            retry_after=self._retry_after() if self.status in PASSING else None,
        )

    def release(self) -> None:
        """Give the connection back if little is left to read, else close it."""
        from urllib3.exceptions import HTTPError

        length = number_in(self.headers.get("Content-Length"))
        with suppress(HTTPError, OSError):
            if length is not None and length <= _MAX_ERROR:
                with cutting_off(socket_of(self._response), _ERROR_SECONDS):
                    self._response.drain_conn()
                self._response.release_conn()
            else:
                self._response.close()

    def _inflate(self, read: Read) -> Read:
        """A reader of deflate as servers mean it: with zlib's frame, or without."""
        waiting = read(2)
        framed = len(waiting) == 2 and waiting[0] & 15 == 8 and int.from_bytes(waiting, "big") % 31 == 0
        inflater = zlib.decompressobj(15 if framed else -15)

        def read_inflated(length: int) -> bytes:
            nonlocal waiting
            pieces: list[bytes] = []
            while length > 0:
                data = waiting or inflater.unconsumed_tail or read(_PIECE)
                waiting = b""
                try:
                    piece = inflater.decompress(data, length)
                except zlib.error as error:
                    raise self._undecodable(str(error)) from None
                if not piece and not data:
                    break
                pieces.append(piece)
                length -= len(piece)
            return b"".join(pieces)

        return read_inflated

    def _undecodable(self, reason: str) -> RegistryError:
        return self.error(f"the answer is not what its Content-Encoding ({self.encoding}) says: {reason}")

    def _error_text(self) -> str:
        """The words in an error's body: of the distribution API's form, or the beginning of the text."""
        from urllib3.exceptions import HTTPError

        try:
            with cutting_off(socket_of(self._response), _ERROR_SECONDS):
                raw = self._response.read(_MAX_ERROR)
        except (HTTPError, OSError):
            return ""
        with suppress(ArvDockerError):
            raw = self.decoded_reader(io.BytesIO(raw).read)(_MAX_ERROR) if self.encoding else raw
        text = raw.decode(errors="replace")
        with suppress(ValueError, TypeError, AttributeError, RecursionError):
            errors = json.loads(text).get("errors", [])
            text = "\n".join(f"{item.get('code')}: {item.get('message')}" for item in errors[:20]) or text
        return text[:_MAX_SHOWN]

    def _retry_after(self) -> float:
        """The seconds that the host asks to wait: a number, or until a date; 0 where it does not ask."""
        text = self.headers.get("Retry-After", "")[:100].strip()
        if (seconds := number_in(text)) is not None:
            return float(seconds)
        with suppress(ValueError, TypeError, OverflowError):
            return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
        return 0.0


def number_in(text: str | None) -> int | None:
    """The number in a header; None for other texts, and for more than 18 digits."""
    return int(text) if text and len(text) <= 18 and text.isascii() and text.isdecimal() else None

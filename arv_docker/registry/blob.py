# SPDX-License-Identifier: Apache-2.0
"""A blob while it comes from a registry: verified, and taken up again where the connection breaks."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Protocol

from ..errors import DigestMismatch, NotAnImage, RegistryError
from ..model.image import Descriptor
from .answer import Answer, Read, number_in
from .http import Http
from .patience import Attempts

#: Bytes read from a connection at once at most.
_PIECE = 256 << 10
#: A connection that brought less than this is another failure of the same request.
_PROGRESS = 64 << 10
#: The least seconds for which a blob that hardly moves is waited for.
_LEAST_WINDOW = 5.0

#: Layers that their makers alone give out.
_ELSEWHERE = re.compile(r"\.foreign\.|\.nondistributable\.")

#: How a server refuses a part of a blob, if not by sending all of it.
_NO_RANGES = (400, 416, 501)

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.IGNORECASE | re.ASCII)

#: Asks for a blob from an offset on, as one of the tries of its request, and gives the answer with its body unread.
OpenAt = Callable[[int, Attempts], AbstractContextManager[Answer]]


class ReadableBlob(Protocol):
    """A blob's bytes, once, from the front."""

    @property
    def bytes_received(self) -> int:
        """Bytes that came over the network so far."""

    def read(self, length: int) -> bytes:
        """Return ``length`` bytes; fewer only at the end, and only when the whole blob was right."""

    def close(self) -> None:
        """Give up the rest of the blob."""


class BlobReader:
    """A blob's bytes, once, from the front. ``bytes_received`` counts what came over the network, also twice."""

    def __init__(self, http: Http, open_at: OpenAt, descriptor: Descriptor) -> None:
        self._http = http
        self._open_at = open_at
        self._descriptor = descriptor
        self._step = f"reading {descriptor.digest}"
        self._hash = hashlib.new(descriptor.digest.algorithm)
        self._position = 0
        self._attempts: Attempts | None = None
        self._last_break = 0
        self._connection = ExitStack()
        self._answer: Answer | None = None
        self._giver = "the registry"
        self._read_body: Read | None = None
        self._pace = _Pace(http)
        self._is_checked = False
        self._has_ranges = True
        self.bytes_received = 0

    def read(self, length: int) -> bytes:
        """Return ``length`` bytes; fewer only at the end, and only when the whole blob was right.

        Raises DigestMismatch if it was not, or has no end where it should; RegistryError if it
        cannot be had.
        """
        if self._attempts is not None and not self._attempts.failures:
            self._attempts.keep_alive()  # while nobody reads, nothing is waited for
        pieces = []
        while length > 0 and (piece := self._next_piece(length)):
            pieces.append(piece)
            length -= len(piece)
        if length > 0:
            self._check_end()
        return b"".join(pieces)

    def close(self) -> None:
        """Give up the rest of the blob."""
        self._answer = None
        self._connection.close()

    def _next_piece(self, length: int) -> bytes:
        """Return the next bytes; b"" at the end. After a broken connection the reading goes on in that place."""
        while (remaining := self._descriptor.size - self._position) > 0:
            attempts = self._attempts = self._attempts or Attempts(self._http.patience)
            try:
                if self._answer is None:
                    self._connect(attempts)
                content = self._read_some(min(length, remaining, _PIECE), attempts)
                if not content:
                    raise self._interruption(
                        f"the connection ended after {self._position} of {self._descriptor.size} bytes"
                    )
            except RegistryError as error:
                self._pause(error, attempts)
                continue
            self._hash.update(content)
            self._position += len(content)
            return content
        return b""

    def _pause(self, error: RegistryError, attempts: Attempts) -> None:
        self.close()
        if self._position - self._last_break >= _PROGRESS:
            attempts.restart()
        self._last_break = self._position
        attempts.wait_after(error)

    def _connect(self, attempts: Attempts) -> None:
        start = self._position if self._has_ranges else 0
        self._answer = answer = self._connection.enter_context(self._open_at(start, attempts))
        self._giver = answer.giver
        self._read_body = answer.read_some
        self._pace.restart()
        if answer.status in _NO_RANGES and start:
            self._has_ranges = False
            raise self._interruption(f"it gives no part of the blob (status {answer.status})")
        if answer.status == 200:
            self._expect_whole(answer, attempts)
        elif answer.status == 206:
            self._check_range(answer.headers.get("Content-Range", ""))
            self._check_length(answer, self._descriptor.size - self._position)
        elif answer.status == 404 and _ELSEWHERE.search(self._descriptor.media_type):
            raise NotAnImage(
                f"{self._http.host} does not have the layer {self._descriptor.digest}, only the addresses of those who "
                "may give it out, as with Windows: images with such layers cannot be read here. Push the image again "
                "with all its layers (Docker: allow-nondistributable-artifacts)."
            )
        else:
            raise answer.refusal()

    def _expect_whole(self, answer: Answer, attempts: Attempts) -> None:
        """Go to where the last connection broke, in an answer that begins at the front."""
        if answer.encoding and not self._is_as_named(answer):
            self._has_ranges = False  # of what is encoded, they would be others
            self._read_body = answer.decoded_reader(answer.read_some)
        else:
            self._check_length(answer, self._descriptor.size)
        skipped = 0
        while skipped < self._position:  # a server without ranges
            content = self._read_some(min(_PIECE, self._position - skipped), attempts)
            if not content:
                raise self._interruption("the connection ended")
            skipped += len(content)

    def _is_as_named(self, answer: Answer) -> bool:
        """Tell if the encoding in the answer's head is the layer's own, as storage says of a file that it got so."""
        return number_in(answer.headers.get("Content-Length")) == self._descriptor.size

    def _read_some(self, length: int, attempts: Attempts) -> bytes:
        assert self._read_body is not None
        before = self._http.patience.clock()
        content = self._read_body(length)  # what is there; with more, a break would lose what came
        self.bytes_received += len(content)
        if self._pace.is_too_slow(len(content), self._http.patience.clock() - before, attempts):
            raise self._interruption(f"it gives less than {self._http.patience.slowest} bytes a second")
        return content

    def _check_range(self, text: str) -> None:
        match = _CONTENT_RANGE.fullmatch(text.strip())
        total = str(self._descriptor.size)
        if not match or int(match[1]) != self._position or match[3] not in ("*", total):
            raise self._interruption(
                f"it was asked for bytes from {self._position} of {total} on, and answers {text[:100]!r}"
            )

    def _check_length(self, answer: Answer, expected: int) -> None:
        length = number_in(answer.headers.get("Content-Length"))
        if length is not None and length > expected:
            raise self._too_long()

    def _check_end(self) -> None:
        """Judge the blob, once it has been read."""
        if self._is_checked:
            return
        if self._answer is not None and self._read_body is not None:
            try:
                more = self._read_body(1)
            except RegistryError:
                more = b""  # nothing was to come
            if more:
                raise self._too_long()
        self.close()
        self._is_checked = True
        if self._hash.hexdigest() != self._descriptor.digest.hex:
            raise DigestMismatch(
                f"{self._http.host}: {self._giver} gives other bytes for {self._descriptor.digest}: they hash to "
                f"{self._descriptor.digest.algorithm}:{self._hash.hexdigest()}. Nothing of this image is used."
            )

    def _too_long(self) -> DigestMismatch:
        self.close()
        return DigestMismatch(
            f"{self._http.host}: {self._giver} gives more than the {self._descriptor.size} bytes that "
            f"{self._descriptor.digest} has. Nothing of this image is used."
        )

    def _interruption(self, reason: str) -> RegistryError:
        return RegistryError(f"{self._http.host}: {self._step}: {reason} ({self._giver}).", retry_after=0.0)


class _Pace:
    """The pace of a body, over windows of some seconds in which a reader waited."""

    def __init__(self, http: Http) -> None:
        self._patience = http.patience
        self.restart()

    def restart(self) -> None:
        """Begin a window."""
        self._bytes, self._seconds = 0, 0.0

    def is_too_slow(self, count: int, seconds: float, attempts: Attempts) -> bool:
        """Count bytes and seconds; tell if the window that ends here brought too little.

        Bytes that move keep a request alive.
        """
        self._bytes += count
        self._seconds += seconds
        window = max(_LEAST_WINDOW, min(self._patience.window, attempts.remaining))
        if self._seconds < window:
            if self._bytes >= _PROGRESS:
                attempts.keep_alive()
            return False
        if self._bytes < self._patience.slowest * self._seconds:
            return True
        attempts.keep_alive()
        self.restart()
        return False

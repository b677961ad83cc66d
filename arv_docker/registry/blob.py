# SPDX-License-Identifier: Apache-2.0
"""A blob while it comes from a registry: verified, and taken up again where the connection breaks."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING

from ..errors import DigestMismatch, NotAnImage, RegistryError
from ..model.image import Descriptor
from .http import Http

if TYPE_CHECKING:
    import urllib3

#: Bytes read from a connection at once at most.
_PIECE = 256 << 10
#: A connection that brought less than this is another failure of the same request.
_PROGRESS = 64 << 10

#: Layers that their makers alone give out.
_ELSEWHERE = re.compile(r"\.foreign\.|\.nondistributable\.")

#: How a server refuses a part of a blob, if not by sending all of it.
_NO_RANGES = (400, 416, 501)

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")

#: Asks for a blob from an offset on, and gives the answer with its body unread.
OpenAt = Callable[[int], AbstractContextManager["urllib3.BaseHTTPResponse"]]


class BlobReader:
    """A blob's bytes, once, from the front. ``bytes_received`` counts what came over the network, also twice."""

    def __init__(self, http: Http, open_at: OpenAt, descriptor: Descriptor) -> None:
        self._http = http
        self._open_at = open_at
        self._descriptor = descriptor
        self._step = f"reading {descriptor.digest}"
        self._hash = hashlib.new(descriptor.digest.algorithm)
        self._position = 0
        self._failures = 0
        self._last_break = 0
        self._connection = ExitStack()
        self._response: urllib3.BaseHTTPResponse | None = None
        self._is_checked = False
        self._has_ranges = True
        self.bytes_received = 0

    def read(self, length: int) -> bytes:
        """``length`` bytes; fewer only at the end, and only when the whole blob was right.

        Raises DigestMismatch if it was not, or has no end where it should; RegistryError if it
        cannot be had.
        """
        pieces = []
        while length > 0 and (piece := self._piece(length)):
            pieces.append(piece)
            length -= len(piece)
        if length > 0:
            self._end()
        return b"".join(pieces)

    def close(self) -> None:
        """Gives up what is still to come."""
        self._response = None
        self._connection.close()

    def _piece(self, length: int) -> bytes:
        """Some bytes; none at the end. However often the connection breaks, it goes on where it broke."""
        while (remaining := self._descriptor.size - self._position) > 0:
            try:
                if self._response is None:
                    self._connect()
                content = self._read_some(min(length, remaining, _PIECE))
                if not content:
                    raise self._interruption(
                        f"the connection ended after {self._position} of {self._descriptor.size} bytes"
                    )
            except RegistryError as error:
                self._pause(error)
                continue
            self._hash.update(content)
            self._position += len(content)
            return content
        return b""

    def _pause(self, error: RegistryError) -> None:
        self.close()
        if self._position - self._last_break >= _PROGRESS:
            self._failures = 0
        self._last_break = self._position
        self._failures += 1
        if self._failures >= self._http.patience.tries:
            raise error
        self._http.patience.wait(error, self._failures)

    def _connect(self) -> None:
        self._response = response = self._connection.enter_context(
            self._open_at(self._position if self._has_ranges else 0)
        )
        if response.status in _NO_RANGES and self._position and self._has_ranges:
            self._has_ranges = False
            raise self._interruption(f"it gives no part of the blob (status {response.status})")
        if response.status == 200:
            self._check_length(response, self._descriptor.size)
            skipped = 0
            while skipped < self._position:  # a server without ranges
                content = self._read_some(min(_PIECE, self._position - skipped))
                if not content:
                    raise self._interruption("the connection ended")
                skipped += len(content)
        elif response.status == 206:
            self._check_range(response.headers.get("Content-Range", ""))
            self._check_length(response, self._descriptor.size - self._position)
        elif response.status == 404 and _ELSEWHERE.search(self._descriptor.media_type):
            raise NotAnImage(
                f"{self._http.host} does not have the layer {self._descriptor.digest}, only the addresses of those who "
                "may give it out, as with Windows: images with such layers cannot be read here. Push the image again "
                "with all its layers (Docker: allow-nondistributable-artifacts)."
            )
        else:
            raise self._http.refusal_of(response, self._step)

    def _read_some(self, length: int) -> bytes:
        assert self._response is not None
        with self._http.translated_errors(self._step):
            content = self._response.read1(length)  # what is there; with more, a break would lose what came
        self.bytes_received += len(content)
        return content

    def _check_range(self, text: str) -> None:
        match = _CONTENT_RANGE.fullmatch(text)
        total = str(self._descriptor.size)
        if not match or int(match[1]) != self._position or match[3] not in ("*", total):
            raise self._interruption(
                f"it was asked for bytes from {self._position} of {total} on, and answers {text!r}"
            )

    def _check_length(self, response: urllib3.BaseHTTPResponse, expected: int) -> None:
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) > expected:
            raise self._too_long()

    def _end(self) -> None:
        """Judges the blob, once it has been read."""
        if self._is_checked:
            return
        if self._response is not None:
            try:
                more = self._read_some(1)
            except RegistryError:
                more = b""  # nothing was to come
            if more:
                raise self._too_long()
        self.close()
        self._is_checked = True
        if self._hash.hexdigest() != self._descriptor.digest.hex:
            raise DigestMismatch(
                f"{self._http.host} gives other bytes for {self._descriptor.digest}: they hash to "
                f"{self._descriptor.digest.algorithm}:{self._hash.hexdigest()}. Nothing of this image is used."
            )

    def _too_long(self) -> DigestMismatch:
        self.close()
        return DigestMismatch(
            f"{self._http.host} gives more than the {self._descriptor.size} bytes that {self._descriptor.digest} has. "
            "Nothing of this image is used."
        )

    def _interruption(self, reason: str) -> RegistryError:
        return RegistryError(f"{self._http.host}: {self._step}: {reason}.", retry_after=0.0)

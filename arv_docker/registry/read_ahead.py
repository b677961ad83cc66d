# SPDX-License-Identifier: Apache-2.0
"""Reading ahead: a thread reads while another party works on what came, and a bounded part waits in between."""

from __future__ import annotations

import queue
import threading
from contextlib import closing

from ..local.background import future_of
from .blob import ReadableBlob

#: Bytes that are read at once, and how many such pieces wait.
_PIECE = 512 << 10
_WAITING = 32


class ReadAhead:
    """A blob's bytes, read by a thread that begins at once. At most 16 MiB wait. Errors come up where they happened."""

    def __init__(self, blob: ReadableBlob) -> None:
        """Begin to read; the thread closes ``blob`` when it ends."""
        self._blob = blob
        self._pieces: queue.Queue[bytes | BaseException] = queue.Queue(_WAITING)
        self._rest = memoryview(b"")
        self._is_over = False
        self._stop = threading.Event()
        future_of(self._run, "read-ahead")

    def read(self, length: int) -> bytes:
        """Return ``length`` bytes; fewer only at the end. Raises what reading raised."""
        pieces = []
        while length > 0 and (piece := self._next(length)):
            pieces.append(piece)
            length -= len(piece)
        return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)

    @property
    def bytes_received(self) -> int:
        """Bytes that came over the network so far."""
        return self._blob.bytes_received

    def close(self) -> None:
        """Have the thread end after the read that it waits for; nothing more is read then."""
        self._stop.set()
        while not self._pieces.empty():
            self._pieces.get()

    def _next(self, most: int) -> memoryview:
        while not self._rest and not self._is_over:
            came = self._pieces.get()
            if isinstance(came, BaseException):
                self._is_over = True
                raise came
            self._rest = memoryview(came)
            self._is_over = len(came) < _PIECE
        piece, self._rest = self._rest[:most], self._rest[most:]
        return piece

    def _run(self) -> None:
        try:
            with closing(self._blob):
                while not self._stop.is_set():
                    piece = self._blob.read(_PIECE)
                    self._pieces.put(piece)
                    if len(piece) < _PIECE:
                        return
        except BaseException as error:  # noqa: BLE001 -- it goes on to whoever reads
            self._pieces.put(error)

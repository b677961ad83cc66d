# SPDX-License-Identifier: Apache-2.0
"""A blob on its way to a registry: sent once, and taken up again where the connection breaks."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from ..errors import RegistryError
from ..local.background import future_of
from ..model.image import Descriptor, Digest
from .answer import Answer
from .authorization import Scopes
from .http import Body
from .patience import Attempts

if TYPE_CHECKING:
    from .client import Client

#: Bytes that are handed to a connection at once.
_PIECE = 256 << 10
#: A quarter of this is what one request carries at most, once a larger one was too large for a proxy before the
#: registry (status 413), or came to nothing twice: something may end requests that take long. Then a quarter of that.
_MUCH = 256 << 20
_LEAST = 1 << 20
_BEGIN_AGAIN = 8
_TOO_LARGE = 413
_BUSY = 429
#: How a registry refuses a further part of a blob if it knows no parts, or has lost the first.
_NO_PARTS = (400, 404, 405, 416, 501)
#: How it says that it has no such upload, or not as far as we thought.
_FORGOTTEN = (404, 416)
#: And what it says of an upload that has other bytes than we think: DIGEST_INVALID among them.
_STATE_UNKNOWN = (400, 404, 409, 416, 422)

_RANGE = re.compile(r"(?:bytes[= ])?0-(\d{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes at hand, to be read at any place as often as it takes: ``read_at`` of offset and length."""

    descriptor: Descriptor
    read_at: Callable[[int, int], bytes] = field(repr=False)

    def part(self, start: int, end: int) -> Part:
        """The bytes from ``start`` to before ``end``."""
        return Part(self, start, end)

    @classmethod
    def of(cls, content: bytes, media_type: str) -> Blob:
        """The blob of bytes in memory."""
        return cls(
            Descriptor(media_type, Digest.of(content), len(content)),
            lambda offset, length: content[offset : offset + length],
        )


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a blob as the body of a request, which may have to be sent again."""

    blob: Blob
    start: int
    end: int

    def __iter__(self) -> Iterator[bytes]:
        position = self.start
        while position < self.end:
            content = self.blob.read_at(position, min(_PIECE, self.end - position))
            position += len(content)
            yield content

    def __len__(self) -> int:
        return self.end - self.start


class Upload:
    """One blob into one repository. ``bytes_sent`` counts the bytes that were handed to the network."""

    def __init__(self, client: Client, repository: str, blob: Blob) -> None:
        self._client = client
        self._repository = repository
        self._blob = blob
        self._step = f"pushing {blob.descriptor.digest} to {repository}"
        self._attempts = Attempts(client.http.patience)
        self._location: str | None = None
        self._offset = 0
        self._part_size = blob.descriptor.size
        self._is_split = False
        self._is_resumed = False
        self._must_split = False
        self._may_split = True
        self._beginnings = 0
        self.bytes_sent = 0

    def run(self) -> None:
        """Have the registry have the blob, unless it has it already.

        Raises RegistryError, after as many failures in a row as the client's patience allows.
        """
        if self._client.has_blob(self._repository, self._blob.descriptor.digest):
            return
        progress = 0
        while True:
            try:
                if self._attempts.failures and self._answer_was_lost():
                    return
                if self._location is not None and self._attempts.failures:
                    self._ask_offset()
                if self._location is None:
                    self._begin_upload()
                self._send_all()
                return
            except RegistryError as error:
                failed = error
            if self._in_another_way(failed):
                continue
            if self._offset > progress:
                self._attempts.restart()
            progress = max(progress, self._offset)
            self._attempts.wait_after(failed)
            if self._attempts.failures > 1 and failed.status != _BUSY and self._may_split:
                self._take_less()

    # -- steps ---------------------------------------------------------------------------

    @contextmanager
    def _send(self, method: str, url: str, headers: dict[str, str], body: Body = None) -> Iterator[Answer]:
        with self._client.send(
            method,
            url,
            headers,
            scopes=push_scopes(self._repository),
            step=self._step,
            body=body,
            attempts=self._attempts,
        ) as answer:
            yield answer

    def _begin_upload(self) -> None:
        self._beginnings += 1
        if self._beginnings > _BEGIN_AGAIN:
            raise RegistryError(
                f"{self._client.host}: {self._step}: the registry forgets what was sent, again and again."
            )
        path = f"/v2/{self._repository}/blobs/uploads/"
        with self._send("POST", path, {"Content-Length": "0"}) as answer:
            if not answer.is_success or not answer.headers.get("Location"):
                raise answer.refusal()
            self._note_location(path, answer)
        self._offset = 0
        self._is_resumed = False
        self._is_split = self._part_size < self._blob.descriptor.size

    def _ask_offset(self) -> None:
        """Ask how much arrived. Where that is not known for sure, or the registry takes no parts, begin anew: bytes
        that came too often make another blob."""
        asked = self._location
        assert asked is not None
        if not self._may_split:
            self._location = None
            return
        with self._send("GET", asked, {}) as answer:
            arrived = self._offset_in(answer.headers.get("Range", "")) if answer.status == 204 else 0
            if not arrived:
                self._location = None
                return
            self._note_location(asked, answer)
        self._offset = arrived
        self._is_resumed = self._is_split = True

    def _note_location(self, asked: str, answer: Answer) -> None:
        """Note the location to go on at, by the answer to a request to ``asked``, which may be anywhere."""
        base = self._client.http.absolute_url(self._client.http.base, asked, self._step)
        self._location = self._client.http.absolute_url(base, answer.headers.get("Location") or base, self._step)

    def _send_all(self) -> None:
        size = self._blob.descriptor.size
        while self._offset < size:
            part = self._blob.part(self._offset, min(size, self._offset + self._part_size))
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(part))}
            if self._is_split:  # else GitHub's takes 4 MiB at most, and calls more a wrong range
                headers["Content-Range"] = f"{part.start}-{part.end - 1}"
            self._offset = self._send_request("PATCH", self._location or "", headers, part)
        mark = "&" if "?" in (self._location or "") else "?"
        url = f"{self._location}{mark}{urlencode({'digest': str(self._blob.descriptor.digest)})}"
        self._send_request("PUT", url, {"Content-Length": "0"}, None)

    def _send_request(self, method: str, url: str, headers: dict[str, str], part: Part | None) -> int:
        body = _CountedBody(part, self) if part else None
        with self._send(method, url, headers, body) as answer:
            if not answer.is_success:
                raise answer.refusal()
            if part:
                self._note_location(url, answer)
            return part.end if part else self._offset

    def count_sent(self, count: int) -> None:
        """Note that so many bytes were handed to the network."""
        self.bytes_sent += count
        self._attempts.keep_alive()

    # -- after a failure ------------------------------------------------------------------

    def _in_another_way(self, error: RegistryError) -> bool:
        """Tell if the upload goes on at once after a refusal: in smaller parts, whole, or from the beginning."""
        if error.status == _TOO_LARGE and self._part_size > _LEAST:
            self._must_split = True
            self._take_less()
        elif error.status in _NO_PARTS and not self._must_split and self._sent_part(error):
            self._may_split = False
            self._part_size = self._blob.descriptor.size
        elif error.status not in _STATE_UNKNOWN or self._location is None:
            return False
        elif error.status not in _FORGOTTEN and not self._is_resumed:
            return False  # else the registry may have told us too much, or too little
        self._location = None
        self._is_resumed = False
        return True

    def _sent_part(self, error: RegistryError) -> bool:
        """Tell if a part of the blob was refused: one of several, or the rest after a break."""
        size = self._blob.descriptor.size
        return self._part_size < size or (error.status not in _FORGOTTEN and 0 < self._offset < size)

    def _take_less(self) -> None:
        """Have a request carry less from now on."""
        self._part_size = max(_LEAST, min(self._part_size, _MUCH) // 4)

    def _answer_was_lost(self) -> bool:
        """Tell if the blob is there after all: the registry's last word may have got lost."""
        return self._offset == self._blob.descriptor.size and self._client.look_for_blob(
            self._repository, self._blob.descriptor.digest, self._attempts
        )

    def _offset_in(self, text: str) -> int:
        """The bytes that arrived by a ``Range`` header; 0 if it does not say, or says more than there are."""
        match = _RANGE.fullmatch(text.strip())
        arrived = int(match[1]) + 1 if match else 0
        return arrived if 1 < arrived <= self._blob.descriptor.size else 0  # "0-0" is what nothing is called


class _CountedBody:
    """A body that reports how many bytes were taken."""

    def __init__(self, part: Part, upload: Upload) -> None:
        self._part = part
        self._upload = upload

    def __iter__(self) -> Iterator[bytes]:
        for content in self._part:
            yield content
            self._upload.count_sent(len(content))


def push_scopes(repository: str) -> Scopes:
    """The scopes that writing to a repository needs."""
    return (f"repository:{repository}:pull,push",)


class Uploads:
    """Work on a few threads at once; each piece returns the number of bytes sent.

    The threads are daemons: who gives up, on an error or Ctrl-C, does not wait for a request that is tried again.
    """

    def __init__(self, most: int = 3) -> None:
        self._room = threading.Semaphore(most)
        self._results: list[Future[int]] = []
        self._failed: BaseException | None = None

    def begin(self, work: Callable[[], int]) -> None:
        """Begin the work when there is room. Raises what earlier work failed with."""
        self._room.acquire()
        if self._failed is not None:
            self._room.release()
            raise self._failed
        self._results.append(future_of(partial(self._run, work), "upload"))

    def finish(self) -> int:
        """Wait for all work and return the sum of the bytes. Raises the first failure at once."""
        wait_for(self._results, return_when=FIRST_EXCEPTION)
        if self._failed is not None:
            raise self._failed
        return sum(result.result() for result in self._results)

    def _run(self, work: Callable[[], int]) -> int:
        try:
            return work()
        except BaseException as error:
            self._failed = self._failed or error
            raise
        finally:
            self._room.release()

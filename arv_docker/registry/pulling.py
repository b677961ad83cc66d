# SPDX-License-Identifier: Apache-2.0
"""A repository, read from the registry's mirrors or from the registry.

A mirror only helps: whatever it answers that is not what was asked for (a login page, an older form, nothing, silence,
other bytes) is passed over, with one line that names it. What a mirror gives is checked whole before it is used.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TypeVar

from ..errors import ArvDockerError, ContentError, DiskError, NoSuchImage, RegistryError
from ..local.disk import disk_errors
from ..model.image import Descriptor, Digest
from ..model.manifest import Index, Manifest, parse
from .blob import ReadableBlob
from .client import Client, Document
from .mirrors import Place

log = logging.getLogger(__name__)

Result = TypeVar("Result")

#: A blob of a mirror beyond this many bytes waits on disk until it is checked, in a file without a name.
_IN_MEMORY = 16 << 20
_PIECE = 1 << 20


class RepositoryReader:
    """A repository, each document and blob read from the first place that has it. To be closed after use.

    ``host`` is where the last manifest came from, the registry if that was passed over since. May be used by several
    threads at once.
    """

    def __init__(
        self,
        mirrors: Sequence[tuple[Place, Client]],
        place: Place,
        make_client: Callable[[], Client],
        folder: Callable[[], Path],
    ) -> None:
        """``place`` is in the registry itself, and ``make_client`` makes the client for that, if no mirror will do;
        ``folder`` says where large blobs of mirrors wait."""
        self._mirrors = list(mirrors)
        self._place = place
        self._make_client = make_client
        self._made_client: Client | None = None
        self._lock = threading.Lock()
        self._folder = folder
        self._named: set[str] = set()
        self.host = place.host
        self.repository = place.repository

    def manifest(self, name: str | Digest) -> tuple[Document, Manifest | Index]:
        """The manifest or index of a tag or digest, with the parsed form. Raises as ``Client.manifest`` does."""

        def read(client: Client, repository: str) -> tuple[Document, Manifest | Index]:
            document = client.manifest(repository, name)
            self.host = client.host
            return document, parse(document.raw, what=f"{client.host}/{repository}")

        return self._read_first(read)

    def read_document(self, descriptor: Descriptor) -> bytes:
        """A small blob, whole and checked. Raises what ``Client.read_document`` does."""
        return self._read_first(lambda client, repository: client.read_document(repository, descriptor))

    def blob(self, descriptor: Descriptor) -> ReadableBlob:
        """A blob to be read from the front; nothing is requested before the first read. The reader closes it."""
        if self._mirrors:
            return _CheckedBlob(self, descriptor)
        return self._client.blob(self._place.repository, descriptor)

    def blob_of_registry(self, descriptor: Descriptor) -> ReadableBlob:
        """A blob of the registry itself, as ``blob`` has it where there are no mirrors."""
        return self._client.blob(self._place.repository, descriptor)

    def from_mirrors(self, read: Callable[[Client, str], Result]) -> Result | None:
        """Return the result of ``read`` for the first mirror that succeeds; None if all fail."""
        for place, client in list(self._mirrors):
            try:
                return read(client, place.repository)
            except (NoSuchImage, RegistryError, ContentError, DiskError) as error:
                self._pass_over(place, client, error)
        return None

    def pass_over(self, host: str, error: ArvDockerError) -> bool:
        """Go on without the mirror at ``host``, whose manifest is not that of what is meant; False if there is none."""
        for place, client in self._mirrors:
            if client.host == host:
                self._drop(client)
                self._warn(place, error)
                return True
        return False

    def folder_of_blobs(self) -> Path:
        """The folder where large blobs of mirrors wait until they are checked."""
        return self._folder()

    def close(self) -> None:
        """Close all connections."""
        for _, client in self._mirrors:
            client.close()
        if self._made_client is not None:
            self._made_client.close()

    @property
    def _client(self) -> Client:
        """The client for the registry itself."""
        with self._lock:
            self._made_client = self._made_client or self._make_client()
            return self._made_client

    def _read_first(self, read: Callable[[Client, str], Result]) -> Result:
        found = self.from_mirrors(read)
        return read(self._client, self._place.repository) if found is None else found

    def _pass_over(self, place: Place, client: Client, error: ArvDockerError) -> None:
        """Go on without a mirror: for this request if the mirror lacks something, else for good."""
        is_missing = isinstance(error, NoSuchImage) or (isinstance(error, RegistryError) and error.status == 404)
        if not is_missing and not isinstance(error, DiskError):
            self._drop(client)
        if isinstance(error, NoSuchImage) and self.host != client.host:
            log.debug("the mirror %s lacks it: %s", place.host, error.message)
        else:
            self._warn(place, error)
        if self.host == client.host:
            self.host = self._place.host

    def _drop(self, client: Client) -> None:
        self._mirrors = [pair for pair in self._mirrors if pair[1] is not client]
        client.close()

    def _warn(self, place: Place, error: ArvDockerError) -> None:
        """Name a mirror that is passed over, once."""
        if place.host not in self._named:
            self._named.add(place.host)
            log.warning("The mirror %s is passed over: %s", place.host, error.message)


class _CheckedBlob:
    """A blob of a mirror, or of the registry if no mirror gives it right. It is read whole before its first byte is
    handed out: nobody can take back what turns out to be wrong at its end."""

    def __init__(self, places: RepositoryReader, descriptor: Descriptor) -> None:
        self._places = places
        self._descriptor = descriptor
        self._content: IO[bytes] | None = None
        self._blob: ReadableBlob | None = None
        self._received = 0

    @property
    def bytes_received(self) -> int:
        """Bytes that came over the network so far, of all places."""
        return self._received + (self._blob.bytes_received if self._blob else 0)

    def read(self, length: int) -> bytes:
        """Return ``length`` bytes; fewer only at the end. Raises what the registry's own blob raises."""
        if self._content is None and self._blob is None:
            self._content = self._places.from_mirrors(self._fetch)
            if self._content is None:
                self._blob = self._places.blob_of_registry(self._descriptor)
        if self._content is not None:
            return self._content.read(length)
        assert self._blob is not None
        return self._blob.read(length)

    def close(self) -> None:
        """Give up the rest of the blob."""
        if self._content is not None:
            self._content.close()
        if self._blob is not None:
            self._blob.close()

    def _fetch(self, client: Client, repository: str) -> IO[bytes]:
        folder = self._places.folder_of_blobs() if self._descriptor.size > _IN_MEMORY else None
        content: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(folder) if folder else None)  # noqa: SIM115
        blob = client.blob(repository, self._descriptor)
        try:
            while piece := blob.read(_PIECE):
                if folder is None:
                    content.write(piece)
                else:
                    with disk_errors(folder):
                        content.write(piece)
        except BaseException:
            content.close()
            raise
        finally:
            self._received += blob.bytes_received
            blob.close()
        content.seek(0)
        return content

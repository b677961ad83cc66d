# SPDX-License-Identifier: Apache-2.0
"""One registry, as the OCI distribution specification has it: manifests and blobs, read and written, lists, deletion.

Knows of bytes and digests; what an image is, is known above. Everything read is checked
against the digest that names it before anybody gets to see it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import BadReference, DigestMismatch, NoSuchImage, RegistryError
from ..image import MAX_JSON_SIZE, OCI_INDEX, OCI_MANIFEST, Descriptor, Digest
from ..manifest import HASHES
from ..reference import DEFAULT_REGISTRY
from .authorization import Authorization, Scopes
from .blob import BlobReader
from .credentials import Provider, Wallet, configured
from .http import Http, Patience, host_name, is_local

if TYPE_CHECKING:
    import urllib3

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"

#: Docker Hub's API has a host of its own.
_HUB_API = "registry-1.docker.io"
_ACCEPT = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST))


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or index as the registry has it."""

    raw: bytes
    digest: Digest
    media_type: str


class Client:
    """A registry. May be used by several threads at once."""

    def __init__(
        self,
        host: str,
        provider: Provider | None = None,
        *,
        insecure: bool = False,
        patience: Patience | None = None,
    ) -> None:
        """``host`` may have a port. ``provider`` gives credentials; those of Docker's and Podman's configuration
        unless given. ``insecure`` is HTTP without TLS, for a registry on this machine alone: raises RegistryError
        for one whose name is not of this machine."""
        if insecure and not is_local(host_name(host)):
            raise RegistryError(
                f"{host}: --insecure is for registries on this machine (localhost, 127.0.0.1, [::1]) alone. "
                "Give this one a certificate; its authority can be put where --help says."
            )
        self.host = host
        self.http = Http(_HUB_API if host == DEFAULT_REGISTRY else host, plain=insecure, patience=patience)
        self._authorization = Authorization(self.http, Wallet(provider or configured(host)))

    # -- reading -------------------------------------------------------------------------

    def manifest(self, repository: str, name: str | Digest) -> Document:
        """The manifest or index of a tag or digest.

        Raises NoSuchImage if there is none, DigestMismatch if it is not what names it, RegistryError.
        """
        step = f"reading the manifest of {repository}{'@' if isinstance(name, Digest) else ':'}{name}"

        def once() -> Document:
            headers = {"Accept": _ACCEPT}
            path = f"/v2/{repository}/manifests/{name}"
            with self.send("GET", path, headers, scopes=pulling(repository), step=step) as response:
                if response.status == 404:
                    raise NoSuchImage(
                        f"{self.host} has no {repository}{'@' if isinstance(name, Digest) else ':'}{name}.",
                        detail=self.http.refusal(response, step).detail,
                    )
                if response.status != 200:
                    raise self.http.refusal(response, step)
                raw = self.http.content(response, MAX_JSON_SIZE, step)
                claimed = name if isinstance(name, Digest) else _digest(response.headers.get("Docker-Content-Digest"))
                media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
            return Document(raw, self._checked(raw, claimed), media_type)

        return self.http.patience.run(once)

    def blob(self, repository: str, descriptor: Descriptor) -> BlobReader:
        """A blob, to be read from its front; nothing is asked for until then. Whoever reads it closes it."""
        step = f"reading {descriptor.digest} of {repository}"
        path = f"/v2/{repository}/blobs/{descriptor.digest}"

        @contextmanager
        def open_at(offset: int) -> Iterator[urllib3.BaseHTTPResponse]:
            headers = {"Range": f"bytes={offset}-"} if offset else {}
            with self.send("GET", path, headers, scopes=pulling(repository), step=step) as response:
                yield response

        return BlobReader(self.http, open_at, descriptor)

    def document(self, repository: str, descriptor: Descriptor) -> bytes:
        """A small blob, whole and checked: a config. Raises RegistryError if it is larger than 4 MiB."""
        if descriptor.size > MAX_JSON_SIZE:
            raise RegistryError(
                f"{self.host}: the config {descriptor.digest} of {repository} is {descriptor.size} bytes; "
                f"more than {MAX_JSON_SIZE} are not read."
            )
        reader = self.blob(repository, descriptor)
        try:
            return reader.read(descriptor.size + 1)
        finally:
            reader.close()

    # -- the conversation -----------------------------------------------------------------

    @contextmanager
    def send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        *,
        scopes: Scopes,
        step: str,
        body: bytes | None = None,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """The answer to one request with whatever authorization the registry wants for ``scopes``.

        What it refuses is renewed once. Raises RegistryError: RegistryDenied if that is refused too.
        """
        authorization = self._authorization.header(scopes)
        renewals = 1 if authorization else 2  # the first only says what the registry wants
        while True:
            sent = dict(headers or {})
            if authorization:
                sent["Authorization"] = authorization
            with self.http.send(method, path, sent, body=body, step=step) as response:
                if response.status != 401:
                    yield response
                    return
                refusal = self.http.refusal(response, step)
                wanted = ", ".join(response.headers.getlist("WWW-Authenticate"))
            renewed = self._authorization.renewed(scopes, wanted, authorization) if renewals else None
            if renewed is None:
                raise refusal
            authorization = renewed
            renewals -= 1

    def close(self) -> None:
        """Closes the connections."""
        self.http.close()

    def _checked(self, raw: bytes, claimed: Digest | None) -> Digest:
        """The digest of a manifest; raises DigestMismatch if it is called by another."""
        algorithm = claimed.algorithm if claimed else "sha256"
        found = Digest(algorithm, hashlib.new(algorithm, raw).hexdigest())
        if claimed is not None and found != claimed:
            raise DigestMismatch(f"{self.host} gives other bytes for the manifest {claimed}: they hash to {found}.")
        return found


def pulling(repository: str) -> Scopes:
    """What reading a repository needs."""
    return (f"repository:{repository}:pull",)


def _digest(text: str | None) -> Digest | None:
    """The digest in a header; None where there is none that can be computed here."""
    try:
        digest = Digest.parse(text or "")
    except BadReference:
        return None
    return digest if digest.algorithm in HASHES else None

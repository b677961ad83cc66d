# SPDX-License-Identifier: Apache-2.0
"""One registry, as the OCI distribution specification has it: manifests and blobs, read and written, lists, deletion.

Knows of bytes and digests; what an image is, is known above. Everything read is checked
against the digest that names it before anybody gets to see it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urljoin, urlsplit

from ..errors import (
    BadConfig,
    BadReference,
    DigestMismatch,
    NoSuchImage,
    RegistryDenied,
    RegistryError,
    Unsupported,
    UsageError,
)
from ..model.image import MAX_JSON_SIZE, OCI_INDEX, OCI_MANIFEST, Descriptor, Digest, json_object
from ..model.manifest import HASHES, parse
from ..model.reference import DEFAULT_REGISTRY
from . import certificates
from .authorization import Authorization, Scopes
from .blob import BlobReader
from .credentials import Provider, Wallet, configured_provider
from .http import Body, Http, Patience, host_name, is_local, is_success, origin_of
from .upload import Blob, Upload, push_scopes

if TYPE_CHECKING:
    import urllib3

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"

#: Signed or not. Such manifests are called by a digest of a part of them.
_SCHEMA_ONE = "application/vnd.docker.distribution.manifest.v1+"

_PAGE = 1000
_MAX_PAGES = 10_000
_NEXT = re.compile(r'<([^>]*)>[^,]*rel="?next"?')

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
        unless given. ``insecure`` is HTTP without TLS, for a registry on this machine alone: raises UsageError
        for one whose name is not of this machine."""
        if insecure and not is_local(host_name(host)):
            raise UsageError(
                f"{host}: --insecure is for registries on this machine (localhost, 127.0.0.1, [::1]) alone. "
                f"Put the certificate of this one's authority into {certificates.folder_of(host)}."
            )
        self.host = host
        self.http = Http(_HUB_API if host == DEFAULT_REGISTRY else host, plain=insecure, patience=patience)
        self.wallet = Wallet(provider or configured_provider(host))
        self._authorization = Authorization(self.http, self.wallet)

    # -- reading -------------------------------------------------------------------------

    def manifest(self, repository: str, name: str | Digest) -> Document:
        """The manifest or index of a tag or digest.

        Raises NoSuchImage if there is none, DigestMismatch if it is not what names it, RegistryError.
        """
        step = f"reading the manifest of {repository}{'@' if isinstance(name, Digest) else ':'}{name}"

        def attempt() -> Document:
            headers = {"Accept": _ACCEPT}
            path = f"/v2/{repository}/manifests/{name}"
            with self.send("GET", path, headers, scopes=pull_scopes(repository), step=step) as response:
                if response.status == 404:
                    raise NoSuchImage(
                        f"{self.host} has no {repository}{'@' if isinstance(name, Digest) else ':'}{name}.",
                        detail=self.http.refusal_of(response, step).detail,
                    )
                if response.status != 200:
                    raise self.http.refusal_of(response, step)
                raw = self.http.read_content(response, MAX_JSON_SIZE, step)
                claimed = name if isinstance(name, Digest) else _digest(response.headers.get("Docker-Content-Digest"))
                media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
            if media_type.startswith(_SCHEMA_ONE):
                parse(raw, what=f"{self.host}/{repository}")  # raises SchemaOne: its digest is not of all its bytes
            return Document(raw, self._checked_digest(raw, claimed), media_type)

        return self.http.patience.run(attempt)

    def blob(self, repository: str, descriptor: Descriptor) -> BlobReader:
        """A blob, to be read from its front; nothing is asked for until then. Whoever reads it closes it."""
        step = f"reading {descriptor.digest} of {repository}"
        path = f"/v2/{repository}/blobs/{descriptor.digest}"

        @contextmanager
        def open_at(offset: int) -> Iterator[urllib3.BaseHTTPResponse]:
            headers = {"Range": f"bytes={offset}-"} if offset else {}
            with self.send("GET", path, headers, scopes=pull_scopes(repository), step=step) as response:
                yield response

        return BlobReader(self.http, open_at, descriptor)

    def read_document(self, repository: str, descriptor: Descriptor) -> bytes:
        """A small blob, whole and checked: a config. Raises BadConfig if it is larger than 4 MiB."""
        if descriptor.size > MAX_JSON_SIZE:
            raise BadConfig(
                f"{self.host}: the config {descriptor.digest} of {repository} is {descriptor.size} bytes; "
                f"more than {MAX_JSON_SIZE} are not read."
            )
        reader = self.blob(repository, descriptor)
        try:
            return reader.read(descriptor.size + 1)
        finally:
            reader.close()

    # -- writing -------------------------------------------------------------------------

    def has_blob(self, repository: str, digest: Digest) -> bool:
        """Whether a repository says that it has a blob. One that does not say is sent it, and refuses that in words."""
        step = f"looking for {digest} in {repository}"

        def attempt() -> bool:
            path = f"/v2/{repository}/blobs/{digest}"
            with self.send("HEAD", path, scopes=push_scopes(repository), step=step) as response:
                return response.status == 200

        return self.http.patience.run(attempt)

    def mount(self, repository: str, digest: Digest, origin: str) -> bool:
        """Has the registry give a repository a blob of ``origin``, another one of its own; False if it does not."""
        step = f"taking {digest} from {origin} to {repository}"
        query = urlencode({"mount": str(digest), "from": origin})
        scopes = (*push_scopes(repository), *pull_scopes(origin))
        path = f"/v2/{repository}/blobs/uploads/?{query}"
        try:
            with self.send("POST", path, {"Content-Length": "0"}, scopes=scopes, step=step) as response:
                begun = response.headers.get("Location") if response.status == 202 else None
                is_mounted = response.status == 201
            if begun:  # it expects the blob instead, and is told that none comes
                with self.send("DELETE", begun, scopes=scopes, step=step):
                    pass
        except RegistryError:
            return False  # some registries know no mounting, or do not allow it; sending always works
        return is_mounted

    def push(self, repository: str, blob: Blob) -> int:
        """Has a repository have a blob; gives the bytes that were sent, 0 if it was there. Raises RegistryError."""
        upload = Upload(self, repository, blob)
        upload.run()
        return upload.bytes_sent

    def put_manifest(self, repository: str, name: str, raw: bytes, media_type: str) -> Digest:
        """Puts a manifest under a tag and gives its digest; all that it names must be there. Raises RegistryError."""
        step = f"putting the manifest of {repository}:{name}"
        digest = Digest.of(raw)

        def attempt() -> Digest:
            path = f"/v2/{repository}/manifests/{name}"
            with self.send(
                "PUT", path, {"Content-Type": media_type}, scopes=push_scopes(repository), step=step, body=raw
            ) as response:
                if not is_success(response):
                    raise self.http.refusal_of(response, step)
            return digest

        return self.http.patience.run(attempt)

    # -- lists and deletion ----------------------------------------------------------------

    def repositories(self) -> Iterator[str]:
        """The names of all repositories; raises Unsupported where the registry gives no list."""
        yield from self._listed("/v2/_catalog", "repositories", ("registry:catalog:*",), "listing repositories")

    def tags(self, repository: str) -> Iterator[str]:
        """The tags of a repository; raises NoSuchImage if there is no such repository."""
        path = f"/v2/{repository}/tags/list"
        yield from self._listed(path, "tags", pull_scopes(repository), f"listing the tags of {repository}")

    def digest_of(self, repository: str, name: str) -> Digest | None:
        """The digest of the manifest of a tag, as the registry says; None if there is none.

        Read is the manifest only where it does not say, for that counts as a pull (Docker Hub allows few).
        """
        step = f"asking for {repository}:{name}"
        path = f"/v2/{repository}/manifests/{name}"

        def attempt() -> tuple[int, Digest | None]:
            with self.send("HEAD", path, {"Accept": _ACCEPT}, scopes=pull_scopes(repository), step=step) as response:
                return response.status, _digest(response.headers.get("Docker-Content-Digest"))

        try:
            status, found = self.http.patience.run(attempt)
        except RegistryDenied:
            status, found = 401, None  # which an answer with words is to say
        if status == 404 or (status == 200 and found is not None):
            return found if status == 200 else None
        try:
            return self.manifest(repository, name).digest
        except NoSuchImage:
            return None

    def delete(self, repository: str, name: str | Digest) -> bool:
        """Deletes a tag, or a manifest with all its tags by its digest; False if it was not there.

        Raises Unsupported where the registry does not allow that.
        """
        step = f"deleting {name} from {repository}"
        scopes = (f"repository:{repository}:delete",)
        refusing = (403, 405, 501) if isinstance(name, Digest) else (400, 403, 405, 501)

        def attempt() -> bool:
            with self.send("DELETE", f"/v2/{repository}/manifests/{name}", scopes=scopes, step=step) as response:
                if response.status in refusing:
                    raise self._unsupported_error(response, step, "deleting")
                if response.status != 404 and not is_success(response):
                    raise self.http.refusal_of(response, step)
                return response.status != 404

        return self.http.patience.run(attempt)

    def _listed(self, path: str, key: str, scopes: Scopes, step: str) -> Iterator[str]:
        """The names in a list, over all its pages."""
        seen = set()
        url: str | None = (first := f"{path}?n={_PAGE}")
        while url is not None and url not in seen:
            seen.add(url)
            if len(seen) > _MAX_PAGES:
                raise RegistryError(
                    f"{self.host}: {step}: the list has more than {_MAX_PAGES} pages; it may never end."
                )

            def attempt(url: str = url) -> tuple[list[str], str | None]:
                with self.send("GET", url, scopes=scopes, step=step) as response:
                    if response.status == 400 and url == first:
                        return [], path  # it gives fewer at once, by its own choice
                    if response.status == 404 and key == "tags":
                        raise NoSuchImage(f"{self.host}: {step}: there is no such repository.")
                    if response.status in (404, 405, 501):
                        raise self._unsupported_error(response, step, "listing")
                    if response.status != 200:
                        raise self.http.refusal_of(response, step)
                    raw = self.http.read_content(response, MAX_JSON_SIZE, step)
                    return self._names_in(raw, key, step), self._next(response.headers.get("Link", ""), url, step)

            names, url = self.http.patience.run(attempt)
            yield from names

    def _next(self, link: str, url: str, step: str) -> str | None:
        """The next page that a Link header names, of this registry: one behind a proxy may not know its own name."""
        match = _NEXT.search(link)
        if not match:
            return None
        parts = urlsplit(self.http.absolute_url(urljoin(self.http.base, url), match[1], step))
        return f"{self.http.base}{parts.path}?{parts.query}"

    def _names_in(self, raw: bytes, key: str, step: str) -> list[str]:
        found: Any = json_object(raw, what=f"the answer of {self.host}").get(key)
        if found is None:
            return []  # as Go writes an empty list
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise RegistryError(f"{self.host}: {step}: the answer is no list of {key}.")
        return found

    def _unsupported_error(self, response: urllib3.BaseHTTPResponse, step: str, what: str) -> Unsupported:
        refusal = self.http.refusal_of(response, step)
        message = f"{self.host}: {step}: unsupported. The registry does not allow {what}."
        return Unsupported(message, detail=refusal.detail, status=response.status)

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
        body: Body = None,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """The answer to one request with whatever authorization the registry wants for ``scopes``.

        What it refuses is renewed once. ``path`` may be a whole URL, as registries give them; to another host no
        authorization goes. Raises RegistryError: RegistryDenied if what was renewed is refused too.
        """
        url = self.http.absolute_url(self.http.base, path, step)
        if origin_of(url) != origin_of(self.http.base):
            self.http.check_redirect(self.http.base, url, step)
            with self.http.send(method, url, headers or {}, body=body, step=step) as response:
                yield response
                return
        authorization = self._authorization.header(scopes)
        renewals = 1 if authorization else 2  # the first only says what the registry wants
        while True:
            sent = dict(headers or {})
            if authorization:
                sent["Authorization"] = authorization
            with self.http.send(method, url, sent, body=body, step=step) as response:
                renewed = self._renew(response, scopes, authorization) if renewals else None
                if renewed is None:
                    if response.status == 401:
                        raise self.http.refusal_of(response, step)
                    yield response
                    return
            authorization = renewed
            renewals -= 1

    def _renew(self, response: urllib3.BaseHTTPResponse, scopes: Scopes, authorization: str | None) -> str | None:
        """Another authorization than the one that was refused; None if none was, or there is no other."""
        if response.status == 401:
            wanted = ", ".join(response.headers.getlist("WWW-Authenticate"))
            return self._authorization.renew(scopes, wanted, authorization)
        if response.status == 403 and authorization:
            return self._authorization.renew_expired(scopes, authorization)
        return None

    def close(self) -> None:
        """Closes the connections."""
        self.http.close()

    def _checked_digest(self, raw: bytes, claimed: Digest | None) -> Digest:
        """The digest of a manifest; raises DigestMismatch if it is called by another."""
        algorithm = claimed.algorithm if claimed else "sha256"
        found = Digest(algorithm, hashlib.new(algorithm, raw).hexdigest())
        if claimed is not None and found != claimed:
            raise DigestMismatch(f"{self.host} gives other bytes for the manifest {claimed}: they hash to {found}.")
        return found


def pull_scopes(repository: str) -> Scopes:
    """What reading a repository needs."""
    return (f"repository:{repository}:pull",)


def _digest(text: str | None) -> Digest | None:
    """The digest in a header; None where there is none that can be computed here."""
    try:
        digest = Digest.parse(text or "")
    except BadReference:
        return None
    return digest if digest.algorithm in HASHES else None

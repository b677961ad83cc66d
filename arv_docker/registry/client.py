# SPDX-License-Identifier: Apache-2.0
"""One registry, as the OCI distribution specification has it: manifests and blobs, read and written, lists, deletion.

Knows of bytes and digests; what an image is, is known above. Everything read is checked
against the digest that names it before anybody gets to see it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlencode

from ..errors import (
    BadConfig,
    BadReference,
    DigestMismatch,
    NoSuchImage,
    RegistryDenied,
    RegistryError,
)
from ..model.image import MAX_JSON_SIZE, OCI_INDEX, OCI_MANIFEST, Descriptor, Digest
from ..model.manifest import HASHES, Manifest, parse
from .answer import Answer
from .authorization import Scopes
from .blob import BlobReader
from .pages import Pages
from .patience import Attempts
from .session import Session
from .upload import Blob, Upload, push_scopes

log = logging.getLogger(__name__)

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"

#: Signed or not. Such manifests are called by a digest of a part of them.
_SCHEMA_ONE = "application/vnd.docker.distribution.manifest.v1+"

_ACCEPT = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST))

#: How a server says that it knows no HEAD.
_NO_HEAD = (405, 501)


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or index as the registry has it."""

    raw: bytes
    digest: Digest
    media_type: str


class Client(Session):
    """A registry. May be used by several threads at once."""

    # -- reading -------------------------------------------------------------------------

    def manifest(self, repository: str, name: str | Digest) -> Document:
        """The manifest or index of a tag or digest.

        Raises NoSuchImage if there is none, DigestMismatch if it is not what names it, RegistryError.
        """
        return self.http.patience.run(lambda attempts: self._read_manifest(repository, name, attempts))

    def _read_manifest(self, repository: str, name: str | Digest, attempts: Attempts) -> Document:
        written = _full_name(repository, name)
        with self.send(
            "GET",
            f"/v2/{repository}/manifests/{name}",
            {"Accept": _ACCEPT},
            scopes=pull_scopes(repository),
            step=f"reading the manifest of {written}",
            attempts=attempts,
        ) as answer:
            if answer.status == 404:
                raise NoSuchImage(f"{self.host} has no {written}.", detail=answer.refusal().detail)
            if answer.status != 200:
                raise answer.refusal()
            raw = answer.read_document(MAX_JSON_SIZE)
            claimed = name if isinstance(name, Digest) else _digest_in(answer)
            media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        if media_type.startswith(_SCHEMA_ONE):
            parse(raw, what=f"{self.host}/{repository}")  # raises SchemaOne: its digest is not of all its bytes
        return Document(raw, self._checked_digest(raw, claimed), media_type)

    def blob(self, repository: str, descriptor: Descriptor) -> BlobReader:
        """A blob to be read from the front; nothing is requested before the first read. The reader closes it."""
        step = f"reading {descriptor.digest} of {repository}"
        path = f"/v2/{repository}/blobs/{descriptor.digest}"

        @contextmanager
        def open_at(offset: int, attempts: Attempts) -> Iterator[Answer]:
            headers = {"Range": f"bytes={offset}-"} if offset else {}
            with self.send(
                "GET", path, headers, scopes=pull_scopes(repository), step=step, attempts=attempts
            ) as answer:
                yield answer

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
        """Tell if a repository has a blob, by its own word. A repository that does not say gets the blob."""
        return self.http.patience.run(lambda attempts: self.look_for_blob(repository, digest, attempts))

    def look_for_blob(self, repository: str, digest: Digest, attempts: Attempts) -> bool:
        """Look for a blob once, as ``has_blob`` does, as one of the tries of another request."""
        step = f"looking for {digest} in {repository}"
        path = f"/v2/{repository}/blobs/{digest}"
        scopes = push_scopes(repository)
        with self.send("HEAD", path, scopes=scopes, step=step, attempts=attempts) as answer:
            if answer.status == 200 or not (answer.is_elsewhere or answer.status in _NO_HEAD):
                return answer.status == 200
            is_led_to_storage = answer.is_elsewhere
        # Storage refuses HEAD where its address is signed for GET alone; the registry has the blob to which it leads.
        with self.send("GET", path, {"Range": "bytes=0-0"}, scopes=scopes, step=step, attempts=attempts) as answer:
            return answer.status in (200, 206, 416) or (is_led_to_storage and answer.status != 404)

    def mount(self, repository: str, digest: Digest, origin: str) -> bool:
        """Mount a blob from the repository ``origin`` of the same registry; False if the registry does not."""
        step = f"taking {digest} from {origin} to {repository}"
        query = urlencode({"mount": str(digest), "from": origin})
        scopes = (*push_scopes(repository), *pull_scopes(origin))
        path = f"/v2/{repository}/blobs/uploads/?{query}"
        try:
            with self.send("POST", path, {"Content-Length": "0"}, scopes=scopes, step=step) as answer:
                begun = answer.headers.get("Location") if answer.status == 202 else None
                is_mounted = answer.status == 201
            if begun:  # it expects the blob instead, and is told that none comes
                with self.send("DELETE", begun, scopes=scopes, step=step):
                    pass
        except RegistryError as error:
            log.debug("not mounted: %s", error.message)
            return False  # some registries know no mounting, or do not allow it; sending always works
        return is_mounted

    def push(self, repository: str, blob: Blob) -> int:
        """Have a repository have a blob; return the bytes that were sent, 0 if it was there. Raises RegistryError."""
        upload = Upload(self, repository, blob)
        upload.run()
        return upload.bytes_sent

    def put_manifest(self, repository: str, name: str, raw: bytes, media_type: str) -> Digest:
        """Put a manifest under a tag and return the registry's digest; config and layers must be there.

        A refusal is no failure if the tag has that very manifest: some may not be moved. Raises DigestMismatch if the
        registry has another manifest afterwards than it says, and RegistryError.
        """
        digest = Digest.of(raw)

        def attempt(attempts: Attempts) -> Digest:
            # After a failure the manifest may be there: only the answer got lost.
            if attempts.failures and self._tag_digest(repository, name, attempts) == digest:
                return digest
            return self._put_manifest(repository, name, raw, media_type, attempts)

        stored = self.http.patience.run(attempt)
        if stored != digest:
            self._check_rewritten(repository, name, raw, stored)
        return stored

    def _put_manifest(self, repository: str, name: str, raw: bytes, media_type: str, attempts: Attempts) -> Digest:
        digest = Digest.of(raw)
        with self.send(
            "PUT",
            f"/v2/{repository}/manifests/{name}",
            {"Content-Type": media_type},
            scopes=push_scopes(repository),
            step=f"putting the manifest of {_full_name(repository, name)}",
            body=raw,
            attempts=attempts,
        ) as answer:
            refusal = None if answer.is_success else answer.refusal()
            stored = _digest_in(answer)
        if refusal is None:
            return stored or self._tag_digest(repository, name, attempts) or digest
        if self._tag_digest(repository, name, attempts) != digest:
            raise refusal
        log.debug("%s: %s has that manifest already", self.host, _full_name(repository, name))
        return digest

    def _tag_digest(self, repository: str, name: str, attempts: Attempts) -> Digest | None:
        """The digest of a tag's manifest, None if unknown: permission to push is not always permission to read."""
        try:
            return self._digest_of(repository, name, attempts)
        except RegistryDenied:
            return None

    def _check_rewritten(self, repository: str, name: str, raw: bytes, stored: Digest) -> None:
        """Warn that a registry has rewritten a manifest; raises DigestMismatch if its digest is not of its bytes."""
        written = _full_name(repository, name)
        try:
            theirs = parse(self.manifest(repository, stored).raw, what=f"{self.host}/{written}")
        except NoSuchImage as error:
            raise DigestMismatch(
                f"{self.host}: {written}: the registry says that it has the manifest {stored} and not "
                f"{Digest.of(raw)}, which was put there, and gives neither. Push to another name, and do not use this."
            ) from error
        ours = parse(raw, what=written)
        if not (isinstance(ours, Manifest) and isinstance(theirs, Manifest) and ours.digests == theirs.digests):
            raise DigestMismatch(
                f"{self.host}: {written}: the registry has written the manifest anew, and it is of another image now. "
                "Push to another name, and do not use this."
            )
        log.warning("%s wrote the manifest of %s anew; its digest there is %s.", self.host, written, stored)

    # -- lists and deletion ----------------------------------------------------------------

    def repositories(self) -> Iterator[str]:
        """The names of all repositories; raises UnsupportedByRegistry where the registry gives no list."""
        return Pages(self, "/v2/_catalog", "repositories", ("registry:catalog:*",), "listing repositories")

    def tags(self, repository: str) -> Iterator[str]:
        """The tags of a repository; raises NoSuchImage if there is no such repository."""
        path = f"/v2/{repository}/tags/list"
        return Pages(self, path, "tags", pull_scopes(repository), f"listing the tags of {repository}")

    def digest_of(self, repository: str, name: str) -> Digest | None:
        """The digest of the manifest of a tag, as the registry says; None if there is none.

        The manifest is read only where it does not say, for that counts as a pull (Docker Hub allows few).
        """
        return self.http.patience.run(lambda attempts: self._digest_of(repository, name, attempts))

    def _digest_of(self, repository: str, name: str, attempts: Attempts) -> Digest | None:
        path = f"/v2/{repository}/manifests/{name}"
        try:
            with self.send(
                "HEAD",
                path,
                {"Accept": _ACCEPT},
                scopes=pull_scopes(repository),
                step=f"asking for {_full_name(repository, name)}",
                attempts=attempts,
            ) as answer:
                status, found = answer.status, _digest_in(answer)
        except RegistryDenied:
            status, found = 401, None  # which an answer with words is to say
        if status == 404 or (status == 200 and found is not None):
            return found if status == 200 else None
        try:
            return self._read_manifest(repository, name, attempts).digest
        except NoSuchImage:
            return None

    def delete(self, repository: str, name: str | Digest) -> bool:
        """Delete a tag, or by digest a manifest with all tags; False if there was nothing.

        Raises UnsupportedByRegistry where the registry does not allow that.
        """
        step = f"deleting {name} from {repository}"
        path = f"/v2/{repository}/manifests/{name}"
        scopes = (f"repository:{repository}:delete",)
        refusing = (403, 405, 501) if isinstance(name, Digest) else (400, 403, 405, 501)

        def attempt(attempts: Attempts) -> bool:
            with self.send("DELETE", path, scopes=scopes, step=step, attempts=attempts) as answer:
                if answer.status in refusing:
                    raise self.unsupported_error(answer, step, "deleting")
                if answer.status != 404 and not answer.is_success:
                    raise answer.refusal()
                return answer.status != 404

        return self.http.patience.run(attempt)

    def _checked_digest(self, raw: bytes, claimed: Digest | None) -> Digest:
        """The digest of a manifest; raises DigestMismatch if it is called by another."""
        algorithm = claimed.algorithm if claimed else "sha256"
        found = Digest(algorithm, hashlib.new(algorithm, raw).hexdigest())
        if claimed is not None and found != claimed:
            raise DigestMismatch(f"{self.host} gives other bytes for the manifest {claimed}: they hash to {found}.")
        return found


def pull_scopes(repository: str) -> Scopes:
    """The scopes that reading a repository needs."""
    return (f"repository:{repository}:pull",)


def _full_name(repository: str, name: str | Digest) -> str:
    return f"{repository}{'@' if isinstance(name, Digest) else ':'}{name}"


def _digest_in(answer: Answer) -> Digest | None:
    """The digest in an answer; None without a digest that can be computed here."""
    try:
        digest = Digest.parse(answer.headers.get("Docker-Content-Digest", "")[:200])
    except BadReference:
        return None
    return digest if digest.algorithm in HASHES else None

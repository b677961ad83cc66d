# SPDX-License-Identifier: Apache-2.0
"""Services around a registry: who creates repositories, lists and deletes images, and says when one can be used.

A plain registry answers all of it by the distribution API. A service as Rescale's has a
REST interface of its own beside the registry; one as Amazon's wants repositories created
before a push, by a command of the user's.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

from ..errors import NoSuchImage, RegistryDenied, RegistryError, UnsupportedByRegistry, UsageError
from ..local.settings import command_environment
from ..model.reference import Reference
from .client import Client
from .mirrors import repository_of

State = Literal["ready", "pending", "absent"]

#: Tags under which registries without referrers keep what belongs to an image: a signature, an attestation, an SBOM
#: (cosign), or the list of all of them (OCI distribution-spec, referrers tag schema).
_OF_ARTIFACT = re.compile(r"sha(256|384|512)-[0-9a-f]{64,128}(\.[a-z]+)?", re.ASCII)

#: Seconds that a command that creates a repository may take.
_TIMEOUT = 300.0


class Service(Protocol):
    """The questions that every registry answers in its own way, about repositories and names (``repository:tag``)
    without the registry's host and folder. Each may raise RegistryError, and UnsupportedByRegistry for what is not
    offered."""

    def create(self, repository: str) -> bool:
        """Have a repository be there before a push; False if it was, or need not be."""

    def repositories(self) -> Iterator[str]:
        """The repositories that there are."""

    def images(self) -> Iterator[str]:
        """The names of all images."""

    def tags(self, repository: str) -> Iterator[str]:
        """The tags of one repository."""

    def status(self, name: str) -> State:
        """The state of an image by name: if it can be used. Only unique names also say that it is the newest."""

    def delete(self, name: str) -> bool:
        """Delete an image; False if there was none."""


class PlainService:
    """A registry without a service beside it. ``folder`` is the path of all repositories.

    ``command`` creates a repository, whose name is put behind it; without one, pushing does.
    """

    def __init__(self, client: Client, folder: str = "", command: Sequence[str] = ()) -> None:
        self._client = client
        self._beginning = f"{folder}/" if folder else ""
        self._command = tuple(command)

    def create(self, repository: str) -> bool:
        """Run the command if there is one and the repository is not there. Raises RegistryError if it fails."""
        if not self._command or self._exists(repository):
            return False
        step = f"{self._client.host}: creating repository {repository}"
        try:
            done = subprocess.run(
                [*self._command, self._beginning + repository],
                capture_output=True,
                timeout=_TIMEOUT,
                env=command_environment(),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RegistryError(f"{step}: {self._command[0]} cannot be run: {error}.") from None
        if done.returncode and self._exists(repository):
            return False  # another push was faster
        if done.returncode:
            said = done.stderr.decode(errors="replace")
            raise RegistryError(f"{step}: {self._command[0]} ended with {done.returncode}.", detail=said)
        return True

    def repositories(self) -> Iterator[str]:
        """The repositories of the folder."""
        for name in self._client.repositories():
            if name.startswith(self._beginning):
                yield name.removeprefix(self._beginning)

    def images(self) -> Iterator[str]:
        """Every tag of every repository that can be one of an image: those of signatures and the like are left out.

        Raises RegistryError at its end if the tags of some could not be listed, RegistryDenied if this user may not;
        the others are given before.
        """
        refused: list[str] = []
        kind: type[RegistryError] = RegistryDenied
        for repository in self.repositories():
            try:
                for tag in self.tags(repository):
                    if not _OF_ARTIFACT.fullmatch(tag):
                        yield f"{repository}:{tag}"
            except RegistryError as error:
                if error.status is None or error.retry_after is not None:
                    raise  # of the registry and not of this repository
                refused.append(f"{repository} ({'no list' if error.status == 200 else f'status {error.status}'})")
                kind = kind if isinstance(error, RegistryDenied) else RegistryError
        if refused:
            why = "does not let this user" if kind is RegistryDenied else "did not"
            raise kind(
                f"{self._client.host} {why} list the tags of {len(refused)} of its repositories: "
                f"{', '.join(refused[:10])}{', …' if len(refused) > 10 else ''}. The others are listed."
            )

    def tags(self, repository: str) -> Iterator[str]:
        """The tags of a repository; empty for a repository without images."""
        try:
            yield from self._client.tags(self._beginning + repository)
        except NoSuchImage:  # a repository may be listed before its first image comes, and after its last went
            return

    def status(self, name: str) -> State:
        """The state of an image, ready once the name has a manifest; a registry takes one only when all that it names
        is there."""
        return "absent" if self._client.digest_of(*self._repository_and_tag(name)) is None else "ready"

    def delete(self, name: str) -> bool:
        """Delete the tag. A registry that knows no such thing deletes the image, if no other tag is of it."""
        repository, tag = self._repository_and_tag(name)
        digest = self._client.digest_of(repository, tag)
        if digest is None:
            return False
        try:
            if self._client.delete(repository, tag):
                return True
        except UnsupportedByRegistry:
            pass
        others = [it for it in self.tags(repository) if it != tag and self._client.digest_of(repository, it) == digest]
        if others:
            raise UnsupportedByRegistry(
                f"{self._client.host}: deleting {name}: unsupported. The registry deletes an image with all its names, "
                f"and this one is also {', '.join(others)}."
            )
        gone = self._client.delete(repository, digest)
        if not gone and self._client.digest_of(repository, tag) is not None:
            raise UnsupportedByRegistry(
                f"{self._client.host}: deleting {name}: unsupported. The registry has no way to do that."
            )
        return gone

    def _exists(self, repository: str) -> bool:
        try:
            next(self._client.tags(self._beginning + repository), None)
        except NoSuchImage:
            return False
        return True

    def _repository_and_tag(self, name: str) -> tuple[str, str]:
        """Repository and tag as the registry has them; raises BadReference or UsageError for what is no name."""
        parsed = Reference.parse(f"{self._client.host}/{self._beginning}{name}")
        if parsed.digest is not None or parsed.tag is None:
            raise UsageError(f"{name!r} is not REPOSITORY:TAG.")
        return repository_of(parsed), parsed.tag

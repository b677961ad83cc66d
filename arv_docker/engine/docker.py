# SPDX-License-Identifier: Apache-2.0
"""Docker, driven by its command line: ``docker``, or ``docker.io`` where that is the command's name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..archive.layer import Stream
from ..errors import (
    AmbiguousImage,
    BadReference,
    ContentError,
    EngineError,
    EngineNotRunning,
    EnginePermissionDenied,
    NoEngine,
    NoSuchImage,
)
from ..image import Digest, Platform
from ..reference import ImageId, Reference
from . import EngineImage, ListedImage, direct
from .process import Finished, feed, reading, run

COMMANDS = ("docker", "docker.io")

#: What the client says, in lower case, when the daemon's socket is shut to us or nobody answers on it.
_DENIED = ("permission denied while trying to connect", "connect: permission denied")
_NOT_RUNNING = (
    "cannot connect to the docker daemon",
    "is the docker daemon running",
    "error during connect",
    "failed to connect to the docker api",
)
#: Images that are inspected by one command, whose line has bounds.
_AT_ONCE = 500
_NO_SUCH_IMAGE = ("no such image", "no such object", "reference does not exist", "invalid reference format")


#: What reading an answer of another form raises.
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, BadReference)


class Docker:
    """The Docker engine that the environment points to (``DOCKER_HOST``, contexts), by its command."""

    name = "docker"

    def __init__(self, command: str | None = None) -> None:
        """Finds the command on PATH; raises NoEngine if there is none."""
        self.command = command or _found()

    def version(self) -> str:
        """The daemon's version, for example ``20.10.24``."""
        return self._run("version", "--format", "{{.Server.Version}}").stdout.decode().strip()

    def list(self) -> list[ListedImage]:
        """What ``docker images --no-trunc`` lists, newest first."""
        listing = self._run("images", "--no-trunc", "--format", "{{json .}}").stdout
        try:
            return [_listed(json.loads(line)) for line in listing.splitlines() if line]
        except _UNREADABLE as error:
            raise EngineError(f"docker images gave a listing that cannot be read: {error!r}.") from error

    def chains(self) -> set[tuple[Digest, ...]]:
        """The diff_ids of each image that ``docker images`` lists, from its lowest layer up."""
        images = list(dict.fromkeys(str(image.id) for image in self.list()))
        chains = set()
        for start in range(0, len(images), _AT_ONCE):
            some = images[start : start + _AT_ONCE]
            lines = self._run("image", "inspect", "--format", "{{json .RootFS.Layers}}", *some).stdout.splitlines()
            try:
                chains |= {tuple(_ids(json.loads(line) or ())) for line in lines if line}
            except _UNREADABLE as error:
                raise EngineError(f"docker image inspect gave layers that cannot be read: {error!r}.") from error
        return chains

    def inspect(self, name: Reference | ImageId) -> EngineImage:
        """The image called ``name``.

        A name is looked up before an ID. The beginning of an ID is compared with the
        listing, for the daemon's answer does not tell an unknown one from an ambiguous one.
        """
        if isinstance(name, Reference):
            try:
                return self._inspect(name.written or name.familiar)
            except NoSuchImage:
                if (prefix := name.as_id) is None:
                    raise
        else:
            prefix = name
        return self._inspect(str(prefix.whole or self._only_match(prefix, name)))

    @contextmanager
    def save(self, images: Iterable[str]) -> Iterator[Stream]:
        """``docker save`` of the images, each by reference or ID; from the daemon's socket where that can be."""
        names = list(images)
        with direct.saving(names) as stream:
            if stream is None:
                with reading([self.command, "save", *names], self._check) as output:
                    yield output
                return
            try:
                yield stream
            except ContentError:
                self.version()  # a daemon that is gone is what was wrong, not the archive
                raise

    def load(self, archive: Iterable[bytes]) -> str:
        """``docker load`` of the archive, into the daemon's socket where that can be; the engine's words."""
        answer = direct.load(archive)
        if answer is None:
            return feed([self.command, "load"], archive, self._check).stdout.decode(errors="replace")
        self._check(Finished((self.command, "load"), int(not answer.well), b"", answer.words))
        return answer.words

    def tag(self, image: Digest, name: Reference) -> None:
        """``docker tag``."""
        self._run("tag", str(image), name.familiar)

    def pull(self, name: Reference, on_line: Callable[[str], None] | None = None) -> None:
        """``docker pull``; its lines go to ``on_line``."""
        run([self.command, "pull", name.written or name.familiar], self._check, on_line=on_line)

    def _inspect(self, name: str) -> EngineImage:
        finished = self._run("image", "inspect", name)
        try:
            (document,) = json.loads(finished.stdout)
            return _engine_image(document)
        except _UNREADABLE as error:
            raise EngineError(f"docker image inspect {name} gave an answer that cannot be read: {error!r}.") from error

    def _only_match(self, prefix: ImageId, asked: Reference | ImageId) -> Digest:
        found = {image.id for image in self.list() if prefix.matches(image.id)}
        if not found:
            raise _no_such_image(str(asked))
        if len(found) > 1:
            raise AmbiguousImage(
                f"{asked} is the beginning of {len(found)} image IDs. Write more digits.",
                detail="\n".join(sorted(map(str, found))),
            )
        return found.pop()

    def _run(self, *arguments: str) -> Finished:
        return run([self.command, *arguments], self._check)

    def _check(self, finished: Finished) -> None:
        """Raises the error that fits a command that failed."""
        if finished.status == 0:
            return
        words = finished.stderr.lower()
        if any(text in words for text in _DENIED):
            raise EnginePermissionDenied(
                "this user may not talk to the Docker daemon. Ask to be added to the group docker, "
                "log in again, or run this as root.",
                detail=finished.stderr,
            )
        if any(text in words for text in _NOT_RUNNING):
            raise EngineNotRunning(
                "the Docker daemon does not answer. Start it, or set DOCKER_HOST to the one that is meant.",
                detail=finished.stderr,
            )
        if any(text in words for text in _NO_SUCH_IMAGE):
            raise _no_such_image(finished.command[-1], finished.stderr)
        shown = " ".join(("docker", *finished.command[1:3]))
        raise EngineError(f"{shown} failed with status {finished.status}.", detail=finished.stderr)


def _found() -> str:
    for command in COMMANDS:
        if path := shutil.which(command):
            return path
    raise NoEngine(
        "no Docker command is on PATH (docker, docker.io). Install Docker, or read the image from a file "
        "that docker save wrote: --from-archive FILE."
    )


def _no_such_image(name: str, detail: str = "") -> NoSuchImage:
    return NoSuchImage(
        f"Docker has no image {name!r}. See docker images, or fetch it first: docker pull, or --pull.", detail=detail
    )


def _listed(line: Mapping[str, Any]) -> ListedImage:
    return ListedImage(
        line["Repository"], line["Tag"], _id(line["ID"]), line.get("CreatedSince", ""), line.get("Size", "")
    )


def _engine_image(document: Mapping[str, Any]) -> EngineImage:
    return EngineImage(
        id=_id(document["Id"]),
        tags=tuple(document.get("RepoTags") or ()),
        digests=tuple(document.get("RepoDigests") or ()),
        diff_ids=tuple(_ids((document.get("RootFS") or {}).get("Layers") or ())),
        platform=Platform(
            document.get("Os") or "unknown", document.get("Architecture") or "unknown", document.get("Variant") or ""
        ),
        size=int(document.get("Size") or 0),
    )


def _ids(texts: Iterable[str]) -> Iterator[Digest]:
    return map(_id, texts)


def _id(text: str) -> Digest:
    """An engine's image ID; Podman leaves out ``sha256:``."""
    return Digest.sha256(text.removeprefix("sha256:"))

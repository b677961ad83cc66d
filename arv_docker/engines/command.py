# SPDX-License-Identifier: Apache-2.0
"""The command lines of Docker and Podman, as far as they are alike: most of what an engine is asked.

The module of each engine adds how its command is found, what its refusals mean, and the few things that
it does in another way.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import (
    AmbiguousImage,
    BadReference,
    BuildFailed,
    EngineError,
    EngineFull,
    EngineNotRunning,
    EnginePermissionDenied,
    NoEngine,
    NoSuchImage,
)
from ..local.disk import free_space
from ..local.settings import USUAL_ENGINE_TIMEOUT
from ..model.image import Digest, Platform
from ..model.reference import ImageId, Reference
from ..registry.credentials import Credentials
from . import EngineImage, ListedImage, process
from .building import Build
from .output import Ending, lines_of
from .process import CompletedCommand, run_command

#: The columns of a listing, for a template: Podman's ``{{json .}}`` gives other keys, and all lines at once.
_COLUMNS = ("Repository", "Tag", "ID", "CreatedSince", "Size")
_LISTING = "{" + ",".join(f'"{column}":{{{{json .{column}}}}}' for column in _COLUMNS) + "}"

#: Images that are inspected by one command, whose line has bounds.
_AT_ONCE = 500

#: Lines of a build that failed which its error shows.
_TAIL = 30

#: What every engine says when a disk is full, in lower case.
_NO_ROOM = os.strerror(errno.ENOSPC).lower()

#: What reading an answer of another form raises.
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, BadReference)


@dataclass(frozen=True, slots=True)
class Refusals:
    """An engine's words, in lower case, for being shut to this user, not running, or without an image; and advice.

    ``denied`` are regular expressions: "permission denied" alone may be the word of a registry or of a program.
    """

    denied: tuple[str, ...]
    if_denied: str
    not_running: tuple[str, ...]
    if_not_running: str
    no_such_image: tuple[str, ...]


class CommandLine:
    """An engine, driven by a command.

    ``command`` is the program, and ``options`` come before all its other arguments. ``timeout`` is the seconds
    that the engine may be silent, 0 for no limit. ``platform_format`` is the template by which ``version`` prints the
    platform.
    """

    name: str
    title: str
    platform_format: str
    refusals: Refusals

    def __init__(self, command: str, options: Sequence[str] = (), *, timeout: float = USUAL_ENGINE_TIMEOUT) -> None:
        self.command = command
        self.options = tuple(options)
        self.timeout = timeout

    def version(self) -> str:
        """The version of the engine itself, for example ``20.10.24``."""
        return self.run("version", "--format", "{{.Server.Version}}").stdout.decode().strip()

    def platform(self) -> Platform:
        """The operating system and processor that the engine runs on, as images name them."""
        words = self.run("version", "--format", self.platform_format).stdout.decode(errors="replace").strip()
        system, _, processor = words.partition("/")
        if not system or not processor:
            raise EngineError(f"{self.name} version gave a platform that cannot be read: {words!r}.")
        return Platform(system, processor)

    def list(self) -> list[ListedImage]:
        """The images that ``images --no-trunc`` lists, newest first."""
        listing = self.run("images", "--no-trunc", "--format", _LISTING).stdout
        try:
            return [_image_of_line(json.loads(line)) for line in listing.splitlines() if line]
        except _UNREADABLE as error:
            raise EngineError(f"{self.name} images gave a listing that cannot be read: {error!r}.") from error

    def chains(self) -> set[tuple[Digest, ...]]:
        """The diff_ids of each image that is listed, from its lowest layer up."""
        images = list(dict.fromkeys(str(image.id) for image in self.list()))
        chains = set()
        for start in range(0, len(images), _AT_ONCE):
            some = images[start : start + _AT_ONCE]
            lines = self.run("image", "inspect", "--format", "{{json .RootFS.Layers}}", *some).stdout.splitlines()
            try:
                chains |= {tuple(_digests_of(json.loads(line) or ())) for line in lines if line}
            except _UNREADABLE as error:
                raise EngineError(f"{self.name} image inspect gave layers that cannot be read: {error!r}.") from error
        return chains

    def inspect(self, name: Reference | ImageId) -> EngineImage:
        """Return the image called ``name``.

        A name is looked up before an ID. The beginning of an ID is compared with the listing, because an engine's
        answer does not distinguish an unknown beginning from an ambiguous one. Some engines leave the port 443 out of
        the names that they list.
        """
        if isinstance(name, Reference):
            without_port = name.without_usual_port
            for spelling in (*self.spellings(name), *(self.spellings(without_port) if without_port else ())):
                try:
                    return self._inspect(spelling)
                except NoSuchImage as error:
                    missing = error
            if (prefix := name.as_id) is None:
                raise missing
        else:
            prefix = name
        return self._inspect(str(prefix.as_digest or self._only_match(prefix, name)))

    def spellings(self, name: Reference) -> Sequence[str]:
        """Spellings that the engine may have for a name, the likeliest first, the one for a registry last."""
        return [name.written or name.familiar_name]

    def target_name(self, name: Reference) -> str:
        """The spelling of a name that an image is to get."""
        return name.familiar_name

    def tag(self, image: Digest, name: Reference) -> None:
        """Give the image the name."""
        self.run("tag", str(image), self.target_name(name))

    def remove(self, image: Digest) -> None:
        """Remove an image that has no name, and that no container uses."""
        self.run("image", "rm", str(image))

    def pull(self, name: Reference, on_line: Callable[[str], None] | None = None) -> None:
        """Fetch the image from its registry; lines that the command prints go to ``on_line``."""
        line = self._line("pull", self.spellings(name)[-1])
        run_command(line, self._check, on_line=on_line, answers=self._answers, timeout=self.timeout)

    def build(self, wanted: Build) -> Generator[str, None, EngineImage]:
        """Build an image: yield the lines of the log as they come, and return the image as the engine has it.

        Lines end as those of ``output.lines_of``. Raises BuildFailed with the end of the log where the engine works
        and the build failed.
        """
        with tempfile.TemporaryDirectory(prefix="arv-docker-", dir=self.temporary_folder()) as name:
            folder = Path(name)
            id_file = folder / "id"
            tag = [f"--tag={self.target_name(wanted.tag)}"] if wanted.tag else []
            options = (f"--iidfile={id_file}", "--force-rm", *tag, *self.cache_options(wanted.cache_from))
            tail: deque[str] = deque(maxlen=_TAIL)
            output = process.stream_output(
                self._line("build", *options, *wanted.options, wanted.source),
                stdin=None if isinstance(wanted.context, Path) else wanted.context,
                # A folder without a Dockerfile: Podman would take one of the current folder before that of the tar.
                folder=None if isinstance(wanted.context, Path) else folder,
                variables={**wanted.variables, **self.variables(folder, wanted.logins)},
                answers=self._answers,
                release=partial(self.end_steps, folder),
                timeout=self.timeout,
            )
            ending = Ending(lines_of(output))
            for line in ending:
                if not line.endswith("\r"):
                    tail.append(line)
                yield line
            if ending.value != 0:
                self.version()  # raises if the engine is gone, or shut to this user
                raise BuildFailed(
                    f"{self.title} could not build {wanted.tag or 'the image'}; its last words:", detail="".join(tail)
                )
            return self._image_of_file(id_file)

    def data_folders(self) -> Sequence[Path]:
        """Folders of this machine that the engine writes to, for a message about a full disk."""
        return ()

    def temporary_folder(self) -> str | None:
        """The folder where the engine puts large temporary files; None for Python's choice."""
        return None

    def variables(self, folder: Path, logins: Mapping[str, Credentials]) -> dict[str, str]:
        """Environment variables for a build that may put files, such as logins, into ``folder``."""
        raise NotImplementedError

    def end_steps(self, folder: Path) -> bool:  # noqa: ARG002 -- nothing goes on without Docker's command
        """End build steps in that folder that would outlive the command; return True if there were any."""
        return False

    def cache_options(self, images: Sequence[str]) -> Sequence[str]:
        """Options that name the images whose layers a build may use."""
        return [f"--cache-from={image}" for image in images]

    def run(self, *arguments: str, patient: bool = False, unlogged: int = 0) -> CompletedCommand:
        """Call the command, wait for the end and check the answer; a ``patient`` call may be silent while working.

        The last ``unlogged`` words stay out of the log.
        """
        answers = self._answers if patient else None
        line = self._line(*arguments)
        return run_command(line, self._check, answers=answers, unlogged=unlogged, timeout=self.timeout)

    def pieces(self, *arguments: str) -> Generator[bytes, None, int]:
        """Yield the output of one call in pieces, as it comes, and return the exit status."""
        return process.stream_output(self._line(*arguments), answers=self._answers, timeout=self.timeout)

    def _line(self, *arguments: str) -> tuple[str, ...]:
        return (self.command, *self.options, *arguments)

    def _output_of(self, *arguments: str) -> str:
        """The output of a call with any exit status."""
        return (
            run_command(self._line(*arguments), lambda _: None, timeout=self.timeout)
            .stdout.decode(errors="replace")
            .strip()
        )

    def _answers(self) -> bool:
        """Return True if the engine answers at all; asked after a long silence during work."""
        try:
            self.version()
        except EngineError:
            return False
        return True

    def _image_of_file(self, id_file: Path) -> EngineImage:
        """The image whose ID a build wrote into ``id_file``."""
        try:
            image_id = _digest_of(id_file.read_text().strip())
        except (OSError, UnicodeDecodeError, BadReference) as error:
            raise EngineError(f"{self.name} build ended well, but left no image ID: {error}.") from error
        try:
            return self.inspect(ImageId(image_id.hex))
        except NoSuchImage as error:
            raise EngineError(
                f"{self.title} built {image_id}, but does not hold it: its builder keeps images to itself. Use the "
                "builder called default (BUILDX_BUILDER=default).",
                detail=error.detail,
            ) from error

    def _inspect(self, name: str) -> EngineImage:
        return self._image_in(self._documents(name), name)

    def _documents(self, *arguments: str) -> object:
        """The documents that ``image inspect`` gives."""
        output = self.run("image", "inspect", *arguments).stdout
        try:
            return json.loads(output)
        except ValueError as error:
            raise self._unreadable(arguments[-1], error) from error

    def _image_in(self, documents: object, name: str) -> EngineImage:
        """The image in the only one of the documents."""
        try:
            return _engine_image(*documents)  # type: ignore[misc]
        except _UNREADABLE as error:
            raise self._unreadable(name, error) from error

    def _unreadable(self, name: str, error: Exception) -> EngineError:
        return EngineError(f"{self.name} image inspect {name} gave an answer that cannot be read: {error!r}.")

    def _only_match(self, prefix: ImageId, name: Reference | ImageId) -> Digest:
        matches = {image.id for image in self.list() if prefix.matches(image.id)}
        if not matches:
            raise self._no_such_image(str(name))
        if len(matches) > 1:
            raise AmbiguousImage(
                f"{name} is the beginning of {len(matches)} image IDs. Write more digits.",
                detail="\n".join(sorted(map(str, matches))),
            )
        return matches.pop()

    def _check(self, completed: CompletedCommand) -> None:
        """Raise the error for a failed command."""
        if completed.status == 0:
            return
        words = completed.stderr.lower()
        if any(re.search(pattern, words) for pattern in self.refusals.denied):
            raise EnginePermissionDenied(self.refusals.if_denied, detail=completed.stderr)
        if any(text in words for text in self.refusals.not_running):
            raise EngineNotRunning(self.refusals.if_not_running, detail=completed.stderr)
        if any(text in words for text in self.refusals.no_such_image):
            raise self._no_such_image(completed.command[-1], completed.stderr)
        if _NO_ROOM in words:
            room = ", ".join(f"{free_space(path)} in {path}" for path in self.data_folders() if path.is_dir())
            raise EngineFull(
                f"{self.title} has no room left: {room or 'its disk is full'}.", detail=completed.stderr, room=room
            )
        shown = " ".join((self.name, *completed.command[1 + len(self.options) :][:2]))
        raise EngineError(f"{shown} failed with status {completed.status}.", detail=completed.stderr)

    def _no_such_image(self, name: str, detail: str = "") -> NoSuchImage:
        return NoSuchImage(
            f"{self.title} has no image {name!r}. See {self.name} images, or fetch it first: "
            f"{self.name} pull, or --pull.",
            detail=detail,
        )


def find_command(title: str, commands: Iterable[str]) -> str:
    """Return the path of the first of the commands that is on PATH; raises NoEngine if none is."""
    for command in commands:
        if path := shutil.which(command):
            return path
    raise NoEngine(
        f"no {title} command is on PATH ({', '.join(commands)}). Install {title}. An image can be stored without it, "
        f"from a file that {title.lower()} save wrote: ingest --from-archive FILE."
    )


def _image_of_line(line: Mapping[str, Any]) -> ListedImage:
    return ListedImage(
        line["Repository"], line["Tag"], _digest_of(line["ID"]), line.get("CreatedSince", ""), line.get("Size", "")
    )


def _engine_image(document: Mapping[str, Any]) -> EngineImage:
    return EngineImage(
        id=_digest_of(document["Id"]),
        tags=tuple(document.get("RepoTags") or ()),
        digests=tuple(document.get("RepoDigests") or ()),
        diff_ids=tuple(_digests_of((document.get("RootFS") or {}).get("Layers") or ())),
        platform=Platform(
            document.get("Os") or "unknown", document.get("Architecture") or "unknown", document.get("Variant") or ""
        ),
        size=int(document.get("Size") or 0),
        config=document.get("Config") or {},
        by_manifest=any(str(digest).endswith(str(document["Id"])) for digest in document.get("RepoDigests") or ())
        or bool(document.get("Descriptor")),
    )


def _digests_of(texts: Iterable[str]) -> Iterator[Digest]:
    return map(_digest_of, texts)


def _digest_of(text: str) -> Digest:
    """The digest in an engine's image ID; Podman leaves out ``sha256:``."""
    return Digest.sha256(text.removeprefix("sha256:"))

# SPDX-License-Identifier: Apache-2.0
"""Docker, driven by its command line: ``docker``, or ``docker.io`` where that is the command's name."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ..archive.layer import Stream
from ..errors import ContentError, EngineError, MissingMember, NoSuchImage, PlatformNotAskable
from ..local.settings import USUAL_ENGINE_TIMEOUT
from ..model.image import Platform
from ..model.manifest import suits
from ..registry.credentials import Credentials
from . import EngineImage, direct, login
from .command import CommandLine, Refusals, find_command
from .process import CompletedCommand, feed_input, read_output

COMMANDS = ("docker", "docker.io")


log = logging.getLogger(__name__)

#: Words of a command, or a daemon, that is too old for an option.
_TOO_OLD = ("requires api version", "unknown flag")

#: Words of a daemon that lacks a blob of an image.
_LACKING = re.compile(r"content digest sha256:[0-9a-f]{64}: not found")

#: The image that ``docker load`` stored and could not unpack; Docker 28.5 exits with 0 all the same.
_BROKEN = re.compile(r"^Error unpacking image (\S+): ", re.MULTILINE)


class Docker(CommandLine):
    """The Docker engine that the environment points to (``DOCKER_HOST``, contexts), by its command.

    With ``platform`` each image is the one for that platform, where the engine has several under a name.
    """

    name = "docker"
    title = "Docker"
    platform_format = "{{.Server.Os}}/{{.Server.Arch}}"
    refusals = Refusals(
        denied=("permission denied while trying to connect", "connect: permission denied"),
        if_denied="this user may not talk to the Docker daemon. Ask to be added to the group docker, "
        "log in again, or run this as root.",
        not_running=(
            "cannot connect to the docker daemon",
            "is the docker daemon running",
            "error during connect",
            "failed to connect to the docker api",
        ),
        if_not_running="the Docker daemon does not answer. Start it, or set DOCKER_HOST to the one that is meant.",
        no_such_image=(
            "no such image",
            "no such object",
            "reference does not exist",
            "invalid reference format",
            "image not known",  # Podman, where it has taken the command's name
        ),
    )

    def __init__(
        self,
        command: str | None = None,
        platform: Platform | None = None,
        *,
        timeout: float = USUAL_ENGINE_TIMEOUT,
    ) -> None:
        """Find the command on PATH; raises NoEngine if there is none."""
        super().__init__(command or find_command(self.title, COMMANDS), timeout=timeout)
        self._platform = platform
        #: Images that are one of several in an index, with how to ask for them.
        self._parts: dict[str, tuple[str, Platform]] = {}
        #: Names by which images were asked for, for messages.
        self._names: dict[str, str] = {}

    @contextmanager
    def save(self, images: Iterable[str]) -> Iterator[Stream]:
        """Open the output of ``docker save`` for the images, each a reference or ID; from the socket if possible."""
        names, platform = self._save_request(list(images))
        with direct.open_save(names, self._answers, platform, self.timeout) as stream:
            try:
                if stream is None:
                    option = [f"--platform={platform}"] if platform else []
                    line = self._line("save", *option, *names)
                    with read_output(line, self._check, answers=self._answers, timeout=self.timeout) as output:
                        yield output
                else:
                    yield stream
            except MissingMember as error:
                lacking = error.message.removesuffix(" Is it cut short?")  # of an archive that nobody saw
                raise self._incomplete(" ".join(self._names.get(name, name) for name in names), lacking) from error
            except ContentError:
                self.version()  # raises if the daemon is gone, which then was wrong, not the archive
                raise

    def _check(self, completed: CompletedCommand) -> None:
        if completed.status != 0 and _LACKING.search(completed.stderr):
            name = completed.command[-1]
            raise self._incomplete(self._names.get(name, name), completed.stderr)
        super()._check(completed)

    def _incomplete(self, name: str, detail: str) -> EngineError:
        """The error for an image of which the containerd store has not all parts."""
        return EngineError(
            f"Docker does not have all of {name}, and so cannot save it: a part was never fetched, or is there in "
            "another form alone (other images have its layers). Take it from its registry, docker://NAME; or remove "
            "it, and what shares layers with it, and pull it again.",
            detail=detail,
        )

    def _save_request(self, images: list[str]) -> tuple[list[str], Platform | None]:
        """The names to save, and the platform to save them for; None for names with a single image."""
        parts = [self._parts[image] for image in images if image in self._parts]
        if not parts:
            return images, None
        return [self._parts.get(image, (image, None))[0] for image in images], parts[0][1]

    def _inspect(self, name: str) -> EngineImage:
        """Return the image, or of an index in a containerd store the image for one platform.

        An index counts as one image where all of it is there and no other platform is asked for. Where a platform of
        it was never fetched, ``docker save`` gives nothing but the image for a platform that is there.
        """
        image = super()._inspect(name)
        self._names[str(image.id)] = name
        platform = self._platform or image.platform
        if image.platform.architecture == "unknown" and self._platform is None:
            return image  # without its config it cannot be saved, but Keep may have it
        if not image.by_manifest or (
            suits(image.platform, platform) and not direct.lacks_platforms(name, self.timeout)
        ):
            return image
        if image.platform.architecture == "unknown":
            raise self._incomplete(name, "its config is not there")
        try:
            documents = self._documents("--platform", str(platform), name)
        except NoSuchImage:
            raise
        except EngineError as error:
            if any(text in error.detail.lower() for text in _TOO_OLD):
                raise PlatformNotAskable(
                    f"Docker has {name} for {image.platform}; of a name that stands for several platforms this Docker "
                    f"can give no other. Newer ones can (28.1), and docker save {name} -o FILE with "
                    f"oci-archive:FILE --platform {platform}, or docker://NAME.",
                    detail=error.detail,
                ) from error
            if "does not provide the specified platform" in error.detail:
                raise NoSuchImage(
                    f"Docker has {name} for {image.platform}, and not for {platform}. A registry may have it: "
                    "docker://NAME.",
                    detail=error.detail,
                ) from error
            raise
        part = self._image_in(documents, name)
        if part.id == image.id:
            return image
        log.info("%s is one of several platforms: %s for %s", name, part.id, platform)
        self._parts[str(part.id)] = (name, platform)
        return part

    def load(self, archive: Iterable[bytes]) -> str:
        """Load the archive, through the daemon's socket if possible, and return the engine's words."""
        answer = direct.load_archive(archive, self._answers, self.timeout) if self._is_behind_the_socket() else None
        if answer is None:
            completed = feed_input(
                self._line("load"), archive, self._check, answers=self._answers, timeout=self.timeout
            )
            words = completed.stdout.decode(errors="replace") + completed.stderr
        else:
            words = answer.words
            self._check(CompletedCommand((self.command, "load"), int(not answer.well), b"", words))
        if broken := _BROKEN.findall(words):
            self._remove(broken)
            raise EngineError(
                "Docker took the archive, and cannot unpack the image. It was removed again.", detail=words
            )
        return words

    def _remove(self, names: Iterable[str]) -> None:
        """Remove loaded images that cannot be used, with their names."""
        for name in names:
            with suppress(EngineError, NoSuchImage):
                self.run("image", "rm", name)

    def data_folders(self) -> Sequence[Path]:
        """The root folder of the daemon, if the daemon is that of this machine's socket."""
        identity, _, root = self._output_of("info", "--format", "{{.ID}} {{.DockerRootDir}}").partition(" ")
        return [Path(root)] if root and identity == direct.daemon_id(self.timeout) else []

    def variables(self, folder: Path, logins: Mapping[str, Credentials]) -> dict[str, str]:
        """Variables for a configuration with the logins in ``folder``; none without logins."""
        return login.docker_variables(folder, logins) if logins else {}

    def _is_behind_the_socket(self) -> bool:
        """Return whether the command talks to the daemon of the socket; a command that stands for Podman's does not."""
        if (there := direct.daemon_id(self.timeout)) is None:
            return False
        try:
            return self.run("info", "--format", "{{.ID}}").stdout.decode(errors="replace").strip() == there
        except EngineError:
            return False

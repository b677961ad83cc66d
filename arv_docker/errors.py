# SPDX-License-Identifier: Apache-2.0
"""Every error of the package, in one tree, with the exit code that a command ends with.

A message says what happened, to what, and what to do next. The words of an engine or
a server are kept: they go into ``detail`` and are shown below the message. Nothing but
``cli`` turns an error into an exit code.

Names, owners and properties come from strangers: a message is one line whatever is in them, and so is each line of
``detail`` that ``lines_of`` makes.
"""

from __future__ import annotations

from collections.abc import Iterable


def one_line(text: str) -> str:
    """Escape what would end a line, move the cursor or turn the direction of writing, so that a stranger's name cannot
    forge a line of a table or a message.

    >>> one_line("app:1\\n0123  trusted")
    'app:1\\\\n0123  trusted'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def lines_of(texts: Iterable[object]) -> str:
    """Return texts as lines, one each, for the ``detail`` of an error."""
    return "\n".join(one_line(str(text)) for text in texts)


class ArvDockerError(Exception):
    """Any failure that has a message for the user; exit code 1 where no class below says otherwise."""

    exit_code = 1

    def __init__(self, message: str, *, detail: str = "") -> None:
        self.message = one_line(message)
        self.detail = lines_of(detail.strip().expandtabs().replace("\r\n", "\n").split("\n"))
        super().__init__(self.message)

    @property
    def in_one_line(self) -> str:
        """The message and its detail, for a message about something else."""
        return " ".join(str(self).split("\n"))

    def __str__(self) -> str:
        return f"{self.message}\n{self.detail}" if self.detail else self.message


# -- 1: the image -----------------------------------------------------------------------


class NoSuchImage(ArvDockerError):
    """No image of that name or ID: not in the engine, not in the archive, not in Keep."""


class PlatformNotAskable(NoSuchImage):
    """An engine has an image for several platforms, and gives one of them or all, and not the one asked for."""


class NoSuchFile(ArvDockerError):
    """A path that leads to no file in an image."""


class AmbiguousImage(ArvDockerError):
    """More than one image answers to the name, ID or platform asked for."""


class OtherImage(ArvDockerError):
    """A released version is archived as another image than the engine has now."""


# -- 2: the command line ----------------------------------------------------------------


class UsageError(ArvDockerError):
    """Options or arguments that do not go together."""

    exit_code = 2


class BadReference(UsageError):
    """A text that is not an image name, tag or digest."""


# -- 3: the engine ----------------------------------------------------------------------


class EngineError(ArvDockerError):
    """An engine's command failed; its standard error is in ``detail``."""

    exit_code = 3


class NoEngine(EngineError):
    """No engine is installed: none of its commands is on PATH."""


class EngineNotRunning(EngineError):
    """The engine's command is there, its daemon does not answer."""


class EnginePermissionDenied(EngineError):
    """The engine's socket may not be opened by this user."""


class EngineSilent(EngineError):
    """The engine's command or daemon was silent for longer than the settings allow."""


# -- 4: the cluster ---------------------------------------------------------------------


class ClusterError(ArvDockerError):
    """The API server cannot be reached, refuses, or answers nonsense. ``status`` is the HTTP status, if any."""

    exit_code = 4

    def __init__(self, message: str, *, detail: str = "", status: int | None = None) -> None:
        super().__init__(message, detail=detail)
        self.status = status

    @property
    def is_refusal(self) -> bool:
        """True if the server refuses the request for good: what was kept for another try is of no use."""
        return self.status in (400, 403, 413, 422)

    @property
    def is_outage(self) -> bool:
        """True for a failure of the cluster as a whole, so that the next request would fail as well."""
        return self.status is None or self.status == 401 or self.status >= 500


class KeepError(ClusterError):
    """A block cannot be stored in Keep or read from it."""

    @property
    def is_outage(self) -> bool:
        """False: another image has other blocks."""
        return False


# -- 5: content -------------------------------------------------------------------------


class ContentError(ArvDockerError):
    """Bytes with other content than claimed."""

    exit_code = 5


class NotAnImage(ContentError):
    """Content that is well-formed, but no container image."""


class NoRootfs(NotAnImage):
    """A config without ``rootfs.diff_ids``, or whose rootfs is not of type ``layers``."""


class UnsupportedDigest(NotAnImage):
    """A diff_id that is not a SHA-256 digest."""


class OciArtifact(NotAnImage):
    """An OCI artifact: a manifest whose config is no image config."""


class LayerCountMismatch(NotAnImage):
    """A manifest that lists another number of layers than the config has diff_ids."""


class SchemaOne(NotAnImage):
    """The image format of before Docker 1.10: layers with their own JSON, no config."""


class BadConfig(ContentError):
    """A config that is not JSON, not an object, or larger than 4 MiB."""


class BadArchive(ContentError):
    """A tar that is cut short or malformed, or has names and links to places outside."""


class MissingMember(BadArchive):
    """A file that an archive's documents name, and that the archive lacks."""


class SeveralImages(ContentError):
    """An archive with more than one image, where one had to be meant."""


class DigestMismatch(ContentError):
    """Bytes with another digest than their name says."""


class BadManifestText(ContentError):
    """Text that is not a Keep manifest text."""


class NotVerified(ContentError):
    """A stored image that failed verification."""


# -- 6: settings ------------------------------------------------------------------------


class NoCluster(ArvDockerError):
    """No cluster is configured and ``--local`` was not given."""

    exit_code = 6


class BadSettings(NoCluster):
    """Settings that cannot be used: a file that does not parse, a value out of range."""


# -- 7: this machine's disk -------------------------------------------------------------


class DiskError(ArvDockerError):
    """A local folder cannot be written: full, read-only, not permitted."""

    exit_code = 7


class EngineFull(DiskError):
    """An engine has no room for an image. ``room`` says how much is free, as far as known."""

    def __init__(self, message: str, *, detail: str = "", room: str = "") -> None:
        super().__init__(message, detail=detail)
        self.room = room


# -- 8: the name ------------------------------------------------------------------------


class ShadowedName(ArvDockerError):
    """A name that the cluster takes for another image than the image it was given to."""

    exit_code = 8


class NotConfirmed(ArvDockerError):
    """Links of other users would be deleted, without anybody's consent."""

    exit_code = 8


class UntrustedName(ArvDockerError):
    """A name that means an image by the word of an untrusted user alone, where that word may not become ours."""

    exit_code = 8


# -- 9: a registry ----------------------------------------------------------------------


class RegistryError(ArvDockerError):
    """A registry cannot be reached, refuses, or answers nonsense. ``status`` is the HTTP status, if any.

    ``retry_after`` is None where the same request would fail again; else the seconds that the
    registry asks to wait before it is repeated, 0 where it does not ask.
    """

    exit_code = 9

    def __init__(
        self, message: str, *, detail: str = "", status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, detail=detail)
        self.status = status
        self.retry_after = retry_after


class RegistryDenied(RegistryError):
    """The registry asks for credentials, or refuses the given ones."""


class UnsupportedByRegistry(RegistryError):
    """The registry does not offer what was asked for: listing, deleting."""


# -- 10: waiting ------------------------------------------------------------------------


class NotReady(ArvDockerError):
    """An image was not ready for use when the time to wait for it had passed."""

    exit_code = 10


# -- 11: building -----------------------------------------------------------------------


class BuildFailed(ArvDockerError):
    """An engine works and could not build an image; the end of what it said is in ``detail``."""

    exit_code = 11

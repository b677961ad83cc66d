# SPDX-License-Identifier: Apache-2.0
"""Names of images, parsed: references, and image IDs written whole or in part. No I/O.

The grammar is that of the distribution project's reference package, which Docker and
Podman follow: ``[registry[:port]/]repository[:tag][@digest]``. The first component is a
registry only if it has a dot or a colon, is ``localhost``, or has an upper-case letter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from ..errors import ArvDockerError, BadReference
from .image import Digest

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
#: The repository in the name of an image that has no name at all.
NAMELESS = "image"

#: Repositories longer than this are refused by every registry (distribution's limit). The registry and Hub's
#: ``library/`` do not count, so that all spellings of a name are names or none is.
MAX_NAME_LENGTH = 255

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_HOST_LABEL = r"(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9])"
_REGISTRY = re.compile(rf"(?:{_HOST_LABEL}(?:\.{_HOST_LABEL})*|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?")
_ENDS_IN_TAG = re.compile(rf":{_TAG.pattern}\Z")
_ID = re.compile(r"[0-9a-f]{1,64}")
_ENDS_IN_ID = re.compile(r"-([0-9a-f]{10})\Z")


@dataclass(frozen=True, slots=True)
class Reference:
    """An image's name. Two spellings of one name are equal: ``busybox``, ``docker.io/library/busybox:latest``.

    ``repository`` is the short form (``busybox``, not ``library/busybox``). ``tag`` is
    ``latest`` where neither a tag nor a digest was written, and None beside a lone digest.
    ``written`` is the text that was parsed, without a leading ``docker://``.

    >>> Reference.parse("localhost:5000/tools/bwa:0.7").canonical
    'localhost:5000/tools/bwa:0.7'
    >>> Reference.parse("busybox").canonical
    'docker.io/library/busybox:latest'
    """

    registry: str
    repository: str
    tag: str | None
    digest: Digest | None = None
    written: str = field(default="", compare=False)

    @classmethod
    def parse(cls, text: str, *, default_registry: str = DEFAULT_REGISTRY) -> Reference:
        """Parse ``text`` as a reference; raises BadReference with the reason."""
        written = text.removeprefix("docker://")
        _check_no_password(written)
        name, tag, digest = _split(written)
        registry, repository = _registry_and_repository(name, default_registry)
        if not _REGISTRY.fullmatch(registry):
            raise BadReference(f"{text!r} is not an image name: {registry!r} is not a registry's host and port.")
        if not _REPOSITORY.fullmatch(repository):
            raise BadReference(f"{text!r} is not an image name: {_repository_advice(repository)}")
        if len(repository) > MAX_NAME_LENGTH:
            raise BadReference(
                f"{text[:60]!r}… is not an image name: its repository is longer than {MAX_NAME_LENGTH} characters."
            )
        if tag is None and digest is None:
            tag = DEFAULT_TAG
        return cls(registry, repository, tag, digest, written)

    @property
    def canonical(self) -> str:
        """The one full spelling of the name, with registry, ``library/`` where Docker Hub has it, tag and digest."""
        official = self.registry == DEFAULT_REGISTRY and "/" not in self.repository
        return f"{self.registry}/{'library/' if official else ''}{self.repository}{self._suffix}"

    @property
    def familiar_name(self) -> str:
        """The short spelling of the name, as engines print it: without Docker Hub's registry and ``library/``.

        The registry stays where the repository alone would be taken for a name in another one.
        """
        short = _registry_and_repository(self.repository, DEFAULT_REGISTRY) == (self.registry, self.repository)
        return f"{'' if short else self.registry + '/'}{self.repository}{self._suffix}"

    @property
    def name(self) -> str:
        """The name as written, without tag and digest."""
        return _split(self.written)[0] if self.written else _split(self.familiar_name)[0]

    @property
    def link_name(self) -> str:
        """The name of the ``docker_image_repo+tag`` link: ``name:tag``, or ``name@digest`` without a tag.

        The registry's port goes when it is 443, as the links of arv-keepdocker have it
        (docs/spec/keepdocker.md#command-line); all else stays as
        written, for a workflow asks for exactly that text.
        """
        name = re.sub(r"^([^/]+):443/", r"\1/", self.name)
        return f"{name}:{self.tag}" if self.tag else f"{name}@{self.digest}"

    @property
    def without_usual_port(self) -> Reference | None:
        """The name without its registry's port where that is 443, which is the usual one; None for any other name, and
        for one that would then be another registry's."""
        host, colon, port = self.registry.rpartition(":")
        if not colon or port != "443":
            return None
        plain = Reference.parse(str(self).replace(self.registry, host, 1))
        return plain if plain.registry == host else None

    def unique_for(self, image_id: Digest) -> Reference:
        """A name that can never mean another image: the tag followed by a dash and 10 digits of the image's ID.

        ``latest`` stands in where there is no tag; a tag that would get too long is cut.

        >>> Reference.parse("hello:1").unique_for(Digest.sha256("b038788ddb" + "0" * 54)).familiar_name
        'hello:1-b038788ddb'
        """
        suffix = f"-{image_id.hex[:10]}"
        tag = f"{(self.tag or DEFAULT_TAG)[: 128 - len(suffix)]}{suffix}"
        return Reference(self.registry, self.repository, tag)

    @property
    def unique_to(self) -> ImageId | None:
        """The beginning of the ID of the only image that the name is for, if its tag looks like one of ``unique_for``.

        Such a tag may also be somebody's own, with a number of ten hex digits in it.
        """
        match = _ENDS_IN_ID.search(self.tag or "")
        return ImageId(match[1]) if match else None

    @property
    def as_id(self) -> ImageId | None:
        """The image ID that the name's text could also be: a bare hex number of 4 digits or more, else None."""
        return ImageId(self.written) if len(self.written) >= 4 and _ID.fullmatch(self.written) else None

    @property
    def identity(self) -> ImageId | None:
        """The digest in the name, or the beginning of an ID that the name may be; None for a name alone."""
        return self.as_id if self.digest is None else ImageId(self.digest.hex)

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.written or self.familiar_name


@dataclass(frozen=True, slots=True)
class ImageId:
    """An image ID, whole or its first digits: 1 to 64 hex digits, without ``sha256:``."""

    hex: str

    def matches(self, digest: Digest) -> bool:
        """True if ``digest`` is, or begins with, this ID."""
        return digest.algorithm == "sha256" and digest.hex.startswith(self.hex)

    @property
    def as_digest(self) -> Digest | None:
        """The ID as a digest, where all 64 digits were written; else None."""
        return Digest.sha256(self.hex) if len(self.hex) == 64 else None

    @property
    def full_id(self) -> str:
        """The ID as engines and links write it, with ``sha256:`` in front."""
        return f"sha256:{self.hex}"

    def __str__(self) -> str:
        return self.full_id


def parse_name(text: str) -> Reference | ImageId:
    """Parse a user's name for an image: a reference, or an ID as ``sha256:HEX`` or 64 hex digits.

    A text that begins with ``sha256:`` is an ID and nothing else; raises BadReference
    where no hex digits follow. A shorter bare hex number is a reference whose ``as_id``
    is set: engines look for a name first.
    """
    head, colon, digits = text.partition(":")
    if colon and head == "sha256":
        if not _ID.fullmatch(digits):
            raise BadReference(f"{text!r} is not an image ID: up to 64 lower-case hex digits follow sha256:")
        return ImageId(digits)
    if len(text) == 64 and _ID.fullmatch(text):
        return ImageId(text)
    return Reference.parse(text)


def name_as_id(text: str) -> ImageId | None:
    """The image ID that a text could be, whole or in part: with ``sha256:``, or a bare hex number; else None."""
    name = parse_name(text) if text.startswith("sha256:") or _ID.fullmatch(text) else None
    return name.as_id if isinstance(name, Reference) else name


def name_from_arguments(image: str, tag: str | None) -> Reference | ImageId:
    """The name in ``arv-keepdocker IMAGE [TAG]``; a tag given twice is an error of exit code 1, as upstream.

    Launchers split a name at its last colon whatever it means, so ``repo@sha256`` and a hash
    are put together again.
    """
    if tag is None:
        return parse_name(image)
    if _ENDS_IN_TAG.search(image) or (len(image) == 64 and _ID.fullmatch(image)):
        raise ArvDockerError(f"{image!r} already says which image is meant: leave out the tag {tag!r}.")
    if not _TAG.fullmatch(tag):
        raise BadReference(_tag_advice(tag))
    return parse_name(f"{image}:{tag}")


def references_in(texts: Iterable[str]) -> tuple[Reference, ...]:
    """The references among ``texts``: the tags that an engine or archive prints, but not ``<none>:<none>``."""
    found = []
    for text in texts:
        with suppress(BadReference):
            found.append(Reference.parse(text))
    return tuple(found)


def _check_no_password(written: str) -> None:
    """Refuse a name with a user's name or password in it, without showing them."""
    _, at, behind = written.partition("@")
    if at and not behind.startswith("sha"):
        raise BadReference(
            "an image name has no place for a user's name or a password; behind @ stands a digest (sha256:…). Log in "
            "(docker login HOST), and write the name alone."
        )


def _split(text: str) -> tuple[str, str | None, Digest | None]:
    """Split a reference's text into name, tag and digest."""
    name, at, rest = text.partition("@")
    digest = Digest.parse(rest) if at else None
    head, colon, tag = name.rpartition(":")
    if not colon or "/" in tag or tag.endswith("]"):
        return name, None, digest
    if not _TAG.fullmatch(tag):
        raise BadReference(f"{text!r} is not an image name: {_tag_advice(tag)}")
    return head, tag, digest


def _registry_and_repository(name: str, default_registry: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if slash and (any(c in first for c in ".:") or first == "localhost" or first != first.lower()):
        registry, repository = (DEFAULT_REGISTRY if first == "index.docker.io" else first), rest
    else:
        registry, repository = default_registry, name
    if registry == DEFAULT_REGISTRY and repository.count("/") == 1:
        repository = repository.removeprefix("library/")
    return registry, repository


def _tag_advice(tag: str) -> str:
    if re.match(r"[0-9]+/", tag):
        return (
            f"{tag!r} is not a tag but a port and a path: whoever split the name host:port/repository:tag split it at "
            "its first colon and lost the tag. Give the whole name as one text; programs call arv_docker.get_image."
        )
    return (
        f"{tag!r} is not a tag. A tag has up to 128 letters, digits, underscores, dots and dashes, "
        "and begins with none of the last two."
    )


def _repository_advice(repository: str) -> str:
    if not repository:
        return "it has no repository."
    if repository != repository.lower():
        return f"the repository {repository!r} has upper-case letters; only lower-case ones are allowed."
    return (
        f"{repository!r} is not a repository: lower-case letters and digits, joined by a dot, "
        "one or two underscores, or dashes, in parts between slashes."
    )

# SPDX-License-Identifier: Apache-2.0
"""Mirrors: registries that are asked first for another registry's images. Their bytes are checked as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import BadReference, BadSettings
from ..local.settings import MIRRORS
from ..model.reference import DEFAULT_REGISTRY, Reference


@dataclass(frozen=True, slots=True)
class Place:
    """A place where a repository may be: the registry's host and port, and what the repository is called there."""

    host: str
    repository: str


def places(reference: Reference, mirrors: Mapping[str, Sequence[str]]) -> list[Place]:
    """The places to look for an image: the mirrors of its registry in their order, then the registry.

    ``mirrors`` are ``HOST[:PORT][/FOLDER]`` by registry; raises BadSettings for one that is not.
    """
    repository = repository_of(reference)
    found = [_place_at(text, repository) for text in mirrors.get(reference.registry, ())]
    return [*found, Place(reference.registry, repository)]


def repository_of(reference: Reference) -> str:
    """The repository as its registry calls it: Docker Hub's own are in ``library/``."""
    official = reference.registry == DEFAULT_REGISTRY and "/" not in reference.repository
    return f"library/{reference.repository}" if official else reference.repository


def _place_at(text: str, repository: str) -> Place:
    if "@" in text:
        raise BadSettings(
            f"{MIRRORS}: a mirror has a name or a password in its address, where they do not belong. Log in there "
            "(docker login HOST, or a file auth.json), and write HOST[:PORT][/FOLDER] alone."
        )
    try:
        parsed = Reference.parse(f"{text.rstrip('/')}/{repository}")
    except BadReference as error:
        raise BadSettings(f"{MIRRORS}: {text!r} is no mirror, which is HOST[:PORT][/FOLDER]: {error.message}") from None
    return Place(parsed.registry, parsed.repository)

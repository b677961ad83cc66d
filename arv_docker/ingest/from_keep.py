# SPDX-License-Identifier: Apache-2.0
"""Images in Keep that no engine has: found by name or ID."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from ..arvados.catalog import collections, link_query, resolver
from ..arvados.catalog.link_classes import HASH, REPO_TAG
from ..arvados.client import Cluster, CollectionRecord
from ..arvados.stored import StoredImage, image_file
from ..arvados.trust import Trust
from ..errors import AmbiguousImage, ContentError, KeepError, NoSuchImage, NotAnImage
from ..local.progress import Progress
from ..local.settings import TRUSTED_WRITERS
from ..model.image import Digest
from ..model.reference import ImageId, Reference


@dataclass(frozen=True, slots=True)
class KeepImage:
    """An image in Keep, found by ``name``, or by an ID if that is None.

    ``untrusted_writer`` is the user by whose word alone the name means it; None where that is attested.
    """

    image_id: Digest
    collection: CollectionRecord
    name: Reference | None
    untrusted_writer: str | None = None


def find_in_keep(
    cluster: Cluster, name: Reference | ImageId, trust: Trust, progress: Progress, *, follow_cluster: bool = False
) -> KeepImage | None:
    """Return the image in Keep with the name or ID, or None; write nothing.

    An ID is proven by the image. A name counts by the word of trusted users, for nothing else says that it means this
    image; with ``follow_cluster`` it means what the cluster takes it for, unless that is no image, or the settings are
    against it.
    """
    if follow_cluster and isinstance(name, Reference) and not trust.names_too:
        with suppress(NoSuchImage, NotAnImage):
            resolved = resolver.resolve(cluster, str(name), trust)
            if resolved.untrusted_writer is None or _reads_as_image(cluster, resolved.collection, progress):
                for warning in resolved.warnings:
                    progress.warn(warning)
                return _image_of(resolved, name)
    try:
        return _image_of(resolver.resolve(cluster, str(name), trust, attested_only=isinstance(name, Reference)), name)
    except (NoSuchImage, NotAnImage):
        _say_who_else(cluster, name, trust, progress)
        return None


def has_attested_copy(cluster: Cluster, image: KeepImage, owner: str, trust: Trust) -> bool:
    """True if ``owner`` has an untrusted user's image already, as it lies, by an attested link."""
    copy = collections.oldest_collection(cluster, image.collection.pdh, owner)
    if copy is None:
        return False
    links = link_query.links_to(cluster, [copy.uuid], [HASH])
    return any(link.name == str(image.image_id) and trust.attests(link, copy) for link in links)


def _image_of(resolved: resolver.Resolution, name: Reference | ImageId) -> KeepImage:
    by_name = resolved.link is not None and resolved.link.link_class == REPO_TAG
    return KeepImage(
        image_file(resolved.collection).image_id,
        resolved.collection,
        name if isinstance(name, Reference) and by_name else None,
        resolved.untrusted_writer if by_name else None,
    )


def _reads_as_image(cluster: Cluster, collection: CollectionRecord, progress: Progress) -> bool:
    """True if a collection begins like the image in its file's name."""
    try:
        StoredImage(cluster, collection)
    except (ContentError, KeepError) as error:
        progress.warn(f"{collection.uuid} is not used: {error.message}")
        return False
    return True


def _say_who_else(cluster: Cluster, name: Reference | ImageId, trust: Trust, progress: Progress) -> None:
    """Say if an untrusted user has stored an image by that name."""
    with suppress(NoSuchImage, NotAnImage, AmbiguousImage):
        link = resolver.resolve(cluster, str(name), trust, attested_only=False).link
        if link is not None and not trust.includes(link.modified_by):
            progress.say(
                f"{name} is in Keep by the word of {link.modified_by} alone, who is not trusted: to take it, name "
                f"that user in the setting {TRUSTED_WRITERS}, or give --trust-readable"
            )

# SPDX-License-Identifier: Apache-2.0
"""Images that Keep has and no engine does: found by a name or ID, for a source that cannot give them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from ..arvados.catalog import resolver
from ..arvados.catalog.link_classes import REPO_TAG
from ..arvados.client import Cluster, CollectionRecord
from ..arvados.stored import image_file
from ..arvados.trust import Trust
from ..errors import AmbiguousImage, NoSuchImage, NotAnImage
from ..local.progress import Progress
from ..local.settings import TRUSTED_WRITERS
from ..model.image import Digest
from ..model.reference import ImageId, Reference


@dataclass(frozen=True, slots=True)
class KeepImage:
    """An image that Keep has. ``name`` is the one that found it, None where an ID did."""

    image_id: Digest
    collection: CollectionRecord
    name: Reference | None


def find_in_keep(cluster: Cluster, name: Reference | ImageId, trust: Trust, progress: Progress) -> KeepImage | None:
    """Return the image that Keep has under that name or ID, None if there is none; write nothing.

    A name counts by the word of trusted users alone, for nothing else says that it means
    this image; an ID says so itself.
    """
    try:
        resolved = resolver.resolve(cluster, str(name), trust, attested_only=isinstance(name, Reference))
    except (NoSuchImage, NotAnImage):
        _say_who_else(cluster, name, trust, progress)
        return None
    image_id = image_file(resolved.collection).image_id
    link = resolved.link
    by_name = link is not None and link.link_class == REPO_TAG
    return KeepImage(image_id, resolved.collection, name if isinstance(name, Reference) and by_name else None)


def _say_who_else(cluster: Cluster, name: Reference | ImageId, trust: Trust, progress: Progress) -> None:
    """Say that somebody whose word is not taken has stored an image by that name, if so."""
    with suppress(NoSuchImage, NotAnImage, AmbiguousImage):
        link = resolver.resolve(cluster, str(name), trust, attested_only=False).link
        if link is not None and not trust.includes(link.modified_by):
            progress.say(
                f"{name} is in Keep by the word of {link.modified_by} alone, who is not trusted: to take it, name "
                f"that user in the setting {TRUSTED_WRITERS}, or give --trust-readable"
            )

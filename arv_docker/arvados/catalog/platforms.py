# SPDX-License-Identifier: Apache-2.0
"""Platforms of images: which of several images by one name is for a platform.

Links do not say it, and clusters with a strict vocabulary would refuse a property that did.
An image's config does: of those that the name may mean, in the cluster's own order, the head of the
archive is read, a small block of an image that is stored as we store it.
"""

from __future__ import annotations

from dataclasses import replace

from ...errors import ContentError, KeepError, NoSuchImage, lines_of
from ...local.progress import Progress
from ...model.image import Platform
from ...model.manifest import same_platform, suits
from ..client import Cluster, CollectionRecord, Link
from ..stored import StoredImage
from .link_query import collections_of
from .resolver import Resolution, usable_collection


def choose_platform(cluster: Cluster, resolution: Resolution, platform: Platform, progress: Progress) -> Resolution:
    """Choose the image that a name means for ``platform``: the first in the cluster's order.

    Without a variant, one of any variant will do where there is none without. A warning says where the cluster
    takes another image for the name. Raises NoSuchImage with a list of the images that there are.
    """
    others: list[tuple[Link | None, CollectionRecord, Platform]] = []
    with progress.step("reading the configs of the images of that name", None) as advance:
        for link, collection in _candidates(cluster, resolution):
            try:
                stored = StoredImage(cluster, collection)
            except (ContentError, KeepError) as error:
                progress.say(f"{collection.uuid} is left out: {error.message}")
                continue
            advance(stored.bytes_read)
            if same_platform(stored.config.platform, platform):
                return _choose(resolution, link, collection)
            others.append((link, collection, stored.config.platform))
    for link, collection, other in others:
        if suits(other, platform):
            return _choose(resolution, link, collection)
    there = lines_of(f"{collection.uuid}  {other}" for _, collection, other in others)
    raise NoSuchImage(f"no image of that name is for {platform}; there are:", detail=there)


def _candidates(cluster: Cluster, resolution: Resolution) -> list[tuple[Link | None, CollectionRecord]]:
    """The collections that a name may mean, in the cluster's order."""
    if not resolution.ranked:
        return [(resolution.link, resolution.collection)]
    collections = collections_of(cluster, resolution.ranked, manifest=True)
    pairs = [
        (link, usable_collection(cluster, collections[link.head_uuid]))
        for link in resolution.ranked
        if link.head_uuid in collections
    ]
    return [(link, collection) for link, collection in pairs if collection is not None]


def _choose(resolution: Resolution, link: Link | None, collection: CollectionRecord) -> Resolution:
    if collection.pdh == resolution.collection.pdh:
        return resolution
    warning = f"the cluster itself takes {resolution.collection.uuid} for that name, an image for another platform."
    return replace(resolution, collection=collection, link=link, warnings=(*resolution.warnings, warning))

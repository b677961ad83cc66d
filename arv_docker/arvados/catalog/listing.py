# SPDX-License-Identifier: Apache-2.0
"""Listing of the images that a cluster has, the preferred first, by the rule of the clients."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ...errors import ContentError
from ...model.image import parsed_time
from ...model.reference import ImageId
from ..client import PAGE, Cluster, CollectionRecord, Filter, Link, batches
from ..stored import image_file
from ..trust import Trust
from .link_classes import DIGEST, HASH, REPO_TAG
from .link_query import LinkQuery, collections_of
from .ranking import NEVER, TIMESTAMP, sort_key

_UNKNOWN = "<unknown>"


@dataclass(frozen=True, slots=True)
class ListingRow:
    """A line of the listing: a collection under one of its names.

    ``repository`` and ``tag`` are ``<none>`` for an image with only a hash link. ``image_id`` is that of an attested
    link, else the one in the name of the collection's file, whatever links say; ``<unknown>`` where it holds no image.
    """

    collection: CollectionRecord
    repository: str
    tag: str
    image_id: str
    link: Link

    @property
    def timestamp(self) -> datetime.datetime:
        """Time when the image was made, as its link says; else when it was linked."""
        made = parsed_time(self.link.properties.get(TIMESTAMP))
        return made or parsed_time(self.link.created_at) or NEVER


@dataclass(frozen=True, slots=True)
class Listing:
    """Images of a cluster: rows, the preferred first, and the links that are left out.

    The ``false_links`` call a collection by an image ID that the name of its file does not have.
    """

    rows: tuple[ListingRow, ...]
    false_links: tuple[Link, ...]


def list_images(
    cluster: Cluster, trust: Trust, name: str | None = None, project: str | None = None, *, also: ImageId | None = None
) -> Listing:
    """List the images that the user can see, or those called ``name``; the preferred first.

    ``name`` is a repository with or without a tag, or an image ID; ``also`` an ID to look for beside it. A project
    limits links and collections to those that it owns. Further digests of images count by the word of trusted users
    alone. The number of requests is linear in the links.
    """
    owner: list[Filter] = [["owner_uuid", "=", project]] if project else []
    by_id: set[str] = set()
    if name is None:
        links = list(cluster.links([["link_class", "in", [REPO_TAG, HASH]], *owner]))
    else:
        links = LinkQuery.of_text(name, project, also).links(cluster)
        by_id = {link.uuid for link in links if link.link_class != REPO_TAG}
        links += _further_links(cluster, HASH, [link for link in links if link.link_class == REPO_TAG], links, owner)
    collections = collections_of(cluster, links, project)
    readable = [link for link in links if link.head_uuid in collections]
    ids = _ids(cluster, [link for link in readable if link.link_class == HASH], collections, trust)
    listed, false = [], []
    for link in readable:
        if link.link_class == HASH and link.name.lower() != ids[link.head_uuid]:
            false.append(link)
        elif link.link_class != DIGEST or trust.attests(link, collections[link.head_uuid]):
            listed.append(link)
    # What was found by an ID is shown by its names.
    listed += _further_links(cluster, REPO_TAG, [link for link in listed if link.uuid in by_id], listed, owner)
    return Listing(_rows(listed, collections, ids), tuple(false))


def _further_links(
    cluster: Cluster, wanted: str, heads_of: Iterable[Link], known: Iterable[Link], owner: list[Filter]
) -> list[Link]:
    """Return the links of the ``wanted`` class to the heads of some links, without those that are known."""
    seen = {link.uuid for link in known}
    return [
        link
        for batch in batches([link.head_uuid for link in heads_of], PAGE - 1)
        for link in cluster.links([["link_class", "=", wanted], ["head_uuid", "in", batch], *owner])
        if link.uuid not in seen
    ]


def _ids(
    cluster: Cluster, hash_links: Iterable[Link], collections: Mapping[str, CollectionRecord], trust: Trust
) -> dict[str, str]:
    """Return the IDs of the images in some collections: by attested links, else as the names of their files have them.

    The manifest texts, which may be long, are asked for only where there is no attested link, or several disagree.
    """
    attested: dict[str, set[str]] = {}
    for link in hash_links:
        if trust.attests(link, collections[link.head_uuid]):
            attested.setdefault(link.head_uuid, set()).add(link.name.lower())
    ids = {uuid: next(iter(names)) for uuid, names in attested.items() if len(names) == 1 and not trust.readable}
    for batch in batches([uuid for uuid in collections if uuid not in ids]):
        for collection in cluster.collections([["uuid", "in", batch]], manifest=True):
            ids[collection.uuid] = _id_in_file_name(collection)
    return {uuid: ids.get(uuid, _UNKNOWN) for uuid in collections}


def _id_in_file_name(collection: CollectionRecord) -> str:
    try:
        file = image_file(collection)
    except ContentError:
        return _UNKNOWN
    return str(file.image_id) if file.version > 1 else file.image_id.hex


def _rows(
    links: Iterable[Link], collections: Mapping[str, CollectionRecord], ids: Mapping[str, str]
) -> tuple[ListingRow, ...]:
    named: dict[tuple[str, str], Link] = {}
    ranked = sorted(links, key=sort_key, reverse=True)
    for link in ranked:
        if link.link_class == REPO_TAG:
            named.setdefault((link.head_uuid, link.name), link)
    have_names = {head for head, _ in named}
    for link in ranked:
        if link.link_class != REPO_TAG and link.head_uuid not in have_names:
            named.setdefault((link.head_uuid, ""), link)
    rows = (
        ListingRow(collections[head], *_repository_and_tag(name), ids[head], link)
        for (head, name), link in named.items()
    )
    return tuple(sorted(rows, key=lambda row: sort_key(row.link), reverse=True))


def _repository_and_tag(name: str) -> tuple[str, str]:
    if not name:
        return "<none>", "<none>"
    repository, _, tag = name.rpartition(":")
    return (repository, tag) if repository else (name, "<none>")

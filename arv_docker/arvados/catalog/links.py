# SPDX-License-Identifier: Apache-2.0
"""Writing of the links that make a collection an image: each kind once, however often it is tried.

Our links pin the PDH in ``tail_uuid``: with the server's word on who wrote a link last, that
makes it *attested* (``trust``), and it goes stale by itself when the collection's content changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...errors import ClusterError
from ...model.image import Config, Digest, parsed_time
from ...model.reference import Reference
from ..client import Cluster, CollectionRecord, Link
from ..create_or_find import create_or_find
from ..trust import Trust
from .link_classes import DIGEST, HASH, REPO_TAG
from .ranking import TIMESTAMP


def timestamp_of(config: Config) -> dict[str, str]:
    """The property that ranks a link: the config's time of creation; empty without one.

    A null in its place would crash every listing of the original (docs/spec/keepdocker.md#null-timestamps).
    """
    return {} if config.created is None else {TIMESTAMP: config.created}


def timestamp_in(link: Link) -> dict[str, str]:
    """Property that ranks links, taken from an existing link, if readable."""
    text = link.properties.get(TIMESTAMP)
    return {TIMESTAMP: text} if isinstance(text, str) and parsed_time(text) is not None else {}


def ensure_links(
    cluster: Cluster,
    collection: CollectionRecord,
    image_id: Digest,
    name: Reference | None,
    *,
    trust: Trust,
    properties: Mapping[str, object],
    existing: Iterable[Link],
) -> int:
    """Write the links that ``existing`` lacks: the hash link, then the name's. Return how many were written.

    A link is there if it has the class and name, points to this collection, and is attested:
    one of somebody else may go as it came. Links belong to the owner of the collection, or to
    this user, who may name what others let him read. Of equal ones that two processes wrote
    at the same moment the oldest stays.
    """
    wanted = [(HASH, str(image_id)), *([(REPO_TAG, name.link_name)] if name else [])]
    there = {
        (link.link_class, link.name)
        for link in existing
        if link.head_uuid == collection.uuid and trust.attests(link, collection)
    }
    return _write(cluster, collection, [key for key in wanted if key not in there], properties)


def ensure_digest_links(
    cluster: Cluster, collection: CollectionRecord, digests: Iterable[Digest], *, trust: Trust, existing: Iterable[Link]
) -> int:
    """Write a link for each further digest by which engines and registries call the image; return how many."""
    there = {
        link.name
        for link in existing
        if link.link_class == DIGEST and link.head_uuid == collection.uuid and trust.attests(link, collection)
    }
    missing = [(DIGEST, str(digest)) for digest in dict.fromkeys(digests) if str(digest) not in there]
    return _write(cluster, collection, missing, {})


def _write(
    cluster: Cluster,
    collection: CollectionRecord,
    missing: Sequence[tuple[str, str]],
    properties: Mapping[str, object],
) -> int:
    """Write links of those classes and names, in that order; return how many."""
    for link_class, name in missing:
        _create_once(cluster, collection, link_class, name, properties)
    if missing:
        classes, names = zip(*missing, strict=True)
        kinds = [["link_class", "in", sorted(set(classes))], ["name", "in", sorted(set(names))]]
        about = [["head_uuid", "=", collection.uuid], ["tail_uuid", "=", collection.pdh]]
        for later in _later_ones(_ours(cluster, [*kinds, *about])):
            cluster.delete_link(later.uuid)
    return len(missing)


def _create_once(
    cluster: Cluster, collection: CollectionRecord, link_class: str, name: str, properties: Mapping[str, object]
) -> None:
    attributes = {
        "link_class": link_class,
        "name": name,
        "head_uuid": collection.uuid,
        "tail_uuid": collection.pdh,
        "owner_uuid": collection.owner_uuid,
        "properties": dict(properties),
    }
    try:
        _create(cluster, attributes)
    except ClusterError as error:
        if error.status != 403 or collection.owner_uuid == cluster.user_uuid:
            raise
        _create(cluster, attributes | {"owner_uuid": cluster.user_uuid})


def _create(cluster: Cluster, attributes: Mapping[str, object]) -> None:
    keys = ("link_class", "name", "head_uuid", "tail_uuid", "owner_uuid")
    equals = [[key, "=", attributes[key]] for key in keys]
    create_or_find(lambda: cluster.create_link(attributes), lambda: next(iter(_ours(cluster, equals)), None))


def _ours(cluster: Cluster, filters: Sequence[list[Any]]) -> list[Link]:
    """This user's links that pass the filters, the oldest first."""
    found = (link for link in cluster.links(filters) if link.modified_by == cluster.user_uuid)
    return sorted(found, key=lambda link: (link.created_at, link.uuid))


def _later_ones(links: Iterable[Link]) -> list[Link]:
    """Links that repeat an earlier link."""
    seen: set[tuple[str, str, str]] = set()
    later = []
    for link in links:
        says = (link.link_class, link.name, link.owner_uuid)
        if says in seen:
            later.append(link)
        seen.add(says)
    return later

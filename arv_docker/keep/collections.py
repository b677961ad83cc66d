# SPDX-License-Identifier: Apache-2.0
"""Creating an image's collection once, however often the creation is tried, and by however many.

There is no transaction over a cluster. So each step looks before it writes: the PDH says
whether the collection is there already, after a lost answer as well as after a crash;
and of several equal ones that were created at the same moment the oldest stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import manifest
from .client import Cluster, CollectionRecord
from .once import once

#: The property by which arv-keepdocker notes an image's name on its collection.
REPO_TAG_PROPERTY = "docker-image-repo-tag"


def create_once(
    cluster: Cluster, text: str, *, owner: str, name: str, properties: Mapping[str, Any], anew: bool = False
) -> CollectionRecord:
    """The collection of ``owner`` with that manifest text: an equal one that is there, or a new one.

    ``anew`` always creates one. Raises ClusterError when it can be neither found nor created.
    """
    pdh = manifest.pdh(text)
    attributes = {
        "manifest_text": text,
        "name": name,
        "owner_uuid": owner,
        "portable_data_hash": pdh,
        "properties": dict(properties),
    }
    if anew:
        return cluster.create_collection(attributes)
    if (found := oldest(cluster, pdh, owner)) is not None:
        return found
    created = once(lambda: cluster.create_collection(attributes), lambda: oldest(cluster, pdh, owner))
    return _oldest_of_equals(cluster, created)


def oldest(cluster: Cluster, pdh: str, owner: str) -> CollectionRecord | None:
    """The oldest collection of that content that ``owner`` has, None if there is none."""
    found = cluster.collections([["portable_data_hash", "=", pdh], ["owner_uuid", "=", owner]])
    return min(found, key=_age, default=None)


def note_name(cluster: Cluster, collection: CollectionRecord, name: str) -> None:
    """Sets the property that names the image, unless it has one; properties of others stay."""
    if collection.properties.get(REPO_TAG_PROPERTY) is None:
        cluster.update_collection(collection.uuid, {"properties": {**collection.properties, REPO_TAG_PROPERTY: name}})


def _oldest_of_equals(cluster: Cluster, created: CollectionRecord) -> CollectionRecord:
    """The one that stays when others created the same collection while we did; ours goes if it is not that one."""
    kept = oldest(cluster, created.pdh, created.owner_uuid) or created
    if kept.uuid != created.uuid:
        cluster.trash_collection(created.uuid)
    return kept


def _age(collection: CollectionRecord) -> tuple[str, str]:
    return collection.created_at, collection.uuid

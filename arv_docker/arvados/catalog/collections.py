# SPDX-License-Identifier: Apache-2.0
"""Creating an image's collection once, however often the creation is tried, and by however many.

There is no transaction over a cluster. So each step looks before it writes: the PDH says
whether the collection is there already, after a lost answer as well as after a crash;
and of several equal ones that were created at the same moment the oldest stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import ClusterError
from ...model import manifest_text
from ..client import Cluster, CollectionRecord
from ..create_or_find import create_or_find

#: The property by which arv-keepdocker notes an image's name on its collection.
REPO_TAG_PROPERTY = "docker-image-repo-tag"
#: Further ones, which users proposed and no program reads; written only when asked for (docs/conformance.md#k25).
HASH_PROPERTY = "docker-image-hash"
TIMESTAMP_PROPERTY = "docker-image-timestamp"


def ensure_collection(
    cluster: Cluster, text: str, *, owner: str, name: str, properties: Mapping[str, Any], anew: bool = False
) -> CollectionRecord:
    """Ensure a collection of ``owner`` with that manifest text: return an existing or a new one.

    With ``anew`` one of another name does not count. Raises ClusterError when it can be
    neither found nor created.
    """
    pdh = manifest_text.pdh(text)
    attributes = {
        "manifest_text": text,
        "name": name,
        "owner_uuid": owner,
        "portable_data_hash": pdh,
        "properties": dict(properties),
    }

    def look() -> CollectionRecord | None:
        return oldest_collection(cluster, pdh, owner, name if anew else None)

    if (found := look()) is not None:
        return found
    created = create_or_find(lambda: cluster.create_collection(attributes), look)
    kept = look() or created
    if kept.uuid != created.uuid:  # others created the same one while we did
        cluster.trash_collection(created.uuid)
    return kept


def oldest_collection(cluster: Cluster, pdh: str, owner: str, name: str | None = None) -> CollectionRecord | None:
    """The oldest collection of ``owner`` with that content, or with that name; None without a match."""
    found = cluster.collections([["portable_data_hash", "=", pdh], ["owner_uuid", "=", owner]])
    lasting = (it for it in found if not it.trash_at)
    return min((it for it in lasting if name is None or _has_name(it, name)), key=_age, default=None)


def set_name_property(cluster: Cluster, collection: CollectionRecord, name: str) -> None:
    """Set the property with the image's name, unless there is one, or the collection is read-only."""
    if collection.properties.get(REPO_TAG_PROPERTY) is not None:
        return
    try:
        cluster.update_collection(collection.uuid, {"properties": {**collection.properties, REPO_TAG_PROPERTY: name}})
    except ClusterError as error:
        if error.status != 403:
            raise


def _has_name(collection: CollectionRecord, name: str) -> bool:
    """True if the collection was created by that name, to which the server may have added a time."""
    return collection.name == name or collection.name.startswith(f"{name} (")


def _age(collection: CollectionRecord) -> tuple[str, str]:
    return collection.created_at, collection.uuid

# SPDX-License-Identifier: Apache-2.0
"""Asking a cluster for links about images, and for the collections that they point to.

Everybody may write links. What one is worth is said elsewhere: ``trust`` knows its writer, ``proof`` the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...model.reference import DEFAULT_TAG, ImageId, Reference, parse_name
from ..client import Cluster, CollectionRecord, Filter, Link, batches
from ..trust import Trust
from .link_classes import DIGEST, HASH, REPO_TAG
from .ranking import sort_key

#: Collections that are looked into for the layers of another image of their repository.
_MOST_OF_REPOSITORY = 5
_COLLECTION_UUID = re.compile(r"[0-9a-z]{5}-4zz18-[0-9a-z]{15}")


@dataclass(frozen=True, slots=True)
class LinkQuery:
    """Query for the links of a text: by image name, and by the image ID that the text is or begins.

    ``name`` filters the names of ``docker_image_repo+tag`` links, None where none is looked for; a name of a repository
    alone has as many slashes as ``slashes`` says. ``project`` limits the links to those that it owns.
    """

    name: Filter | None
    image_id: ImageId | None
    slashes: int | None = None
    project: str | None = None

    @classmethod
    def of_name(cls, name: Reference | ImageId) -> LinkQuery:
        """Query for exactly that name with tag, or ID."""
        if isinstance(name, ImageId):
            return cls(None, name)
        return cls(None if _is_pinned(name) else ["name", "=", name.link_name], name.identity)

    @classmethod
    def of_text(cls, text: str, project: str | None = None, also: ImageId | None = None) -> LinkQuery:
        """Question for a name, every tag of a repository where it says none, or an ID; ``also`` is a further ID.

        Raises BadReference for a text that is neither.
        """
        name = parse_name(text)
        if isinstance(name, ImageId):
            return cls(None, also or name, project=project)
        image_id, slashes = also or name.identity, name.link_name.count("/")
        if _is_pinned(name):
            return cls(None, image_id, project=project)
        if name.written == name.name:
            return cls(_tags_of(name.link_name.removesuffix(f":{DEFAULT_TAG}")), image_id, slashes, project)
        return cls(["name", "=", name.link_name], image_id, slashes, project)

    def links(self, cluster: Cluster) -> list[Link]:
        """Return the links by that name, and links of both classes by that ID."""
        found: list[Link] = []
        if self.name is not None:
            named = cluster.links([["link_class", "=", REPO_TAG], self.name, *self._owner])
            found += (link for link in named if self.slashes in (None, link.name.count("/")))
        if self.image_id is not None:
            whole = self.image_id.as_digest
            name: Filter = ["name", "=", str(whole)] if whole else ["name", "like", f"{self.image_id.full_id}%"]
            found += cluster.links([["link_class", "in", [HASH, DIGEST]], name, *self._owner])
        return found

    @property
    def _owner(self) -> list[Filter]:
        return [["owner_uuid", "=", self.project]] if self.project else []


def collections_of(
    cluster: Cluster, links: Iterable[Link], project: str | None = None, *, manifest: bool = False
) -> dict[str, CollectionRecord]:
    """Return the readable collections that the links point to, by UUID.

    A link may point to anything: a PDH, a text, a collection of another cluster. The server is not asked
    for those, for it then answers with nothing at all, or with 404
    (docs/spec/arvados-api.md#foreign-uuids).
    """
    owner: list[Filter] = [["owner_uuid", "=", project]] if project else []
    prefix = cluster.system_user_uuid[:6]
    heads = [link.head_uuid for link in links if link.head_uuid.startswith(prefix)]
    return {
        collection.uuid: collection
        for batch in batches([head for head in heads if is_collection_uuid(head)])
        for collection in cluster.collections([["uuid", "in", batch], *owner], manifest=manifest)
    }


def collections_of_repository(cluster: Cluster, name: Reference, trust: Trust) -> list[CollectionRecord]:
    """Return the collections that trusted users have lately linked by names of the same repository.

    They have their manifest texts.
    """
    stem = Reference.parse(name.name).link_name.removesuffix(f":{DEFAULT_TAG}")
    links = [
        link
        for link in cluster.newest_links([["link_class", "=", REPO_TAG], _tags_of(stem)])
        if "/" not in link.name[len(stem) :]
    ]
    trusted = (link.head_uuid for link in links if trust.includes(link.modified_by))
    heads = list(dict.fromkeys(trusted))[:_MOST_OF_REPOSITORY]
    found = collections_of(cluster, [link for link in links if link.head_uuid in heads], manifest=True)
    return [found[uuid] for uuid in heads if uuid in found]


def links_to(cluster: Cluster, uuids: Sequence[str], classes: Sequence[str] = (REPO_TAG, HASH)) -> list[Link]:
    """Return every link of these classes to any of the collections, the preferred first."""
    found = [
        link
        for batch in batches(uuids)
        for link in cluster.links([["link_class", "in", list(classes)], ["head_uuid", "in", batch]])
    ]
    return sorted(found, key=sort_key, reverse=True)


def is_collection_uuid(text: str) -> bool:
    """True if the text is the UUID of a collection, of any cluster."""
    return _COLLECTION_UUID.fullmatch(text) is not None


def _is_pinned(name: Reference) -> bool:
    """True if the digest decides which image is meant, and the tag beside it counts for nothing, as in engines."""
    return name.digest is not None and name.tag is not None


def _tags_of(stem: str) -> Filter:
    """Filter for every tag of a repository. For ``app`` also ``app:5000/other:1``, where app is a registry."""
    return ["name", "like", re.sub(r"([\\%_])", r"\\\1", stem) + ":%"]

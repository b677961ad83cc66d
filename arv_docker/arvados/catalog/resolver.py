# SPDX-License-Identifier: Apache-2.0
"""Which images there are, and which one a name means.

Links name images: ``docker_image_repo+tag`` by name, ``docker_image_hash`` by image ID.
Where several collections answer to a name, links are ranked (``ranking``). Clients and the
server do that by rules of their own, and it is the server that starts containers, so
``resolve`` follows the server.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ...errors import AmbiguousImage, BadManifestText, ClusterError, NoSuchImage, NotAnImage
from ...model.image import parsed_time
from ...model.manifest_text import is_pdh
from ...model.reference import DEFAULT_TAG, ImageId, Reference, parse_name
from ..client import PAGE, Cluster, CollectionRecord, Filter, Link, batches
from ..stored import image_file
from ..trust import Trust
from .ranking import NEVER, TIMESTAMP, newest_first, server_order, sort_key

REPO_TAG = "docker_image_repo+tag"
HASH = "docker_image_hash"
#: Further digests by which engines and registries call an image; the server and upstream do not look at them.
DIGEST = "docker_image_digest"
MIGRATION = "docker_image_migration"

#: Collections that are looked into for the layers of another image of their repository.
_MOST_OF_REPOSITORY = 5
_COLLECTION_UUID = re.compile(r"[0-9a-z]{5}-4zz18-[0-9a-z]{15}")


@dataclass(frozen=True, slots=True)
class ListingRow:
    """A line of the listing: a collection under one of its names.

    ``repository`` and ``tag`` are ``<none>`` for an image with only a hash link, and
    ``image_id`` is ``<unknown>`` for one with only a name.
    """

    collection: CollectionRecord
    repository: str
    tag: str
    image_id: str
    link: Link

    @property
    def timestamp(self) -> datetime.datetime:
        """When the image was made, as its link says; else when it was linked."""
        made = parsed_time(self.link.properties.get(TIMESTAMP))
        return made or parsed_time(self.link.created_at) or NEVER


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a name means: a collection, and the link that decided (None for a UUID or a PDH).

    ``ranked`` are the links that were compared, one for each collection, in the server's order.
    """

    collection: CollectionRecord
    link: Link | None
    warnings: tuple[str, ...] = ()
    ranked: tuple[Link, ...] = ()


def listing(
    cluster: Cluster, name: str | None = None, project: str | None = None, *, also: ImageId | None = None
) -> list[ListingRow]:
    """The images that the user can see, the preferred first; all of them, or those called ``name``.

    ``name`` is a repository with or without a tag, or an image ID; ``also`` an ID to look for
    if there is no such name. A project limits links and collections to what it owns. The
    number of requests is linear in the links.
    """
    links = _links_for(cluster, name, [["owner_uuid", "=", project]] if project else [], also)
    return _rows(links, collections_of(cluster, links, project))


def resolve(cluster: Cluster, text: str, trust: Trust | None = None, *, trusted_only: bool = False) -> Resolved:
    """The collection that ``text`` means: an image's name or ID by the server's rule, or a UUID or PDH as it is.

    With ``trust`` a deciding link of somebody else is warned of; ``trusted_only`` leaves links
    out that are not attested, which the server does not. Raises NoSuchImage, AmbiguousImage for the
    beginning of several IDs, and BadReference.
    """
    if is_pdh(text) or _COLLECTION_UUID.fullmatch(text):
        return Resolved(_by_identity(cluster, text), None)
    name = parse_name(text)
    links = _candidates(cluster, name)
    collections = collections_of(cluster, links, manifest=True)
    readable = [link for link in links if link.head_uuid in collections]
    if trust is not None and trusted_only:
        readable = [link for link in readable if trust.attests(link, collections[link.head_uuid])]
    if len(ids := {link.name for link in readable if link.link_class != REPO_TAG}) > 1:
        raise AmbiguousImage(f"{text!r} is the beginning of {len(ids)} image IDs.", detail="\n".join(sorted(ids)))
    ranked = tuple(server_order(readable))
    for link in ranked:
        if (found := usable_collection(cluster, collections[link.head_uuid])) is not None:
            changed = link.tail_uuid not in ("", collections[link.head_uuid].pdh) and is_pdh(link.tail_uuid)
            return Resolved(found, link, tuple(_warnings(readable, link, found, trust, changed=changed)), ranked)
    if readable:
        raise NotAnImage(f"{text!r} is known to the cluster, but no collection of that name holds a usable image.")
    raise NoSuchImage(f"the cluster knows no image {text!r}. See the images it has: arv-docker images")


def collection_with_uuid(cluster: Cluster, found: CollectionRecord) -> CollectionRecord:
    """The collection itself where ``found`` was asked for by PDH, which names content and no record: the oldest of it.

    Prefers those of this user. Raises NoSuchImage if it can be read by PDH alone.
    """
    if _COLLECTION_UUID.fullmatch(found.uuid):
        return found
    copies = list(cluster.collections([["portable_data_hash", "=", found.pdh]], manifest=True))
    if not copies:
        raise NoSuchImage(f"no collection with the content {found.pdh} is readable, only an old version of one.")
    return min(copies, key=lambda copy: (copy.owner_uuid != cluster.user_uuid, copy.created_at, copy.uuid))


def collections_of_repository(cluster: Cluster, name: Reference, trust: Trust) -> list[CollectionRecord]:
    """The collections, with manifest texts, that trusted users have lately linked by names of the same repository."""
    stem = Reference.parse(name.name).link_name.removesuffix(f":{DEFAULT_TAG}")
    links = [
        it
        for it in cluster.newest_links([["link_class", "=", REPO_TAG], _tags_of(stem)])
        if "/" not in it.name[len(stem) :]
    ]
    heads = list(dict.fromkeys(it.head_uuid for it in links if trust.includes(it.modified_by)))[:_MOST_OF_REPOSITORY]
    found = collections_of(cluster, [it for it in links if it.head_uuid in heads], manifest=True)
    return [found[uuid] for uuid in heads if uuid in found]


def links_to(cluster: Cluster, uuids: Sequence[str], classes: Sequence[str] = (REPO_TAG, HASH)) -> list[Link]:
    """Every link of these classes that points to one of the collections, the preferred first."""
    found = [
        link
        for batch in batches(uuids)
        for link in cluster.links([["link_class", "in", list(classes)], ["head_uuid", "in", batch]])
    ]
    return sorted(found, key=sort_key, reverse=True)


# -- what a name finds ------------------------------------------------------------------


def _candidates(cluster: Cluster, name: Reference | ImageId) -> list[Link]:
    """The links that answer to a name, or, failing that, to an image ID that it begins."""
    if isinstance(name, Reference):
        found: list[Link] = []
        if not _is_pinned(name):
            found = list(cluster.links([["link_class", "=", REPO_TAG], ["name", "=", name.link_name]]))
        if found or (prefix := name.identity) is None:
            return found
    else:
        prefix = name
    return _hash_links(cluster, prefix, [])


def _is_pinned(name: Reference) -> bool:
    """Whether a digest says which image is meant, and the tag beside it nothing, as engines have it."""
    return name.digest is not None and name.tag is not None


def _hash_links(cluster: Cluster, prefix: ImageId, extra: Sequence[Filter]) -> list[Link]:
    """The links by an image's ID; where there are none, those by another digest of it."""
    whole = prefix.whole
    name: Filter = ["name", "=", str(whole)] if whole else ["name", "like", f"{prefix.written}%"]
    found = list(cluster.links([["link_class", "in", [HASH, DIGEST]], name, *extra]))
    return [link for link in found if link.link_class == HASH] or found


def _links_for(cluster: Cluster, name: str | None, extra: Sequence[Filter], also: ImageId | None) -> list[Link]:
    """The links of both classes of every collection that ``name`` finds."""
    both: Filter = ["link_class", "in", [REPO_TAG, HASH]]
    if name is None:
        return list(cluster.links([both, *extra]))
    parsed = parse_name(name)
    found: list[Link] = []
    prefix = also or (parsed if isinstance(parsed, ImageId) else parsed.identity)
    if isinstance(parsed, Reference) and not _is_pinned(parsed):
        found = list(cluster.links([["link_class", "=", REPO_TAG], _name_filter(parsed), *extra]))
        found = [link for link in found if link.name.count("/") == parsed.link_name.count("/")]
    if not found and prefix is not None:
        found = _hash_links(cluster, prefix, extra)
    heads = [link.head_uuid for link in found]
    others = {REPO_TAG: [HASH], HASH: [REPO_TAG], DIGEST: [HASH, REPO_TAG]}[found[0].link_class] if found else []
    for batch in batches(heads, PAGE - 1):
        found += cluster.links([["link_class", "in", others], ["head_uuid", "in", batch], *extra])
    return [link for link in found if link.link_class != DIGEST]


def _name_filter(name: Reference) -> Filter:
    """Exactly the name with its tag; without one, every tag of the repository."""
    if name.written == name.name:
        return _tags_of(name.link_name.removesuffix(":latest"))
    return ["name", "=", name.link_name]


def _tags_of(stem: str) -> Filter:
    """Every tag of a repository. For ``app`` also ``app:5000/other:1``, where app is a registry."""
    return ["name", "like", re.sub(r"([\\%_])", r"\\\1", stem) + ":%"]


def collections_of(
    cluster: Cluster, links: Iterable[Link], project: str | None = None, *, manifest: bool = False
) -> dict[str, CollectionRecord]:
    """The readable collections that the links point to, by UUID.

    A link may point to anything: a PDH, a text, a collection of another cluster. The server is not asked
    for those, for it then answers with nothing at all, or with 404
    (docs/spec/arvados-api.md#foreign-uuids).
    """
    owner: list[Filter] = [["owner_uuid", "=", project]] if project else []
    own = cluster.system_user_uuid[:6]
    heads = [it.head_uuid for it in links if it.head_uuid.startswith(own) and _COLLECTION_UUID.fullmatch(it.head_uuid)]
    return {
        collection.uuid: collection
        for batch in batches(heads)
        for collection in cluster.collections([["uuid", "in", batch], *owner], manifest=manifest)
    }


# -- the listing ------------------------------------------------------------------------


def _rows(links: Iterable[Link], collections: dict[str, CollectionRecord]) -> list[ListingRow]:
    ranked = sorted((link for link in links if link.head_uuid in collections), key=sort_key, reverse=True)
    ids: dict[str, str] = {}
    named: dict[tuple[str, str], Link] = {}
    for link in ranked:
        if link.link_class == HASH:
            ids.setdefault(link.head_uuid, link.name)
        else:
            named.setdefault((link.head_uuid, link.name), link)
    have_names = {head for head, _ in named}
    for link in ranked:
        if link.link_class == HASH and link.head_uuid not in have_names:
            named.setdefault((link.head_uuid, ""), link)
    rows = [
        ListingRow(collections[head], *_repository_and_tag(name), ids.get(head, "<unknown>"), link)
        for (head, name), link in named.items()
    ]
    return sorted(rows, key=lambda row: sort_key(row.link), reverse=True)


def _repository_and_tag(name: str) -> tuple[str, str]:
    if not name:
        return "<none>", "<none>"
    repository, _, tag = name.rpartition(":")
    return (repository, tag) if repository else (name, "<none>")


# -- the collection that is meant -------------------------------------------------------


def _by_identity(cluster: Cluster, text: str) -> CollectionRecord:
    try:
        return cluster.collection(text)
    except ClusterError as error:
        if error.status == 404:
            raise NoSuchImage(f"the cluster has no collection {text}, or does not show it to this user.") from error
        raise


def usable_collection(cluster: Cluster, collection: CollectionRecord) -> CollectionRecord | None:
    """The collection, if it holds one file named as a version 2 image; else the one it was migrated to, or None."""
    if _holds_version_2(collection):
        return collection
    links = cluster.links([["link_class", "=", MIGRATION], ["tail_uuid", "=", collection.pdh]])
    trusted = [link for link in links if link.owner_uuid == cluster.system_user_uuid]
    if not trusted:
        return None
    newest = newest_first(trusted)[0]
    found = cluster.collections([["portable_data_hash", "=", newest.head_uuid]], manifest=True)
    return next((target for target in found if _holds_version_2(target)), None)


def _holds_version_2(collection: CollectionRecord) -> bool:
    try:
        return image_file(collection).version == 2
    except (NotAnImage, BadManifestText):
        return False


def _warnings(
    links: Sequence[Link], chosen: Link, head: CollectionRecord, trust: Trust | None, *, changed: bool
) -> Iterator[str]:
    if chosen.link_class == HASH and f"sha256:{image_file(head).image_id.hex}" != chosen.name.lower():
        yield f"link {chosen.uuid} is about image {chosen.name}; {chosen.head_uuid}, its head, holds another one."
    if chosen.link_class == DIGEST:
        yield f"the cluster itself does not know the digest {chosen.name}; name the image by its ID or a name there."
    if changed:
        yield (
            f"collection {chosen.head_uuid} has changed since it was linked: link {chosen.uuid} is about the content "
            f"{chosen.tail_uuid}."
        )
    preferred = max(links, key=sort_key)
    if preferred.head_uuid != chosen.head_uuid:
        yield (
            f"clients that rank links themselves would pick {preferred.head_uuid} instead: its link "
            "comes first by their rule, the cluster's own rule decides otherwise."
        )
    if trust is not None and not trust.includes(chosen.modified_by):
        yield (
            f"the link that decides, {chosen.uuid} to {chosen.head_uuid}, was last written by {chosen.modified_by}, "
            "who is not trusted (see the setting ARV_DOCKER_TRUSTED_WRITERS)."
        )

# SPDX-License-Identifier: Apache-2.0
"""Resolution of a name to an image.

Links name images: ``docker_image_repo+tag`` by name, ``docker_image_hash`` by image ID. Where several collections
answer to a name, links are ranked (``ranking``). Clients and the server do that by rules of their own, and it is the
server that starts containers, so ``resolve`` follows the server. An image ID is not a name: it is proven (``proof``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...errors import AmbiguousImage, BadManifestText, ClusterError, NoSuchImage, NotAnImage, UntrustedName, lines_of
from ...model.image import Digest
from ...model.manifest_text import is_pdh
from ...model.reference import DEFAULT_TAG, ImageId, Reference, parse_name
from ..client import Cluster, CollectionRecord, Link
from ..stored import image_file
from ..trust import Trust
from .link_classes import DIGEST, MIGRATION, REPO_TAG
from .link_query import LinkQuery, collections_of, is_collection_uuid
from .proof import describe_false_link, has_digest, judge_ids
from .ranking import newest_first, server_key, server_order, sort_key

log = logging.getLogger(__name__)

#: False links that an error names.
_MOST_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Resolution:
    """Meaning of a name: a collection, and the link that decided (None for a UUID or a PDH).

    ``ranked`` are the links that were compared, one for each collection, in the server's order. ``false_links`` call a
    collection by an image ID that it does not have, and were left out. ``untrusted_writer`` is the user by whose word
    alone the link counts, None where it is attested. ``rivals`` are links of the name to other content that rank the
    same as the one that decided: the cluster may take either.
    """

    collection: CollectionRecord
    link: Link | None
    warnings: tuple[str, ...] = ()
    ranked: tuple[Link, ...] = ()
    false_links: tuple[Link, ...] = ()
    untrusted_writer: str | None = None
    rivals: tuple[Link, ...] = ()


def resolve(cluster: Cluster, text: str, trust: Trust, *, attested_only: bool | None = None) -> Resolution:
    """Return the collection that ``text`` means: an image's name or ID, or a collection's UUID or PDH.

    A name means what the server takes it for, with a warning where ``trust`` does not include the user who decided it;
    with ``attested_only`` (unless given, as ``trust`` says) links that are not attested are left out, as the server
    does not. An ID means the image that is proven to have it.

    Raises NoSuchImage, NotAnImage, AmbiguousImage for the beginning of several IDs, and BadReference.
    """
    if is_pdh(text) or is_collection_uuid(text):
        return Resolution(_collection_itself(cluster, text), None)
    name = parse_name(text)
    links = LinkQuery.of_name(name).links(cluster)
    collections = collections_of(cluster, links, manifest=True)
    readable = [link for link in links if link.head_uuid in collections]
    judged = judge_ids(cluster, (link for link in readable if link.link_class != REPO_TAG), collections, trust)
    named = [link for link in readable if link.link_class == REPO_TAG]
    if trust.names_too if attested_only is None else attested_only:
        named = [link for link in named if trust.attests(link, collections[link.head_uuid])]
        judged = judged.only_attested(collections, trust)
    chosen = _names_or_ids(
        name,
        named,
        judged.proven,
        attested=lambda link: trust.attests(link, collections[link.head_uuid]),
        proven=lambda link, digest: has_digest(cluster, collections[link.head_uuid], str(digest)),
    )
    if len(ids := {link.name for link in chosen if link.link_class != REPO_TAG}) > 1:
        raise AmbiguousImage(f"{text!r} is the beginning of {len(ids)} image IDs.", detail=lines_of(sorted(ids)))
    ranked = tuple(server_order(chosen))
    for link in ranked:
        head = collections[link.head_uuid]
        if (found := usable_collection(cluster, head)) is not None:
            writer = None if trust.attests(link, head) else link.modified_by
            rivals = tuple(_rivals(cluster, link, found, ranked, collections))
            warnings = (*_warnings(chosen, link, head, trust), *map(_describe_rival, rivals[:1]))
            log.debug("%s means %s by link %s of %s", text, found.uuid, link.uuid, link.modified_by)
            return Resolution(found, link, warnings, ranked, judged.false, writer, rivals)
    if chosen:
        raise NotAnImage(
            f"{text!r} is known to the cluster, but no collection of that name holds a usable image. If an "
            "administrator migrated one of them, the cluster runs what it became, and shows that to administrators "
            "alone: ask one for the portable data hash."
        )
    raise NoSuchImage(
        f"the cluster knows no image {text!r}. See the images it has: arv-docker images",
        detail=lines_of(map(describe_false_link, judged.false[:_MOST_SHOWN])),
    )


def container_warnings(text: str, resolved: Resolution) -> list[str]:
    """Return the reasons why a container request must not use ``text``, which the server takes for other things.

    The server splits a name without a tag at its first colon, so that it finds nothing by ``host:5000/app``; and
    ``sha256`` before a colon is the beginning of every image's ID (docs/spec/arvados-images.md#resolution).
    """
    if resolved.link is None:
        return []
    name, pdh = parse_name(text), resolved.collection.pdh
    if resolved.link.link_class != REPO_TAG:
        return [f"by an ID the cluster itself finds another image, or none: a container must name {pdh}."]
    if isinstance(name, Reference) and name.written == name.name and ":" in name.name:
        return [f"by {text} the cluster itself finds nothing: a container must name {name.link_name}, or {pdh}."]
    return []


def listing_warnings(text: str, repositories: Collection[str]) -> list[str]:
    """Return the reasons why a container request must not use ``text``, by which images of some repositories were
    listed; the same as of ``container_warnings``."""
    name = parse_name(text)
    must = "a container must name one of these REPOSITORY:TAG, or a portable data hash (--json)."
    if (
        isinstance(name, ImageId)
        or Reference.parse(name.name).link_name.removesuffix(f":{DEFAULT_TAG}") not in repositories
    ):
        return [f"by an ID the cluster itself finds another image, or none: {must}"]
    if name.written == name.name and ":" in name.name:
        return [f"by {text} the cluster itself finds nothing: {must}"]
    return []


def check_trusted(text: str, resolved: Resolution) -> None:
    """Raise UntrustedName if only untrusted users say that the name means this image."""
    writer, link = resolved.untrusted_writer, resolved.link
    if writer is not None and link is not None and link.link_class == REPO_TAG:
        raise UntrustedName(
            f"{text} means {resolved.collection.uuid} by the word of {writer} alone, who is not trusted. To take it, "
            f"give --trust-readable, name that user in the setting ARV_DOCKER_TRUSTED_WRITERS, or name the image by "
            f"its content: {resolved.collection.pdh}."
        )


def collection_with_uuid(cluster: Cluster, collection: CollectionRecord) -> CollectionRecord:
    """Return the oldest record of a collection by PDH, which names content and no record.

    Prefers those of this user. Raises NoSuchImage if it can be read by PDH alone.
    """
    if is_collection_uuid(collection.uuid):
        return collection
    copies = list(cluster.collections([["portable_data_hash", "=", collection.pdh]], manifest=True))
    if not copies:
        raise NoSuchImage(f"no collection with the content {collection.pdh} is readable, only an old version of one.")
    return min(copies, key=lambda copy: (copy.owner_uuid != cluster.user_if_known, copy.created_at, copy.uuid))


def usable_collection(cluster: Cluster, collection: CollectionRecord) -> CollectionRecord | None:
    """Return the collection if its one file is a version 2 image; else the collection after migration, or None.

    A migration counts as the server has it: the newest link of the system user, one step.
    """
    if _holds_version_2(collection):
        return collection
    links = cluster.links([["link_class", "=", MIGRATION], ["tail_uuid", "=", collection.pdh]])
    trusted = [link for link in links if link.owner_uuid == cluster.system_user_uuid]
    if not trusted:
        return None
    newest = newest_first(trusted)[0]
    found = cluster.collections([["portable_data_hash", "=", newest.head_uuid]], manifest=True)
    return next((target for target in found if _holds_version_2(target)), None)


def _names_or_ids(
    name: Reference | ImageId,
    named: Sequence[Link],
    by_id: Sequence[Link],
    *,
    attested: Callable[[Link], bool],
    proven: Callable[[Link, Digest], bool],
) -> Sequence[Link]:
    """Choose between the links by a name and the links by an image ID in it, or in its place.

    A name goes first, as engines have it. But where it holds a digest, or an image has an ID that begins so, the word
    of a user who is not trusted is not enough: a digest is proven by the image's bytes, or not believed.
    """
    if isinstance(name, ImageId) or not named:
        return by_id
    if name.identity is None:
        return named
    if ours := [link for link in named if attested(link)]:
        return named if name.digest is None else ours
    if by_id or name.digest is None:
        return by_id or named
    return [link for link in named if proven(link, name.digest)]


def _collection_itself(cluster: Cluster, text: str) -> CollectionRecord:
    try:
        return cluster.collection(text)
    except ClusterError as error:
        if error.status == 404:
            raise NoSuchImage(f"the cluster has no collection {text}, or does not show it to this user.") from error
        raise


def _holds_version_2(collection: CollectionRecord) -> bool:
    try:
        return image_file(collection).version == 2
    except (NotAnImage, BadManifestText):
        return False


def _rivals(
    cluster: Cluster,
    chosen: Link,
    content: CollectionRecord,
    ranked: Iterable[Link],
    collections: Mapping[str, CollectionRecord],
) -> Iterator[Link]:
    """Yield links to other content with the same rank as the deciding link.

    The server ranks by whole seconds, and says nothing of two that were built in the same one, and linked in the same.
    """
    if chosen.link_class != REPO_TAG:
        return
    for link in ranked:
        if link is not chosen and server_key(link) == server_key(chosen):
            usable = usable_collection(cluster, collections[link.head_uuid])
            if usable is not None and usable.pdh != content.pdh:
                yield link


def _describe_rival(link: Link) -> str:
    return (
        f"the cluster may take {link.head_uuid} instead: its image is as old, and was linked in the same second. To "
        f"decide it, link the right one again: arv-docker tag."
    )


def _warnings(links: Sequence[Link], chosen: Link, head: CollectionRecord, trust: Trust) -> Iterator[str]:
    """Yield the reasons to look twice at the link that decides."""
    if chosen.link_class == DIGEST:
        yield f"the cluster itself does not know the digest {chosen.name}; name the image by its ID or a name there."
    changed = is_pdh(chosen.tail_uuid) and chosen.tail_uuid != head.pdh
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
    if not trust.includes(chosen.modified_by):
        yield (
            f"the link that decides, {chosen.uuid} to {chosen.head_uuid}, was last written by {chosen.modified_by}, "
            "who is not trusted (see the setting ARV_DOCKER_TRUSTED_WRITERS)."
        )
    elif not chosen.tail_uuid and not trust.attests(chosen, head):
        yield (
            f"collection {chosen.head_uuid} was last changed by {head.modified_by}, who is not trusted, and the link "
            f"that decides, {chosen.uuid}, does not say which content it is about."
        )

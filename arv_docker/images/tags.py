# SPDX-License-Identifier: Apache-2.0
"""Names of images in Keep: giving, taking away, and asking for their meaning.

The cluster ranks the links of a name by when the image was built, so writing a newer
link does not move a name to an older build. A name is moved by writing the new link
and then deleting the links that outrank it, as far as this user may.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ..arvados.catalog import collections, link_query, links, resolver
from ..arvados.catalog.link_classes import DIGEST, HASH, REPO_TAG
from ..arvados.catalog.ranking import server_order
from ..arvados.client import Cluster, CollectionRecord, Link
from ..arvados.stored import StoredImage
from ..arvados.trust import Trust
from ..errors import ClusterError, ContentError, NoSuchImage, NotVerified, ShadowedName
from ..local.polling import READY, wait_until_ready
from ..local.progress import Progress
from ..model.image import Digest
from ..model.reference import Reference
from . import verify


@dataclass(frozen=True, slots=True)
class TagResult:
    """Result for a name: the collection that has it now, and how many links were written and deleted."""

    uuid: str
    pdh: str
    name: str
    written: int
    deleted: int
    shadowed_by: Link | None


@dataclass(frozen=True, slots=True)
class Status:
    """Status of a name: the image by the cluster's rule, and the image that this user stored.

    ``state`` is ``ready`` when the cluster resolves the name to a collection that this user
    linked and that has the same content still, ``shadowed`` when to another one or to other
    content, ``foreign`` when this user linked none.
    """

    state: str
    name: str
    uuid: str
    pdh: str
    link: Link
    stored: tuple[str, ...]
    warnings: tuple[str, ...]


def link(
    cluster: Cluster, collection: CollectionRecord, name: Reference, trust: Trust, progress: Progress
) -> TagResult:
    """Make a collection known as an image called ``name``, after checking it.

    Every layer is read and hashed, unless a trusted user's link attests the content. Of what others stored only a
    canonical archive is taken.
    Raises what ``verify`` and ``check_free`` raise, and NotVerified for a name with a digest that is not proven to be
    the image's; then nothing is written. A PDH must be that of a collection which has a UUID.
    """
    image = StoredImage(cluster, collection)
    check_free(cluster, name, image.config.digest, trust)
    existing = link_query.links_to(cluster, [collection.uuid], (REPO_TAG, HASH, DIGEST))
    attested = [it.name for it in existing if it.link_class == DIGEST and trust.attests(it, collection)]
    check_digest(name, [*map(str, image.proven_digests), *attested])
    if not any(it.link_class == HASH and trust.attests(it, collection) for it in existing):
        if trust.includes(collection.modified_by):
            verify.verify(cluster, collection, quick=False, progress=progress)
        else:
            verify.verify_for_adoption(cluster, collection, progress=progress)
    properties = links.timestamp_of(image.config)
    written = links.ensure_links(
        cluster, collection, image.file.image_id, name, trust=trust, properties=properties, existing=existing
    )
    if collection.owner_uuid == cluster.user_uuid:
        collections.set_name_property(cluster, collection, name.link_name)
    return TagResult(
        collection.uuid, collection.pdh, name.link_name, written, 0, _shadow(cluster, collection, name, trust)
    )


def check_digest(name: Reference, proven: Collection[str]) -> None:
    """Raise NotVerified for a name with a digest that is not among the image's ``proven`` digests.

    Who reads ``app@sha256:…`` takes it for a promise about bytes, so that nobody's word is enough for one.
    """
    if name.digest is not None and str(name.digest) not in proven:
        raise NotVerified(
            f"{name}: nothing proves that the image has the digest {name.digest}; it has "
            f"{', '.join(dict.fromkeys(proven))}. Give it a name without a digest."
        )


def check_free(cluster: Cluster, name: Reference, image_id: Digest, trust: Trust) -> None:
    """Raise ShadowedName for a name that was made for another image alone, by ``link_uniquely`` or a push.

    ``image_id`` is the digest of the config of the image that is to get the name.
    """
    digits = name.unique_to
    if digits is None or digits.matches(image_id):
        return
    with suppress(NoSuchImage, ContentError):
        holder = resolver.resolve(cluster, str(name), trust, attested_only=False).collection
        if digits.matches(StoredImage(cluster, holder).config.digest):
            raise ShadowedName(
                f"{name.link_name} is the name of the image in {holder.uuid} alone, whose ID begins with {digits.hex}, "
                "and stays so. Choose another name, or take that one away first: arv-docker untag."
            )


def link_uniquely(
    cluster: Cluster, collection: CollectionRecord, name: Reference, trust: Trust, progress: Progress
) -> str:
    """Give an image in Keep a unique name, made of ``name`` and the image's ID.

    Returns that name. Raises what ``link`` raises, and ShadowedName if the cluster takes even it for another
    collection, which somebody else has given the name to.
    """
    unique = Reference.parse(f"{name.name}:{name.unique_for(StoredImage(cluster, collection).config.digest).tag}")
    named = link(cluster, collection, unique, trust, progress)
    if (shadow := named.shadowed_by) is not None:
        raise ShadowedName(
            f"{named.name}: to the cluster it means {shadow.head_uuid}, by the link {shadow.uuid} of "
            f"{shadow.modified_by}. The image is in Keep as {collection.uuid}; workflows may use {collection.pdh}."
        )
    return named.name


def links_in_the_way(cluster: Cluster, collection: CollectionRecord, name: Reference) -> list[Link]:
    """Return the links of a name that ``move`` would delete: links to other content that rank before ours."""
    named = named_links(cluster, name)
    to_ours = [link for link in named if link.head_uuid == collection.uuid]  # the oldest of them would count
    others = [link for link in named if link.head_uuid != collection.uuid]
    if not others:
        return []
    now = datetime.datetime.now(datetime.timezone.utc).isoformat()
    timestamp = links.timestamp_of(StoredImage(cluster, collection).config)
    ours = Link("", "", REPO_TAG, name.link_name, collection.uuid, collection.pdh, timestamp, now, "")
    heads = [link.head_uuid for link in server_order([*others, *to_ours, ours])]
    ahead = set(heads[: heads.index(collection.uuid)])
    same = {it.uuid for it in link_query.collections_of(cluster, others).values() if it.pdh == collection.pdh}
    return [link for link in others if link.head_uuid in ahead - same]


def move(
    cluster: Cluster,
    collection: CollectionRecord,
    name: Reference,
    trust: Trust,
    progress: Progress,
    *,
    confirmed: Collection[str] = (),
) -> TagResult:
    """Give ``name`` to the image in a collection, also when the cluster's order prefers another one.

    The new link is written first; then links of the same name that outrank it are deleted, as far as this user may:
    his own, and of others' those that he has ``confirmed``, by UUID. One that stays is reported as ``shadowed_by``.
    """
    named = link(cluster, collection, name, trust, progress)
    deleted, tried = 0, set[str]()
    while (shadow := _shadow(cluster, collection, name, trust)) is not None and shadow.uuid not in tried:
        tried.add(shadow.uuid)
        if not _may_go(cluster, shadow, confirmed):
            break
        deleted += _delete_link(cluster, shadow)
    return TagResult(named.uuid, named.pdh, named.name, named.written, deleted, shadow)


def remove(cluster: Cluster, name: Reference, *, confirmed: Collection[str] = ()) -> tuple[list[Link], list[Link]]:
    """Delete the links of a name, this user's and of others' those that he has ``confirmed``, by UUID, as far as he
    may; return the deleted links, and the links that stay.

    Raises NoSuchImage where the name has none.
    """
    found = named_links(cluster, name)
    if not found:
        raise NoSuchImage(f"the cluster knows no image {name.link_name!r}.")
    gone = [it for it in found if _may_go(cluster, it, confirmed) and _delete_link(cluster, it)]
    return gone, [it for it in found if it not in gone]


def status(cluster: Cluster, name: Reference, trust: Trust) -> Status:
    """Return a name's status: the cluster's image, and if this user stored that; raises NoSuchImage."""
    resolved = resolver.resolve(cluster, str(name), trust, attested_only=False)
    if resolved.link is None or resolved.link.link_class != REPO_TAG:
        raise NoSuchImage(f"the cluster knows no image by the name {name.link_name!r}.")
    ours = [it for it in named_links(cluster, name) if it.modified_by == cluster.user_uuid]
    head, pdh = resolved.link.head_uuid, resolved.collection.pdh
    # An equal PDH in another collection is the same content, say that of a colleague in a shared project.
    ready = any(it.tail_uuid == pdh or (it.head_uuid == head and not it.tail_uuid) for it in ours)
    if not ready and (unpinned := [it for it in ours if not it.tail_uuid]):
        ready = any(it.pdh == pdh for it in link_query.collections_of(cluster, unpinned).values())
    state = READY if ready else "shadowed" if ours else "foreign"
    stored = tuple(it.head_uuid for it in ours)
    return Status(state, name.link_name, head, pdh, resolved.link, stored, resolved.warnings)


def wait(
    cluster: Cluster, name: Reference, trust: Trust, seconds: float, sleep: Callable[[float], None] = time.sleep
) -> Status:
    """Wait until the cluster takes the name for the image that this user stored.

    Raises NotReady, which says what the name means instead, when it does not after so many seconds.
    """

    def ask() -> Status | None:
        with suppress(NoSuchImage):
            return status(cluster, name, trust)
        return None

    found = wait_until_ready(ask, _in_words, what=name.link_name, seconds=seconds, sleep=sleep)
    assert found is not None
    return found


def _in_words(status: Status | None) -> str:
    if status is None:
        return "absent"
    if status.state == "shadowed":
        return f"shadowed by {status.uuid} (link {status.link.uuid} of {status.link.modified_by})"
    return status.state


def named_links(cluster: Cluster, name: Reference) -> Sequence[Link]:
    """Return every link by that name, of any writer."""
    return list(cluster.links([["link_class", "=", REPO_TAG], ["name", "=", name.link_name]]))


def _may_go(cluster: Cluster, link: Link, confirmed: Collection[str]) -> bool:
    """True for a link of this user, and for a link of another user whose deletion is confirmed."""
    return link.modified_by == cluster.user_uuid or link.uuid in confirmed


def _delete_link(cluster: Cluster, link: Link) -> bool:
    """Delete a link, if the server lets this user; say if the link is gone now."""
    try:
        cluster.delete_link(link.uuid)
    except ClusterError as error:
        if error.status not in (403, 404):
            raise
        return error.status == 404
    return True


def _shadow(cluster: Cluster, collection: CollectionRecord, name: Reference, trust: Trust) -> Link | None:
    """The link that gives the name another meaning than this collection, or None."""
    resolved = resolver.resolve(cluster, str(name), trust, attested_only=False)
    if resolved.link is None or resolved.collection.pdh == collection.pdh:
        return None
    return resolved.link

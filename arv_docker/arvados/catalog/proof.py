# SPDX-License-Identifier: Apache-2.0
"""Proof of the ID by which a link calls an image: the name of the image's file, and the bytes.

Everybody may write a link with any ID to any collection, and name a file after any image. So a link by an ID counts
only where the file in the collection has that ID in its name, which costs nothing to see; and, where nobody who is
trusted attests the link, where the image's config and structure have it too (docs/spec/trust.md#names).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ...errors import BadReference, ContentError, KeepError
from ...model.image import Digest
from ..client import Cluster, CollectionRecord, Link
from ..stored import StoredImage, image_file
from ..trust import Trust
from .link_classes import DIGEST, HASH
from .ranking import server_order

log = logging.getLogger(__name__)

#: Images of others that are looked into for one ID; who plants more of them hides the rest of his own.
_MOST_LOOKED_INTO = 20


@dataclass(frozen=True, slots=True)
class Judgement:
    """Links by an image ID, parted into proven links, which are all worth the same, and false links."""

    proven: tuple[Link, ...]
    false: tuple[Link, ...]

    def only_attested(self, collections: Mapping[str, CollectionRecord], trust: Trust) -> Judgement:
        """Return the judgement without the links that count by their images' bytes alone."""
        proven = (link for link in self.proven if trust.attests(link, collections[link.head_uuid]))
        return Judgement(tuple(proven), self.false)


def judge_ids(
    cluster: Cluster, links: Iterable[Link], collections: Mapping[str, CollectionRecord], trust: Trust
) -> Judgement:
    """Part links by an image ID, of the classes for files' names and for further digests, by what they are worth.

    ``collections`` are their heads with manifest texts. Attested links leave all others out; where there is none, the
    links count whose image is proven to have that digest, which reads the beginning of an archive.
    """
    hashes: list[Link] = []
    digests: list[Link] = []
    false: list[Link] = []
    for link in links:
        if link.link_class == DIGEST:
            digests.append(link)
        else:
            (false if is_false(link, collections[link.head_uuid]) else hashes).append(link)
    for some in (hashes, digests):
        if attested := [link for link in some if trust.attests(link, collections[link.head_uuid])]:
            return Judgement(tuple(attested), tuple(false))
    for some in (hashes, digests):
        proven: list[Link] = []
        for link in server_order(some)[:_MOST_LOOKED_INTO]:
            has_it = has_digest(cluster, collections[link.head_uuid], link.name)
            (proven if has_it else false).append(link)
        if proven:
            return Judgement(tuple(proven), tuple(false))
    return Judgement((), tuple(false))


def is_false(link: Link, collection: CollectionRecord) -> bool:
    """True if the link calls the collection by an image ID that the name of its file does not have."""
    if link.link_class != HASH:
        return False
    try:
        return image_file(collection).image_id.hex != link.name.lower().removeprefix("sha256:")
    except ContentError:
        return True


def describe_false_link(link: Link) -> str:
    """Return a line about a false link: the writer, and the collection about which the link lies."""
    return (
        f"link {link.uuid} of {link.modified_by} is false: it calls {link.head_uuid} by {link.name}, the ID of another "
        "image"
    )


def has_digest(cluster: Cluster, collection: CollectionRecord, text: str) -> bool:
    """True if the image in a collection has that digest, as its config, manifest or index prove."""
    try:
        digest = Digest.parse(text if ":" in text else f"sha256:{text}")
        return digest in StoredImage(cluster, collection).proven_digests
    except (BadReference, ContentError, KeepError) as error:
        log.debug("%s is not proven to be %s: %s", collection.uuid, text[:80], error.message)
        return False

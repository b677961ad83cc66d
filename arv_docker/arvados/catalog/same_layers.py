# SPDX-License-Identifier: Apache-2.0
"""Stored images with the same layers as another one, and another config.

Tools that convert Docker's form to OCI's write the config anew and so make another image
(docs/spec/archive.md#conversions). What it resembles is looked for where it may be: in the collections that hold one
of its large layers, by links to those, and in those that have its name.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from ...archive.canonical import Layout
from ...errors import ContentError, KeepError
from ...model.image import Config, Digest
from ..client import Cluster, CollectionRecord, Link
from ..dedup import LayerLookup
from ..stored import StoredImage, image_file, may_be_canonical
from ..trust import Trust
from .link_classes import REPO_TAG
from .link_query import collections_of, links_to
from .ranking import sort_key

#: Collections that are looked into, a small block of each.
_MOST = 20


@dataclass(frozen=True, slots=True)
class SameLayers:
    """A stored image with the same layers, and its names, the preferred first."""

    uuid: str
    image_id: Digest
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.image_id} ({', '.join(self.names) or 'no name'}), {self.uuid}"


def images_with_same_layers(
    cluster: Cluster,
    config: Config,
    layers: LayerLookup,
    named: Iterable[Link],
    *,
    trust: Trust,
    layout: Layout | None = None,
) -> list[SameLayers]:
    """The images with exactly the layers of ``config``, each once, that trusted users' links lead to.

    ``named`` are links by its name. With the ``layout`` of its archive only those are looked into whose size fits.
    Raises ClusterError.
    """
    links = sorted((link for link in named if link.link_class == REPO_TAG), key=sort_key, reverse=True)[:_MOST]
    theirs = collections_of(cluster, links, manifest=True) if links else {}
    attested = [
        theirs[it.head_uuid] for it in links if it.head_uuid in theirs and trust.attests(it, theirs[it.head_uuid])
    ]
    candidates = {it.uuid: it for it in (*layers.holders, *attested) if may_be_canonical(it) and _fits(it, layout)}
    found: dict[Digest, CollectionRecord] = {}
    for collection in itertools.islice(candidates.values(), _MOST):
        try:
            other = StoredImage(cluster, collection).config
        except (ContentError, KeepError):
            continue
        if other.diff_ids == config.diff_ids and other != config:
            found.setdefault(other.digest, collection)
    names: dict[str, list[str]] = {}
    for link in links_to(cluster, [it.uuid for it in found.values()]) if found else ():
        if link.link_class == REPO_TAG:
            names.setdefault(link.head_uuid, []).append(link.name)
    return [SameLayers(it.uuid, digest, tuple(dict.fromkeys(names.get(it.uuid, ())))) for digest, it in found.items()]


def _fits(collection: CollectionRecord, layout: Layout | None) -> bool:
    """True if what follows the archive's first block is as long as it is with the same layers."""
    if layout is None:
        return True
    try:
        file = image_file(collection)
    except ContentError:
        return False
    return file.size - file.segments[0].length == layout.size - len(layout.head)

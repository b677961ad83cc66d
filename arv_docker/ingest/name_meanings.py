# SPDX-License-Identifier: Apache-2.0
"""Meanings of names on two clusters: compared after a copy, and made the same as far as this user may.

Of images that were built in the same second a cluster takes the one that was linked last, and of those that were
linked in the same second, too, either: its order says nothing of them (docs/spec/arvados-images.md#resolution). A link
may also rank its image by another time than the image's own, or by none.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from ..arvados.catalog import link_query, links, resolver
from ..arvados.catalog.link_classes import REPO_TAG
from ..arvados.catalog.ranking import server_order
from ..arvados.client import Cluster, Link
from ..arvados.trust import Trust
from ..errors import NoSuchImage, NotAnImage
from ..model.reference import Reference

#: Seconds until a link that is written ranks before one that was written just now: ranks are of whole seconds.
_NEXT_SECOND = 1.05


@dataclass(frozen=True, slots=True)
class CopiedImage:
    """An image on the other cluster: the collection, its owner, and its content."""

    uuid: str
    pdh: str
    owner: str


@dataclass(frozen=True, slots=True)
class NameDifference:
    """A name with different meanings on two clusters: ``wanted`` on one, ``actual`` on the other, None for nothing.

    ``copied`` is False where what it means was not copied at all: an image that only others link, say.
    """

    name: str
    wanted: str
    actual: str | None
    copied: bool

    def __str__(self) -> str:
        left_out = "" if self.copied else " (which was not copied)"
        return (
            f"{self.name}: means {self.wanted}{left_out} on the one cluster, and {self.actual or 'nothing'} on the "
            "other"
        )


@dataclass(frozen=True, slots=True)
class _Meaning:
    """Content that a name means, the link that decided, and all that were ranked; ``certain`` unless another one ranks
    the same."""

    pdh: str
    link: Link
    ranked: tuple[Link, ...]
    certain: bool


class NameSettlement:
    """Settlement of what names mean on the cluster that images were copied to."""

    def __init__(
        self,
        source: Cluster,
        target: Cluster,
        copied: Mapping[str, CopiedImage],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``copied`` are the images by the PDH that each has on the cluster ``source``."""
        self._source = source
        self._target = target
        self._copied = copied
        self._sleep = sleep

    def settle(self, names: Iterable[Reference]) -> list[NameDifference]:
        """Have each name mean the same content on both clusters; return those that still differ."""
        found = (self._settle(name) for name in dict.fromkeys(names))
        return [difference for difference in found if difference is not None]

    def _settle(self, name: Reference) -> NameDifference | None:
        meant = _meaning(self._source, name)
        if meant is None:  # since it was read
            return None
        image = self._copied.get(meant.pdh)
        wanted = image.pdh if image else meant.pdh
        here = _meaning(self._target, name)
        as_wanted = here is not None and here.certain and here.pdh == wanted
        if not as_wanted and image is not None and self._link_anew(name, image, meant):
            here = _meaning(self._target, name)
        actual = here.pdh if here else None
        return None if actual == wanted else NameDifference(name.link_name, wanted, actual, image is not None)

    def _link_anew(self, name: Reference, image: CopiedImage, meant: _Meaning) -> bool:
        """Write this user's links of the name anew, with the times that rank them on the other cluster, the one that
        is to count last; only if that makes the name mean the image. Return True if it was done."""
        by_name = list(self._target.links([["link_class", "=", REPO_TAG], ["name", "=", name.link_name]]))
        heads = link_query.collections_of(self._target, by_name, manifest=True)
        times = self._times(meant)

        def as_there(link: Link) -> Link:
            pdh = heads[link.head_uuid].pdh
            return replace(link, tail_uuid=pdh, properties=times.get(pdh, links.timestamp_in(link)))

        readable = [link for link in by_name if link.head_uuid in heads]
        mine = [link for link in readable if link.modified_by == self._target.user_uuid]
        of_image = [link for link in mine if link.head_uuid == image.uuid]
        ranked_otherwise = [
            link
            for link in mine
            if link not in of_image and links.timestamp_in(as_there(link)) != links.timestamp_in(link)
        ]
        stale = [*ranked_otherwise, *of_image]
        kept = [link for link in readable if link not in stale]
        last = Link("", image.owner, REPO_TAG, name.link_name, image.uuid, image.pdh, times[image.pdh], _soon(), "")
        first = next(
            link
            for link in server_order([*kept, *map(as_there, ranked_otherwise), last])
            if link is last or resolver.usable_collection(self._target, heads[link.head_uuid]) is not None
        )
        if first is not last and heads[first.head_uuid].pdh != image.pdh:
            return False
        for link in map(as_there, ranked_otherwise):
            self._write(link)
        self._sleep(_NEXT_SECOND)
        self._write(last)
        for link in stale:  # of several links to one collection the oldest counts
            self._target.delete_link(link.uuid)
        return True

    def _times(self, meant: _Meaning) -> dict[str, dict[str, str]]:
        """The properties that rank links of the name on the cluster that was copied from, by the PDH on the other."""
        heads = link_query.collections_of(self._source, meant.ranked)
        times = {meant.pdh: links.timestamp_in(meant.link)}
        for link in meant.ranked:
            if link.head_uuid in heads:
                times.setdefault(heads[link.head_uuid].pdh, links.timestamp_in(link))
        return {self._copied[pdh].pdh: properties for pdh, properties in times.items() if pdh in self._copied}

    def _write(self, link: Link) -> None:
        attributes = {
            "link_class": link.link_class,
            "name": link.name,
            "head_uuid": link.head_uuid,
            "tail_uuid": link.tail_uuid,
            "owner_uuid": link.owner_uuid,
            "properties": dict(link.properties),
        }
        self._target.create_link(attributes)


def _meaning(cluster: Cluster, name: Reference) -> _Meaning | None:
    """The content of the name by the cluster's own rule."""
    trust = Trust.of(cluster.user_uuid, cluster.system_user_uuid)
    with suppress(NoSuchImage, NotAnImage):
        resolved = resolver.resolve(cluster, name.link_name, trust, attested_only=False)
        if resolved.link is not None:
            return _Meaning(resolved.collection.pdh, resolved.link, resolved.ranked, certain=not resolved.rivals)
    return None


def _soon() -> str:
    """A time after every link that there is."""
    return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=_NEXT_SECOND)).isoformat()

# SPDX-License-Identifier: Apache-2.0
"""Trust: whose word is taken for what (docs/spec/trust.md#attested-links). Pure rules over records.

Anyone may write a link to any collection that he can read. A link counts as it stands
only when it is *attested*; anything else is a hint, and the bytes are read and hashed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..local.settings import Settings
from .client import Cluster, CollectionRecord, Link


@dataclass(frozen=True, slots=True)
class Trust:
    """Users whose links are trusted, by UUID: this user, the system user, and the users of the setting.

    ``readable`` brings back the rule of arv-keepdocker: whatever can be read is believed. With ``names_too`` a name
    means an image by the word of these users alone, and not what the cluster takes it for.
    """

    writers: frozenset[str]
    readable: bool = False
    names_too: bool = False

    @classmethod
    def of(
        cls, user: str, system: str, others: Iterable[str] = (), *, readable: bool = False, names_too: bool = False
    ) -> Trust:
        """Trust in this user, the system user and ``others``."""
        return cls(frozenset((user, system, *others)), readable, names_too)

    @classmethod
    def from_settings(cls, cluster: Cluster, settings: Settings, *, readable: bool = False) -> Trust:
        """Trust in the users of a cluster whom the settings name, besides this user and the system user."""
        writers = (cluster.user_if_known, cluster.system_user_uuid, *settings.trusted_writers)
        return cls(frozenset(filter(None, writers)), readable, settings.names_by_trusted)

    def includes(self, writer: str) -> bool:
        """True if the user's word is taken."""
        return self.readable or writer in self.writers

    def attests(self, link: Link, collection: CollectionRecord) -> bool:
        """True if the link counts, without more proof, for its collection.

        The server must name a trusted user as the one who wrote it last. A link that pins a
        PDH must pin the collection's; one that pins none, as those of arv-keepdocker,
        counts if a trusted user also changed the collection last. ``owner_uuid`` proves
        nothing: everyone who may write to a project owns what lies in it.
        """
        if self.readable:
            return True
        if link.modified_by not in self.writers:
            return False
        return link.tail_uuid == collection.pdh or (not link.tail_uuid and collection.modified_by in self.writers)

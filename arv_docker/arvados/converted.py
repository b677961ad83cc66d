# SPDX-License-Identifier: Apache-2.0
"""The cluster's own cache of images that were converted for Singularity.

Its form is that of docs/spec/arvados-clients.md#singularity-images-of-the-nodes.

It belongs to a user: two projects, one in the other, and in the inner one a collection for each
image, with a single file and a time at which it goes to the trash. crunch-run looks there for
the user of the container, before it converts an image itself and puts it there. Nothing of the
form is ours: the names, and that there are no properties and no links, are crunch-run's.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from concurrent.futures import Future
from functools import cached_property
from typing import IO

from ..errors import BadManifestText, ClusterError
from ..local.progress import Advance
from ..model import manifest_text
from ..model.image import parsed_time
from .blocks import BlockStore
from .client import Cluster, CollectionRecord
from .create_or_find import create_or_find
from .stored import ImageFile

PROJECTS = (".cache", "auto-generated singularity images")
FILE = "image.sif"
#: How long an image stays that nobody uses; one that is used gets all of it again, when less than _FRESH of it is left.
LIFETIME = datetime.timedelta(days=14)
_FRESH = 0.9


class ConvertedImages:
    """The converted images of this user."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def find(self, image: ImageFile) -> CollectionRecord | None:
        """The collection that crunch-run would use for the image; None without a usable collection.

        An empty one, which versions of crunch-run with a defect left, is removed as crunch-run does.
        """
        found = self._collection_named(_name(image))
        if found is None or _is_usable(found):
            return found
        self._cluster.trash_collection(found.uuid)
        return None

    def keep(self, collection: CollectionRecord) -> CollectionRecord:
        """Put off the collection's end, if a good part of its time has passed."""
        ends = parsed_time(collection.trash_at)
        if ends is None or ends - _current_time() > _FRESH * LIFETIME:
            return collection
        self._cluster.update_collection(collection.uuid, {"trash_at": _end()})
        return self._cluster.collection(collection.uuid)

    def store(
        self, image: ImageFile, file: IO[bytes], old: CollectionRecord | None, advance: Advance
    ) -> CollectionRecord:
        """Store the SIF file of the image, in the place of ``old`` if that is given.

        Of several processes that do this at once one makes the collection, and the others
        give that one, whoever they are. Raises KeepError and ClusterError.
        """
        size, locators = self._send_file(file, advance)
        attributes = {"manifest_text": manifest_text.single_file(FILE, size, locators), "trash_at": _end()}
        if old is not None:
            self._cluster.update_collection(old.uuid, attributes)
            return self._cluster.collection(old.uuid)
        name = _name(image)
        new = {**attributes, "owner_uuid": self._project, "name": name}
        try:
            return create_or_find(
                lambda: self._cluster.create_collection(new, unique_name=False), lambda: self._collection_named(name)
            )
        except ClusterError as error:
            if error.status != 422 or (there := self._collection_named(name)) is None:
                raise
            return there

    @cached_property
    def _project(self) -> str:
        owner = self._cluster.user_uuid
        for name in PROJECTS:
            owner = self._project_in(owner, name)
        return owner

    def _project_in(self, owner: str, name: str) -> str:
        """The project of that name, made if missing; crunch-run may make it at the same moment."""
        if (found := self._cluster.project(owner, name)) is not None:
            return found
        try:
            return create_or_find(
                lambda: self._cluster.create_project(owner, name), lambda: self._cluster.project(owner, name)
            )
        except ClusterError as error:
            if error.status != 422 or (there := self._cluster.project(owner, name)) is None:
                raise
            return there

    def _collection_named(self, name: str) -> CollectionRecord | None:
        filters = [["owner_uuid", "=", self._project], ["name", "=", name]]
        return next(self._cluster.collections(filters, manifest=True), None)

    def _send_file(self, file: IO[bytes], advance: Advance) -> tuple[int, Sequence[str]]:
        """Store a file's blocks; return its size, and their locators in order."""
        blocks, size = BlockStore(self._cluster.put_block), 0
        futures: list[Future[str]] = []
        while True:
            buffer = blocks.buffer()
            count = file.readinto(buffer)  # type: ignore[attr-defined]
            if not count:
                break
            futures.append(blocks.submit(buffer, count))
            advance(count)
            size += count
        return size, [future.result() for future in futures]


def _name(image: ImageFile) -> str:
    """Name that crunch-run gives a converted image: after the image's file in Keep, without ``.tar``."""
    return f"singularity image for {image.image_id if image.version > 1 else image.image_id.hex}"


def _is_usable(collection: CollectionRecord) -> bool:
    try:
        segments = manifest_text.files(manifest_text.parse(collection.manifest_text or "")).get(FILE, ())
    except BadManifestText:
        return False
    return any(segment.length for segment in segments)


def _current_time() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def _end() -> str:
    return (_current_time() + LIFETIME).strftime("%Y-%m-%dT%H:%M:%SZ")

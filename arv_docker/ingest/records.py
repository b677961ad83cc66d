# SPDX-License-Identifier: Apache-2.0
"""Records of images in a cluster: looked up, completed, and written once an image's blocks are in Keep.

The order of what is written is that of docs/spec/ingest.md#record.

Each step looks before it writes, so a run that died anywhere is completed by the next,
and two runs at once end with one collection.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from ..archive.canonical import Layout
from ..arvados.blocks import StoredArchive
from ..arvados.catalog import collections, links, resolver
from ..arvados.catalog.link_classes import DIGEST, HASH, REPO_TAG
from ..arvados.catalog.same_layers import images_with_same_layers
from ..arvados.client import Cluster, CollectionRecord, Link
from ..arvados.dedup import LAYER, LayerLookup
from ..arvados.stored import StoredImage, may_be_canonical
from ..arvados.trust import Trust
from ..errors import ClusterError, ContentError, KeepError, NoSuchImage, NotAnImage
from ..images import tags
from ..local.progress import Progress
from ..local.settings import CONFIG, IMAGE_ID, MANIFEST
from ..model.image import Digest
from ..model.reference import Reference
from .lookup import ImageLookup, LookupResult, StoredUnder
from .options import Options
from .preflight import MAX_NAME
from .results import IngestResult, TwinCollection
from .upload import ReusedBlocksRefused, UploadedImage

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _EnsuredCollection:
    """A collection with an image under ``image_id``, if it was made now, and the number of new links."""

    collection: CollectionRecord
    image_id: Digest
    made: bool
    links: int


class ImageRecords:
    """The collections and links of images in one cluster."""

    def __init__(self, cluster: Cluster, options: Options, progress: Progress, trust: Trust | None = None) -> None:
        """``trust`` says whose links are trusted; this user's and the system user's unless given."""
        self._cluster = cluster
        self.options = options
        self._progress = progress
        self._owner = options.project or cluster.user_uuid
        self.trust = trust or Trust.of(cluster.user_uuid, cluster.system_user_uuid)
        self._lookup = ImageLookup(cluster, self.trust, self._owner, progress, pdh=options.pdh)

    def look_up(self, image_id: Digest, diff_ids: Sequence[Digest] = ()) -> LookupResult:
        """Look up what ``find_and_complete`` would find by the word of trusted users; read back and write nothing."""
        if self.options.force:
            return LookupResult()
        return self._lookup.find(image_id, self.options.kinds, diff_ids=diff_ids, read_back=False)

    def find_and_complete(
        self,
        image_id: Digest,
        name: Reference | None,
        *,
        digests: Sequence[Digest] = (),
        diff_ids: Sequence[Digest] = (),
    ) -> IngestResult | None:
        """Find the image with the source's ``image_id``, and write missing collections and links.

        Nothing is read from the source. None if the image is not in Keep, and with ``--force``. ``digests`` are
        further ones by which the source calls it; ``diff_ids`` its layers, where only those tell the images of
        several platforms apart.
        """
        return None if self.options.force else self._complete(image_id, name, digests, diff_ids)

    def add_names(self, result: IngestResult, image_id: Digest, names: Iterable[Reference]) -> IngestResult:
        """Link an image in Keep by further names; ``image_id`` is the ID at the source."""
        for name in names:
            if (named := self._complete(image_id, name)) is not None:
                result = replace(result, links_written=result.links_written + named.links_written)
        return result

    def linked_among(self, image_ids: Sequence[Digest]) -> set[Digest]:
        """Digests among ``image_ids`` with any link to an image, attested or not."""
        names = [str(image_id) for image_id in image_ids]
        by_any = self._cluster.links([["link_class", "in", [HASH, DIGEST]], ["name", "in", names]])
        linked = {link.name for link in by_any}
        return {image_id for image_id in image_ids if str(image_id) in linked}

    def record(self, image: UploadedImage, name: Reference | None) -> IngestResult:
        """Make the collections of an uploaded image and link them; existing collections are used.

        Raises ShadowedName for a name that is another image's alone, and ReusedBlocksRefused where the cluster does not
        take blocks that it had.
        """
        layout = image.archive.layout
        if name is not None:
            tags.check_free(self._cluster, name, layout.config.digest, self.trust)
        ids = {CONFIG: layout.config.digest, MANIFEST: layout.manifest_digest}
        present = LookupResult(ids=ids)
        if not self.options.force:
            present = self._lookup.find_trusted(ids, also=[*_texts(name), *map(str, image.digests)])
        try:
            result, made = self._ensure_collections(present, name, image.digests, image.archive)
        except ClusterError as error:
            if error.status == 403 and image.bytes_skipped:
                raise ReusedBlocksRefused from error
            raise
        if made and not present.by_kind:
            self._say_same_layers(image, present, result)
        if made:
            self._write_layer_links(image.layers, layout, made[0])
        return replace(result, bytes_sent=image.bytes_sent, bytes_skipped=image.bytes_skipped)

    def adopt(
        self, text: str, image_id: Digest, name: Reference | None, properties: Mapping[str, str], *, bytes_sent: int
    ) -> IngestResult:
        """Make a collection of a manifest text whose blocks are in Keep and were verified, and link it."""
        collection = self._create_collection(text, image_id, name, properties)
        existing = self._lookup.find_trusted({CONFIG: image_id}, also=_texts(name)).links
        count = links.ensure_links(
            self._cluster, collection, image_id, name, trust=self.trust, properties=properties, existing=existing
        )
        return IngestResult(collection.uuid, collection.pdh, image_id, _text(name), False, bytes_sent, 0, count)

    # -- private -------------------------------------------------------------------------

    def _complete(
        self, image_id: Digest, name: Reference | None, digests: Sequence[Digest] = (), diff_ids: Sequence[Digest] = ()
    ) -> IngestResult | None:
        also = [*_texts(name), *map(str, digests)]
        present = self._lookup.find(image_id, self.options.kinds, also=also, diff_ids=diff_ids)
        if not present.suffices(self.options.kinds):
            log.debug("%s is to be read: no attested link says that Keep has it", image_id)
            return None
        if name is not None and name.unique_to is not None:
            tags.check_free(self._cluster, name, self._config_digest(present), self.trust)
        canonical = self._canonical_in(present)
        if canonical is not None:
            present = self._with_links_to(present, canonical)
        result, _ = self._ensure_collections(present, name, (image_id, *digests), present.source)
        if canonical is not None:
            self._complete_layer_links(canonical, present.links)
        return result

    def _canonical_in(self, present: LookupResult) -> StoredImage | None:
        """The image in one of the collections, if the layout is canonical: the head says which links may be missing.

        None where that cannot be read, for it is no reason to fail.
        """
        if present.source is not None:
            return present.source
        for stored in present.by_kind.values():
            if may_be_canonical(stored.collection):
                with suppress(ContentError, KeepError):
                    image = stored.stored or StoredImage(self._cluster, stored.collection)
                    return image if image.is_ours else None
        return None

    def _with_links_to(self, present: LookupResult, image: StoredImage) -> LookupResult:
        """``present`` with both digests of the image, and the digest and layer links to its collection."""
        ids = {CONFIG: image.config.digest, MANIFEST: image.layout.manifest_digest}
        about = ["head_uuid", "=", image.collection.uuid]
        known = {link.uuid for link in present.links}
        further = [
            link
            for link in self._cluster.links([["link_class", "in", [DIGEST, LAYER]], about])
            if link.uuid not in known
        ]
        return replace(present, ids=ids, links=(*present.links, *further))

    def _complete_layer_links(self, image: StoredImage, existing: Iterable[Link]) -> None:
        """Write the layer links that a run which was killed, or refused, left out."""
        linked = {
            link.name for link in existing if link.link_class == LAYER and self.trust.attests(link, image.collection)
        }
        missing = [span.diff_id for span in image.layout.aligned_spans if str(span.diff_id) not in linked]
        if missing and image.collection.owner_uuid == self._owner:
            layers = LayerLookup(self._cluster, image.config.diff_ids, self.trust)
            self._write_layer_links(layers, image.layout, image.collection)

    def _write_layer_links(self, layers: LayerLookup, layout: Layout, collection: CollectionRecord) -> None:
        for refused in layers.write_links(layout, collection):
            self._progress.warn(str(refused))

    def _ensure_collections(
        self,
        image: LookupResult,
        name: Reference | None,
        digests: Iterable[Digest],
        archive: StoredArchive | StoredImage | None,
    ) -> tuple[IngestResult, list[CollectionRecord]]:
        """Ensure a collection with links for each wanted digest; missing collections are made of ``archive``.

        Returns the collections that were made, too. The one that suits the cluster's nodes gets the names, and what
        else the image is called. The other is linked by its own ID alone, or every node would take the later of both
        (docs/spec/archive.md#file-name).
        """
        first, *others = self.options.kinds
        link_name = name if first == self.options.named_kind else None
        if name is not None and link_name is None:
            self._progress.say(
                f"{name.link_name}: stored under its {first} digest and not linked by name: the cluster's nodes know "
                f"images by their {self.options.named_kind} digests (the setting {IMAGE_ID})"
            )
        # The collection that has the names has the digest links.
        alone = self.options.named_kind not in image.by_kind and self.options.pdh is None
        has_names = first == self.options.named_kind or alone
        called = {*image.ids.values(), *digests} if has_names else set()
        main = self._ensure_collection(first, image, link_name, called, archive)
        further = [self._ensure_collection(kind, image, None, set(), archive) for kind in others]
        twins = [
            TwinCollection(each.collection.uuid, each.collection.pdh, each.image_id, not each.made) for each in further
        ]
        shadow = None if link_name is None else self._shadow_of(main.collection, link_name, image.links)
        result = IngestResult(
            main.collection.uuid,
            main.collection.pdh,
            main.image_id,
            _text(link_name),
            already=not main.made,
            bytes_sent=0,
            bytes_skipped=0,
            links_written=sum(each.links for each in (main, *further)),
            twin=next(iter(twins), None),
            shadowed_by=shadow,
        )
        return result, [each.collection for each in (main, *further) if each.made]

    def _shadow_of(self, collection: CollectionRecord, name: Reference, links: Iterable[Link]) -> str | None:
        """The UUID of another collection that the name means, after a warning; else None.

        The cluster prefers the image that was built last, whatever was linked last.
        """
        if self.options.pdh is not None:
            return None  # what names mean then is looked at when all are copied
        rivals = (link for link in links if (link.link_class, link.name) == (REPO_TAG, name.link_name))
        if not self.options.force and all(link.head_uuid == collection.uuid for link in rivals):
            return None
        with suppress(NoSuchImage, NotAnImage):
            resolved = resolver.resolve(self._cluster, name.link_name, self.trust, attested_only=False)
            if resolved.link is not None and resolved.collection.pdh != collection.pdh:
                self._progress.warn(
                    f"{name.link_name} still means {resolved.collection.uuid}, whose image was built later; to move "
                    f"the name to this one: arv-docker tag {collection.uuid} {name.link_name}"
                )
                return resolved.collection.uuid
        return None

    def _ensure_collection(
        self,
        kind: str,
        image: LookupResult,
        name: Reference | None,
        digests: set[Digest],
        archive: StoredArchive | StoredImage | None,
    ) -> _EnsuredCollection:
        """Ensure the collection with a file named by that kind of digest, and the links to it."""
        holder = image.by_kind.get(kind)
        if holder is not None:
            image_id, timestamp = holder.image_id, self._timestamp_of(holder)
            collection = self._copy_of_ours(holder, name, timestamp)
        else:
            assert archive is not None
            image_id, timestamp = image.ids[kind], links.timestamp_of(archive.layout.config)
            collection = self._create_collection(archive.manifest_text(image_id), image_id, name, timestamp)
        existing = () if self.options.force else image.links
        # A collection that has a digest link by its own ID is named by a manifest's digest (``lookup``).
        called = digests - {image_id} if kind == CONFIG else digests
        # Before the hash link, by which the next run knows the image: it looks for nothing more then.
        count = links.ensure_digest_links(self._cluster, collection, called, trust=self.trust, existing=existing)
        count += links.ensure_links(
            self._cluster, collection, image_id, name, trust=self.trust, properties=timestamp, existing=existing
        )
        return _EnsuredCollection(collection, image_id, holder is None, count)

    def _copy_of_ours(
        self, holder: StoredUnder, name: Reference | None, timestamp: Mapping[str, str]
    ) -> CollectionRecord:
        """Return the collection, if it is in the right place; else a copy there."""
        collection = holder.collection
        if collection.owner_uuid == self._owner:
            if name is not None:
                collections.set_name_property(self._cluster, collection, name.link_name)
            return collection
        return self._create_collection(collection.manifest_text or "", holder.image_id, name, timestamp)

    def _create_collection(
        self, text: str, image_id: Digest, name: Reference | None, timestamp: Mapping[str, str]
    ) -> CollectionRecord:
        called = f"{name.link_name.replace('/', ' ')} " if name else ""
        return collections.ensure_collection(
            self._cluster,
            text,
            owner=self._owner,
            name=self.options.name or _collection_name(called, image_id),
            properties=self._properties_of(image_id, name, timestamp),
            anew=self.options.force,
        )

    def _properties_of(self, image_id: Digest, name: Reference | None, timestamp: Mapping[str, str]) -> dict[str, str]:
        properties = {collections.REPO_TAG_PROPERTY: name.link_name} if name else {}
        if self.options.describe:
            properties[collections.HASH_PROPERTY] = str(image_id)
            for text in timestamp.values():
                properties[collections.TIMESTAMP_PROPERTY] = text
        return properties

    def _timestamp_of(self, holder: StoredUnder) -> Mapping[str, str]:
        """The time that ranks our links: of a trusted link, or of the image.

        A stranger's would pin its rank.
        """
        if holder.link.link_class == HASH and self.trust.attests(holder.link, holder.collection):
            return links.timestamp_in(holder.link)
        stored = holder.stored or StoredImage(self._cluster, holder.collection)
        return links.timestamp_of(stored.config)

    def _config_digest(self, image: LookupResult) -> Digest:
        """The digest of the image's config, which a file's name need not be."""
        if CONFIG in image.ids:
            return image.ids[CONFIG]
        (holder, *_) = image.by_kind.values()
        return (holder.stored or StoredImage(self._cluster, holder.collection)).config.digest

    def _say_same_layers(self, image: UploadedImage, present: LookupResult, result: IngestResult) -> None:
        """Tell of stored images with the same layers under another ID."""
        layout = image.archive.layout
        try:
            others = images_with_same_layers(
                self._cluster, layout.config, image.layers, present.links, trust=self.trust, layout=layout
            )
        except ClusterError as error:
            self._progress.say(f"whether there are images with the same layers was not found out: {error.message}")
            return
        for other in others:
            self._progress.say(
                f"{result.name or result.image_id} is another image than {other}, with the same layers: "
                "a tool that converts images writes the config anew"
            )


def _collection_name(called: str, image_id: Digest) -> str:
    """The usual name of an image's collection, a long one cut in its middle."""
    front, end = "Docker image ", image_id.short_hex
    return f"{front}{called[: MAX_NAME - len(front) - len(end)]}{end}"


def _text(name: Reference | None) -> str | None:
    return name.link_name if name else None


def _texts(name: Reference | None) -> list[str]:
    return [name.link_name] if name else []

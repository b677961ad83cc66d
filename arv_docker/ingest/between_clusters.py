# SPDX-License-Identifier: Apache-2.0
"""Copying of images between clusters: content, ID, names; missing blocks alone, each once.

The portable data hash stays, for it is what workflows and job reuse compare. An image that
is stored as we store it goes the way of every other source, so that layers which the
other cluster has are not read; one of another layout (upstream's) goes block by block, as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from ..arvados.catalog import link_query, links, resolver
from ..arvados.catalog.link_classes import DIGEST, HASH, REPO_TAG
from ..arvados.catalog.listing import list_images
from ..arvados.catalog.proof import is_false
from ..arvados.client import Cluster, CollectionRecord, Link, batches
from ..arvados.resume import SentBlocks
from ..arvados.stored import StoredImage, image_file
from ..arvados.trust import Trust
from ..errors import BadReference, ClusterError, ContentError, NotVerified
from ..images import verify
from ..local.progress import Progress
from ..local.settings import MANIFEST
from ..model.image import Digest
from ..model.manifest_text import locators
from ..model.reference import ImageId, Reference
from ..store import tarballs
from .dry_run import IngestPlan, large_layers, plan_for
from .name_meanings import CopiedImage, NameDifference, NameSettlement
from .options import Options
from .preflight import Preflight
from .records import ImageRecords
from .results import IngestResult
from .service import Ingest

_BLOCK = re.compile(r"(?<= )([0-9a-f]{32}\+\d+)\S*")


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image of the cluster that is copied from, with its names there, the preferred first, and its further digests.

    Both by the word of trusted users, for this user's links say it on the other cluster. ``trusted`` is whether one of
    them linked it at all. ``left_out`` are names by the word of others alone, each with the user who says so.
    """

    collection: CollectionRecord
    image_id: Digest
    names: tuple[Reference, ...]
    digests: tuple[Digest, ...] = ()
    trusted: bool = True
    left_out: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return ", ".join(name.link_name for name in self.names) or str(self.image_id)


@dataclass(frozen=True, slots=True)
class CopyResult:
    """An image that the other cluster has now, under all its names; the same counts as ``IngestResult``."""

    uuid: str
    pdh: str
    image_id: Digest
    names: tuple[str, ...]
    already: bool
    bytes_sent: int
    bytes_skipped: int = field(metadata={"json": "bytes_spared"})
    links_written: int


def image_named(source: Cluster, text: str, trust: Trust) -> Candidate:
    """Return the image that ``text`` means there, with its other names: those of every collection of that content.

    Raises what ``resolver.resolve`` raises, and UntrustedName for a name by the word of a user who is not trusted.
    """
    found = resolver.resolve(source, text, trust)
    resolver.check_trusted(text, found)
    collection = resolver.collection_with_uuid(source, found.collection)
    copies = {it.uuid: it for it in source.collections([["portable_data_hash", "=", collection.pdh]])}
    copies[collection.uuid] = collection
    digests = dict.fromkeys(it for some in _digests(source, copies.values(), trust).values() for it in some)
    return _candidate(collection, link_query.links_to(source, list(copies)), tuple(digests), trust, copies)


def images_of(source: Cluster, trust: Trust, project: str | None = None) -> list[Candidate]:
    """Return every image of the cluster that this user can read, or every image of a project, each once.

    What was linked first comes first: of images that were made at the same time, and all by one name (a build that can
    be repeated may say 1970), the one means the name that was linked last, on the other cluster too.
    """
    rows = list_images(source, trust, project=project).rows
    uuids = list(dict.fromkeys(row.collection.uuid for row in reversed(rows)))
    found: dict[str, CollectionRecord] = {}
    for some in batches(uuids, 50):  # with their manifest texts
        found |= {it.uuid: it for it in source.collections([["uuid", "in", some]], manifest=True)}
    linked: dict[str, list[Link]] = {}
    for link in link_query.links_to(source, uuids):
        if project in (None, link.owner_uuid):
            linked.setdefault(link.head_uuid, []).append(link)
    digests = _digests(source, found.values(), trust)
    candidates = []
    for uuid in uuids:
        with suppress(ContentError, KeyError):  # a link may lead to what is no image
            candidates.append(_candidate(found[uuid], linked.get(uuid, ()), digests.get(uuid, ()), trust))
    return candidates


class Copier:
    """Copier of images from one cluster to another."""

    def __init__(
        self, source: Cluster, target: Cluster, options: Options, progress: Progress, trust: Trust | None = None
    ) -> None:
        """``trust`` says whose word counts for the source's content; this user's and the system's unless given."""
        self._trust = trust or Trust.of(source.user_uuid, source.system_user_uuid)
        self._source = source
        self._target = target
        self._options = options
        self._progress = progress
        self._preflight = Preflight(target, options, progress)
        self._coming: dict[Digest, int] = {}
        self._copied: dict[str, CopiedImage] = {}
        self._names: dict[Reference, None] = {}

    def plan(self, image: Candidate) -> IngestPlan:
        """Plan what ``run`` would do, after the images planned before; read no more than the head of the image."""
        self._preflight.check()
        stored = StoredImage(self._source, image.collection)
        if anew := self._is_stored_anew(stored):
            image = replace(image, image_id=stored.config.digest)
        records = ImageRecords(self._target, self._for(image, stored, anew=anew), self._progress)
        diff_ids = stored.config.diff_ids if stored.is_ours or anew else ()
        total = stored.layout.size if stored.is_ours or anew else stored.file.size
        about = (str(image), image.image_id)
        found = plan_for(self._target, records, *about, diff_ids=diff_ids, total=total, coming=self._coming)
        if stored.is_ours or anew:
            self._coming |= large_layers(stored.sizes)
        return found

    def run(self, image: Candidate) -> CopyResult:
        """Copy an image, its hash link, and a link for each of its names and further digests.

        Raises what verifying and storing it raise; then the other cluster has no collection and no link of it.
        """
        self._preflight.check()
        stored = StoredImage(self._source, image.collection)
        if anew := self._is_stored_anew(stored):
            self._progress.say(
                f"{image}: only others say what it is, and its archive is not the canonical one; it is stored anew"
            )
            image = replace(image, image_id=stored.config.digest)
        options = self._for(image, stored, anew=anew)
        first = next(iter(image.names), None)
        records = ImageRecords(self._target, options, self._progress)
        if stored.is_ours or anew:
            # Whoever opens the image knows it by its config's digest; of one that is named by the other, ask for that.
            known = records.find_and_complete(image.image_id, first) if options.kinds == (MANIFEST,) else None
            name = first or ImageId(image.image_id.hex)
            done = known or Ingest(self._target, options, self._progress).from_image(stored, name)
        else:
            with tarballs.hold_image_lock(options.cache, image.image_id, self._progress.say):
                done = records.find_and_complete(image.image_id, first) or self._copy_verbatim(records, stored, first)
        own = (stored.config.digest, stored.layout.manifest_digest)
        digests = [digest for digest in image.digests if digest not in own]
        if anew:
            records = ImageRecords(self._target, replace(options, pdh=done.pdh), self._progress)
        written = done.links_written + self._add_names(records, image, digests)
        if done.pdh != image.collection.pdh and not anew:
            raise NotVerified(f"{image} became {done.pdh}, and was {image.collection.pdh}.")
        owner = self._options.project or self._target.user_uuid
        self._copied[image.collection.pdh] = CopiedImage(done.uuid, done.pdh, owner)
        self._names |= dict.fromkeys(image.names)
        names = tuple(name.link_name for name in image.names)
        return CopyResult(
            done.uuid, done.pdh, image.image_id, names, done.already, done.bytes_sent, done.bytes_skipped, written
        )

    def settle_names(self) -> list[NameDifference]:
        """Have each name of the images that were copied mean the same content on both clusters, as far as this user
        may; return the names that still differ."""
        return NameSettlement(self._source, self._target, self._copied).settle(self._names)

    def _is_stored_anew(self, stored: StoredImage) -> bool:
        """True for an archive in another layout than ours that no trusted user vouches for."""
        return stored.canonical is None and not self._is_attested(stored.collection)

    def _is_attested(self, collection: CollectionRecord) -> bool:
        """True if a trusted user says that the collection holds an image, or wrote it."""
        linked = link_query.links_to(self._source, [collection.uuid], [HASH])
        return self._trust.includes(collection.modified_by) or any(self._trust.attests(it, collection) for it in linked)

    def _for(self, image: Candidate, stored: StoredImage, *, anew: bool) -> Options:
        """The options for an image: its content stays unless it is stored ``anew``, and its file named as it is,
        whichever digest that is."""
        by_manifest = image.image_id == stored.layout.manifest_digest
        # One that no link calls by its own digest stands beside a collection that has the names (--image-id both).
        beside = by_manifest and not image.names and image.image_id not in image.digests
        return replace(
            self._options,
            by_manifest=by_manifest and not beside,
            image_ids=(MANIFEST,) if beside else (),
            pdh=None if anew else image.collection.pdh,
        )

    def _add_names(self, records: ImageRecords, image: Candidate, digests: Sequence[Digest]) -> int:
        """Link the image by its further names, and the digests by which its source called it; return how many links
        that took."""
        further = image.names[1:] or ((None,) if digests else ())
        done = (records.find_and_complete(image.image_id, name, digests=digests) for name in further)
        return sum(found.links_written for found in done if found is not None)

    def _copy_verbatim(self, records: ImageRecords, stored: StoredImage, name: Reference | None) -> IngestResult:
        """Copy the blocks unchanged, after checking the image in them."""
        self._preflight.check_creation()
        verify.verify(self._source, stored.collection, quick=False, progress=self._progress)
        sent = SentBlocks(self._options.cache, self._target, stored.file.image_id)
        before = sent.blocks
        for known in (before, {}) if before else ({},):
            try:
                done = self._block_by_block(records, stored, name, sent, known)
                break
            except ClusterError as error:
                if error.is_refusal:
                    sent.discard()  # they are signed for another token, say
                if error.status != 403 or not known:
                    raise
                self._progress.say("the cluster does not take blocks that it had already; sending everything again")
        sent.discard()
        return done

    def _block_by_block(
        self,
        records: ImageRecords,
        stored: StoredImage,
        name: Reference | None,
        sent: SentBlocks,
        before: Mapping[str, str],
    ) -> IngestResult:
        """Send the blocks that are not among those ``before``, and make a collection of all."""
        there = dict(before)
        count = 0
        with self._progress.step("copying blocks", stored.file.size) as advance:
            for locator in locators(stored.file.streams):
                if locator.without_hints not in there:
                    content = self._source.get_block(str(locator))
                    there[locator.without_hints] = self._target.put_block(content)
                    sent.note(there[locator.without_hints])
                    count += len(content)
                advance(locator.size or 0)
        text = _BLOCK.sub(lambda match: there[match[1]], stored.collection.manifest_text or "")
        return records.adopt(text, stored.file.image_id, name, links.timestamp_of(stored.config), bytes_sent=count)


def _candidate(
    collection: CollectionRecord,
    linked: Iterable[Link],
    digests: tuple[Digest, ...],
    trust: Trust,
    copies: Mapping[str, CollectionRecord] = MappingProxyType({}),
) -> Candidate:
    """Return the image of a collection, with the names of the attested links to it and to ``copies`` of it."""
    image_id = image_file(collection).image_id
    names: dict[Reference, None] = {}
    untrusted: dict[str, str] = {}
    trusted = False
    for link in linked:
        if link.link_class == HASH and is_false(link, collection):
            continue
        if trust.attests(link, copies.get(link.head_uuid, collection)):
            trusted = True
            if link.link_class == REPO_TAG and (name := _name(link.name)) is not None:
                names[name] = None
        elif link.link_class == REPO_TAG or not trusted:
            untrusted.setdefault(link.name, link.modified_by)
    known = {name.link_name for name in names}
    left_out = tuple((name, writer) for name, writer in untrusted.items() if name not in known)
    if trusted:
        left_out = tuple(it for it in left_out if it[0] != str(image_id))
    return Candidate(collection, image_id, tuple(names), digests, trusted=trusted, left_out=left_out)


def _digests(source: Cluster, collections: Iterable[CollectionRecord], trust: Trust) -> dict[str, tuple[Digest, ...]]:
    """The digests by which engines and registries call the images in some collections, by UUID.

    By the word of trusted users alone: our own link will say it on the other cluster.
    """
    by_uuid = {collection.uuid: collection for collection in collections}
    found: dict[str, tuple[Digest, ...]] = {}
    for some in batches(by_uuid):
        for link in source.links([["link_class", "=", DIGEST], ["head_uuid", "in", some]]):
            if trust.attests(link, by_uuid[link.head_uuid]):
                with suppress(BadReference):
                    found[link.head_uuid] = (*found.get(link.head_uuid, ()), Digest.parse(link.name))
    return found


def _name(text: str) -> Reference | None:
    """Reference that can be written again as a name; what is no name was never resolved by any."""
    try:
        return Reference.parse(text)
    except BadReference:
        return None

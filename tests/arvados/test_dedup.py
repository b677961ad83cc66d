# SPDX-License-Identifier: Apache-2.0
"""Which blocks are not sent: those that a readable collection has, whatever a link says of them."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import pytest

from arv_docker.archive import canonical
from arv_docker.archive.layer import Layer
from arv_docker.archive.opened_image import OpenedImage
from arv_docker.arvados.blocks import BlockStore, StoredArchive
from arv_docker.arvados.client import Cluster, CollectionRecord
from arv_docker.arvados.dedup import LAYER, LEAST_VALIDITY, LayerLookup, usable_blocks
from arv_docker.arvados.resume import SentBlocks
from arv_docker.arvados.trust import Trust
from arv_docker.model import manifest_text
from arv_docker.model.image import Config, Digest
from arv_docker.transports.keep import KeepDestination

from ..archives import Image, image
from .fake_api import ME, OTHER, SYSTEM, FakeApi, http_error
from .test_blocks import submitted

BIG = bytes(canonical.ALIGNED_SPAN)
ONE = image(BIG, b"one" * 1000)
TWO = image(BIG, b"two" * 1000)
TRUST = Trust.of(ME, SYSTEM)


class Opened(OpenedImage):
    """An image in memory."""

    def __init__(self, made: Image) -> None:
        self._made = made

    @property
    def config(self) -> Config:
        return self._made.parsed

    def layers(self, skip: Container[Digest] = ()) -> Iterator[Layer]:
        for content, diff_id in zip(self._made.layers, self._made.parsed.diff_ids, strict=True):
            yield Layer(io.BytesIO(content).read, claimed=diff_id, size=len(content))


def store(api: FakeApi, made: Image, folder: Path) -> tuple[KeepDestination, StoredArchive]:
    """An image that is stored with what the links of the cluster say; its collection and layer links are written."""
    cluster = Cluster(api)
    known = LayerLookup(cluster, made.parsed.diff_ids, TRUST)
    destination = KeepDestination(cluster, folder, known.blocks)
    stored = destination.write(Opened(made), lambda _: None)
    record = api.add(
        "collections",
        owner_uuid=ME,
        manifest_text=(text := stored.manifest_text(made.parsed.digest)),
        portable_data_hash=manifest_text.pdh(text),
    )
    assert known.write_links(stored.layout, CollectionRecord.of(record)) == []
    return destination, stored


def layer_links(api: FakeApi) -> list[dict[str, Any]]:
    return [it for it in api.records["links"].values() if it["link_class"] == LAYER]


@pytest.mark.conforms("S17")
def test_a_layer_that_another_image_has_is_not_sent(tmp_path: Path) -> None:
    api = FakeApi()
    first, _ = store(api, ONE, tmp_path)
    second, _ = store(api, TWO, tmp_path)
    span = canonical.span_length(len(BIG))
    assert first.bytes_sent > span
    assert second.bytes_spared >= span
    assert second.bytes_sent < 64 << 10


def test_a_link_for_each_aligned_layer_without_properties_and_once(tmp_path: Path) -> None:
    api = FakeApi()
    store(api, ONE, tmp_path)
    store(api, TWO, tmp_path)
    (link,) = layer_links(api)
    (record, _) = api.records["collections"].values()
    assert link["name"] == str(ONE.parsed.diff_ids[0])
    assert (link["head_uuid"], link["tail_uuid"]) == (record["uuid"], record["portable_data_hash"])
    assert not link["properties"]


def test_of_several_that_link_a_layer_at_once_one_link_stays(tmp_path: Path) -> None:
    """Each has looked before any of them wrote. The oldest stays whose collection is there still."""
    api = FakeApi()
    cluster = Cluster(api)
    lookups, records = [], []
    layout = canonical.layout(ONE.parsed, ONE.sizes)
    for number in range(8):
        lookups.append(LayerLookup(cluster, ONE.parsed.diff_ids, TRUST))
        text = f". {'0' * 32}+4 0:4:{number}.tar\n"
        records.append(api.add("collections", manifest_text=text, portable_data_hash=manifest_text.pdh(text)))
    lost = api.link({"uuid": "zzzzz-4zz18-999999999999999"}, LAYER, str(ONE.parsed.diff_ids[0]))
    his = api.link(records[0], LAYER, lost["name"], modified_by_user_uuid=OTHER)
    for lookup, record in zip(lookups, records, strict=True):
        assert lookup.write_links(layout, CollectionRecord.of(record)) == []
    assert [it["head_uuid"] for it in layer_links(api)] == [lost["head_uuid"], his["head_uuid"], records[0]["uuid"]]


def test_a_link_of_a_stranger_helps_and_is_not_relied_on(tmp_path: Path) -> None:
    api = FakeApi()
    store(api, ONE, tmp_path)
    layer_links(api)[0]["modified_by_user_uuid"] = OTHER
    second, _ = store(api, TWO, tmp_path)
    assert second.bytes_spared > 0
    assert len(layer_links(api)) == 2


@pytest.mark.parametrize(
    "lie", ["other bytes", "trashed", "nonsense", "changed since", "weaker", "no copy", "other class"]
)
def test_a_link_that_lies_costs_a_put_and_harms_nothing(lie: str, tmp_path: Path) -> None:
    api = FakeApi()
    store(api, ONE, tmp_path)
    (record,) = api.records["collections"].values()
    if lie == "other bytes":
        wrong = api.keep.put(b"x" * len(BIG), 1)
        record["manifest_text"] = f". {wrong} 0:1:sha256:x.tar\n"
    elif lie == "trashed":
        api.records["collections"].clear()
    elif lie == "nonsense":
        record["manifest_text"] = "not a manifest"
    elif lie == "changed since":
        record["portable_data_hash"] = "0" * 32 + "+1"
        record["manifest_text"] = ". d41d8cd98f00b204e9800998ecf8427e+0 0:0:x\n"
    elif lie in ("weaker", "no copy"):
        record["replication_desired"] = 1 if lie == "weaker" else 0
        api._rootDesc["defaultCollectionReplication"] = 2
    else:
        record["storage_classes_desired"] = ["archival"]
    second, stored = store(api, TWO, tmp_path)
    assert second.bytes_sent >= canonical.span_length(len(BIG))
    blocks = [api.keep.blocks[it.partition("+A")[0]] for it in stored.locators]
    layers = {layer.claimed: layer for layer in Opened(TWO).layers()}
    assert b"".join(blocks) == b"".join(canonical.content(stored.layout, layers.__getitem__))


def test_a_cluster_that_refuses_the_link(tmp_path: Path) -> None:
    api = FakeApi()
    cluster = Cluster(api)
    known = LayerLookup(cluster, ONE.parsed.diff_ids, TRUST)
    stored = KeepDestination(cluster, tmp_path).write(Opened(ONE), lambda _: None)
    record = api.add("collections", owner_uuid=ME, manifest_text="", portable_data_hash="x+1")
    api.faults["links.create"] = [http_error(422)]
    (warning,) = known.write_links(stored.layout, CollectionRecord.of(record))
    assert "was not linked" in warning


# -- locators ---------------------------------------------------------------------------

NOW = time.time()
MD5 = "0" * 32


def signed(seconds: float) -> str:
    return f"{MD5}+5+A{'1' * 40}@{int(NOW + seconds):08x}"


@pytest.mark.parametrize(
    ("locator", "usable"),
    [
        (f"{MD5}+5", True),
        (signed(LEAST_VALIDITY + 60), True),
        (signed(LEAST_VALIDITY - 60), False),
        (signed(-60), False),
        (f"{MD5}+5+Rother-{'1' * 40}@ffffffff", False),
        (f"{MD5}+5+K@other", False),
        (MD5, False),
    ],
    ids=["unsigned", "long enough", "not long enough", "expired", "remote", "hint of a cluster", "without size"],
)
def test_which_locators_go_into_another_manifest_text(locator: str, usable: bool) -> None:
    assert usable_blocks(f". {locator} 0:0:x\n", NOW) == ({f"{MD5}+5": locator} if usable else {})


# -- what was sent before ---------------------------------------------------------------


@pytest.mark.conforms("K14")
def test_what_an_interrupted_run_sent_is_on_record(tmp_path: Path) -> None:
    sent = SentBlocks(tmp_path, Cluster(FakeApi()), ONE.parsed.digest)
    assert sent.blocks == {}
    sent.note(signed(7200))
    assert SentBlocks(tmp_path, Cluster(FakeApi()), ONE.parsed.digest).blocks == {f"{MD5}+5": signed(7200)}
    assert SentBlocks(tmp_path, Cluster(FakeApi(OTHER)), ONE.parsed.digest).blocks == {}
    assert SentBlocks(tmp_path, Cluster(FakeApi()), TWO.parsed.digest).blocks == {}
    assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o600]
    sent.discard()
    sent.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_was_cut_or_damaged(tmp_path: Path) -> None:
    sent = SentBlocks(tmp_path, Cluster(FakeApi()), ONE.parsed.digest)
    sent.note(signed(7200))
    (path,) = tmp_path.iterdir()
    damage = b"\xff\xfe not a locator\n" + signed(-5).encode() + b"\n" + b"1" * 32 + b"+7+Aabc"
    path.write_bytes(path.read_bytes() + damage)
    assert sent.blocks == {f"{MD5}+5": signed(7200)}


def test_of_a_cluster_that_signs_nothing_a_record_is_not_used(tmp_path: Path) -> None:
    """Nothing says how old it is, and Keep collects blocks that no collection names."""
    sent = SentBlocks(tmp_path, Cluster(FakeApi()), ONE.parsed.digest)
    sent.note(f"{MD5}+5")
    sent.note(f"{MD5}+6+Zhint")
    assert sent.blocks == {}


def test_only_what_was_there_before_counts_as_spared() -> None:
    """Not a block that repeats within the image: what a cluster refuses then would be sent again for nothing."""
    api = FakeApi()
    store = BlockStore(Cluster(api).put_block)
    assert len({submitted(store, b"equal").result() for _ in range(3)}) == 1
    assert (store.bytes_sent, store.bytes_spared) == (5, 0)
    again = BlockStore(Cluster(api).put_block, {f"{hashlib.md5(b'equal').hexdigest()}+5": signed(7200)})
    assert submitted(again, b"equal").result() == signed(7200)
    assert (again.bytes_sent, again.bytes_spared) == (0, 5)


# -- layers that need not be read -------------------------------------------------------


class Far(Opened):
    """An image whose layers are noted when they are fetched."""

    def __init__(self, made: Image) -> None:
        super().__init__(made)
        self.fetched: list[Digest | None] = []

    def layers(self, skip: Container[Digest] = ()) -> Iterator[Layer]:
        for layer in super().layers():
            if layer.claimed not in skip:
                self.fetched.append(layer.claimed)
                yield layer


THREE = image(BIG, b"one" * 1000, b"three" * 1000)


def fetched(api: FakeApi, made: Image, folder: Path, trust: Trust = TRUST) -> tuple[list[Digest | None], StoredArchive]:
    """What is fetched of an image that is far away; the archive that is stored is always its own."""
    known = LayerLookup(Cluster(api), made.parsed.diff_ids, trust)
    far = Far(made)
    stored = KeepDestination(Cluster(api), folder, known.blocks, look_up=known.layers_in_keep).write(
        far, lambda _: None
    )
    names = [locator.partition("+A")[0] for locator in stored.locators]
    layout = canonical.layout(made.parsed, made.sizes)
    assert b"".join(api.keep.blocks[name] for name in names) == b"".join(canonical.content(layout, made.layer))
    return far.fetched, stored


def test_layers_that_a_trusted_collection_holds_are_not_fetched(tmp_path: Path) -> None:
    api = FakeApi()
    store(api, ONE, tmp_path)
    assert fetched(api, THREE, tmp_path)[0] == [THREE.parsed.diff_ids[2]]


def test_of_an_image_that_is_there_nothing_is_fetched(tmp_path: Path) -> None:
    api = FakeApi()
    store(api, ONE, tmp_path)
    assert fetched(api, ONE, tmp_path)[0] == []


@pytest.mark.parametrize("why", ["stranger", "changed", "no link", "other layout", "expired"])
def test_whoever_is_not_trusted_is_not_believed(why: str, tmp_path: Path) -> None:
    """Then everything comes from the source, whatever links and collections say."""
    api = FakeApi()
    store(api, ONE, tmp_path)
    (link,) = layer_links(api)
    (record,) = api.records["collections"].values()
    if why == "stranger":
        link["modified_by_user_uuid"] = OTHER
    elif why == "changed":
        link["tail_uuid"] = f"{'a' * 32}+100"
    elif why == "no link":
        link["name"] = str(ONE.parsed.diff_ids[1])
    elif why == "other layout":
        cut = next(it for it in api.keep.blocks.values() if len(it) > 1 << 20)
        halves = [api.keep.put(cut[: len(cut) // 2], 1), api.keep.put(cut[len(cut) // 2 :], 1)]
        rest = [it.strip() for it in record["manifest_text"].split()[1:-1] if f"+{len(cut)}+" not in it]
        text = " ".join([".", rest[0], rest[1], *halves, rest[2], record["manifest_text"].split()[-1]]) + "\n"
        record["manifest_text"], record["portable_data_hash"] = text, manifest_text.pdh(text)
        link["tail_uuid"] = record["portable_data_hash"]
    elif why == "expired":
        record["manifest_text"] = record["manifest_text"].replace("@ffffffff", f"@{int(time.time()) + 600:08x}")
    asked = THREE.parsed.diff_ids
    spared = (
        {asked[1]} if why in ("other layout", "expired", "no link") else set()
    )  # a small layer is read from Keep, and hashed
    assert set(fetched(api, THREE, tmp_path)[0]) == set(asked) - spared


@pytest.mark.parametrize("lost", [False, True])
def test_a_small_layer_that_is_altered_or_lost_in_keep_is_fetched(lost: bool, tmp_path: Path) -> None:
    """An aligned layer counts by the word of our own link; a packed one is read, and its bytes judged."""
    api = FakeApi()
    store(api, ONE, tmp_path)
    name = next(name for name, content in api.keep.blocks.items() if b"oneone" in content)
    if lost:
        del api.keep.blocks[name]
    else:
        api.keep.blocks[name] = api.keep.blocks[name].replace(b"oneone", b"oneonx", 1)
    assert fetched(api, THREE, tmp_path)[0] == list(THREE.parsed.diff_ids[1:])

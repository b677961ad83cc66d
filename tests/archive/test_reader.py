# SPDX-License-Identifier: Apache-2.0
"""Finding the image in an archive of every generation, and what is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arv_docker.archive import reader
from arv_docker.archive.archived_image import ArchivedImage
from arv_docker.archive.reader import ArchiveReader
from arv_docker.errors import (
    BadArchive,
    BadConfig,
    ContentError,
    DigestMismatch,
    LayerCountMismatch,
    NoRootfs,
    NoSuchImage,
    NotAnImage,
    SchemaOne,
    SeveralImages,
    UnsupportedDigest,
)
from arv_docker.model.image import MAX_JSON_SIZE, Digest
from arv_docker.model.reference import ImageId, Reference, parse_name

from ..archives import (
    END,
    Bytes,
    Image,
    canonical_archive,
    classic,
    containerd,
    files_of,
    flat,
    hex_of,
    hybrid,
    image,
    layout,
    member,
    several,
    tar,
)

LOW, MIDDLE, HIGH = files_of(b"low"), files_of(b"middle" * 1000), files_of(b"high")
APP = image(LOW, MIDDLE, LOW, HIGH, os="linux", architecture="amd64")
OTHER = image(HIGH, os="linux")
GENERATIONS = [classic, hybrid, containerd, layout, flat, canonical_archive]


def opened(content: bytes, name: str | None = None) -> ArchivedImage:
    return ArchiveReader(Bytes(content)).image(parse_name(name) if name else None)


def layers_of(found: ArchivedImage) -> dict[Digest, bytes]:
    layers = {}
    for layer in found.layers():
        content = b"".join(iter(lambda layer=layer: layer.read(1000), b""))  # type: ignore[misc]
        layers[layer.diff_id] = content
    return layers


def archive(manifest: Any, **files: bytes | str) -> bytes:
    """A flat archive of OTHER with this `manifest.json`."""
    base: dict[str, bytes | str] = {"config.json": OTHER.config, "layer.tar": HIGH}
    return tar({**base, **files, "manifest.json": json.dumps(manifest).encode()})


ENTRY: dict[str, Any] = {"Config": "config.json", "RepoTags": ["other:1"], "Layers": ["layer.tar"]}


# -- generations ------------------------------------------------------------------------


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("made", [APP, OTHER, image(), image(b""), image(LOW, LOW, LOW)])
def test_every_generation_holds_the_same_image(generation: Callable[[Image], bytes], made: Image) -> None:
    found = opened(generation(made))
    assert found.config == made.parsed
    assert found.sizes == made.sizes
    assert layers_of(found) == made.by_id


@pytest.mark.parametrize("generation", GENERATIONS)
def test_layers_come_in_the_order_of_the_archive_each_once(generation: Callable[[Image], bytes]) -> None:
    content = generation(APP)
    ids = [layer.claimed for layer in opened(content).layers()]
    assert sorted(map(str, ids)) == sorted(map(str, APP.by_id))
    found = opened(content)
    places = [found.place(diff_id) for diff_id in ids if diff_id]
    assert places == sorted(places)
    assert all(offset + size < len(content) for offset, size in places)


def test_layers_that_are_not_wanted_are_not_read() -> None:
    found = opened(hybrid(APP))
    wanted = Digest.of(HIGH)
    assert [layer.claimed for layer in found.layers(skip={Digest.of(LOW), Digest.of(MIDDLE)})] == [wanted]


def test_a_layer_can_be_had_by_name() -> None:
    layer = opened(classic(APP)).layer(Digest.of(MIDDLE))
    assert (layer.claimed, layer.size) == (Digest.of(MIDDLE), len(MIDDLE))
    assert layer.read(len(MIDDLE) + 1) == MIDDLE


@pytest.mark.parametrize("generation", [classic, hybrid, flat])
@pytest.mark.parametrize("tags", [None, [], ["app:1"], ["a:1", "quay.example.com/b:2"]])
def test_tags(generation: Callable[[Image, Any], bytes], tags: list[str] | None) -> None:
    assert opened(generation(APP, tags)).tags == tuple(tags or ())


# -- which image ------------------------------------------------------------------------


TWO = several((APP, ["app:1", "app:2"]), (OTHER, ["other:1"]))


@pytest.mark.parametrize("name", ["other:1", "docker.io/library/other:1", f"sha256:{hex_of(OTHER.config)}"])
def test_a_name_or_id_says_which_image_is_meant(name: str) -> None:
    assert opened(TWO, name).config == OTHER.parsed


def test_the_beginning_of_an_id() -> None:
    assert opened(TWO, f"sha256:{hex_of(APP.config)[:8]}").config == APP.parsed


def test_several_images_are_named_where_one_must_be_meant() -> None:
    with pytest.raises(SeveralImages) as caught:
        opened(TWO)
    assert "2 images" in caught.value.message
    assert caught.value.detail.splitlines() == ["app:1, app:2", "other:1"]


def test_several_images_of_one_name() -> None:
    with pytest.raises(SeveralImages, match="'x:1'"):
        opened(several((APP, ["x:1"]), (OTHER, ["x:1"])), "x:1")


def test_one_image_that_is_listed_twice_is_one() -> None:
    assert opened(several((OTHER, ["a:1"]), (OTHER, ["b:1"]))).config == OTHER.parsed


@pytest.mark.parametrize("name", ["app:3", "sha256:0123", f"sha256:{'0' * 64}"])
def test_none_of_several_images_is_meant(name: str) -> None:
    with pytest.raises(NoSuchImage) as caught:
        opened(TWO, name)
    assert "other:1" in caught.value.detail


def test_the_only_image_answers_to_its_own_names_alone() -> None:
    for name in ("something/else:7", f"sha256:{hex_of(OTHER.config)}"):
        with pytest.raises(NoSuchImage):
            opened(hybrid(APP), name)
    any_name = ArchiveReader(Bytes(hybrid(APP)), any_name=True)
    assert any_name.image(parse_name("something/else:7")).config == APP.parsed


@pytest.mark.parametrize("odd", ["<none>:<none>", "", "A:B:C", "\ud800", "x" * 1000])
def test_a_tag_that_is_no_name_is_nobody_s(odd: str) -> None:
    found = opened(several((APP, [odd]), (OTHER, ["other:1", odd])), "other:1")
    assert found.config == OTHER.parsed


# -- refused: the listing ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "error", "words"),
    [
        ({"repositories": b"{}", "abc/layer.tar": b"", "abc/json": b"{}"}, SchemaOne, "older than 1.10"),
        ({"abc/layer.tar": b""}, BadArchive, "cut short"),
        (
            {"oci-layout": b"{}", "index.json": b"{}", "blobs/sha256/x": b""},
            NotAnImage,
            "neither an image nor an index",
        ),
        ({"etc/passwd": b""}, NotAnImage, "no manifest.json and no index.json"),
    ],
)
def test_archives_of_another_kind(files: dict[str, bytes], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        opened(tar(files))


@pytest.mark.parametrize(
    "manifest",
    [
        None,
        [],
        {},
        1,
        "x",
        ENTRY,
        [None],
        [[]],
        ["x"],
        [{}],
        [{**ENTRY, "Config": None}],
        [{**ENTRY, "Config": 1}],
        [{**ENTRY, "Config": ["config.json"]}],
        [{**ENTRY, "Layers": "layer.tar"}],
        [{**ENTRY, "Layers": [1]}],
        [{**ENTRY, "Layers": [["layer.tar"]]}],
        [{**ENTRY, "Layers": {"layer.tar": 1}}],
        [{**ENTRY, "RepoTags": "other:1"}],
        [{**ENTRY, "RepoTags": [None]}],
        [{**ENTRY, "Layers": ["layer.tar"] * 10_001}],
    ],
)
def test_a_malformed_listing(manifest: Any) -> None:
    with pytest.raises(BadArchive):
        opened(archive(manifest))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"[1" + b"0" * 10_000 + b"]"])
def test_a_listing_that_is_no_json(content: bytes) -> None:
    with pytest.raises(BadArchive, match=r"manifest\.json"):
        opened(tar({"manifest.json": content}))


def test_a_listing_that_is_too_large() -> None:
    with pytest.raises(BadArchive, match="at most"):
        opened(tar({"manifest.json": b"[" + b" " * MAX_JSON_SIZE + b"]"}))


def test_a_listing_of_more_images_than_any_archive_has() -> None:
    with pytest.raises(BadArchive, match="lists 10001 images"):
        opened(archive([ENTRY] * 10_001))


def test_an_image_of_many_names_takes_no_time() -> None:
    listing = [{**ENTRY, "RepoTags": [f"a:{place}.{number}" for number in range(50)]} for place in range(4000)]
    images = ArchiveReader(Bytes(archive(listing)))
    started = time.process_time()
    (found,) = images.every()
    assert time.process_time() - started < 30
    assert found[0].count("a:") == 4000 * 50


def test_a_listing_that_stands_twice() -> None:
    content = archive([ENTRY])
    second = member(b"manifest.json", json.dumps([{**ENTRY, "RepoTags": ["b:2"]}]).encode())
    with pytest.raises(BadArchive, match="more than once"):
        opened(second + content)
    same = member(b"manifest.json", json.dumps([ENTRY]).encode())
    assert opened(same + content).config == OTHER.parsed


# -- refused: the image -----------------------------------------------------------------


@pytest.mark.parametrize("path", ["/etc/passwd", "../config.json", "a/../config.json", "missing.json", "", ".", "a\0b"])
@pytest.mark.parametrize("key", ["Config", "Layers"])
def test_paths_that_are_no_member(path: str, key: str) -> None:
    with pytest.raises(BadArchive):
        opened(archive([{**ENTRY, key: path if key == "Config" else [path]}]))


@pytest.mark.parametrize("path", ["./config.json", "config.json"])
def test_paths_are_normal_names(path: str) -> None:
    assert opened(archive([{**ENTRY, "Config": path}])).config == OTHER.parsed


def test_a_layer_or_config_through_links() -> None:
    one: dict[str, bytes | str] = {"one": "layer.tar", "c": "config.json"}
    assert layers_of(opened(archive([{**ENTRY, "Config": "c", "Layers": ["one"]}], **one))) == OTHER.by_id
    two = opened(archive([{**ENTRY, "Layers": ["two"]}], one="layer.tar", two="one"))
    assert layers_of(two) == OTHER.by_id


@pytest.mark.parametrize("count", [0, 2])
def test_another_number_of_layers_than_diff_ids(count: int) -> None:
    with pytest.raises(LayerCountMismatch, match=f"lists {count} layers and the image's config 1"):
        opened(archive([{**ENTRY, "Layers": ["layer.tar"] * count}]))


@pytest.mark.parametrize("name", [f"{'0' * 64}.json", f"blobs/sha256/{'0' * 64}"])
def test_a_config_that_is_not_what_its_path_claims(name: str) -> None:
    with pytest.raises(DigestMismatch, match=hex_of(OTHER.config)):
        opened(archive([{**ENTRY, "Config": name}], **{name: OTHER.config}))


@pytest.mark.parametrize(
    ("config", "error"),
    [
        (b"not JSON", BadConfig),
        (b"[]", BadConfig),
        (b'{"a":1,"a":2}', BadConfig),
        (b"{}", NoRootfs),
        (b'{"rootfs":{"type":"layers","diff_ids":["md5:0"]}}', UnsupportedDigest),
        (b"{" + b" " * MAX_JSON_SIZE + b"}", BadConfig),
    ],
)
def test_configs_that_are_none(config: bytes, error: type[ContentError]) -> None:
    with pytest.raises(error):
        opened(archive([ENTRY], **{"config.json": config}))


def test_a_config_of_a_gigabyte_is_refused_unread() -> None:
    class Sparse(Bytes):
        @property
        def size(self) -> int:
            return 1 << 31

        def read_at(self, offset: int, length: int) -> bytes:
            return super().read_at(offset, length) or bytes(length)

    manifest = member(b"manifest.json", json.dumps([ENTRY]).encode())
    huge = member(b"config.json", size=b"%011o\0" % (1 << 30))
    with pytest.raises(BadConfig, match=str(1 << 30)):
        ArchiveReader(Sparse(manifest + huge)).image()


def test_a_layer_that_is_not_its_diff_id() -> None:
    found = opened(archive([ENTRY], **{"layer.tar": files_of(b"another")}))
    with pytest.raises(DigestMismatch, match=hex_of(HIGH)):
        layers_of(found)


def test_a_layer_that_ends_early() -> None:
    source = Bytes(archive([ENTRY]))
    found = ArchiveReader(source).image()
    source.content = source.content[: source.content.index(HIGH) + len(HIGH) - 1]
    with pytest.raises(BadArchive, match="ends after"):
        layers_of(found)


def test_many_images_and_layers_are_listed_in_time() -> None:
    listed = reader.ArchiveReader(Bytes(archive([ENTRY] * 10_000))).images
    assert len(listed) == 10_000


@given(st.data())
def test_any_changed_bytes_raise_our_error_or_give_the_image(data: st.DataObject) -> None:
    content = bytearray(flat(OTHER))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        content[place] = data.draw(st.integers(0, 255))
    with suppress(ContentError):
        found = opened(bytes(content))
        assert layers_of(found) == OTHER.by_id or found.config != OTHER.parsed


def test_cut_at_every_block() -> None:
    whole = flat(OTHER)
    for length in range(0, whole.index(END), 512):
        with suppress(ContentError):
            assert layers_of(opened(whole[:length])) == OTHER.by_id
    with pytest.raises(ContentError):
        opened(whole[: whole.index(b"manifest.json")])


def test_a_tag_is_found_however_it_is_spelled() -> None:
    listed = ArchiveReader(Bytes(TWO)).images[0]
    assert listed.answers_to(Reference.parse("docker.io/library/app:2"))
    assert not listed.answers_to(Reference.parse("app"))
    assert listed.answers_to(ImageId(hex_of(APP.config)))
    assert str(listed) == "app:1, app:2"

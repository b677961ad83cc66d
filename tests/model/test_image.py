# SPDX-License-Identifier: Apache-2.0
"""Digests and configs: what is an image, what is not, and what a config may say oddly."""

from __future__ import annotations

import datetime
import hashlib
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from arv_docker.errors import (
    BadConfig,
    BadReference,
    ContentError,
    NoRootfs,
    NotAnImage,
    OciArtifact,
    UnsupportedDigest,
)
from arv_docker.model import image
from arv_docker.model.image import Config, Descriptor, Digest, Platform, json_object, oci_object, parsed_time

ONE, TWO = (f"sha256:{hashlib.sha256(text).hexdigest()}" for text in (b"one", b"two"))


def config(**keys: Any) -> bytes:
    return json.dumps({"rootfs": {"type": "layers", "diff_ids": [ONE, TWO]}, **keys}).encode()


# -- digests ----------------------------------------------------------------------------


def test_digest() -> None:
    digest = Digest.of(b"one")
    assert str(digest) == ONE
    assert Digest.parse(ONE) == Digest.sha256(digest.hex) == digest
    assert digest.short_hex == digest.hex[:12]


@pytest.mark.parametrize("text", ["sha512:" + "0" * 128, "sha384:" + "a" * 96, "blake3+x:" + "f" * 32])
def test_other_algorithms_are_digests_too(text: str) -> None:
    assert str(Digest.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "SHA256:" + "0" * 64,
        "sha256" + "0" * 64,
        "sha256:" + "0" * 64 + "\n",
        " sha256:" + "0" * 64,
        "sha256:" + "٠" * 64,
        "sha512:" + "0" * 64,
        "sha256::" + "0" * 64,
        "x:" + "0" * 31,
    ],
)
def test_what_is_no_digest(text: str) -> None:
    with pytest.raises(BadReference):
        Digest.parse(text)


@given(st.text())
def test_any_text_is_a_digest_that_reads_back_or_refused(text: str) -> None:
    try:
        digest = Digest.parse(text)
    except BadReference:
        return
    assert str(digest) == text


def test_descriptor_has_three_keys_in_order() -> None:
    assert list(Descriptor(image.OCI_LAYER, Digest.of(b""), 5).as_json().items()) == [
        ("mediaType", "application/vnd.oci.image.layer.v1.tar"),
        ("digest", str(Digest.of(b""))),
        ("size", 5),
    ]


# -- configs that are images ------------------------------------------------------------


def test_config() -> None:
    raw = config(os="linux", architecture="arm64", variant="v8", created="2024-01-02T03:04:05.123456789+05:00")
    parsed = Config.parse(raw)
    assert parsed.raw == raw
    assert parsed.digest == Digest.of(raw)
    assert parsed.diff_ids == (Digest.parse(ONE), Digest.parse(TWO))
    assert str(parsed.platform) == "linux/arm64/v8"
    assert parsed.created == "2024-01-02T03:04:05.123456789+05:00"


def test_two_configs_are_equal_when_their_bytes_are() -> None:
    assert Config.parse(config()) == Config.parse(config())
    assert Config.parse(config()) != Config.parse(config() + b"\n")


def test_repeated_layers_stay_in_diff_ids() -> None:
    parsed = Config.parse(config(rootfs={"type": "layers", "diff_ids": [ONE, TWO, ONE]}))
    assert list(map(str, parsed.diff_ids)) == [ONE, TWO, ONE]
    assert list(map(str, parsed.distinct_diff_ids)) == [ONE, TWO]


def test_an_image_needs_nothing_but_its_rootfs() -> None:
    parsed = Config.parse(b'{"rootfs":{"type":"layers","diff_ids":[]}}')
    assert parsed.diff_ids == ()
    assert parsed.platform == Platform("unknown", "unknown")
    assert parsed.created is None


def test_more_layers_than_docker_mounts_are_accepted() -> None:
    assert len(Config.parse(config(rootfs={"type": "layers", "diff_ids": [ONE] * 200})).diff_ids) == 200


@pytest.mark.parametrize("value", [None, 1, [], {}, "", True])
def test_a_platform_that_is_no_text_is_unknown(value: object) -> None:
    parsed = Config.parse(config(os=value, architecture=value, variant=value))
    assert parsed.platform == Platform("unknown", "unknown", "")


@pytest.mark.parametrize("created", ["0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "2024-01-02T03:04:05.123456789Z"])
def test_created_stays_the_config_s_own_text(created: str) -> None:
    assert Config.parse(config(created=created)).created == created


@pytest.mark.parametrize(
    "created", [None, 0, 1700000000, 1.5, True, [], {}, "", "yesterday", "0000-01-01T00:00:00Z", "\ud800", "2024"]
)
def test_created_that_cannot_be_read_is_none(created: object) -> None:
    assert Config.parse(config(created=created)).created is None


def test_half_a_character_in_the_platform_can_be_printed() -> None:
    parsed = Config.parse(config(os="lin\ud800ux"))
    assert parsed.platform.os == "lin?ux"


# -- configs that are none --------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({}, NoRootfs),
        ({"rootfs": None}, NoRootfs),
        ({"rootfs": []}, NoRootfs),
        ({"rootfs": {"type": "layers", "diff_ids": {}}}, NoRootfs),
        ({"rootfs": {"diff_ids": []}}, NoRootfs),
        ({"rootfs": {"type": "windows", "diff_ids": []}}, NoRootfs),
        ({"rootfs": {"type": 1, "diff_ids": []}}, NoRootfs),
        ({"mediaType": "application/vnd.example.thing.v1+json", "data": "e30="}, OciArtifact),
        ({"rootfs": {"type": "layers", "diff_ids": [None]}}, UnsupportedDigest),
        ({"rootfs": {"type": "layers", "diff_ids": [1]}}, UnsupportedDigest),
        ({"rootfs": {"type": "layers", "diff_ids": ["one"]}}, UnsupportedDigest),
        ({"rootfs": {"type": "layers", "diff_ids": ["sha512:" + "0" * 128]}}, UnsupportedDigest),
        ({"rootfs": {"type": "layers", "diff_ids": [ONE.upper()]}}, UnsupportedDigest),
        ({"rootfs": {"type": "layers", "diff_ids": [ONE, "\ud800"]}}, UnsupportedDigest),
    ],
)
def test_json_that_is_no_image(document: object, error: type[NotAnImage]) -> None:
    with pytest.raises(error):
        Config.parse(json.dumps(document).encode())


@pytest.mark.parametrize("rootfs", [{"type": "layers"}, {"type": "layers", "diff_ids": None}])
def test_no_layers_as_engines_write_it(rootfs: object) -> None:
    assert Config.parse(json.dumps({"rootfs": rootfs}).encode()).diff_ids == ()


@pytest.mark.parametrize(
    "text",
    [
        '{"a": NaN}',
        '{"a": [Infinity]}',
        '{"rootfs": {"type": "layers", "diff_ids": [], "Diff_IDs": []}}',
        '{"rootfs": {"type": "layers", "diff_ids": []}, "RootFS": {}}',
        '{"LAYERS": []}',
        '{"layer\u017f": []}',
        '{"config": {"Cmd": [], "cmd": []}}',
        '{"manifests": [{"digest": "a", "Digest": "b"}]}',
        '{"history": [{"created_by": "a", "Created_by": "b"}]}',
    ],
)
def test_json_that_two_readers_read_differently(text: str) -> None:
    """Go's reader compares keys without regard to case, and Python's takes constants that are no JSON."""
    with pytest.raises(BadConfig, match="every reader"):
        oci_object(text.encode(), what="it")


def test_the_image_s_own_texts_may_differ_in_case() -> None:
    document = {"config": {"Labels": {"maintainer": "a", "Maintainer": "b"}, "Volumes": {"/a": {}, "/A": {}}}}
    assert oci_object(json.dumps(document).encode(), what="it") == document


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"1",
        b"{'a': 1}",
        b'{"a": 1} x',
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',  # a surrogate in UTF-8
        b"\xef\xbb\xbf{}",  # a byte order mark
        '{"a": 1}'.encode("utf-16"),
        b'{"a": 1, "a": 1}',
        b'{"rootfs": {"type": "layers", "type": "layers", "diff_ids": []}}',
    ],
)
def test_bytes_that_are_no_json_object(raw: bytes) -> None:
    with pytest.raises(BadConfig):
        Config.parse(raw)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("size", [100_000, image.MAX_JSON_SIZE])
def test_depth_is_refused_and_not_fatal(opening: bytes, size: int) -> None:
    with pytest.raises(BadConfig):
        Config.parse(opening * (size // len(opening)))


def test_the_largest_config_is_4_mib() -> None:
    largest = config().ljust(image.MAX_JSON_SIZE)
    assert Config.parse(largest).digest == Digest.of(largest)
    with pytest.raises(BadConfig, match=str(image.MAX_JSON_SIZE + 1)):
        Config.parse(largest + b" ")


def test_a_huge_number_is_read_or_refused() -> None:
    Config.parse(config()[:-1] + b', "n": ' + b"9" * 4000 + b"}")
    with pytest.raises(BadConfig):
        Config.parse(config()[:-1] + b', "n": ' + b"9" * 1_000_000 + b"}")


def test_a_message_says_which_document() -> None:
    with pytest.raises(BadConfig, match="the index is not JSON"):
        json_object(b"x", what="the index")


_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.just(ONE)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.text(), st.sampled_from(["type", "diff_ids"])), inner, max_size=4),
    ),
    max_leaves=8,
)
_KEYS = st.sampled_from(["rootfs", "os", "architecture", "variant", "created", "mediaType", "data"])


_rootfs = st.fixed_dictionaries({"type": st.just("layers"), "diff_ids": st.one_of(_json, st.lists(_json, max_size=3))})


@given(st.one_of(_json, st.dictionaries(_KEYS, _json), st.fixed_dictionaries({"rootfs": _rootfs, "os": _json})))
def test_any_json_is_a_config_or_content_that_is_refused(document: object) -> None:
    try:
        parsed = Config.parse(json.dumps(document).encode())
    except ContentError:
        return
    str(parsed.platform).encode()
    assert all(digest.algorithm == "sha256" for digest in parsed.diff_ids)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_config_or_content_that_is_refused(raw: bytes) -> None:
    with pytest.raises(ContentError):
        Config.parse(raw)


# -- times ------------------------------------------------------------------------------

UTC = datetime.timezone.utc


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-02T03:04:05Z", datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2024-01-02T03:04:05.123456789Z", datetime.datetime(2024, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)),
        ("2024-01-02T03:04:05+05:00", datetime.datetime(2024, 1, 1, 22, 4, 5, tzinfo=UTC)),
        ("2024-01-02T03:04:05", datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2024-01-02", datetime.datetime(2024, 1, 2, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime.datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_times_that_can_be_read(text: str, expected: datetime.datetime) -> None:
    assert parsed_time(text) == expected


@given(st.one_of(st.text(), st.text("0123456789-:TZ.+ ", max_size=30), st.integers(), st.floats(), st.none()))
@example("9999-12-31T24:00:00Z")
@example("\ud800")
@example("2024-01-02T03:04:05\0")
def test_any_value_is_an_aware_time_or_none(value: object) -> None:
    time = parsed_time(value)
    assert time is None or time.utcoffset() is not None


@given(st.datetimes(timezones=st.just(UTC)))
def test_every_time_reads_back(time: datetime.datetime) -> None:
    assert parsed_time(time.isoformat()) == time

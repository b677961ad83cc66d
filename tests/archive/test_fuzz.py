# SPDX-License-Identifier: Apache-2.0
"""Archives of strangers: whatever their bytes, reading them ends soon, in little memory, with the image or our error.

Tars and OCI graphs are generated, and good archives of every generation changed. 5,000 of them here, 200,000
with `--long`.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import resource
import sys
import time
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from arv_docker.archive.codecs.whole_archive import unwrapped_stream
from arv_docker.archive.reader import ArchiveReader
from arv_docker.archive.stream import StreamedImage
from arv_docker.errors import ArvDockerError
from arv_docker.model.image import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Digest

from ..archives import (
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
    pax,
    several,
)

#: Processor seconds after which reading counts as a hang, and bytes by which this process may grow over all cases (a
#: compressed layer may ask for a window of 128 MiB).
HANG, GROWTH = 5, 384 << 20

_BATCH = 500

APP = image(files_of(b"low" * 300), files_of(b"high"), files_of(b"low" * 300), os="linux", architecture="amd64")


def zipped(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("app.tar", content)
    return stream.getvalue()


COMPRESS: list[Callable[[bytes], bytes]] = [
    lambda content: gzip.compress(content, mtime=0),  # else equal layers would differ from one second to the next
    lzma.compress,
    bz2.compress,
    zstandard.ZstdCompressor().compress,
]
GOLDEN: list[bytes] = [
    classic(APP),
    hybrid(APP),
    flat(APP),
    containerd(APP),
    containerd(APP, compress=COMPRESS[3]),
    layout(APP),
    canonical_archive(APP),
    several((APP, ["app:1"]), (image(files_of(b"other")), ["other:1"])),
    zipped(classic(APP)),
    *(compress(containerd(APP)) for compress in COMPRESS),
]


# -- what is held ----------------------------------------------------------------------


def read(content: bytes) -> None:
    """Reads every image of an archive as a file is read; any error but ours is raised."""
    try:
        images = [opened() for _, opened in ArchiveReader(Bytes(content)).every()]
    except ArvDockerError:
        return
    for found in images:
        try:
            layers = {layer.diff_id: layer.position for layer in found.layers() if drained(layer)}
        except ArvDockerError:
            continue
        assert set(layers) == set(found.config.diff_ids)
        assert layers == found.sizes
        assert Digest.of(found.config.raw) == found.config.digest


def read_once(content: bytes) -> None:
    """And as a pipe is."""
    try:
        streamed = StreamedImage(unwrapped_stream(io.BytesIO(content)))
        layers = {layer.diff_id for layer in streamed.layers() if drained(layer)}
    except ArvDockerError:
        return
    assert layers.issuperset(streamed.config.diff_ids)


def drained(layer: Any) -> bool:
    while layer.read(100_000):
        pass
    return True


def hold(content: bytes) -> None:
    """The statement. A case that is slow is read once more: the machine may have been busy, but not twice."""
    for _ in range(2):
        began = time.process_time()
        read(content)
        read_once(content)
        if time.process_time() - began < HANG:
            return
    raise AssertionError(f"reading {len(content)} bytes took over {HANG} s, twice")


@pytest.fixture
def bounded() -> Any:
    """Memory stays what it is, over all cases of a test."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < GROWTH


def amounts(share: float) -> pytest.MarkDecorator:
    """That share of 5,000 cases, and with `--long` of 200,000."""
    few, many = int(5_000 * share), int(200_000 * share)
    return pytest.mark.parametrize("amount", [few, pytest.param(many, marks=pytest.mark.long)])


def generated(strategy: st.SearchStrategy[bytes], amount: int) -> None:
    """Holds so many archives of a strategy: the same ones every time, and in batches, for hypothesis remembers each."""
    for batch in range(0, amount, _BATCH):

        @seed(batch)
        @settings(max_examples=_BATCH, database=None, suppress_health_check=list(HealthCheck))
        @given(strategy)
        def check(content: bytes) -> None:
            hold(content)

        check()


# -- good archives, changed ------------------------------------------------------------


def changed(content: bytes, chance: random.Random) -> bytes:
    """A few changes, of the kinds that disks, networks and attackers make."""
    found = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        place, other = chance.randrange(len(found)), chance.randrange(len(found))
        length = chance.choice((1, 1, 1, 2, 8, 64, 512, 1024))
        match chance.randrange(8):
            case 0 | 1:
                found[place] = chance.randrange(256)
            case 2:
                found[place] ^= 1 << chance.randrange(8)
            case 3:
                del found[place : place + length]
            case 4:
                found[place:place] = found[other : other + length]
            case 5:
                found[place : place + length] = chance.randbytes(length)
            case 6:
                del found[place:]
            case _:
                block, source = place // 512 * 512, other // 512 * 512
                found[block : block + 512] = found[source : source + 512]
        if not found:
            break
    return bytes(found)


@amounts(0.7)
@pytest.mark.usefixtures("bounded")
def test_good_archives_changed(amount: int) -> None:
    """By a generator with a seed, not by hypothesis: the same every time, and fast."""
    for number in range(amount):
        chance = random.Random(number)
        hold(changed(chance.choice(GOLDEN), chance))


# -- tars ------------------------------------------------------------------------------


names = st.sampled_from(
    [
        *("manifest.json", "index.json", "oci-layout", "repositories", "config.json", "a/layer.tar", "layer.tar"),
        *("./x", "../x", "/etc/passwd", "x/", "", ".", "a\0b"),
        *(f"blobs/sha256/{hex_of(APP.config)}", f"{hex_of(APP.config)}.json"),
    ]
).map(str.encode) | st.binary(max_size=20)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.text(max_size=8)
    | st.sampled_from(["config.json", "layer.tar", "a/layer.tar", f"sha256:{hex_of(APP.config)}", "app:1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Config", "Layers", "RepoTags", "rootfs", "diff_ids", "type"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
contents = (
    st.binary(max_size=40)
    | json_values.map(json.dumps).map(str.encode)
    | st.sampled_from([APP.config, APP.layers[0], gzip.compress(b"x"), b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"{" * 50_000])
)
kinds = st.sampled_from([b"0", b"\0", b"1", b"2", b"5", b"7", b"L", b"K", b"S", b"g", b"V", b"x"])
sizes = st.none() | st.sampled_from(
    [b"77777777777\0", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"00000000001\0", b"-0000000001\0", b"\x80" + bytes(11)]
)
records = st.dictionaries(
    st.sampled_from(["path", "linkpath", "size", "GNU.sparse.map", "mtime"]),
    st.binary(max_size=12) | names | st.sampled_from([b"1", b"99999999999999999999", b"-1"]),
    max_size=2,
)


@st.composite
def tars(draw: st.DrawFn) -> bytes:
    """Members of every kind, right and wrong, in any order; now and then without an end."""
    content = b""
    for _ in range(draw(st.integers(0, 5))):
        if draw(st.integers(0, 5)) == 0:
            content += pax(draw(records))
        body, size = draw(contents), draw(sizes) if draw(st.integers(0, 7)) == 0 else None
        name, target = draw(names), draw(names)
        content += member(name[:100], body, kind=draw(kinds), target=target[:100], size=size)
    return content + bytes(draw(st.sampled_from([1024, 1024, 1024, 512, 0, 10_240])))


@amounts(0.2)
@pytest.mark.usefixtures("bounded")
def test_tars(amount: int) -> None:
    generated(tars(), amount)


# -- OCI graphs ------------------------------------------------------------------------


class Graph:
    """Documents that name each other by digest, drawn from the leaves up."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.blobs: dict[str, bytes] = {}
        self.known: list[dict[str, Any]] = []

    def descriptor(self, media_type: str, content: bytes) -> dict[str, Any]:
        """A descriptor of a blob, which is mostly right and mostly there."""
        digest = hex_of(content)
        if self.draw(st.integers(0, 15)):
            self.blobs[f"blobs/sha256/{digest}"] = content if self.draw(st.integers(0, 15)) else content[:-1] + b"?"
        found: dict[str, Any] = {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}
        odd = self.draw(st.integers(0, 20))
        if odd == 0:
            found[self.draw(st.sampled_from(["mediaType", "digest", "size", "platform", "annotations"]))] = self.draw(
                json_values
            )
        elif odd < 4:
            os_name = self.draw(st.sampled_from(["linux", "unknown"]))
            found["platform"] = {
                "os": os_name,
                "architecture": self.draw(st.sampled_from(["amd64", "arm64", "unknown"])),
            }
        elif odd < 6:
            found["annotations"] = {
                "org.opencontainers.image.ref.name": self.draw(st.sampled_from(["a", "b:1", "A B"]))
            }
        return found

    def manifest(self) -> bytes:
        layers = [files_of(b"%d" % self.draw(st.integers(0, 3))) for _ in range(self.draw(st.integers(0, 3)))]
        config = image(*layers, os="linux", n=self.draw(st.integers(0, 2))).config
        stored = [self.draw(st.sampled_from([bytes, *COMPRESS]))(layer) for layer in layers]
        if self.draw(st.integers(0, 9)) == 0:
            stored = stored[1:]
        document = {
            "schemaVersion": self.draw(st.sampled_from([2, 2, 2, 2, 1, None])),
            "config": self.descriptor(OCI_CONFIG, config),
            "layers": [self.descriptor(OCI_LAYER, layer) for layer in stored],
        }
        return json.dumps(document).encode()

    def index(self, depth: int) -> bytes:
        entries = []
        for _ in range(self.draw(st.integers(0, 3))):
            if self.known and self.draw(st.integers(0, 3)) == 0:
                entries.append(self.draw(st.sampled_from(self.known)))
                continue
            nested = depth < 7 and self.draw(st.booleans())
            entries.append(
                self.descriptor(OCI_INDEX, self.index(depth + 1))
                if nested
                else self.descriptor(OCI_MANIFEST, self.manifest())
            )
        self.known += entries
        return json.dumps({"schemaVersion": 2, "manifests": entries}).encode()

    def archive(self) -> bytes:
        files = {"index.json": self.index(0), "oci-layout": b"{}"}
        if self.draw(st.integers(0, 2)) == 0 and self.blobs:
            paths = [self.draw(st.sampled_from(sorted(self.blobs))) for _ in range(self.draw(st.integers(1, 3)))]
            files["manifest.json"] = json.dumps([{"Config": paths[0], "Layers": paths[1:], "RepoTags": None}]).encode()
        members = list((files | self.blobs).items())
        order = self.draw(st.permutations(range(len(members)))) if len(members) < 12 else range(len(members))
        return b"".join(member(members[it][0].encode(), members[it][1]) for it in order) + bytes(1024)


@st.composite
def graphs(draw: st.DrawFn) -> bytes:
    return Graph(draw).archive()


@amounts(0.1)
@pytest.mark.usefixtures("bounded")
def test_graphs(amount: int) -> None:
    generated(graphs(), amount)


# -- that the cases are worth it -------------------------------------------------------


def outcome(content: bytes) -> str:
    try:
        images = [opened() for _, opened in ArchiveReader(Bytes(content)).every()]
        assert all(drained(layer) for found in images for layer in found.layers())
    except ArvDockerError as error:
        return type(error).__name__
    return "an image"


def test_the_cases_reach_both_images_and_many_refusals() -> None:
    """Else the tests above would hold for a reader that refuses everything."""
    found = {outcome(content) for content in GOLDEN}
    assert found == {"an image"}
    for number in range(400):
        chance = random.Random(number)
        found.add(outcome(changed(chance.choice(GOLDEN), chance)))

    @settings(max_examples=300, database=None, suppress_health_check=list(HealthCheck))
    @given(graphs() | tars())
    def collect(content: bytes) -> None:
        found.add(outcome(content))

    collect()
    assert {"an image", "BadArchive", "BadConfig", "DigestMismatch", "NotAnImage", "LayerCountMismatch"} <= found


def busy(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_a_hang_and_another_error_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "HANG", 0.2)
    monkeypatch.setattr("arv_docker.model.image.json.loads", lambda *_, **__: busy(HANG))
    with pytest.raises(AssertionError, match="took over"):
        hold(gzip.compress(classic(APP)))
    monkeypatch.setattr("arv_docker.model.image.json.loads", lambda *_, **__: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        hold(gzip.compress(classic(APP)))


def test_bombs_in_every_place() -> None:
    """Layers, documents and wraps that are small and hold a lot."""
    for compress in COMPRESS:
        bomb = compress(bytes(20 << 20))
        made = Image(image(b"x").config, (bomb,))
        for content in (bomb, compress(layout(made, compress=None)), layout(made, compress=None), classic(made)):
            hold(content)

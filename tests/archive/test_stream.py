# SPDX-License-Identifier: Apache-2.0
"""Reading an archive from a pipe: the same image as from a file, in one pass, and the same refusals."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arv_docker.archive import reader, stream
from arv_docker.archive.blob import Files
from arv_docker.archive.listing import ArchiveEntry
from arv_docker.archive.reader import ArchiveReader
from arv_docker.archive.stream import StreamedArchive, StreamedImage
from arv_docker.errors import ArvDockerError, BadArchive, ContentError, DigestMismatch, NoSuchImage, SeveralImages
from arv_docker.model.image import Config, Digest
from arv_docker.model.reference import parse_name

from ..archives import (
    Bytes,
    Image,
    canonical_archive,
    classic,
    containerd,
    files_of,
    flat,
    gzipped,
    hybrid,
    image,
    layout,
    several,
    tar,
)

FORMS: list[Callable[[Image], bytes]] = [classic, hybrid, containerd, flat, layout, canonical_archive]

APP = image(files_of(b"low" * 5000), files_of(b"high"), files_of(b"low" * 5000))


class Pipe:
    """Bytes that come once. It notes how much was asked for at once."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)
        self.most = 0

    def read(self, length: int) -> bytes:
        self.most = max(self.most, length)
        return self._file.read(length)

    def readinto(self, buffer: memoryview) -> int:
        self.most = max(self.most, len(buffer))
        return self._file.readinto(buffer)

    @property
    def rest(self) -> bytes:
        return self._file.read()


def layers_of(streamed: StreamedImage, length: int = 1000) -> dict[Digest, bytes]:
    """Every layer that is handed out, read to its end, by what it hashes to."""
    found = {}
    for layer in streamed.layers():
        content = b""
        while piece := layer.read(length):
            content += piece
        found[layer.diff_id] = content
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "made", [APP, image(), image(files_of()), image(b"{" + bytes(1023)), image(b"[]" + bytes(510))]
)
def test_every_form_gives_config_and_layers(form: Callable[[Image], bytes], made: Image) -> None:
    pipe = Pipe(form(made))
    streamed = StreamedImage(pipe, made.parsed.digest)
    found = layers_of(streamed)
    assert streamed.config == made.parsed
    assert {diff_id: found[diff_id] for diff_id in made.parsed.diff_ids} == dict(
        zip(made.parsed.diff_ids, made.layers, strict=True)
    )
    assert pipe.rest == b""  # a writer that is not read to the end would fail


def test_a_layer_that_looks_like_a_document_and_comes_last() -> None:
    """In an OCI layout a small blob that begins with a brace may be a layer: the config decides."""
    made = image(b"{" + bytes(1023), files_of(b"x"))
    assert set(made.parsed.diff_ids) <= set(layers_of(StreamedImage(Pipe(hybrid(made)))))


def test_the_config_is_not_there_before_the_end() -> None:
    streamed = StreamedImage(Pipe(classic(APP)))
    with pytest.raises(BadArchive, match="not read to its end"):
        _ = streamed.config


@pytest.mark.parametrize("form", [classic, hybrid, flat, canonical_archive])
def test_a_layer_with_other_bytes(form: Callable[[Image], bytes]) -> None:
    content = form(APP).replace(b"lowlow", b"lowLow", 1)
    with pytest.raises(DigestMismatch, match="holds other bytes"):
        layers_of(StreamedImage(Pipe(content)))


def test_another_image_than_expected() -> None:
    with pytest.raises(DigestMismatch, match="calls the image"):
        layers_of(StreamedImage(Pipe(classic(APP)), Digest.of(b"")))


def test_several_images() -> None:
    content = several((APP, ("a:1",)), (image(files_of(b"b")), ("b:1",)))
    with pytest.raises(SeveralImages) as caught:
        layers_of(StreamedImage(Pipe(content)))
    assert "a:1" in caught.value.detail


def test_one_of_several_images() -> None:
    other = image(files_of(b"b"), os="linux", architecture="s390x")
    content = several((APP, ("a:1",)), (other, ("b:1",)))
    streamed = StreamedImage(Pipe(content), name=parse_name("b:1"))
    layers_of(streamed)
    assert (streamed.config, streamed.tags) == (other.parsed, ("b:1",))
    with pytest.raises(NoSuchImage):
        layers_of(StreamedImage(Pipe(content), name=parse_name("c:1")))


def test_an_engine_may_call_it_by_its_manifest_or_index() -> None:
    content = containerd(APP)
    streamed = StreamedImage(Pipe(content))
    layers_of(streamed)
    assert len(streamed.digests) == 2
    for digest in (*streamed.digests, APP.parsed.digest):
        layers_of(StreamedImage(Pipe(content), digest))
    with pytest.raises(DigestMismatch, match="calls the image"):
        layers_of(StreamedImage(Pipe(content), Digest.of(b"another")))


def test_a_compressed_layer_with_other_bytes() -> None:
    """That of another image, compressed well; and other compressed bytes than those of its name."""
    other = image(files_of(b"other"))
    with pytest.raises(DigestMismatch, match="holds other bytes"):
        layers_of(StreamedImage(Pipe(containerd(Image(APP.config, (*APP.layers[:2], *other.layers))))))
    content, again = containerd(APP), gzip.compress(APP.layers[1], mtime=7)
    before = gzipped(APP.layers[1])
    assert len(again) == len(before)
    with pytest.raises(DigestMismatch, match="is stored as"):
        layers_of(StreamedImage(Pipe(content.replace(before, again))))


def test_many_small_layers_are_no_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_MAX_DOCUMENTS", 10_000)
    many = image(*(files_of(b"%d" % number * 1000) for number in range(20)))
    for form in (hybrid, containerd, classic):
        assert set(many.parsed.diff_ids) <= set(layers_of(StreamedImage(Pipe(form(many)))))


def test_more_documents_than_any_image_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_MAX_DOCUMENTS", 100)
    with pytest.raises(BadArchive, match="100 bytes of documents"):
        layers_of(StreamedImage(Pipe(classic(APP))))


def test_a_config_that_many_images_are_said_to_have_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes of `manifest.json` say it; the config may have millions."""
    read = []

    def config_of(files: Files, listed: ArchiveEntry) -> Config:
        read.append(listed)
        return reader.config_of(files, listed)

    monkeypatch.setattr(stream, "config_of", config_of)
    streamed = StreamedImage(Pipe(several(*[(APP, ("app:1",))] * 500)))
    layers_of(streamed)
    assert streamed.config == APP.parsed
    assert len(read) == 1


def test_no_more_bytes_of_configs_than_any_images_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many names one file has."""
    monkeypatch.setattr(stream, "_MAX_DOCUMENTS", 10_000)
    names = [f"{number:064x}.json" for number in range(50)]
    listing = [{"Config": name, "RepoTags": None, "Layers": ["layer.tar"]} for name in names]
    made = image(files_of(b"x"), padding="x" * 1000)
    links = dict.fromkeys(names, "config.json")
    files = {"config.json": made.config, "layer.tar": made.layers[0], "manifest.json": json.dumps(listing).encode()}
    archive = StreamedArchive(Pipe(tar({**files, **links})))
    for layer in archive.layers():
        while layer.read(1000):
            pass
    found = [str(it) for _, it in archive.every()]
    assert "hashes to" in found[0]
    assert "10000 bytes of configs" in found[-1]


@pytest.mark.parametrize("form", FORMS)
def test_cut_short_anywhere(form: Callable[[Image], bytes]) -> None:
    content = form(APP)
    end = len(content.rstrip(b"\0"))
    for cut in {*range(0, end, 509), end - 1}:
        streamed = StreamedImage(Pipe(content[:cut]))
        try:
            found = layers_of(streamed)
        except ContentError:
            continue
        assert APP.by_id.keys() <= set(found)  # all but the end mark, or a list of the same images, was there
        assert streamed.config == APP.parsed


@given(st.data())
def test_changed_bytes_give_our_errors_or_the_image(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(FORMS))(APP))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    streamed = StreamedImage(Pipe(bytes(content)))
    try:
        found = layers_of(streamed, random.Random(0).randint(1, 5000))
    except ArvDockerError:
        return
    assert set(streamed.config.diff_ids) <= set(found)
    opened = ArchiveReader(Bytes(bytes(content))).image()
    assert (streamed.config, streamed.tags, streamed.digests) == (opened.config, opened.tags, opened.digests)

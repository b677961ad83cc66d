# SPDX-License-Identifier: Apache-2.0
"""Out of Keep into an engine: all of an image, or what the engine lacks of it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from arv_docker.archive import canonical
from arv_docker.arvados.client import CollectionRecord
from arv_docker.errors import DigestMismatch, EngineError, KeepError
from arv_docker.images.load import LoadedImage, load
from arv_docker.local.progress import Advance, SilentProgress
from arv_docker.model import manifest_text
from arv_docker.model.reference import Reference

from ..archives import Image, canonical_archive, flat, image
from ..transports.fake_engine import FakeEngine

#: Layers that make a block each; one image of two of them, and the next version of it.
LAYERS = [b"layer %d" % number + bytes(16 << 20) + b"its end %d" % number for number in range(3)]
V1, V2 = image(LAYERS[0], LAYERS[1]), image(LAYERS[0], LAYERS[2])
NAME = Reference.parse("app:2")


class Blocks:
    """A cluster that has nothing but the blocks of one image."""

    def __init__(self, made: Image) -> None:
        self.asked: list[str] = []
        self.put(made, canonical_archive(made), canonical.layout(made.parsed, made.sizes).block_sizes())

    def put(self, made: Image, content: bytes, sizes: Sequence[int]) -> None:
        stream, names = io.BytesIO(content), []
        self.blocks = {}
        for block in map(stream.read, sizes):
            names.append(f"{hashlib.md5(block).hexdigest()}+{len(block)}")
            self.blocks[names[-1]] = block
        self.text = manifest_text.single_file(f"{made.parsed.digest}.tar", len(content), names)

    def get_block(self, locator: str) -> bytes:
        self.asked.append(locator)
        if locator not in self.blocks:
            raise KeepError("it is lost")
        return self.blocks[locator]

    def alter(self, layer: bytes) -> None:
        """As an MD5 twin would: other bytes under the same name."""
        for name, block in self.blocks.items():
            self.blocks[name] = block.replace(layer[-9:], b"otherwise")

    def lose(self, layer: bytes) -> None:
        self.blocks = {name: block for name, block in self.blocks.items() if layer[-9:] not in block}


class Told(SilentProgress):
    """What was said, and the size of each step beside what was dealt with in it."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.steps: list[list[int]] = []

    def say(self, message: str) -> None:
        self.said.append(message)

    @contextmanager
    def step(self, title: str, total: int | None) -> Iterator[Advance]:
        step = [total or 0, 0]
        self.steps.append(step)

        def advance(count: int) -> None:
            step[1] += count

        yield advance


def loaded(keep: Blocks, engine: FakeEngine, told: Told | None = None) -> LoadedImage:
    record = CollectionRecord.of({"uuid": "u", "manifest_text": keep.text})
    return load(keep, record, engine, NAME, told or Told())  # type: ignore[arg-type]


@pytest.fixture
def keep() -> Blocks:
    return Blocks(V2)


def span(number: int) -> int:
    return canonical.span_length(len(LAYERS[number]))


def test_into_an_empty_engine(keep: Blocks) -> None:
    engine, told = FakeEngine(), Told()
    result = loaded(keep, engine, told)
    size = len(canonical_archive(V2))
    assert b"".join(engine.fed) == canonical_archive(V2)
    assert (result.engine_id, result.name, result.already) == (V2.parsed.digest, "app:2", False)
    assert (result.bytes_read, result.bytes_spared) == (size - len(canonical.END), 0)  # the end says nothing
    assert told.steps == [[size, size]]


def test_of_the_next_version_only_what_is_new_is_read_and_fed(keep: Blocks) -> None:
    engine, told = FakeEngine(V1), Told()
    result = loaded(keep, engine, told)
    head = len(canonical.layout(V2.parsed, V2.sizes).head)
    assert result.bytes_read == head + span(2)
    assert result.bytes_spared == span(0)
    assert told.steps == [[head + span(2) + len(canonical.END)] * 2]
    assert len(b"".join(engine.fed)) == told.steps[0][1]
    assert engine.inspect(NAME).id == result.engine_id == V2.parsed.digest
    assert told.said == []


def test_of_an_image_with_another_config_no_layer_is_read() -> None:
    keep = Blocks(image(LAYERS[0], LAYERS[1], author="else"))
    result = loaded(keep, FakeEngine(V1))
    assert len(keep.asked) == 1
    assert result.bytes_spared == span(0) + span(1)


def test_an_engine_that_has_it_is_fed_nothing(keep: Blocks) -> None:
    engine = FakeEngine(V2)
    result = loaded(keep, engine)
    assert (result.already, result.bytes_spared, engine.calls) == (True, 0, ["tag"])


@pytest.mark.parametrize("how", [{"takes_short": False}, {"deaf": True}])
def test_an_engine_that_needs_all_layers_gets_them(
    keep: Blocks, how: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Be it that it refuses the short archive, or that it takes it and has no image then."""
    engine, told = FakeEngine(V1, **how), Told()
    feed = engine.load

    def hearing(archive: Iterator[bytes]) -> str:
        words = feed(archive)
        engine._deaf = False
        return words

    monkeypatch.setattr(engine, "load", hearing)
    result = loaded(keep, engine, told)
    assert result.engine_id in engine.images
    assert b"".join(engine.fed) == canonical_archive(V2)
    assert result.bytes_spared == 0
    assert [call for call in engine.calls if call == "load"] == ["load"] * 2
    assert "loading all of them" in told.said[0]
    assert [done == total for total, done in told.steps] == [True, True]


def test_an_engine_that_has_the_layers_compressed_gets_them_all(keep: Blocks) -> None:
    """It takes the image without them, and could not give it away again."""
    engine, told = FakeEngine(V1, containerd=True, compressed=True), Told()
    result = loaded(keep, engine, told)
    assert b"".join(engine.fed) == canonical_archive(V2)
    assert (result.bytes_spared, engine.partial) == (0, set())
    assert "loading all of them" in told.said[0]


def test_what_an_interrupted_run_left_without_its_layers_is_loaded_again(keep: Blocks) -> None:
    engine = FakeEngine(V1, containerd=True, compressed=True)
    first = loaded(keep, engine)
    engine.partial.add(first.engine_id)
    again = loaded(keep, engine)
    assert (again.already, again.engine_id, engine.partial) == (False, first.engine_id, set())
    assert loaded(keep, engine).already


def test_an_engine_that_takes_nothing() -> None:
    engine = FakeEngine(V1, deaf=True)
    with pytest.raises(EngineError, match="but has no image"):
        loaded(Blocks(V2), engine)


def test_an_altered_layer_is_not_loaded_and_not_tried_again(keep: Blocks) -> None:
    keep.alter(LAYERS[2])
    engine = FakeEngine(V1)
    with pytest.raises(DigestMismatch):
        loaded(keep, engine)
    assert list(engine.images) == [V1.parsed.digest]
    assert engine.calls.count("load") == 1


def test_a_lost_block_matters_where_it_is_needed(keep: Blocks) -> None:
    keep.lose(LAYERS[0])
    with pytest.raises(KeepError):
        loaded(keep, FakeEngine())
    assert loaded(keep, FakeEngine(V1)).engine_id == V2.parsed.digest


def test_an_image_in_another_layout_is_loaded_so_too() -> None:
    keep, content = Blocks(V2), flat(V2)
    keep.put(V2, content, [8 << 20] * 5)
    result = loaded(keep, engine := FakeEngine(V1))
    assert result.bytes_spared == span(0)
    assert LAYERS[0] not in b"".join(engine.fed)
    assert engine.inspect(NAME).id == V2.parsed.digest

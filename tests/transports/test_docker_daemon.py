# SPDX-License-Identifier: Apache-2.0
"""`docker-daemon:`: an image out of an engine while it is saved, and into one, verified."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from arv_docker.archive import canonical
from arv_docker.archive.archived_image import ArchivedImage
from arv_docker.archive.layer import Layer
from arv_docker.archive.reader import ArchiveReader
from arv_docker.errors import (
    BadArchive,
    DigestMismatch,
    DiskError,
    EngineError,
    EngineFull,
    NoEngine,
    NoSuchImage,
    UsageError,
)
from arv_docker.local.progress import Advance, SilentProgress
from arv_docker.model.image import Digest, Platform
from arv_docker.model.reference import ImageId, Reference
from arv_docker.store.cache import CacheFolder
from arv_docker.store.layer_index import LayerTable
from arv_docker.store.tarballs import cache_folder, prep_image_file
from arv_docker.transports import OpenedImage, names
from arv_docker.transports.docker_daemon import EngineDestination, EngineSource, NamedDestination, NamedSource

from ..archives import Bytes, Image, canonical_archive, files_of, image, layer_of
from .contract import Contract, Far, check
from .fake_engine import FakeEngine

#: The cache of the test's user.
CACHE = CacheFolder(cache_folder)

APP = image(files_of(b"low" * 10_000), files_of(b"high"), os="linux")
ID = APP.parsed.digest


def source(engine: FakeEngine, file: Path | None) -> EngineSource:
    return EngineSource(engine, engine.inspect(ImageId(ID.hex)), file)


def opened(content: bytes) -> ArchivedImage:
    return ArchiveReader(Bytes(content)).image()


def read_whole(found: OpenedImage) -> list[bytes]:
    return [layer.read(1 << 20) for layer in found.layers()]


@pytest.mark.conforms("S16")
def test_an_image_is_read_while_it_is_saved_and_the_tarball_is_kept(tmp_path: Path) -> None:
    engine, file = FakeEngine(APP), tmp_path / "app.tar"
    with source(engine, file).open() as found:
        assert sorted(read_whole(found)) == sorted(APP.layers)
        assert found.config == APP.parsed
    kept, missing = prep_image_file(file)
    assert kept is not None
    assert not missing
    with kept:
        assert opened(kept.read()).config == APP.parsed
    assert engine.calls == ["save"]


@pytest.mark.conforms("S16")
def test_without_a_cache_nothing_is_written() -> None:
    with source(FakeEngine(APP), None).open() as found:
        read_whole(found)
        assert list(cache_folder().iterdir()) == []
        assert found.config == APP.parsed
    assert list(cache_folder().iterdir()) == []


def test_an_engine_that_saves_another_image(tmp_path: Path) -> None:
    engine = FakeEngine(APP)
    engine.images[ID] = canonical_archive(image(files_of(b"other")))
    with pytest.raises(DigestMismatch, match=str(ID)), source(engine, tmp_path / "app.tar").open() as found:
        read_whole(found)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("containerd", [False, True])
def test_loading(containerd: bool) -> None:
    engine, told = FakeEngine(containerd=containerd), list[int]()
    loaded = EngineDestination(engine).write(opened(canonical_archive(APP)), told.append)
    assert b"".join(engine.fed) == canonical_archive(APP)
    assert sum(told) == len(canonical_archive(APP))
    assert loaded in engine.images
    assert (loaded == ID) is not containerd


def test_an_engine_that_took_it_and_does_not_have_it() -> None:
    with pytest.raises(EngineError, match="but has no image") as caught:
        EngineDestination(FakeEngine(deaf=True)).write(opened(canonical_archive(APP)), lambda _: None)
    assert caught.value.detail == "Loaded nothing"


@pytest.mark.parametrize("room", ["", "1.0 kB (1000 bytes) in /images"])
def test_an_engine_without_room_is_told_how_much_is_needed(room: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(archive: object) -> str:
        raise EngineFull("its disk is full", detail="no space left on device", room=room)

    engine = FakeEngine()
    monkeypatch.setattr(engine, "load", full)
    size = len(canonical_archive(APP))
    with pytest.raises(DiskError, match=rf"\({size} bytes\) are needed, {re.escape(room) or 'fewer'}") as caught:
        EngineDestination(engine).write_missing(opened(canonical_archive(APP)), lambda _: nullcontext(print), print)
    assert caught.value.detail == "no space left on device"


def test_a_changed_layer_never_reaches_the_engine_whole() -> None:
    content = bytearray(canonical_archive(APP))
    content[content.index(b"lowlowlow")] ^= 1
    engine = FakeEngine()
    with pytest.raises(DigestMismatch):
        EngineDestination(engine).write(opened(bytes(content)), lambda _: None)
    assert engine.images == {}
    assert len(b"".join(engine.fed)) < len(content) - len(APP.layers[0]) + 1
    assert Digest.of(b"".join(engine.fed)) != Digest.of(bytes(content))


# -- layers that the engine has ---------------------------------------------------------

LOW, MIDDLE, HIGH = (Digest.of(text) for text in (b"low", b"middle", b"high"))


@pytest.mark.parametrize(
    ("chains", "wanted", "present"),
    [
        ([], [LOW], set()),
        ([[]], [LOW], set()),
        ([[LOW]], [], set()),
        ([[LOW]], [LOW, HIGH], {LOW}),
        ([[LOW, MIDDLE, HIGH]], [LOW, MIDDLE], {LOW, MIDDLE}),
        ([[LOW], [LOW, MIDDLE]], [LOW, MIDDLE, HIGH], {LOW, MIDDLE}),
        ([[MIDDLE, HIGH]], [LOW, MIDDLE, HIGH], set()),  # the same layers on other ones are others to Docker
        ([[LOW, HIGH]], [LOW, MIDDLE, HIGH], {LOW}),
        ([[LOW, MIDDLE]], [LOW, MIDDLE, LOW], {MIDDLE}),  # the second one stands on others than the first
        ([[LOW, LOW]], [LOW, LOW, HIGH], {LOW}),
    ],
)
def test_a_layer_is_present_where_all_below_it_are(
    monkeypatch: pytest.MonkeyPatch, chains: list[list[Digest]], wanted: list[Digest], present: set[Digest]
) -> None:
    engine = FakeEngine()
    monkeypatch.setattr(engine, "chains", lambda: set(map(tuple, chains)))
    assert EngineDestination(engine).present(wanted) == present


def test_an_image_that_goes_while_it_is_asked_for_its_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> None:
        raise NoSuchImage("it was there a moment ago")

    engine = FakeEngine()
    monkeypatch.setattr(engine, "chains", gone)
    assert EngineDestination(engine).present([LOW]) == set()


def test_loading_without_a_layer_that_the_engine_has() -> None:
    low, _ = APP.parsed.diff_ids
    engine = FakeEngine(image(APP.layers[0]))
    destination = EngineDestination(engine)
    assert destination.present(APP.parsed.diff_ids) == {low}
    assert destination.write(opened(canonical_archive(APP)), lambda _: None, {low}) == ID
    fed = b"".join(engine.fed)
    assert low.hex.encode() in fed  # the manifest says that it belongs there
    assert APP.layers[0] not in fed
    assert APP.layers[1] in fed
    assert engine.images[ID]


# -- by name ----------------------------------------------------------------------------


class TestNamed(Contract):
    def places(self, tmp_path: Path) -> tuple[NamedDestination, NamedSource]:
        engine, name = FakeEngine(), Reference.parse("app:1")
        cache = self.choice(tmp_path).cache
        return NamedDestination(lambda: engine, name, SilentProgress(), cache), NamedSource(lambda: engine, name)


def test_what_is_there_is_named_and_not_loaded() -> None:
    engine = FakeEngine(APP)
    named = NamedDestination(lambda: engine, Reference.parse("other:2"), SilentProgress(), CACHE)
    assert named.write(opened(canonical_archive(APP)), lambda _: None) == ID
    assert engine.calls == ["tag"]
    assert engine.inspect(Reference.parse("other:2")).id == ID


def test_nothing_is_asked_of_an_engine_before_it_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = names.source("docker-daemon:app:1")
    with pytest.raises(NoEngine), found.open():
        pass
    target = names.destination("docker-daemon:app:1")
    with pytest.raises(NoEngine):
        target.write(opened(canonical_archive(APP)), lambda _: None)


@pytest.mark.parametrize(("text", "called"), [("app:1", "app:1"), (str(ID), None)])
def test_what_an_image_of_an_engine_is_called(text: str, called: str | None) -> None:
    found = names.source(f"docker-daemon:{text}")
    assert isinstance(found, NamedSource)
    assert found.catalog_name == (Reference.parse(called) if called else None)


def test_an_image_for_another_platform_is_none_of_that_name() -> None:
    name = Reference.parse("app:1")
    with NamedSource(lambda: FakeEngine(APP), name, Platform("linux", "amd64")).open():
        pass
    other = NamedSource(lambda: FakeEngine(APP), name, Platform("linux", "arm64"))
    with pytest.raises(NoSuchImage, match="app:1 for linux/amd64, and not for linux/arm64"), other.open():
        pass


@pytest.mark.parametrize("text", [str(ID), f"app@{ID}"])
def test_an_image_cannot_be_given_an_id(text: str) -> None:
    with pytest.raises(UsageError):
        names.destination(f"docker-daemon:{text}")


# -- from far away ----------------------------------------------------------------------

NEXT = image(APP.layers[0], files_of(b"higher"), os="linux")
LAST = image(APP.layers[0], files_of(b"highest"), os="linux")


def copied(engine: FakeEngine, made: Image, said: list[str] | None = None) -> list[Digest]:
    """The layers that are fetched of an image that is copied into the engine, and is there then."""

    class Told(SilentProgress):
        def say(self, message: str) -> None:
            if said is not None:
                said.append(message)

    far = Far(made)
    image_id = NamedDestination(lambda: engine, Reference.parse("app:1"), Told(), CACHE).write(far, lambda _: None)
    check(opened(engine.images[image_id]), made)
    assert engine.inspect(Reference.parse("app:1")).id == image_id
    return far.asked


@pytest.mark.parametrize("containerd", [False, True])
def test_of_the_next_version_only_the_layer_that_changed_is_fetched(containerd: bool) -> None:
    engine = FakeEngine(containerd=containerd)
    assert copied(engine, APP) == list(APP.parsed.diff_ids)
    assert copied(engine, NEXT) == [NEXT.parsed.diff_ids[1]]
    assert APP.layers[0] not in b"".join(engine.fed)
    manifest_digest = canonical.layout(NEXT.parsed, NEXT.sizes).manifest_digest
    assert (manifest_digest if containerd else NEXT.parsed.digest) in engine.images


def test_an_image_that_the_engine_has_is_not_fetched() -> None:
    engine = FakeEngine(APP)
    assert copied(engine, APP) == []
    assert engine.calls == ["tag"]


def test_a_layer_whose_size_nobody_knows_is_fetched_once_and_not_fed() -> None:
    """The engine got the first version without us."""
    engine = FakeEngine(APP)
    assert copied(engine, NEXT) == list(NEXT.parsed.diff_ids)
    assert APP.layers[0] not in b"".join(engine.fed)
    assert copied(engine, LAST) == [LAST.parsed.diff_ids[1]]


def test_what_was_loaded_from_elsewhere_is_not_fetched_of_the_next() -> None:
    engine = FakeEngine()
    EngineDestination(engine, CACHE.layer_table()).write(opened(canonical_archive(APP)), lambda _: None)
    assert copied(engine, NEXT) == [NEXT.parsed.diff_ids[1]]


@pytest.mark.parametrize(
    "behaviour", [{"takes_short": False}, {"containerd": True, "compressed": True}], ids=["refuses", "has it in part"]
)
def test_an_engine_that_does_not_do_with_what_it_has_gets_all(behaviour: dict[str, bool]) -> None:
    """What was left out is fetched then, and nothing twice."""
    engine, said = FakeEngine(**behaviour), list[str]()
    copied(engine, APP)
    assert copied(engine, NEXT, said) == [NEXT.parsed.diff_ids[1], NEXT.parsed.diff_ids[0]]
    assert b"".join(engine.fed) == canonical_archive(NEXT)
    assert engine.calls.count("load") == 3
    assert "loading all of them" in said[0]


def test_a_size_that_was_noted_wrong_costs_time_alone() -> None:
    low, high = APP.parsed.diff_ids
    engine = FakeEngine()
    for diff_id in (low, high):
        LayerTable(cache_folder()).note(diff_id, 512)
    assert set(copied(engine, APP)) == {low, high}
    LayerTable(cache_folder()).note(low, 512)
    copied(engine, NEXT)


def test_how_much_is_fetched_is_told() -> None:
    steps: dict[str, int] = {}

    class Told(SilentProgress):
        @contextmanager
        def step(self, title: str, total: int | None) -> Iterator[Advance]:
            def advance(count: int) -> None:
                steps[title] = steps.get(title, 0) + count

            yield advance

    engine = FakeEngine()
    for made in (APP, NEXT):
        steps.clear()
        NamedDestination(lambda: engine, Reference.parse("app:1"), Told(), CACHE).write(Far(made), lambda _: None)
    assert steps == {"reading layers": len(NEXT.layers[1])}


def test_a_source_that_lies_loads_nothing() -> None:
    class Liar(Far):
        def layers(self, skip: Container[Digest] = ()) -> Iterator[Layer]:
            for diff_id in self.config.diff_ids:
                if diff_id not in skip:
                    yield layer_of(b"else".ljust(512), claimed=diff_id)

    engine = FakeEngine(image(APP.layers[0]))
    with pytest.raises(DigestMismatch):
        NamedDestination(lambda: engine, Reference.parse("app:1"), SilentProgress(), CACHE).write(
            Liar(APP), lambda _: None
        )
    assert "load" not in engine.calls


def test_a_source_that_does_not_give_what_it_left_out() -> None:
    class Once(Far):
        def layers(self, skip: Container[Digest] = ()) -> Iterator[Layer]:
            if not self.asked:
                yield from super().layers(skip)

    engine = FakeEngine(image(APP.layers[0]), takes_short=False)
    LayerTable(cache_folder()).note(APP.parsed.diff_ids[0], APP.sizes[APP.parsed.diff_ids[0]])
    with pytest.raises(BadArchive, match="is missing"):
        NamedDestination(lambda: engine, Reference.parse("app:1"), SilentProgress(), CACHE).write(
            Once(APP), lambda _: None
        )
    assert ID not in engine.images

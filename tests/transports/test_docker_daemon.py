# SPDX-License-Identifier: Apache-2.0
"""`docker-daemon:`: an image out of an engine while it is saved, and into one, verified."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path

import pytest

from arv_docker.archive.archived import ArchivedImage
from arv_docker.archive.docker import DockerArchive
from arv_docker.cache import cache_folder, prep_image_file
from arv_docker.errors import (
    DigestMismatch,
    DiskError,
    EngineError,
    EngineFull,
    NoEngine,
    NoSuchImage,
    UsageError,
)
from arv_docker.image import Digest
from arv_docker.progress import Silent
from arv_docker.reference import ImageId, Reference
from arv_docker.transports import OpenedImage, names
from arv_docker.transports.docker_daemon import EngineDestination, EngineSource, NamedDestination, NamedSource
from tests.archives import Bytes, canonical_archive, files_of, image
from tests.transports.contract import Contract
from tests.transports.fake_engine import FakeEngine

APP = image(files_of(b"low" * 10_000), files_of(b"high"), os="linux")
ID = APP.parsed.digest


def source(engine: FakeEngine, file: Path | None) -> EngineSource:
    return EngineSource(engine, engine.inspect(ImageId(ID.hex)), file)


def opened(content: bytes) -> ArchivedImage:
    return DockerArchive(Bytes(content)).image()


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
        return NamedDestination(lambda: engine, name, Silent()), NamedSource(lambda: engine, name)


def test_what_is_there_is_named_and_not_loaded() -> None:
    engine = FakeEngine(APP)
    named = NamedDestination(lambda: engine, Reference.parse("other:2"), Silent())
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
    assert found.called == (Reference.parse(called) if called else None)


@pytest.mark.parametrize("text", [str(ID), f"app@{ID}"])
def test_an_image_cannot_be_given_an_id(text: str) -> None:
    with pytest.raises(UsageError):
        names.destination(f"docker-daemon:{text}")

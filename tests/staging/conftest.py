# SPDX-License-Identifier: Apache-2.0
"""Images in memory, where they come from, and what was asked on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from arv_docker.api import materialize
from arv_docker.engines import EngineImage
from arv_docker.errors import EngineError, NoSuchImage
from arv_docker.ingest.service import Ingest, Options
from arv_docker.local.progress import SilentProgress
from arv_docker.local.settings import settings
from arv_docker.model.image import Digest
from arv_docker.model.reference import ImageId, Reference
from arv_docker.registry.access import Access
from arv_docker.staging import Container
from arv_docker.staging.origins import FromEngine, FromKeep, FromRegistry, Origin
from arv_docker.store.cache import CacheFolder
from arv_docker.store.tarballs import cache_folder
from arv_docker.transports.names import Choice

from ..archives import Image, classic, files_of, image
from ..arvados.fake_api import FakeApi, cluster
from ..registry.conftest import registry
from ..registry.scripted import Registry
from ..transports.fake_engine import FakeEngine

__all__ = ["registry"]

APP = image(files_of(b"app" * 3000), files_of(b"more"), os="linux", architecture="arm64", variant="v8")
OTHER = image(files_of(b"other"), os="linux", architecture="amd64")


class Recorder(FakeEngine):
    """An engine that also notes what it is asked about, and fetches what a registry has (`remote`, by name)."""

    def __init__(self, *images: Image, **options: Any) -> None:
        super().__init__(*images, **options)
        self.remote: dict[str, Image] = {}
        self.digests: dict[Digest, list[str]] = {}

    def inspect(self, name: Reference | ImageId) -> EngineImage:
        self.calls.append("inspect")
        if isinstance(name, Reference) and name.digest is not None:
            found = [it for it, digests in self.digests.items() if name.canonical in digests]
            if not found:
                raise NoSuchImage(f"no image {name}")
            name = ImageId(found[0].hex)
        image = super().inspect(name)
        return replace(image, digests=tuple(self.digests.get(image.id, ())))

    def pull(self, name: Reference, on_line: Callable[[str], None] | None = None) -> None:
        self.calls.append(f"pull {name.familiar_name}")
        if name.canonical not in self.remote:
            raise EngineError("docker pull failed with status 1.", detail="manifest unknown")
        made = self.remote[name.canonical]
        self.images[made.parsed.digest] = classic(made)
        self.digests[made.parsed.digest] = [f"docker.io/library/app@{made.parsed.digest}"]
        for tags in self.tags.values():
            tags[:] = [it for it in tags if it != name.familiar_name]
        self.tags.setdefault(made.parsed.digest, []).extend([name.familiar_name] if name.tag else [])


class Said(SilentProgress):
    """What was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@dataclass
class Place:
    """A folder, and everything that images for it may come from."""

    folder: Path
    api: FakeApi
    engine: Recorder
    registry: Registry
    said: Said = field(default_factory=Said)

    def stage(self, *references: str | Container, into: str = "staged", **options: Any) -> tuple[Container, ...]:
        """`materialize`; from Keep, the engine and the registry unless `origins` says otherwise."""
        options.setdefault("origins", self.origins("keep", "engine", "registry"))
        return materialize(references, self.folder / into, progress=self.said, **options)

    def origins(self, *names: str, pull: bool = False) -> Sequence[Origin]:
        every: dict[str, Origin] = {
            "keep": FromKeep(lambda: cluster(self.api), settings(), self.said),
            "engine": FromEngine(lambda: self.engine, self.said, CacheFolder(cache_folder), pull=pull),
            "registry": FromRegistry(
                Choice(
                    insecure=True,
                    access=Access.of_user(),
                    progress=self.said,
                    settings=settings(),
                    cache=CacheFolder(cache_folder),
                )
            ),
        }
        return [every[name] for name in names]

    def store(self, made: Image, name: str) -> None:
        """Puts an image into Keep."""
        engine = FakeEngine(made)
        engine.tags[made.parsed.digest] = [Reference.parse(name).familiar_name]
        Ingest(cluster(self.api), Options(cache_folder()), SilentProgress()).from_engine(engine, Reference.parse(name))

    def files(self, into: str = "staged") -> list[str]:
        return sorted(it.name for it in (self.folder / into).iterdir())


@pytest.fixture
def place(tmp_path: Path, registry: Registry) -> Place:
    return Place(tmp_path, FakeApi(), Recorder(), registry)


@contextmanager
def slow_save(engine: FakeEngine, seconds: float) -> Iterator[None]:
    """Has each save take that long before its first byte."""
    save = engine.save

    @contextmanager
    def slowly(images: Iterable[str]) -> Iterator[Any]:
        with save(images) as stream:
            time.sleep(seconds)
            yield stream

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "save", slowly)
        yield

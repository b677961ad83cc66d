# SPDX-License-Identifier: Apache-2.0
"""Staging one of several images by one name: which is taken where, and that a folder never has two of them."""

from __future__ import annotations

import pytest

import arv_docker
from arv_docker.errors import NoSuchImage, OtherImage, UsageError
from arv_docker.integrations.wfexs import WfexsCache
from arv_docker.maintenance import Cache
from arv_docker.model.image import OCI_INDEX, Digest, Platform
from arv_docker.store.content_store import entries_in
from arv_docker.store.tarballs import cache_folder

from ..archives import Image, files_of, image
from ..registry.scripted import index
from ..transports.fake_engine import FakeEngine
from .conftest import Place, Recorder, Said

AMD, ARM, OLD = (
    image(files_of(text.encode()), os="linux", architecture=text.partition("/")[0], variant=text.partition("/")[2])
    for text in ("amd64", "arm64/v8", "arm/v6")
)
ARM_ID, AMD_ID = ARM.parsed.digest, AMD.parsed.digest


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arv_docker.model.manifest.machine.machine", lambda: "x86_64")


@pytest.fixture
def stored(place: Place) -> Place:
    """Keep has the name for two platforms, and takes arm64 for it, which came last."""
    place.store(AMD, "app:1")
    place.store(ARM, "app:1")
    return place


def offered(place: Place) -> tuple[str, str]:
    """Puts an index of three platforms into the registry; gives its name and its digest."""
    listed = []
    for platform, made in (("linux/amd64", AMD), ("linux/arm64/v8", ARM), ("linux/arm/v6", OLD)):
        digest = place.registry.add(f"tools/app:{made.parsed.digest.short_hex}", made)
        listed.append((platform, digest, len(place.registry.manifests["tools/app", digest][1])))
    digest = place.registry.put_manifest("tools/app", "1", index(*listed), OCI_INDEX)
    return f"{place.registry.host}/tools/app:1", digest


# -- where it comes from -------------------------------------------------------------------


@pytest.mark.parametrize(("text", "made"), [("linux/amd64", AMD), ("linux/arm64", ARM), ("linux/arm64/v8", ARM)])
def test_of_several_in_keep_the_one_that_is_asked_for(stored: Place, text: str, made: Image) -> None:
    (found,) = stored.stage("app:1", platform=text, origins=stored.origins("keep"))
    assert (found.image_id, found.platform) == (made.parsed.digest, made.parsed.platform)
    assert stored.files() == ["app%3A1.tar", "app%3A1.tar_meta.json"]


def test_it_is_said_what_the_cluster_itself_would_take(stored: Place) -> None:
    plain = stored.stage("app:1", into="plain", origins=stored.origins("keep"))[0].image_id
    other = "linux/amd64" if plain == ARM_ID else "linux/arm64"
    stored.stage("app:1", platform=other, origins=stored.origins("keep"))
    assert "an image for another platform" in stored.said.text


@pytest.mark.parametrize("spelling", ["app:1", "docker://app:1", "docker.io/library/app:1"])
def test_for_a_platform_that_keep_has_not_it_lists_those_that_there_are(stored: Place, spelling: str) -> None:
    with pytest.raises(NoSuchImage, match="nowhere to be had") as raised:
        stored.stage(spelling, platform="linux/s390x", origins=stored.origins("keep"))
    assert "linux/amd64" in raised.value.detail
    assert "linux/arm64/v8" in raised.value.detail
    assert not (stored.folder / "staged").exists()


def test_what_keep_has_for_another_platform_comes_from_the_registry(place: Place) -> None:
    name, _ = offered(place)
    place.store(AMD, name)
    (found,) = place.stage(name, platform="linux/arm64")
    assert (found.image_id, found.origin) == (ARM_ID, "registry")


@pytest.mark.parametrize(("text", "made"), [(None, AMD), ("linux/arm64", ARM), ("linux/arm/v6", OLD)])
def test_of_an_index_in_a_registry(place: Place, text: str | None, made: Image) -> None:
    name, digest = offered(place)
    (found,) = place.stage(name, platform=text, origins=place.origins("registry"))
    assert found.image_id == made.parsed.digest
    assert Digest.parse(digest) in found.digests


def test_a_registry_with_one_image_for_a_variant(place: Place) -> None:
    place.registry.add("tools/app:1", ARM)
    name = f"{place.registry.host}/tools/app:1"
    (found,) = place.stage(name, platform="linux/arm64", origins=place.origins("registry"))
    assert found.image_id == ARM_ID
    with pytest.raises(NoSuchImage):
        place.stage(name, into="second", platform="linux/amd64", origins=place.origins("registry"))


def test_an_index_that_says_something_else_than_the_image(place: Place) -> None:
    digest = place.registry.add("tools/app:arm", ARM)
    size = len(place.registry.manifests["tools/app", digest][1])
    place.registry.put_manifest("tools/app", "1", index(("linux/amd64", digest, size)), OCI_INDEX)
    name = f"{place.registry.host}/tools/app:1"
    with pytest.raises(OtherImage, match="says of itself that it is for linux/arm64/v8"):
        place.stage(name, platform="linux/amd64", origins=place.origins("registry"))
    assert not (place.folder / "staged").exists()
    with pytest.raises(NoSuchImage):
        place.stage(name, platform="linux/amd64", offline=True)
    assert place.stage(name, origins=place.origins("registry"))[0].image_id == ARM_ID


def test_an_engine_has_one(place: Place) -> None:
    place.engine = Recorder(ARM)
    (found,) = place.stage("app:1", platform="linux/arm64", origins=place.origins("engine"))
    assert found.image_id == ARM_ID
    with pytest.raises(NoSuchImage, match="nowhere to be had") as raised:
        place.stage("app:1", into="second", platform="linux/amd64", origins=place.origins("engine"))
    assert "docker has app:1 for linux/arm64/v8, and not for linux/amd64" in raised.value.detail
    assert place.engine.calls.count("save") == 1


@pytest.mark.parametrize("force", [False, True])
def test_an_engine_fetches_nothing_for_another_platform_than_its_own(place: Place, force: bool) -> None:
    place.engine.remote["docker.io/library/app:1"] = AMD
    with pytest.raises(NoSuchImage):
        place.stage("app:1", platform="linux/arm64", force=force, origins=place.origins("engine", pull=True))
    assert set(place.engine.calls) == {"inspect"}
    assert "docker fetches images for linux/amd64" in place.said.text
    (found,) = place.stage("app:1", platform="linux/amd64", force=force, origins=place.origins("engine", pull=True))
    assert found.image_id == AMD_ID


def test_an_image_id_that_is_for_another_platform(stored: Place) -> None:
    with pytest.raises(NoSuchImage):
        stored.stage(str(ARM_ID), platform="linux/amd64", origins=stored.origins("keep"))
    assert stored.stage(str(ARM_ID), platform="linux/arm64", origins=stored.origins("keep"))[0].image_id == ARM_ID


@pytest.mark.parametrize("text", ["arm64", "linux/", "linux/arm64/v8/x", ""])
def test_what_is_no_platform(place: Place, text: str) -> None:
    with pytest.raises(UsageError, match="not a platform"):
        place.stage("app:1", platform=text)


def test_a_container_of_an_earlier_time_is_asked_for_as_it_was(place: Place) -> None:
    """The digest by which a registry has it may be that of several."""
    name, digest = offered(place)
    (known,) = place.stage(name, platform="linux/arm64", origins=place.origins("registry"))
    assert known.repo_digest is not None
    assert known.repo_digest.endswith(digest)
    Cache(cache_folder(), Said()).clear()
    (again,) = place.stage(known, into="second", origins=place.origins("registry"))
    assert again.image_id == ARM_ID


# -- one of a name in a folder -------------------------------------------------------------


def test_a_folder_has_one_image_of_a_name(stored: Place) -> None:
    stored.stage("app:1", platform="linux/arm64", origins=stored.origins("keep"))
    with pytest.raises(OtherImage, match=r"app%3A1\.tar is app:1 for linux/arm64/v8, not for linux/amd64"):
        stored.stage("app:1", platform="linux/amd64", origins=stored.origins("keep"))
    (kept,) = stored.stage("app:1", origins=stored.origins("keep"))
    assert (kept.image_id, kept.origin) == (ARM_ID, "staged")
    (other,) = stored.stage("app:1", platform="linux/amd64", force=True, origins=stored.origins("keep"))
    assert other.image_id == AMD_ID
    assert stored.files() == ["app%3A1.tar", "app%3A1.tar_meta.json"]


def test_so_has_a_cache_of_wfexs(stored: Place) -> None:
    folder = WfexsCache(stored.folder / "staged")
    stored.stage("app:1", platform="linux/arm64", folder=folder, origins=stored.origins("keep"))
    with pytest.raises(OtherImage, match="not for linux/amd64"):
        stored.stage("app:1", platform="linux/amd64", folder=folder, origins=stored.origins("keep"))
    (other,) = stored.stage("app:1", platform="linux/amd64", folder=folder, force=True, origins=stored.origins("keep"))
    assert other.image_id == AMD_ID


def test_of_images_that_are_given_the_one_for_the_platform(stored: Place) -> None:
    given = [
        stored.stage("app:1", into=text[-5:], platform=text, origins=stored.origins("keep"))[0]
        for text in ("linux/amd64", "linux/arm64")
    ]
    Cache(cache_folder(), Said()).clear()
    (found,) = stored.stage("app:1", platform="linux/amd64", injected=given, origins=())
    assert (found.image_id, found.origin) == (AMD_ID, "injected")
    with pytest.raises(OtherImage, match="not for linux/s390x"):
        stored.stage("app:1", into="second", platform="linux/s390x", injected=given, origins=())


def test_deploying_says_what_the_engine_may_not_run(stored: Place) -> None:
    stored.stage("app:1", platform="linux/arm64", origins=stored.origins("keep"))
    said = Said()
    (done,) = arv_docker.deploy(stored.folder / "staged", FakeEngine(), progress=said)
    assert done.loaded
    assert "warning: docker.io/library/app:1 is for linux/arm64/v8, and docker runs on linux/amd64" in said.lines
    stored.stage("app:1", into="second", platform="linux/amd64", origins=stored.origins("keep"))
    said = Said()
    arv_docker.deploy(stored.folder / "second", FakeEngine(), progress=said)
    assert "warning" not in said.text


# -- in the cache --------------------------------------------------------------------------


def test_the_cache_has_one_for_each_platform(stored: Place) -> None:
    for text in ("linux/amd64", "linux/arm64"):
        stored.stage("app:1", into=f"from {text[-5:]}", platform=text, origins=stored.origins("keep"))
    for text, made in (("linux/amd64", AMD), ("linux/arm64", ARM), ("linux/arm64/v8", ARM)):
        (found,) = stored.stage("app:1", into=f"second {text[-5:]}", platform=text, offline=True)
        assert (found.image_id, found.origin) == (made.parsed.digest, "cache")
    with pytest.raises(NoSuchImage, match="not in the cache") as raised:
        stored.stage("app:1", into="third", offline=True)
    assert "app:1 for linux/amd64 is there" in raised.value.detail
    assert "app:1 for linux/arm64/v8 is there" in raised.value.detail
    with pytest.raises(NoSuchImage, match="not in the cache"):
        stored.stage("app:1", into="third", platform="linux/s390x", offline=True)


def test_what_a_name_means_without_a_platform_stays_in_the_cache(place: Place) -> None:
    name, digest = offered(place)
    place.stage(name, into="first", origins=place.origins("registry"))
    place.stage(name, into="second", platform="linux/arm64", origins=place.origins("registry"))
    assert len(entries_in(cache_folder()).contents()) == 2
    assert place.stage(name, into="third", offline=True)[0].image_id == AMD_ID
    assert place.stage(name, into="fourth", platform="linux/amd64", offline=True)[0].image_id == AMD_ID
    by_digest = f"{place.registry.host}/tools/app@{digest}"
    for text, made in ((None, AMD), ("linux/arm64", ARM), ("linux/amd64", AMD)):
        (found,) = place.stage(
            by_digest, into=f"by digest, {made.parsed.platform.architecture}", platform=text, offline=True
        )
        assert found.image_id == made.parsed.digest


def test_an_index_that_an_engine_names_is_not_taken_for_another_image_of_it(place: Place) -> None:
    """Docker's containerd store calls an image by its index, which the cache knows for another platform."""
    name, digest = offered(place)
    place.stage(name, platform="linux/arm64", origins=place.origins("registry"))
    found = entries_in(cache_folder()).by_image(Digest.parse(digest), Platform("linux", "arm64"))
    assert found is not None
    assert found.metadata.image_id == ARM_ID
    assert entries_in(cache_folder()).by_image(Digest.parse(digest), Platform("linux", "amd64")) is None


def test_the_listing_says_the_platform(stored: Place) -> None:
    for text in (None, "linux/amd64", "linux/arm64"):
        stored.stage("app:1", into=f"for {(text or '')[-5:]}", platform=text, origins=stored.origins("keep"))
    found = {it.platform: it.names for it in Cache(cache_folder(), Said()).list()}
    assert found == {AMD.parsed.platform: ("app%3A1.tar",), ARM.parsed.platform: ("app%3A1.tar",)}
    assert Cache(cache_folder(), Said()).gc() == 0
    assert stored.stage("app:1", platform="linux/arm64", offline=True)[0].image_id == ARM_ID

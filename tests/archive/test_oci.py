# SPDX-License-Identifier: Apache-2.0
"""OCI layouts: which images they hold; and an archive that is one beside `manifest.json` must be one image by both."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
import time
from typing import Any

import pytest
import zstandard

from arv_docker.archive.archived_image import ArchivedImage
from arv_docker.archive.reader import ArchiveReader
from arv_docker.archive.stream import StreamedImage
from arv_docker.errors import (
    AmbiguousImage,
    BadConfig,
    ContentError,
    DigestMismatch,
    NoSuchImage,
    NotAnImage,
    OciArtifact,
    SeveralImages,
)
from arv_docker.model.image import MAX_JSON_SIZE, OCI_INDEX, OCI_MANIFEST, Config, Digest, Platform
from arv_docker.model.manifest import machine_platform
from arv_docker.model.reference import parse_name

from ..archives import (
    Bytes,
    Image,
    blobs_of,
    classic,
    containerd,
    descriptor,
    docker_manifest,
    files_of,
    hex_of,
    image,
    layout,
    layout_files,
    oci_index,
    oci_manifest,
    several,
    tar,
)

GOOD = image(files_of(b"good"), os="linux", architecture=machine_platform().architecture)
EVIL = image(files_of(b"evil"), os="linux", architecture=machine_platform().architecture)
OTHER = image(files_of(b"other"), os="linux", architecture="s390x")
NOWHERE = {"architecture": "unknown", "os": "unknown"}


def manifest_of(made: Image) -> bytes:
    return oci_manifest(made.config, made.layers)


def entry(made: Image | bytes, **keys: Any) -> dict[str, Any]:
    """What an index says of an image, or of an index."""
    if isinstance(made, bytes):
        return descriptor(made, OCI_INDEX, **keys)
    return descriptor(manifest_of(made), OCI_MANIFEST, **keys)


def platform_of(made: Image) -> dict[str, Any]:
    return {"platform": {"os": made.parsed.platform.os, "architecture": made.parsed.platform.architecture}}


def named(name: str) -> dict[str, Any]:
    return {"annotations": {"org.opencontainers.image.ref.name": name}}


def files(*index: dict[str, Any], blobs: tuple[bytes, ...] = ()) -> dict[str, bytes]:
    """A layout whose index lists these; all three images and ``blobs`` are there."""
    made = [blob for it in (GOOD, EVIL, OTHER) for blob in (it.config, *it.layers, manifest_of(it))]
    return {**blobs_of(*made, *blobs), "index.json": oci_index(*index)}


def opened(
    found: dict[str, bytes],
    name: str | None = None,
    platform: Platform | None = None,
    form: int = tarfile.USTAR_FORMAT,
) -> ArchivedImage:
    return ArchiveReader(Bytes(tar(found, form=form))).image(name, platform)


# -- which image ------------------------------------------------------------------------


@pytest.mark.parametrize("name", [None, "app:1", "docker.io/library/app:1", str(GOOD.parsed.digest)])
def test_the_only_image(name: str | None) -> None:
    assert opened(layout_files(GOOD, "app:1"), name).config == GOOD.parsed


def test_names_in_full_are_tags_and_others_are_not() -> None:
    both = {"org.opencontainers.image.ref.name": "1", "io.containerd.image.name": "docker.io/library/app:1"}
    assert opened(files(entry(GOOD, annotations=both))).tags == ("app:1",)
    assert opened(files(entry(GOOD, **named("localhost/app:1")))).tags == ("localhost/app:1",)
    for name in ("latest", "Release-1.0", "\ud800"):
        assert opened(files(entry(GOOD, **named(name)))).tags == ()


def test_one_of_several_by_whatever_it_is_called() -> None:
    found = files(entry(GOOD, **named("latest")), entry(EVIL, **named("Release_2")), entry(OTHER, **named("a/b:3")))
    assert opened(found, "latest").config == GOOD.parsed
    assert opened(found, "Release_2").config == EVIL.parsed
    assert opened(found, "docker.io/a/b:3").config == OTHER.parsed
    assert opened(found, str(OTHER.parsed.digest)).config == OTHER.parsed
    assert opened(found, f"sha256:{hex_of(manifest_of(EVIL))}").config == EVIL.parsed
    assert ArchiveReader(Bytes(tar(found))).image(parse_name("latest")).config == GOOD.parsed
    for name in ("none", "NO NAME", "sha256:0000"):
        with pytest.raises(NoSuchImage, match="one of these by its name or ID"):
            opened(found, name)


def test_no_image_at_all() -> None:
    with pytest.raises(NoSuchImage, match="holds no image 'app:1'"):
        opened({"index.json": oci_index()}, "app:1")


def test_several_images_are_named() -> None:
    with pytest.raises(SeveralImages) as caught:
        opened(files(entry(GOOD, **named("latest")), entry(OTHER, **platform_of(OTHER))))
    assert "2 images" in caught.value.message
    assert caught.value.detail.splitlines() == ["latest", f"blobs/sha256/{hex_of(OTHER.config)} (linux/s390x)"]


def test_one_image_by_several_names() -> None:
    found = files(entry(GOOD, **named("a:1")), entry(GOOD, **named("b:1")), entry(GOOD, **named("c")))
    assert opened(found).tags == ("a:1", "b:1")
    assert opened(found, "c").config == GOOD.parsed


def test_one_image_for_several_platforms() -> None:
    inner = oci_index(entry(OTHER, **platform_of(OTHER)), entry(GOOD, **platform_of(GOOD)))
    found = files(entry(inner, **named("app:1")), blobs=(inner,))
    assert opened(found).config == GOOD.parsed  # this machine's
    assert opened(found, "app:1", Platform("linux", "s390x")).config == OTHER.parsed
    with pytest.raises(NoSuchImage):
        opened(found, "any:name")
    assert opened(found).digests == (Digest.of(manifest_of(GOOD)), Digest.of(inner))
    with pytest.raises(NoSuchImage, match="no image for linux/ppc64le"):
        opened(found, None, Platform("linux", "ppc64le"))


@pytest.mark.parametrize("described", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_platforms_that_the_index_or_the_configs_alone_say(described: bool, nested: bool) -> None:
    """Listed in an index of their own, or flat in index.json, all by one name."""
    name = {} if nested else named("app:1")
    entries = [entry(it, **name, **(platform_of(it) if described else {})) for it in (OTHER, GOOD)]
    inner = oci_index(*entries)
    found = files(entry(inner, **named("app:1")), blobs=(inner,)) if nested else files(*entries)
    for asked in (None, "app:1"):
        assert opened(found, asked).config == GOOD.parsed  # this machine's
        assert opened(found, asked, Platform("linux", "s390x")).config == OTHER.parsed
    reader = ArchiveReader(Bytes(tar(found)))
    assert len(list(reader.every("app:1"))) == len(list(reader.platforms("app:1"))) == 2
    with pytest.raises(NoSuchImage, match="no image for linux/ppc64le"):
        opened(found, "app:1", Platform("linux", "ppc64le"))


@pytest.mark.parametrize("name", [None, "app:1"])
def test_a_platform_that_manifest_json_leaves_out_can_be_had_of_a_stream(name: str | None) -> None:
    """As Docker's containerd store saves an index whose platforms it has all; of a file too."""
    inner = oci_index(entry(OTHER, **platform_of(OTHER)), entry(GOOD, **platform_of(GOOD)))
    found = {**files(entry(inner, **named("app:1")), blobs=(inner,)), **docker_manifest(GOOD, GOOD.layers, ["app:1"])}

    def streamed(content: dict[str, bytes], platform: Platform | None) -> Config:
        stream = StreamedImage(io.BytesIO(tar(content)), name=name, platform=platform)
        for layer in stream.layers():
            while layer.read(1 << 20):
                pass
        return stream.config

    for platform, made in ((None, GOOD), (GOOD.parsed.platform, GOOD), (OTHER.parsed.platform, OTHER)):
        assert streamed(found, platform) == opened(found, name, platform).config == made.parsed
    alone = {**layout_files(GOOD, "app:1"), **docker_manifest(GOOD, GOOD.layers, ["app:1"])}
    for content in (found, alone, {"manifest.json": alone["manifest.json"], **blobs_of(GOOD.config, *GOOD.layers)}):
        with pytest.raises(NoSuchImage, match="no image for linux/ppc64le"):
            streamed(content, Platform("linux", "ppc64le"))


@pytest.mark.parametrize("config", [b"", b"{}", b'{"os":"unknown","architecture":"unknown","rootfs":{"diff_ids":[]}}'])
def test_images_by_one_name_whose_platforms_nobody_says(config: bytes) -> None:
    """Neither the index nor a config, or one that is damaged: then it must be said which is meant."""
    bad = Image(config, GOOD.layers)
    entries = (entry(it, **named("app:1")) for it in (GOOD, bad))
    found = files(*entries, blobs=(bad.config, manifest_of(bad)))
    with pytest.raises(SeveralImages):
        opened(found, "app:1")
    assert opened(found, str(GOOD.parsed.digest)).config == GOOD.parsed


def test_images_that_several_indexes_and_names_lead_to() -> None:
    """Each index is one image for the platforms that it lists, whatever else its images belong to."""
    both = oci_index(entry(OTHER, **platform_of(OTHER)), entry(GOOD, **platform_of(GOOD)))
    alone = oci_index(entry(OTHER, **platform_of(OTHER)), entry(EVIL))
    found = files(
        entry(GOOD, **named("one:1")),
        entry(both, **named("both:1")),
        entry(alone, **named("alone:1")),
        blobs=(both, alone),
    )
    assert opened(found, "one:1").config == GOOD.parsed
    assert opened(found, "both:1").config == GOOD.parsed
    assert opened(found, "both:1", Platform("linux", "s390x")).config == OTHER.parsed
    everyone = [open_it().config for _, open_it in ArchiveReader(Bytes(tar(found))).every("both:1")]
    assert sorted(everyone, key=str) == sorted([GOOD.parsed, OTHER.parsed], key=str)


def test_two_images_for_one_platform() -> None:
    inner = oci_index(entry(EVIL, **platform_of(GOOD)), entry(GOOD, **platform_of(GOOD)))
    with pytest.raises(AmbiguousImage):
        opened(files(entry(inner), blobs=(inner,)))


def test_an_image_for_another_platform_than_asked_for() -> None:
    for found in (layout_files(OTHER), {**layout_files(OTHER), **docker_manifest(OTHER, OTHER.layers, None)}):
        assert opened(found, None, Platform("linux", "s390x")).config == OTHER.parsed
        with pytest.raises(NoSuchImage, match="no image for linux/arm64"):
            opened(found, None, Platform("linux", "arm64"))


def test_attestations_are_no_images() -> None:
    assert opened(files(entry(GOOD), entry(EVIL, platform=NOWHERE))).config == GOOD.parsed
    note = {"vnd.docker.reference.type": "attestation-manifest"}
    assert opened(files(entry(GOOD), entry(EVIL, annotations=note))).config == GOOD.parsed


def test_artifacts_are_no_images() -> None:
    signature = json.dumps({"schemaVersion": 2, "config": descriptor(b"{}", "text/x"), "layers": []}).encode()
    listed = descriptor(signature, OCI_MANIFEST)
    assert opened(files(entry(GOOD), listed, blobs=(signature, b"{}"))).config == GOOD.parsed
    with pytest.raises(NotAnImage):
        opened(files(listed, blobs=(signature, b"{}")))
    empty = b'{"mediaType":"application/vnd.oci.empty.v1+json"}'
    artifact = json.dumps({"schemaVersion": 2, "config": descriptor(empty, "text/x"), "layers": []}).encode()
    with pytest.raises(OciArtifact):
        opened(files(descriptor(artifact, OCI_MANIFEST), blobs=(artifact, empty)))


@pytest.mark.parametrize("nested", [True, False])
def test_the_image_that_cosign_save_marks(nested: bool) -> None:
    """Beside it are its signatures, attestations and SBOMs, whose manifests are as those of images."""

    def marked(kind: str) -> dict[str, Any]:
        return {"annotations": {"kind": f"dev.cosignproject.cosign/{kind}"}}

    inner = oci_index(entry(OTHER, **platform_of(OTHER)), entry(GOOD, **platform_of(GOOD)))
    meant = entry(inner, **marked("imageIndex")) if nested else entry(GOOD, **marked("image"))
    for kinds in (("sigs",), ("atts", "sigs")):
        found = files(*(entry(EVIL, **marked(kind)) for kind in kinds), meant, blobs=(inner,))
        assert opened(found).config == GOOD.parsed
        reader = ArchiveReader(Bytes(tar(found)))
        assert EVIL.parsed not in [open_it().config for _, open_it in reader.every()]
    with pytest.raises(SeveralImages):  # marks of somebody else's mean nothing
        opened(files(entry(EVIL, annotations={"kind": "x/sigs"}), entry(GOOD, annotations={"kind": "x/image"})))


@pytest.mark.parametrize(
    "kind", ["layer.v1.tar+gzip+encrypted", "layer.v1.tar+zstd+encrypted", "layer.v1.tar+encrypted"]
)
def test_encrypted_layers_are_said_to_be_encrypted(kind: str) -> None:
    """Not damaged, whatever their bytes hash to."""
    manifest = oci_manifest(GOOD.config, [b"secret"], f"application/vnd.oci.image.{kind}")
    found = files(descriptor(manifest, OCI_MANIFEST), blobs=(manifest, b"secret"))
    with pytest.raises(NotAnImage, match=f"is encrypted .*{re.escape(kind)}.*skopeo copy --decryption-key"):
        opened(found)


@pytest.mark.parametrize("listed", [["app:1"], ["app:2"], None])
def test_names_that_one_of_two_lists_has(listed: list[str] | None) -> None:
    """Docker's containerd store writes two builds that differ in provenance alone so: one manifest, two indexes."""
    notes = [json.dumps({"build": number}).encode() for number in (1, 2)]
    inner = [
        oci_index(entry(GOOD, **platform_of(GOOD)), descriptor(it, OCI_MANIFEST, platform=NOWHERE)) for it in notes
    ]
    entries = [entry(it, **named(f"app:{number}")) for number, it in enumerate(inner, 1)]
    found = {**files(*entries, blobs=tuple(inner)), **docker_manifest(GOOD, GOOD.layers, listed)}
    for name in ("app:1", "app:2"):
        assert opened(found, name).config == GOOD.parsed
    assert set(opened(found).tags) == {"app:1", "app:2"}
    (once,) = (open_it() for _, open_it in ArchiveReader(Bytes(tar(found))).every())
    assert set(once.tags) == {"app:1", "app:2"}


def test_what_the_index_lists_and_is_not_there() -> None:
    absent = descriptor(b"absent", OCI_MANIFEST)
    inner = oci_index(entry(GOOD), absent)
    assert (
        opened(files(absent, descriptor(b"absent too", OCI_INDEX), entry(inner), blobs=(inner,))).config == GOOD.parsed
    )
    with pytest.raises(NotAnImage, match="no image that is there"):
        opened(files(absent))


def test_a_nested_index_has_a_depth_and_no_loop() -> None:
    deep = oci_index(entry(GOOD))
    nested = [deep]
    for _ in range(3):
        nested.append(oci_index(entry(nested[-1])))
    assert opened(files(entry(nested[2]), blobs=tuple(nested))).config == GOOD.parsed
    with pytest.raises(NotAnImage, match="too deep"):
        opened(files(entry(nested[3]), blobs=tuple(nested)))


def test_indexes_that_multiply_are_given_up() -> None:
    """Four indexes, each of a thousand of the next, are 4 MB and would be 10¹² images."""
    wide = oci_index(*[entry(GOOD)] * 500)
    nested = [wide]
    for number in range(3):
        nested.append(oci_index(*[entry(nested[-1], size=number + it) for it in range(500)]))
    with pytest.raises(ContentError):
        opened(files(*[entry(nested[-1]) for it in range(500)], blobs=tuple(nested)))


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"[]",
        b"{}",
        b'{"manifests":1}',
        b'{"manifests":[1]}',
        b'{"manifests":[{"digest":7,"annotations":{"a":1}}]}',
        b'{"manifests":[{"digest":"md5:' + b"0" * 32 + b'","size":1}]}',
        b'{"manifests":[{"platform":{"os":"unknown","architecture":"unknown"},"annotations":{},"digest":[]}]}',
        b'{"config":{},"layers":[]}',
        b'{"manifests":[],"layers":[]}',
        b" " * (MAX_JSON_SIZE + 1),
    ],
)
def test_an_index_of_nonsense(index: bytes) -> None:
    with pytest.raises(ContentError):
        opened({**layout_files(GOOD), "index.json": index})


@pytest.mark.parametrize("document", [b"{}", b"[]", b"x", b'{"config":{"digest":"sha256:0","size":0}}'])
def test_a_manifest_of_nonsense(document: bytes) -> None:
    with pytest.raises(ContentError):
        opened(files(descriptor(document, OCI_MANIFEST), blobs=(document,)))


def test_a_manifest_that_holds_other_bytes() -> None:
    found = files(entry(GOOD))
    found[f"blobs/sha256/{hex_of(manifest_of(GOOD))}"] = manifest_of(EVIL)
    with pytest.raises(DigestMismatch):
        opened(found)


def test_a_config_or_layer_that_is_not_there() -> None:
    for blob in (GOOD.config, GOOD.layers[0]):
        found = files(entry(GOOD))
        del found[f"blobs/sha256/{hex_of(blob)}"]
        with pytest.raises(ContentError, match="has no file"):
            opened(found)


def test_sha512() -> None:
    def by_sha512(blob: bytes, media_type: str) -> dict[str, Any]:
        return {"mediaType": media_type, "size": len(blob), "digest": f"sha512:{hashlib.sha512(blob).hexdigest()}"}

    stored = gzip.compress(GOOD.layers[0])
    manifest = json.dumps({"config": by_sha512(GOOD.config, ""), "layers": [by_sha512(stored, "")]}).encode()
    found = {f"blobs/sha512/{hashlib.sha512(it).hexdigest()}": it for it in (GOOD.config, stored, manifest)}
    found["index.json"] = oci_index(by_sha512(manifest, OCI_MANIFEST))
    (layer,) = opened(found, form=tarfile.PAX_FORMAT).layers()
    assert layer.read() == GOOD.layers[0]
    for name in list(found)[:2]:
        changed = {**found, name: found[name][:-1] + bytes([found[name][-1] ^ 1])}
        with pytest.raises(ContentError):
            opened(changed, form=tarfile.PAX_FORMAT).sizes  # noqa: B018


# -- compressed layers ------------------------------------------------------------------


ZSTD = zstandard.ZstdCompressor().compress


@pytest.mark.parametrize("compress", [gzip.compress, ZSTD])
def test_compressed_layers(compress: Any) -> None:
    made = image(files_of(b"low" * 10_000), b"", files_of(b"high"), files_of(b"low" * 10_000))
    for content in (layout(made, compress=compress), containerd(made, compress=compress)):
        found = ArchiveReader(Bytes(content)).image()
        assert not found.known_size
        assert [layer.size for layer in found.layers()] == [None] * 3
        assert {Digest.of(layer.read()) for layer in found.layers()} == set(made.by_id)
        assert found.sizes == made.sizes
        assert found.known_size == sum(made.sizes.values())
        assert sorted(layer.size or 0 for layer in found.layers()) == sorted(made.sizes.values())


def test_what_names_the_compressed_bytes_is_checked_too() -> None:
    """Two gzips of one layer, one in the place of the other: the layer is right, the archive is not."""
    found = layout_files(GOOD, compress=lambda content: gzip.compress(content, 9, mtime=1))
    name = f"blobs/sha256/{hex_of(gzip.compress(GOOD.layers[0], 9, mtime=1))}"
    assert opened(found).sizes == GOOD.sizes
    with pytest.raises(DigestMismatch, match="is stored as"):
        opened({**found, name: gzip.compress(GOOD.layers[0], 9, mtime=2)}).sizes  # noqa: B018


def test_a_compressed_layer_of_other_bytes() -> None:
    stored = gzip.compress(EVIL.layers[0])
    manifest = oci_manifest(GOOD.config, [stored])
    blobs = blobs_of(GOOD.config, stored, manifest)
    found = opened({**blobs, "index.json": oci_index(descriptor(manifest, OCI_MANIFEST))})
    with pytest.raises(DigestMismatch, match="holds other bytes"):
        found.sizes  # noqa: B018


def test_a_layer_that_is_named_by_its_compressed_bytes() -> None:
    """No engine loads it: a diff_id is the digest of the tar."""
    odd = image(gzip.compress(GOOD.layers[0]))
    (layer,) = opened(layout_files(odd)).layers()
    with pytest.raises(DigestMismatch, match="digest of its gzip stream"):
        layer.read()


def test_a_layer_whose_first_file_is_named_as_if_it_were_compressed() -> None:
    odd = image(tar({"BZh91AY": b"x"}))
    (layer,) = opened(layout_files(odd)).layers()
    assert layer.read() == odd.layers[0]


# -- two faces --------------------------------------------------------------------------


def faces(*index: dict[str, Any], blobs: tuple[bytes, ...] = ()) -> dict[str, bytes]:
    """GOOD by manifest.json, and by index.json whatever ``index`` lists."""
    return {**files(*index, blobs=blobs), **docker_manifest(GOOD, GOOD.layers, ["good:1"])}


INNER = oci_index(entry(EVIL))
PLATFORMS = oci_index(entry(OTHER, **platform_of(OTHER)), entry(GOOD, **platform_of(GOOD)))


@pytest.mark.parametrize(
    "found",
    [
        faces(entry(GOOD)),
        faces(entry(GOOD), entry(EVIL, platform=NOWHERE)),
        faces(entry(oci_index(entry(GOOD))), blobs=(oci_index(entry(GOOD)),)),
        faces(entry(PLATFORMS), blobs=(PLATFORMS,)),
        faces(),
        {**faces(), "index.json": b'{"schemaVersion":2,"manifests":null}'},
    ],
    ids=["one", "attestation", "nested", "platforms", "empty", "null of Docker 25.0.0"],
)
def test_the_same_image_by_both(found: dict[str, bytes]) -> None:
    image = opened(found)
    assert image.config == GOOD.parsed
    assert image.tags == ("good:1",)
    image.check_layout()


def test_a_manifest_without_layers_of_docker_25_0_0() -> None:
    nothing: list[list[object] | None] = [None, []]
    for layers in nothing:
        broken = json.dumps({"schemaVersion": 2, "config": descriptor(GOOD.config, ""), "layers": layers}).encode()
        assert opened(faces(descriptor(broken, OCI_MANIFEST), blobs=(broken,))).sizes == GOOD.sizes


@pytest.mark.parametrize(
    "found",
    [
        faces(entry(EVIL)),
        faces(entry(GOOD), entry(EVIL)),
        faces(entry(INNER), blobs=(INNER,)),
        faces(entry(EVIL, **platform_of(OTHER)), entry(GOOD, **platform_of(GOOD))),
        faces(entry(OTHER, **platform_of(OTHER))),
    ],
)
def test_another_image_by_the_layout(found: dict[str, bytes]) -> None:
    with pytest.raises(DigestMismatch, match=r"by its index\.json, and another one"):
        opened(found)


def test_layers_that_each_reader_finds_elsewhere() -> None:
    """By manifest.json a good file of its own; by the layout a blob that is called so and holds other bytes."""
    found = faces(entry(GOOD))
    found["good.tar"] = GOOD.layers[0]
    found[f"blobs/sha256/{hex_of(GOOD.layers[0])}"] = EVIL.layers[0]
    listed = {"Config": f"blobs/sha256/{hex_of(GOOD.config)}", "Layers": ["good.tar"]}
    with pytest.raises(DigestMismatch, match="other layers"):
        opened({**found, "manifest.json": json.dumps([listed]).encode()})


def test_several_images_by_both() -> None:
    entries = [
        json.loads(docker_manifest(it, it.layers, [name])["manifest.json"])[0]
        for it, name in ((GOOD, "a:1"), (OTHER, "b:1"))
    ]
    found = {**files(entry(GOOD), entry(OTHER)), "manifest.json": json.dumps(entries).encode()}
    assert opened(found, "b:1").config == OTHER.parsed
    found["index.json"] = oci_index(entry(GOOD))  # of what was saved by digest Docker drops the entry
    assert opened(found, "b:1").config == OTHER.parsed


def test_a_repeated_layer_that_stands_at_two_places() -> None:
    """Docker of old may have written it twice, so it is read; for what is in Keep, every reader must see the same."""
    twice = image(files_of(b"good"), files_of(b"good"))
    found = {"1.tar": twice.layers[0], "2.tar": EVIL.layers[0], "c.json": twice.config}
    listed = {"Config": "c.json", "Layers": ["1.tar", "2.tar"]}
    image_of = opened({**found, "manifest.json": json.dumps([listed]).encode()})
    with pytest.raises(DigestMismatch, match="at two places"):
        image_of.check_layout()


def test_archives_without_a_layout() -> None:
    for content in (classic(GOOD), several((GOOD, ["a:1"]))):
        ArchiveReader(Bytes(content)).image().check_layout()


@pytest.mark.parametrize(
    "found",
    [
        faces(descriptor(b"not there", OCI_MANIFEST)),
        faces({"digest": "md5:x"}),
        faces({"digest": 7}),
        faces({}),
        faces(entry(EVIL, platform=NOWHERE)),
    ],
)
def test_layouts_that_lead_nowhere(found: dict[str, bytes]) -> None:
    with pytest.raises(ContentError):
        opened(found)


def test_very_many_names_take_no_time() -> None:
    good = entry(GOOD)
    index = {"schemaVersion": 2, "manifests": [{**good, **named(f"n{number}")} for number in range(20_000)]}
    content = json.dumps(index, separators=(",", ":")).replace(OCI_MANIFEST, "").encode()
    assert len(content) < MAX_JSON_SIZE
    started = time.process_time()
    with pytest.raises(NotAnImage, match="more than 1000 documents"):
        opened({**files(), "index.json": content})
    assert time.process_time() - started < 30


def test_the_index_first() -> None:
    """For `oci-archive:`, names are those of the layout."""
    content = Bytes(tar(faces(entry(GOOD, **named("latest")))))
    assert ArchiveReader(content, by_index=True).image("latest").tags == ("good:1",)
    assert ArchiveReader(content).image("latest").tags == ("good:1",)
    with pytest.raises(BadConfig):
        ArchiveReader(Bytes(tar({**faces(), "index.json": b"x"})), by_index=True)

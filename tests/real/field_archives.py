# SPDX-License-Identifier: Apache-2.0
"""Archives as people met them, whatever wrote them, made by hand: those of docs/archives.md#engines, a row each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from arv_docker.model.image import OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from arv_docker.model.manifest import machine_platform

from ..archives import (
    END,
    Image,
    blobs_of,
    descriptor,
    docker_manifest,
    gzipped,
    hex_of,
    image,
    member,
    oci_index,
    oci_manifest,
    tar,
)

HERE = machine_platform().architecture
FOREIGN = "arm64" if HERE == "amd64" else "amd64"

OCI_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
FULL_NAME, REF_NAME = "io.containerd.image.name", "org.opencontainers.image.ref.name"


@dataclass(frozen=True)
class Case:
    """An archive: the bytes, the config digests of the images in it, and the names that it gives them."""

    title: str
    content: bytes
    images: frozenset[str]
    names: tuple[str, ...] = ()
    #: Options of `arv-docker ingest`.
    options: tuple[str, ...] = ()
    #: What skopeo is told that it is.
    transport: str = field(default="docker-archive")


def made(*texts: str, architecture: str = HERE, **keys: Any) -> Image:
    """An image for this machine whose layers have a file each."""
    layers = (tar({f"file-{text}": text.encode() * 100}) for text in texts)
    return image(*layers, architecture=architecture, os="linux", **{"config": {}, **keys})


def ids(*images: Image) -> frozenset[str]:
    return frozenset(f"sha256:{hex_of(it.config)}" for it in images)


def listing(*entries: Mapping[str, Any]) -> bytes:
    """A `manifest.json`."""
    return json.dumps(entries).encode()


def entry(config: str, layers: Sequence[str] | None, *names: str) -> dict[str, Any]:
    return {"Config": config, "RepoTags": list(names), "Layers": layers}


def plain(*members: tuple[str, bytes]) -> bytes:
    """A tar of the members, which may repeat."""
    return b"".join(member(name.encode(), content) for name, content in members) + END


def layout(entries: Sequence[Mapping[str, Any]], *blobs: bytes) -> bytes:
    """An OCI layout in a tar."""
    return tar({"oci-layout": OCI_LAYOUT, "index.json": oci_index(*entries), **blobs_of(*blobs)})


def packed(image: Image) -> list[bytes]:
    return [gzipped(layer) for layer in image.layers]


def manifest_of(image: Image) -> bytes:
    return oci_manifest(image.config, packed(image), f"{OCI_LAYER}+gzip")


def named(name: str) -> dict[str, Any]:
    return {"annotations": {FULL_NAME: f"docker.io/library/{name}", REF_NAME: name.partition(":")[2]}}


def platform_of(image: Image) -> dict[str, Any]:
    config = json.loads(image.config)
    return {"platform": {key: config[key] for key in ("architecture", "os")}}


# -- taken -----------------------------------------------------------------------------------------

ONE, TWO = made("one"), made("one", "two")
THRICE = made("one", "two", "one")


def _folder(layer: bytes) -> tuple[str, bytes]:
    return f"{hex_of(layer)}/layer.tar", layer


def _repeated() -> bytes:
    layers = [_folder(layer) for layer in THRICE.layers]
    document = listing(entry("c.json", [name for name, _ in layers], "app:1"))
    return plain(*layers, ("c.json", THRICE.config), ("manifest.json", document))


def _differing() -> bytes:
    (first, one), (second, two), _ = (_folder(layer) for layer in THRICE.layers)
    document = listing(entry("c.json", [first, second, first], "app:1"))
    members = ((first, one), (second, two), (first, two), ("c.json", THRICE.config), ("manifest.json", document))
    return plain(*members)


def _two_images() -> bytes:
    one, two = (_folder(layer) for layer in TWO.layers)
    document = listing(entry("1.json", [one[0]], "app:1"), entry("2.json", [one[0], two[0]], "app:2"))
    members = (one, ("1.json", ONE.config), one, two, ("2.json", TWO.config), ("manifest.json", document))
    return plain(*members)


def _repeated_blobs() -> bytes:
    blobs = [(f"blobs/sha256/{hex_of(it)}", it) for it in (manifest_of(THRICE), THRICE.config, *packed(THRICE))]
    index = oci_index(descriptor(manifest_of(THRICE), OCI_MANIFEST))
    return plain(("oci-layout", OCI_LAYOUT), ("index.json", index), *blobs)


def _compressed(call: Callable[[bytes], str], config: str = "") -> bytes:
    """As go-containerregistry, jib and ko write, with compressed layers called as they like."""
    layers = {call(it): it for it in packed(TWO)}
    config = config or f"sha256:{hex_of(TWO.config)}"
    return tar({config: TWO.config, **layers, "manifest.json": listing(entry(config, list(layers), "app:1"))})


PLATFORMS = [made(it, architecture=it) for it in (HERE, FOREIGN)]


def _nested(platform: str) -> bytes:
    """An index for two platforms in the index, itself described as for one."""
    entries = [descriptor(manifest_of(it), OCI_MANIFEST, **platform_of(it)) for it in PLATFORMS]
    inner = oci_index(*entries)
    described = {"platform": {"architecture": platform, "os": platform}, **named("app:1")}
    blobs = [blob for it in PLATFORMS for blob in (*packed(it), it.config, manifest_of(it))]
    return layout([descriptor(inner, OCI_INDEX, **described)], inner, *blobs)


def _flat(*, described: bool) -> bytes:
    """A manifest for each platform in the index, all by one name."""
    entries = [
        descriptor(manifest_of(it), OCI_MANIFEST, **named("app:1"), **(platform_of(it) if described else {}))
        for it in PLATFORMS
    ]
    return layout(entries, *[blob for it in PLATFORMS for blob in (*packed(it), it.config, manifest_of(it))])


def _without_layers(rootfs: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """An archive of an image without layers, and its config."""
    config = json.dumps({"architecture": HERE, "os": "linux", "config": {"Labels": {"a": "b"}}, "rootfs": rootfs})
    files = {"c.json": config.encode(), "manifest.json": listing(entry("c.json", None, "app:1"))}
    return tar(files), config.encode()


def _simple(*names: str, call: Callable[[str], str] = str) -> list[tuple[str, bytes]]:
    """The members of a docker-archive, renamed."""
    layers = [(f"{hex_of(it)}.tar", it) for it in TWO.layers]
    document = listing(entry("c.json", [name for name, _ in layers], *(names or ("app:1",))))
    return [(call(name), it) for name, it in (*layers, ("c.json", TWO.config), ("manifest.json", document))]


def _linked(kind: str) -> bytes:
    """Layers that links lead to, one by another; or links that nothing needs, out of the archive and to nowhere."""
    members = dict(_simple())
    first, *_ = members
    if kind == "unused":
        return tar({**members, "old": "../../etc/passwd", "older": "nowhere"})
    return tar({"bytes": members.pop(first), "between": "bytes", first: "between", **members})


def _two_builds() -> bytes:
    """What Docker's containerd store saves of two builds that differ in provenance alone: one manifest, two indexes."""
    manifest = manifest_of(TWO)
    statements = [json.dumps({"build": number}).encode() for number in (1, 2)]
    note = {"vnd.docker.reference.type": "attestation-manifest"}
    unknown = {"platform": {"architecture": "unknown", "os": "unknown"}, "annotations": note}
    no_image = json.dumps({"architecture": "unknown", "os": "unknown", "rootfs": {"type": "layers", "diff_ids": []}})
    blobs, entries = [manifest, TWO.config, *packed(TWO), no_image.encode()], []
    for number, statement in enumerate(statements, 1):
        attestation = oci_manifest(no_image.encode(), [statement], "application/vnd.in-toto+json")
        first = descriptor(manifest, OCI_MANIFEST, **platform_of(TWO))
        inner = oci_index(first, descriptor(attestation, OCI_MANIFEST, **unknown))
        entries.append(descriptor(inner, OCI_INDEX, **named(f"app:{number}")))
        blobs += [statement, attestation, inner]
    files = {"oci-layout": OCI_LAYOUT, "index.json": oci_index(*entries), **blobs_of(*blobs)}
    return tar({**files, **docker_manifest(TWO, packed(TWO), ["app:1"])})


def lz4(content: bytes) -> bytes:
    """An LZ4 frame of blocks that are stored as they are."""
    blocks = (content[start : start + (4 << 20)] for start in range(0, len(content), 4 << 20))
    stored = b"".join((len(block) | 1 << 31).to_bytes(4, "little") + block for block in blocks)
    return bytes.fromhex("04224d18607073") + stored + bytes(4)


# -- refused ---------------------------------------------------------------------------------------


def _claimed(image: Image, diff_ids: Sequence[str], **more: Any) -> bytes:
    """The image's config with other diff_ids."""
    return json.dumps({**json.loads(image.config), "rootfs": {"type": "layers", "diff_ids": diff_ids}, **more}).encode()


ZIPPED = _claimed(ONE, [f"sha256:{hex_of(gzipped(ONE.layers[0]))}"])
NYDUS = b"a Nydus blob is no tar. " * 100


def _of_types(*layers: tuple[str, bytes, bytes]) -> tuple[bytes, bytes]:
    """An OCI archive of an image whose layers are, each, of a type, these bytes, and those when they are unpacked;
    and its config."""
    config = _claimed(ONE, [f"sha256:{hex_of(unpacked)}" for _, _, unpacked in layers])
    document = json.loads(oci_manifest(config, [stored for _, stored, _ in layers]))
    for item, (kind, _, _) in zip(document["layers"], layers, strict=True):
        item["mediaType"] = kind
    manifest = json.dumps(document).encode()
    blobs = (manifest, config, *(stored for _, stored, _ in layers))
    return layout([descriptor(manifest, OCI_MANIFEST, **named("app:1"))], *blobs), config


SIGNATURE = json.dumps({"critical": {"image": {"docker-manifest-digest": f"sha256:{hex_of(manifest_of(ONE))}"}}})


def _signature() -> tuple[bytes, bytes]:
    """The manifest of a signature as cosign makes it, with a config like an image's, and that config."""
    config = _claimed(ONE, [f"sha256:{hex_of(SIGNATURE.encode())}"])
    text = oci_manifest(config, [SIGNATURE.encode()], "application/vnd.dev.cosign.simplesigning.v1+json")
    return text, config


def _signed(*, marked: bool) -> bytes:
    """An image and its signature, as `cosign save` marks them (`kind`), or merely beside each other."""
    signature, config = _signature()
    kind = "dev.cosignproject.cosign/"
    marks = (
        ({"annotations": {"kind": f"{kind}image"}}, {"annotations": {"kind": f"{kind}sigs"}}) if marked else ({}, {})
    )
    entries = [descriptor(manifest_of(ONE), OCI_MANIFEST, **marks[0]), descriptor(signature, OCI_MANIFEST, **marks[1])]
    return layout(entries, manifest_of(ONE), ONE.config, *packed(ONE), signature, config, SIGNATURE.encode())


def _artifact() -> bytes:
    """What ORAS pushes: files that are no image."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/vnd.example.report",
        "config": descriptor(b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": [descriptor(b"a report", "text/plain")],
    }
    manifest = json.dumps(document).encode()
    return layout([descriptor(manifest, OCI_MANIFEST, **named("app:1"))], manifest, b"{}", b"a report")


FALSE_NAME = f"quay.example/tools/bwa@sha256:{'0' * 64}"


def _by_false_digest() -> bytes:
    """An OCI archive whose image is called by a digest that is none of it."""
    note = {"annotations": {REF_NAME: FALSE_NAME}}
    return layout([descriptor(manifest_of(ONE), OCI_MANIFEST, **note)], manifest_of(ONE), ONE.config, *packed(ONE))


def _with_constant() -> tuple[bytes, bytes]:
    """A config with a number that only Python reads."""
    config = ONE.config[:-1] + b', "x": NaN}'
    layer = f"{hex_of(ONE.layers[0])}.tar"
    return tar(
        {layer: ONE.layers[0], "c.json": config, "manifest.json": listing(entry("c.json", [layer], "app:1"))}
    ), config


# -- all of them -----------------------------------------------------------------------------------


def _id(config: bytes) -> frozenset[str]:
    return frozenset([f"sha256:{hex_of(config)}"])


def _cases() -> list[Case]:
    """Every case in the order of the page."""
    oci = "oci-archive"
    null, null_config = _without_layers({"type": "layers", "diff_ids": None})
    absent, absent_config = _without_layers({"type": "layers"})
    nydus, nydus_config = _of_types(
        ("application/vnd.oci.image.layer.nydus.blob.v1", NYDUS, NYDUS),
        (f"{OCI_LAYER}+gzip", gzipped(ONE.layers[0]), ONE.layers[0]),
    )
    secret = bytes(reversed(gzipped(ONE.layers[0])))
    encrypted, encrypted_config = _of_types((f"{OCI_LAYER}+gzip+encrypted", secret, ONE.layers[0]))
    zipped, zipped_config = _of_types((f"{OCI_LAYER}+gzip", gzipped(ONE.layers[0]), gzipped(ONE.layers[0])))
    signature, signature_config = _signature()
    constant, constant_config = _with_constant()
    return [
        Case("a layer twice in the archive, alike", _repeated(), ids(THRICE), ("app:1",)),
        Case("the layer of two images twice, alike", _two_images(), ids(ONE, TWO), ("app:1", "app:2"), ("--all",)),
        Case("a layer twice in an OCI archive", _repeated_blobs(), ids(THRICE), transport=oci),
        Case("two different layers by one name", _differing(), ids(THRICE), ("app:1",)),
        Case(
            "layers called `DIGEST.tar.gz`, the config `sha256:ID`",
            _compressed(lambda it: f"{hex_of(it)}.tar.gz"),
            ids(TWO),
            ("app:1",),
        ),
        Case(
            "compressed layers called `N.tar`",
            _compressed(lambda it: f"{packed(TWO).index(it)}.tar", "c.json"),
            ids(TWO),
            ("app:1",),
        ),
        Case("a nested index for `unknown/unknown`", _nested("unknown"), ids(*PLATFORMS), ("app:1",), transport=oci),
        Case("platforms flat in `index.json`", _flat(described=True), ids(*PLATFORMS), ("app:1",), transport=oci),
        Case("the same, said by the configs alone", _flat(described=False), ids(*PLATFORMS), ("app:1",), transport=oci),
        Case("no layers, `diff_ids` null", null, _id(null_config), ("app:1",)),
        Case("no layers, no `diff_ids`", absent, _id(absent_config), ("app:1",)),
        Case(
            "a config called `sha256:` and another digest",
            _compressed(lambda it: f"{hex_of(it)}.tar.gz", f"sha256:{'0' * 64}"),
            ids(TWO),
            ("app:1",),
        ),
        Case("a tar without its end mark", plain(*_simple())[: -len(END)], ids(TWO), ("app:1",)),
        Case("a tar cut in its last file", plain(*_simple())[: -len(END) - 512], ids(TWO), ("app:1",)),
        Case("a name in `index.json` alone", _two_builds(), ids(TWO), ("app:1", "app:2"), ("--all",)),
        Case("compressed with lz4", lz4(plain(*_simple())), ids(TWO), ("app:1",)),
        Case("absolute names of members", plain(*_simple(call=lambda it: f"/{it}")), ids(TWO), ("app:1",)),
        Case("a layer by a link to a link", _linked("used"), ids(TWO), ("app:1",)),
        Case("unused links out and to nowhere", _linked("unused"), ids(TWO), ("app:1",)),
        Case("diff_ids of compressed bytes, OCI", zipped, _id(zipped_config), ("app:1",), transport=oci),
        Case(
            "diff_ids of compressed bytes",
            tar(
                {
                    "l.tar": gzipped(ONE.layers[0]),
                    "c.json": ZIPPED,
                    "manifest.json": listing(entry("c.json", ["l.tar"], "app:1")),
                }
            ),
            _id(ZIPPED),
            ("app:1",),
        ),
        Case("a layer of a type that is no tar", nydus, _id(nydus_config), ("app:1",), transport=oci),
        Case("an encrypted layer", encrypted, _id(encrypted_config), ("app:1",), transport=oci),
        Case(
            "a signature alone",
            layout(
                [descriptor(signature, OCI_MANIFEST, **named("app:1"))], signature, signature_config, SIGNATURE.encode()
            ),
            _id(signature_config),
            ("app:1",),
            transport=oci,
        ),
        Case("an artifact of ORAS alone", _artifact(), _id(b"{}"), ("app:1",), transport=oci),
        Case("an image and its signature", _signed(marked=False), ids(ONE), transport=oci),
        Case("the same as `cosign save` marks it", _signed(marked=True), ids(ONE), transport=oci),
        Case("a config that is no JSON (`NaN`)", constant, _id(constant_config), ("app:1",)),
        Case("a name by a false digest", plain(*_simple(FALSE_NAME)), ids(TWO)),
        Case("a name by a false digest, OCI", _by_false_digest(), ids(ONE), transport=oci),
    ]


CASES = {case.title: case for case in _cases()}

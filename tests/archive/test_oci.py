# SPDX-License-Identifier: Apache-2.0
"""An archive that is a docker-archive and an OCI layout must be one image by both."""

from __future__ import annotations

import json
from typing import Any

import pytest

from arv_docker.archive.docker import DockerArchive
from arv_docker.errors import ContentError, DigestMismatch
from arv_docker.image import Digest
from tests.archives import Bytes, Image, classic, files_of, image, tar

GOOD = image(files_of(b"good"))
EVIL = image(files_of(b"evil"))


def manifest_of(made: Image) -> bytes:
    config = {"digest": str(made.parsed.digest), "size": len(made.config)}
    return json.dumps({"config": config, "layers": [{"digest": str(it)} for it in made.parsed.diff_ids]}).encode()


def archive(*index: dict[str, Any], blobs: tuple[bytes, ...] = ()) -> bytes:
    """GOOD by manifest.json, and by index.json whatever ``index`` lists."""
    made = [blob for it in (GOOD, EVIL) for blob in (it.config, *it.layers, manifest_of(it))] + list(blobs)
    files = {f"blobs/sha256/{Digest.of(blob).hex}": blob for blob in made}
    listed = {
        "Config": f"blobs/sha256/{GOOD.parsed.digest.hex}",
        "RepoTags": None,
        "Layers": [f"blobs/sha256/{it.hex}" for it in GOOD.parsed.diff_ids],
    }
    files["manifest.json"] = json.dumps([listed]).encode()
    files["index.json"] = json.dumps({"manifests": index}).encode()
    return tar(files)


def entry(content: bytes, **keys: Any) -> dict[str, Any]:
    return {"digest": str(Digest.of(content)), **keys}


def check(content: bytes) -> None:
    DockerArchive(Bytes(content)).image().check_layout()


def nested(inner: bytes) -> bytes:
    return json.dumps({"manifests": [entry(inner)]}).encode()


ATTESTATION = {"architecture": "unknown", "os": "unknown"}


def test_the_same_image_by_both() -> None:
    check(archive(entry(manifest_of(GOOD))))
    check(archive(entry(manifest_of(GOOD)), entry(manifest_of(EVIL), platform=ATTESTATION)))
    check(archive(entry(nested(manifest_of(GOOD))), blobs=(nested(manifest_of(GOOD)),)))


def test_an_archive_without_a_layout() -> None:
    check(classic(GOOD))


@pytest.mark.parametrize(
    "content",
    [
        archive(entry(manifest_of(EVIL))),
        archive(entry(manifest_of(GOOD)), entry(manifest_of(EVIL))),
        archive(entry(nested(manifest_of(EVIL))), blobs=(nested(manifest_of(EVIL)),)),
        archive(entry(b"{}"), blobs=(b"{}",)),
    ],
)
def test_another_image_by_the_layout(content: bytes) -> None:
    with pytest.raises(DigestMismatch, match="another one by its index"):
        check(content)


def test_layers_that_each_reader_finds_elsewhere() -> None:
    """By manifest.json a good file of its own; by the layout a blob that is called so and holds other bytes."""
    files = {
        "good.tar": GOOD.layers[0],
        f"blobs/sha256/{GOOD.parsed.diff_ids[0].hex}": EVIL.layers[0],
        f"blobs/sha256/{GOOD.parsed.digest.hex}": GOOD.config,
        f"blobs/sha256/{Digest.of(manifest_of(GOOD)).hex}": manifest_of(GOOD),
        "index.json": json.dumps({"manifests": [entry(manifest_of(GOOD))]}).encode(),
    }
    listed = {"Config": f"blobs/sha256/{GOOD.parsed.digest.hex}", "Layers": ["good.tar"]}
    with pytest.raises(DigestMismatch, match="at two places"):
        check(tar({**files, "manifest.json": json.dumps([listed]).encode()}))


def test_a_repeated_layer_that_stands_at_two_places() -> None:
    twice = image(files_of(b"good"), files_of(b"good"))
    files = {"1.tar": twice.layers[0], "2.tar": EVIL.layers[0], "c.json": twice.config}
    listed = {"Config": "c.json", "Layers": ["1.tar", "2.tar"]}
    with pytest.raises(DigestMismatch, match="at two places"):
        check(tar({**files, "manifest.json": json.dumps([listed]).encode()}))


@pytest.mark.parametrize(
    "content",
    [
        archive(entry(b"not there")),
        archive({"digest": "md5:x"}),
        archive({"digest": 7}),
        archive({}),
        archive(),
        archive(entry(manifest_of(EVIL), platform=ATTESTATION)),
        archive(*[entry(manifest_of(GOOD))] * 1001),
    ],
)
def test_layouts_that_lead_nowhere(content: bytes) -> None:
    with pytest.raises(ContentError):
        check(content)

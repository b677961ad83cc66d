# SPDX-License-Identifier: Apache-2.0
"""What is written beside an archive: records, their signatures, and the seal."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest

from arv_docker.errors import ContentError
from arv_docker.model.image import Digest
from arv_docker.store.metadata import (
    Metadata,
    SealedForm,
    Wfexs,
    digest_of,
    record_of,
    record_signature,
    seal,
    signature_of,
    unseal,
)

from ..archives import files_of, image

APP = image(
    files_of(b"app"),
    os="linux",
    architecture="arm",
    variant="v7",
    created="2024-01-02T03:04:05Z",
    config={"Cmd": ["x"]},
)
ARCHIVE = Digest.of(b"the archive")
RECORD = record_of(APP.parsed, 123, ["reg.example/app@sha256:" + "0" * 64])
METADATA = Metadata(APP.parsed.digest, ARCHIVE, RECORD)


def signed(*records: object) -> str:
    """The signature as docs/spec/wfexs.md#metadata has it, written apart from the code."""
    text = json.dumps(records, sort_keys=True).encode()
    return "sha256=" + base64.b64encode(hashlib.sha256(text).digest()).decode()


@pytest.mark.conforms("W5")
def test_the_record_of_an_image() -> None:
    expected = {
        "Id": str(APP.parsed.digest),
        "RepoTags": [],
        "RepoDigests": ["reg.example/app@sha256:" + "0" * 64],
        "Created": "2024-01-02T03:04:05Z",
        "Os": "linux",
        "Architecture": "arm",
        "Variant": "v7",
        "Size": 123,
        "Config": {"Cmd": ["x"]},
        "RootFS": {"Type": "layers", "Layers": [str(it) for it in APP.parsed.diff_ids]},
    }
    assert record_of(APP.parsed, 123, ["reg.example/app@sha256:" + "0" * 64]) == expected


@pytest.mark.conforms("W5")
def test_the_signature_leaves_out_what_changes_though_the_image_does_not() -> None:
    without = {key: value for key, value in RECORD.items() if key != "RepoDigests"}
    assert record_signature([RECORD]) == signed(without) == record_signature([{**RECORD, "RepoDigests": ["other"]}])
    assert record_signature([{**RECORD, "Architecture": "amd64"}]) != record_signature([RECORD])
    podman = {key: value for key, value in without.items() if key != "Size"}
    assert record_signature([{**RECORD, "Digest": "x", "VirtualSize": 1}], "podman") == signed(podman)


def test_signatures_are_digests() -> None:
    assert signature_of(Digest.of(b"")) == "sha256=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    assert digest_of(signature_of(ARCHIVE)) == ARCHIVE
    for text in ("", "sha256=", "md5=abcd", "sha256=abcd", "sha256=!" + "A" * 43):
        with pytest.raises(ValueError):
            digest_of(text)


@pytest.mark.conforms("W5")
@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_the_form_of_wfexs_has_four_keys(engine: str) -> None:
    document = json.loads(Wfexs(engine).dump(METADATA))
    identity = str(APP.parsed.digest) if engine == "docker" else APP.parsed.digest.hex
    assert sorted(document) == ["image_id", "image_signature", "manifests", "manifests_signature"]
    assert document["image_id"] == document["manifests"][0]["Id"] == identity
    assert document["image_signature"] == signature_of(ARCHIVE)
    assert document["manifests_signature"] == record_signature([{**RECORD, "Id": identity}], engine)
    found = Wfexs(engine).load(Wfexs(engine).dump(METADATA))
    assert (found.image_id, found.archive) == (METADATA.image_id, METADATA.archive)
    assert found.repo_digests == METADATA.repo_digests


def test_our_form_has_a_seal_over_everything() -> None:
    raw = SealedForm().dump(METADATA)
    assert SealedForm().load(raw) == METADATA
    for place in range(len(raw)):
        for bit in (0, 5):
            damaged = bytearray(raw)
            damaged[place] ^= 1 << bit
            with pytest.raises(ContentError):
                SealedForm().load(bytes(damaged))


@pytest.mark.parametrize("key", ["image_id", "image_signature", "manifests", "manifests_signature"])
def test_documents_whose_parts_do_not_agree(key: str) -> None:
    document = unseal(SealedForm().dump(METADATA))
    values: tuple[object, ...] = (None, 1, "x", [], [{}], ["x"])
    for value in values:
        with pytest.raises(ContentError):
            SealedForm().load(seal({**document, key: value}))
    del document[key]
    with pytest.raises(ContentError):
        SealedForm().load(seal(document))
